//! The log between gateway and writers: partitions of records with gap-free offsets.

mod embedded;
mod guard;
mod head;
mod salvage;

use async_trait::async_trait;
use bytes::Bytes;
use sluice_wire::ids::Partition;

pub use embedded::{EmbeddedLog, EmbeddedOptions, OpenError};
pub(crate) use guard::GuardedLog;
pub use head::Head;

/// At-least-once: a batch may stand in it twice, and its identity tells. Offsets of a partition count from 0 without gaps.
#[async_trait]
pub trait Log: Send + Sync + 'static {
    /// All partitions of the current generation, by index.
    fn partitions(&self) -> Vec<Partition>;

    /// Adds one record and returns its offset; durable when it returns. `head` is what the envelope says too, kept apart from it.
    async fn append(
        &self,
        partition: Partition,
        head: &Head,
        envelope: Bytes,
        ingested_at_us: i64,
    ) -> Result<u64, LogError>;

    /// Records from `from` on, in order, at least one if there is any, else about `max_bytes`; empty if nothing is there yet.
    async fn read(&self, partition: Partition, from: u64, max_bytes: usize) -> Result<Vec<LogRecord>, LogError>;

    /// Returns once a record stands at `offset`, or when the log is closing.
    async fn wait_beyond(&self, partition: Partition, offset: u64);

    /// The offset that the next record will get; 0 for a partition that does not exist.
    fn end(&self, partition: Partition) -> u64;

    /// The oldest offset that can still be read.
    fn first(&self, _partition: Partition) -> u64 {
        0
    }

    /// Bytes that a partition takes, as far as the log knows.
    fn bytes(&self, _partition: Partition) -> u64 {
        0
    }

    /// Permits the log to forget everything below an offset.
    async fn trim(&self, partition: Partition, below: u64) -> Result<(), LogError>;
}

/// One record as a reader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRecord {
    pub partition: Partition,
    pub offset: u64,
    pub ingested_at_us: i64,
    /// Empty when the record is damaged.
    pub envelope: Bytes,
    /// Whose batch it is, as the log itself noted it; unknown for old records, and when that is damaged too.
    pub head: Option<Head>,
    /// Why the record cannot be read any more.
    pub damaged: Option<String>,
}

/// Sorted by what the caller must do.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LogError {
    /// Try again later; nothing was stored, or it may have been and identity will tell.
    #[error("the log takes nothing at the moment: {reason}")]
    Retry { reason: String },
    /// This record never fits.
    #[error("batch of {bytes} bytes, the log takes at most {max}")]
    TooLarge { bytes: u64, max: u64 },
    #[error("the log has no partition {0}")]
    NoPartition(Partition),
    /// A reader wants what the log has forgotten: it must stop loudly.
    #[error("offset {wanted} of partition {partition} is gone, the log begins at {first}")]
    Trimmed {
        partition: Partition,
        wanted: u64,
        first: u64,
    },
    /// The process must end; the next start reads again what is on disk.
    #[error("the log has failed: {reason}")]
    Failed { reason: String },
}
