// What a plugin answers.

import { Column, allSet, columnOf } from "./column.js";
import { PluginError } from "./error.js";
import { write } from "./ipc/write.js";
import { ALIASES } from "./layout.js";

const REASON = /^[A-Za-z0-9_.\- ]{1,64}$/;
const DEFAULT_REASON = "filtered";

/** What to do with a row: made by `drop` and `quarantine`; `true` keeps it. */
class Decision {
  constructor(action, reason) {
    this.action = action;
    this.reason = reason;
  }
}

/** The row goes; it is counted under this reason, which should be one of few. */
export const drop = (reason = DEFAULT_REASON) => new Decision("drop", checkedReason(reason));
/** The row is set aside: it is stored, but apart from the others. */
export const quarantine = (reason) => new Decision("quarantine", checkedReason(reason));

function checkedReason(reason) {
  if (typeof reason === "string" && REASON.test(reason)) return reason;
  throw new PluginError("a reason must be 1 to 64 letters, digits, `_`, `.`, `-` or spaces");
}

/** What became of a batch; a new one says: unchanged. */
export class Outcome {
  #batch;
  #kept = null;
  #drops = new Map();
  #aside = null;
  #reasons = new Set();
  #columns = new Map();
  #weight;

  constructor(batch) {
    this.#batch = batch;
  }

  /** Keeps the rows for which `test(row)` is true; the others are counted under `reason`. */
  keep(test, reason = DEFAULT_REASON) {
    checkedReason(reason);
    for (let row = 0; row < this.#batch.rows; row++) {
      if (this.#stays(row) && !test(row)) this.#drop(row, reason);
    }
    return this;
  }

  /** Sets the rows aside for which `test(row)` is true. */
  quarantine(test, reason) {
    checkedReason(reason);
    for (let row = 0; row < this.#batch.rows; row++) {
      if (this.#stays(row) && test(row)) this.#setAside(row, reason);
    }
    return this;
  }

  /** What was decided about one row. */
  decide(row, decision) {
    if (decision === false) this.#drop(row, DEFAULT_REASON);
    else if (!(decision instanceof Decision)) throw new PluginError("a row is kept with true, or goes with false, drop(…) or quarantine(…)");
    else if (decision.action === "drop") this.#drop(row, decision.reason);
    else this.#setAside(row, decision.reason);
  }

  /** Replaces or adds a column: a `Column`, or values by row with `null` where there is none. */
  column(name, values) {
    const full = ALIASES[name] ?? name;
    const field = this.#batch.fieldOf(full);
    if (!field) throw new PluginError(`\`${name}\` is no column`);
    const column = values instanceof Column ? renamed(values, field) : columnOf(field, values);
    if (column.length !== this.#batch.rows) {
      throw new PluginError(`column \`${name}\` of ${column.length} rows for a batch of ${this.#batch.rows}`);
    }
    this.#columns.set(full, column);
    return this;
  }

  /** Every row that stays stands for this many times as many events as before. */
  weight(factor) {
    if (!(Number.isFinite(factor) && factor >= 1)) throw new PluginError("a weight factor must be a number of at least 1");
    this.#weight = factor;
    return this;
  }

  /** As the contract has it. */
  encode({ kind, writes }) {
    for (const name of this.#columns.keys()) {
      if (!writes.matches(name)) throw new PluginError(`writes \`${name}\`, which is not among its \`writes\`; add it there`);
    }
    if (this.#weight !== undefined && !writes.matches("weight")) {
      throw new PluginError("a weight factor needs `weight` among the `writes`");
    }
    if (this.#aside && kind === "mask") throw new PluginError("a mask may not quarantine: the rows would be stored unmasked");
    return {
      selection: this.#kept ?? undefined,
      columns: this.#columns.size > 0 ? write([...this.#columns.values()], this.#batch.rows) : undefined,
      weight: this.#weight,
      drops: [...this.#drops].map(([reason, rows]) => ({ reason, rows })),
      quarantine: this.#aside ? { rows: this.#aside, reason: this.#reason() } : undefined,
    };
  }

  /** A batch has one reason in the contract. */
  #reason() {
    const [first, ...others] = this.#reasons;
    return others.length === 0 ? first : `${first.slice(0, 48)} and ${others.length} more`;
  }

  #stays(row) {
    const set = (bits) => (bits[row >> 3] & (1 << (row & 7))) !== 0;
    return (this.#kept === null || set(this.#kept)) && (this.#aside === null || !set(this.#aside));
  }

  #drop(row, reason) {
    this.#kept ??= allSet(this.#batch.rows);
    this.#kept[row >> 3] &= ~(1 << (row & 7));
    this.#drops.set(reason, (this.#drops.get(reason) ?? 0) + 1);
  }

  #setAside(row, reason) {
    this.#aside ??= new Uint8Array((this.#batch.rows + 7) >> 3);
    this.#aside[row >> 3] |= 1 << (row & 7);
    this.#reasons.add(reason);
  }
}

function renamed(column, field) {
  if (column.field.name === field.name) return column;
  if (column.type !== field.type) throw new PluginError(`column \`${field.name}\` holds ${field.type}, not ${column.type}`);
  return column.as({ ...column.field, name: field.name, nullable: field.nullable });
}
