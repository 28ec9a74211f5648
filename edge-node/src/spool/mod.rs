//! The spool: sealed batches on disk until the cloud has them.
//!
//! One record is one batch, and its index gives its identity: `seq` is the distance from the index at which its epoch
//! began. So a record that cannot be read any more still has an id, and a tombstone takes its place.

mod carry;
pub(crate) mod cursor;
mod damage;
pub(crate) mod given_up;
mod mark;
mod note;
mod open;
pub(crate) mod record;
mod room;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow_array::RecordBatch;
use bytes::Bytes;
use sluice_wal::{Reader, Wal, WalError, crash_point};
use sluice_wire::counts::Counts;
use sluice_wire::envelope::{self, Compression, Envelope, EnvelopeError, Header, Kind};
use sluice_wire::ids::{Epoch, StreamId};
use sluice_wire::intervals::IntervalSet;
use tokio::sync::watch;

use crate::hints::HintBoard;
use crate::identity::{EpochStart, Identity, IdentityError};
use given_up::GivenUp;

/// Records read at a time while looking for one that can be read.
const SCAN_RECORDS: usize = 64;
const SCAN_BYTES: usize = 8 << 20;
/// What a short budget of the link makes of `seal.zstd_level`: a few percent fewer bytes for several times the processor time.
const TIGHT_LEVEL: i32 = 19;
/// Counts of batches that were given up, until the cloud has them.
pub(crate) const GIVEN_UP_FILE: &str = "given-up";
pub(crate) const CURSOR_FILE: &str = "cursor";
pub(crate) const IDENTITY_FILE: &str = "identity";

/// Where the spool lives and how large it may get.
#[derive(Clone, Debug)]
pub struct SpoolOptions {
    pub data_dir: PathBuf,
    pub max_bytes: u64,
    pub ballast: u64,
    pub zstd_level: i32,
    /// No sealed batch is larger.
    pub max_batch_bytes: u64,
}

/// What is to be sealed.
#[derive(Clone, Debug)]
pub struct Draft {
    pub kind: Kind,
    pub rows: Option<RecordBatch>,
    pub counts: Counts,
    /// Journal positions below it are in this batch or an earlier one.
    pub journal_upto: u64,
    pub time_min_ns: i64,
    pub time_max_ns: i64,
    pub sealed_at_ns: u64,
    pub detail: String,
}

/// Why a batch is not in the spool.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    #[error("spool")]
    Log(#[from] WalError),
    #[error("batch cannot be sealed")]
    Seal(#[from] EnvelopeError),
    #[error("sealed batch has {bytes} bytes, at most {max} are allowed")]
    TooLarge { bytes: u64, max: u64 },
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("cursor of the spool")]
    Cursor(#[source] std::io::Error),
    #[error("spool index {0} belongs to no epoch")]
    NoEpoch(u64),
}

impl SpoolError {
    /// Waiting helps: the disk is full and the spool itself is good.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Log(WalError::Full) => true,
            Self::Cursor(e) | Self::Identity(IdentityError::Io { source: e, .. }) => is_full(e),
            _ => false,
        }
    }
}

/// What opening found.
#[derive(Clone, Debug, Default)]
pub struct Opened {
    /// Journal positions below it are in the spool.
    pub covered: u64,
    pub torn_bytes: u64,
    /// Batches that cannot be read; tombstones stand for them.
    pub damaged: u64,
    pub identity_rebuilt: bool,
    /// Nothing can be sealed before there is room on the disk.
    pub full: bool,
}

/// One open spool. Written by the sealer; read and acknowledged by the uplink.
#[derive(Debug)]
pub struct Spool {
    options: SpoolOptions,
    cursor_path: PathBuf,
    writer: Mutex<Writer>,
    reader: Reader,
    acked: Mutex<Acked>,
    changed: watch::Sender<u64>,
    /// Grows with every acknowledgement.
    acks: watch::Sender<u64>,
    tombstones: Mutex<HashMap<u64, Bytes>>,
    given_up: Mutex<GivenUp>,
    /// Locked before all others.
    taken: Mutex<carry::Taken>,
    /// One at a time decides what is given up.
    giving_up: Mutex<()>,
    /// Attempts at records that the disk does not give.
    failing: Mutex<HashMap<u64, u32>>,
    /// What is sealed now was accepted before the link came back; and up to where that was so.
    sealing_past: AtomicBool,
    past: AtomicU64,
    /// What the last cursor of the life before knew of its end.
    saved_end: (u64, u32, Counts),
    /// When the oldest batch was sealed, by its index.
    oldest: Mutex<Option<(u64, u64)>>,
    stream: StreamId,
    hints: Arc<HintBoard>,
}

