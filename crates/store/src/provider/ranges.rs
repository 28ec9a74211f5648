//! What ranges of time of the rows are made of, as one value each: as long as it is the same, so are the rows of that range.
//!
//! Of cold a range is made of the files that may hold rows of it, with what of them hot serves. Of hot it is made of the rows themselves: those
//! of one record of the log are never others, so as many rows of a partition between the same first and last offset are the same rows. (In memory
//! that holds within one process, as what is written follows from the log alone.) A late row so changes the range that it belongs to, and no other;
//! a hand-off those of which rows went over. Erasures count where they can take rows out of a range.

mod looks;

use std::collections::BTreeMap;
use std::ops::Range;

pub use self::looks::{LookError, Looks};
use super::hot_scan::Held;
use super::inputs::Inputs;
use super::{Point, Scope, cold_scan};
use crate::cold::ColdFile;
use crate::erase::Erasure;
use crate::hot::PinnedRows;

/// Files of ranges, each counted for each range that it touches: beyond it, telling ranges apart costs more than it saves.
const MAX_TOUCHED: usize = 200_000;

/// A range of `time` in nanoseconds since 1970: from, and before.
pub type TimeRange = (i64, i64);

struct Found<'a> {
    point: &'a Point,
    scope: &'a Scope,
    ranges: &'a [TimeRange],
    parts: Vec<Parts>,
    touched: usize,
}

/// What one range is made of.
#[derive(Debug)]
struct Parts {
    /// Hashes of what tells the files apart.
    cold: Vec<[u8; blake3::OUT_LEN]>,
    hot: BTreeMap<i64, Held>,
    /// When its first row was taken in, in microseconds since 1970, at the earliest.
    oldest_us: i64,
}

impl Default for Parts {
    fn default() -> Self {
        Self {
            cold: Vec::new(),
            hot: BTreeMap::new(),
            oldest_us: i64::MAX,
        }
    }
}

impl Parts {
    fn held(&mut self, held: Held) {
        self.oldest_us = self.oldest_us.min(held.oldest_us);
        self.hot.insert(held.partition, held);
    }
}

/// The ranges that times of both ends and between them belong to.
pub(super) fn touched(ranges: &[TimeRange], (first, last): TimeRange) -> Range<usize> {
    let from = ranges.partition_point(|range| range.1 <= first);
    let to = ranges.partition_point(|range| range.0 <= last);
    from..to.max(from)
}

impl<'a> Found<'a> {
    fn new(point: &'a Point, scope: &'a Scope, ranges: &'a [TimeRange]) -> Self {
        Self {
            point,
            scope,
            ranges,
            parts: ranges.iter().map(|_| Parts::default()).collect(),
            touched: 0,
        }
    }

    /// `None`: there are too many files.
    fn files(&mut self) -> Option<()> {
        let point = self.point;
        point.cold.files.iter().try_for_each(|file| {
            self.file(file);
            (self.touched <= MAX_TOUCHED).then_some(())
        })
    }

    fn file(&mut self, file: &ColdFile) {
        // A file that does not say its times may hold any.
        let times = file.stats.times_ns().unwrap_or((i64::MIN, i64::MAX));
        let touched = touched(self.ranges, times);
        if touched.is_empty() {
            return;
        }
        let Some(told) = cold_scan::served(file, self.point, self.scope.tenant(), false) else {
            return;
        };
        let told = *blake3::hash(told.as_bytes()).as_bytes();
        let oldest_us = file.stats.oldest_us().unwrap_or(i64::MIN);
        self.touched += touched.len();
        for parts in &mut self.parts[touched] {
            parts.cold.push(told);
            parts.oldest_us = parts.oldest_us.min(oldest_us);
        }
    }

    /// No range holds rows of cold.
    fn is_hot(&self) -> bool {
        self.parts.iter().all(|parts| parts.cold.is_empty())
    }

    /// `None`: it will be another value soon, or need not be what a query finds, so nothing is worth keeping for it.
    fn inputs(self) -> Vec<Option<Inputs>> {
        let (place, is_one_copy) = match &self.point.hot.rows {
            PinnedRows::Memory(_) => (String::new(), true),
            PinnedRows::Server { hot, .. } => (hot.endpoint(), !hot.is_replicated()),
        };
        let all = format!("{:?} {place}", self.scope);
        let erasures: Vec<&Erasure> = self.point.hidden.of(self.scope.tenant()).collect();
        let each = self.parts.into_iter().zip(self.ranges);
        let each = each.map(|(mut parts, (from, to))| {
            // This look and the query may meet two copies, of which one lags.
            if !is_one_copy && !parts.hot.is_empty() {
                return None;
            }
            let touches =
                |erasure: &&&Erasure| !erasure.spares(Some(parts.oldest_us)) && erasure.meets((*from, *to - 1));
            let erased: Vec<_> = erasures.iter().filter(touches).collect();
            // By the age of rows alone: that is retention, which moves on with each moment.
            if erased
                .iter()
                .any(|erasure| erasure.from_ns.is_none() && erasure.to_ns.is_none())
            {
                return None;
            }
            // Versions of the table list the same files in any order.
            parts.cold.sort_unstable();
            let hot: Vec<_> = parts.hot.values().map(Held::rows).collect();
            let rest = format!("{from} {to} {erased:?} {hot:?}");
            let told = [all.as_bytes(), rest.as_bytes()];
            Some(Inputs::of_parts(
                told.into_iter().chain(parts.cold.iter().map(<[u8; _]>::as_slice)),
            ))
        });
        each.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_touched_by_what_lies_in_them() {
        let ranges = [(0, 10), (10, 20), (20, 25)];
        for (times, wanted) in [
            ((-5, -1), 0..0),
            ((-5, 0), 0..1),
            ((9, 10), 0..2),
            ((10, 19), 1..2),
            ((24, 99), 2..3),
            ((25, 99), 3..3),
            ((i64::MIN, i64::MAX), 0..3),
        ] {
            assert_eq!(touched(&ranges, times), wanted, "{times:?}");
        }
    }
}
