//! Watching the topic: whether it is what it must be, where its partitions begin and end, and whether the broker answers at all.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;

use super::client::{Voice, waiting};
use super::topic::{self, CALL, Found};
use super::{KafkaLog, now_us};

/// How often the broker is asked for the ends.
pub(super) const WATCH_EVERY: Duration = Duration::from_secs(1);
/// How often the settings of the topic are looked at again.
const VERIFY_EVERY: Duration = Duration::from_secs(60);
/// Pauses between attempts to reach the broker, from the first one on.
const PAUSES: [Duration; 4] = [
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
];
/// How often in a row a partition must end before it did, until that is believed: a new leader may need a moment.
const SHRUNK_LOOKS: u32 = 3;

/// How it stands with the topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
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
pub(super) enum LookError {
    Away(String),
    Refused(String),
}

impl From<KafkaError> for LookError {
    fn from(error: KafkaError) -> Self {
        LookError::Away(error.to_string())
    }
}

impl KafkaLog {
    /// Verifies the topic as soon as the broker answers, then watches it until told to stop.
    pub async fn run(&self, stop: CancellationToken) {
        tokio::select! { () = stop.cancelled() => {}, () = self.watch() => {} }
    }

    async fn watch(&self) {
        let mut attempt = 0;
        let mut next_verify = tokio::time::Instant::now();
        loop {
            self.shared.serve();
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
                    self.shared.voice.is_good();
                    self.become_good();
                    tokio::time::sleep(WATCH_EVERY).await;
                }
                Err(LookError::Away(reason)) => {
                    self.shared.serve();
                    self.is_away(match self.shared.voice.unwelcome() {
                        Some(why) => format!("{reason}: {why}"),
                        None => reason,
                    });
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
    pub(super) async fn look_at_ends(&self) -> Result<(), LookError> {
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
