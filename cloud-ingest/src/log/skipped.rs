//! The log as the writers see it: records that an operator told them to pass over are damage, whatever they hold.
//!
//! Both writers read the same list before they begin, so what they write stays a function of the log.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use sluice_wire::ids::Partition;

use super::{Head, Log, LogError, LogRecord};

/// Records of an answer about what the log does not have at all.
const MAX_LOST: u64 = 1024;

/// Offsets that are passed over: where a range begins, where it ends, and the reason.
#[derive(Clone, Debug, Default)]
pub(crate) struct Skips(BTreeMap<(Partition, u64), (u64, String)>);

impl Skips {
    /// Both ends are passed over.
    pub(crate) fn add(&mut self, partition: Partition, first: u64, last: u64, reason: String) {
        self.0.insert((partition, first), (last, reason));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Where the range ends that an offset is in, and why it is passed over.
    fn at(&self, partition: Partition, offset: u64) -> Option<(u64, &str)> {
        let before = self.0.range((partition, 0)..=(partition, offset)).rev();
        let mut around = before.filter(|(_, (last, _))| *last >= offset);
        around.next().map(|(_, (last, reason))| (*last, reason.as_str()))
    }

    /// Where the next range begins.
    fn after(&self, partition: Partition, offset: u64) -> Option<u64> {
        let after = (partition, offset.saturating_add(1))..=(partition, u64::MAX);
        self.0.range(after).next().map(|((_, first), _)| *first)
    }

    /// Where a log begins whose beginning is lost, and known to be.
    fn first(&self, partition: Partition, first: u64) -> u64 {
        let mut lowest = first;
        for ((_, from), (last, _)) in self.0.range((partition, 0)..(partition, first)).rev() {
            if last.saturating_add(1) >= lowest {
                lowest = lowest.min(*from);
            }
        }
        lowest
    }
}

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
        if let Some((last, reason)) = self.skips.at(partition, from).filter(|_| is_there) {
            let passed_over = |offset: u64, left: Option<LogRecord>| LogRecord {
                partition,
                offset,
                ingested_at_us: left.as_ref().map_or(0, |record| record.ingested_at_us),
                envelope: Bytes::new(),
                head: left.and_then(|record| record.head),
                damaged: Some(format!("{PASSED_OVER}{reason}")),
            };
            let first = self.inner.first(partition);
            if from < first {
                // Nobody has anything of them.
                let end = last.saturating_add(1).min(first).min(from.saturating_add(MAX_LOST));
                return Ok((from..end).map(|offset| passed_over(offset, None)).collect());
            }
            // What can still be had of it says whose events are lost, and how many.
            let read = self.inner.read(partition, from, 1).await;
            let left = read.ok().and_then(|records| records.into_iter().next());
            return Ok(vec![passed_over(from, left)]);
        }
        let mut records = self.inner.read(partition, from, max_bytes).await?;
        if let Some(next) = self.skips.after(partition, from) {
            records.retain(|record| record.offset < next);
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
        self.skips.first(partition, self.inner.first(partition))
    }

    fn bytes(&self, partition: Partition) -> u64 {
        self.inner.bytes(partition)
    }

    fn is_end_known(&self) -> bool {
        self.inner.is_end_known()
    }

    async fn first_since(&self, partition: Partition, low: u64, high: u64, cutoff_us: i64) -> Result<u64, LogError> {
        // Nobody knows when came what is lost.
        let low = low.max(self.inner.first(partition)).min(high);
        self.inner.first_since(partition, low, high, cutoff_us).await
    }

    async fn trim(&self, partition: Partition, below: u64) -> Result<(), LogError> {
        self.inner.trim(partition, below).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_passed_over_whole_and_moves_the_beginning_that_it_reaches() {
        let p = Partition::default();
        let mut skips = Skips::default();
        for (first, last) in [(10, 19), (20, 29), (25, 25), (50, 50)] {
            skips.add(p, first, last, format!("from {first}"));
        }
        let at = |offset| skips.at(p, offset).map(|(last, _)| last);
        assert_eq!(
            [9, 10, 19, 25, 27, 29, 30, 50].map(at),
            [None, Some(19), Some(19), Some(25), Some(29), Some(29), None, Some(50)]
        );
        assert_eq!(
            [0, 10, 27, 50].map(|offset| skips.after(p, offset)),
            [Some(10), Some(20), Some(50), None]
        );
        assert_eq!(
            [5, 20, 30, 31, 51].map(|first| skips.first(p, first)),
            [5, 10, 10, 31, 50]
        );
    }
}
