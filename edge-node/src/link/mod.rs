//! The uplink: carries sealed batches from the spool to a gateway and brings acknowledgements back.
//!
//! What to send and when is decided by the pure `sluice_wire::session::Client`, which batch is live by `frontier`, which gateway
//! comes next by `gateways`, how much may be on its way by `congestion`, what it may cost by `budget`, what is asked of the rest of the node
//! when the budget is short by `thrift`, and when the certificate is renewed by `renewal`. Here are the QUIC connection, the certificates
//! and the reading of the spool.

mod budget;
mod clock;
mod config;
mod congestion;
mod connect;
mod credentials;
mod driver;
mod frontier;
mod gateways;
mod ledger;
mod pipe;
mod reading;
mod renewal;
mod socket;
mod status;
mod thrift;
mod tls;
mod uplink;

use std::ops::Range;

use bytes::Bytes;
use tokio::sync::watch;

pub use budget::{Budget, BudgetStatus, Window};
pub use clock::{SystemClock, WallClock};
pub use config::{LinkConfig, LinkError};
pub use status::{CertificateStatus, LaneStatus, LanesStatus, LinkStatus, PathStatus};
pub(crate) use thrift::Thrift;
pub use tls::{TlsError, certificate_identity};
pub use uplink::Uplink;

/// Where the uplink finds batches. All calls may block on the disk; the uplink makes them off the async threads.
pub trait BatchSource: Send + Sync + 'static {
    /// The first batch at or after `index` that is synced and not acknowledged, with its index; `None` if there is none
    /// yet. The bytes are an envelope; for a damaged record they are the tombstone that stands for it.
    fn next_from(&self, index: u64) -> Result<Option<(u64, Bytes)>, SourceError>;

    /// The batch at an index that `next_from` returned: the same bytes again, or its tombstone when it was damaged since.
    fn read(&self, index: u64) -> Result<Bytes, SourceError>;

    /// The uplink has forgotten a batch that `next_from` returned, before any of it was sent.
    fn given_back(&self, _index: u64) {}

    /// The index after the newest batch that can be found; it only grows.
    fn changed(&self) -> watch::Receiver<u64>;

    /// Batches below this index hold nothing that was accepted since the link came back last, as far as is known.
    fn past(&self) -> u64 {
        0
    }

    /// How many batches of a range are not acknowledged, and about how many bytes they are. Does not touch the disk.
    fn waiting(&self, range: Range<u64>) -> Waiting;
}

/// What waits in the spool, on its way included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    pub batches: u64,
    pub bytes: u64,
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
