// Plugins as authors write them: rows, columns, configuration, and mistakes.

import assert from "node:assert/strict";
import { test } from "node:test";

import { component } from "../src/component.js";
import { Outcome, PluginError, WARN, drop, plugin, quarantine } from "../src/index.js";
import { Fixture } from "../src/testing.js";
import { ROWS, run, stream } from "./support.js";

const make = (parts) => plugin({ name: "test", version: "0.1.0", kind: "filter", reads: ["body"], ...parts });
const CONTEXT = { signal: "log", now: 1n, limits: { deadline: 1n, output: 1n }, hints: { share: 1, rowBytes: 0 } };

function check(json, tested) {
  new Fixture("test", JSON.stringify(json)).check(tested);
}

test("a filter keeps, drops by reason and sets aside", () => {
  const tested = make({
    reads: ["severity", "service"],
    keep(row) {
      if (row.service === "noisy") return drop("noise");
      if (row.service === "") return quarantine("no service");
      return row.severity >= WARN || row.service === "checkout";
    },
  });
  const kept = [{ severity: 17, service: "cart" }, { service: "checkout" }];
  check(
    {
      rows: [kept[0], { severity: 9, service: "cart" }, { service: "noisy" }, kept[1], { severity: 17 }],
      expect: { rows: kept, drops: { filtered: 1, noise: 1 }, quarantined: { "no service": 1 } },
    },
    tested,
  );
});

test("rows read what is there, in its type, and absent values are neither equal nor less nor greater", () => {
  const seen = [];
  const tested = make({
    reads: ["*"],
    keep(row) {
      const { body, severity, time, traceId, durationNs, value, weight } = row;
      const odd = ["s", "i", "d", "b", "big", "raw", "list", "rare", "none", "gone"].map((key) => row.attr(key));
      seen.push([body, severity, time, traceId, durationNs, value, weight, row.host, ...odd]);
      return !(row.attr("gone") < 5) && !(row.attr("gone") >= 0);
    },
  });
  const json = `{"rows": [{"time": 5, "attrs": {"s": "é", "i": 3, "d": 2.0, "b": false, "big": 9007199254740993,
    "raw": {"$bytes": "AQI="}, "list": [1, "x"], "none": null}, "attrs:*": {"rare": 7}, "duration_ns": 12, "value_int": 4,
    "trace_id": "0102030405060708090a0b0c0d0e0f10", "host": "h"}, {"body": ""}], "expect": "unchanged"}`;
  new Fixture("test", json).check(tested);
  const full = ["", 0, 5n, "0102030405060708090a0b0c0d0e0f10", 12, 4, 1, "h"];
  const odd = ["é", 3, 2, false, 9007199254740993n, Uint8Array.of(1, 2), '[1,"x"]', 7, undefined, undefined];
  assert.deepEqual(seen[0], [...full, ...odd]);
  assert.deepEqual(seen[1].slice(0, 8), ["", 0, 1_767_225_600_000_000_000n, "", undefined, undefined, 1, ""]);
});

test("changes go to columns of their type; a key keeps one value, also among rare attributes", () => {
  const tested = make({
    kind: "enrich",
    reads: ["body", "attrs.*", "service", "trace_id"],
    writes: ["body", "attrs.*", "service", "weight", "trace_id"],
    map(row) {
      row.body = row.body.toUpperCase();
      row.setAttr("n", row.attr("n") + 1);
      row.setAttr("t", "text now");
      row.removeAttr("gone");
      row.setAttr("rare", "no longer");
      row.service ||= "unknown";
      row.weight = 2.5;
      row.traceId = "";
      return row.attr("n") < 100;
    },
  });
  check(
    {
      rows: [
        { body: "ä", attrs: { n: 1, t: 5, gone: "x", stays: true }, "attrs:*": { rare: 1, other: "y" }, trace_id: "0".repeat(32) },
        { body: "", attrs: { n: 0.5 }, service: "shop" },
        { body: "z", attrs: { n: 99 } },
      ],
      expect: {
        rows: [
          { body: "Ä", attrs: { n: 2, t: "text now", stays: true, rare: "no longer", other: "y" }, service: "unknown", weight: 2.5 },
          { body: "", attrs: { n: 1.5, t: "text now", rare: "no longer" }, service: "shop", weight: 2.5 },
        ],
        drops: { filtered: 1 },
      },
    },
    tested,
  );
});

test("columns are seen and changed as a whole", () => {
  const tested = make({
    reads: ["severity", "name"],
    writes: ["name", "weight", "attrs.n"],
    process(batch) {
      const severity = batch.values("severity");
      return new Outcome(batch)
        .keep((row) => severity[row] !== null, "no severity")
        .column("name", batch.column("name").map((text) => `${text}!`))
        .column("attrs:i:n", severity)
        .weight(2);
    },
  });
  check(
    {
      rows: [{ name: "a", severity: 1 }, { name: "a" }, { severity: 3, weight: 1.5 }],
      expect: {
        rows: [{ name: "a!", severity: 1, weight: 2, attrs: { n: 1 } }, { severity: 3, weight: 3, attrs: { n: 3 } }],
        drops: { "no severity": 1 },
      },
    },
    tested,
  );
});

test("nothing changed means nothing given back", () => {
  const tested = component(make({ writes: ["body"], map: (row) => void (row.body = row.body) }));
  tested.init("");
  const { selection, columns, weight, drops, quarantine } = tested.process(stream(["body"]), CONTEXT);
  assert.deepEqual([selection, columns, weight, drops, quarantine], [undefined, undefined, undefined, [], undefined]);
});

