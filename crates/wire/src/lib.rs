//! Contract 2: what travels between an edge and the cloud. Events as Arrow batches, the envelope around a batch, identities and
//! the session protocol.
//!
//! Everything here is pure: bytes in, bytes out; no clock, no sockets, no randomness. FORMAT.md and LINK.md describe the bytes.

pub mod counts;
pub mod envelope;
pub mod events;
pub mod ids;
pub mod intervals;
mod json;
pub mod layout;
pub mod limits;
pub mod otlp;
mod packed;
pub mod session;
mod signal;
pub mod value;

pub use signal::Signal;
