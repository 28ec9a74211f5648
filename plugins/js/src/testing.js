// Runs a plugin over fixtures, in Node.js and without Wasm. Their form is described in plugins/sdk/FIXTURES.md.
//
//   import { test } from "node:test";
//   import { fixtures } from "sluice-plugin/testing";
//   import plugin from "../plugin.js";
//   for (const fixture of fixtures("fixtures")) test(fixture.name, () => fixture.check(plugin));

import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";

import { suggestion } from "./error.js";
import { read } from "./ipc/read.js";
import { write } from "./ipc/write.js";
import { Patterns } from "./layout.js";
import { columnsOf, rowsOf } from "./testing/columns.js";
import { parseJson } from "./testing/json.js";

const KEYS = ["config", "signal", "tables", "hints", "now", "rows", "expect"];
const EXPECTATIONS = ["rows", "drops", "quarantined", "error"];
/** 2026-01-01. */
const NOW = 1_767_225_600_000_000_000n;
const LIMITS = { deadline: 50_000 + 50 * 8192, output: 8 * 1024 * 1024 };

/** The fixtures of a folder, given as a path or as a file URL. */
export function fixtures(place) {
  const folder = place instanceof URL ? fileURLToPath(place) : place;
  const names = readdirSync(folder).filter((name) => name.endsWith(".json")).sort();
  if (names.length === 0) throw new Error(`no fixtures in ${folder}`);
  return names.map((name) => new Fixture(basename(name, ".json"), readFileSync(join(folder, name), "utf8")));
}

export class Fixture {
  constructor(name, json) {
    this.name = name;
    const { config, signal = "log", tables, hints, now = NOW, rows, expect } = members(parseJson(json), KEYS, name);
    if (tables) throw new Error(`${name}: plugins in JavaScript have no \`lookup\`, so no \`tables\``);
    if (!Array.isArray(rows) || expect === undefined) throw new Error(`${name}: \`rows\` and \`expect\` are needed`);
    this.config = config ?? {};
    this.defaults = { signal, time: BigInt(now) };
    this.context = {
      signal,
      now: BigInt(now),
      limits: LIMITS,
      hints: { share: Number(hints?.share ?? 1), rowBytes: Number(hints?.row_bytes ?? 0) },
    };
    this.rows = rows;
    this.expect = expect === "unchanged" ? { rows, drops: {}, quarantined: {} } : members(expect, EXPECTATIONS, `${name}: expect`);
    if (Object.keys(this.expect).length === 0) throw new Error(`${name}: \`expect\` expects nothing`);
  }

  /** Throws an assertion error that shows what differs. The plugin sees texts in plain columns, then in dictionaries. */
  check(plugin) {
    for (const dictionaries of [false, true]) {
      const actual = this.run(plugin, dictionaries);
      const where = `${this.name}, texts ${dictionaries ? "in dictionaries" : "in plain columns"}`;
      if (this.expect.error !== undefined || actual.error !== undefined) {
        assert.ok(actual.error !== undefined, `${where}: no error; expected one with ${this.expect.error}`);
        assert.ok(this.expect.error !== undefined && actual.error.includes(this.expect.error), `${where}: error ${actual.error}`);
        continue;
      }
      for (const key of ["drops", "quarantined"]) {
        if (this.expect[key]) assert.deepEqual(actual[key], numbers(this.expect[key]), `${where}: ${key}`);
      }
      if (this.expect.rows) assert.deepEqual(compared(actual.rows, this.expect.rows), expectedRows(this.expect.rows), `${where}: rows`);
    }
  }

  /** What becomes of the rows: `{ rows, drops, quarantined }` or `{ error }`. */
  run(plugin, dictionaries = false) {
    try {
      plugin.init(JSON.stringify(this.config, (_, value) => (value instanceof Number ? Number(value) : value)));
      return this.#process(plugin, dictionaries);
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      return { error: `${error.name}: ${error.message}` };
    }
  }

  #process(plugin, dictionaries) {
    const columns = columnsOf(this.rows, this.defaults, dictionaries);
    const reads = new Patterns(plugin.describe().reads);
    const seen = [...columns.values()].filter(({ field }) => reads.matches(field.name));
    const outcome = plugin.process(write(seen, this.rows.length), this.context);
    if (outcome.columns) {
      for (const column of read(outcome.columns).columns) columns.set(column.field.name, column);
    }
    const set = (bits, row) => (bits[row >> 3] & (1 << (row & 7))) !== 0;
    const aside = (row) => outcome.quarantine !== undefined && set(outcome.quarantine.rows, row);
    const stays = (row) => (outcome.selection === undefined || set(outcome.selection, row)) && !aside(row);
    const rows = rowsOf(columns, this.rows.length).filter((_, row) => stays(row));
    if (outcome.weight !== undefined) {
      for (const row of rows) row.weight = (row.weight ?? 1) * outcome.weight;
    }
    const setAside = this.rows.filter((_, row) => aside(row)).length;
    return {
      rows,
      drops: Object.fromEntries(outcome.drops.map(({ reason, rows }) => [reason, rows])),
      quarantined: setAside > 0 ? { [outcome.quarantine.reason]: setAside } : {},
    };
  }
}

function members(value, known, what) {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw new Error(`${what}: must be an object`);
  const unknown = Object.keys(value).find((key) => !known.includes(key));
  if (unknown) throw new Error(`${what}: there is no key \`${unknown}\`${suggestion(unknown, known)}`);
  return value;
}

const numbers = (counts) =>
  Object.fromEntries(Object.entries(counts).map(([reason, rows]) => [reason, Number(rows)]).filter(([, rows]) => rows > 0));

/** Expected rows in the form of actual ones: through columns and back. */
function expectedRows(rows) {
  const columns = columnsOf(rows, {}, false);
  return rowsOf(columns, rows.length);
}

/** Every row has `time` and `signal`; they are compared only where the expected row names them. */
function compared(rows, expected) {
  return rows.map((row, index) => {
    const shown = { ...row };
    for (const key of ["time", "signal"]) if (!(key in (expected[index] ?? {}))) delete shown[key];
    return shown;
  });
}
