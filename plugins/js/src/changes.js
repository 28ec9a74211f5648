// What rows changed, gathered by column and given back once per batch.

import { restOf } from "./attributes.js";
import { PluginError } from "./error.js";
import { LETTERS } from "./layout.js";

/** The columns that rows changed. */
export class Changes {
  #batch;
  #writes;
  #columns = new Map();
  #rest = new Map();
  #places = { attrs: new Map(), resource: new Map(), scope: new Map() };
  #own = new WeakSet();

  constructor(batch, writes) {
    this.#batch = batch;
    this.#writes = writes;
  }

  /** A copy that may be changed. */
  own(values) {
    const copy = Array.from(values);
    this.#own.add(copy);
    return copy;
  }

  owns(values) {
    return this.#own.has(values);
  }

  current(name) {
    return this.#columns.get(name);
  }

  set(name, row, value) {
    let values = this.#columns.get(name);
    if (!values) {
      if (!this.#writes.matches(name)) {
        throw new PluginError(`changes \`${name}\`, which is not among its \`writes\`; add it, or the name that stands for it`);
      }
      values = Array.from(this.#batch.values(name));
      this.#columns.set(name, values);
    }
    values[row] = value;
  }

  /** Sets the value of a key, or takes it away with `null`: what the row has of it in columns of other types goes. */
  setAttribute(group, key, row, value) {
    const place = this.#placeOf(group, key);
    const letter = value === null ? null : place.letter(value);
    for (const { name, letter: other, values } of place.present) {
      if (other !== letter && (this.#columns.get(name) ?? values)[row] !== null) this.set(name, row, null);
    }
    if (place.rest?.has(row)) this.#takeFromRest(group, key, row);
    if (letter === null) return;
    const name = place.names[letter];
    if (!this.#columns.has(name) && !place.present.some((column) => column.name === name)) {
      // New to the batch; from now on it is one of the columns that the key has.
      this.set(name, row, value);
      place.present.push({ name, letter, values: this.#columns.get(name) });
    } else this.set(name, row, value);
  }

  /** Where the values of a key lie, found once per batch. */
  #placeOf(group, key) {
    const keys = this.#places[group];
    let place = keys.get(key);
    if (place) return place;
    const names = Object.fromEntries(LETTERS.map((letter) => [letter, `${group}:${letter}:${key}`]));
    const present = LETTERS.filter((letter) => this.#batch.declares(names[letter]) && this.#batch.column(names[letter]));
    place = {
      names,
      present: present.map((letter) => ({ name: names[letter], letter, values: this.#batch.values(names[letter]) })),
      rest: restOf(this.#batch, group)?.get(key),
      letter: letterFor(key, this.#writes.matches(names.i) || !this.#writes.matches(names.d)),
    };
    keys.set(key, place);
    return place;
  }

  #takeFromRest(group, key, row) {
    const name = `${group}:*`;
    if (!this.#rest.has(name)) this.#rest.set(name, new Map());
    const gone = this.#rest.get(name);
    if (!gone.has(row)) gone.set(row, new Set());
    gone.get(row).add(key);
  }

  finish(outcome) {
    for (const [name, values] of this.#columns) outcome.column(name, values);
    for (const [name, gone] of this.#rest) {
      const lists = this.#batch.column(name).array();
      const kept = lists.map((entries, row) => {
        const keys = gone.get(row);
        return keys ? entries.filter(({ key }) => !keys.has(key)) : entries;
      });
      outcome.column(name, kept);
    }
    return outcome;
  }
}

/** Which type of column a value goes to; whole numbers to ints or doubles. */
function letterFor(key, wholeAreInts) {
  return (value) => {
    switch (typeof value) {
      case "string":
        return "s";
      case "boolean":
        return "b";
      case "bigint":
        return "i";
      case "number":
        return wholeAreInts && Number.isInteger(value) ? "i" : "d";
      default:
        if (value instanceof Uint8Array) return "y";
        throw new PluginError(`attribute \`${key}\` cannot be a value of type ${typeof value}`);
    }
  };
}
