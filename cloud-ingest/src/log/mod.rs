//! The log between gateway and writers: partitions of records with gap-free offsets.

mod embedded;
mod guard;
mod head;
pub mod kafka;
mod salvage;
mod skipped;

use async_trait::async_trait;
use bytes::Bytes;
use sluice_wire::ids::Partition;

pub(crate) use embedded::look_into;
pub use embedded::{EmbeddedLog, EmbeddedOptions, OpenError};
pub(crate) use guard::GuardedLog;
pub use head::Head;
pub use kafka::{KafkaLog, KafkaOptions};
pub(crate) use skipped::{SkippedLog, Skips, is_passed_over};

/// At-least-once: a batch may stand in it twice, and its identity tells. Offsets of a partition count from 0 without gaps.
#[async_trait]
pub trait Log: Send + Sync + 'static {
    /// All partitions of the current generation, by index.
    fn partitions(&self) -> Vec<Partition>;

    /// Returns once the log answers and is what it shall be. An error is for good: as it is, this log is never used.
    async fn opened(&self) -> Result<(), LogError> {
        Ok(())
    }

    /// Adds one record and returns its offset; durable when it returns. `head` is what the envelope says too, kept apart from it.
    async fn append(
        &self,
        partition: Partition,
        head: &Head,
        envelope: Bytes,
        ingested_at_us: i64,
    ) -> Result<u64, LogError>;

    /// Records from `from` on, in order, at least one if there is any, else about `max_bytes`; empty if nothing is there yet, or
    /// if the log is out of reach: then [`Log::end`] may say that there is more.
    async fn read(&self, partition: Partition, from: u64, max_bytes: usize) -> Result<Vec<LogRecord>, LogError>;

    /// Returns once a record stands at `offset`, or when the log is closing.
    async fn wait_beyond(&self, partition: Partition, offset: u64);

    /// The offset that the next record will get; 0 for a partition that does not exist.
    fn end(&self, partition: Partition) -> u64;

    /// The same, asked for now: [`Log::end`] may be older than what others have appended and somebody has stored already.
    async fn fresh_end(&self, partition: Partition) -> Result<u64, LogError> {
        Ok(self.end(partition))
    }

    /// The oldest offset that can still be read.
    fn first(&self, _partition: Partition) -> u64 {
        0
    }

    /// Bytes that a partition takes; 0 when the log does not know.
    fn bytes(&self, _partition: Partition) -> u64 {
        0
    }

    /// The largest batch that fits, when that is less than what the gateway takes.
    fn max_envelope_bytes(&self) -> Option<u32> {
        None
    }

    /// Whether [`Log::end`] is as of now.
    fn is_end_known(&self) -> bool {
        true
    }

    /// What must never change while the stores hold offsets of this log; `None` when the log looks after that by itself. Known once
    /// it is opened.
    fn fingerprint(&self) -> Option<String> {
        None
    }

    /// Why the log cannot be used at the moment, for people.
    fn trouble(&self) -> Option<String> {
        None
    }

    /// When the record at `offset` was taken in, in microseconds since 1970, or a time soon after; `None` when that is not known
    /// without waiting.
    fn taken_in_us(&self, _partition: Partition, _offset: u64) -> Option<i64> {
        None
    }

    /// The first offset in `low..high` whose record arrived at or after `cutoff_us`, or `high`. Arrival times grow with the offset
    /// but for the small steps of clocks.
    async fn first_since(&self, partition: Partition, low: u64, high: u64, cutoff_us: i64) -> Result<u64, LogError> {
        let (mut low, mut high) = (low, high);
        while low < high {
            let middle = low + (high - low) / 2;
            let read = self.read(partition, middle, 1).await?;
            if read.first().map_or(0, |record| record.ingested_at_us) < cutoff_us {
                low = middle + 1
            } else {
                high = middle
            }
        }
        Ok(low)
    }

    /// Begins a new file, if the log has files: trimmed below the offset that this returns, nothing that came before stays on the disk.
    async fn cut(&self, partition: Partition) -> Result<u64, LogError> {
        self.fresh_end(partition).await
    }

    /// Permits the log to forget everything below an offset.
    async fn trim(&self, partition: Partition, below: u64) -> Result<(), LogError>;

    /// Finishes what waits; afterwards the log takes nothing.
    async fn close(&self) {}
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
    /// A reader wants what the log never gave, or gives no more: it must stop loudly.
    #[error("offset {wanted} of partition {partition} is not in the log: {what}")]
    NotThere {
        partition: Partition,
        wanted: u64,
        what: String,
    },
    /// The log is not what the configuration says, or would lose data; nothing was done to it.
    #[error("{reason}")]
    Refused { reason: String },
    /// The process must end; the next start reads again what is on disk.
    #[error("the log has failed: {reason}")]
    Failed { reason: String },
}
