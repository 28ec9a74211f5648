//! Admission by lag: whether the log has room for what an outage left behind, without fresh records waiting behind it.
//!
//! When thousands of edges come back together, the log takes all they have faster than the writers read it, and whatever is
//! fresh would stand behind their past. So backlog is taken only while what the writers have not read yet is young.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sluice_wire::ids::Partition;

/// Moments remembered by partition: ages are known to this part of the limit.
const MARKS: u32 = 16;
/// The longest that an edge is asked to wait: a log that has caught up is not left alone for longer.
const MAX_REST: Duration = Duration::from_secs(30);

/// Who reads the log, and how far.
pub trait ReadPosition: Send + Sync + 'static {
    /// The offset that is read next; `None` while nobody reads the partition.
    fn next(&self, partition: Partition) -> Option<u64>;
}

/// Shared by all sessions.
pub(super) struct Admission {
    ages: Mutex<UnreadAges>,
    reader: Option<Arc<dyn ReadPosition>>,
    partitions: Vec<Partition>,
    max_age: Duration,
    started: Instant,
}

impl Admission {
    /// Without a reader everything is taken. `ends` is where each partition ends now: what stands there was not seen coming.
    pub(super) fn new(
        ends: impl IntoIterator<Item = (Partition, u64)>,
        reader: Option<Arc<dyn ReadPosition>>,
        max_age: Duration,
    ) -> Self {
        let mut ages = UnreadAges::new(max_age / MARKS);
        let mut partitions = Vec::new();
        for (partition, end) in ends {
            partitions.push(partition);
            if let Some(last) = end.checked_sub(1) {
                ages.handle_appended(partition, last, Duration::ZERO);
            }
        }
        Self {
            ages: Mutex::new(ages),
            reader,
            partitions,
            max_age,
            started: Instant::now(),
        }
    }

    pub(super) fn handle_appended(&self, partition: Partition, offset: u64) {
        if self.reader.is_some() {
            let now = self.started.elapsed();
            self.lock().handle_appended(partition, offset, now);
        }
    }

    /// How long the oldest record stands in the log that no reader has read.
    pub(super) fn lag(&self) -> Duration {
        let Some(reader) = &self.reader else {
            return Duration::ZERO;
        };
        let now = self.started.elapsed();
        let mut ages = self.lock();
        let of = |partition: &Partition| Some(ages.age(*partition, reader.next(*partition)?, now));
        self.partitions.iter().filter_map(of).max().unwrap_or_default()
    }

    /// For how long backlog must wait, as of now.
    pub(super) fn backlog_rests(&self) -> Option<Duration> {
        let lag = self.lag();
        (lag > self.max_age).then(|| lag.min(MAX_REST))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, UnreadAges> {
        // Each change is complete before anything can fail.
        self.ages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Admission {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admission")
            .field("max_age", &self.max_age)
            .finish_non_exhaustive()
    }
}

/// When which offsets came. Times count from the start of the gateway, and are arguments.
#[derive(Debug)]
struct UnreadAges {
    grain: Duration,
    marks: BTreeMap<Partition, VecDeque<Mark>>,
}

/// At this time the newest record stood at this offset.
#[derive(Clone, Copy, Debug)]
struct Mark {
    at: Duration,
    last: u64,
}

impl UnreadAges {
    fn new(grain: Duration) -> Self {
        Self {
            grain,
            marks: BTreeMap::new(),
        }
    }

    fn handle_appended(&mut self, partition: Partition, offset: u64, now: Duration) {
        let marks = self.marks.entry(partition).or_default();
        // Ages by a grain too much, never too little. While nobody reads, the newest mark covers all that comes.
        let is_full = marks.len() > 2 * MARKS as usize;
        match marks.back_mut() {
            Some(mark) if is_full || now < mark.at + self.grain => mark.last = mark.last.max(offset),
            _ => marks.push_back(Mark { at: now, last: offset }),
        }
    }

    /// The age of the oldest record at or after `next`.
    fn age(&mut self, partition: Partition, next: u64, now: Duration) -> Duration {
        let Some(marks) = self.marks.get_mut(&partition) else {
            return Duration::ZERO;
        };
        while marks.front().is_some_and(|mark| mark.last < next) {
            marks.pop_front();
        }
        marks.front().map_or(Duration::ZERO, |mark| now.saturating_sub(mark.at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const P: Partition = Partition {
        generation: 0,
        index: 0,
    };

    proptest! {
        /// Against a model that remembers every record: never younger than it is, hardly older, with bounded memory.
        #[test]
        fn p6_the_age_of_what_is_unread_is_known(
            steps in proptest::collection::vec((0u64..300, 0u64..4, 0u64..3), 1..400),
        ) {
            let limit = Duration::from_secs(2);
            let mut ages = UnreadAges::new(limit / MARKS);
            let (mut now, mut came, mut next, mut was_full) = (Duration::ZERO, Vec::new(), 0u64, false);
            for (pause, appended, read) in steps {
                now += Duration::from_millis(pause);
                for _ in 0..appended {
                    ages.handle_appended(P, came.len() as u64, now);
                    came.push(now);
                }
                next = (next + read).min(came.len() as u64);
                let true_age = came.get(next as usize).map_or(Duration::ZERO, |at| now - *at);
                let age = ages.age(P, next, now);
                prop_assert!(age >= true_age, "{age:?} instead of {true_age:?}");
                let marks = ages.marks.get(&P).map_or(0, VecDeque::len);
                was_full = marks > 0 && (was_full || marks > 2 * MARKS as usize);
                prop_assert!(was_full || age <= true_age + limit / MARKS);
                prop_assert!(marks <= 2 * MARKS as usize + 1);
            }
            prop_assert_eq!(ages.age(P, came.len() as u64, now), Duration::ZERO);
        }
    }

    struct Reader(std::sync::atomic::AtomicU64);

    impl ReadPosition for Reader {
        fn next(&self, _: Partition) -> Option<u64> {
            Some(self.0.load(std::sync::atomic::Ordering::Relaxed))
        }
    }

    #[test]
    fn what_stood_in_the_log_at_the_start_counts_from_then_on() {
        let reader = Arc::new(Reader(std::sync::atomic::AtomicU64::new(3)));
        let admission = Admission::new([(P, 5)], Some(reader.clone()), Duration::ZERO);
        assert!(admission.backlog_rests().is_some());
        reader.0.store(5, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(admission.backlog_rests(), None);
        let unread = Admission::new([(P, 5)], None, Duration::ZERO);
        assert_eq!(unread.backlog_rests(), None);
    }
}
