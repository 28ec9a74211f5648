// Streams of our own reader and writer against Arrow's own software, and against damage.

import assert from "node:assert/strict";
import { test } from "node:test";

import { RecordBatchStreamWriter, tableFromIPC } from "apache-arrow";

import { read } from "../src/ipc/read.js";
import { ROWS, VALUES, stream } from "./support.js";

const plainly = (value) => {
  if (value === null || value === undefined) return null;
  if (typeof value === "object" && Symbol.iterator in value) return Array.from(value, plainly);
  return typeof value === "bigint" ? String(value) : value;
};
const same = (found, name, row) => assert.deepEqual(plainly(found), plainly(VALUES[name][row]), `${name}, row ${row}`);

test("what we write is what Arrow reads, value by value and type by type", () => {
  const table = tableFromIPC(stream());
  assert.equal(table.numRows, ROWS);
  for (const name of Object.keys(VALUES)) {
    const column = table.getChild(name);
    for (let row = 0; row < ROWS; row++) same(column.get(row), name, row);
  }
  const types = Object.fromEntries(table.schema.fields.map((field) => [field.name, String(field.type)]));
  assert.equal(types.signal, "Dictionary<Uint16, Utf8>");
  assert.equal(types.body, "Utf8", "no dictionary where nothing repeats");
  assert.equal(types.count, "Uint64");
  assert.equal(types.trace_id, "FixedSizeBinary[16]");
  assert.equal(types.bounds, "List<Float64>");
});

test("what Arrow writes is what we read", () => {
  const theirs = RecordBatchStreamWriter.writeAll(tableFromIPC(stream())).toUint8Array(true);
  const { rows, columns } = read(theirs);
  assert.equal(rows, ROWS);
  assert.deepEqual(columns.map((column) => column.field.name), Object.keys(VALUES));
  for (const column of columns) {
    for (let row = 0; row < ROWS; row++) same(column.get(row), column.field.name, row);
  }
});

test("a stream is read from any place in memory", () => {
  const bytes = stream();
  const moved = new Uint8Array(bytes.length + 3);
  moved.set(bytes, 3);
  const { columns } = read(moved.subarray(3));
  for (const column of columns) same(column.get(5), column.field.name, 5);
});

test("a stream that is cut off anywhere is an error", () => {
  const bytes = stream(["severity", "name", "bounds"]);
  // The last 8 bytes only say that nothing follows.
  for (let length = 0; length < bytes.length - 8; length++) assert.throws(() => read(bytes.subarray(0, length)), /^PluginError: batch: /);
});

test("a damaged stream is an error or other values, never a crash or a hang", () => {
  const bytes = stream(["severity", "name", "bounds", "trace_id"]);
  let refused = 0;
  for (let at = 0; at < 2000; at++) {
    for (const value of [0x00, 0x7f, 0xff]) {
      const damaged = bytes.slice();
      damaged[at] = value;
      try {
        for (const column of read(damaged).columns) column.field.type === "list" ? column.get(0) : column.array();
      } catch (error) {
        refused += 1;
        assert.ok(error.name === "PluginError", `byte ${at}: ${error.stack}`);
      }
    }
  }
  assert.ok(refused > 500, `only ${refused} refused`);
});
