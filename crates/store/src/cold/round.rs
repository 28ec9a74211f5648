//! Which offsets are counted next, though the sums of the table agree: window by window, each partition at its pace, and all over again.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::balance::{Hole, MAX_HOLES};
use super::files::OffsetSpan;

/// Offsets of a window. It begins at a multiple of it, so that a window is the same one while the log grows.
const WINDOW: i64 = 1 << 12;
/// Windows that are counted in one reading of the files that hold their rows, and at most twice as many.
const GROUP: i64 = 32;
/// Windows that did not hold and are counted again at one look.
const AGAIN: usize = 8;

/// A partition, and a window of it.
pub(super) type Place = (i64, i64);

/// The first and last offset of each partition.
pub(super) type Extents = BTreeMap<i64, (i64, i64)>;

/// How far the round is, and what it found. Lives as long as its process.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// The window of each partition whose turn it is.
    next: BTreeMap<i64, i64>,
    /// The partition that had its turn last.
    partition: i64,
    broken: BTreeMap<Place, Found>,
    /// Of those that are broken, the one that was counted last.
    again: Place,
}

/// What is wrong about a window.
#[derive(Debug)]
enum Found {
    Holes(Vec<Hole>),
    Unread,
}

/// How many windows of each partition one look has not counted yet.
pub(super) type Left = BTreeMap<i64, i64>;

pub(super) fn windows(extents: &Extents) -> Left {
    let windows = |(partition, (first, last)): (&i64, &(i64, i64))| {
        let windows = last.div_euclid(WINDOW) - first.div_euclid(WINDOW) + 1;
        (first <= last).then_some((*partition, windows))
    };
    extents.iter().filter_map(windows).collect()
}

impl Round {
    /// The windows that did not hold or were not read, in turns.
    pub(super) fn again(&mut self) -> Vec<Place> {
        let behind = self
            .broken
            .range((Bound::Excluded(self.again), Bound::Unbounded))
            .chain(self.broken.range(..=self.again));
        let places: Vec<Place> = behind.map(|(place, _)| *place).take(AGAIN).collect();
        self.again = places.last().copied().unwrap_or(self.again);
        places
    }

    /// The windows that are counted next. Files hold rows of all partitions that came at one time, so each partition goes on by its share.
    pub(super) fn group(&mut self, extents: &Extents, left: &mut Left) -> Vec<Place> {
        let all = left.values().fold(0i64, |all, windows| all.saturating_add(*windows));
        let mut places = Vec::new();
        let behind = extents.range((Bound::Excluded(self.partition), Bound::Unbounded));
        for (partition, (first, last)) in behind.chain(extents.range(..=self.partition)) {
            let Some(left) = left.get_mut(partition).filter(|left| **left > 0) else {
                continue;
            };
            if places.len() as i64 >= GROUP {
                break;
            }
            let share = i128::from(GROUP) * i128::from(*left) / i128::from(all.max(1));
            let share = i64::try_from(share).unwrap_or(GROUP).clamp(1, GROUP).min(*left);
            let (begin, end) = (first.div_euclid(WINDOW), last.div_euclid(WINDOW));
            let next = self.next.entry(*partition).or_insert(begin);
            for _ in 0..share {
                if !(begin..=end).contains(next) {
                    *next = begin;
                }
                places.push((*partition, *next));
                *next += 1;
            }
            *left -= share;
            self.partition = *partition;
        }
        places
    }

    /// Keeps what was found in a window.
    pub(super) fn found(&mut self, place: Place, mut holes: Vec<Hole>) {
        if holes.is_empty() {
            self.broken.remove(&place);
        } else {
            holes.truncate(MAX_HOLES);
            self.keep(place, Found::Holes(holes));
        }
    }

    /// Keeps that a window could not be read. What is known of it stays.
    pub(super) fn unread(&mut self, place: Place) {
        if !self.broken.contains_key(&place) {
            self.keep(place, Found::Unread);
        }
    }

    fn keep(&mut self, place: Place, found: Found) {
        if self.broken.contains_key(&place) || self.broken.len() < MAX_HOLES {
            self.broken.insert(place, found);
        }
    }

    /// What does not hold, by partition and offset.
    pub(super) fn holes(&self) -> impl Iterator<Item = &Hole> {
        self.broken.values().flat_map(|found| match found {
            Found::Holes(holes) => holes.as_slice(),
            Found::Unread => &[],
        })
    }
}

