//! The spool as the uplink sees it: what is to be sent, and what became of it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use sluice_wal::{WalError, crash_point};
use tokio::sync::watch;

use super::{Spool, lock};
use crate::link::{AckSink, BatchSource, SourceError, Waiting};

/// What the uplink has, in this life of the process, and the cloud has not acknowledged. What it was given once stays what it is,
/// also when the batch is given up meanwhile. Indices leave with their acknowledgement; bytes are bounded where they are put in.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) by_uplink: BTreeSet<u64>,
    /// Of those that were given up, the bytes.
    pub(super) kept: BTreeMap<u64, Bytes>,
}

impl Taken {
    fn settle(&mut self, index: u64) {
        self.by_uplink.remove(&index);
        self.kept.remove(&index);
    }
}

impl BatchSource for Spool {
    fn next_from(&self, index: u64) -> Result<Option<(u64, Bytes)>, SourceError> {
        let mut from = index;
        loop {
            let kept = lock(&self.acked).set.next_absent(from.max(self.reader.first()));
            let kept = Some(kept).filter(|at| *at < self.reader.synced());
            let given_up = lock(&self.given_up).at_or_after(index);
            let Some(at) = kept.into_iter().chain(given_up).min() else {
                return Ok(None);
            };
            let mut taken = lock(&self.taken);
            taken.by_uplink.insert(at);
            let result = match taken.kept.get(&at) {
                Some(bytes) => return Ok(Some((at, bytes.clone()))),
                None if given_up == Some(at) => match self.bytes_at(at) {
                    // It may have been acknowledged meanwhile.
                    Err(_) if lock(&self.given_up).counts(at).is_none() => None,
                    other => Some(other),
                },
                None => match self.reader.read(at) {
                    Err(WalError::Trimmed { first }) if first > at => {
                        from = first;
                        None
                    }
                    _ => Some(self.bytes_at(at)),
                },
            };
            match result {
                Some(Ok(bytes)) => return Ok(Some((at, bytes))),
                other => {
                    taken.by_uplink.remove(&at);
                    if let Some(Err(error)) = other {
                        return Err(error);
                    }
                }
            }
        }
    }

    fn read(&self, index: u64) -> Result<Bytes, SourceError> {
        let taken = lock(&self.taken);
        match taken.kept.get(&index) {
            Some(bytes) => Ok(bytes.clone()),
            None => self.bytes_at(index),
        }
    }

    fn given_back(&self, index: u64) {
        let mut taken = lock(&self.taken);
        // What was given up meanwhile is what the uplink was told it is.
        if !taken.kept.contains_key(&index) {
            taken.by_uplink.remove(&index);
        }
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn past(&self) -> u64 {
        self.past.load(Ordering::SeqCst)
    }

    fn waiting(&self, range: Range<u64>) -> Waiting {
        let (first, next) = (self.reader.first(), self.reader.synced());
        // What was given up and is not in the spool any more is a few bytes that tell of it.
        let given_up = lock(&self.given_up).count_in(range.start..range.end.min(first));
        let range = range.start.max(first)..range.end.min(next);
        let all = range.end.saturating_sub(range.start);
        let batches = all.saturating_sub(lock(&self.acked).set.count_in(range));
        // Single records are not measured: an average of what is on the disk.
        let average = self.bytes_on_disk() / next.saturating_sub(first).max(1);
        Waiting {
            batches: batches + given_up,
            bytes: batches * average,
        }
    }
}

impl AckSink for Spool {
    fn acked(&self, index: u64) {
        let mut acked = lock(&self.acked);
        if index < self.reader.synced() && acked.set.insert(index) {
            acked.count += 1;
            drop(acked);
            lock(&self.given_up).settle(index);
            lock(&self.taken).settle(index);
            crash_point("edge.acked");
            self.acks.send_modify(|n| *n += 1);
        }
    }

    fn tombstoned(&self, index: u64, reason: &str) {
        lock(&self.acked).tombstoned += 1;
        tracing::error!(index, reason, "gateway can never store a batch, its tombstone is sent");
    }

    fn welcomed(&self, generation: u32, max_batch_bytes: u32) {
        let mut writer = lock(&self.writer);
        if max_batch_bytes > 0 {
            let (own, theirs) = (self.options.max_batch_bytes, u64::from(max_batch_bytes));
            if theirs < own && writer.max_batch_bytes != theirs {
                tracing::warn!(
                    own,
                    theirs,
                    "gateway takes smaller batches than this node is told to make"
                );
            }
            writer.max_batch_bytes = own.min(theirs);
        }
        match writer.identity.set_generation(generation) {
            Ok(true) => writer.rotate = true,
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "log generation cannot be saved"),
        }
    }
}