#[derive(Debug)]
struct Writer {
    wal: Wal,
    identity: Identity,
    epoch: EpochStart,
    totals: Counts,
    covered: u64,
    /// Another generation was named: the next batch begins an epoch.
    rotate: bool,
    /// The epoch is not on disk yet.
    unsaved: bool,
    /// What the gateway takes, if that is less than what the options say.
    max_batch_bytes: u64,
}

#[derive(Debug, Default)]
struct Acked {
    set: IntervalSet,
    count: u64,
    tombstoned: u64,
}

/// Sizes for status pages.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct SpoolStatus {
    pub bytes: u64,
    pub max_bytes: u64,
    /// What is sealed now is no larger if its rows can be parted; the smaller of our limit and the gateway's.
    pub max_batch_bytes: u64,
    pub batches: u64,
    pub first: u64,
    pub next: u64,
    pub acked: u64,
    pub tombstoned: u64,
    /// Batches that were dropped to make room, and whose tombstones the cloud does not have yet.
    pub given_up: u64,
    pub oldest_sealed_unix_ms: Option<u64>,
}

impl Spool {
    pub fn stream(&self) -> &StreamId {
        &self.stream
    }

    /// The epoch of this start and the generation that it began in.
    pub fn epoch(&self) -> (Epoch, u32) {
        let writer = lock(&self.writer);
        (writer.epoch.epoch, writer.epoch.generation)
    }

    /// What plugins are told; it follows the batches that are sealed.
    pub(crate) fn hints(&self) -> &Arc<HintBoard> {
        &self.hints
    }

    /// Journal positions below it are in the spool.
    pub fn covered(&self) -> u64 {
        lock(&self.writer).covered
    }

    /// Somebody else knows that the spool once held more than it tells.
    pub(crate) fn raise_covered(&self, covered: u64) {
        let mut writer = lock(&self.writer);
        writer.covered = writer.covered.max(covered);
    }

    /// Seals a batch and appends it; durable when it returns. Blocks.
    pub fn append(&self, draft: &Draft) -> Result<u64, SpoolError> {
        let max = lock(&self.writer).max_batch_bytes;
        self.append_all(std::slice::from_ref(draft), max)
    }

    /// Appends batches side by side, however large: after a crash all of them are there or none is. What is larger than
    /// the gateway's log takes is held by the uplink.
    pub(crate) fn append_pieces(&self, drafts: &[Draft]) -> Result<u64, SpoolError> {
        self.append_all(drafts, u64::MAX)
    }

    /// Whether a batch made of it is as small as it has to be now.
    pub(crate) fn fits(&self, draft: &Draft) -> Result<bool, SpoolError> {
        let (header, max) = {
            let writer = lock(&self.writer);
            (writer.header(writer.wal.next(), draft)?, writer.max_batch_bytes)
        };
        let envelope = envelope::seal(&header, draft.rows.as_ref(), self.compression())?;
        Ok(envelope.len() as u64 <= max)
    }

    fn append_all(&self, drafts: &[Draft], max: u64) -> Result<u64, SpoolError> {
        let mut writer = lock(&self.writer);
        writer.save_identity()?;
        writer.rotate_if_asked(self.first_known())?;
        let first = writer.wal.next();
        let (mut totals, mut covered) = (writer.totals.clone(), writer.covered);
        let mut records = Vec::with_capacity(drafts.len());
        for (index, draft) in (first..).zip(drafts) {
            let header = writer.header(index, draft)?;
            let envelope = envelope::seal(&header, draft.rows.as_ref(), self.compression())?;
            let bytes = envelope.len() as u64;
            if bytes > max {
                return Err(SpoolError::TooLarge { bytes, max });
            }
            totals.merge(&draft.counts);
            covered = covered.max(draft.journal_upto);
            records.push(record::encode(&totals, &envelope));
        }
        crash_point("edge.sealed");
        // A segment begun by this append speaks of what came before it; the record says the rest.
        writer.set_note();
        for record in &records {
            writer.wal.append(record)?;
        }
        let epoch = writer.epoch.epoch.number;
        writer.wal.set_mark(mark::of(epoch, totals.accepted));
        writer.wal.sync()?;
        crash_point("edge.spool.synced");
        writer.totals = totals;
        writer.covered = covered;
        for (draft, record) in drafts.iter().zip(&records) {
            let rows = draft.rows.as_ref().map_or(0, RecordBatch::num_rows);
            self.hints.sealed(record.len(), rows);
        }
        drop(writer);
        let end = first + drafts.len() as u64;
        if self.sealing_past.load(Ordering::SeqCst) {
            self.past.store(end, Ordering::SeqCst);
        }
        self.changed.send_replace(end);
        Ok(first)
    }

