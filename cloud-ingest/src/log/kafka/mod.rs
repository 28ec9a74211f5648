//! The log in Kafka: one topic, a record of it is byte for byte a record of the embedded log.
//!
//! Only this folder knows Kafka. `client` is what all clients share, `topic` what the topic must be like, `watch` looks whether it is and
//! whether the broker answers, `ends` is what is known of the partitions, `producer` appends, `delivery` hears what became of it, `reader` reads, `group` shares the
//! partitions between processes. Here they become a [`Log`].

mod client;
mod delivery;
mod ends;
mod group;
mod producer;
mod reader;
mod topic;
mod watch;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};
use sluice_wire::ids::Partition;
use tokio::sync::watch::Sender;

pub use self::client::{KafkaOptions, RESERVED};
use self::client::{Voice, waiting};
use self::ends::Ends;
pub use self::group::Member;
use self::producer::Producer;
use self::reader::{ReadError, Readers};
use self::topic::CALL;
use self::watch::{LookError, State, WATCH_EVERY};
use super::head::{self, Head, MAX_HEAD_BYTES};
use super::{Log, LogError, LogRecord};

/// The largest record that a topic is made for, if no setting asks for more.
const RECORD_BYTES: u32 = 8 << 20;
/// What Kafka puts around a record: the header of a batch, lengths, time and offset. It is less than 100 bytes.
const FRAMING_BYTES: u32 = 1 << 10;
/// How long a read waits for records that are known to be there.
const READ_PATIENCE: Duration = Duration::from_secs(2);
/// Pause after a client failed by itself.
const AFTER_FAILURE: Duration = Duration::from_millis(250);
/// How long the last records may take when the log is closed.
const CLOSING: Duration = Duration::from_secs(5);

/// The log in a topic of Kafka. Clones share the clients.
#[derive(Clone, Debug)]
pub struct KafkaLog {
    shared: Arc<Shared>,
}

