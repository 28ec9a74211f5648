// UTF-8 to strings and back, by what the engine has natively: an interpreter that walks over bytes is far too slow.
//
// SpiderMonkey and Node.js have TextDecoder and TextEncoder. QuickJS has not, but it has base64 both ways between bytes and
// strings of Latin-1, and `escape`/`decodeURIComponent` between those and text.

import { PluginError } from "./error.js";

const decoder = typeof TextDecoder === "function" ? new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }) : null;
const encoder = typeof TextEncoder === "function" ? new TextEncoder() : null;
const BEYOND_ASCII = /[^\x00-\x7f]/;
// In most texts that are not ASCII most characters are, and these need no work.
const RUNS_BEYOND_ASCII = /[^\x00-\x7f]+/g;

const latin1 = (bytes) => atob(bytes.toBase64());

/** The text of bytes; bytes that are not UTF-8 throw. */
export function decodeText(bytes) {
  if (bytes.length === 0) return "";
  if (!decoder) {
    const units = latin1(bytes);
    return BEYOND_ASCII.test(units) ? fromUnits(units) : units;
  }
  try {
    return decoder.decode(bytes);
  } catch {
    throw notUtf8();
  }
}

/** The text of UTF-8 whose bytes are the units of a string. */
function fromUnits(units) {
  try {
    return units.replace(RUNS_BEYOND_ASCII, (run) => decodeURIComponent(escape(run)));
  } catch {
    throw notUtf8();
  }
}

const notUtf8 = () => new PluginError("batch: a text that is not UTF-8");

/** The bytes of a text; half a surrogate pair becomes U+FFFD. */
export function encodeText(text) {
  if (encoder) return encoder.encode(text);
  const units = text.replace(RUNS_BEYOND_ASCII, (run) => unescape(encodeURIComponent(run.toWellFormed())));
  return Uint8Array.fromBase64(btoa(units));
}

/** Texts that lie behind one another, as Arrow has them. What is only ASCII is decoded once and then cut. */
export class Texts {
  #offsets;
  #bytes;
  /** One unit for each byte; `null` until the first text is asked for, and where only single texts can be decoded. */
  #units = null;
  #state = "new";

  constructor(offsets, bytes) {
    this.#offsets = offsets;
    this.#bytes = bytes;
  }

  get(index) {
    if (this.#state === "new") this.#prepare();
    const start = this.#offsets[index];
    const end = this.#offsets[index + 1];
    if (this.#state === "single") return decodeText(this.#bytes.subarray(start, end));
    const units = this.#units.substring(start, end);
    return this.#state === "ascii" || !BEYOND_ASCII.test(units) ? units : fromUnits(units);
  }

  #prepare() {
    if (decoder) {
      const text = decodeText(this.#bytes);
      this.#state = text.length === this.#bytes.length ? "ascii" : "single";
      if (this.#state === "ascii") this.#units = text;
    } else {
      this.#units = latin1(this.#bytes);
      this.#state = BEYOND_ASCII.test(this.#units) ? "mixed" : "ascii";
    }
  }
}

/** Offsets and bytes of texts behind one another; `null` takes no room. */
export function joinTexts(values) {
  const offsets = new Int32Array(values.length + 1);
  const bytes = encodeText(values.join(""));
  let end = 0;
  let index = 0;
  for (const value of values) {
    if (value !== null) end += value.length;
    offsets[++index] = end;
  }
  // As many bytes as UTF-16 units: nothing but ASCII, and the lengths are right.
  if (end === bytes.length) return { offsets, bytes };
  end = 0;
  index = 0;
  for (const value of values) {
    if (value !== null) end += value.length + bytesBeyondUnits(value);
    offsets[++index] = end;
  }
  // A surrogate pair that was cut between two texts was joined above.
  return end === bytes.length ? { offsets, bytes } : { offsets, bytes: encodeText(values.map((v) => v?.toWellFormed() ?? "").join("")) };
}

/** How many more bytes a text has in UTF-8 than it has UTF-16 units. */
function bytesBeyondUnits(text) {
  let more = 0;
  for (const run of text.match(RUNS_BEYOND_ASCII) ?? []) {
    for (const character of run) {
      // A surrogate pair has two units and four bytes; half a pair becomes U+FFFD, which has three.
      more += character.length === 2 || character < "\u0800" ? character.length : 2;
    }
  }
  return more;
}
