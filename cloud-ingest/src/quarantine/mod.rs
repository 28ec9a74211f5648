//! Batches that are set aside: what the gateway refuses for good and what a writer cannot store, kept durably as it came, so that it
//! can be found and, with a program that understands it, put through the log again.
//!
//! It is a log of its own, embedded or in Kafka like the one that it belongs to, with one partition and a bounded number of batches. One
//! that is full makes edges keep what they have; no tenant may fill it alone (`usage`), and what is erased leaves it (`forget`).

mod forget;
mod record;
mod resubmit;
mod usage;

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use serde::Serialize;
use sluice_wal::WalError;
use sluice_wire::counts::Counts;
use sluice_wire::envelope::{Envelope, Kind};
use sluice_wire::ids::{BatchId, Partition};

use self::record::Note;
pub use self::resubmit::{Resubmitted, resubmit};
use self::usage::Usage;
use crate::log::{Head, Log, LogError, LogRecord, look_into};

/// Of what stands around a batch.
pub const NOTE_BYTES: u32 = record::MAX_NOTE_BYTES as u32 + 64;
/// Batches that this process kept lately: an edge that did not hear the answer sends the same again.
const REMEMBERED: usize = 1024;
const READ_BYTES: usize = 16 << 20;
/// The partition of its log.
const PARTITION: Partition = Partition {
    generation: 0,
    index: 0,
};

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub struct QuarantineLimits {
    pub max_batches: u64,
    /// Of an embedded one.
    pub max_bytes: u64,
}

/// The log of batches that are set aside. Clones share it.
#[derive(Clone)]
pub struct Quarantine {
    log: Arc<dyn Log>,
    limits: QuarantineLimits,
    lately: Arc<Mutex<Lately>>,
    /// As far as the log was read.
    usage: Arc<tokio::sync::Mutex<Usage>>,
}

#[derive(Default)]
struct Lately {
    known: HashSet<(BatchId, [u8; 32])>,
    order: VecDeque<(BatchId, [u8; 32])>,
}

/// Why a batch was not kept.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    #[error(
        "the quarantine holds {held} and takes at most {max}: resubmit or forget what is in it (`sluice quarantine list --batches FILE`), \
         or raise quarantine.{key}"
    )]
    Full { held: u64, max: u64, key: &'static str },
    #[error(
        "the quarantine holds {held} of tenant {tenant}, which may have at most {max} so that there is room for others: resubmit or forget what is \
         in it (`sluice quarantine list --batches FILE`), or raise quarantine.{key}"
    )]
    Share {
        tenant: String,
        held: u64,
        max: u64,
        key: &'static str,
    },
    #[error("the quarantine takes nothing")]
    Log(#[from] LogError),
    #[error("the note of a batch")]
    Note(#[from] serde_json::Error),
}

/// A batch that is set aside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// Of the record that holds it first.
    pub offset: u64,
    pub tenant: String,
    pub node: String,
    pub stream: String,
    pub epoch: String,
    pub seq: u64,
    /// BLAKE3 of its bytes.
    pub hash: String,
    pub bytes: u64,
    /// Events that it says it holds; `None`: that cannot be read.
    pub events: Option<u64>,
    pub reason: String,
    /// Microseconds since 1970.
    pub first_seen_us: i64,
    /// How often it came.
    pub times: u64,
    /// Where it stands in the log, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// The id under which it was put through the log again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resubmitted_as: Option<String>,
}

/// All that is set aside, and what of it could not be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    pub batches: Vec<Kept>,
    pub unreadable: Vec<String>,
}

impl std::fmt::Debug for Quarantine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Quarantine")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl Listing {
    /// What an embedded log holds, beside whoever has it open. Blocking.
    pub(crate) fn look(folder: &Path) -> Result<Listing, WalError> {
        let mut fold = Fold::default();
        look_into(folder, PARTITION, |record| fold.add(record))?;
        Ok(fold.finish())
    }
}

impl Quarantine {
    /// `log` has one partition of generation 0 and holds nothing else.
    pub fn new(log: Arc<dyn Log>, limits: QuarantineLimits) -> Self {
        Self {
            log,
            limits,
            lately: Arc::default(),
            usage: Arc::default(),
        }
    }

    /// Keeps a batch; durable when it returns. `place` is where it stands in the log, if it does.
    pub async fn keep(
        &self,
        id: &BatchId,
        reason: &str,
        batch: &Bytes,
        place: Option<(Partition, u64)>,
        now_us: i64,
    ) -> Result<(), KeepError> {
        let hash = *blake3::hash(batch).as_bytes();
        let key = (id.clone(), hash);
        if self.lock().known.contains(&key) {
            return Ok(());
        }
        self.check_room()?;
        self.check_share(id.stream.tenant.as_str(), batch.len() as u64).await?;
        // What can be had of it: the head alone may be whole.
        let header = Envelope::parse(batch.clone()).ok().map(|envelope| envelope.header);
        let head = Head {
            id: id.clone(),
            kind: Kind::Data,
            counts: header.map_or_else(Counts::default, |header| header.counts),
        };
        let place = place.map(|(partition, offset)| format!("{partition}@{offset}"));
        let note = Note::kept(reason, hex::encode(hash), place);
        let record = record::put(&note, batch)?;
        self.log.append(PARTITION, &head, record, now_us).await?;
        self.lock().remember(key);
        Ok(())
    }

