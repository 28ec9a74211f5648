//! The spool: sealed batches on disk until the cloud has them.
//!
//! One record is one batch, and its index gives its identity: `seq` is the distance from the index at which its epoch
//! began. So a record that cannot be read any more still has an id, and a tombstone takes its place.

mod cursor;
mod record;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use arrow_array::RecordBatch;
use bytes::Bytes;
use sluice_wal::{Entry, Options, Reader, Wal, WalError, crash_point};
use sluice_wire::counts::Counts;
use sluice_wire::envelope::{self, Compression, Envelope, EnvelopeError, Header, Kind};
use sluice_wire::ids::{Epoch, NodeId, StreamId, TenantId};
use sluice_wire::intervals::IntervalSet;
use tokio::sync::watch;

use crate::identity::{EpochStart, Identity, IdentityError};
use crate::link::{AckSink, BatchSource, SourceError};
use cursor::Saved;

/// Records read at a time while looking for the end of a damaged run.
const SCAN_RECORDS: usize = 64;
const SCAN_BYTES: usize = 8 << 20;
/// A damaged run is followed this far; beyond it counts are not looked for.
const MAX_DAMAGED_RUN: u64 = 100_000;
/// Tombstones kept in memory; they can be made again.
const MAX_TOMBSTONES: usize = 1024;

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
        let full = |e: &std::io::Error| {
            matches!(
                e.kind(),
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
            )
        };
        match self {
            Self::Log(WalError::Full) => true,
            Self::Cursor(e) | Self::Identity(IdentityError::Io { source: e, .. }) => full(e),
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
    /// What the last cursor of the life before knew of its end.
    saved_end: (u64, u32, Counts),
    /// When the oldest batch was sealed, by its index.
    oldest: Mutex<Option<(u64, u64)>>,
    stream: StreamId,
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
    pub batches: u64,
    pub first: u64,
    pub next: u64,
    pub acked: u64,
    pub tombstoned: u64,
    pub oldest_sealed_unix_ms: Option<u64>,
}

impl Spool {
    /// Opens the folder, finds out who we are and begins an epoch. Blocks.
    pub fn open(options: SpoolOptions, tenant: &TenantId, node: &NodeId) -> Result<(Spool, Opened), SpoolError> {
        let dir = options.data_dir.join("spool");
        // At most a sixteenth of the cap is bound in a segment that is no longer needed.
        let segment_bytes = (options.max_bytes / 16).clamp(1 << 20, 32 << 20);
        let wal_options = Options {
            segment_bytes,
            max_record_bytes: 64 << 20,
            ballast_bytes: options.ballast,
        };
        let (mut wal, recovery) = Wal::open(&dir, wal_options)?;
        let cursor_path = options.data_dir.join("cursor");
        let saved = Saved::load(&cursor_path).map_err(SpoolError::Cursor)?;
        // A spool that lost its end must not give the indices that the cursor speaks of to other batches: they would count as
        // acknowledged. What is lost becomes a counted gap.
        if wal.next() < saved.next {
            wal.skip_to(saved.next)?;
        }
        let reader = wal.reader();

        let identity_path = options.data_dir.join("identity");
        let (mut identity, identity_rebuilt) = match Identity::load(&identity_path)? {
            Some(identity) => (identity, false),
            None => rebuild_identity(&identity_path, &reader, tenant, node),
        };
        identity.check(tenant, node)?;
        let next = wal.next();
        let epoch = identity.begin(rand::random(), next, reader.first())?;
        let epoch = EpochStart {
            epoch,
            first_index: next,
            generation: identity.generation(),
        };

        let noted = crate::journal::noted(&recovery.note);
        let covered = noted.max(last_covered(&reader, next)).max(saved.covered);
        // An index that was given twice must not count as acknowledged for its first use.
        let mut set = IntervalSet::new();
        for range in saved.acked.iter() {
            set.insert_range(range.start..range.end.min(next));
        }
        let opened = Opened {
            covered,
            torn_bytes: recovery.torn_bytes,
            damaged: recovery.damaged.len() as u64 + recovery.gaps.iter().map(|g| g.end - g.start).sum::<u64>(),
            identity_rebuilt,
        };
        let stream = identity.stream().clone();
        let max_batch_bytes = options.max_batch_bytes;
        let writer = Writer {
            wal,
            identity,
            epoch,
            totals: Counts::default(),
            covered,
            rotate: false,
            max_batch_bytes,
        };
        let spool = Spool {
            options,
            cursor_path,
            writer: Mutex::new(writer),
            reader,
            acked: Mutex::new(Acked {
                set,
                ..Acked::default()
            }),
            changed: watch::Sender::new(next),
            acks: watch::Sender::new(0),
            tombstones: Mutex::default(),
            saved_end: (saved.next, saved.epoch, saved.totals),
            oldest: Mutex::default(),
            stream,
        };
        Ok((spool, opened))
    }

