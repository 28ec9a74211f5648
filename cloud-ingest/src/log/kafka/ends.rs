//! What is known of where the partitions begin and end, and since when.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

/// Moments remembered by partition: at one a second, ten minutes of a log that nobody reads.
const MAX_MARKS: usize = 600;
/// Records whose size is remembered on average; when there are twice as many, those before count half.
const SIZED_RECORDS: u64 = 65_536;
/// Ends that were not confirmed for longer are not as of now. They are asked for every second.
const MAX_AGE: Duration = Duration::from_secs(5);

/// First and next offsets by partition index. Shared by all who ask.
#[derive(Debug)]
pub(super) struct Ends {
    partitions: Mutex<Vec<Known>>,
    changed: watch::Sender<u64>,
    confirmed: Mutex<Option<Instant>>,
}

#[derive(Clone, Debug, Default)]
struct Known {
    first: u64,
    end: u64,
    /// By what time which end had been reached; the oldest first.
    marks: VecDeque<(u64, i64)>,
    /// Records that this process stored or read lately, and their bytes.
    sized: u64,
    sized_bytes: u64,
}

impl Ends {
    pub(super) fn new(partitions: u16) -> Self {
        Self {
            partitions: Mutex::new(vec![Known::default(); usize::from(partitions)]),
            changed: watch::Sender::new(0),
            confirmed: Mutex::default(),
        }
    }

    /// What the broker says, of all partitions.
    pub(super) fn confirm(&self, found: &[(u64, u64)], now_us: i64) {
        let mut moved = false;
        for (known, (first, end)) in self.lock().iter_mut().zip(found) {
            moved |= known.first != *first || known.end < *end;
            known.first = *first;
            known.reached(*end, now_us);
        }
        *self.confirmed.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        if moved {
            self.changed.send_modify(|count| *count += 1);
        }
    }

    /// A record was stored by this process, or read by it.
    pub(super) fn reached(&self, index: u16, end: u64, at_us: i64) {
        let mut partitions = self.lock();
        if let Some(known) = partitions.get_mut(usize::from(index))
            && known.end < end
        {
            known.reached(end, at_us);
            drop(partitions);
            self.changed.send_modify(|count| *count += 1);
        }
    }

    /// So many records of a partition have so many bytes.
    pub(super) fn sized(&self, index: u16, records: u64, bytes: u64) {
        if let Some(known) = self.lock().get_mut(usize::from(index)) {
            known.sized += records;
            known.sized_bytes += bytes;
            if known.sized > 2 * SIZED_RECORDS {
                known.sized /= 2;
                known.sized_bytes /= 2;
            }
        }
    }

    /// About how large a partition is: the broker is not asked, its records are taken to be as large as those that this process saw. 0 before
    /// it saw any.
    pub(super) fn bytes(&self, index: u16) -> u64 {
        let of = |known: &Known| {
            let records = u128::from(known.end.saturating_sub(known.first));
            let bytes = records * u128::from(known.sized_bytes) / u128::from(known.sized.max(1));
            u64::try_from(bytes).unwrap_or(u64::MAX)
        };
        self.of(index, of).unwrap_or(0)
    }

    pub(super) fn first(&self, index: u16) -> u64 {
        self.of(index, |known| known.first).unwrap_or(0)
    }

    pub(super) fn end(&self, index: u16) -> u64 {
        self.of(index, |known| known.end).unwrap_or(0)
    }

    /// By when the record at `offset` stood in the log; `None` when it stood there before anybody looked.
    pub(super) fn taken_in_us(&self, index: u16, offset: u64) -> Option<i64> {
        self.of(index, |known| {
            let at = known.marks.iter().position(|(end, _)| *end > offset)?;
            // What stood there at the first look may be of any age.
            (at > 0).then(|| known.marks[at].1)
        })?
    }

    pub(super) fn is_known(&self) -> bool {
        let confirmed = *self.confirmed.lock().unwrap_or_else(PoisonError::into_inner);
        confirmed.is_some_and(|at| at.elapsed() <= MAX_AGE)
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn of<T>(&self, index: u16, value: impl FnOnce(&Known) -> T) -> Option<T> {
        self.lock().get(usize::from(index)).map(value)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Known>> {
        // Each change is complete before anything can fail.
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn reached(&mut self, end: u64, at_us: i64) {
        if end <= self.end && !self.marks.is_empty() {
            return;
        }
        self.end = self.end.max(end);
        if self.marks.len() == MAX_MARKS {
            // Of the two oldest the later one stays: records look younger, never older, than they are.
            self.marks.pop_front();
        }
        self.marks.push_back((self.end, at_us));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_only_grow_and_tell_by_when_a_record_was_there() {
        let ends = Ends::new(2);
        assert!(!ends.is_known());
        ends.confirm(&[(3, 10), (0, 0)], 100);
        assert!(ends.is_known());
        ends.reached(0, 12, 200);
        // An answer of the broker that is older than what this process stored meanwhile.
        ends.confirm(&[(4, 11), (0, 0)], 300);
        assert_eq!((ends.first(0), ends.end(0), ends.end(1)), (4, 12, 0));
        ends.confirm(&[(4, 15), (0, 1)], 400);
        let taken = [3, 10, 11, 12, 14, 15].map(|offset| ends.taken_in_us(0, offset));
        assert_eq!(taken, [None, Some(200), Some(200), Some(400), Some(400), None]);
        assert_eq!(ends.taken_in_us(1, 0), Some(400));
        assert_eq!((ends.end(9), ends.taken_in_us(9, 0)), (0, None));
        for n in 0..2 * MAX_MARKS as u64 {
            ends.reached(0, 16 + n, 1000 + n as i64);
        }
        assert!(ends.lock()[0].marks.len() <= MAX_MARKS);
    }

    #[test]
    fn the_size_of_a_partition_is_known_by_its_records() {
        let ends = Ends::new(2);
        ends.confirm(&[(0, 1_000), (0, 0)], 1);
        assert_eq!(ends.bytes(0), 0, "no record was seen");
        ends.sized(0, 10, 10_000);
        assert_eq!(ends.bytes(0), 1_000_000);
        // What was trimmed does not count, and what comes lately counts more than what was long ago.
        ends.confirm(&[(900, 1_000), (0, 0)], 2);
        assert_eq!(ends.bytes(0), 100_000);
        for _ in 0..10 {
            ends.sized(0, 2 * SIZED_RECORDS, 2 * SIZED_RECORDS * 100);
        }
        assert!((10_000..10_010).contains(&ends.bytes(0)), "{}", ends.bytes(0));
        assert_eq!((ends.bytes(1), ends.bytes(7)), (0, 0));
    }
}
