//! The log on the local disk: one directory per partition, records grouped into one sync by the committer.
//!
//! `meta.json` names generation and number of partitions; a mismatch is refused, because the partition of a stream depends on
//! both. A record is a head and the envelope; FORMAT.md describes both versions of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sluice_wal::{Committer, CommitterOptions, Entry, Options, Reader, Recovery, Wal, WalError, cursor};
use sluice_wire::ids::Partition;

use super::head::{self, Head, MAX_HEAD_BYTES, Opening};
use super::{Log, LogError, LogRecord, salvage};

/// What stands before the envelope in a record of version 1.
const STAMP_BYTES: usize = 8;
/// A program that knows only the first version must not take heads for time stamps.
const META_VERSION: u32 = 2;
const FIRST_META_VERSION: u32 = 1;
/// Readers kept per partition, so that each of the writers goes on where it was.
const KEPT_READERS: usize = 4;
/// Attempts at records that the disk does not give, and the pause between two; then they count as damaged.
const READ_ATTEMPTS: u32 = 4;
const READ_PAUSE: Duration = Duration::from_millis(250);
/// Written and removed again, to see whether the disk is there.
const PROBE: &str = "disk.probe";
/// Records in one answer.
const MAX_READ_RECORDS: usize = 4096;
/// Of one step of a look.
const LOOK_BYTES: usize = 16 << 20;

/// Shape and limits of an embedded log.
#[derive(Clone, Debug)]
pub struct EmbeddedOptions {
    pub generation: u32,
    /// Fixed when the log is made.
    pub partitions: u16,
    pub segment_bytes: u64,
    pub max_envelope_bytes: u32,
    /// Room kept in each partition for deletes on a full disk.
    pub ballast_bytes: u64,
}

/// Why a log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("log {path}: cannot read or write meta.json")]
    Meta { path: PathBuf, source: std::io::Error },
    #[error("log {path}: meta.json cannot be understood")]
    MetaContent { path: PathBuf, source: serde_json::Error },
    #[error(
        "log {path} has {found_partitions} partitions in generation {found_generation}, the configuration says {partitions} in generation {generation}: \
         put the old numbers back, or use a new directory"
    )]
    Mismatch {
        path: PathBuf,
        found_partitions: u16,
        found_generation: u32,
        partitions: u16,
        generation: u32,
    },
    #[error("log {path} has version {version}, this program reads up to {META_VERSION}: upgrade it")]
    Newer { path: PathBuf, version: u32 },
    #[error("log {path}: the number of partitions must be at least 1")]
    NoPartitions { path: PathBuf },
    #[error("partition in {path}")]
    Partition { path: PathBuf, source: WalError },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Meta {
    version: u32,
    generation: u32,
    partitions: u16,
}

/// The log of one machine.
#[derive(Debug)]
pub struct EmbeddedLog {
    partitions: Vec<PartitionLog>,
    max_envelope_bytes: u32,
}

#[derive(Debug)]
struct PartitionLog {
    id: Partition,
    dir: PathBuf,
    committer: Committer,
    reader: Reader,
    /// Readers with the offset where each of them ended.
    readers: Arc<Mutex<Vec<(u64, Reader)>>>,
    recovery: Recovery,
}

impl EmbeddedLog {
    /// Opens or makes the log; blocking. Needs nothing running.
    pub fn open(dir: &Path, options: &EmbeddedOptions) -> Result<EmbeddedLog, OpenError> {
        if options.partitions == 0 {
            return Err(OpenError::NoPartitions { path: dir.to_owned() });
        }
        let mut partitions = Vec::new();
        for index in 0..options.partitions {
            let id = Partition {
                generation: options.generation,
                index,
            };
            if index == 0 {
                // Before any partition is made: they depend on it.
                check_meta(dir, options)?;
            }
            partitions.push(PartitionLog::open(dir, id, options)?);
        }
        Ok(Self {
            partitions,
            max_envelope_bytes: options.max_envelope_bytes,
        })
    }

    /// What opening found, by partition.
    pub fn recoveries(&self) -> impl Iterator<Item = (Partition, &Recovery)> {
        self.partitions.iter().map(|p| (p.id, &p.recovery))
    }

