// From the bytes of an Arrow IPC stream to columns that point into them.

import {
  BinaryColumn,
  BoolColumn,
  DictColumn,
  FixedColumn,
  ListColumn,
  LongColumn,
  NumberColumn,
  StructColumn,
  TextColumn,
} from "../column.js";
import { PluginError } from "../error.js";
import { Table } from "./flatbuffers.js";

const CONTINUATION = 0xffff_ffff;
/** Header types of a message. */
export const SCHEMA = 1;
export const DICTIONARY_BATCH = 2;
export const RECORD_BATCH = 3;
/** Fields of one schema, nested ones included; a batch has at most 512 columns of attributes and some 60 others. */
const MAX_FIELDS = 4096;
/** A list of structs of texts. */
const MAX_DEPTH = 4;

/** Number of rows and columns of the first record batch; whatever is not such a stream throws. */
export function read(bytes) {
  try {
    return readStream(aligned(bytes));
  } catch (error) {
    if (error instanceof PluginError) throw error;
    // RangeErrors come from places and lengths outside of the bytes.
    if (error instanceof RangeError) throw new PluginError("batch: cut off or malformed");
    throw error;
  }
}

const fail = (what) => {
  throw new PluginError(`batch: ${what}`);
};

function readStream(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const dictionaries = new Map();
  let fields = null;
  let at = 0;
  while (at + 8 <= bytes.length) {
    if (view.getUint32(at, true) !== CONTINUATION) fail("not an Arrow IPC stream");
    const length = view.getUint32(at + 4, true);
    if (length === 0) break;
    const meta = part(bytes, at + 8, length);
    const message = Table.root(meta);
    const bodyStart = at + 8 + length;
    const body = part(bytes, bodyStart, message.long(3));
    at = bodyStart + body.length;
    const header = message.table(2) ?? fail("a message without a header");
    switch (message.byte(1)) {
      case SCHEMA:
        if (fields) fail("a second schema");
        if (header.short(0) !== 0) fail("big-endian");
        fields = readFields(header.tables(1), 0, { left: MAX_FIELDS });
        break;
      case DICTIONARY_BATCH: {
        if (header.byte(2) !== 0) fail("a delta dictionary");
        const text = { name: "dictionary", type: "utf8", keys: null, children: [] };
        const values = new Columns(header.table(1) ?? fail("no dictionary"), body, dictionaries).next(text);
        dictionaries.set(header.long(0), values);
        break;
      }
      case RECORD_BATCH: {
        if (!fields) fail("no schema before the rows");
        const columns = new Columns(header, body, dictionaries);
        const rows = header.long(0);
        return { rows, columns: fields.map((field) => columns.next(field, rows)) };
      }
      default:
        fail("a message of another kind");
    }
  }
  return fail("no rows");
}

/** Arrays of wide numbers must begin at a multiple of their width. */
function aligned(bytes) {
  return bytes.byteOffset % 8 === 0 ? bytes : bytes.slice();
}

function part(bytes, start, length) {
  if (start + length > bytes.length) fail("cut off");
  return bytes.subarray(start, start + length);
}

function readFields(list, depth, budget) {
  if (depth > MAX_DEPTH) fail("nested too deep");
  budget.left -= list.length;
  if (budget.left < 0) fail(`more than ${MAX_FIELDS} fields`);
  return list.map((entry) => readField(entry, depth, budget));
}

function readField(entry, depth, budget) {
  const name = entry.text(0);
  const detail = entry.table(3);
  const field = { name, nullable: entry.byte(1) !== 0, type: typeName(entry.byte(2), detail), keys: null, children: [] };
  if (!field.type) fail(`column \`${name}\` has a type that batches do not have`);
  if (field.type === "fixed") field.width = detail.int(0);
  if (field.type === "list" || field.type === "struct") {
    field.children = readFields(entry.tables(5), depth + 1, budget);
    if (field.type === "list" && field.children.length !== 1) fail(`column \`${name}\` is a list of nothing`);
  }
  const dictionary = entry.table(4);
  if (dictionary) {
    const keys = dictionary.table(1);
    const width = keys?.int(0);
    if (field.type !== "utf8" || keys?.byte(1) !== 0 || (width !== 16 && width !== 32)) {
      fail(`column \`${name}\` has a dictionary of another type`);
    }
    field.keys = width === 16 ? "uint16" : "uint32";
    field.dictionary = dictionary.long(0);
  }
  return field;
}