    /// Whether what is sealed from now on is older than the link that has just come back.
    pub(crate) fn seal_past(&self, is_past: bool) {
        self.sealing_past.store(is_past, Ordering::SeqCst);
    }

    fn compression(&self) -> Compression {
        let level = self.options.zstd_level;
        Compression::level(if self.hints.is_tight() {
            level.max(TIGHT_LEVEL)
        } else {
            level
        })
    }

    /// Everything below it is acknowledged or gone.
    fn watermark(&self, acked: &IntervalSet) -> u64 {
        let given_up = lock(&self.given_up).end();
        acked.next_absent(self.reader.first().max(given_up))
    }

    /// Batches at and above it may still be spoken of.
    fn first_known(&self) -> u64 {
        let first = self.reader.first();
        lock(&self.given_up).first().map_or(first, |index| index.min(first))
    }

    /// Follows acknowledgements.
    pub fn acks(&self) -> watch::Receiver<u64> {
        self.acks.subscribe()
    }

    pub fn bytes_on_disk(&self) -> u64 {
        self.reader.bytes_on_disk()
    }

    /// Whether every batch is acknowledged.
    pub fn is_drained(&self) -> bool {
        lock(&self.given_up).first().is_none() && self.watermark(&lock(&self.acked).set) >= self.reader.synced()
    }

    pub fn status(&self) -> SpoolStatus {
        let (watermark, count, tombstoned) = {
            let acked = lock(&self.acked);
            (self.watermark(&acked.set), acked.count, acked.tombstoned)
        };
        let next = self.reader.synced();
        SpoolStatus {
            bytes: self.bytes_on_disk(),
            max_bytes: self.options.max_bytes,
            max_batch_bytes: lock(&self.writer).max_batch_bytes,
            batches: next.saturating_sub(watermark),
            first: self.reader.first(),
            next,
            acked: count,
            tombstoned,
            given_up: lock(&self.given_up).len() as u64,
            oldest_sealed_unix_ms: (watermark < next).then(|| self.sealed_ms(watermark)).flatten(),
        }
    }

    fn sealed_ms(&self, index: u64) -> Option<u64> {
        if let Some((known, sealed)) = *lock(&self.oldest)
            && known == index
        {
            return Some(sealed);
        }
        let (_, bytes) = self.record(index)?;
        let sealed = Envelope::parse(bytes).ok()?.header.sealed_at_ns / 1_000_000;
        *lock(&self.oldest) = Some((index, sealed));
        Some(sealed)
    }
}

impl Writer {
    fn header(&self, index: u64, draft: &Draft) -> Result<Header, SpoolError> {
        let id = self.identity.batch_id(index).ok_or(SpoolError::NoEpoch(index))?;
        Ok(Header {
            id,
            generation: self.epoch.generation,
            kind: draft.kind,
            rows: draft.rows.as_ref().map_or(0, |r| r.num_rows() as u32),
            counts: draft.counts.clone(),
            journal_upto: draft.journal_upto,
            time_min_ns: draft.time_min_ns,
            time_max_ns: draft.time_max_ns,
            sealed_at_ns: draft.sealed_at_ns,
            detail: draft.detail.clone(),
        })
    }

    /// What a segment that is begun now says of all that was before it.
    fn set_note(&mut self) {
        let note = note::encode(self.covered, self.epoch.epoch.number, &self.totals);
        self.wal.set_note(&note);
    }

    /// On a full disk a start can only remember its epoch; nothing is sealed under it before it is saved.
    fn save_identity(&mut self) -> Result<(), SpoolError> {
        if self.unsaved {
            self.identity.save()?;
            self.unsaved = false;
        }
        Ok(())
    }

    fn rotate_if_asked(&mut self, first_kept: u64) -> Result<(), SpoolError> {
        if !self.rotate {
            return Ok(());
        }
        let next = self.wal.next();
        let epoch = self.identity.begin(rand::random(), next, first_kept)?;
        self.epoch = EpochStart {
            epoch,
            first_index: next,
            generation: self.identity.generation(),
        };
        self.totals = Counts::default();
        self.rotate = false;
        Ok(())
    }
}

pub(crate) fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code that holds these locks can panic half way through a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