    /// Lets a partition continue at `offset`: for a log that lost its end while the stores hold more of it.
    pub async fn skip_to(&self, partition: Partition, offset: u64) -> Result<(), LogError> {
        self.find(partition)?.committer.skip_to(offset).await.map_err(log_error)
    }

    fn find(&self, id: Partition) -> Result<&PartitionLog, LogError> {
        let found = self.partitions.get(usize::from(id.index)).filter(|p| p.id == id);
        found.ok_or(LogError::NoPartition(id))
    }
}

fn check_meta(dir: &Path, options: &EmbeddedOptions) -> Result<(), OpenError> {
    let path = dir.join("meta.json");
    let io = |source| OpenError::Meta {
        path: path.clone(),
        source,
    };
    match std::fs::read(&path) {
        Ok(bytes) => {
            let meta: Meta = match serde_json::from_slice(&bytes) {
                Ok(meta) => meta,
                Err(error) if has_the_folders(dir, options).map_err(io)? => {
                    tracing::warn!(path = %path.display(), %error, "damaged; the folders of the partitions say the same, it is made anew");
                    return save_meta(&path, options);
                }
                Err(source) => return Err(OpenError::MetaContent { path, source }),
            };
            if meta.version > META_VERSION {
                return Err(OpenError::Newer {
                    path: dir.to_owned(),
                    version: meta.version,
                });
            }
            if (meta.generation, meta.partitions) == (options.generation, options.partitions) {
                if meta.version == FIRST_META_VERSION {
                    save_meta(&path, options)?;
                }
                return Ok(());
            }
            if has_the_folders(dir, options).map_err(io)? {
                tracing::warn!(
                    path = %path.display(), generation = meta.generation, partitions = meta.partitions,
                    "disagrees with the folders of the partitions and with the configuration; it is made anew"
                );
                return save_meta(&path, options);
            }
            Err(OpenError::Mismatch {
                path: dir.to_owned(),
                found_partitions: meta.partitions,
                found_generation: meta.generation,
                partitions: options.partitions,
                generation: options.generation,
            })
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            std::fs::create_dir_all(dir).map_err(io)?;
            save_meta(&path, options)
        }
        Err(e) => Err(io(e)),
    }
}

/// Whether the partitions on disk are exactly those of the configuration: then no damage to `meta.json` is a reason to refuse them.
fn has_the_folders(dir: &Path, options: &EmbeddedOptions) -> std::io::Result<bool> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.insert(entry.file_name().to_string_lossy().into_owned());
        }
    }
    let wanted: BTreeSet<String> = (0..options.partitions)
        .map(|index| format!("g{}-p{index}", options.generation))
        .collect();
    Ok(found == wanted)
}

fn save_meta(path: &Path, options: &EmbeddedOptions) -> Result<(), OpenError> {
    let meta = Meta {
        version: META_VERSION,
        generation: options.generation,
        partitions: options.partitions,
    };
    let path = path.to_owned();
    match serde_json::to_vec(&meta) {
        Ok(bytes) => cursor::replace(&path, &bytes).map_err(|source| OpenError::Meta { path, source }),
        Err(source) => Err(OpenError::MetaContent { path, source }),
    }
}

impl PartitionLog {
    fn open(dir: &Path, id: Partition, options: &EmbeddedOptions) -> Result<Self, OpenError> {
        let path = dir.join(format!("g{}-p{}", id.generation, id.index));
        let wal_options = Options {
            segment_bytes: options.segment_bytes,
            max_record_bytes: options.max_envelope_bytes.saturating_add(MAX_HEAD_BYTES as u32),
            ballast_bytes: options.ballast_bytes,
        };
        let (wal, recovery) = Wal::open(&path, wal_options).map_err(|source| OpenError::Partition {
            path: path.clone(),
            source,
        })?;
        Ok(Self::start(id, path, wal, recovery))
    }

    fn start(id: Partition, path: PathBuf, wal: Wal, recovery: Recovery) -> Self {
        if recovery.torn_bytes > 0 || !recovery.damaged.is_empty() || !recovery.gaps.is_empty() {
            tracing::warn!(
                partition = %id, torn_bytes = recovery.torn_bytes, damaged = recovery.damaged.len(), gaps = recovery.gaps.len(),
                "log was not closed cleanly or is damaged"
            );
        }
        let reader = wal.reader();
        let committer = Committer::start(wal, CommitterOptions::default());
        Self {
            id,
            dir: path,
            committer,
            reader,
            readers: Arc::default(),
            recovery,
        }
    }

