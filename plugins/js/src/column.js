// Columns as they lie in an Arrow IPC stream. A column decodes nothing before somebody asks for a value.

import { PluginError } from "./error.js";
import { Texts, joinTexts } from "./text.js";

const SAFE_HIGH_WORD = 0x20_0000;
const TWO_TO_32 = 4_294_967_296;

/** A column of a batch; `type` is its Arrow type without dictionary: `utf8`, `int64`, `float64`, `bool`, `binary`, … */
export class Column {
  /** `nulls` has one bit per row, set where there is a value; `null` means that every row has one. */
  constructor(field, length, nulls = null) {
    this.field = field;
    this.length = length;
    this.nulls = nulls;
  }

  get type() {
    return this.field.type;
  }

  /** The same values under another name. */
  as(field) {
    const copy = Object.create(Object.getPrototypeOf(this), Object.getOwnPropertyDescriptors(this));
    copy.field = field;
    return copy;
  }

  isNull(row) {
    return this.nulls !== null && (this.nulls[row >> 3] & (1 << (row & 7))) === 0;
  }

  /** The value of a row, or `null`. */
  get(row) {
    return this.isNull(row) ? null : this.value(row);
  }

  /** All values by row, `null` where there is none. Do not change it. */
  array() {
    return (this.cached ??= this.makeArray());
  }

  makeArray() {
    const out = new Array(this.length);
    for (let row = 0; row < out.length; row++) out[row] = this.isNull(row) ? null : this.value(row);
    return out;
  }
}

/** int32, uint32 and float64. */
export class NumberColumn extends Column {
  constructor(field, length, nulls, values) {
    super(field, length, nulls);
    this.values = values;
  }

  value(row) {
    return this.values[row];
  }

  makeArray() {
    return this.nulls === null ? this.values : super.makeArray();
  }

  write(body) {
    body.node(this);
    body.buffer(this.values);
  }
}

/** int64 and uint64: a Number where that is exact, else a BigInt. */
export class LongColumn extends Column {
  constructor(field, length, nulls, longs) {
    super(field, length, nulls);
    this.longs = longs;
    this.words = new Int32Array(longs.buffer, longs.byteOffset, 2 * longs.length);
  }

  value(row) {
    // Most values are small, and making a BigInt of each is slow.
    const high = this.words[2 * row + 1];
    if (high >= SAFE_HIGH_WORD || high < -SAFE_HIGH_WORD) return this.longs[row];
    return high * TWO_TO_32 + (this.words[2 * row] >>> 0);
  }

  /** The value as BigInt, however small, or `null`. */
  bigint(row) {
    return this.isNull(row) ? null : this.longs[row];
  }

  write(body) {
    body.node(this);
    body.buffer(this.longs);
  }
}

export class BoolColumn extends Column {
  constructor(field, length, nulls, bits) {
    super(field, length, nulls);
    this.bits = bits;
  }

  value(row) {
    return (this.bits[row >> 3] & (1 << (row & 7))) !== 0;
  }

  write(body) {
    body.node(this);
    body.buffer(this.bits);
  }
}

/** Text without a dictionary. */
export class TextColumn extends Column {
  constructor(field, length, nulls, offsets, bytes) {
    super(field, length, nulls);
    this.offsets = offsets;
    this.bytes = bytes;
    this.texts = new Texts(offsets, bytes);
  }

  value(row) {
    return this.texts.get(row);
  }

  /** The column with every text replaced by what `change` makes of it. */
  map(change) {
    return textColumn(this.field, this.array().map((text) => (text === null ? null : change(text))));
  }

  write(body) {
    body.node(this);
    body.buffer(this.offsets);
    body.buffer(this.bytes);
  }
}

/** Text with a dictionary: each different text lies there once. */
export class DictColumn extends Column {
  constructor(field, length, nulls, keys, dictionary) {
    super(field, length, nulls);
    this.keys = keys;
    this.dictionary = dictionary;
  }

  value(row) {
    const key = this.keys[row];
    return key < this.dictionary.length ? this.dictionary.get(key) : null;
  }

  makeArray() {
    const texts = this.dictionary.array();
    const keys = this.keys;
    const out = new Array(this.length);
    for (let row = 0; row < out.length; row++) out[row] = this.isNull(row) ? null : (texts[keys[row]] ?? null);
    return out;
  }

