//! The groups of ranges that are computed, kept as they pass.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::interleave_record_batch;
use arrow::row::{OwnedRow, RowConverter, SortField};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use sluice_store::{Inputs, TimeRange};

use super::Answers;
use super::budget::{Share, compact, copy, size};
use super::kept::OfRange;
use super::sliced::Grouping;

/// What is kept, and for what.
pub(super) struct Wanted {
    pub(super) grouping: Arc<Grouping>,
    /// When it was asked for, as the answers that are kept count it.
    pub(super) asked: u64,
    /// Which column of a group rises with the time.
    pub(super) key: usize,
    /// In the order of time.
    pub(super) ranges: Vec<(TimeRange, Inputs)>,
}

/// Takes the groups of ranges.
pub(super) struct Taking {
    answers: Arc<Answers>,
    wanted: Wanted,
    /// Bytes that compare as keys do, whatever their type is: those of each range at its beginning and at its end.
    converter: RowConverter,
    ends: Vec<(OwnedRow, OwnedRow)>,
    taken: Mutex<Taken>,
}

/// What was taken so far.
struct Taken {
    parts: Vec<Part>,
    /// Ranges before this one are not kept: they are too many.
    from: u32,
    share: Share,
    /// The same in the memory of the query.
    reserved: Option<MemoryReservation>,
    /// It is too much, or something else is wrong.
    is_over: bool,
    begun: BTreeSet<usize>,
    ended: BTreeSet<usize>,
}

/// Groups, in memory of their own, and the range that each is of.
struct Part {
    rows: RecordBatch,
    ranges: Vec<u32>,
}