    /// Everything that is set aside, the oldest first.
    pub async fn list(&self) -> Result<Listing, LogError> {
        let mut fold = Fold::default();
        let mut next = self.log.first(PARTITION);
        let end = self.log.fresh_end(PARTITION).await?;
        while next < end {
            let records = self.log.read(PARTITION, next, READ_BYTES).await?;
            if records.is_empty() {
                self.log.wait_beyond(PARTITION, next).await;
            }
            next += records.len() as u64;
            records.iter().for_each(|record| fold.add(record));
        }
        Ok(fold.finish())
    }

    /// Lets go of everything below an offset.
    pub async fn forget(&self, below: u64) -> Result<(), LogError> {
        self.log.trim(PARTITION, below).await
    }

    /// The bytes of a batch.
    async fn batch(&self, offset: u64) -> Result<Bytes, String> {
        let read = self.log.read(PARTITION, offset, 1).await;
        let records = read.map_err(|error| error.to_string())?;
        let record = records.first().ok_or("it is out of reach")?;
        if let Some(what) = &record.damaged {
            return Err(what.clone());
        }
        Ok(record::take(&record.envelope)?.1)
    }

    /// Notes that a batch was put through the log again.
    async fn mark(&self, kept: &Kept, id: &BatchId, new_id: &str, now_us: i64) -> Result<(), KeepError> {
        let note = Note::Mark {
            resubmitted: kept.offset,
            new_id: new_id.to_owned(),
        };
        let head = Head {
            id: id.clone(),
            kind: Kind::Report,
            counts: Counts::default(),
        };
        self.log
            .append(PARTITION, &head, record::put(&note, b"")?, now_us)
            .await?;
        Ok(())
    }

    fn check_room(&self) -> Result<(), KeepError> {
        let held = self.log.end(PARTITION) - self.log.first(PARTITION).min(self.log.end(PARTITION));
        let (bytes, limits) = (self.log.bytes(PARTITION), self.limits);
        if held >= limits.max_batches {
            return Err(KeepError::Full {
                held,
                max: limits.max_batches,
                key: "max_batches",
            });
        }
        if bytes >= limits.max_bytes {
            return Err(KeepError::Full {
                held: bytes,
                max: limits.max_bytes,
                key: "max_size",
            });
        }
        Ok(())
    }

    /// Whatever one tenant sends, there is room for the next one's.
    async fn check_share(&self, tenant: &str, more: u64) -> Result<(), KeepError> {
        let mut usage = self.usage.lock().await;
        usage.catch_up(self.log.as_ref()).await?;
        let bytes = self.log.bytes(PARTITION) > 0;
        usage.check(tenant, more, &self.limits, bytes)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Lately> {
        // Each change is complete before anything can fail.
        self.lately.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lately {
    fn remember(&mut self, key: (BatchId, [u8; 32])) {
        if self.order.len() == REMEMBERED
            && let Some(old) = self.order.pop_front()
        {
            self.known.remove(&old);
        }
        if self.known.insert(key.clone()) {
            self.order.push_back(key);
        }
    }
}

/// Records as entries: what was kept twice is one, and marks belong to what they are about.
#[derive(Default)]
struct Fold {
    /// By id and hash, the place in `entries`.
    known: BTreeMap<(String, String), u64>,
    entries: BTreeMap<u64, Kept>,
    /// When each of them came: one that came at the same time is a copy of `forget`'s.
    came: HashSet<(u64, i64)>,
    unreadable: Vec<String>,
}

impl Fold {
    fn add(&mut self, record: &LogRecord) {
        let offset = record.offset;
        let taken = match (&record.damaged, &record.head) {
            (Some(what), _) => Err(what.clone()),
            (None, None) => Err("it has no head".to_owned()),
            (None, Some(head)) => record::take(&record.envelope).map(|(note, batch)| (head, note, batch)),
        };
        let (head, note, batch) = match taken {
            Ok(taken) => taken,
            Err(what) => return self.unreadable.push(format!("record {offset}: {what}")),
        };
        match note {
            Note::Mark { resubmitted, new_id } => {
                if let Some(entry) = self.entries.get_mut(&resubmitted) {
                    entry.resubmitted_as = Some(new_id);
                }
            }
            Note::Kept { reason, hash, place } => {
                let id = &head.id;
                let key = (text_of(id), hash.clone());
                let at = record.ingested_at_us;
                if let Some((first, entry)) = self
                    .known
                    .get(&key)
                    .and_then(|first| Some((*first, self.entries.get_mut(first)?)))
                {
                    entry.times += u64::from(self.came.insert((first, at)));
                    return;
                }
                self.came.insert((offset, at));
                self.known.insert(key, offset);
                let entry = Kept {
                    offset,
                    tenant: id.stream.tenant.to_string(),
                    node: id.stream.node.to_string(),
                    stream: id.stream.to_string(),
                    epoch: id.epoch.to_string(),
                    seq: id.seq,
                    hash,
                    bytes: batch.len() as u64,
                    events: Some(head.counts.accepted).filter(|_| head.counts != Counts::default()),
                    reason,
                    first_seen_us: at,
                    times: 1,
                    place,
                    resubmitted_as: None,
                };
                self.entries.insert(offset, entry);
            }
        }
    }

    fn finish(self) -> Listing {
        Listing {
            batches: self.entries.into_values().collect(),
            unreadable: self.unreadable,
        }
    }
}

fn text_of(id: &BatchId) -> String {
    format!("{}/{}/{}", id.stream, id.epoch, id.seq)
}
