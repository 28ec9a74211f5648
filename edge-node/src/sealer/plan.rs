//! When accepted rows become a batch, and which of them. Pure: ages are arguments.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use sluice_wire::session::Lane;
use sluice_wire::session::lanes::{LanePolicy, left_by};

/// When to seal.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    pub(crate) max_rows: usize,
    pub(crate) max_bytes: usize,
    /// While the link is up, no row waits longer.
    pub(crate) freshness: Duration,
    /// While it is down, nobody waits and bigger batches compress better.
    pub(crate) offline_age: Duration,
}

/// How the link is doing, as far as sealing cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// Up, with room for another batch.
    Ready,
    /// Up, with room, and what an outage left on its way beside: a batch waits in front of the link, too.
    Shared,
    /// Up, and what is sealed already fills it: one more batch would only wait there.
    Busy,
    Offline,
}

/// When a link that is up is busy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Busy {
    pub(crate) policy: LanePolicy,
    /// Batches that may be on their way.
    pub(crate) max_in_flight: usize,
}

impl Busy {
    /// Of the batches on their way, of those of the backlog among them, and of those of the live lane that are not acknowledged.
    pub(crate) fn is_reached(&self, in_flight: usize, of_backlog: usize, live: usize) -> bool {
        match self.policy {
            // What an outage left always fills what it may; fresh rows have room of their own, and are held up by themselves alone.
            LanePolicy::FreshFirst | LanePolicy::Weighted { .. } if of_backlog > 0 => {
                live >= left_by(self.policy, Lane::Backlog, self.max_in_flight).max(1)
            }
            // Without a backlog they have all of it; where the oldest go first, what is fresh comes last in any case.
            _ => in_flight >= self.max_in_flight,
        }
    }
}

/// While the link is busy rows wait this many times longer.
const BUSY_FACTOR: u32 = 4;
/// Beside a backlog rows wait this part of the time, where there are enough of them:
const SHARED_PART: u32 = 2;
/// so many that a batch of them takes hardly more bytes a row than a larger one.
const ENOUGH_ROWS: usize = 1_000;

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Nothing waits.
    Nothing,
    /// Seal after this time, unless something changes.
    Wait(Duration),
    Seal,
}

/// One journal record on its way into a batch.
#[derive(Debug)]
pub(crate) struct Pending<T> {
    pub(crate) index: u64,
    /// So many records just before it cannot be read; what they held is counted with it, so they go wherever it goes.
    pub(crate) damaged_before: u64,
    /// When it was accepted, on any monotonic scale.
    pub(crate) accepted: Duration,
    pub(crate) rows: usize,
    pub(crate) bytes: usize,
    pub(crate) content: T,
}

/// Journal records in the order of the journal. They arrive in any order; only a run without holes is sealed.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    policy: Policy,
    /// Index after the last of `ready`.
    next: u64,
    ready: VecDeque<Pending<T>>,
    early: BTreeMap<u64, Pending<T>>,
    rows: usize,
    bytes: usize,
}

impl<T> Queue<T> {
    /// `next` is the first index that is not sealed yet.
    pub(crate) fn new(policy: Policy, next: u64) -> Self {
        Self {
            policy,
            next,
            ready: VecDeque::new(),
            early: BTreeMap::new(),
            rows: 0,
            bytes: 0,
        }
    }

    pub(crate) fn push(&mut self, pending: Pending<T>) {
        let first = pending.index.saturating_sub(pending.damaged_before);
        self.early.insert(first, pending);
        while let Some(pending) = self.early.remove(&self.next) {
            self.next = pending.index + 1;
            self.rows += pending.rows;
            self.bytes += pending.bytes;
            self.ready.push_back(pending);
        }
    }

    pub(crate) fn decide(&self, now: Duration, link: Link) -> Decision {
        let Some(oldest) = self.ready.front() else {
            return Decision::Nothing;
        };
        if self.rows >= self.policy.max_rows || self.bytes >= self.policy.max_bytes {
            return Decision::Seal;
        }
        let patience = match link {
            Link::Shared if self.rows >= ENOUGH_ROWS => self.policy.freshness / SHARED_PART,
            Link::Ready | Link::Shared => self.policy.freshness,
            Link::Busy => (self.policy.freshness * BUSY_FACTOR).min(self.policy.offline_age),
            Link::Offline => self.policy.offline_age,
        };
        let age = now.saturating_sub(oldest.accepted);
        if age >= patience {
            Decision::Seal
        } else {
            Decision::Wait(patience - age)
        }
    }

    /// The records of the next batch: as many as fit, at least one. Empty if nothing is ready.
    pub(crate) fn cut(&mut self) -> Vec<Pending<T>> {
        self.cut_at_most(usize::MAX)
    }

    /// The same, with so many records at most.
    pub(crate) fn cut_at_most(&mut self, records: usize) -> Vec<Pending<T>> {
        let (mut rows, mut bytes, mut count) = (0, 0, 0);
        for pending in self.ready.iter().take(records.max(1)) {
            rows += pending.rows;
            bytes += pending.bytes;
            if count > 0 && (rows > self.policy.max_rows || bytes > self.policy.max_bytes) {
                break;
            }
            count += 1;
        }
        let group: Vec<_> = self.ready.drain(..count).collect();
        self.rows -= group.iter().map(|p| p.rows).sum::<usize>();
        self.bytes -= group.iter().map(|p| p.bytes).sum::<usize>();
        group
    }

    /// Gives back a group that could not be sealed.
    pub(crate) fn put_back(&mut self, group: Vec<Pending<T>>) {
        for pending in group.into_iter().rev() {
            self.rows += pending.rows;
            self.bytes += pending.bytes;
            self.ready.push_front(pending);
        }
    }

