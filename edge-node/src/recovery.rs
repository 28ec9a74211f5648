//! The start after an end of any kind: journal records that no batch in the spool covers are sealed now.

use std::time::Duration;

use sluice_runtime::Reasons;
use sluice_wal::{Entry, Reader, WalError};
use sluice_wire::counts::Counts;
use sluice_wire::layout::{self, IpcLimits};

use crate::journal;
use crate::positions::Positions;
use crate::record::{self, Head, RecordError};
use crate::sealer::{Content, Decision, Link, Pending, Policy, Queue, seal};
use crate::spool::{Spool, SpoolError};
use crate::status::{Recovered, now_ns};

const READ_RECORDS: usize = 64;
const READ_BYTES: usize = 8 << 20;
/// Attempts at records that the disk does not give, and the pause between two.
const READ_ATTEMPTS: u32 = 4;
const READ_PAUSE: Duration = Duration::from_millis(250);

/// Why recovery stopped.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    #[error("journal cannot be read")]
    Journal(#[source] WalError),
    #[error("journal record {index} has the newer format {version}: upgrade this program")]
    Newer { index: u64, version: u8 },
    #[error(transparent)]
    Spool(#[from] SpoolError),
}

/// Seals everything in the journal that is not covered. May be called again after a failure: it goes on where the spool
/// ends. Blocks.
pub(crate) fn recover(
    journal: &Reader,
    policy: &Policy,
    spool: &Spool,
    reasons: &Reasons,
    recovered: &mut Recovered,
) -> Result<(), RecoveryError> {
    let from = journal.first().max(spool.covered());
    let mut walk = Walk {
        journal,
        reasons,
        before: total_before(journal, from),
        run: None,
        marks: None,
        recovered,
    };
    let mut queue = Queue::new(policy.clone(), from);
    let mut at = from;
    loop {
        let entries = read(journal, at).map_err(RecoveryError::Journal)?;
        let Some((end, _)) = entries.last() else {
            break;
        };
        at = end + 1;
        for (index, entry) in entries {
            let Some(pending) = walk.pending(index, entry)? else {
                continue;
            };
            queue.push(pending);
            while queue.decide(Duration::ZERO, Link::Offline) == Decision::Seal {
                seal_group(queue.cut(), spool)?;
            }
        }
    }
    if let Some(pending) = walk.damaged_end(at) {
        queue.push(pending);
    }
    loop {
        let group = queue.cut();
        if group.is_empty() {
            return Ok(());
        }
        seal_group(group, spool)?;
    }
}

/// Takes over the positions of sources from every record that the journal still has, sealed or not. Blocks.
pub(crate) fn read_positions(journal: &Reader, positions: &Positions) -> Result<(), WalError> {
    let mut at = journal.first();
    loop {
        let entries = read(journal, at)?;
        let Some((end, _)) = entries.last() else {
            return Ok(());
        };
        at = end + 1;
        for (index, entry) in entries {
            if let Entry::Record(bytes) = entry {
                positions.synced(index, record::positions(&bytes));
            }
        }
    }
}

/// A sector that stays unreadable is damage; at first it may be a mood of the disk.
fn read(journal: &Reader, at: u64) -> Result<Vec<(u64, Entry)>, WalError> {
    for _ in 1..READ_ATTEMPTS {
        match journal.read_range(at, READ_RECORDS, READ_BYTES) {
            Err(error) if error.is_unreadable() => {
                tracing::warn!(at, %error, "journal cannot be read, trying again");
                std::thread::sleep(READ_PAUSE);
            }
            other => return other,
        }
    }
    journal.salvage_range(at, READ_RECORDS, READ_BYTES)
}

fn seal_group(group: Vec<Pending<Content>>, spool: &Spool) -> Result<(), RecoveryError> {
    match seal(group, Counts::default(), spool, now_ns()) {
        Ok(_) => Ok(()),
        Err(unsealed) => Err(unsealed.error.into()),
    }
}

/// The running total that the last readable record before an index ends with, and of which start.
fn total_before(journal: &Reader, index: u64) -> Option<(u32, u64)> {
    let before = index.checked_sub(1).filter(|i| *i >= journal.first())?;
    match journal.salvage(before) {
        Ok(Some(Entry::Record(bytes))) => {
            let (head, _) = record::decode(&bytes).ok()?;
            Some((head.start, head.total_accepted))
        }
        _ => None,
    }
}

struct Walk<'a> {
    reasons: &'a Reasons,
    journal: &'a Reader,
    /// Start and total of the last record that could be read.
    before: Option<(u32, u64)>,
    /// Where the damaged records before this one begin.
    run: Option<u64>,
    /// What the journal's markers say; looked up when something is damaged.
    marks: Option<Vec<(u64, (u32, u64))>>,
    recovered: &'a mut Recovered,
}

