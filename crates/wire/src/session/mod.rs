//! The conversation of an edge and a gateway: frames, and the two halves that decide what is said.
//!
//! Both halves are plain state machines. Events go in by `handle_*`, what is to be done comes out by `poll_action`; time
//! is an argument in milliseconds of a monotonic clock, randomness is an argument too. The drivers around them hold the
//! sockets. LINK.md describes the bytes and the rules.

pub mod client;
pub mod frame;
pub mod lanes;
mod preamble;
pub mod server;

pub use client::{Client, ClientOptions};
pub use frame::{Frame, FrameError, Lane};
pub use lanes::LanePolicy;
pub use preamble::Preamble;
pub use server::{Server, ServerOptions};