impl Taking {
    /// `first` and `last` are the keys at the beginning and at the end of each range; `None`: they cannot be compared.
    pub(super) fn new(
        answers: &Arc<Answers>,
        wanted: Wanted,
        (first, last): (&ArrayRef, &ArrayRef),
        share: Share,
    ) -> Result<Option<Taking>> {
        if first.null_count() > 0 || last.null_count() > 0 || first.data_type() != last.data_type() {
            return Ok(None);
        }
        let converter = RowConverter::new(vec![SortField::new(first.data_type().clone())])?;
        let of = |column: &ArrayRef| converter.convert_columns(std::slice::from_ref(column));
        let (firsts, lasts) = (of(first)?, of(last)?);
        let ends = firsts.iter().zip(lasts.iter());
        let ends = ends.map(|(first, last)| (first.owned(), last.owned())).collect();
        Ok(Some(Taking {
            answers: Arc::clone(answers),
            wanted,
            converter,
            ends,
            taken: Mutex::new(Taken {
                parts: Vec::new(),
                from: 0,
                share,
                reserved: None,
                is_over: false,
                begun: BTreeSet::new(),
                ended: BTreeSet::new(),
            }),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        // Each change is complete before anything can fail.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Twice the same part would be its groups twice.
    pub(super) fn begin(&self, part: usize, pool: &Arc<dyn MemoryPool>) {
        let mut taken = self.lock();
        taken
            .reserved
            .get_or_insert_with(|| MemoryConsumer::new("ranges of time").register(pool));
        if !taken.begun.insert(part) {
            taken.give_up();
        }
    }

    pub(super) fn take(&self, rows: &Result<RecordBatch>) {
        let from = {
            let taken = self.lock();
            if taken.is_over {
                return;
            }
            taken.from
        };
        let part = rows.as_ref().ok().and_then(|rows| self.part(rows, from).ok().flatten());
        let mut taken = self.lock();
        match part {
            Some(part) => taken.add(part, self.ends.len() as u32),
            None => taken.give_up(),
        }
    }

    /// Those of some rows that are of ranges from one on; `None`: some belong to no time.
    fn part(&self, rows: &RecordBatch, from: u32) -> Result<Option<Part>> {
        let key = rows.column(self.wanted.key);
        if key.null_count() > 0 {
            return Ok(None);
        }
        let keys = self.converter.convert_columns(std::slice::from_ref(key))?;
        let (mut places, mut ranges) = (Vec::new(), Vec::new());
        for (row, key) in (0u32..).zip(keys.iter()) {
            let before = self.ends.partition_point(|(first, _)| first.row() <= key);
            // Groups of no range are those at the ends of the window, which no later one has as they are.
            let Some(range) = before.checked_sub(1).filter(|range| key <= self.ends[*range].1.row()) else {
                continue;
            };
            let range = range as u32;
            if range >= from {
                places.push(row);
                ranges.push(range);
            }
        }
        let rows = copy(rows, places)?;
        Ok(Some(Part { rows, ranges }))
    }

    /// A part of the plan has given all that it has; after the last one the groups are kept.
    pub(super) fn end(&self, part: usize, parts: usize) {
        let mut taken = self.lock();
        if !taken.ended.insert(part) || taken.ended.len() < parts || taken.is_over {
            return;
        }
        let (from, held) = (taken.from, std::mem::take(&mut taken.parts));
        taken.is_over = true;
        drop(taken);
        match self.by_range(from, &held) {
            Ok(kept) => self.answers.keep_ranges(&self.wanted.grouping, self.wanted.asked, kept),
            Err(error) => tracing::debug!(%error, "groups could not be told apart by time"),
        }
        drop(held);
        self.lock().give_up();
    }

    fn by_range(&self, from: u32, parts: &[Part]) -> Result<Vec<(TimeRange, OfRange)>> {
        let mut places: Vec<Vec<(usize, usize)>> = vec![Vec::new(); self.ends.len()];
        for (at, part) in parts.iter().enumerate() {
            for (row, range) in part.ranges.iter().enumerate() {
                places[*range as usize].push((at, row));
            }
        }
        let rows: Vec<&RecordBatch> = parts.iter().map(|part| &part.rows).collect();
        let each = self.wanted.ranges.iter().zip(places).skip(from as usize);
        let each = each.map(|((range, inputs), places)| {
            let groups = match places.is_empty() {
                true => None,
                false => Some(compact(&interleave_record_batch(&rows, &places)?)?),
            };
            Ok::<_, DataFusionError>((*range, OfRange::new(*inputs, groups)))
        });
        each.collect()
    }
}

impl Taken {
    fn give_up(&mut self) {
        self.is_over = true;
        self.parts = Vec::new();
        self.share.free();
        if let Some(reserved) = &self.reserved {
            reserved.free();
        }
    }

    /// Groups of the oldest of so many ranges make room where it is not enough: the window moves away from them.
    fn add(&mut self, part: Part, ranges: u32) {
        if self.is_over {
            return;
        }
        let mut part = part.since(self.from);
        while let Ok(more) = &part {
            if self.grow(size(&more.rows)) {
                self.parts.extend(part);
                return;
            }
            let rows = self.parts.iter().chain([more]).flat_map(|part| &part.ranges);
            let Some(from) = half(rows.copied(), self.from, ranges) else {
                break;
            };
            self.from = from;
            let held: Result<Vec<Part>> = std::mem::take(&mut self.parts)
                .into_iter()
                .map(|part| part.since(from))
                .collect();
            let Ok(held) = held else { break };
            self.parts = held;
            let bytes: u64 = self.parts.iter().map(|part| size(&part.rows)).sum();
            self.shrink_to(bytes);
            part = part.and_then(|part| part.since(from));
        }
        self.give_up();
    }

    fn grow(&mut self, bytes: u64) -> bool {
        if !self.share.grow(bytes) {
            return false;
        }
        let reserved = self.reserved.as_ref();
        let fits = reserved.is_none_or(|reserved| reserved.try_grow(bytes as usize).is_ok());
        if !fits {
            self.share.shrink(bytes);
        }
        fits
    }

    fn shrink_to(&mut self, bytes: u64) {
        self.share.shrink(self.share.bytes().saturating_sub(bytes));
        if let Some(reserved) = &self.reserved {
            reserved.shrink(reserved.size().saturating_sub(bytes as usize));
        }
    }
}

impl Part {
    /// What of it is of ranges from one on.
    fn since(self, from: u32) -> Result<Part> {
        if self.ranges.iter().all(|range| *range >= from) {
            return Ok(self);
        }
        let (mut places, mut ranges) = (Vec::new(), Vec::new());
        for (row, range) in (0u32..).zip(self.ranges).filter(|(_, range)| *range >= from) {
            places.push(row);
            ranges.push(range);
        }
        let rows = copy(&self.rows, places)?;
        Ok(Part { rows, ranges })
    }
}

/// The first of so many ranges from which on no more than half of some rows are; `None`: there is none.
fn half(rows: impl Iterator<Item = u32>, from: u32, ranges: u32) -> Option<u32> {
    let mut of_range = vec![0u64; ranges as usize];
    for range in rows {
        of_range[range as usize] += 1;
    }
    let all: u64 = of_range.iter().sum();
    let mut left = all;
    (from..ranges).find_map(|range| {
        left -= of_range[range as usize];
        (left * 2 <= all).then_some(range + 1).filter(|from| *from < ranges)
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::Int64Type;
    use datafusion::execution::memory_pool::GreedyMemoryPool;

    use super::super::budget::Budget;
    use super::*;

    fn part(ranges: &[u32]) -> Part {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(
            ranges.iter().map(|range| i64::from(*range)),
        ));
        Part {
            rows: RecordBatch::try_from_iter([("n", column)]).unwrap(),
            ranges: ranges.to_vec(),
        }
    }

    /// Under a budget and a limit of the query's memory.
    fn taken(budget: u64, memory: usize) -> Taken {
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(memory));
        Taken {
            parts: Vec::new(),
            from: 0,
            share: Budget::new(budget).share(),
            reserved: Some(MemoryConsumer::new("test").register(&pool)),
            is_over: false,
            begun: BTreeSet::new(),
            ended: BTreeSet::new(),
        }
    }

    #[test]
    fn groups_of_the_oldest_ranges_make_room_for_those_of_newer_ones() {
        let all: Vec<u32> = (0..10_000).map(|n| n % 10).collect();
        for mut taken in [taken(100_000, 1 << 20), taken(1 << 20, 100_000)] {
            for _ in 0..3 {
                taken.add(part(&all), 10);
            }
            assert!(!taken.is_over && (5..10).contains(&taken.from), "from {}", taken.from);
            let held: u64 = taken.parts.iter().map(|part| size(&part.rows)).sum();
            assert_eq!(
                (taken.share.bytes(), taken.reserved.as_ref().unwrap().size() as u64),
                (held, held)
            );
            assert!(held <= 100_000);
            // All groups of what is left, and each with its own range.
            let mut rows = 0;
            for part in &taken.parts {
                let numbers = part.rows.column(0).as_primitive::<Int64Type>();
                rows += numbers.len();
                assert!(
                    numbers
                        .values()
                        .iter()
                        .zip(&part.ranges)
                        .all(|(n, range)| *n == i64::from(*range))
                );
            }
            assert_eq!(rows, 3 * 1_000 * (10 - taken.from as usize));
            // More of one range than there is room for.
            taken.add(part(&vec![9; 20_000]), 10);
            assert!(taken.is_over && taken.parts.is_empty() && taken.share.bytes() == 0);
        }
    }

    #[test]
    fn the_newest_ranges_with_half_of_the_rows_stay() {
        let rows = [0, 0, 0, 1, 1, 2, 2, 3];
        assert_eq!(half(rows.into_iter(), 0, 4), Some(2));
        assert_eq!(half([1, 1, 2, 2, 3].into_iter(), 1, 4), Some(3));
        assert_eq!(half([3, 3].into_iter(), 3, 4), None);
        assert_eq!(half([3, 3, 3, 3].into_iter(), 0, 4), None);
    }
}
