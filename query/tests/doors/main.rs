//! The doors over real stores: what they answer, to whom, in which form, and what they refuse.
#![allow(clippy::unwrap_used)]

mod again;
mod answers;
mod catalog;
mod completeness;
mod crowd;
mod escapes;
mod flight;
mod flight_peers;
mod grafana;
mod isolation;
mod limits;
mod node;
mod postgres;
mod tls;
mod window;
mod wire;