  /** The column with every text replaced by what `change` makes of it, which is called once for each different text. */
  map(change) {
    return new DictColumn(this.field, this.length, this.nulls, this.keys, this.dictionary.map(change));
  }

  write(body) {
    body.node(this);
    body.buffer(this.keys);
    return this.dictionary;
  }
}

/** Bytes of any length. */
export class BinaryColumn extends Column {
  constructor(field, length, nulls, offsets, bytes) {
    super(field, length, nulls);
    this.offsets = offsets;
    this.bytes = bytes;
  }

  value(row) {
    return this.bytes.subarray(this.offsets[row], this.offsets[row + 1]);
  }

  write(body) {
    body.node(this);
    body.buffer(this.offsets);
    body.buffer(this.bytes);
  }
}

/** Bytes of one length: trace and span ids. */
export class FixedColumn extends Column {
  constructor(field, length, nulls, bytes) {
    super(field, length, nulls);
    this.bytes = bytes;
  }

  value(row) {
    const width = this.field.width;
    return this.bytes.subarray(row * width, (row + 1) * width);
  }

  write(body) {
    body.node(this);
    body.buffer(this.bytes);
  }
}

/** Lists of another column's values. */
export class ListColumn extends Column {
  constructor(field, length, nulls, offsets, items) {
    super(field, length, nulls);
    this.offsets = offsets;
    this.items = items;
  }

  value(row) {
    const out = [];
    const end = Math.min(this.offsets[row + 1], this.items.length);
    for (let item = this.offsets[row]; item < end; item++) out.push(this.items.get(item));
    return out;
  }

  write(body) {
    body.node(this);
    body.buffer(this.offsets);
    body.column(this.items);
  }
}

/** Rows of named values. */
export class StructColumn extends Column {
  constructor(field, length, nulls, columns) {
    super(field, length, nulls);
    this.columns = columns;
  }

  value(row) {
    return Object.fromEntries(this.columns.map((column) => [column.field.name, column.get(row)]));
  }

  write(body) {
    body.node(this);
    for (const column of this.columns) body.column(column);
  }
}

/** A column of these values, `null` where a row has none. Values of another type throw. */
export function columnOf(field, values) {
  switch (field.type) {
    case "utf8":
      return textColumn(field, values);
    case "int64":
    case "uint64":
      return longColumn(field, values);
    case "int32":
      return numberColumn(field, values, Int32Array);
    case "uint32":
      return numberColumn(field, values, Uint32Array);
    case "float64":
      return numberColumn(field, values, Float64Array);
    case "bool":
      return boolColumn(field, values);
    case "binary":
      return binaryColumn(field, values);
    case "fixed":
      return fixedColumn(field, values);
    case "list":
      return listColumn(field, values);
    case "struct":
      return structColumn(field, values);
    default:
      throw new TypeError(`columns of type ${field.type} cannot be made`);
  }
}

// The value itself stays out of the text: it may be what a mask is there to hide.
const wrong = (field, row, value) =>
  new PluginError(`column \`${field.name}\` holds ${field.type}; row ${row} was given ${typeof value} that does not fit`);

/** One bit per row, set where there is a value; `null` if all have one. */
function present(values) {
  let bits = null;
  for (let row = 0; row < values.length; row++) {
    if (values[row] !== null && values[row] !== undefined) continue;
    bits ??= allSet(values.length);
    bits[row >> 3] &= ~(1 << (row & 7));
  }
  return bits;
}

/** Bits for so many rows, all set. */
export function allSet(rows) {
  const bits = new Uint8Array((rows + 7) >> 3).fill(0xff);
  if (rows & 7) bits[bits.length - 1] = (1 << (rows & 7)) - 1;
  return bits;
}

// A dictionary costs a look-up per row; it pays as long as texts repeat. Rows looked at before that is decided.
const DICTIONARY_TRIAL = 256;
const MAX_UINT16_KEYS = 65_536;

function textColumn(field, values) {
  const nulls = present(values);
  const texts = Array.from(values, (value, row) => {
    if (value === null || value === undefined) return null;
    if (typeof value !== "string") throw wrong(field, row, value);
    return value;
  });
  if (field.keys !== null) {
    const dictionary = dictionaryColumn(field, texts, nulls);
    if (dictionary) return dictionary;
  }
  const { offsets, bytes } = joinTexts(texts);
  return new TextColumn({ ...field, keys: null }, texts.length, nulls, offsets, bytes);
}

