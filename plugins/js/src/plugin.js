// What a plugin is, and how its functions become those of the contract.

import { Batch } from "./batch.js";
import { configSchema, readConfig } from "./config.js";
import { PluginError, suggestion } from "./error.js";
import { Patterns, declared } from "./layout.js";
import { Outcome } from "./outcome.js";
import { Row } from "./row.js";

const KINDS = ["mask", "sample", "enrich", "filter"];
const SEMVER = /^\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?$/;
const KEYS = ["name", "version", "kind", "reads", "writes", "config", "init", "keep", "map", "process"];

/**
 * A plugin of these parts. It has one of
 *   `keep(row, config, context)`: true keeps the row; false, `drop(…)` and `quarantine(…)` do not;
 *   `map(row, config, context)`: changes the row, and may answer as `keep` does;
 *   `process(batch, context, config)`: looks at whole columns and answers an `Outcome`, or nothing for "unchanged".
 * `init(config)` checks the configuration, once, and may answer what the others get in its place.
 */
export function plugin(definition) {
  return new Plugin(definition);
}

export class Plugin {
  #definition;
  #reads;
  #writes;
  #schema;
  #config = null;

  constructor(definition) {
    const unknown = Object.keys(definition).find((key) => !KEYS.includes(key));
    if (unknown) throw new PluginError(`a plugin has no \`${unknown}\`${suggestion(unknown, KEYS)}`);
    const { name, version, kind, reads = [], writes = [], config } = definition;
    if (typeof name !== "string" || name === "") throw new PluginError("a plugin needs a `name`");
    if (!SEMVER.test(version)) throw new PluginError("a plugin needs a `version` such as \"0.1.0\"");
    if (!KINDS.includes(kind)) throw new PluginError(`\`kind\` must be one of ${KINDS.join(", ")}`);
    const functions = ["keep", "map", "process"].filter((key) => definition[key] !== undefined);
    if (functions.length !== 1) throw new PluginError("a plugin has one of `keep`, `map` and `process`");
    for (const key of [...functions, "init"]) {
      if (definition[key] !== undefined && typeof definition[key] !== "function") throw new PluginError(`\`${key}\` must be a function`);
    }
    this.#definition = definition;
    this.#writes = declared(writes, "writes");
    // Rows that a `map` does not change keep what they had, so it has to be there.
    this.#reads = [...new Set([...declared(reads, "reads"), ...(definition.map ? this.#writes : [])])];
    if (this.#reads.length === 0) throw new PluginError("`reads` names no column: a plugin sees only what it declares");
    this.#schema = configSchema(config);
  }

  describe() {
    const { name, version, kind } = this.#definition;
    const configSchema = this.#schema ? JSON.stringify(this.#schema) : "";
    return { name, version, kind, reads: this.#reads, writes: this.#writes, configSchema };
  }

  /** Takes the configuration as JSON text. */
  init(text) {
    const config = readConfig(this.#schema, text);
    this.#config = this.#definition.init?.(config) ?? config;
  }

  /** The outcome of one batch of bytes, as the contract has it. */
  process(bytes, context) {
    if (this.#config === null) throw new PluginError("process before init");
    const batch = new Batch(bytes, new Patterns(this.#reads));
    const writes = new Patterns(this.#writes);
    return this.#outcome(batch, context, writes).encode({ kind: this.#definition.kind, writes });
  }

  #outcome(batch, context, writes) {
    const { keep, map, process } = this.#definition;
    if (keep) return decided(new Row(batch, new Patterns([])), batch, keep, this.#config, context);
    if (map) {
      const changed = (row, config, given) => map(row, config, given) ?? true;
      return decided(new Row(batch, writes), batch, changed, this.#config, context);
    }
    const outcome = process(batch, context, this.#config) ?? new Outcome(batch);
    if (!(outcome instanceof Outcome)) throw new PluginError("`process` must answer an Outcome, or nothing");
    return outcome;
  }
}

function decided(row, batch, decide, config, context) {
  const outcome = new Outcome(batch);
  for (let index = 0; index < batch.rows; index++) {
    row.index = index;
    const decision = decide(row, config, context);
    if (decision !== true) outcome.decide(index, decision);
  }
  return row.finish(outcome);
}
