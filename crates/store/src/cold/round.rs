//! Which offsets are counted next, though the sums of the table agree: window by window, partition by partition, and all over again.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::balance::{Hole, MAX_HOLES};
use super::files::OffsetSpan;

/// Offsets of a window. It begins at a multiple of it, so that a window is the same one while the log grows.
const WINDOW: i64 = 1 << 12;
/// Windows that did not hold and are counted again at one look.
const AGAIN: usize = 4;

/// A partition, and a window of it.
pub(super) type Place = (i64, i64);

/// The first and last offset of each partition.
pub(super) type Extents = BTreeMap<i64, (i64, i64)>;

/// How far the round is, and what it found. Lives as long as its process.
#[derive(Debug, Default)]
pub(super) struct Round {
    next: Place,
    broken: BTreeMap<Place, Vec<Hole>>,
    /// Of those that are broken, the one that was counted last.
    again: Place,
}

impl Round {
    /// The windows that did not hold, in turns.
    pub(super) fn again(&mut self) -> Vec<Place> {
        let behind = self
            .broken
            .range((Bound::Excluded(self.again), Bound::Unbounded))
            .chain(self.broken.range(..=self.again));
        let places: Vec<Place> = behind.map(|(place, _)| *place).take(AGAIN).collect();
        self.again = places.last().copied().unwrap_or(self.again);
        places
    }

    /// The window whose turn it is; the next call gives the one behind it.
    pub(super) fn step(&mut self, extents: &Extents) -> Option<Place> {
        let place = at_or_behind(extents, self.next).or_else(|| at_or_behind(extents, (i64::MIN, 0)))?;
        self.next = (place.0, place.1 + 1);
        Some(place)
    }

    pub(super) fn is_broken(&self, place: Place) -> bool {
        self.broken.contains_key(&place)
    }

    /// Keeps what was found in a window.
    pub(super) fn found(&mut self, place: Place, mut holes: Vec<Hole>) {
        if holes.is_empty() {
            self.broken.remove(&place);
        } else if self.is_broken(place) || self.broken.len() < MAX_HOLES {
            holes.truncate(MAX_HOLES);
            self.broken.insert(place, holes);
        }
    }

    /// What does not hold, by partition and offset.
    pub(super) fn holes(&self) -> impl Iterator<Item = &Hole> {
        self.broken.values().flatten()
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

fn at_or_behind(extents: &Extents, (partition, window): Place) -> Option<Place> {
    extents.range(partition..).find_map(|(found, (first, last))| {
        let begin = first.div_euclid(WINDOW);
        let at = if *found == partition { window.max(begin) } else { begin };
        (first <= last && at <= last.div_euclid(WINDOW)).then_some((*found, at))
    })
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

    /// Each window has its turn although the log grows all the time, and no two windows share an offset.
    #[test]
    fn p3_every_window_has_its_turn_while_the_log_grows() {
        let mut extents = Extents::from([
            (-7, (5, 4)),
            (0, (100, 2 * WINDOW)),
            (3, (0, 10)),
            (9, (7 * WINDOW, 7 * WINDOW)),
        ]);
        let mut round = Round::default();
        let mut turns: BTreeMap<Place, usize> = BTreeMap::new();
        for _ in 0..50 {
            for (_, last) in extents.values_mut() {
                *last += 1;
            }
            let place = round.step(&extents).unwrap();
            let span = span(&extents, place).unwrap();
            assert!(span.first.div_euclid(WINDOW) == place.1 && span.last.div_euclid(WINDOW) == place.1);
            *turns.entry(place).or_default() += 1;
        }
        let places: Vec<Place> = turns.keys().copied().collect();
        assert_eq!(places, [(-7, 0), (0, 0), (0, 1), (0, 2), (3, 0), (9, 7)]);
        assert!(turns.values().all(|turns| (8..=9).contains(turns)), "{turns:?}");
        assert_eq!(round.step(&Extents::new()), None);
    }

    /// However many windows do not hold, each of them is counted again, and all the others too.
    #[test]
    fn p3_windows_that_do_not_hold_take_turns() {
        let mut round = Round::default();
        for window in 0..10 {
            round.found((0, window), hole(window * WINDOW));
        }
        let mut seen: Vec<Place> = (0..5).flat_map(|_| round.again()).collect();
        assert_eq!(seen.len(), 5 * AGAIN);
        seen.sort_unstable();
        let twice: Vec<Place> = (0..10).flat_map(|window| [(0, window); 2]).collect();
        assert_eq!(seen, twice);
        assert_eq!(round.holes().count(), 10);
        round.found((0, 3), Vec::new());
        assert_eq!(round.holes().count(), 9);
        assert!(!round.is_broken((0, 3)) && round.is_broken((0, 4)));
    }
}