impl Walk<'_> {
    /// What a record becomes. A damaged one becomes a part of the next that can be read: no batch ends with it, so wherever
    /// recovery itself is ended, what it held is counted in the end, and once.
    fn pending(&mut self, index: u64, entry: Entry) -> Result<Option<Pending<Content>>, RecoveryError> {
        let what = match entry {
            Entry::Damaged { what, .. } => what,
            Entry::Record(bytes) => match record::decode(&bytes) {
                Ok((head, ipc)) => return Ok(Some(self.readable(index, bytes.len(), &head, ipc))),
                Err(RecordError::Newer(version)) => {
                    return Err(RecoveryError::Newer { index, version });
                }
                Err(RecordError::Malformed) => "malformed".to_owned(),
            },
        };
        tracing::warn!(index, what, "journal record is damaged");
        self.recovered.damaged_records += 1;
        self.run.get_or_insert(index);
        Ok(None)
    }

    /// The damaged records that nothing readable follows.
    fn damaged_end(&mut self, end: u64) -> Option<Pending<Content>> {
        let damaged = end - self.run?;
        let lost = self.lost_before(end, None);
        self.recovered.events += lost;
        self.recovered.damaged_events += lost;
        let mut content = Content::default();
        content.counts.accepted = lost;
        content.counts.damaged = lost;
        Some(Pending {
            index: end - 1,
            damaged_before: damaged - 1,
            accepted: Duration::ZERO,
            rows: 0,
            bytes: 0,
            content,
        })
    }

    fn readable(&mut self, index: u64, bytes: usize, head: &Head, ipc: &[u8]) -> Pending<Content> {
        let mut counts = head.counts.clone();
        self.reasons.limit(&mut counts.dropped);
        let mut rows = None;
        if !ipc.is_empty() {
            match layout::from_ipc(ipc, &IpcLimits::default()) {
                Ok(batch) if batch.num_rows() as u64 == counts.stored + counts.quarantined => rows = Some(batch),
                other => {
                    let error = other
                        .err()
                        .map_or("another number of rows".to_owned(), |e| e.to_string());
                    tracing::warn!(index, error, "rows of a journal record cannot be read");
                    self.recovered.damaged_records += 1;
                    counts.damaged += counts.stored + counts.quarantined;
                    (counts.stored, counts.quarantined) = (0, 0);
                }
            }
        }
        let damaged_before = self.run.map_or(0, |begin| index - begin);
        let own_begin = head.total_accepted.saturating_sub(head.counts.accepted);
        let lost = self.lost_before(index, Some((head.start, own_begin)));
        counts.accepted += lost;
        counts.damaged += lost;
        self.recovered.records += 1;
        self.recovered.events += counts.accepted;
        self.recovered.damaged_events += counts.damaged;
        self.before = Some((head.start, head.total_accepted));
        let held = rows.as_ref().map_or(0, arrow_array::RecordBatch::num_rows);
        let content = Content {
            counts,
            rows,
            _room: None,
        };
        Pending {
            index,
            damaged_before,
            accepted: Duration::ZERO,
            rows: held,
            bytes,
            content,
        }
    }

    /// Events of the damaged records just before `end`, where totals stand at `after` if a record there tells.
    fn lost_before(&mut self, end: u64, after: Option<(u32, u64)>) -> u64 {
        let Some(begin) = self.run.take() else {
            return 0;
        };
        let journal = self.journal;
        let marks = self.marks.get_or_insert_with(|| read_marks(journal, begin));
        let begins_with = marks.iter().find(|(at, _)| *at == begin).map(|(_, total)| *total);
        let inside = marks.iter().filter(|(at, _)| begin < *at && *at <= end);
        let (mut known, mut lost) = (self.before.or(begins_with), 0u64);
        for (start, total) in inside.map(|(_, total)| *total).chain(after) {
            lost = lost.saturating_add(match known {
                Some((same, before)) if same == start => total.saturating_sub(before),
                // What was known is of an earlier start, so this start's totals began at zero after it.
                Some(_) => total,
                None => 0,
            });
            known = Some((start, total));
        }
        lost
    }
}