    fn records(
        &self,
        from: u64,
        max_bytes: usize,
    ) -> impl FnOnce() -> Result<Vec<LogRecord>, LogError> + Send + 'static {
        let (id, spare, readers) = (self.id, self.reader.clone(), self.readers.clone());
        let dir = self.dir.clone();
        move || {
            let lock = || readers.lock().unwrap_or_else(PoisonError::into_inner);
            let kept = {
                let mut kept = lock();
                kept.iter()
                    .position(|(next, _)| *next == from)
                    .map(|at| kept.remove(at).1)
            };
            let reader = kept.unwrap_or(spare);
            let entries = entries(&reader, &dir, from, max_bytes).map_err(|e| match e {
                WalError::Trimmed { first } => LogError::Trimmed {
                    partition: id,
                    wanted: from,
                    first,
                },
                other => log_error(other),
            })?;
            let mut kept = lock();
            if kept.len() == KEPT_READERS {
                kept.remove(0);
            }
            kept.push((from + entries.len() as u64, reader));
            drop(kept);
            let is_damaged = |entry: &Entry| matches!(entry, Entry::Damaged { .. });
            let damaged: BTreeSet<u64> = entries
                .iter()
                .filter(|(_, e)| is_damaged(e))
                .map(|(offset, _)| *offset)
                .collect();
            let mut heads = match damaged.is_empty() {
                true => BTreeMap::new(),
                false => salvage::heads(&dir, &damaged),
            };
            Ok(entries
                .into_iter()
                .map(|(offset, entry)| record(id, offset, entry, heads.remove(&offset)))
                .collect())
        }
    }
}

/// All records of one partition of a log, without touching it: whoever has it open goes on.
pub(crate) fn look_into(dir: &Path, id: Partition, mut each: impl FnMut(&LogRecord)) -> Result<(), WalError> {
    let path = dir.join(format!("g{}-p{}", id.generation, id.index));
    let reader = sluice_wal::look(&path)?.reader;
    let mut next = reader.first();
    while next < reader.synced() {
        let entries = reader.read_range(next, MAX_READ_RECORDS, LOOK_BYTES)?;
        if entries.is_empty() {
            break;
        }
        next += entries.len() as u64;
        for (offset, entry) in entries {
            each(&record(id, offset, entry, None));
        }
    }
    Ok(())
}

/// A sector that stays unreadable is damage of the records in it; at first it may be a mood of the disk. A disk that takes
/// nothing either is away as a whole and may come back with everything on it: then the error stays one.
fn entries(reader: &Reader, dir: &Path, from: u64, max_bytes: usize) -> Result<Vec<(u64, Entry)>, WalError> {
    let mut attempt = 1;
    let error = loop {
        match reader.read_range(from, MAX_READ_RECORDS, max_bytes) {
            Err(error) if error.is_unreadable() && attempt < READ_ATTEMPTS => {
                tracing::warn!(from, %error, "log cannot be read, trying again");
                std::thread::sleep(READ_PAUSE);
                attempt += 1;
            }
            Err(error) if error.is_unreadable() => break error,
            other => return other,
        }
    };
    if let Err(away) = probe(&dir.join(PROBE)) {
        tracing::error!(error = %away, "the disk of the log takes nothing either");
        return Err(error);
    }
    reader.salvage_range(from, MAX_READ_RECORDS, max_bytes)
}

fn probe(path: &Path) -> std::io::Result<()> {
    let result = std::fs::File::create(path).and_then(|file| file.sync_all());
    // It may not be there.
    drop(std::fs::remove_file(path));
    result
}

