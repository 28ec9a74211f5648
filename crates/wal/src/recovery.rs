//! Decides what a crash or damage left behind, from bytes alone.

use std::io;
use std::ops::Range;

use crate::Mark;
use crate::segment::{Item, Source, Totals, Walk};

/// Which index stands at which offset, one entry per some bytes, so that a reader need not begin at the segment's start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SparseIndex {
    points: Vec<(u64, u64)>,
}

/// Bytes between two entries of a sparse index.
const STRIDE_BYTES: u64 = 128 << 10;

impl SparseIndex {
    /// Notes that the frame of `index` begins at `offset`, unless a close one is known.
    pub(crate) fn note(&mut self, index: u64, offset: u64) {
        if self
            .points
            .last()
            .is_none_or(|&(i, o)| index > i && offset >= o + STRIDE_BYTES)
        {
            self.points.push((index, offset));
        }
    }

    /// The last known place at or before `index`.
    pub(crate) fn before(&self, index: u64) -> Option<(u64, u64)> {
        let after = self.points.partition_point(|&(i, _)| i <= index);
        after.checked_sub(1).map(|i| self.points[i])
    }
}

/// Lost indices of a segment, in order.
pub(crate) type Lost = Vec<(Range<u64>, u64, &'static str)>;

/// What a walk over one segment found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Findings {
    /// Index after the last record that counts.
    pub(crate) next: u64,
    /// Offset behind the last marker that counts; everything behind it is cut.
    pub(crate) end: u64,
    /// Where the last group that counts begins: 0 if it is the only one. All before it was synced when it was written.
    pub(crate) last_group: u64,
    pub(crate) lost: Lost,
    pub(crate) totals: Totals,
    /// Of the last marker that counts.
    pub(crate) mark: Option<Mark>,
    pub(crate) sparse: SparseIndex,
    /// Whether any record was there. A marker alone is how a segment with marks begins.
    pub(crate) any: bool,
}

/// Where a segment's frames lie and what to expect in them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    pub(crate) start: u64,
    pub(crate) len: u64,
    pub(crate) first: u64,
    pub(crate) salt: Option<u32>,
}

/// The newest segment: only what a valid marker covers counts.
pub(crate) fn scan_newest<S: Source + ?Sized>(source: &S, extent: Extent) -> io::Result<Findings> {
    let mut walk = Walk::new(source, extent.start, extent.len, extent.first, extent.salt);
    let mut found = Findings {
        next: extent.first,
        end: extent.start,
        ..Findings::default()
    };
    let (mut lost, mut points, mut groups) = (0, 0, 0);
    while let Some(item) = step(&mut walk, &mut found)? {
        if let Item::Commit { totals, mark } = item {
            found.mark = mark;
            found.last_group = if groups == 0 { 0 } else { found.end };
            groups += 1;
            (found.totals, found.end, found.next) = (totals, walk.at(), walk.expected());
            (lost, points) = (found.lost.len(), found.sparse.points.len());
        }
    }
    found.lost.truncate(lost);
    found.sparse.points.truncate(points);
    Ok(found)
}

/// A segment that another one follows: everything in it was synced, and it ends where the next begins.
pub(crate) fn scan_closed<S: Source + ?Sized>(source: &S, extent: Extent) -> io::Result<Findings> {
    let mut walk = Walk::new(source, extent.start, extent.len, extent.first, extent.salt);
    let mut found = Findings::default();
    while let Some(item) = step(&mut walk, &mut found)? {
        if let Item::Commit { totals, mark } = item {
            (found.totals, found.mark) = (totals, mark);
        }
    }
    found.next = walk.expected();
    found.end = extent.len;
    Ok(found)
}

fn step<S: Source + ?Sized>(walk: &mut Walk<'_, S>, found: &mut Findings) -> io::Result<Option<Item>> {
    let item = walk.next()?;
    match &item {
        Some(Item::Record { index, .. }) => found.sparse.note(*index, walk.frame_at()),
        Some(Item::Lost { indices, bytes, what }) => found.lost.push((indices.clone(), *bytes, what)),
        Some(Item::Commit { .. }) | None => {}
    }
    found.any |= matches!(item, Some(Item::Record { .. } | Item::Lost { .. }));
    Ok(item)
}