/// Without marks counts may stay unknown, which is no reason not to go on.
fn read_marks(journal: &Reader, from: u64) -> Vec<(u64, (u32, u64))> {
    match journal.marks(from) {
        Ok(marks) => marks
            .into_iter()
            .map(|(at, mark)| (at, journal::marked(mark)))
            .collect(),
        Err(error) => {
            tracing::warn!(%error, "markers of the journal cannot be read");
            Vec::new()
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;
    use std::sync::Arc;

    use proptest::prelude::*;
    use sluice_wire::Signal;
    use sluice_wire::counts::Dropped;
    use sluice_wire::envelope::Envelope;

    use sluice_wal::Wal;

    use super::*;
    use crate::journal::Journal;
    use crate::link::BatchSource;
    use crate::spool::tests::faulty;

    fn open(dir: &Path) -> Wal {
        Wal::open_marked(&dir.join("journal"), journal::options(64 << 20, 0))
            .unwrap()
            .0
    }

    /// A record of so many events, none of which remains.
    fn record(start: u32, events: u64) -> (Vec<u8>, u64) {
        let head = Head {
            signal: Signal::Log,
            start,
            received_ns: 0,
            total_accepted: 0,
            counts: Counts {
                accepted: events,
                dropped: vec![Dropped {
                    plugin: "p".to_owned(),
                    reason: "r".to_owned(),
                    rows: events,
                }],
                ..Counts::default()
            },
        };
        (record::encode(&head, &[], &[]), events)
    }

    /// Smashes records, told by where they begin.
    fn damage(dir: &Path, records: &BTreeSet<usize>) {
        let file = std::fs::read_dir(dir.join("journal"))
            .unwrap()
            .map(|e| e.unwrap().path());
        let file = file
            .filter(|p| p.extension().is_some_and(|e| e == "wal"))
            .max()
            .unwrap();
        let mut bytes = std::fs::read(&file).unwrap();
        let needle = b"\x01\x00p\x01\x00r";
        let places: Vec<usize> = (0..bytes.len() - needle.len())
            .filter(|at| bytes[*at..].starts_with(needle))
            .collect();
        for nth in records {
            bytes[places[*nth]] ^= 0x20;
        }
        std::fs::write(&file, bytes).unwrap();
    }

    /// Everything that the spool holds.
    fn sealed(spool: &Spool) -> Counts {
        let (mut counts, mut at) = (Counts::default(), 0);
        while let Some((index, bytes)) = spool.next_from(at).unwrap() {
            counts.merge(&Envelope::parse(bytes).unwrap().header.counts);
            at = index + 1;
        }
        counts
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

        /// Two starts wrote the journal; some records are damaged; recovery is ended after any of its batches, again and again.
        #[test]
        fn p3_p6_every_event_is_in_one_bucket_wherever_recovery_is_ended(
            events in proptest::collection::vec(1u64..50, 2..14),
            cut in 0usize..14,
            damaged in proptest::collection::btree_set(0usize..14, 0..6),
            ends in proptest::collection::vec(0u64..4, 0..5),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let (cut, damaged) = (cut.min(events.len()), damaged.into_iter().filter(|n| *n < events.len()).collect());
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                for (start, part) in [(1, &events[..cut]), (2, &events[cut..])] {
                    let positions = crate::positions::Positions::load(&dir.path().join("positions"), 0).unwrap();
                    let journal = Journal::start(open(dir.path()), start, std::sync::Arc::new(positions));
                    for events in part {
                        journal.append(vec![record(start, *events)]).await.unwrap();
                    }
                    journal.close().await;
                }
            });
            damage(dir.path(), &damaged);
            let wal = open(dir.path());
            let size = record(1, 1).0.len();
            let policy = Policy {
                max_rows: 1000,
                max_bytes: 3 * size,
                freshness: Duration::ZERO,
                offline_age: Duration::from_secs(3600),
            };
            let reasons = Reasons::default();
            let attempts = ends.iter().map(|n| Some(*n)).chain([None]);
            for writes_left in attempts {
                let faults = Arc::default();
                let (spool, _) = faulty::open(dir.path(), &faults);
                faults.lock().unwrap().writes_left = writes_left;
                let result = recover(&wal.reader(), &policy, &spool, &reasons, &mut Recovered::default());
                prop_assert!(result.is_ok() || writes_left.is_some());
            }
            let counts = sealed(&faulty::open(dir.path(), &Arc::default()).0);
            let sum = |wanted: bool| -> u64 {
                events.iter().enumerate().filter(|(n, _)| damaged.contains(n) == wanted).map(|(_, e)| e).sum()
            };
            prop_assert_eq!((counts.dropped_rows(), counts.damaged), (sum(false), sum(true)));
        }
    }
}
