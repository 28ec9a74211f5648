//! What stands for a batch that cannot be read any more: a tombstone with its id and, as far as they are known, its counts.

use bytes::Bytes;
use sluice_wal::{Entry, WalError};
use sluice_wire::counts::Counts;
use sluice_wire::envelope::{self, Compression, Envelope, Header, Kind};

use super::{SCAN_BYTES, SCAN_RECORDS, Spool, lock, mark, note, record};
use crate::identity::EpochStart;
use crate::link::SourceError;

/// A damaged run is followed this far; beyond it counts are not looked for.
const MAX_DAMAGED_RUN: u64 = 100_000;
/// Tombstones kept in memory; they can be made again.
const MAX_TOMBSTONES: usize = 1024;
/// Attempts at a record that the disk does not give, a pause of the uplink between them, before it counts as damaged.
const READ_ATTEMPTS: u32 = 4;

impl Spool {
    /// Totals and envelope of a readable record.
    pub(super) fn record(&self, index: u64) -> Option<(Counts, Bytes)> {
        match self.reader.salvage(index) {
            Ok(Some(Entry::Record(bytes))) => record::decode(&bytes),
            _ => None,
        }
    }

    pub(super) fn bytes_at(&self, index: u64) -> Result<Bytes, SourceError> {
        // What was sent once stays what it is, whatever the disk says the next time.
        if let Some(bytes) = lock(&self.tombstones).get(&index) {
            return Ok(bytes.clone());
        }
        let given_up = lock(&self.given_up).counts(index).cloned();
        if let Some(counts) = given_up {
            return self.stand_in(index, |_, _| (counts, "given up by the edge to make room".to_owned()));
        }
        let refuse = |what: String| Err(SourceError { index, what });
        let what = match self.entry_at(index) {
            Ok(Some(Entry::Record(bytes))) => match record::decode(&bytes) {
                Some((_, envelope)) => return Ok(envelope),
                None => "record of the spool is malformed".to_owned(),
            },
            Ok(Some(Entry::Damaged { what, .. })) => what,
            Ok(None) => return refuse("not synced".to_owned()),
            Err(e) => return refuse(e.to_string()),
        };
        self.tombstone(index, &what)
    }

    /// What stands at an index. A sector that stays unreadable is damage; at first it may be a mood of the disk.
    fn entry_at(&self, index: u64) -> Result<Option<Entry>, WalError> {
        let error = match self.reader.read(index) {
            Err(error) if error.is_unreadable() => error,
            other => return other,
        };
        let attempts = {
            let mut failing = lock(&self.failing);
            if failing.len() >= MAX_TOMBSTONES {
                failing.clear();
            }
            let attempts = failing.entry(index).or_default();
            *attempts += 1;
            *attempts
        };
        // A disk that takes nothing either is away as a whole, and may come back with everything on it.
        if attempts < READ_ATTEMPTS || self.save_cursor().is_err() {
            return Err(error);
        }
        self.reader.salvage(index)
    }

    /// The batch that stands for a damaged one: the same id, and as far as its neighbours know them its counts.
    fn tombstone(&self, index: u64, what: &str) -> Result<Bytes, SourceError> {
        let bytes = self.stand_in(index, |start, next_start| {
            match self.lost_counts(index, start, next_start) {
                Some(counts) => (counts, format!("damaged on the disk of the edge: {what}")),
                None => (
                    Counts::default(),
                    format!("damaged on the disk of the edge, counts are not known: {what}"),
                ),
            }
        })?;
        tracing::warn!(index, what, "spool record is damaged, a tombstone stands for it");
        Ok(bytes)
    }

    /// What the tombstone of a damaged record says.
    pub(super) fn counts_of_damaged(&self, index: u64) -> Counts {
        let bytes = self.tombstone(index, "it was to be given up");
        // Known to nobody once it is deleted; its neighbours know it now.
        let envelope = bytes.ok().and_then(|bytes| Envelope::parse(bytes).ok());
        envelope.map(|envelope| envelope.header.counts).unwrap_or_default()
    }

