//! Severity numbers of OpenTelemetry; each stands for the first of its four.

pub const TRACE: i32 = 1;
pub const DEBUG: i32 = 5;
pub const INFO: i32 = 9;
pub const WARN: i32 = 13;
pub const ERROR: i32 = 17;
pub const FATAL: i32 = 21;
