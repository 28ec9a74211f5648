// The columns of a batch by name, as crates/wire/FORMAT.md has them.

import { PluginError, suggestion } from "./error.js";

const text = { type: "utf8", absent: "" };
const count = { type: "uint32", absent: 0 };
const int = { type: "int32", absent: undefined };
const double = { type: "float64", absent: undefined };
const long = { type: "int64", absent: undefined };
const time = { type: "int64", absent: undefined, bigint: true };
const list = (item) => ({ type: "list", item, absent: undefined });
const id = (width) => ({ type: "fixed", width, absent: "" });

/** Core columns: Arrow type, and what a row reads where the format says that null stands for it. */
export const CORE = {
  signal: text,
  time,
  time_unset: { type: "bool", absent: false },
  observed_time: time,
  start_time: time,
  duration_ns: long,
  resource_schema_url: text,
  scope_name: text,
  scope_version: text,
  scope_schema_url: text,
  resource_dropped_attributes: count,
  scope_dropped_attributes: count,
  entity_refs: text,
  name: text,
  body: text,
  body_type: text,
  severity: { type: "int32", absent: 0 },
  severity_text: text,
  kind: text,
  status: text,
  status_message: text,
  trace_id: id(16),
  span_id: id(8),
  parent_span_id: id(8),
  trace_state: text,
  flags: count,
  span_events: text,
  links: text,
  dropped_attributes: count,
  dropped_events: count,
  dropped_links: count,
  unit: text,
  description: text,
  metadata: text,
  metric_type: text,
  temporality: text,
  monotonic: { type: "bool", absent: undefined },
  value: double,
  value_int: long,
  count: { type: "uint64", absent: undefined },
  sum: double,
  min: double,
  max: double,
  bounds: list("float64"),
  buckets: list("uint64"),
  scale: int,
  zero_count: { type: "uint64", absent: undefined },
  zero_threshold: double,
  positive_offset: int,
  negative_offset: int,
  positive_buckets: list("uint64"),
  negative_buckets: list("uint64"),
  quantiles: text,
  exemplars: text,
  duplicate_attrs: text,
  weight: { type: "float64", absent: 1 },
  quarantined_by: text,
  quarantine_reason: text,
};

/** Short names of columns that everybody asks for. */
export const ALIASES = { service: "resource:s:service.name", host: "resource:s:host.name", duration: "duration_ns" };

export const GROUPS = ["attrs", "resource", "scope"];
const ATTRIBUTE_TYPES = { s: "utf8", i: "int64", d: "float64", b: "bool", y: "binary", j: "utf8", n: "bool" };
const SCALARS = ["s", "i", "d", "b"];
export const LETTERS = Object.keys(ATTRIBUTE_TYPES);
/** Type names of the entries of a rest column. */
export const REST_LETTERS = { string: "s", int: "i", double: "d", bool: "b", bytes: "y", array: "j", kvlist: "j", null: "n" };

const READ_ONLY = ["signal", "quarantined_by", "quarantine_reason"];

/** Group, letter and key of an attribute column; `null` for the name of another one. */
export function attribute(name) {
  const [, group, letter, key] = /^(attrs|resource|scope):([sidbyjn]):([^]*)$/.exec(name) ?? [];
  return group === undefined ? null : { group, letter, key };
}

/** The field that a column of this name has; `null` for a name that no column has. */
export function fieldOf(name) {
  const core = CORE[name];
  const type = core?.type ?? ATTRIBUTE_TYPES[attribute(name)?.letter];
  if (!type) return null;
  const dictionary = type === "utf8" && attribute(name)?.letter !== "j";
  return {
    name,
    nullable: name !== "signal" && name !== "time",
    type,
    keys: dictionary ? "uint16" : null,
    width: core?.width,
    children: core?.item ? [{ name: "item", nullable: true, type: core.item, keys: null, children: [] }] : [],
  };
}

/** Declared columns: names, or patterns in which `*` stands for any text. */
export class Patterns {
  #exact = new Set();
  #globs = [];

  constructor(names) {
    for (const name of names) {
      // The rest columns are called `<group>:*`; asking for them does not ask for the whole group.
      if (!name.includes("*") || isRest(name)) this.#exact.add(name);
      else this.#globs.push(new RegExp(`^${name.split("*").map(escaped).join("[^]*")}$`));
    }
  }

  matches(name) {
    return this.#exact.has(name) || this.#globs.some((glob) => glob.test(name));
  }
}

const escaped = (plain) => plain.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&");
const isRest = (name) => /^(attrs|resource|scope):\*$/.test(name);

/**
 * The columns that a plugin declared. `service` and `host` are attributes of the resource; `attrs.KEY`, `resource.KEY` and
 * `scope.KEY` are all columns of scalars of that key. With each of these comes the rest column of the group, where rare keys lie.
 */
export function declared(names, list) {
  if (!Array.isArray(names) || names.some((name) => typeof name !== "string")) {
    throw new PluginError(`\`${list}\` must be a list of column names`);
  }
  const out = new Set();
  for (const name of names) {
    const [, group, key] = /^(attrs|resource|scope)\.([^]+)$/.exec(name) ?? [];
    if (group) {
      for (const letter of SCALARS) out.add(`${group}:${letter}:${key}`);
      out.add(`${group}:*`);
    } else {
      const column = ALIASES[name] ?? name;
      check(column, list);
      out.add(column);
      if (attribute(column) && column !== name) out.add(`${attribute(column).group}:*`);
    }
  }
  return [...out];
}

function check(name, list) {
  if (list === "writes" && READ_ONLY.includes(name)) throw new PluginError(`no plugin may write \`${name}\``);
  if (isRest(name) || attribute(name) || name.includes("*") || CORE[name]) return;
  const names = [...Object.keys(CORE), ...Object.keys(ALIASES)];
  const hint = suggestion(name, names) || "; attributes are declared as `attrs.KEY`, `resource.KEY` or `scope.KEY`";
  throw new PluginError(`\`${list}\` names \`${name}\`, which is no column${hint}`);
}
