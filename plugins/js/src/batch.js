// The batch as a plugin sees it: the declared columns, by name.

import { PluginError } from "./error.js";
import { read } from "./ipc/read.js";
import { ALIASES, fieldOf } from "./layout.js";

export class Batch {
  #columns;
  #reads;

  /** From the bytes of the host. `reads`: what the plugin declared; asking for anything else is a mistake and throws. */
  constructor(bytes, reads) {
    const { rows, columns } = read(bytes);
    this.rows = rows;
    this.#columns = new Map(columns.map((column) => [column.field.name, column]));
    this.#reads = reads;
  }

  /** Names of the columns that this batch has. */
  get names() {
    return [...this.#columns.keys()];
  }

  /** Whether the plugin declared it. */
  declares(name) {
    return this.#reads.matches(name);
  }

  /** A column; `null` if no row of this batch has a value for it. */
  column(name) {
    const full = ALIASES[name] ?? name;
    const column = this.#columns.get(full);
    if (column) return column;
    if (!this.#reads.matches(full)) throw new PluginError(`reads \`${name}\`, which is not among its \`reads\`; add it there`);
    return null;
  }

  /** The values of a column by row, `null` where there is none. Do not change them. */
  values(name) {
    return this.column(name)?.array() ?? new Array(this.rows).fill(null);
  }

  /** The field under which a column of this name is given back. */
  fieldOf(name) {
    const own = this.#columns.get(name)?.field;
    // Whatever the host's dictionary was, the new values decide whether one pays.
    return own ? { ...own, keys: fieldOf(name)?.keys ?? null } : fieldOf(name);
  }
}
