//! The log as the writers see it: records that an operator told them to pass over are damage, whatever they hold.
//!
//! Both writers read the same list before they begin, so what they write stays a function of the log.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use sluice_wire::ids::Partition;

use super::{Head, Log, LogError, LogRecord};

/// Offsets that are passed over, with the reason.
pub(crate) type Skips = BTreeMap<(Partition, u64), String>;

/// How the damage begins of a record that is passed over.
const PASSED_OVER: &str = "passed over by an operator: ";

/// Whether a record is damage because somebody said so, for the writers as for everybody who reads the log again.
pub(crate) fn is_passed_over(record: &LogRecord) -> bool {
    record.damaged.as_ref().is_some_and(|why| why.starts_with(PASSED_OVER))
}

/// A log without what its records at some offsets hold.
pub(crate) struct SkippedLog {
    pub(crate) inner: Arc<dyn Log>,
    pub(crate) skips: Skips,
}

#[async_trait]
impl Log for SkippedLog {
    fn partitions(&self) -> Vec<Partition> {
        self.inner.partitions()
    }

    async fn opened(&self) -> Result<(), LogError> {
        self.inner.opened().await
    }

    async fn append(&self, partition: Partition, head: &Head, envelope: Bytes, at_us: i64) -> Result<u64, LogError> {
        self.inner.append(partition, head, envelope, at_us).await
    }

    async fn read(&self, partition: Partition, from: u64, max_bytes: usize) -> Result<Vec<LogRecord>, LogError> {
        let is_there = from < self.inner.end(partition);
        if let Some(reason) = self.skips.get(&(partition, from)).filter(|_| is_there) {
            // What can still be had of it says whose events are lost, and how many.
            let read = self.inner.read(partition, from, 1).await;
            let left = read.ok().and_then(|records| records.into_iter().next());
            return Ok(vec![LogRecord {
                partition,
                offset: from,
                ingested_at_us: left.as_ref().map_or(0, |record| record.ingested_at_us),
                envelope: Bytes::new(),
                head: left.and_then(|record| record.head),
                damaged: Some(format!("{PASSED_OVER}{reason}")),
            }]);
        }
        let mut records = self.inner.read(partition, from, max_bytes).await?;
        let after = (partition, from.saturating_add(1))..=(partition, u64::MAX);
        if let Some(((_, next), _)) = self.skips.range(after).next() {
            records.retain(|record| record.offset < *next);
        }
        Ok(records)
    }

    async fn wait_beyond(&self, partition: Partition, offset: u64) {
        self.inner.wait_beyond(partition, offset).await;
    }

    fn end(&self, partition: Partition) -> u64 {
        self.inner.end(partition)
    }

    async fn fresh_end(&self, partition: Partition) -> Result<u64, LogError> {
        self.inner.fresh_end(partition).await
    }

    fn first(&self, partition: Partition) -> u64 {
        self.inner.first(partition)
    }

    fn bytes(&self, partition: Partition) -> u64 {
        self.inner.bytes(partition)
    }

    fn is_end_known(&self) -> bool {
        self.inner.is_end_known()
    }

    async fn first_since(&self, partition: Partition, low: u64, high: u64, cutoff_us: i64) -> Result<u64, LogError> {
        self.inner.first_since(partition, low, high, cutoff_us).await
    }

    async fn trim(&self, partition: Partition, below: u64) -> Result<(), LogError> {
        self.inner.trim(partition, below).await
    }
}