test("the configuration is checked, completed and described", () => {
  const config = {
    min: { type: "integer", default: 13, minimum: 1 },
    names: { type: "array", items: { type: "string" }, description: "services" },
    note: { type: "string", default: null },
  };
  const seen = [];
  const tested = make({ config, init: (given) => void seen.push(given), keep: () => true });
  const schema = JSON.parse(tested.describe().configSchema);
  assert.deepEqual([schema.required, schema.additionalProperties], [["names"], false]);
  tested.init('{"names": ["a"]}');
  assert.deepEqual(seen[0], { names: ["a"], min: 13, note: null });
  for (const [text, error] of [
    ["{", /not JSON/],
    ["[]", /the configuration must be an object/],
    ["{}", /needs the key `names`: services/],
    ['{"names": [1]}', /`names\[0\]` must be a string, not 1/],
    ['{"names": [], "min": 0}', /`min` must be at least 1/],
    ['{"names": [], "min": 1.5}', /`min` must be an integer/],
    ['{"names": [], "mni": 1}', /no key `mni`; did you mean `min`\?/],
    ['{"names": [], "__proto__": 1}', /no key `__proto__`/],
  ]) {
    assert.throws(() => tested.init(text), { name: "PluginError", message: error }, text);
  }
  assert.throws(() => make({ keep: () => true }).init('{"a": 1}'), /no configuration/);
  assert.throws(() => make({ config: { a: { type: "string", format: "x" } }, keep: () => true }), /`config.a` has `format`/);
});

test("mistakes of a definition are told when it is made", () => {
  const keep = () => true;
  for (const [parts, error] of [
    [{ keep, reads: ["severty"] }, /`reads` names `severty`, which is no column; did you mean `severity`\?/],
    [{ keep, reads: ["http.route"] }, /attributes are declared as `attrs.KEY`/],
    [{ keep, writes: ["signal"] }, /no plugin may write `signal`/],
    [{ keep, reads: [] }, /names no column/],
    [{ keep, kind: "filtr" }, /`kind` must be one of/],
    [{ keep, version: "1" }, /`version`/],
    [{ keep, raeds: [] }, /no `raeds`; did you mean `reads`\?/],
    [{}, /one of `keep`, `map` and `process`/],
    [{ keep, process: keep }, /one of `keep`, `map` and `process`/],
  ]) {
    assert.throws(() => make(parts), { name: "PluginError", message: error });
  }
});

test("mistakes of a run are errors that say what to do", () => {
  const failure = (parts, rows = [{ body: "x" }]) => run(make(parts), rows).error;
  assert.match(failure({ keep: (row) => row.severity > 1 }), /reads `severity`, which is not among its `reads`/);
  assert.match(failure({ keep: (row) => row.attr("k") === 1 }), /attribute `attrs.k`, which is not among its `reads`/);
  assert.match(failure({ keep: () => undefined }), /kept with true/);
  assert.match(failure({ map: (row) => void (row.body = "y") }), /changes `body`, which is not among its `writes`/);
  assert.match(failure({ keep: () => drop("a/b") }), /a reason must be/);
  assert.match(failure({ kind: "mask", keep: () => quarantine("x") }), /a mask may not quarantine/);
  assert.match(failure({ writes: ["body"], map: (row) => void (row.body = 5) }), /holds utf8; row 0 was given number/);
  assert.match(failure({ process: (batch) => new Outcome(batch).weight(2) }), /needs `weight`/);
  assert.match(failure({ process: () => 5 }), /must answer an Outcome/);
});

test("p11_what a component tells of an error holds nothing of the data", () => {
  const secret = "4111 1111 1111 1111";
  const bodies = [
    () => JSON.parse(secret),
    () => null[secret],
    () => {
      throw new Error(secret);
    },
    () => {
      throw secret;
    },
  ];
  for (const keep of bodies) {
    const tested = component(make({ kind: "mask", keep }));
    tested.init("");
    assert.throws(
      () => tested.process(stream(["body"]), CONTEXT),
      (told) => typeof told === "string" && told.length > 0 && !told.includes("4111") && !told.includes("1111"),
    );
  }
  const tested = component(make({ keep: () => { throw new PluginError("the table is empty"); } }));
  tested.init("");
  assert.throws(() => tested.process(stream(["body"]), CONTEXT), (told) => told === "the table is empty");
});

test("many different reasons of quarantine become one text that the contract allows", () => {
  const tested = make({ keep: (row) => quarantine(`reason ${row.index}`.padEnd(64, "x")) });
  tested.init("");
  const { quarantine: aside } = tested.process(stream(["body"]), CONTEXT);
  assert.match(aside.reason, /^reason 0x+ and 699 more$/);
  assert.ok(aside.reason.length <= 64);
  assert.equal(aside.rows.length, Math.ceil(ROWS / 8));
});

test("a fixture that is not met fails, whatever part of it", () => {
  const tested = make({ keep: (row) => row.body !== "b" });
  const rows = [{ body: "a" }, { body: "b" }];
  check({ rows, expect: { rows: [rows[0]], drops: { filtered: 1 } } }, tested);
  for (const expect of [
    "unchanged",
    { rows: [] },
    { rows: [{ body: "a", severity: 1 }] },
    { drops: {} },
    { quarantined: { x: 1 } },
    { error: "x" },
  ]) {
    assert.throws(() => check({ rows, expect }, tested), { name: "AssertionError" }, JSON.stringify(expect));
  }
  assert.throws(() => check({ rows, expect: "unchanged", confg: {} }, tested), /no key `confg`; did you mean `config`\?/);
});
