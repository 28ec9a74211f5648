//! Queries whose cold parts run on workers: real processes over real TCP, the same answers as without them, whatever becomes of them.
#![allow(clippy::unwrap_used)]

mod fleet;
mod lost;
mod refused;
mod rows;
mod same;