/// One segment as far as its header tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) first: u64,
    /// First index and end of the segment before, if the header could be read and there was one.
    pub(crate) before: Option<(u64, u64)>,
}

/// What the order of segments tells of the space between two of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Joint {
    /// The earlier one ends where the later one says.
    Ends(u64),
    /// A file is missing or the header is unreadable: only reading the earlier one tells where it ends.
    Unknown,
}

pub(crate) fn joint(earlier: Link, later: Link) -> Joint {
    match later.before {
        Some((first, end)) if first == earlier.first && end <= later.first => Joint::Ends(end),
        _ => Joint::Unknown,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::segment::{put_commit, put_record};

    /// Groups of records as they stand in a file, and the offset behind each group.
    fn groups(sizes: &[usize]) -> (Vec<u8>, Vec<u64>) {
        let (mut bytes, mut ends, mut index) = (Vec::new(), Vec::new(), 0);
        for size in sizes {
            for _ in 0..*size {
                let at = bytes.len() as u64;
                put_record(&mut bytes, at, 5, index, &index.to_le_bytes());
                index += 1;
            }
            let at = bytes.len() as u64;
            put_commit(
                &mut bytes,
                at,
                5,
                index,
                Totals {
                    records: index,
                    bytes: 8 * index,
                },
                None,
            );
            ends.push(bytes.len() as u64);
        }
        (bytes, ends)
    }

    fn extent(bytes: &[u8]) -> Extent {
        Extent {
            start: 0,
            len: bytes.len() as u64,
            first: 0,
            salt: Some(5),
        }
    }

    #[test]
    fn a_cut_at_any_byte_keeps_exactly_the_whole_groups() {
        let (bytes, ends) = groups(&[1, 3, 2]);
        let counts = [1, 4, 6];
        for cut in 0..=bytes.len() {
            let found = scan_newest(&bytes[..cut], extent(&bytes[..cut])).unwrap();
            let whole = ends.iter().filter(|e| **e <= cut as u64).count();
            assert_eq!(
                found.next,
                whole.checked_sub(1).map_or(0, |i| counts[i]),
                "cut at {cut}"
            );
            assert_eq!(found.end, whole.checked_sub(1).map_or(0, |i| ends[i]));
            assert!(found.lost.is_empty());
        }
    }

    #[test]
    fn p6_the_last_acknowledged_record_damaged_is_a_gap_and_no_silent_cut() {
        let (mut bytes, ends) = groups(&[2, 2]);
        let last_payload = ends[1] as usize - (28 + 16) - 8;
        bytes[last_payload..last_payload + 8].fill(0xee);
        let found = scan_newest(&bytes[..], extent(&bytes)).unwrap();
        assert_eq!((found.next, found.lost.len()), (4, 1));
        assert_eq!(found.lost[0].0, 3..4);
        // The same when its whole frame is gone.
        bytes[last_payload - 28..last_payload + 8].fill(0);
        let found = scan_newest(&bytes[..], extent(&bytes)).unwrap();
        assert_eq!((found.next, found.lost[0].0.clone()), (4, 3..4));
    }

    #[test]
    fn a_missing_file_shows_in_the_chain() {
        let a = Link { first: 0, before: None };
        let c = Link {
            first: 20,
            before: Some((10, 20)),
        };
        assert_eq!(joint(a, c), Joint::Unknown);
        assert_eq!(
            joint(
                a,
                Link {
                    first: 10,
                    before: Some((0, 10))
                }
            ),
            Joint::Ends(10)
        );
        assert_eq!(
            joint(
                a,
                Link {
                    first: 15,
                    before: Some((0, 10))
                }
            ),
            Joint::Ends(10)
        );
    }
}
