// UTF-8 by the means of QuickJS, which lacks TextDecoder, against those of the platform.

import assert from "node:assert/strict";
import { test } from "node:test";

import * as platform from "../src/text.js";

/** The module as QuickJS runs it: without the platform's coders, with base64 on bytes. */
async function asInQuickJs() {
  const { TextDecoder, TextEncoder } = globalThis;
  // Newer platforms have them; where they are missing, only this test looks for them.
  Uint8Array.prototype.toBase64 ??= function () {
    return Buffer.from(this).toString("base64");
  };
  Uint8Array.fromBase64 ??= (text) => Uint8Array.from(Buffer.from(text, "base64"));
  delete globalThis.TextDecoder;
  delete globalThis.TextEncoder;
  try {
    return await import("../src/text.js?quickjs");
  } finally {
    Object.assign(globalThis, { TextDecoder, TextEncoder });
  }
}

const quickjs = await asInQuickJs();
const SAMPLES = ["", "plain", "é", "\0", "\u{feff}bom", "日本語", "😀😀", "a😀é\u{7f}\u{80}", "\ud83d", "x\udc00y", "%41%", "+/="];

test("texts and bytes are the same by both means", () => {
  for (const text of SAMPLES) {
    const bytes = platform.encodeText(text);
    assert.deepEqual(quickjs.encodeText(text), bytes, JSON.stringify(text));
    for (const module of [platform, quickjs]) assert.equal(module.decodeText(bytes), text.toWellFormed());
  }
});

test("bytes that are not UTF-8 are refused by both", () => {
  for (const bytes of [[0xff], [0xc3], [0xed, 0xa0, 0x80], [0xf8, 0x88, 0x80, 0x80, 0x80], [0x61, 0x80]]) {
    for (const module of [platform, quickjs]) assert.throws(() => module.decodeText(Uint8Array.from(bytes)), /not UTF-8/);
  }
});

test("texts behind one another come back one by one, also where halves of a pair meet", () => {
  for (const module of [platform, quickjs]) {
    for (const values of [["a", null, "", "bc"], ["é", null, "😀", "x"], ["\ud83d", "\ude00", "z"], []]) {
      const { offsets, bytes } = module.joinTexts(values);
      const texts = new module.Texts(offsets, bytes);
      const expected = values.map((value) => new TextDecoder("utf-8", { ignoreBOM: true }).decode(new TextEncoder().encode(value ?? "")));
      assert.deepEqual(values.map((_, index) => texts.get(index)), expected);
      assert.equal(offsets[values.length], bytes.length);
    }
  }
});
