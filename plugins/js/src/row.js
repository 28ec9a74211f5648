// Row by row: one object that moves over the batch. A column is decoded when the first row asks for it, once per batch.

import { attributeValues } from "./attributes.js";
import { Changes } from "./changes.js";
import { PluginError } from "./error.js";
import { ALIASES, CORE } from "./layout.js";

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
