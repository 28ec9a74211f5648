//! The log in Kafka: one topic, a record of it is byte for byte a record of the embedded log.
//!
//! Only this folder knows Kafka. `client` is what all clients share, `topic` what the topic must be like, `producer` appends, `reader`
//! reads, `ends` is what is known of the partitions, `group` shares them between processes. Here they become a [`Log`], and here is the task that watches the broker.

mod client;
mod ends;
mod group;
mod producer;
mod reader;
mod topic;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};
use sluice_wire::ids::Partition;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use self::client::{KafkaOptions, RESERVED};
use self::client::{Voice, waiting};
use self::ends::Ends;
pub use self::group::Member;
use self::producer::Producer;
use self::reader::{ReadError, Readers};
use self::topic::{CALL, Found};
use super::head::{self, Head, MAX_HEAD_BYTES};
use super::{Log, LogError, LogRecord};

/// The largest record that a topic is made for, if no setting asks for more.
const RECORD_BYTES: u32 = 8 << 20;
/// What Kafka puts around a record: the header of a batch, lengths, time and offset. It is less than 100 bytes.
const FRAMING_BYTES: u32 = 1 << 10;
/// How often the broker is asked for the ends.
const WATCH_EVERY: Duration = Duration::from_secs(1);
/// How often the settings of the topic are looked at again.
const VERIFY_EVERY: Duration = Duration::from_secs(60);
/// Pauses between attempts to reach the broker, from the first one on.
const PAUSES: [Duration; 4] = [
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
];
/// How long a read waits for records that are known to be there.
const READ_PATIENCE: Duration = Duration::from_secs(2);
/// Pause after a client failed by itself.
const AFTER_FAILURE: Duration = Duration::from_millis(250);
/// How often in a row a partition must end before it did, until that is believed: a new leader may need a moment.
const SHRUNK_LOOKS: u32 = 3;
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
    state: watch::Sender<State>,
    /// Partitions that ended before they did, and how often in a row.
    shrunk: Mutex<u32>,
    /// Of the brokers, as they call themselves.
    cluster: Mutex<Option<String>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// How it stands with the topic.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// Not verified since the start of this process; why.
    New(String),
    Good,
    /// Verified once, and out of reach now.
    Away(String),
    /// Never to be used as it is.
    Refused(String),
    /// It is not the log any more that it was.
    Lost(String),
}

/// Why a look at the topic gave nothing.
enum LookError {
    Away(String),
    Refused(String),
}

