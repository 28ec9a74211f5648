// UTF-8 to strings and back, by what the engine has natively: an interpreter that walks over bytes is far too slow.
//
// SpiderMonkey and Node.js have TextDecoder and TextEncoder. QuickJS has not, but it has base64 both ways between bytes and
// strings of Latin-1, and `escape`/`decodeURIComponent` between those and text.

import { PluginError } from "./error.js";

const decoder = typeof TextDecoder === "function" ? new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }) : null;
const encoder = typeof TextEncoder === "function" ? new TextEncoder() : null;
const BEYOND_ASCII = /[^\x00-\x7f]/;

const latin1 = (bytes) => atob(bytes.toBase64());

/** The text of bytes; bytes that are not UTF-8 throw. */
export function decodeText(bytes) {
  if (bytes.length === 0) return "";
  try {
    if (decoder) return decoder.decode(bytes);
    const units = latin1(bytes);
    return BEYOND_ASCII.test(units) ? decodeURIComponent(escape(units)) : units;
  } catch {
    throw new PluginError("batch: a text that is not UTF-8");
  }
}

/** The bytes of a text; half a surrogate pair becomes U+FFFD. */
export function encodeText(text) {
  if (encoder) return encoder.encode(text);
  const units = BEYOND_ASCII.test(text) ? unescape(encodeURIComponent(text.toWellFormed())) : text;
  return Uint8Array.fromBase64(btoa(units));
}

/** Texts that lie behind one another, as Arrow has them. What is only ASCII is decoded once and then cut. */
export class Texts {
  #offsets;
  #bytes;
  #ascii;

  constructor(offsets, bytes) {
    this.#offsets = offsets;
    this.#bytes = bytes;
  }

  get(index) {
    const start = this.#offsets[index];
    const end = this.#offsets[index + 1];
    if (this.#ascii === undefined) this.#decodeWhole();
    return this.#ascii === null ? decodeText(this.#bytes.subarray(start, end)) : this.#ascii.substring(start, end);
  }

  #decodeWhole() {
    const text = decodeText(this.#bytes);
    this.#ascii = text.length === this.#bytes.length ? text : null;
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
    if (value !== null) end += BEYOND_ASCII.test(value) ? encodeText(value).length : value.length;
    offsets[++index] = end;
  }
  // A surrogate pair that was cut between two texts was joined above.
  return end === bytes.length ? { offsets, bytes } : { offsets, bytes: encodeText(values.map((v) => v?.toWellFormed() ?? "").join("")) };
}
