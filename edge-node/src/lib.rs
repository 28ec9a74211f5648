//! The edge node: OTLP in, plugins, a journal that is synced before anyone is told success, sealed batches in a spool,
//! and the uplink that empties it.
//!
//! The life of a request: a door in `source` reads it within limits, `intake` decodes it, runs the chain, appends the
//! result to the `journal` and answers; the `sealer` makes batches of what was accepted and appends them to the `spool`;
//! the uplink in [`link`] sends them and tells the spool what is acknowledged. [`node`] puts the parts together.

mod admin;
mod chain;
pub mod config;
mod facts;
mod hints;
pub mod identity;
mod intake;
mod journal;
pub mod link;
mod metrics;
pub mod node;
pub mod otlp;
mod positions;
pub mod program;
mod record;
pub mod recovery;
mod refusal;
mod room;
mod sealer;
mod serve;
mod source;
pub mod spool;
pub mod status;
mod tally;
mod tap;
pub mod tools;

pub use chain::{ChainError, ChainStatus, LoadedPlugin, PluginCheck, RefusedChain, SecretError, check_plugins};
pub use config::{ConfigError, EdgeConfig};
pub use facts::{component_facts, package_limits, standard_kind};
pub use node::{EdgeError, EdgeNode, NodeOptions};
pub use serve::{Door, DoorLimits, DoorTls};
pub use source::stats::SourceStatus;
pub use status::{EdgeStatus, ReloadError, StatusHandle};
