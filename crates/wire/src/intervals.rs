//! A set of numbers kept as ranges: small as long as what it holds is nearly contiguous.
//!
//! Sequence numbers that were seen, and spool positions that were acknowledged, arrive almost in order, so a set of
//! millions of numbers is a handful of ranges.

use std::collections::BTreeMap;
use std::ops::Range;

/// A set of `u64`. `u64::MAX` itself is never a member: ranges are half open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IntervalSet {
    /// start -> end (exclusive); ranges neither touch nor overlap.
    ranges: BTreeMap<u64, u64>,
}

/// Why bytes are not an encoded set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IntervalsError {
    #[error("interval set ends at byte {offset} in the middle of a number")]
    Truncated { offset: usize },
    #[error("interval set has a range that is empty, too large or not after the one before it")]
    Disorder,
}

impl IntervalSet {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one number; false if it was there already.
    pub fn insert(&mut self, x: u64) -> bool {
        if x == u64::MAX || self.contains(x) {
            return false;
        }
        self.insert_range(x..x + 1);
        true
    }

    /// Adds all numbers of a range; overlap with what is there is fine.
    pub fn insert_range(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let (mut start, mut end) = (range.start, range.end);
        if let Some((&before, &before_end)) = self.ranges.range(..=start).next_back()
            && before_end >= start
        {
            start = before;
            end = end.max(before_end);
        }
        while let Some((&next, &next_end)) = self.ranges.range(start..).next()
            && next <= end
        {
            end = end.max(next_end);
            self.ranges.remove(&next);
        }
        self.ranges.insert(start, end);
    }

    pub fn contains(&self, x: u64) -> bool {
        self.ranges.range(..=x).next_back().is_some_and(|(_, &end)| x < end)
    }

    /// The end of the range that starts at 0: every number below it is a member. 0 if 0 is not a member.
    pub fn watermark(&self) -> u64 {
        self.ranges.get(&0).copied().unwrap_or(0)
    }

    /// The smallest number at or above `x` that is not a member.
    pub fn next_absent(&self, x: u64) -> u64 {
        match self.ranges.range(..=x).next_back() {
            Some((_, &end)) if x < end => end,
            _ => x,
        }
    }

    /// The ranges in order; they neither touch nor overlap.
    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.ranges.iter().map(|(&start, &end)| start..end)
    }

    /// How many ranges there are: what the set costs.
    pub fn ranges(&self) -> usize {
        self.ranges.len()
    }

    /// How many numbers are members.
    pub fn len(&self) -> u64 {
        self.iter().map(|r| r.end - r.start).sum()
    }

    /// How many numbers of a range are members.
    pub fn count_in(&self, range: Range<u64>) -> u64 {
        if range.is_empty() {
            return 0;
        }
        let before = self.ranges.range(..range.start).next_back();
        let inside = self.ranges.range(range.clone());
        before
            .into_iter()
            .chain(inside)
            .map(|(&start, &end)| end.min(range.end).saturating_sub(start.max(range.start)))
            .sum()
    }

    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Bytes that [`IntervalSet::decode`] reads: for each range the distance from the end of the one before it, then
    /// its length, as LEB128. Equal sets have equal bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(8 * self.ranges.len());
        let mut last = 0;
        for range in self.iter() {
            put_varint(&mut out, range.start - last);
            put_varint(&mut out, range.end - range.start);
            last = range.end;
        }
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, IntervalsError> {
        let mut set = Self::new();
        let (mut offset, mut last) = (0usize, 0u64);
        while offset < bytes.len() {
            let gap = take_varint(bytes, &mut offset)?;
            let length = take_varint(bytes, &mut offset)?;
            let start = last.checked_add(gap).ok_or(IntervalsError::Disorder)?;
            let end = start.checked_add(length).ok_or(IntervalsError::Disorder)?;
            // Touching ranges would be one range: only the canonical form is read.
            if length == 0 || (gap == 0 && last != 0) {
                return Err(IntervalsError::Disorder);
            }
            set.ranges.insert(start, end);
            last = end;
        }
        Ok(set)
    }
}

fn put_varint(out: &mut Vec<u8>, mut x: u64) {
    while x >= 0x80 {
        out.push((x as u8) | 0x80);
        x >>= 7;
    }
    out.push(x as u8);
}

fn take_varint(bytes: &[u8], offset: &mut usize) -> Result<u64, IntervalsError> {
    let mut x = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes
            .get(*offset)
            .ok_or(IntervalsError::Truncated { offset: *offset })?;
        *offset += 1;
        let part = u64::from(byte & 0x7f);
        if shift == 63 && part > 1 || byte == 0 && shift > 0 {
            return Err(IntervalsError::Disorder);
        }
        x |= part << shift;
        if byte < 0x80 {
            return Ok(x);
        }
    }
    Err(IntervalsError::Disorder)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn set_of(ranges: &[(u64, u64)]) -> (IntervalSet, BTreeSet<u64>) {
        let (mut set, mut model) = (IntervalSet::new(), BTreeSet::new());
        for &(start, length) in ranges {
            if length == 1 {
                assert_eq!(set.insert(start), model.insert(start));
            } else {
                set.insert_range(start..start + length);
                model.extend(start..start + length);
            }
        }
        (set, model)
    }

    proptest! {
        #[test]
        fn p16_behaves_as_a_set_of_numbers(ranges in proptest::collection::vec((0u64..200, 0u64..8), 0..60)) {
            let (set, model) = set_of(&ranges);
            for x in 0..220 {
                prop_assert_eq!(set.contains(x), model.contains(&x));
                prop_assert_eq!(set.next_absent(x), (x..).find(|y| !model.contains(y)).unwrap());
            }
            prop_assert_eq!(set.len(), model.len() as u64);
            for (start, end) in [(0, 220), (13, 14), (50, 120), (199, 300), (90, 90), (70, 30)] {
                let count = (start..end).filter(|x| model.contains(x)).count() as u64;
                prop_assert_eq!(set.count_in(start..end), count);
            }
            prop_assert_eq!(set.watermark(), (0..).find(|x| !model.contains(x)).unwrap());
            let list: Vec<_> = set.iter().collect();
            prop_assert!(list.windows(2).all(|w| w[0].end < w[1].start));
            let decoded = IntervalSet::decode(&set.encode()).unwrap();
            prop_assert_eq!(decoded, set);
        }

        #[test]
        fn any_bytes_are_a_canonical_set_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(set) = IntervalSet::decode(&bytes) {
                prop_assert_eq!(set.encode(), bytes);
            }
        }
    }

    #[test]
    fn the_largest_numbers_are_safe() {
        let mut set = IntervalSet::new();
        assert!(!set.insert(u64::MAX));
        assert!(set.insert(u64::MAX - 1));
        set.insert_range(0..u64::MAX);
        assert_eq!(set.watermark(), u64::MAX);
        assert_eq!(IntervalSet::decode(&set.encode()).unwrap(), set);
    }
}
