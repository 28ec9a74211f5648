//! The uplink: carries sealed batches from the spool to a gateway and brings acknowledgements back.
//!
//! What to send and when is decided by the pure `sluice_wire::session::Client`; here are the QUIC connection, the
//! certificates and the reading of the spool.

mod config;
mod connect;
mod driver;
mod status;
mod tls;

use bytes::Bytes;
use tokio::sync::watch;

pub use config::{LinkConfig, LinkError};
pub use driver::Uplink;
pub use status::LinkStatus;
pub use tls::{TlsError, certificate_identity};

/// Where the uplink finds batches. All calls may block on the disk; the uplink makes them off the async threads.
pub trait BatchSource: Send + Sync + 'static {
    /// The first batch at or after `index` that is synced and not acknowledged, with its index; `None` if there is none
    /// yet. The bytes are an envelope; for a damaged record they are the tombstone that stands for it.
    fn next_from(&self, index: u64) -> Result<Option<(u64, Bytes)>, SourceError>;

    /// The batch at an index that `next_from` returned, the same bytes again.
    fn read(&self, index: u64) -> Result<Bytes, SourceError>;

    /// Changes whenever more batches may be found.
    fn changed(&self) -> watch::Receiver<u64>;
}

/// Who is told what became of batches. Calls must not block for long.
pub trait AckSink: Send + Sync + 'static {
    /// The batch is durable in the cloud log.
    fn acked(&self, index: u64);

    /// The gateway can never store the batch; its tombstone is sent in its place and `acked` follows for it.
    fn tombstoned(&self, _index: u64, _reason: &str) {}

    /// The gateway names the log's generation and its record limit: what is sealed from now on keeps to them.
    fn welcomed(&self, _generation: u32, _max_batch_bytes: u32) {}
}

/// The spool could not be read. The uplink keeps the batch and tries again later.
#[derive(Debug, thiserror::Error)]
#[error("spool record {index} cannot be read: {what}")]
pub struct SourceError {
    pub index: u64,
    pub what: String,
}