struct Shared {
    options: KafkaOptions,
    partitions: Vec<Partition>,
    producer: Producer,
    readers: Readers,
    /// Asks, and never reads.
    probe: Arc<BaseConsumer<Voice>>,
    admin: AdminClient<Voice>,
    ends: Ends,
    state: Sender<State>,
    /// Partitions that ended before they did, and how often in a row.
    shrunk: Mutex<u32>,
    /// Of the brokers, as they call themselves.
    cluster: Mutex<Option<String>>,
    voice: Voice,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// The largest record of a topic for batches of so many bytes.
pub fn record_bytes(max_batch_bytes: u32) -> u32 {
    if max_batch_bytes <= RECORD_BYTES {
        // Edges are told that their batches have to leave room for the head.
        return RECORD_BYTES;
    }
    max_batch_bytes.saturating_add(MAX_HEAD_BYTES as u32 + FRAMING_BYTES)
}

impl Shared {
    /// Lets the clients say what they have to say; to be called every second or so.
    fn serve(&self) {
        self.readers.serve();
        while self.probe.poll(Duration::ZERO).is_some() {}
    }
}

impl KafkaLog {
    /// Makes the clients; the broker may be away. Nothing is asked before [`KafkaLog::run`].
    pub fn open(options: KafkaOptions) -> Result<KafkaLog, LogError> {
        let refused = |error: KafkaError| LogError::Refused {
            reason: format!("the client of Kafka cannot be made: {error}"),
        };
        let voice = Voice::default();
        let probe: BaseConsumer<Voice> = {
            let mut config = options.client();
            config.set("isolation.level", "read_uncommitted");
            config.create_with_context(voice.clone()).map_err(refused)?
        };
        let partition = |index| Partition {
            generation: options.generation,
            index,
        };
        let shared = Shared {
            partitions: (0..options.partitions).map(partition).collect(),
            producer: Producer::open(&options, voice.clone()).map_err(refused)?,
            readers: Readers::open(&options, &voice).map_err(refused)?,
            probe: Arc::new(probe),
            admin: options.client().create_with_context(voice.clone()).map_err(refused)?,
            ends: Ends::new(options.partitions),
            state: Sender::new(State::New("the broker was not asked yet".to_owned())),
            shrunk: Mutex::default(),
            cluster: Mutex::default(),
            voice,
            options,
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Joins a group of processes that share the partitions, once it is run.
    pub fn join(&self, group: &str) -> Result<Member, LogError> {
        Member::open(&self.shared.options, group).map_err(|error| LogError::Refused {
            reason: format!("a member of the group {group} cannot be made: {error}"),
        })
    }

    /// Says why nothing can be appended now.
    fn refuse_unless_good(&self) -> Result<(), LogError> {
        match &*self.shared.state.borrow() {
            State::Good => Ok(()),
            // Whoever sent the batch keeps it for as long, and our memory is for others.
            State::New(reason) | State::Away(reason) => Err(LogError::Retry { reason: reason.clone() }),
            State::Refused(reason) => Err(LogError::Refused { reason: reason.clone() }),
            State::Lost(reason) => Err(LogError::Failed { reason: reason.clone() }),
        }
    }

    fn index_of(&self, partition: Partition) -> Result<u16, LogError> {
        let shared = &self.shared;
        let found = shared.partitions.get(usize::from(partition.index));
        found
            .filter(|known| **known == partition)
            .map(|known| known.index)
            .ok_or(LogError::NoPartition(partition))
    }

    /// Tells a reader that stands where the broker has nothing why that is.
    async fn why_not(&self, partition: Partition, wanted: u64) -> LogError {
        if let Err(LookError::Away(reason) | LookError::Refused(reason)) = self.look_at_ends().await {
            return LogError::Retry { reason };
        }
        let (first, end) = (self.first(partition), self.end(partition));
        if wanted < first {
            return LogError::Trimmed {
                partition,
                wanted,
                first,
            };
        }
        LogError::NotThere {
            partition,
            wanted,
            what: format!("the topic {} ends at {end}", self.shared.options.topic),
        }
    }
}

#[async_trait]
impl Log for KafkaLog {
    fn partitions(&self) -> Vec<Partition> {
        self.shared.partitions.clone()
    }

    async fn opened(&self) -> Result<(), LogError> {
        let mut state = self.shared.state.subscribe();
        let decided = state.wait_for(|state| !matches!(state, State::New(_))).await;
        drop(decided);
        match self.refuse_unless_good() {
            // It was good, and is away again.
            Err(LogError::Retry { .. }) => Ok(()),
            decided => decided,
        }
    }

    async fn append(
        &self,
        partition: Partition,
        head: &Head,
        envelope: Bytes,
        ingested_at_us: i64,
    ) -> Result<u64, LogError> {
        let index = self.index_of(partition)?;
        self.refuse_unless_good()?;
        let max = self.max_envelope_bytes().map_or(u64::MAX, u64::from);
        if envelope.len() as u64 > max {
            return Err(LogError::TooLarge {
                bytes: envelope.len() as u64,
                max,
            });
        }
        // Most heads are shorter than this.
        let mut record = Vec::with_capacity(512 + envelope.len());
        head::put(&mut record, head, ingested_at_us);
        record.extend_from_slice(&envelope);
        let offset = self.shared.producer.append(index, &record, ingested_at_us).await?;
        self.shared.ends.reached(index, offset + 1, ingested_at_us);
        self.shared.ends.sized(index, 1, record.len() as u64);
        Ok(offset)
    }

    async fn read(&self, partition: Partition, from: u64, max_bytes: usize) -> Result<Vec<LogRecord>, LogError> {
        let index = self.index_of(partition)?;
        let shared = &self.shared;
        let is_there = from < shared.ends.end(index);
        let patience = if is_there { READ_PATIENCE } else { Duration::ZERO };
        match shared.readers.read(partition, from, max_bytes, patience).await {
            Ok(records) => {
                if let Some(last) = records.last() {
                    shared.ends.reached(index, last.offset + 1, now_us());
                    let bytes = records.iter().map(|record| record.envelope.len() as u64).sum();
                    shared.ends.sized(index, records.len() as u64, bytes);
                }
                Ok(records)
            }
            Err(ReadError::OutOfRange) => match self.why_not(partition, from).await {
                // The broker cannot be asked: it is not known yet that anything is missing.
                LogError::Retry { reason } => {
                    tracing::warn!(%partition, from, reason, "the log has nothing here and does not say why; asking again");
                    tokio::time::sleep(AFTER_FAILURE).await;
                    Ok(Vec::new())
                }
                error => Err(error),
            },
            Err(ReadError::Gap { found }) => Err(LogError::NotThere {
                partition,
                wanted: from,
                what: format!(
                    "the next one is {found}; somebody else writes into the topic {} or compacts it",
                    shared.options.topic
                ),
            }),
            Err(ReadError::Client(error)) => {
                tracing::warn!(%partition, from, error, "the log cannot be read, trying again");
                tokio::time::sleep(AFTER_FAILURE).await;
                Ok(Vec::new())
            }
        }
    }

    async fn wait_beyond(&self, partition: Partition, offset: u64) {
        let Ok(index) = self.index_of(partition) else {
            return;
        };
        let shared = &self.shared;
        let mut changes = shared.ends.changes();
        let Some(mut came) = shared.readers.came(index) else {
            return;
        };
        loop {
            changes.mark_unchanged();
            came.mark_unchanged();
            match shared.readers.has_news(index, offset) {
                Some(true) => return,
                // What this reader waits for comes to it; that it is in the log is not enough yet.
                Some(false) => tokio::select! {
                    _ = came.changed() => {}
                    _ = changes.changed() => {}
                    // The reader may have been sent elsewhere.
                    () = tokio::time::sleep(WATCH_EVERY) => {}
                },
                None if shared.ends.end(index) > offset => return,
                // Somebody may be reading where it stands.
                None => tokio::select! {
                    _ = came.changed() => {}
                    _ = changes.changed() => {}
                },
            }
        }
    }

    fn end(&self, partition: Partition) -> u64 {
        self.index_of(partition).map_or(0, |index| self.shared.ends.end(index))
    }

    async fn fresh_end(&self, partition: Partition) -> Result<u64, LogError> {
        let index = self.index_of(partition)?;
        self.refuse_unless_good()?;
        match self.look_at_ends().await {
            Ok(()) => Ok(self.shared.ends.end(index)),
            Err(LookError::Away(reason) | LookError::Refused(reason)) => Err(LogError::Retry { reason }),
        }
    }

    fn first(&self, partition: Partition) -> u64 {
        self.index_of(partition)
            .map_or(0, |index| self.shared.ends.first(index))
    }

    fn bytes(&self, partition: Partition) -> u64 {
        self.index_of(partition)
            .map_or(0, |index| self.shared.ends.bytes(index))
    }

    fn max_envelope_bytes(&self) -> Option<u32> {
        let room = MAX_HEAD_BYTES as u32 + FRAMING_BYTES;
        Some(self.shared.options.max_record_bytes.saturating_sub(room))
    }

    fn is_end_known(&self) -> bool {
        self.shared.ends.is_known()
    }

    fn fingerprint(&self) -> Option<String> {
        let cluster = self
            .shared
            .cluster
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let options = &self.shared.options;
        Some(format!(
            "{} partitions of topic {} in cluster {}",
            options.partitions,
            options.topic,
            cluster.unwrap_or_else(|| "without a name".to_owned())
        ))
    }

    fn trouble(&self) -> Option<String> {
        match &*self.shared.state.borrow() {
            State::Good => None,
            State::New(reason) | State::Away(reason) | State::Refused(reason) | State::Lost(reason) => {
                Some(reason.clone())
            }
        }
    }

    fn taken_in_us(&self, partition: Partition, offset: u64) -> Option<i64> {
        self.shared.ends.taken_in_us(self.index_of(partition).ok()?, offset)
    }

    async fn first_since(&self, partition: Partition, low: u64, high: u64, cutoff_us: i64) -> Result<u64, LogError> {
        let index = self.index_of(partition)?;
        let (probe, topic) = (Arc::clone(&self.shared.probe), self.shared.options.topic.clone());
        let asked = waiting(move || -> Result<Option<u64>, KafkaError> {
            let mut at = TopicPartitionList::new();
            at.add_partition_offset(&topic, i32::from(index), Offset::Offset((cutoff_us / 1000).max(0)))?;
            let found = probe.offsets_for_times(at, CALL)?;
            let first = found
                .elements()
                .first()
                .map(|element| element.error().map(|()| element.offset()));
            Ok(match first.transpose()? {
                Some(Offset::Offset(offset)) => u64::try_from(offset).ok(),
                // Every record is older.
                _ => None,
            })
        });
        let retry = |reason: String| LogError::Retry { reason };
        let found = asked.await.map_err(retry)?.map_err(|error| retry(error.to_string()))?;
        Ok(found.unwrap_or(high).clamp(low, high))
    }

    async fn trim(&self, partition: Partition, below: u64) -> Result<(), LogError> {
        let index = self.index_of(partition)?;
        let retry = |error: &dyn std::fmt::Display| LogError::Retry {
            reason: format!("records of {} were not deleted: {error}", self.shared.options.topic),
        };
        let delete = {
            let mut at = TopicPartitionList::new();
            let offset = Offset::Offset(i64::try_from(below).unwrap_or(i64::MAX));
            at.add_partition_offset(&self.shared.options.topic, i32::from(index), offset)
                .map_err(|error| retry(&error))?;
            let patience = AdminOptions::new()
                .request_timeout(Some(CALL))
                .operation_timeout(Some(CALL));
            self.shared.admin.delete_records(&at, &patience)
        };
        let deleted = delete.await.map_err(|error| retry(&error))?;
        for element in deleted.elements() {
            element.error().map_err(|error| retry(&error))?;
        }
        Ok(())
    }

    async fn close(&self) {
        self.shared.producer.close(CLOSING).await;
    }
}

fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