function typeName(number, detail) {
  switch (number) {
    case 2: {
      const width = detail?.int(0);
      const signed = detail?.byte(1) !== 0;
      return width === 32 || width === 64 ? `${signed ? "int" : "uint"}${width}` : null;
    }
    case 3:
      return detail?.short(0) === 2 ? "float64" : null;
    case 4:
      return "binary";
    case 5:
      return "utf8";
    case 6:
      return "bool";
    case 12:
      return "list";
    case 13:
      return "struct";
    case 15:
      return detail?.int(0) > 0 ? "fixed" : null;
    default:
      return null;
  }
}

/** The columns of one message, taken one after another. */
class Columns {
  #nodes;
  #buffers;
  #body;
  #dictionaries;
  #node = 0;
  #buffer = 0;

  constructor(header, body, dictionaries) {
    if (header.has(3)) fail("compressed");
    this.#nodes = header.pairs(1);
    this.#buffers = header.pairs(2);
    this.#body = body;
    this.#dictionaries = dictionaries;
  }

  /** `rows`: how many the column must have, if that is known. */
  next(field, rows) {
    const [length, nullCount] = this.#nodes[this.#node++] ?? fail("a column is missing");
    if (rows !== undefined && length !== rows) fail(`column \`${field.name}\` has ${length} rows of ${rows}`);
    const bits = this.#bytes();
    const nulls = nullCount === 0 ? null : this.#checked(bits, (length + 7) >> 3);
    switch (field.type) {
      case "utf8":
        if (field.keys) {
          const keys = this.#typed(field.keys === "uint16" ? Uint16Array : Uint32Array, length);
          // A column of nothing but nulls needs no dictionary.
          const dictionary = this.#dictionaries.get(field.dictionary) ?? emptyDictionary(field);
          return new DictColumn(field, length, nulls, keys, dictionary);
        }
        return new TextColumn(field, length, nulls, ...this.#offsetsAndBytes(length));
      case "binary":
        return new BinaryColumn(field, length, nulls, ...this.#offsetsAndBytes(length));
      case "int32":
        return new NumberColumn(field, length, nulls, this.#typed(Int32Array, length));
      case "uint32":
        return new NumberColumn(field, length, nulls, this.#typed(Uint32Array, length));
      case "float64":
        return new NumberColumn(field, length, nulls, this.#typed(Float64Array, length));
      case "int64":
        return new LongColumn(field, length, nulls, this.#typed(BigInt64Array, length));
      case "uint64":
        return new LongColumn(field, length, nulls, this.#typed(BigUint64Array, length));
      case "bool":
        return new BoolColumn(field, length, nulls, this.#checked(this.#bytes(), (length + 7) >> 3));
      case "fixed":
        return new FixedColumn(field, length, nulls, this.#checked(this.#bytes(), length * field.width));
      case "list": {
        const offsets = this.#offsets(length);
        return new ListColumn(field, length, nulls, offsets, this.next(field.children[0]));
      }
      default:
        return new StructColumn(field, length, nulls, field.children.map((child) => this.next(child, length)));
    }
  }

  #bytes() {
    const [offset, length] = this.#buffers[this.#buffer++] ?? fail("a buffer is missing");
    return part(this.#body, offset, length);
  }

  #checked(bytes, needed) {
    if (bytes.length < needed) fail("a buffer is too short");
    return bytes.subarray(0, needed);
  }

  #typed(ArrayType, length) {
    const bytes = this.#checked(this.#bytes(), length * ArrayType.BYTES_PER_ELEMENT);
    const { buffer, byteOffset } = bytes.byteOffset % ArrayType.BYTES_PER_ELEMENT === 0 ? bytes : bytes.slice();
    return new ArrayType(buffer, byteOffset, length);
  }

  #offsets(length) {
    // No offsets at all are allowed where there are no rows.
    if (length === 0) {
      this.#bytes();
      return new Int32Array(1);
    }
    return this.#typed(Int32Array, length + 1);
  }

  #offsetsAndBytes(length) {
    const offsets = this.#offsets(length);
    const bytes = this.#bytes();
    if (offsets[length] > bytes.length || offsets[0] < 0) fail("offsets beyond the values");
    return [offsets, bytes];
  }
}

function emptyDictionary(field) {
  return new TextColumn({ ...field, keys: null }, 0, null, new Int32Array(1), new Uint8Array(0));
}
