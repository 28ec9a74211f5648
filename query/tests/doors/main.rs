//! The HTTP door over real stores: what it answers, to whom, in which form, and what it refuses.
#![allow(clippy::unwrap_used)]

mod answers;
mod isolation;
mod limits;
mod node;
mod tls;