    pub fn stream(&self) -> &StreamId {
        &self.stream
    }

    /// The epoch of this start and the generation that it began in.
    pub fn epoch(&self) -> (Epoch, u32) {
        let writer = lock(&self.writer);
        (writer.epoch.epoch, writer.epoch.generation)
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
        let mut writer = lock(&self.writer);
        writer.rotate_if_asked(self.reader.first())?;
        let index = writer.wal.next();
        let id = writer.identity.batch_id(index).ok_or(SpoolError::NoEpoch(index))?;
        let header = Header {
            id,
            generation: writer.epoch.generation,
            kind: draft.kind,
            rows: draft.rows.as_ref().map_or(0, |r| r.num_rows() as u32),
            counts: draft.counts.clone(),
            journal_upto: draft.journal_upto,
            time_min_ns: draft.time_min_ns,
            time_max_ns: draft.time_max_ns,
            sealed_at_ns: draft.sealed_at_ns,
            detail: draft.detail.clone(),
        };
        let compression = Compression {
            zstd_level: self.options.zstd_level,
        };
        let envelope = envelope::seal(&header, draft.rows.as_ref(), compression)?;
        let max = writer.max_batch_bytes;
        if envelope.len() as u64 > max {
            return Err(SpoolError::TooLarge {
                bytes: envelope.len() as u64,
                max,
            });
        }
        crash_point("edge.sealed");
        let mut totals = writer.totals.clone();
        totals.merge(&draft.counts);
        let covered = writer.covered.max(draft.journal_upto);
        // A segment begun by this append speaks of what came before it; the record says the rest.
        let note = writer.covered.to_le_bytes();
        writer.wal.set_note(&note);
        writer.wal.append(&record::encode(&totals, &envelope))?;
        writer.wal.sync()?;
        crash_point("edge.spool.synced");
        writer.totals = totals;
        writer.covered = covered;
        drop(writer);
        self.changed.send_replace(index + 1);
        Ok(index)
    }

    /// Saves what is acknowledged, then deletes what nobody needs any more. Blocks.
    pub fn save_cursor(&self) -> Result<u64, SpoolError> {
        let mut writer = lock(&self.writer);
        let acked = lock(&self.acked).set.clone();
        let watermark = self.watermark(&acked);
        let saved = Saved {
            acked,
            next: writer.wal.next(),
            epoch: writer.epoch.epoch.number,
            totals: writer.totals.clone(),
            covered: writer.covered,
        };
        saved.save(&self.cursor_path).map_err(SpoolError::Cursor)?;
        crash_point("edge.cursor.saved");
        // One record below the watermark stays: its totals tell what a damaged successor held.
        Ok(writer.wal.trim_below(watermark.saturating_sub(1))?)
    }

