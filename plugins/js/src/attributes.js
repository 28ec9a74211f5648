// Attributes by key, over the columns of all types and the rare attributes of their group.

import { PluginError } from "./error.js";
import { LETTERS, REST_LETTERS } from "./layout.js";

/** The values of an attribute by row, `undefined` where there is none. */
export function attributeValues(batch, group, key) {
  let values = null;
  let declared = false;
  for (const letter of LETTERS) {
    const name = `${group}:${letter}:${key}`;
    if (!batch.declares(name)) continue;
    declared = true;
    const column = batch.column(name);
    if (!column || letter === "n") continue;
    const own = column.array();
    if (values === null && column.nulls === null) values = own;
    else {
      values = values === null ? new Array(batch.rows) : Array.from(values);
      for (let row = 0; row < own.length; row++) if (own[row] !== null) values[row] = own[row];
    }
  }
  const rest = restOf(batch, group)?.get(key);
  if (rest) {
    values = values === null ? new Array(batch.rows) : Array.from(values);
    for (const [row, value] of rest) values[row] = value;
  }
  if (!declared && !batch.declares(`${group}:*`)) {
    throw new PluginError(`reads the attribute \`${group}.${key}\`, which is not among its \`reads\`; add it there`);
  }
  return values ?? new Array(batch.rows).fill(undefined);
}

const REST_INDEX = new WeakMap();

/** Rare attributes of a group: by key, the values by row; `null` if the batch has none. */
export function restOf(batch, group) {
  const name = `${group}:*`;
  if (!batch.declares(name)) return null;
  const column = batch.column(name);
  if (!column) return null;
  let index = REST_INDEX.get(column);
  if (index) return index;
  index = new Map();
  column.array().forEach((entries, row) => {
    for (const { key, type, text } of entries ?? []) {
      if (!index.has(key)) index.set(key, new Map());
      index.get(key).set(row, restValue(type, text));
    }
  });
  REST_INDEX.set(column, index);
  return index;
}

function restValue(type, text) {
  switch (REST_LETTERS[type]) {
    case "i":
      return Number.isSafeInteger(Number(text)) ? Number(text) : BigInt(text);
    case "d":
      return Number(text);
    case "b":
      return text === "true";
    case "y":
      return Uint8Array.from(atob(text), (unit) => unit.charCodeAt(0));
    case "n":
      return undefined;
    default:
      return text;
  }
}
