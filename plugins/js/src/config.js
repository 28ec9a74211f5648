// The configuration of a plugin: a JSON Schema of the few keywords below, and errors that an operator can act on.

import { PluginError, suggestion } from "./error.js";

const TYPES = ["string", "integer", "number", "boolean", "array", "object"];
const KEYWORDS = {
  all: ["type", "description", "title", "default", "enum", "examples"],
  string: ["minLength", "maxLength", "pattern"],
  integer: ["minimum", "maximum"],
  number: ["minimum", "maximum"],
  boolean: [],
  array: ["items", "minItems", "maxItems"],
  object: ["properties", "additionalProperties", "required"],
};

/**
 * The schema of an object whose keys are these. A key without `default` must be given; one with `default: null` may be left out
 * and is then null. Keys that are not named are refused. What a schema says is enforced; keywords not known here are refused.
 */
export function configSchema(properties) {
  if (properties === undefined) return null;
  return completed({ type: "object", properties }, "config");
}

function completed(schema, path) {
  const bad = (what) => {
    throw new PluginError(`\`${path}\` ${what}`);
  };
  if (typeof schema !== "object" || schema === null || Array.isArray(schema)) bad("must be a schema such as { type: \"string\" }");
  if (!TYPES.includes(schema.type)) bad(`has the type \`${schema.type}\`; it must be one of ${TYPES.join(", ")}`);
  const known = [...KEYWORDS.all, ...KEYWORDS[schema.type]];
  const unknown = Object.keys(schema).find((keyword) => !known.includes(keyword));
  if (unknown) bad(`has \`${unknown}\`, which is not known here${suggestion(unknown, known)}`);
  const out = { ...schema };
  if (schema.default === null) delete out.default;
  if (schema.items) out.items = completed(schema.items, `${path}[]`);
  if (schema.properties) {
    out.properties = {};
    for (const [key, inner] of Object.entries(schema.properties)) out.properties[key] = completed(inner, `${path}.${key}`);
    out.required = schema.required ?? Object.keys(schema.properties).filter((key) => !("default" in schema.properties[key]));
  }
  if (schema.type === "object") {
    const others = schema.additionalProperties ?? (schema.properties === undefined);
    out.additionalProperties = typeof others === "object" ? completed(others, `${path}.*`) : others;
  }
  return out;
}

/** The configuration in a text of JSON, with defaults filled in. */
export function readConfig(schema, text) {
  let value;
  try {
    value = text.trim() === "" ? {} : JSON.parse(text);
  } catch {
    throw new PluginError("the configuration is not JSON");
  }
  if (schema) return checked(schema, value, "");
  const keys = value === null ? [] : Object.keys(value);
  if (keys.length > 0) throw new PluginError(`\`${keys[0]}\` is set, but this plugin has no configuration`);
  return {};
}

function checked(schema, value, path) {
  const bad = (what) => {
    throw new PluginError(`${path === "" ? "the configuration" : `\`${path}\``} ${what}`);
  };
  if (!hasType(schema.type, value)) bad(`must be ${article(schema.type)}, not ${shown(value)}`);
  if (schema.enum && !schema.enum.includes(value)) bad(`must be one of ${schema.enum.map(shown).join(", ")}, not ${shown(value)}`);
  if (value < schema.minimum) bad(`must be at least ${schema.minimum}`);
  if (value > schema.maximum) bad(`must be at most ${schema.maximum}`);
  if (value.length < (schema.minLength ?? schema.minItems)) bad(`must have at least ${schema.minLength ?? schema.minItems} ${units(schema)}`);
  if (value.length > (schema.maxLength ?? schema.maxItems)) bad(`must have at most ${schema.maxLength ?? schema.maxItems} ${units(schema)}`);
  if (schema.pattern && !new RegExp(schema.pattern, "u").test(value)) bad(`must match ${schema.pattern}`);
  if (schema.items) return value.map((item, index) => checked(schema.items, item, `${path}[${index}]`));
  return schema.type === "object" ? object(schema, value, path, bad) : value;
}

function object(schema, value, path, bad) {
  const properties = schema.properties ?? {};
  const at = (key) => (path === "" ? key : `${path}.${key}`);
  const out = {};
  for (const [key, inner] of Object.entries(value)) {
    const own = Object.hasOwn(properties, key) ? properties[key] : schema.additionalProperties;
    if (own === false) bad(`has no key \`${key}\`${suggestion(key, Object.keys(properties))}`);
    const optional = Object.hasOwn(properties, key) && !schema.required.includes(key);
    out[key] = typeof own === "object" && !(inner === null && optional) ? checked(own, inner, at(key)) : inner;
  }
  for (const [key, inner] of Object.entries(properties)) {
    if (Object.hasOwn(out, key)) continue;
    if (schema.required.includes(key)) bad(`needs the key \`${key}\`${inner.description ? `: ${inner.description}` : ""}`);
    out[key] = inner.default === undefined ? null : checked(inner, inner.default, at(key));
  }
  return out;
}

function hasType(type, value) {
  if (type === "integer") return Number.isInteger(value);
  if (type === "array") return Array.isArray(value);
  if (type === "object") return typeof value === "object" && value !== null && !Array.isArray(value);
  return typeof value === type;
}

const article = (type) => (/^[aeiou]/.test(type) ? `an ${type}` : `a ${type}`);
const units = (schema) => (schema.type === "string" ? "characters" : "items");
const shown = (value) => JSON.stringify(value).slice(0, 60);
