//! Batches that were given up to make room, because whoever runs this node prefers new events to old ones. Each becomes a
//! tombstone with its own identity and counts; the counts are kept here until the cloud has it.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use bytes::Bytes;
use sluice_wal::{Entry, WalError, cursor};
use sluice_wire::counts::{Counts, Dropped};
use sluice_wire::envelope::Envelope;

use super::{SCAN_BYTES, SCAN_RECORDS, Spool, SpoolError, lock, record};
use crate::tally::{self, Cursor};

const VERSION: u8 = 1;
/// Tombstones that may wait for the cloud, in memory and in one file of about 100 bytes each. With more nothing is given up.
const MAX_GIVEN_UP: usize = 65_536;
/// What the uplink has and nobody answered is kept in memory when it is given up; beyond this nothing more is given up.
const MAX_KEPT_BYTES: usize = 32 << 20;
/// Who drops, in counts.
pub(crate) const PLUGIN: &str = "_spool";

/// Why a batch is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The cap or the disk has no room for new events.
    Full,
    /// It waited for longer than it may.
    Age,
}

impl Cause {
    /// The reason in counts.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Full => "drop_oldest",
            Self::Age => "max_age",
        }
    }
}

/// What was given up at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Gone {
    pub(crate) batches: u64,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
}

/// Counts of what was given up, by spool index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct GivenUp {
    waiting: BTreeMap<u64, Counts>,
    /// One more than the largest index ever given up.
    end: u64,
    /// Differs from what is on disk.
    changed: bool,
}

impl GivenUp {
    /// A file that is missing or damaged reads as none: what is still on disk is sent then.
    pub(crate) fn load(path: &Path) -> io::Result<Self> {
        match cursor::load(path) {
            Ok(Some(bytes)) => Ok(Self::decode(&bytes).unwrap_or_else(|| Self::unreadable(path))),
            Ok(None) => Ok(Self::default()),
            Err(e) if e.kind() == io::ErrorKind::InvalidData => Ok(Self::unreadable(path)),
            Err(e) => Err(e),
        }
    }

    fn unreadable(path: &Path) -> Self {
        tracing::error!(path = %path.display(), "cannot be read: batches that were given up are not told to the cloud");
        Self::default()
    }

    /// Writes the file if something changed.
    pub(super) fn save(&mut self, path: &Path) -> io::Result<()> {
        if self.changed {
            cursor::save(path, &self.encode())?;
            self.changed = false;
        }
        Ok(())
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION, 0, 0, 0];
        out.extend_from_slice(&(self.waiting.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.end.to_le_bytes());
        for (index, counts) in &self.waiting {
            let mut list = Vec::with_capacity(64);
            tally::encode(counts, &mut list);
            out.extend_from_slice(&index.to_le_bytes());
            out.extend_from_slice(&(list.len() as u32).to_le_bytes());
            out.extend_from_slice(&list);
        }
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut cursor = Cursor(bytes);
        if cursor.u8()? != VERSION {
            return None;
        }
        cursor.take(3)?;
        let (length, end) = (cursor.u32()?, cursor.u64()?);
        let mut waiting = BTreeMap::new();
        for _ in 0..length {
            let index = cursor.u64()?;
            let bytes = cursor.u32()? as usize;
            waiting.insert(index, tally::decode(cursor.take(bytes)?)?);
        }
        let changed = false;
        Some(Self { waiting, end, changed })
    }

    /// The lowest index whose tombstone the cloud does not have.
    pub(crate) fn first(&self) -> Option<u64> {
        self.waiting.keys().next().copied()
    }

    pub(crate) fn at_or_after(&self, index: u64) -> Option<u64> {
        self.waiting.range(index..).next().map(|(index, _)| *index)
    }

    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn count_in(&self, range: std::ops::Range<u64>) -> u64 {
        if range.is_empty() {
            0
        } else {
            self.waiting.range(range).count() as u64
        }
    }

    pub(crate) fn counts(&self, index: u64) -> Option<&Counts> {
        self.waiting.get(&index)
    }

    /// Whether all of it is on disk: only then may the batches be deleted.
    pub(super) fn is_saved(&self) -> bool {
        !self.changed
    }

