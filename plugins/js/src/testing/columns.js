// Rows as fixtures have them to columns of a batch, and back.

import { DictColumn, columnOf } from "../column.js";
import { ALIASES, CORE, GROUPS, REST_LETTERS, attribute, fieldOf } from "../layout.js";
import { Double, parseJson, stableJson } from "./json.js";

const JSON_COLUMNS = ["entity_refs", "span_events", "links", "metadata", "quantiles", "exemplars", "duplicate_attrs"];
const text = (name) => ({ name, nullable: false, type: "utf8", keys: null, children: [] });
const REST_ENTRY = { name: "item", nullable: false, type: "struct", keys: null, children: ["key", "type", "text"].map(text) };
const restField = (name) => ({ name, nullable: true, type: "list", keys: null, children: [REST_ENTRY] });

/** Columns by name. `defaults` are values of core columns for rows that name none. */
export function columnsOf(rows, defaults, dictionaries) {
  const cells = new Map();
  const put = (name, row, value) => {
    if (!cells.has(name)) cells.set(name, new Array(rows.length).fill(null));
    cells.get(name)[row] = value;
  };
  rows.forEach((row, index) => {
    for (const [key, value] of Object.entries({ ...defaults, ...row })) {
      if (value !== null) takeMember(key, value, (name, cell) => put(name, index, cell));
    }
  });
  return new Map([...cells].map(([name, values]) => [name, columnFor(name, values, dictionaries)]));
}

function takeMember(key, value, put) {
  const group = key.endsWith(":*") ? key.slice(0, -2) : key;
  if (ALIASES[key]) put(ALIASES[key], key === "duration" ? core("duration_ns", value) : value);
  else if (GROUPS.includes(key)) {
    for (const [name, inner] of Object.entries(value)) {
      const [letter, cell] = attributeCell(inner);
      put(`${key}:${letter}:${name}`, cell);
    }
  } else if (GROUPS.includes(group)) {
    put(key, Object.entries(value).map(([name, inner]) => restEntry(name, inner)));
  } else if (key === "body") {
    const [letter, cell] = attributeCell(value);
    put("body", letter === "s" ? cell : restText(letter, cell));
    if (letter !== "s") put("body_type", typeName(letter, cell));
  } else if (CORE[key]) put(key, core(key, value));
  else throw new Error(`a row has \`${key}\`, which is no column`);
}

function core(name, value) {
  if (JSON_COLUMNS.includes(name)) return typeof value === "string" ? value : stableJson(value);
  const { type } = CORE[name];
  if (type === "fixed") return Uint8Array.from(value.match(/../g) ?? [], (digits) => parseInt(digits, 16));
  if (type === "list") return value.map((item) => (CORE[name].item === "float64" ? Number(item) : item));
  if (type === "float64") return Number(value);
  if (type === "int64" || type === "uint64") return BigInt(value);
  return value instanceof Double ? Number(value) : value;
}

/** Type letter and value of an attribute. */
function attributeCell(value) {
  if (value === null) return ["n", true];
  if (typeof value === "string") return ["s", value];
  if (typeof value === "boolean") return ["b", value];
  if (value instanceof Double) return ["d", Number(value)];
  if (typeof value === "number" || typeof value === "bigint") return ["i", value];
  const [[key, inner] = [], ...others] = Object.entries(value);
  if (others.length === 0 && !Array.isArray(value)) {
    if (key === "$bytes") return ["y", Uint8Array.from(Buffer.from(inner, "base64"))];
    if (key === "$double") return ["d", Number(inner)];
    if (key === "$int") return ["i", BigInt(inner)];
  }
  return ["j", stableJson(value)];
}

const typeName = (letter, cell) =>
  letter === "j" ? (cell.startsWith("[") ? "array" : "kvlist") : Object.keys(REST_LETTERS).find((name) => REST_LETTERS[name] === letter);

function restText(letter, cell) {
  if (letter === "n") return "";
  if (letter === "y") return Buffer.from(cell).toString("base64");
  return letter === "d" && Number.isInteger(cell) ? cell.toFixed(1) : String(cell);
}

function restEntry(key, value) {
  const [letter, cell] = attributeCell(value);
  return { key, type: typeName(letter, cell), text: restText(letter, cell) };
}

function columnFor(name, values, dictionaries) {
  const field = GROUPS.includes(name.slice(0, -2)) ? restField(name) : fieldOf(name);
  if (!dictionaries || !field.keys) return columnOf({ ...field, keys: null }, values);
  const different = [...new Set(values.filter((value) => value !== null))];
  const plain = columnOf({ ...field, keys: null }, values);
  const keys = Uint16Array.from(values, (value) => Math.max(0, different.indexOf(value)));
  return new DictColumn(field, values.length, plain.nulls, keys, columnOf({ ...field, keys: null }, different));
}

/** Rows in the one form that is compared: attributes by group with type and text, rare ones beside the others. */
export function rowsOf(columns, count) {
  const rows = Array.from({ length: count }, () => ({}));
  for (const [name, column] of columns) {
    const place = attribute(name);
    const group = name.endsWith(":*") ? name.slice(0, -2) : null;
    column.array().forEach((value, index) => {
      const row = rows[index];
      if (value === null) return;
      if (group) for (const { key, type, text } of value) show(row, group, key, REST_LETTERS[type], text);
      else if (place) show(row, place.group, place.key, place.letter, restText(place.letter, value));
      else row[name] = shownCore(name, value);
    });
  }
  return rows.map(sorted);
}

/** One key has one value; should a plugin have given it a second one of another type, that is shown, too. */
function show(row, group, key, letter, text) {
  const shown = `${letter}: ${letter === "j" ? stableJson(parseJson(text)) : text}`;
  const name = `${group}.${key}`;
  row[name] = row[name] === undefined ? shown : `${row[name]} and ${shown}`;
}

function shownCore(name, value) {
  if (CORE[name].type === "fixed") return Buffer.from(value).toString("hex");
  if (CORE[name].type === "list") return value.map(String);
  if (typeof value === "bigint" || CORE[name].type.endsWith("int64")) return String(value);
  return JSON_COLUMNS.includes(name) ? stableJson(parseJson(value)) : value;
}

const sorted = (row) => Object.fromEntries(Object.keys(row).sort().map((key) => [key, row[key]]));
