//! What one tenant took: of its rates, and of its day.

use std::time::Duration;

use sluice_wire::ids::TenantId;

use super::bucket::Bucket;
use super::meter::{DAY_S, Limit, Moment, Over, TenantStatus};

/// The limits as far as they are used up, and what is told of it.
#[derive(Debug, Default)]
pub(super) struct Account {
    pub(super) events: Bucket,
    pub(super) bytes: Bucket,
    pub(super) day: u64,
    /// Of those whose size nobody knows before the end, the one that may go on over the limit.
    pub(super) debtor: Option<u64>,
    pub(super) status: TenantStatus,
}

/// What was asked for once: which it is, and the day that it counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) number: u64,
    pub(super) day: u64,
}

impl Account {
    /// Which limit holds now, and for how long. Whoever waits for the longest has waited for all.
    pub(super) fn over(&self, per_day: u64, now: Moment) -> Option<(Limit, Duration)> {
        let over_day = per_day > 0 && self.status.bytes_today >= per_day;
        let midnight = Duration::from_secs(DAY_S - now.unix_s % DAY_S);
        let waits = [
            (Limit::Day, if over_day { midnight } else { Duration::ZERO }),
            (Limit::Bytes, self.bytes.wait(now.since)),
            (Limit::Events, self.events.wait(now.since)),
        ];
        let longest = waits.into_iter().max_by_key(|(_, wait)| *wait);
        longest.filter(|(_, wait)| *wait > Duration::ZERO)
    }

    pub(super) fn take_bytes(&mut self, bytes: u64, now: Moment) {
        self.bytes.take(bytes, now.since);
        self.status.bytes_today = self.status.bytes_today.saturating_add(bytes);
        self.status.bytes = self.status.bytes.saturating_add(bytes);
    }

    /// Takes bytes from the day that they were counted for; of a day that is over nothing is given to this one.
    pub(super) fn uncount(&mut self, entry: Entry, bytes: u64) {
        if entry.day == self.day {
            self.status.bytes_today = self.status.bytes_today.saturating_sub(bytes);
        }
    }

    pub(super) fn not_taken(&mut self, bytes: u64, events: u64) {
        let status = &mut self.status;
        status.bytes = status.bytes.saturating_sub(bytes);
        status.events = status.events.saturating_sub(events);
        status.taken = status.taken.saturating_sub(1);
    }

    pub(super) fn owe(&mut self, events: u64, now: Moment) {
        self.events.take(events, now.since);
        self.status.events = self.status.events.saturating_add(events);
    }

    pub(super) fn hold(&mut self, who: &TenantId, limit: Limit, wait: Duration) -> Over {
        let held = match limit {
            Limit::Events => &mut self.status.held_events_per_second,
            Limit::Bytes => &mut self.status.held_bytes_per_second,
            Limit::Day => &mut self.status.held_bytes_per_day,
        };
        *held += 1;
        Over {
            tenant: who.clone(),
            limit,
            wait,
        }
    }
}