    /// After a start: indices from `next` on are given to other batches.
    pub(super) fn forget_from(&mut self, next: u64) {
        self.end = self.end.min(next);
        self.retain(|index| index < next);
    }

    pub(super) fn settle(&mut self, index: u64) {
        self.changed |= self.waiting.remove(&index).is_some();
    }

    pub(super) fn retain(&mut self, keep: impl Fn(u64) -> bool) {
        let before = self.waiting.len();
        self.waiting.retain(|index, _| keep(*index));
        self.changed |= self.waiting.len() != before;
    }

    fn add(&mut self, more: BTreeMap<u64, Counts>, end: u64) {
        self.waiting.extend(more);
        self.end = self.end.max(end);
        self.changed = true;
    }
}

impl Spool {
    /// Gives up the oldest batches until so many bytes are free, whole files at a time. Blocks.
    pub(crate) fn drop_oldest(&self, bytes: u64) -> Result<Gone, SpoolError> {
        let _turn = lock(&self.giving_up);
        let end = match self.end_of_oldest(bytes) {
            Some(end) => end,
            None => {
                // All there is: a new file takes its place.
                let mut writer = lock(&self.writer);
                writer.set_note();
                match writer.wal.roll() {
                    // The attempt gave up the ballast, which has room for a file's header.
                    Err(WalError::Full) => writer.wal.roll()?,
                    other => other?,
                }
                writer.wal.next()
            }
        };
        self.give_up(end, Cause::Full)
    }

    /// Gives up batches that were sealed before a time. Blocks.
    pub(crate) fn drop_older_than(&self, sealed_ns: u64) -> Result<Gone, SpoolError> {
        // Before the watermark: whoever has the turn may delete what it names.
        let _turn = lock(&self.giving_up);
        let watermark = self.watermark(&lock(&self.acked).set);
        let limit_ms = sealed_ns / 1_000_000;
        if watermark >= self.reader.synced() || self.sealed_ms(watermark).is_some_and(|ms| ms >= limit_ms) {
            return Ok(Gone::default());
        }
        let (mut at, mut end) = (watermark, watermark);
        'look: while at < self.reader.synced() {
            let entries = match self.reader.salvage_range(at, SCAN_RECORDS, SCAN_BYTES) {
                // Acknowledged and deleted meanwhile.
                Err(WalError::Trimmed { first }) if first > at => {
                    (at, end) = (first, end.max(first));
                    continue;
                }
                entries => entries?,
            };
            let Some((last, _)) = entries.last() else { break };
            at = last + 1;
            for (index, entry) in entries {
                // What cannot be read is as old as what follows it.
                let Some(sealed) = sealed_at(&entry) else { continue };
                if sealed >= sealed_ns {
                    break 'look;
                }
                end = index + 1;
            }
        }
        self.give_up(end, Cause::Age)
    }

    /// Where the oldest files end that hold so many bytes; `None` if the newest one is needed for it, too.
    fn end_of_oldest(&self, bytes: u64) -> Option<u64> {
        let mut segments = self.reader.segments();
        segments.pop();
        let mut sum = 0;
        let found = segments.iter().find(|segment| {
            sum += segment.bytes;
            sum >= bytes
        });
        found.map(|segment| segment.end)
    }

    /// First it is written down what stands for them, then they are deleted.
    fn give_up(&self, end: u64, cause: Cause) -> Result<Gone, SpoolError> {
        let (from, acked) = {
            let acked = lock(&self.acked);
            (self.watermark(&acked.set), acked.set.clone())
        };
        let (more, mut gone) = self.what_is_given_up(from..end, &acked, cause)?;
        {
            let mut taken = lock(&self.taken);
            let on_the_way: Vec<u64> = more
                .keys()
                .filter(|index| taken.by_uplink.contains(index))
                .copied()
                .collect();
            let before = taken.kept.len();
            let mut kept_bytes: usize = taken.kept.values().map(Bytes::len).sum();
            let mut kept = Vec::new();
            for index in on_the_way {
                if let Some((_, bytes)) = self.record(index) {
                    kept_bytes += bytes.len();
                    kept.push((index, bytes));
                }
                if kept_bytes > MAX_KEPT_BYTES {
                    tracing::warn!(
                        batches = before,
                        "too much that is given up was sent and not answered; nothing more is given up"
                    );
                    return Ok(Gone::default());
                }
            }
            taken.kept.extend(kept);
            // An acknowledgement may have come meanwhile.
            let acked = lock(&self.acked);
            let mut given_up = lock(&self.given_up);
            if given_up.len() + more.len() > MAX_GIVEN_UP {
                tracing::warn!("too many batches were given up and never told the cloud; nothing more is given up");
                return Ok(Gone::default());
            }
            given_up.add(more, end);
            given_up.retain(|index| !acked.set.contains(index));
            taken.kept.retain(|index, _| !acked.set.contains(*index));
        }
        let mut writer = lock(&self.writer);
        self.save_given_up(&mut writer)?;
        writer.set_note();
        gone.bytes = writer.wal.trim_below(end)?;
        drop(writer);
        if gone.batches == 0 {
            return Ok(gone);
        }
        tracing::warn!(
            batches = gone.batches,
            rows = gone.rows,
            reason = cause.reason(),
            "batches were given up that the cloud does not have"
        );
        self.changed.send_modify(|_| {});
        Ok(gone)
    }

    fn what_is_given_up(
        &self,
        range: std::ops::Range<u64>,
        acked: &sluice_wire::intervals::IntervalSet,
        cause: Cause,
    ) -> Result<(BTreeMap<u64, Counts>, Gone), SpoolError> {
        let (mut more, mut gone, mut at) = (BTreeMap::new(), Gone::default(), range.start);
        while at < range.end {
            let entries = self.reader.salvage_range(at, SCAN_RECORDS, SCAN_BYTES)?;
            let Some((last, _)) = entries.last() else { break };
            at = last + 1;
            for (index, entry) in entries {
                if index >= range.end || acked.contains(index) {
                    continue;
                }
                let counts = match counts_of(&entry) {
                    Some(counts) => {
                        gone.rows += counts.stored + counts.quarantined;
                        dropped(counts, cause)
                    }
                    // It would have been a tombstone anyway.
                    None => self.counts_of_damaged(index),
                };
                gone.batches += 1;
                more.insert(index, counts);
            }
        }
        Ok((more, gone))
    }
}

