//! The log on the local disk: one directory per partition, records grouped into one sync by the committer.
//!
//! `meta.json` names generation and number of partitions; a mismatch is refused, because the partition of a stream depends on
//! both. A record is 8 bytes of `ingested_at` (microseconds, little endian) and the envelope.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use sluice_wal::{Committer, CommitterOptions, Entry, Options, Reader, Recovery, Wal, WalError, cursor};
use sluice_wire::ids::Partition;

use super::{Log, LogError, LogRecord};

const STAMP_BYTES: usize = 8;
const META_VERSION: u32 = 1;
/// Readers kept per partition, so that each of the writers goes on where it was.
const KEPT_READERS: usize = 4;
/// Records in one answer.
const MAX_READ_RECORDS: usize = 4096;

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

    /// When a record was taken in, in microseconds since 1970. Blocking.
    pub fn ingested_at_us(&self, partition: Partition, offset: u64) -> Option<i64> {
        match self.find(partition).ok()?.reader.read(offset) {
            Ok(Some(Entry::Record(bytes))) => stamp(&bytes),
            _ => None,
        }
    }

    /// Finishes what waits and gives the directories free.
    pub async fn close(&self) {
        for partition in &self.partitions {
            partition.committer.clone().close().await;
        }
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
            let meta: Meta = serde_json::from_slice(&bytes).map_err(|source| OpenError::MetaContent {
                path: path.clone(),
                source,
            })?;
            if (meta.version, meta.generation, meta.partitions)
                == (META_VERSION, options.generation, options.partitions)
            {
                return Ok(());
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
            let meta = Meta {
                version: META_VERSION,
                generation: options.generation,
                partitions: options.partitions,
            };
            let bytes = serde_json::to_vec(&meta).map_err(|source| OpenError::MetaContent {
                path: path.clone(),
                source,
            })?;
            cursor::replace(&path, &bytes).map_err(io)
        }
        Err(e) => Err(io(e)),
    }
}

impl PartitionLog {
    fn open(dir: &Path, id: Partition, options: &EmbeddedOptions) -> Result<Self, OpenError> {
        let path = dir.join(format!("g{}-p{}", id.generation, id.index));
        let wal_options = Options {
            segment_bytes: options.segment_bytes,
            max_record_bytes: options.max_envelope_bytes.saturating_add(STAMP_BYTES as u32),
            ballast_bytes: options.ballast_bytes,
        };
        let (wal, recovery) = Wal::open(&path, wal_options).map_err(|source| OpenError::Partition {
            path: path.clone(),
            source,
        })?;
        if recovery.torn_bytes > 0 || !recovery.damaged.is_empty() || !recovery.gaps.is_empty() {
            tracing::warn!(
                partition = %id, torn_bytes = recovery.torn_bytes, damaged = recovery.damaged.len(), gaps = recovery.gaps.len(),
                "log was not closed cleanly or is damaged"
            );
        }
        let reader = wal.reader();
        let committer = Committer::start(wal, CommitterOptions::default());
        Ok(Self {
            id,
            committer,
            reader,
            readers: Arc::default(),
            recovery,
        })
    }