impl From<KafkaError> for LookError {
    fn from(error: KafkaError) -> Self {
        LookError::Away(error.to_string())
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

impl KafkaLog {
    /// Makes the clients; the broker may be away. Nothing is asked before [`KafkaLog::run`].
    pub fn open(options: KafkaOptions) -> Result<KafkaLog, LogError> {
        let refused = |error: KafkaError| LogError::Refused {
            reason: format!("the client of Kafka cannot be made: {error}"),
        };
        let probe: BaseConsumer<Voice> = {
            let mut config = options.client();
            config.set("isolation.level", "read_uncommitted");
            config.create_with_context(Voice).map_err(refused)?
        };
        let partition = |index| Partition {
            generation: options.generation,
            index,
        };
        let shared = Shared {
            partitions: (0..options.partitions).map(partition).collect(),
            producer: Producer::open(&options).map_err(refused)?,
            readers: Readers::open(&options).map_err(refused)?,
            probe: Arc::new(probe),
            admin: options.client().create_with_context(Voice).map_err(refused)?,
            ends: Ends::new(options.partitions),
            state: watch::Sender::new(State::New("the broker was not asked yet".to_owned())),
            shrunk: Mutex::default(),
            cluster: Mutex::default(),
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

    /// Verifies the topic as soon as the broker answers, then watches it until told to stop.
    pub async fn run(&self, stop: CancellationToken) {
        tokio::select! { () = stop.cancelled() => {}, () = self.watch() => {} }
    }

    async fn watch(&self) {
        let mut attempt = 0;
        let mut next_verify = tokio::time::Instant::now();
        loop {
            self.shared.readers.serve();
            let is_due = tokio::time::Instant::now() >= next_verify;
            let looked = match is_due {
                true => self.verify().await,
                false => Ok(()),
            };
            let looked = match looked {
                Ok(()) => self.look_at_ends().await,
                refused => refused,
            };
            match looked {
                Ok(()) => {
                    if is_due {
                        next_verify = tokio::time::Instant::now() + VERIFY_EVERY;
                    }
                    attempt = 0;
                    self.become_good();
                    tokio::time::sleep(WATCH_EVERY).await;
                }
                Err(LookError::Away(reason)) => {
                    self.is_away(reason);
                    tokio::time::sleep(PAUSES[attempt.min(PAUSES.len() - 1)]).await;
                    attempt += 1;
                }
                Err(LookError::Refused(reason)) => {
                    tracing::error!(topic = self.shared.options.topic, reason, "the topic cannot be the log");
                    let was_new = matches!(*self.shared.state.borrow(), State::New(_));
                    let state = if was_new {
                        State::Refused(reason)
                    } else {
                        State::Lost(reason)
                    };
                    self.shared.state.send_replace(state);
                    return;
                }
            }
        }
    }

    fn become_good(&self) {
        let shared = &self.shared;
        let changed = shared.state.send_if_modified(|state| {
            let changes = *state != State::Good;
            *state = State::Good;
            changes
        });
        if changed {
            tracing::info!(topic = shared.options.topic, "the log answers");
        }
    }

    fn is_away(&self, reason: String) {
        let shared = &self.shared;
        shared.state.send_if_modified(|state| {
            if matches!(state, State::Good) {
                tracing::warn!(topic = shared.options.topic, reason, "the log is out of reach");
            }
            let next = match state {
                State::New(_) => State::New(reason),
                _ => State::Away(reason),
            };
            let changes = *state != next;
            *state = next;
            changes
        });
    }

    /// Whether the topic is what it must be; makes it when it is not there.
    async fn verify(&self) -> Result<(), LookError> {
        let options = &self.shared.options;
        let mut found = self.find_topic().await?;
        let is_new = matches!(*self.shared.state.borrow(), State::New(_));
        if found.is_none() && is_new {
            if !options.create {
                return Err(LookError::Away(format!(
                    "there is no topic {}, and log.kafka.create is false",
                    options.topic
                )));
            }
            if let Err(error) = topic::create(&self.shared.admin, options).await {
                return Err(match error {
                    KafkaError::AdminOp(RDKafkaErrorCode::InvalidReplicationFactor) => LookError::Refused(format!(
                        "the topic {} cannot be made with {} copies: there are not as many brokers. log.kafka.replication asks for \
                         them; for one broker say replication = 1 and min_insync = 1, and know that its loss is the loss of the log",
                        options.topic, options.replication
                    )),
                    KafkaError::AdminOp(RDKafkaErrorCode::PolicyViolation) => LookError::Refused(format!(
                        "the broker's policy refuses the topic {}: {error}",
                        options.topic
                    )),
                    other => other.into(),
                });
            }
            found = self.find_topic().await?;
        }
        let Some((partitions, replication)) = found else {
            return Err(LookError::Away(format!("the broker knows no topic {}", options.topic)));
        };
        let settings = topic::described(&self.shared.admin, &options.topic).await?;
        let found = Found {
            partitions,
            replication,
            settings,
        };
        let (hard, soft): (Vec<_>, Vec<_>) = topic::objections(&found, options).into_iter().partition(|one| one.hard);
        let list = |all: &[topic::Objection]| all.iter().map(|one| one.what.clone()).collect::<Vec<_>>().join("; ");
        if !hard.is_empty() {
            return Err(LookError::Refused(format!("topic {}: {}", options.topic, list(&hard))));
        }
        if soft.is_empty() {
            return Ok(());
        }
        let text = format!("topic {} may lose what it acknowledged: {}", options.topic, list(&soft));
        if options.unsafe_settings {
            if is_new {
                tracing::warn!("{text}; used all the same, as log.kafka.unsafe_settings says");
            }
            return Ok(());
        }
        let hint = "change the topic, or say log.kafka.unsafe_settings = true";
        Err(LookError::Refused(format!("{text}; {hint}")))
    }

    /// Number of partitions and of copies of the one with the fewest; `None` when there is no such topic.
    async fn find_topic(&self) -> Result<Option<(usize, usize)>, LookError> {
        let (probe, name) = (Arc::clone(&self.shared.probe), self.shared.options.topic.clone());
        let asked = waiting(move || -> Result<_, KafkaError> {
            Ok((
                probe.fetch_metadata(Some(&name), CALL)?,
                probe.client().fetch_cluster_id(CALL),
            ))
        });
        let (metadata, cluster) = asked.await.map_err(LookError::Away)??;
        if cluster.is_some() {
            *self.shared.cluster.lock().unwrap_or_else(PoisonError::into_inner) = cluster;
        }
        let Some(topic) = metadata.topics().first() else {
            return Ok(None);
        };
        match topic.error() {
            None => {}
            Some(
                RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART
                | RDKafkaRespErr::RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC,
            ) => return Ok(None),
            Some(error) => return Err(LookError::Away(RDKafkaErrorCode::from(error).to_string())),
        }
        let copies = topic
            .partitions()
            .iter()
            .map(|partition| partition.replicas().len())
            .min();
        Ok(copies.map(|copies| (topic.partitions().len(), copies)))
    }

    /// Asks where all partitions begin and end.
    async fn look_at_ends(&self) -> Result<(), LookError> {
        let shared = &self.shared;
        let before: Vec<u64> = shared.partitions.iter().map(|p| shared.ends.end(p.index)).collect();
        let (probe, name, count) = (
            Arc::clone(&shared.probe),
            shared.options.topic.clone(),
            shared.options.partitions,
        );
        let asked = waiting(move || -> Result<Vec<(u64, u64)>, KafkaError> {
            let firsts = offsets(&probe, &name, count, Offset::Beginning)?;
            let ends = offsets(&probe, &name, count, Offset::End)?;
            Ok(firsts.into_iter().zip(ends).collect())
        });
        let found = asked.await.map_err(LookError::Away)??;
        let shrunk = found.iter().zip(&before).position(|((_, end), before)| end < before);
        let looks = {
            let mut looks = shared.shrunk.lock().unwrap_or_else(PoisonError::into_inner);
            *looks = shrunk.map_or(0, |_| *looks + 1);
            *looks
        };
        if let Some(index) = shrunk
            && looks >= SHRUNK_LOOKS
        {
            return Err(LookError::Refused(format!(
                "partition {index} of topic {} ends at {}, and it had {} records before: the topic lost records, or was made anew",
                shared.options.topic, found[index].1, before[index]
            )));
        }
        shared.ends.confirm(&found, now_us());
        Ok(())
    }

    /// Says why nothing can be appended now.
    fn refuse_unless_good(&self) -> Result<(), LogError> {
        match &*self.shared.state.borrow() {
            State::Good | State::Away(_) => Ok(()),
            State::New(reason) => Err(LogError::Retry { reason: reason.clone() }),
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
        self.refuse_unless_good()
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
        loop {
            changes.mark_unchanged();
            match shared.readers.news(index, offset) {
                // What this reader waits for comes to it; that it is in the log is not enough yet.
                Some(news) => tokio::select! {
                    () = news.notified() => return,
                    _ = changes.changed() => {}
                },
                None if shared.ends.end(index) > offset => return,
                None => drop(changes.changed().await),
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

/// One offset for each partition: where it begins, or where it ends.
fn offsets(probe: &BaseConsumer<Voice>, topic: &str, partitions: u16, which: Offset) -> Result<Vec<u64>, KafkaError> {
    let mut asked = TopicPartitionList::new();
    for index in 0..partitions {
        // Asked for by time, these two stand for the first and the next offset.
        asked.add_partition_offset(topic, i32::from(index), which)?;
    }
    let mut found = vec![0; usize::from(partitions)];
    for element in probe.offsets_for_times(asked, CALL)?.elements() {
        element.error()?;
        let place = usize::try_from(element.partition())
            .ok()
            .and_then(|index| found.get_mut(index));
        let offset = match element.offset() {
            Offset::Offset(offset) => u64::try_from(offset).ok(),
            _ => None,
        };
        match place.zip(offset) {
            Some((place, offset)) => *place = offset,
            None => return Err(KafkaError::OffsetFetch(RDKafkaErrorCode::OffsetNotAvailable)),
        }
    }
    Ok(found)
}

fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