/** `null` if so many texts differ that a dictionary would not pay, or if there is nothing to put into it. */
function dictionaryColumn(field, texts, nulls) {
  const seen = new Map();
  const keys = new Uint32Array(texts.length);
  for (let row = 0; row < texts.length; row++) {
    const text = texts[row];
    if (text === null) continue;
    let key = seen.get(text);
    if (key === undefined) {
      key = seen.size;
      seen.set(text, key);
      if (row >= DICTIONARY_TRIAL && 2 * key > row) return null;
    }
    keys[row] = key;
  }
  if (seen.size === 0 || (2 * seen.size > texts.length && texts.length > 1)) return null;
  const { offsets, bytes } = joinTexts([...seen.keys()]);
  const small = seen.size <= MAX_UINT16_KEYS;
  const dictionary = new TextColumn({ ...field, keys: null }, seen.size, null, offsets, bytes);
  const narrowed = small ? Uint16Array.from(keys) : keys;
  return new DictColumn({ ...field, keys: small ? "uint16" : "uint32" }, texts.length, nulls, narrowed, dictionary);
}

function longColumn(field, values) {
  const unsigned = field.type === "uint64";
  const longs = unsigned ? new BigUint64Array(values.length) : new BigInt64Array(values.length);
  const [least, most] = unsigned ? [0n, 2n ** 64n - 1n] : [-(2n ** 63n), 2n ** 63n - 1n];
  for (let row = 0; row < values.length; row++) {
    const value = values[row];
    if (value === null || value === undefined) continue;
    if (typeof value === "number" ? !Number.isInteger(value) : typeof value !== "bigint") throw wrong(field, row, value);
    const long = BigInt(value);
    if (long < least || long > most) throw wrong(field, row, value);
    longs[row] = long;
  }
  return new LongColumn(field, values.length, present(values), longs);
}

function numberColumn(field, values, ArrayType) {
  const numbers = new ArrayType(values.length);
  for (let row = 0; row < values.length; row++) {
    const value = values[row];
    if (value === null || value === undefined) continue;
    if (typeof value !== "number") throw wrong(field, row, value);
    numbers[row] = value;
    // An integer that wrapped, or a fraction that was cut.
    if (ArrayType !== Float64Array && numbers[row] !== value) throw wrong(field, row, value);
  }
  return new NumberColumn(field, values.length, present(values), numbers);
}

function boolColumn(field, values) {
  const bits = new Uint8Array((values.length + 7) >> 3);
  for (let row = 0; row < values.length; row++) {
    const value = values[row];
    if (value === true) bits[row >> 3] |= 1 << (row & 7);
    else if (value !== false && value !== null && value !== undefined) throw wrong(field, row, value);
  }
  return new BoolColumn(field, values.length, present(values), bits);
}

function binaryColumn(field, values) {
  const offsets = new Int32Array(values.length + 1);
  values.forEach((value, row) => {
    if (value !== null && value !== undefined && !(value instanceof Uint8Array)) throw wrong(field, row, value);
    offsets[row + 1] = offsets[row] + (value?.length ?? 0);
  });
  const bytes = new Uint8Array(offsets[values.length]);
  values.forEach((value, row) => value && bytes.set(value, offsets[row]));
  return new BinaryColumn(field, values.length, present(values), offsets, bytes);
}

function fixedColumn(field, values) {
  const bytes = new Uint8Array(values.length * field.width);
  values.forEach((value, row) => {
    if (value === null || value === undefined) return;
    if (!(value instanceof Uint8Array) || value.length !== field.width) throw wrong(field, row, value);
    bytes.set(value, row * field.width);
  });
  return new FixedColumn(field, values.length, present(values), bytes);
}

function listColumn(field, values) {
  const offsets = new Int32Array(values.length + 1);
  const items = [];
  values.forEach((value, row) => {
    if (value !== null && value !== undefined) {
      if (!Array.isArray(value)) throw wrong(field, row, value);
      for (const item of value) items.push(item);
    }
    offsets[row + 1] = items.length;
  });
  return new ListColumn(field, values.length, present(values), offsets, columnOf(field.children[0], items));
}

function structColumn(field, values) {
  const columns = field.children.map((child) => columnOf(child, values.map((value) => value?.[child.name] ?? null)));
  return new StructColumn(field, values.length, present(values), columns);
}
