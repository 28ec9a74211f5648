//! Cloud ingest: the gateway that takes batches over QUIC, the log that keeps them, and the two writers that read it.
//!
//! [`gateway`] knows who sends, checks each batch once and appends its bytes to the [`log`]. The writers read the log, each by
//! itself: `writer` plans what a record becomes as a pure function of the log and hands it to hot or cold. What cannot be stored is in
//! [`quarantine`]. [`service`] puts the parts together.

mod admin;
pub mod config;
pub mod dedup;
mod ends;
pub mod gateway;
pub mod log;
mod logs;
pub mod offline;
pub mod quarantine;
pub mod quota;
pub mod replay;
pub mod service;
pub mod status;
pub mod tenants;
mod watched;
pub mod writer;

pub use config::IngestConfig;
pub use log::{EmbeddedLog, KafkaLog, KafkaOptions, Log, LogError, LogRecord};
pub use service::{BuildError, IngestService, RunError};
pub use status::{IngestStatus, StatusHandle};
pub use watched::WatchedLog;
