//! The query layer: one SQL surface over hot and cold, inside limits, for the tenant that a token stands for.
//!
//! `service` composes the parts and is what a program starts; `engine` plans and runs one query; `catalog` decides what a query can
//! see; `cache` gives answers again; `functions` are those for telemetry; `tokens` decides who asks; `api` is the HTTP door and `encode` the formats of its answers;
//! `pg` is the door for clients of Postgres, `flight` the one for clients of Arrow Flight SQL; `scale` has cold parts of queries computed
//! by other machines, and is such a machine.

mod api;
mod cache;
mod catalog;
pub mod completeness;
pub mod config;
mod depth;
mod encode;
mod engine;
pub mod error;
mod executor;
mod flight;
mod functions;
mod guard;
mod limits;
mod listener;
mod memory;
mod metered;
mod metrics;
mod names;
mod params;
mod pg;
mod pg_catalog;
mod position;
mod queue;
mod scale;
mod service;
mod shape;
mod spelled;
mod status;
mod tls;
pub mod tokens;
mod yielding;

pub use config::QueryConfig;
pub use functions::{Applier, ApplyError, PluginCall, Plugins, applied_schema};
pub use scale::{PeerError, SecretError, WorkerService};
pub use service::{BuildError, QueryService, RunError};
pub use status::{NoStatus, StatusSource};
pub use tokens::{Identity, Tokens};
