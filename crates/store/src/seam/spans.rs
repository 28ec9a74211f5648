//! Which offsets are decided by which claim, and how far hot reaches without a gap. Pure.

use std::collections::BTreeMap;

use super::SeamRecord;

/// Offsets at which the rows of one generation count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub generation: u64,
    pub first: u64,
    /// `None`: whatever comes.
    pub last: Option<u64>,
}

impl SeamRecord {
    /// The offsets above L by who decides there: in order, without gaps, the last one open.
    pub fn spans(&self) -> Vec<Span> {
        let lowest = self.low.map_or(0, |low| low + 1);
        let mut spans = Vec::new();
        let mut end = None;
        for claim in self.claims.iter().rev() {
            // A later claim that begins no later decides everywhere.
            if end.is_some_and(|end| claim.from >= end) {
                continue;
            }
            let last = end.map(|end: u64| end - 1);
            if last.is_none_or(|last| last >= lowest) {
                spans.push(Span {
                    generation: claim.generation,
                    first: claim.from.max(lowest),
                    last,
                });
            }
            end = Some(claim.from);
        }
        spans.reverse();
        spans
    }

    /// H: the last offset up to which hot holds everything above L that counts, by the highest offset that each generation has there.
    ///
    /// A writer inserts in the order of offsets, so a generation has no gap below its highest one.
    pub fn high(&self, highest: &BTreeMap<u64, u64>) -> Option<u64> {
        let mut high = None;
        for span in self.spans() {
            let Some(reached) = highest.get(&span.generation).filter(|offset| **offset >= span.first) else {
                break;
            };
            high = Some(span.last.map_or(*reached, |last| last.min(*reached)));
            if span.last.is_none_or(|last| *reached < last) {
                break;
            }
        }
        high
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use sluice_wire::ids::Partition;

    use super::*;

    const P: Partition = Partition {
        generation: 0,
        index: 0,
    };

    proptest! {
        /// What spans say is what "the last claim at or below an offset" says, claims left out included, and H is what counting
        /// offset by offset finds.
        #[test]
        fn spans_and_high_agree_with_the_rule_for_one_offset(
            froms in proptest::collection::vec(0u64..30, 1..8),
            low in proptest::option::of(0u64..20),
            written in proptest::collection::vec(0u64..12, 8),
        ) {
            let mut record = SeamRecord::default();
            let mut all = Vec::new();
            for from in &froms {
                record.claim(P, *from, "test").unwrap();
                all.push((*from, record.generation()));
            }
            record.low = low;
            let lowest = low.map_or(0, |low| low + 1);
            let spans = record.spans();
            for offset in 0..40 {
                let rule = all.iter().rev().find(|(from, _)| *from <= offset).map(|(_, generation)| *generation);
                let holds = |s: &&Span| s.first <= offset && s.last.is_none_or(|last| offset <= last);
                let found = spans.iter().find(holds).map(|span| span.generation);
                prop_assert_eq!(found, rule.filter(|_| offset >= lowest), "{} {:?}", offset, record);
                prop_assert_eq!(record.generation_at(offset), rule);
            }
            // Each generation wrote some offsets from its claim on.
            let rows: BTreeSet<(u64, u64)> = all
                .iter()
                .zip(&written)
                .flat_map(|((from, generation), count)| (*from..from + count).map(|offset| (offset, *generation)))
                .collect();
            let mut highest = BTreeMap::new();
            for (offset, generation) in &rows {
                highest.insert(*generation, *offset);
            }
            let start = spans[0].first;
            let mut next = start;
            while record.generation_at(next).is_some_and(|generation| rows.contains(&(next, generation))) {
                next += 1;
            }
            prop_assert_eq!(record.high(&highest), (next > start).then(|| next - 1));
        }
    }

    proptest! {
        /// A replay decides in its range and nowhere else, whatever was claimed before and is claimed afterwards, and no two ever share a
        /// generation.
        #[test]
        fn a_replay_decides_in_its_range_and_nowhere_else(
            froms in proptest::collection::vec(0u64..30, 1..6), low in proptest::option::of(0u64..20), first in 0u64..30, more in 0u64..20,
            during in proptest::option::of(0u64..40), later in 0u64..40,
        ) {
            let mut record = SeamRecord::default();
            for from in &froms {
                record.claim(P, *from, "test").unwrap();
            }
            record.low = low;
            record.reserved = Some(record.next_generation());
            let generation = record.reserved.unwrap();
            if let Some(from) = during {
                record.claim(P, from, "test").unwrap();
                prop_assert!(record.generation() > generation);
                prop_assert!(record.clone().replay(P, first, first + more, generation).is_err());
                return Ok(());
            }
            let (before, last) = (record.clone(), first + more);
            if record.replay(P, first, last, generation).is_err() {
                let behind_low = low.is_some_and(|low| first <= low && last < low);
                let leaves_gap = before.generation_at(last + 1).is_none();
                prop_assert!(behind_low || leaves_gap);
                return Ok(());
            }
            for offset in 0..60 {
                let expected = match (first..=last).contains(&offset) {
                    true => Some(generation),
                    false => before.generation_at(offset),
                };
                prop_assert_eq!(record.generation_at(offset), expected, "{} {:?} {:?}", offset, &before, &record);
            }
            let low_after = match low {
                Some(low) if first <= low => first.checked_sub(1),
                low => low,
            };
            prop_assert_eq!(record.low, low_after);
            // Whoever wrote behind it still does.
            if last + 1 >= froms.iter().copied().max().unwrap_or(0) {
                prop_assert_eq!(record.generation(), before.generation());
            }
            record.claim(P, later, "test").unwrap();
            prop_assert!(record.generation() > generation && record.generation() == record.highest_generation());
            prop_assert!(record.clone().replay(P, first, last, generation).is_err(), "it cannot be used twice");
        }
    }

    #[test]
    fn claims_that_decide_nothing_make_room_and_others_are_kept() {
        let mut record = SeamRecord::default();
        for from in 0..256 {
            record.claim(P, from * 10, "test").unwrap();
        }
        assert!(record.clone().claim(P, 5000, "test").is_err());
        record.advance(P, 19).unwrap();
        record.claim(P, 5000, "test").unwrap();
        assert_eq!((record.claims.len(), record.claims[0].from), (256, 10));
        record.claim(P, 20, "test").unwrap();
        assert_eq!(record.claims.len(), 2);
        assert_eq!(record.generation(), 258);
    }
}
