// From columns to the bytes of an Arrow IPC stream. Buffers are copied once, into the stream.

import { encode, pairs, table, tables, text } from "./flatbuffers.js";
import { DICTIONARY_BATCH, RECORD_BATCH, SCHEMA } from "./read.js";

const VERSION_5 = 4;
const ALIGNMENT = 8;

/** A stream with one record batch of these columns, which all have `rows` rows. */
export function write(columns, rows) {
  const body = new Body();
  const dictionaries = [];
  for (const column of columns) {
    const values = body.column(column);
    if (!values) continue;
    const dictionary = new Body();
    dictionary.column(values);
    dictionaries.push([dictionary, values.length]);
  }
  let next = 0;
  const fields = columns.map(({ field }) => fieldTable(field, field.keys ? next++ : undefined));
  const parts = [
    ...message(SCHEMA, table([1, "ref", tables(fields)]), 0),
    ...dictionaries.flatMap(([dictionary, length], id) => dictionary.message(length, id)),
    ...body.message(rows),
    new Uint8Array([0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]),
  ];
  return join(parts);
}

function fieldTable(field, dictionary) {
  const [number, detail] = typeTable(field);
  const encoding =
    dictionary === undefined
      ? undefined
      : table([0, "long", dictionary], [1, "ref", table([0, "int", field.keys === "uint16" ? 16 : 32])]);
  return table(
    [0, "ref", text(field.name)],
    [1, "byte", field.nullable ? 1 : 0],
    [2, "byte", number],
    [3, "ref", detail],
    [4, "ref", encoding],
    [5, "ref", tables(field.children.map((child) => fieldTable(child)))],
  );
}

function typeTable(field) {
  switch (field.type) {
    case "utf8":
      return [5, table()];
    case "binary":
      return [4, table()];
    case "bool":
      return [6, table()];
    case "float64":
      return [3, table([0, "short", 2])];
    case "list":
      return [12, table()];
    case "struct":
      return [13, table()];
    case "fixed":
      return [15, table([0, "int", field.width])];
    default: {
      const unsigned = field.type.startsWith("u");
      const width = Number(field.type.slice(unsigned ? 4 : 3));
      return [2, table([0, "int", width], [1, "byte", unsigned ? 0 : 1])];
    }
  }
}

function message(kind, header, bodyLength) {
  const meta = encode(
    table([0, "short", VERSION_5], [1, "byte", kind], [2, "ref", header], [3, "long", bodyLength]),
  );
  const head = new Uint8Array(8).fill(0xff, 0, 4);
  new DataView(head.buffer).setUint32(4, meta.length, true);
  return [head, meta];
}

function join(parts) {
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

/** The buffers of one message. */
class Body {
  #nodes = [];
  #places = [];
  #parts = [];
  #length = 0;

  /** Takes one column; answers the values of its dictionary, which go into a message of their own. */
  column(column) {
    return column.write(this);
  }

  /** Length and nulls of the column whose buffers follow. */
  node(column) {
    const { length, nulls } = column;
    this.#nodes.push([length, nulls === null ? 0 : length - countSet(nulls, length)]);
    this.buffer(nulls ?? new Uint8Array(0));
  }

  buffer(values) {
    const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    const padding = (ALIGNMENT - (bytes.length % ALIGNMENT)) % ALIGNMENT;
    this.#places.push([this.#length, bytes.length]);
    this.#parts.push(bytes);
    if (padding > 0) this.#parts.push(new Uint8Array(padding));
    this.#length += bytes.length + padding;
  }

  message(rows, dictionary) {
    const records = table([0, "long", rows], [1, "ref", pairs(this.#nodes)], [2, "ref", pairs(this.#places)]);
    const [kind, header] =
      dictionary === undefined
        ? [RECORD_BATCH, records]
        : [DICTIONARY_BATCH, table([0, "long", dictionary], [1, "ref", records])];
    return [...message(kind, header, this.#length), ...this.#parts];
  }
}

const SET_IN_BYTE = Uint8Array.from({ length: 256 }, (_, byte) => {
  let count = 0;
  for (let bits = byte; bits > 0; bits >>= 1) count += bits & 1;
  return count;
});

/** How many of the first `length` bits are set. */
export function countSet(bits, length) {
  let count = 0;
  const whole = length >> 3;
  for (let index = 0; index < whole; index++) count += SET_IN_BYTE[bits[index]];
  if (length & 7) count += SET_IN_BYTE[bits[whole] & ((1 << (length & 7)) - 1)];
  return count;
}
