// Write a Sluice plugin in JavaScript: rows or columns in, a verdict or changed columns out.

export { Batch } from "./batch.js";
export { Column } from "./column.js";
export { PluginError } from "./error.js";
export { Outcome, drop, quarantine } from "./outcome.js";
export { plugin } from "./plugin.js";
export { Row } from "./row.js";

// OpenTelemetry's severity numbers; each stands for the first of its four.
export const TRACE = 1;
export const DEBUG = 5;
export const INFO = 9;
export const WARN = 13;
export const ERROR = 17;
export const FATAL = 21;
