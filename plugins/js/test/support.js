// What the tests share: one column of every type, and plugins run over rows.

import { columnOf } from "../src/column.js";
import { write } from "../src/ipc/write.js";
import { fieldOf } from "../src/layout.js";
import { Fixture } from "../src/testing.js";

export const ROWS = 700;

const every = (step, offset, make) => Array.from({ length: ROWS }, (_, row) => (row % step === offset ? null : make(row)));

/** Values by column name: each Arrow type of the format, with nulls and without, and text beyond ASCII. */
export const VALUES = {
  signal: Array.from({ length: ROWS }, () => "log"),
  time: Array.from({ length: ROWS }, (_, row) => 1_700_000_000_000_000_000n + BigInt(row)),
  severity: every(4, 2, (row) => row % 24),
  flags: every(7, 1, (row) => 4_294_967_295 - row),
  count: every(5, 4, (row) => 2n ** 63n + BigInt(row)),
  value: every(3, 0, (row) => row / 7),
  monotonic: every(3, 1, (row) => row % 2 === 0),
  trace_id: every(6, 5, (row) => new Uint8Array(16).fill(row)),
  body: every(9, 3, (row) => `text ${row}`),
  status_message: every(11, 0, (row) => ["", "ü", "😀 ", "plain"][row % 4] + row),
  name: every(8, 7, (row) => `name ${row % 3} é`),
  bounds: every(4, 1, (row) => Array.from({ length: row % 4 }, (_, item) => item + 0.5)),
  "attrs:y:raw": every(5, 0, (row) => new Uint8Array(row % 5).fill(row)),
  "attrs:s:none": new Array(ROWS).fill(null),
};

export function stream(names = Object.keys(VALUES)) {
  return write(names.map((name) => columnOf(fieldOf(name), VALUES[name])), ROWS);
}

export function run(plugin, rows, config = {}) {
  const json = JSON.stringify({ config, rows, expect: "unchanged" }, (_, value) => value);
  return new Fixture("test", json).run(plugin);
}