/// `opening`: what is left of a damaged record.
fn record(partition: Partition, offset: u64, entry: Entry, opening: Option<Opening>) -> LogRecord {
    let damaged = |what: String, opening: Option<Opening>| LogRecord {
        partition,
        offset,
        ingested_at_us: opening.as_ref().map_or(0, |opening| opening.ingested_at_us),
        envelope: Bytes::new(),
        head: opening.map(|opening| opening.head),
        damaged: Some(what),
    };
    match entry {
        Entry::Record(bytes) => match open_record(&bytes) {
            Some((ingested_at_us, head, length)) => LogRecord {
                partition,
                offset,
                ingested_at_us,
                envelope: bytes.slice(length..),
                head,
                damaged: None,
            },
            None => damaged("record has no readable head".to_owned(), None),
        },
        Entry::Damaged { what, .. } => damaged(what, opening),
    }
}

/// When a record was taken in, its head, and where its envelope begins.
fn open_record(bytes: &[u8]) -> Option<(i64, Option<Head>, usize)> {
    if head::has_head(bytes) {
        let opening = head::take(bytes)?;
        return Some((opening.ingested_at_us, Some(opening.head), opening.length));
    }
    let stamp = bytes.first_chunk::<STAMP_BYTES>()?;
    Some((i64::from_le_bytes(*stamp), None, STAMP_BYTES))
}

fn log_error(error: WalError) -> LogError {
    match error {
        WalError::Full => LogError::Retry {
            reason: error.to_string(),
        },
        WalError::TooLarge { bytes, max } => LogError::TooLarge {
            bytes,
            max: max.saturating_sub(MAX_HEAD_BYTES as u64),
        },
        other => LogError::Failed {
            reason: other.to_string(),
        },
    }
}

#[async_trait]
impl Log for EmbeddedLog {
    fn partitions(&self) -> Vec<Partition> {
        self.partitions.iter().map(|p| p.id).collect()
    }

    async fn append(
        &self,
        partition: Partition,
        head: &Head,
        envelope: Bytes,
        ingested_at_us: i64,
    ) -> Result<u64, LogError> {
        let found = self.find(partition)?;
        if envelope.len() as u64 > u64::from(self.max_envelope_bytes) {
            return Err(LogError::TooLarge {
                bytes: envelope.len() as u64,
                max: u64::from(self.max_envelope_bytes),
            });
        }
        // Most heads are shorter than this.
        let mut record = Vec::with_capacity(512 + envelope.len());
        head::put(&mut record, head, ingested_at_us);
        record.extend_from_slice(&envelope);
        found.committer.append(Bytes::from(record)).await.map_err(log_error)
    }

    async fn read(&self, partition: Partition, from: u64, max_bytes: usize) -> Result<Vec<LogRecord>, LogError> {
        let found = self.find(partition)?;
        if from >= found.reader.synced() {
            return Ok(Vec::new());
        }
        let read = tokio::task::spawn_blocking(found.records(from, max_bytes)).await;
        read.map_err(|e| LogError::Failed { reason: e.to_string() })?
    }

    async fn wait_beyond(&self, partition: Partition, offset: u64) {
        if let Ok(found) = self.find(partition) {
            // An error means that the log is closed.
            let _ = found.committer.synced().wait_for(|synced| *synced > offset).await;
        }
    }

    fn end(&self, partition: Partition) -> u64 {
        self.find(partition).map_or(0, |p| p.reader.synced())
    }

    fn first(&self, partition: Partition) -> u64 {
        self.find(partition).map_or(0, |p| p.reader.first())
    }

    fn bytes(&self, partition: Partition) -> u64 {
        self.find(partition).map_or(0, |p| p.committer.bytes_on_disk())
    }

    fn taken_in_us(&self, partition: Partition, offset: u64) -> Option<i64> {
        match self.find(partition).ok()?.reader.read(offset) {
            Ok(Some(Entry::Record(bytes))) => open_record(&bytes).map(|(at, _, _)| at),
            _ => None,
        }
    }

    async fn cut(&self, partition: Partition) -> Result<u64, LogError> {
        self.find(partition)?.committer.roll().await.map_err(log_error)?;
        Ok(self.end(partition))
    }

    async fn trim(&self, partition: Partition, below: u64) -> Result<(), LogError> {
        self.find(partition)?
            .committer
            .trim_below(below)
            .await
            .map(drop)
            .map_err(log_error)
    }

    /// Also gives the directories free.
    async fn close(&self) {
        for partition in &self.partitions {
            partition.committer.clone().close().await;
        }
    }
}

#[cfg(test)]
mod tests;
