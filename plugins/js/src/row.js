// Row by row: one object that moves over the batch. A column is decoded when the first row asks for it, once per batch.

import { PluginError } from "./error.js";
import { ALIASES, CORE, LETTERS, REST_LETTERS } from "./layout.js";

const NAMES = Object.keys(CORE);
const camelCase = (name) => name.replace(/_([a-z])/g, (_, letter) => letter.toUpperCase());

/**
 * The row at `index`. Core columns are properties (`severity`, `traceId`, `durationNs`, …); texts that are not there read as
 * empty, severity and counts as 0, the rest as `undefined`, which is neither equal nor less nor greater than anything.
 */
export class Row {
  /** The place of the row in its batch. */
  index = 0;
  #batch;
  #values = new Array(NAMES.length);
  #attributes = new Map();
  #changes;

  constructor(batch, writes) {
    this.#batch = batch;
    this.#changes = new Changes(batch, writes);
  }

  static {
    NAMES.forEach((name, slot) => {
      if (name === "value") return;
      Object.defineProperty(Row.prototype, camelCase(name), {
        get() {
          return (this.#values[slot] ??= coreValues(this.#batch, name))[this.index];
        },
        set(value) {
          this.#setCore(slot, name, value);
        },
      });
    });
  }

  /** Of a metric, whichever number was sent; the integer only if `value_int` is declared, too. */
  get value() {
    const slot = NAMES.indexOf("value");
    this.#values[slot] ??= coreValues(this.#batch, "value");
    return this.#values[slot][this.index] ?? (this.#batch.declares("value_int") ? this.valueInt : undefined);
  }

  set value(value) {
    this.#setCore(NAMES.indexOf("value"), "value", value);
  }

  /** The resource's `service.name`; empty if there is none. */
  get service() {
    return this.resource("service.name") ?? "";
  }

  set service(name) {
    this.setResource("service.name", name);
  }

  /** The resource's `host.name`; empty if there is none. */
  get host() {
    return this.resource("host.name") ?? "";
  }

  set host(name) {
    this.setResource("host.name", name);
  }

  /** The value of an attribute, of whatever type; `undefined` if there is none. */
  attr(key) {
    return this.#attribute("attrs", key)[this.index];
  }

  /** The value of an attribute of the resource. */
  resource(key) {
    return this.#attribute("resource", key)[this.index];
  }

  /** The value of an attribute of the instrumentation scope. */
  scope(key) {
    return this.#attribute("scope", key)[this.index];
  }

  /** Any column by its name in the contract; `null` if the row has no value. */
  column(name) {
    return this.#changes.current(ALIASES[name] ?? name)?.[this.index] ?? this.#batch.column(name)?.get(this.index) ?? null;
  }

  /** Sets an attribute, whatever type it had. Whole numbers are ints, unless only a column of doubles is declared for the key. */
  setAttr(key, value) {
    this.#setAttribute("attrs", key, value);
  }

  setResource(key, value) {
    this.#setAttribute("resource", key, value);
  }

  setScope(key, value) {
    this.#setAttribute("scope", key, value);
  }

  removeAttr(key) {
    this.#setAttribute("attrs", key, undefined);
  }

  removeResource(key) {
    this.#setAttribute("resource", key, undefined);
  }

  removeScope(key) {
    this.#setAttribute("scope", key, undefined);
  }

  /** Puts everything that was changed into the outcome. */
  finish(outcome) {
    return this.#changes.finish(outcome);
  }

  #setCore(slot, name, value) {
    const values = (this.#values[slot] ??= coreValues(this.#batch, name));
    const { absent } = CORE[name];
    const unset = value === undefined || value === null;
    const next = unset ? absent : value;
    if (values[this.index] === next) return;
    // The format has null where such a value would say nothing; an empty body is a body all the same.
    const nothing = unset || (next === absent && name !== "body");
    this.#changes.set(name, this.index, nothing ? null : stored(name, next));
    if (!this.#changes.owns(values)) this.#values[slot] = this.#changes.own(values);
    this.#values[slot][this.index] = next;
  }

  #attribute(group, key) {
    const place = `${group}:${key}`;
    let values = this.#attributes.get(place);
    if (values === undefined) {
      values = attributeValues(this.#batch, group, key);
      this.#attributes.set(place, values);
    }
    return values;
  }

  #setAttribute(group, key, value) {
    const unset = value === undefined || value === null;
    const values = this.#attribute(group, key);
    if (unset ? values[this.index] === undefined : values[this.index] === value) return;
    this.#changes.setAttribute(group, key, this.index, unset ? null : value);
    const own = this.#changes.owns(values) ? values : this.#changes.own(values);
    own[this.index] = unset ? undefined : value;
    this.#attributes.set(`${group}:${key}`, own);
  }
}

/** The values of a core column as rows read them. */
function coreValues(batch, name) {
  const { type, absent, bigint } = CORE[name];
  const column = batch.column(name);
  if (!column) return new Array(batch.rows).fill(absent);
  if (type === "fixed") return Array.from({ length: batch.rows }, (_, row) => (column.isNull(row) ? absent : hex(column.value(row))));
  if (bigint) return Array.from({ length: batch.rows }, (_, row) => column.bigint(row) ?? absent);
  const values = column.array();
  return column.nulls === null ? values : Array.from(values, (value) => value ?? absent);
}

/** The values of an attribute over all its types, and from among the rare attributes. */
function attributeValues(batch, group, key) {
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

/** Rare attributes of a group: by key, the values by row. */
function restOf(batch, group) {
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

const hex = (bytes) => bytes.toHex?.() ?? Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");

/** A value of a core column as its column holds it. */
function stored(name, value) {
  const { type, width, bigint } = CORE[name];
  if (bigint && typeof value === "number") return BigInt(value);
  if (type !== "fixed") return value;
  if (typeof value !== "string" || value.length !== 2 * width || !/^[0-9a-f]*$/i.test(value)) {
    throw new PluginError(`\`${name}\` is ${width} bytes as ${2 * width} hexadecimal digits`);
  }
  return Uint8Array.from({ length: width }, (_, index) => parseInt(value.slice(2 * index, 2 * index + 2), 16));
}

/** The columns that rows changed. */
class Changes {
  #batch;
  #writes;
  #columns = new Map();
  #rest = new Map();
  #places = { attrs: new Map(), resource: new Map(), scope: new Map() };
  #own = new WeakSet();

  constructor(batch, writes) {
    this.#batch = batch;
    this.#writes = writes;
  }

  /** A copy that may be changed. */
  own(values) {
    const copy = Array.from(values);
    this.#own.add(copy);
    return copy;
  }

  owns(values) {
    return this.#own.has(values);
  }

  current(name) {
    return this.#columns.get(name);
  }

  set(name, row, value) {
    let values = this.#columns.get(name);
    if (!values) {
      if (!this.#writes.matches(name)) {
        throw new PluginError(`changes \`${name}\`, which is not among its \`writes\`; add it, or the name that stands for it`);
      }
      values = Array.from(this.#batch.values(name));
      this.#columns.set(name, values);
    }
    values[row] = value;
  }

  /** Sets the value of a key, or takes it away with `null`: what the row has of it in columns of other types goes. */
  setAttribute(group, key, row, value) {
    const place = this.#placeOf(group, key);
    const letter = value === null ? null : place.letter(value);
    for (const { name, letter: other, values } of place.present) {
      if (other !== letter && (this.#columns.get(name) ?? values)[row] !== null) this.set(name, row, null);
    }
    if (place.rest?.has(row)) this.#takeFromRest(group, key, row);
    if (letter === null) return;
    const name = place.names[letter];
    if (!this.#columns.has(name) && !place.present.some((column) => column.name === name)) {
      // New to the batch; from now on it is one of the columns that the key has.
      this.set(name, row, value);
      place.present.push({ name, letter, values: this.#columns.get(name) });
    } else this.set(name, row, value);
  }

  /** Where the values of a key lie, found once per batch. */
  #placeOf(group, key) {
    const keys = this.#places[group];
    let place = keys.get(key);
    if (place) return place;
    const names = Object.fromEntries(LETTERS.map((letter) => [letter, `${group}:${letter}:${key}`]));
    const present = LETTERS.filter((letter) => this.#batch.declares(names[letter]) && this.#batch.column(names[letter]));
    place = {
      names,
      present: present.map((letter) => ({ name: names[letter], letter, values: this.#batch.values(names[letter]) })),
      rest: restOf(this.#batch, group)?.get(key),
      letter: letterFor(key, this.#writes.matches(names.i) || !this.#writes.matches(names.d)),
    };
    keys.set(key, place);
    return place;
  }

  #takeFromRest(group, key, row) {
    const name = `${group}:*`;
    if (!this.#rest.has(name)) this.#rest.set(name, new Map());
    const gone = this.#rest.get(name);
    if (!gone.has(row)) gone.set(row, new Set());
    gone.get(row).add(key);
  }

  finish(outcome) {
    for (const [name, values] of this.#columns) outcome.column(name, values);
    for (const [name, gone] of this.#rest) {
      const lists = this.#batch.column(name).array();
      const kept = lists.map((entries, row) => {
        const keys = gone.get(row);
        return keys ? entries.filter(({ key }) => !keys.has(key)) : entries;
      });
      outcome.column(name, kept);
    }
    return outcome;
  }
}

/** Which type of column a value goes to; whole numbers to ints or doubles. */
function letterFor(key, wholeAreInts) {
  return (value) => {
    switch (typeof value) {
      case "string":
        return "s";
      case "boolean":
        return "b";
      case "bigint":
        return "i";
      case "number":
        return wholeAreInts && Number.isInteger(value) ? "i" : "d";
      default:
        if (value instanceof Uint8Array) return "y";
        throw new PluginError(`attribute \`${key}\` cannot be a value of type ${typeof value}`);
    }
  };
}