fn counts_of(entry: &Entry) -> Option<Counts> {
    Some(envelope_of(entry)?.header.counts)
}

fn sealed_at(entry: &Entry) -> Option<u64> {
    Some(envelope_of(entry)?.header.sealed_at_ns)
}

fn envelope_of(entry: &Entry) -> Option<Envelope> {
    let Entry::Record(bytes) = entry else {
        return None;
    };
    let (_, envelope) = record::decode(bytes)?;
    Envelope::parse(envelope).ok()
}

/// What a batch held is dropped, with a name.
fn dropped(mut counts: Counts, cause: Cause) -> Counts {
    let rows = counts.stored + counts.quarantined;
    (counts.stored, counts.quarantined) = (0, 0);
    let more = Counts {
        dropped: vec![Dropped {
            plugin: PLUGIN.to_owned(),
            reason: cause.reason().to_owned(),
            rows,
        }],
        ..Counts::default()
    };
    if rows > 0 {
        counts.merge(&more);
    }
    counts
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_given_up_reads_back(list in proptest::collection::btree_map(any::<u64>(), tally::tests::counts(), 0..5), end: u64) {
            let given_up = GivenUp { waiting: list, end, changed: false };
            prop_assert_eq!(GivenUp::decode(&given_up.encode()).unwrap(), given_up);
        }

        #[test]
        fn any_bytes_are_read_or_not(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = GivenUp::decode(&bytes);
        }

        #[test]
        fn p3_counts_of_what_is_dropped_balance(counts in tally::tests::counts()) {
            let after = dropped(counts.clone(), Cause::Full);
            prop_assert!(after.balances() && after.stored + after.quarantined == 0);
            prop_assert_eq!(after.accepted, counts.accepted);
        }
    }
}
