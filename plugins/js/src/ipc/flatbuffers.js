// The little of FlatBuffers that Arrow's metadata needs: tables, vectors, texts and structs of two longs.
//
// Every place read comes from the bytes themselves, so each access is checked: DataView throws a RangeError outside of them,
// and lengths are compared with what is there before anything loops over them.

import { decodeText, encodeText } from "../text.js";

/** A table in bytes. Fields are named by their number in Arrow's schema files; an absent field reads as its default. */
export class Table {
  #view;
  #at;
  #fields;
  #fieldsEnd;

  constructor(view, at) {
    this.#view = view;
    this.#at = at;
    this.#fields = at - view.getInt32(at, true);
    this.#fieldsEnd = this.#fields + view.getUint16(this.#fields, true);
  }

  static root(bytes) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    return new Table(view, view.getUint32(0, true));
  }

  /** Where the field lies; 0 if it is absent. */
  #place(field) {
    const slot = this.#fields + 4 + 2 * field;
    if (slot >= this.#fieldsEnd) return 0;
    const offset = this.#view.getUint16(slot, true);
    return offset === 0 ? 0 : this.#at + offset;
  }

  /** Where the field points to; 0 if it is absent. */
  #target(field) {
    const place = this.#place(field);
    return place === 0 ? 0 : place + this.#view.getUint32(place, true);
  }

  byte(field) {
    const place = this.#place(field);
    return place === 0 ? 0 : this.#view.getUint8(place);
  }

  short(field) {
    const place = this.#place(field);
    return place === 0 ? 0 : this.#view.getInt16(place, true);
  }

  int(field) {
    const place = this.#place(field);
    return place === 0 ? 0 : this.#view.getInt32(place, true);
  }

  long(field) {
    const place = this.#place(field);
    return place === 0 ? 0 : size(this.#view.getBigInt64(place, true));
  }

  has(field) {
    return this.#place(field) !== 0;
  }

  text(field) {
    const target = this.#target(field);
    if (target === 0) return "";
    const length = this.#view.getUint32(target, true);
    this.#room(target + 4, length);
    return decodeText(new Uint8Array(this.#view.buffer, this.#view.byteOffset + target + 4, length));
  }

  table(field) {
    const target = this.#target(field);
    return target === 0 ? null : new Table(this.#view, target);
  }

  tables(field) {
    const target = this.#target(field);
    if (target === 0) return [];
    const count = this.#count(target, 4);
    return Array.from({ length: count }, (_, index) => {
      const place = target + 4 + 4 * index;
      return new Table(this.#view, place + this.#view.getUint32(place, true));
    });
  }

  /** A vector of structs of two longs each, as `[first, second]`. */
  pairs(field) {
    const target = this.#target(field);
    if (target === 0) return [];
    const count = this.#count(target, 16);
    return Array.from({ length: count }, (_, index) => {
      const place = target + 4 + 16 * index;
      return [size(this.#view.getBigInt64(place, true)), size(this.#view.getBigInt64(place + 8, true))];
    });
  }

  #count(target, bytesEach) {
    const count = this.#view.getUint32(target, true);
    this.#room(target + 4, count * bytesEach);
    return count;
  }

  #room(start, length) {
    if (start + length > this.#view.byteLength) throw new RangeError("cut off");
  }
}

function size(long) {
  if (long < 0n || long > 0x7fff_ffffn) throw new RangeError(`a length of ${long}`);
  return Number(long);
}

const WIDTHS = { byte: 1, short: 2, int: 4, long: 8, ref: 4 };

/** What `encode` writes: fields as `[number, kind, value]`, kinds `byte`, `short`, `int`, `long` and `ref`. */
export const table = (...fields) => ({ fields: fields.filter(([, , value]) => value !== undefined) });
export const text = (value) => ({ text: encodeText(value) });
export const tables = (items) => ({ items });
/** A vector of structs of two longs. */
export const pairs = (items) => ({ pairs: items });

/** A buffer whose root is this table, as long as a multiple of 8. Parents come before what they point to. */
export function encode(root) {
  const out = new Output();
  out.reserve(4);
  out.uint32(0, out.write(root));
  out.align(8);
  return out.bytes();
}

class Output {
  #bytes = new Uint8Array(1024);
  #view = new DataView(this.#bytes.buffer);
  #length = 0;

  bytes() {
    return this.#bytes.subarray(0, this.#length);
  }

  uint32(at, value) {
    this.#view.setUint32(at, value, true);
  }

  align(to) {
    this.reserve((to - (this.#length % to)) % to);
  }

  /** Room of so many zero bytes; answers where it begins. */
  reserve(bytes) {
    const start = this.#length;
    if (start + bytes > this.#bytes.length) {
      const grown = new Uint8Array(2 * (start + bytes));
      grown.set(this.#bytes);
      this.#bytes = grown;
      this.#view = new DataView(grown.buffer);
    }
    this.#length += bytes;
    return start;
  }

  write(node) {
    if (node.fields) return this.#table(node.fields);
    if (node.text) return this.#text(node.text);
    return node.pairs ? this.#pairs(node.pairs) : this.#vector(node.items);
  }

  #table(fields) {
    const slots = fields.reduce((most, [field]) => Math.max(most, field + 1), 0);
    this.align(2);
    const index = this.reserve(4 + 2 * slots);
    // Wide fields first, so that none needs padding but the first.
    const ordered = [...fields].sort(([, a], [, b]) => WIDTHS[b] - WIDTHS[a]);
    const widest = ordered.length === 0 ? 4 : WIDTHS[ordered[0][1]];
    let offset = widest === 8 ? 8 : 4;
    const places = ordered.map(([, kind]) => {
      const place = offset;
      offset += WIDTHS[kind];
      return place;
    });
    this.align(8);
    const at = this.reserve(offset);
    this.#view.setInt32(at, at - index, true);
    this.#view.setUint16(index, 4 + 2 * slots, true);
    this.#view.setUint16(index + 2, offset, true);
    ordered.forEach(([field, kind, value], order) => {
      this.#view.setUint16(index + 4 + 2 * field, places[order], true);
      this.#field(at + places[order], kind, value);
    });
    return at;
  }

  #field(place, kind, value) {
    if (kind === "byte") this.#view.setUint8(place, value);
    else if (kind === "short") this.#view.setInt16(place, value, true);
    else if (kind === "int") this.#view.setInt32(place, value, true);
    else if (kind === "long") this.#view.setBigInt64(place, BigInt(value), true);
    else this.uint32(place, this.write(value) - place);
  }

  #text(bytes) {
    this.align(4);
    const at = this.reserve(4 + bytes.length + 1);
    this.uint32(at, bytes.length);
    this.#bytes.set(bytes, at + 4);
    return at;
  }

  #vector(items) {
    this.align(4);
    const at = this.reserve(4 + 4 * items.length);
    this.uint32(at, items.length);
    items.forEach((item, index) => {
      const place = at + 4 + 4 * index;
      this.uint32(place, this.write(item) - place);
    });
    return at;
  }

  #pairs(items) {
    // The structs behind the length have to lie at a multiple of 8.
    this.align(8);
    const at = this.reserve(8 + 16 * items.length) + 4;
    this.uint32(at, items.length);
    items.forEach(([first, second], index) => {
      this.#view.setBigInt64(at + 4 + 16 * index, BigInt(first), true);
      this.#view.setBigInt64(at + 12 + 16 * index, BigInt(second), true);
    });
    return at;
  }
}
