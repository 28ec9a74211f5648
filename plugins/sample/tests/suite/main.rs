//! The sampler without a sandbox: what it keeps, what the kept rows stand for, what that costs.
#![allow(clippy::unwrap_used)]

mod budget;
mod common;
mod consistency;
mod fixtures;
mod keep;
mod statistics;