    fn records(
        &self,
        from: u64,
        max_bytes: usize,
    ) -> impl FnOnce() -> Result<Vec<LogRecord>, LogError> + Send + 'static {
        let (id, spare, readers) = (self.id, self.reader.clone(), self.readers.clone());
        move || {
            let lock = || readers.lock().unwrap_or_else(PoisonError::into_inner);
            let kept = {
                let mut kept = lock();
                kept.iter()
                    .position(|(next, _)| *next == from)
                    .map(|at| kept.remove(at).1)
            };
            let reader = kept.unwrap_or(spare);
            let entries = reader
                .read_range(from, MAX_READ_RECORDS, max_bytes)
                .map_err(|e| match e {
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
            Ok(entries
                .into_iter()
                .map(|(offset, entry)| record(id, offset, entry))
                .collect())
        }
    }
}

fn record(partition: Partition, offset: u64, entry: Entry) -> LogRecord {
    let damaged = |what: String| LogRecord {
        partition,
        offset,
        ingested_at_us: 0,
        envelope: Bytes::new(),
        damaged: Some(what),
    };
    match entry {
        Entry::Record(bytes) => match stamp(&bytes) {
            Some(ingested_at_us) => {
                let envelope = bytes.slice(STAMP_BYTES..);
                LogRecord {
                    partition,
                    offset,
                    ingested_at_us,
                    envelope,
                    damaged: None,
                }
            }
            None => damaged("record is shorter than its time stamp".to_owned()),
        },
        Entry::Damaged { what, .. } => damaged(what),
    }
}

fn stamp(bytes: &[u8]) -> Option<i64> {
    bytes
        .first_chunk::<STAMP_BYTES>()
        .map(|stamp| i64::from_le_bytes(*stamp))
}

fn log_error(error: WalError) -> LogError {
    match error {
        WalError::Full => LogError::Retry {
            reason: error.to_string(),
        },
        WalError::TooLarge { bytes, max } => LogError::TooLarge {
            bytes: bytes.saturating_sub(STAMP_BYTES as u64),
            max: max.saturating_sub(STAMP_BYTES as u64),
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

    async fn append(&self, partition: Partition, envelope: Bytes, ingested_at_us: i64) -> Result<u64, LogError> {
        let found = self.find(partition)?;
        if envelope.len() as u64 > u64::from(self.max_envelope_bytes) {
            return Err(LogError::TooLarge {
                bytes: envelope.len() as u64,
                max: u64::from(self.max_envelope_bytes),
            });
        }
        let mut record = BytesMut::with_capacity(STAMP_BYTES + envelope.len());
        record.put_i64_le(ingested_at_us);
        record.put_slice(&envelope);
        found.committer.append(record.freeze()).await.map_err(log_error)
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

    async fn trim(&self, partition: Partition, below: u64) -> Result<(), LogError> {
        self.find(partition)?
            .committer
            .trim_below(below)
            .await
            .map(drop)
            .map_err(log_error)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn options(partitions: u16) -> EmbeddedOptions {
        EmbeddedOptions {
            generation: 1,
            partitions,
            segment_bytes: 500,
            max_envelope_bytes: 1000,
            ballast_bytes: 0,
        }
    }

    #[tokio::test]
    async fn p4_what_append_returned_for_is_there_after_reopening_with_its_offset_and_time() {
        let dir = tempfile::tempdir().unwrap();
        let log = EmbeddedLog::open(dir.path(), &options(2)).unwrap();
        let [a, b] = log.partitions()[..] else {
            panic!("two partitions")
        };
        for n in 0..30u8 {
            let partition = if n % 3 == 0 { a } else { b };
            log.append(partition, Bytes::from(vec![n; 40]), i64::from(n))
                .await
                .unwrap();
        }
        let too_large = log.append(a, Bytes::from(vec![0; 1001]), 0).await;
        assert!(matches!(too_large, Err(LogError::TooLarge { bytes: 1001, max: 1000 })));
        log.close().await;
        drop(log);
        let log = EmbeddedLog::open(dir.path(), &options(2)).unwrap();
        assert_eq!((log.end(a), log.end(b)), (10, 20));
        log.wait_beyond(b, 19).await;
        let mut offsets = Vec::new();
        while (offsets.len() as u64) < log.end(a) {
            for record in log.read(a, offsets.len() as u64, 100).await.unwrap() {
                assert_eq!(record.ingested_at_us, 3 * record.offset as i64);
                assert_eq!(record.envelope, vec![3 * record.offset as u8; 40]);
                offsets.push(record.offset);
            }
        }
        assert_eq!(offsets, (0..10).collect::<Vec<_>>());
        log.trim(a, 10).await.unwrap();
        assert!(matches!(
            log.read(a, 0, 100).await,
            Err(LogError::Trimmed { wanted: 0, .. })
        ));
    }

    #[tokio::test]
    async fn another_number_of_partitions_or_generation_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        EmbeddedLog::open(dir.path(), &options(2)).unwrap().close().await;
        let refused = EmbeddedLog::open(dir.path(), &options(3)).unwrap_err();
        assert!(
            matches!(
                refused,
                OpenError::Mismatch {
                    found_partitions: 2,
                    partitions: 3,
                    ..
                }
            ),
            "{refused}"
        );
        let other = EmbeddedOptions {
            generation: 2,
            ..options(2)
        };
        assert!(matches!(
            EmbeddedLog::open(dir.path(), &other),
            Err(OpenError::Mismatch { .. })
        ));
    }
}