    fn stand_in(
        &self,
        index: u64,
        counts: impl FnOnce(&EpochStart, Option<u64>) -> (Counts, String),
    ) -> Result<Bytes, SourceError> {
        let refuse = |what: String| SourceError { index, what };
        let (id, start, next_start) = {
            let writer = lock(&self.writer);
            let id = writer.identity.batch_id(index);
            (
                id,
                writer.identity.epoch_at(index).copied(),
                writer.identity.next_start(index),
            )
        };
        let (Some(id), Some(start)) = (id, start) else {
            return Err(refuse("damaged, and its epoch is not known".to_owned()));
        };
        let (counts, detail) = counts(&start, next_start);
        let header = Header {
            id,
            generation: start.generation,
            kind: Kind::Data,
            rows: 0,
            counts,
            journal_upto: 0,
            time_min_ns: 0,
            time_max_ns: 0,
            // The same bytes whenever it is made.
            sealed_at_ns: 0,
            detail: String::new(),
        }
        .tombstone(&detail);
        let bytes = envelope::seal(&header, None, Compression::NONE).map_err(|e| refuse(e.to_string()))?;
        let mut tombstones = lock(&self.tombstones);
        if tombstones.len() >= MAX_TOMBSTONES {
            tombstones.clear();
        }
        tombstones.insert(index, bytes.clone());
        Ok(bytes)
    }

    /// What a run of damaged records held: the difference between the totals around it. The first of the run carries it.
    fn lost_counts(&self, index: u64, start: &EpochStart, next_start: Option<u64>) -> Option<Counts> {
        let before = if index == start.first_index {
            Counts::default()
        } else if let Some(totals) = self.noted_totals(index, start.epoch.number) {
            totals
        } else {
            match self.record(index - 1) {
                Some((totals, _)) => totals,
                None if index > self.reader.first() => return Some(Counts::default()),
                None => return None,
            }
        };
        let (saved_next, saved_epoch, saved_totals) = &self.saved_end;
        let end = next_start.unwrap_or(u64::MAX).min(index + MAX_DAMAGED_RUN);
        let mut at = index + 1;
        while at < end {
            if at == *saved_next && *saved_epoch == start.epoch.number {
                return Some(saved_totals.minus(&before));
            }
            let entries = self.reader.salvage_range(at, SCAN_RECORDS, SCAN_BYTES).ok()?;
            let Some((last, _)) = entries.last() else { break };
            let last = *last;
            for (place, entry) in entries {
                if place >= end {
                    return self.marked_counts(index, end, start.epoch.number, &before);
                }
                if let Entry::Record(bytes) = entry
                    && let Some((totals, envelope)) = record::decode(&bytes)
                {
                    let own = Envelope::parse(envelope).ok()?.header.counts;
                    return Some(totals.minus(&own).minus(&before));
                }
            }
            at = last + 1;
        }
        if at == *saved_next && *saved_epoch == start.epoch.number {
            return Some(saved_totals.minus(&before));
        }
        self.marked_counts(index, end, start.epoch.number, &before)
    }

    /// The same where no record of the epoch follows, as it was the last one before the process was killed: what the log's marks say was
    /// accepted until then. What of it was dropped nobody knows any more, so all of it counts as damaged.
    fn marked_counts(&self, index: u64, end: u64, epoch: u32, before: &Counts) -> Option<Counts> {
        let marks = self.reader.marks(index).ok()?;
        let of_epoch = marks
            .into_iter()
            .filter(|(behind, _)| (index + 1..=end).contains(behind));
        let accepted = of_epoch.filter_map(|(_, found)| mark::accepted(found, epoch)).max()?;
        let accepted = accepted.saturating_sub(before.accepted);
        Some(Counts {
            accepted,
            stored: accepted,
            ..Counts::default()
        })
    }

    /// The totals before an index at which a file begins.
    fn noted_totals(&self, index: u64, epoch: u32) -> Option<Counts> {
        let (of, totals) = note::totals(&self.reader.note_at(index)?)?;
        (of == epoch).then_some(totals)
    }
}