    /// Everything below it is acknowledged or gone.
    fn watermark(&self, acked: &IntervalSet) -> u64 {
        acked.next_absent(self.reader.first())
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
        self.watermark(&lock(&self.acked).set) >= self.reader.synced()
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
            batches: next.saturating_sub(watermark),
            first: self.reader.first(),
            next,
            acked: count,
            tombstoned,
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

    /// Totals and envelope of a readable record.
    fn record(&self, index: u64) -> Option<(Counts, Bytes)> {
        match self.reader.read(index) {
            Ok(Some(Entry::Record(bytes))) => record::decode(&bytes),
            _ => None,
        }
    }

    fn bytes_at(&self, index: u64) -> Result<Bytes, SourceError> {
        let what = match self.reader.read(index) {
            Ok(Some(Entry::Record(bytes))) => match record::decode(&bytes) {
                Some((_, envelope)) => return Ok(envelope),
                None => "record of the spool is malformed".to_owned(),
            },
            Ok(Some(Entry::Damaged { what, .. })) => what,
            Ok(None) => {
                return Err(SourceError {
                    index,
                    what: "not synced".to_owned(),
                });
            }
            Err(e) => {
                return Err(SourceError {
                    index,
                    what: e.to_string(),
                });
            }
        };
        self.tombstone(index, &what)
    }

    /// The batch that stands for a damaged one: the same id, and as far as its neighbours know them its counts.
    fn tombstone(&self, index: u64, what: &str) -> Result<Bytes, SourceError> {
        if let Some(bytes) = lock(&self.tombstones).get(&index) {
            return Ok(bytes.clone());
        }
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
        let (counts, detail) = match self.lost_counts(index, &start, next_start) {
            Some(counts) => (counts, format!("damaged on the disk of the edge: {what}")),
            None => (
                Counts::default(),
                format!("damaged on the disk of the edge, counts are not known: {what}"),
            ),
        };
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
        let bytes = envelope::seal(&header, None, Compression { zstd_level: 0 }).map_err(|e| refuse(e.to_string()))?;
        tracing::warn!(
            index,
            rows = header.counts.damaged,
            what,
            "spool record is damaged, its tombstone is sent"
        );
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
            let entries = self.reader.read_range(at, SCAN_RECORDS, SCAN_BYTES).ok()?;
            let (_, last) = (entries.first()?, entries.last()?.0);
            for (place, entry) in entries {
                if place >= end {
                    return None;
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
        (at == *saved_next && *saved_epoch == start.epoch.number).then(|| saved_totals.minus(&before))
    }
}

impl Writer {
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

impl BatchSource for Spool {
    fn next_from(&self, index: u64) -> Result<Option<(u64, Bytes)>, SourceError> {
        let mut from = index;
        loop {
            let at = lock(&self.acked).set.next_absent(from.max(self.reader.first()));
            if at >= self.reader.synced() {
                return Ok(None);
            }
            match self.reader.read(at) {
                Err(WalError::Trimmed { first }) if first > at => from = first,
                _ => return self.bytes_at(at).map(|bytes| Some((at, bytes))),
            }
        }
    }

    fn read(&self, index: u64) -> Result<Bytes, SourceError> {
        self.bytes_at(index)
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

impl AckSink for Spool {
    fn acked(&self, index: u64) {
        let mut acked = lock(&self.acked);
        if index < self.reader.synced() && acked.set.insert(index) {
            acked.count += 1;
            drop(acked);
            crash_point("edge.acked");
            self.acks.send_modify(|n| *n += 1);
        }
    }

    fn tombstoned(&self, index: u64, reason: &str) {
        lock(&self.acked).tombstoned += 1;
        tracing::error!(index, reason, "gateway can never store a batch, its tombstone is sent");
    }

    fn welcomed(&self, generation: u32, max_batch_bytes: u32) {
        let mut writer = lock(&self.writer);
        if max_batch_bytes > 0 {
            writer.max_batch_bytes = self.options.max_batch_bytes.min(max_batch_bytes.into());
        }
        match writer.identity.set_generation(generation) {
            Ok(true) => writer.rotate = true,
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "log generation cannot be saved"),
        }
    }
}

/// The journal position that the newest readable record covers.
fn last_covered(reader: &Reader, next: u64) -> u64 {
    let first = reader.first();
    (first..next)
        .rev()
        .take(SCAN_RECORDS)
        .find_map(|index| match reader.read(index) {
            Ok(Some(Entry::Record(bytes))) => {
                let (_, envelope) = record::decode(&bytes)?;
                Some(Envelope::parse(envelope).ok()?.header.journal_upto)
            }
            _ => None,
        })
        .unwrap_or(0)
}

/// Who we are when the identity file is lost: the batches in the spool tell; an empty spool is a new stream.
fn rebuild_identity(path: &Path, reader: &Reader, tenant: &TenantId, node: &NodeId) -> (Identity, bool) {
    let mut stream = None;
    let mut generation = 0;
    let mut epochs: Vec<EpochStart> = Vec::new();
    let mut at = reader.first();
    while let Ok(entries) = reader.read_range(at, SCAN_RECORDS, SCAN_BYTES)
        && let Some((last, _)) = entries.last()
    {
        at = last + 1;
        for (index, entry) in entries {
            let Entry::Record(bytes) = entry else {
                continue;
            };
            let Some((_, envelope)) = record::decode(&bytes) else {
                continue;
            };
            let Ok(envelope) = Envelope::parse(envelope) else {
                continue;
            };
            let header = envelope.header;
            generation = generation.max(header.generation);
            if epochs.last().is_none_or(|e| e.epoch != header.id.epoch) {
                let first_index = index.saturating_sub(header.id.seq);
                epochs.push(EpochStart {
                    epoch: header.id.epoch,
                    first_index,
                    generation: header.generation,
                });
            }
            stream = Some(header.id.stream);
        }
    }
    let rebuilt = stream.is_some();
    let stream = stream.unwrap_or_else(|| StreamId {
        tenant: tenant.clone(),
        node: node.clone(),
        spool: uuid::Uuid::new_v4().into_bytes(),
    });
    (Identity::new(path, stream, generation, epochs), rebuilt)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code that holds these locks can panic half way through a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