    /// Records that wait, and when the oldest was accepted.
    pub(crate) fn waiting(&self) -> (usize, Option<Duration>) {
        (
            self.ready.len() + self.early.len(),
            self.ready.front().map(|p| p.accepted),
        )
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn policy() -> Policy {
        Policy {
            max_rows: 100,
            max_bytes: 1000,
            freshness: Duration::from_secs(1),
            offline_age: Duration::from_secs(30),
        }
    }

    fn pending(index: u64, rows: usize) -> Pending<()> {
        Pending {
            index,
            damaged_before: 0,
            accepted: Duration::from_secs(index),
            rows,
            bytes: rows * 5,
            content: (),
        }
    }

    #[test]
    fn p6_what_an_outage_left_does_not_hold_up_fresh_rows() {
        let busy = |policy, in_flight, of_backlog, live| {
            let busy = Busy {
                policy,
                max_in_flight: 32,
            };
            busy.is_reached(in_flight, of_backlog, live)
        };
        for policy in [LanePolicy::FreshFirst, LanePolicy::Weighted { live_percent: 30 }] {
            assert!(
                !busy(policy, 32, 25, 7),
                "{policy:?}: all places taken, a quarter at most by fresh rows"
            );
            assert!(busy(policy, 9, 1, 8), "{policy:?}: fresh rows wait for one another");
            assert!(
                !busy(policy, 31, 0, 31),
                "{policy:?}: a long way, and nothing else on it"
            );
            assert!(busy(policy, 32, 0, 32), "{policy:?}: no room at all");
        }
        // A lane with a tenth of the link has a tenth of what may be on its way.
        let thin = LanePolicy::Weighted { live_percent: 10 };
        assert!(busy(thin, 9, 1, 3) && !busy(thin, 9, 1, 2));
        assert!(busy(LanePolicy::OldestFirst, 32, 32, 0));
        assert!(!busy(LanePolicy::OldestFirst, 31, 0, 31));
    }

    proptest! {
        #[test]
        fn p2_every_record_is_in_exactly_one_group_in_order(
            order in Just((0..40u64).collect::<Vec<_>>()).prop_shuffle(),
            rows in proptest::collection::vec(0usize..150, 40),
            returned in proptest::collection::vec(any::<bool>(), 40),
        ) {
            let mut queue = Queue::new(policy(), 0);
            let mut sealed = Vec::new();
            let mut returned = returned.into_iter();
            for index in order {
                queue.push(pending(index, rows[index as usize]));
                while queue.decide(Duration::ZERO, Link::Offline) == Decision::Seal {
                    let group = queue.cut();
                    prop_assert!(!group.is_empty());
                    let sum: usize = group.iter().map(|p| p.rows).sum();
                    prop_assert!(group.len() == 1 || sum <= 100);
                    if returned.next() == Some(true) {
                        queue.put_back(group);
                    } else {
                        sealed.extend(group.iter().map(|p| p.index));
                    }
                }
            }
            loop {
                let group = queue.cut();
                if group.is_empty() {
                    break;
                }
                sealed.extend(group.iter().map(|p| p.index));
            }
            prop_assert_eq!(sealed, (0..40).collect::<Vec<_>>());
            prop_assert_eq!((queue.rows, queue.bytes), (0, 0));
        }
    }

    #[test]
    fn one_row_alone_waits_for_freshness_when_the_link_is_up_and_longer_when_it_is_not() {
        let mut queue = Queue::new(policy(), 7);
        assert_eq!(queue.decide(Duration::from_secs(99), Link::Ready), Decision::Nothing);
        queue.push(pending(7, 1));
        let at = |ms: u64| Duration::from_millis(7000 + ms);
        assert_eq!(queue.decide(at(0), Link::Ready), Decision::Wait(Duration::from_secs(1)));
        assert_eq!(queue.decide(at(1000), Link::Ready), Decision::Seal);
        assert_eq!(
            queue.decide(at(1000), Link::Busy),
            Decision::Wait(Duration::from_secs(3))
        );
        assert_eq!(
            queue.decide(at(1000), Link::Offline),
            Decision::Wait(Duration::from_secs(29))
        );
        assert_eq!(queue.decide(at(30_000), Link::Offline), Decision::Seal);
    }

    #[test]
    fn p6_beside_a_backlog_many_rows_wait_for_half_of_the_time_and_few_for_all_of_it() {
        let policy = Policy {
            max_rows: 2 * ENOUGH_ROWS,
            ..policy()
        };
        for (rows, link, wait_ms) in [
            (ENOUGH_ROWS, Link::Shared, 500),
            (ENOUGH_ROWS - 1, Link::Shared, 1_000),
            (ENOUGH_ROWS, Link::Ready, 1_000),
            (ENOUGH_ROWS, Link::Busy, 4_000),
        ] {
            let mut queue = Queue::new(policy.clone(), 0);
            queue.push(Pending {
                bytes: 0,
                ..pending(0, rows)
            });
            let wait = Decision::Wait(Duration::from_millis(wait_ms));
            assert_eq!(queue.decide(Duration::ZERO, link), wait, "{rows} {link:?}");
            assert_eq!(queue.decide(Duration::from_millis(wait_ms), link), Decision::Seal);
        }
    }

    #[test]
    fn size_seals_whatever_the_link_does() {
        let mut queue = Queue::new(policy(), 0);
        queue.push(pending(0, 99));
        assert_ne!(queue.decide(Duration::ZERO, Link::Offline), Decision::Seal);
        queue.push(pending(1, 1));
        assert_eq!(queue.decide(Duration::ZERO, Link::Offline), Decision::Seal);
    }
}