/// The offsets of a window that the table should hold.
pub(super) fn span(extents: &Extents, (partition, window): Place) -> Option<OffsetSpan> {
    let (first, last) = extents.get(&partition)?;
    let begin = window.checked_mul(WINDOW)?;
    let span = OffsetSpan {
        partition,
        first: begin.max(*first),
        last: begin.saturating_add(WINDOW - 1).min(*last),
    };
    (span.first <= span.last).then_some(span)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::balance::Wrong;
    use super::*;

    fn hole(first: i64) -> Vec<Hole> {
        vec![Hole {
            wrong: Wrong::Missing,
            tenant: "acme".to_owned(),
            stream: String::new(),
            partition: 0,
            first,
            last: first,
            events: 1,
        }]
    }

    /// Each window has its turn although the log grows all the time, none has two in one look, and no two windows share an offset.
    #[test]
    fn p3_every_window_has_its_turn_while_the_log_grows() {
        let mut extents = Extents::from([
            (-7, (5, 4)),
            (0, (100, 2 * WINDOW)),
            (3, (0, 10)),
            (9, (7 * WINDOW, 307 * WINDOW)),
            (12, (i64::MAX - 1, i64::MAX)),
        ]);
        let mut round = Round::default();
        let mut turns: BTreeMap<Place, usize> = BTreeMap::new();
        for _ in 0..50 {
            for partition in [0, 3, 9] {
                extents.get_mut(&partition).unwrap().1 += 1;
            }
            // A look that has time for two readings, and one that has time for all.
            for readings in [2, 100] {
                let mut left = windows(&extents);
                let mut look: Vec<Place> = Vec::new();
                for _ in 0..readings {
                    let group = round.group(&extents, &mut left);
                    assert!(group.len() as i64 <= 2 * GROUP);
                    look.extend(group);
                }
                for place in &look {
                    let span = span(&extents, *place).unwrap();
                    assert!(span.first.div_euclid(WINDOW) == place.1 && span.last.div_euclid(WINDOW) == place.1);
                    *turns.entry(*place).or_default() += 1;
                }
                let counted = look.len();
                look.sort_unstable();
                look.dedup();
                assert_eq!(look.len(), counted);
                if readings == 100 {
                    assert_eq!(counted, turns.len(), "each of them has its turn");
                }
            }
        }
        let of = |partition: i64| turns.keys().filter(|place| place.0 == partition).count();
        assert_eq!([-7, 0, 3, 9, 12].map(of), [0, 3, 1, 301, 1]);
        assert_eq!(round.group(&Extents::new(), &mut Left::new()), vec![]);
    }

    /// Looks that never have time for all windows come to each of them as often as to the others, however many partitions there are.
    #[test]
    fn p3_many_partitions_go_on_together() {
        let extents: Extents = (0..200).map(|partition| (partition, (0, 4 * WINDOW - 1))).collect();
        let mut round = Round::default();
        let mut turns: BTreeMap<Place, usize> = BTreeMap::new();
        let looks = 1000;
        let mut counted = 0;
        for _ in 0..looks {
            let group = round.group(&extents, &mut windows(&extents));
            counted += group.len();
            for place in group {
                *turns.entry(place).or_default() += 1;
            }
        }
        assert_eq!(turns.len(), 800);
        let even = counted / 800;
        assert!(turns.values().all(|turns| turns.abs_diff(even) <= 1), "{turns:?}");
    }

    /// However many windows do not hold, each of them is counted again; what could not be read, too.
    #[test]
    fn p3_windows_that_do_not_hold_take_turns() {
        let mut round = Round::default();
        for window in 0..20 {
            round.found((0, window), hole(window * WINDOW));
        }
        let mut seen: Vec<Place> = (0..5).flat_map(|_| round.again()).collect();
        assert_eq!(seen.len(), 5 * AGAIN);
        seen.sort_unstable();
        let twice: Vec<Place> = (0..20).flat_map(|window| [(0, window); 2]).collect();
        assert_eq!(seen, twice);
        assert_eq!(round.holes().count(), 20);
        round.found((0, 3), Vec::new());
        round.unread((0, 4));
        assert_eq!(round.holes().count(), 19);
        round.unread((5, 0));
        assert!((0..3).flat_map(|_| round.again()).any(|place| place == (5, 0)));
        round.found((5, 0), Vec::new());
        assert!(!(0..3).flat_map(|_| round.again()).any(|place| place == (5, 0)));
    }
}
