//! Whose the batches are that are set aside.
//!
//! A tenant may have half of what the others leave free: one alone gets half of the quarantine, two get a third each, and there is always
//! room for one more.

use std::collections::BTreeMap;

use sluice_wire::envelope::Envelope;

use super::record::{self, Note};
use super::{KeepError, PARTITION, QuarantineLimits, READ_BYTES};
use crate::log::{Log, LogError, LogRecord};

/// So much any tenant may have as long as there is room at all: a small quarantine is not cut into pieces.
const FREE_BATCHES: u64 = 16;
const FREE_BYTES: u64 = 16 << 20;

/// What is known of the records, without what they hold.
#[derive(Debug, Default)]
pub(super) struct Usage {
    next: u64,
    /// Below this everything was taken out, even if the log does not say so yet.
    floor: u64,
    pub(super) records: BTreeMap<u64, Piece>,
}

/// A record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) tenant: String,
    pub(super) bytes: u64,
    pub(super) seen_us: i64,
    /// First and last time of its rows; `None`: that cannot be read.
    pub(super) times: Option<(i64, i64)>,
    /// It holds a batch, and is no mark.
    pub(super) is_batch: bool,
}

impl Piece {
    fn of(record: &LogRecord) -> Self {
        let tenant = record.head.as_ref().map(|head| head.id.stream.tenant.to_string());
        let taken = record::take(&record.envelope).ok();
        let is_batch = !matches!(taken, Some((Note::Mark { .. }, _)));
        let header = taken.and_then(|(_, batch)| Envelope::parse(batch).ok());
        Self {
            tenant: tenant.unwrap_or_default(),
            bytes: record.envelope.len() as u64,
            seen_us: record.ingested_at_us,
            times: header.map(|envelope| (envelope.header.time_min_ns, envelope.header.time_max_ns)),
            is_batch,
        }
    }
}

impl Usage {
    /// Reads what came since the last time.
    pub(super) async fn catch_up(&mut self, log: &dyn Log) -> Result<(), LogError> {
        let first = log.first(PARTITION).max(self.floor);
        self.records = self.records.split_off(&first);
        self.next = self.next.max(first);
        let end = log.end(PARTITION);
        while self.next < end {
            let records = log.read(PARTITION, self.next, READ_BYTES).await?;
            if records.is_empty() {
                let reason = "the batches that are set aside cannot be read".to_owned();
                return Err(LogError::Retry { reason });
            }
            for record in &records {
                if record.damaged.is_none() {
                    self.records.insert(record.offset, Piece::of(record));
                }
                self.next = record.offset + 1;
            }
        }
        Ok(())
    }

    /// Everything below an offset was taken out.
    pub(super) fn forget_below(&mut self, offset: u64) {
        self.floor = self.floor.max(offset);
        self.records = self.records.split_off(&self.floor);
    }

    /// Refuses what a tenant has too much of. `bytes`: their sum is limited, too.
    pub(super) fn check(
        &self,
        tenant: &str,
        more: u64,
        limits: &QuarantineLimits,
        bytes: bool,
    ) -> Result<(), KeepError> {
        let (mut own, mut others) = ((0, 0), (0, 0));
        for piece in self.records.values() {
            let sum: &mut (u64, u64) = if piece.tenant == tenant { &mut own } else { &mut others };
            *sum = (sum.0 + 1, sum.1 + piece.bytes);
        }
        let share = |max: u64, others: u64, free: u64| (max.saturating_sub(others) / 2).max(free.min(max));
        let refused = |held, max, key| KeepError::Share {
            tenant: tenant.to_owned(),
            held,
            max,
            key,
        };
        let batches = share(limits.max_batches, others.0, FREE_BATCHES);
        if own.0 >= batches {
            return Err(refused(own.0, batches, "max_batches"));
        }
        let most = share(limits.max_bytes, others.1, FREE_BYTES);
        if bytes && own.1 > 0 && own.1.saturating_add(more) > most {
            return Err(refused(own.1, most, "max_size"));
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn fill(usage: &mut Usage, tenant: &str, limits: &QuarantineLimits, bytes: u64) -> u64 {
        let mut count = 0;
        while usage.check(tenant, bytes, limits, true).is_ok() && (usage.records.len() as u64) < limits.max_batches {
            let piece = Piece {
                tenant: tenant.to_owned(),
                bytes,
                seen_us: 0,
                times: None,
                is_batch: true,
            };
            usage.records.insert(usage.records.len() as u64, piece);
            count += 1;
        }
        count
    }

    #[test]
    fn one_tenant_never_fills_it_for_all() {
        let limits = QuarantineLimits {
            max_batches: 1000,
            max_bytes: 1 << 40,
        };
        let mut usage = Usage::default();
        assert_eq!(fill(&mut usage, "acme", &limits, 1), 500);
        assert_eq!(fill(&mut usage, "bolt", &limits, 1), 250);
        assert_eq!(fill(&mut usage, "core", &limits, 1), 125);
        let limits = QuarantineLimits {
            max_batches: 1000,
            max_bytes: 100 << 20,
        };
        let mut usage = Usage::default();
        assert_eq!(fill(&mut usage, "acme", &limits, 1 << 20), 50);
        assert_eq!(fill(&mut usage, "bolt", &limits, 1 << 20), 25);
        // A small one is not cut into pieces.
        let limits = QuarantineLimits {
            max_batches: 5,
            max_bytes: 1 << 40,
        };
        assert_eq!(fill(&mut Usage::default(), "acme", &limits, 1), 5);
    }
}
