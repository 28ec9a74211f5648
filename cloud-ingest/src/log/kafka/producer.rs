//! Appending: a record counts as stored when the broker says so, and only then.
//!
//! Whatever else happens - a time-out, a lost connection, an answer that nobody heard - the record is given back to whoever sent it.
//! If the broker has it all the same, it stands in the log twice, and its identity tells.

use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::client::{KafkaOptions, Voice};
use super::delivery::Delivery;
use crate::log::LogError;
use crate::log::head::MAX_HEAD_BYTES;

/// Records that wait in this process; bytes are what really bounds them.
const MAX_QUEUED_RECORDS: &str = "100000";
/// How long records are gathered for one request: an edge waits for the answer.
const LINGER_MS: &str = "2";

/// The one that appends. After an error that is fatal to the library's producer, the next record gets a new one.
pub(super) struct Producer {
    config: ClientConfig,
    topic: String,
    max_record_bytes: u32,
    voice: Voice,
    current: Mutex<Arc<Delivery>>,
}

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer")
            .field("topic", &self.topic)
            .finish_non_exhaustive()
    }
}

impl Producer {
    pub(super) fn open(options: &KafkaOptions, voice: Voice) -> Result<Self, KafkaError> {
        let mut config = options.client();
        config
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("linger.ms", LINGER_MS)
            // Batches are compressed already.
            .set("compression.codec", "none")
            .set("message.max.bytes", options.max_record_bytes.to_string())
            .set("message.timeout.ms", options.timeout.as_millis().to_string())
            .set("queue.buffering.max.messages", MAX_QUEUED_RECORDS)
            .set(
                "queue.buffering.max.kbytes",
                (options.queue_bytes / 1024).max(1).to_string(),
            );
        let current = Mutex::new(Arc::new(Delivery::start(&config, voice.clone())?));
        Ok(Self {
            config,
            topic: options.topic.clone(),
            max_record_bytes: options.max_record_bytes,
            voice,
            current,
        })
    }

    /// Returns the offset of a record that all in-sync replicas have.
    pub(super) async fn append(&self, index: u16, record: &[u8], ingested_at_us: i64) -> Result<u64, LogError> {
        let producer = Arc::clone(&self.lock());
        let outcome = match producer.send(&self.topic, index, ingested_at_us / 1000, record) {
            Ok(outcome) => outcome,
            Err(error) => return Err(self.failed(&producer, &error, record.len())),
        };
        match outcome.await {
            // The broker knew the record already and did not say where it is: whoever sent it asks again.
            Ok(Ok(offset)) => u64::try_from(offset).map_err(|_| retry("the broker did not say where a record is")),
            Ok(Err(error)) => Err(self.failed(&producer, &error, record.len())),
            Err(_) => Err(retry("the producer was replaced")),
        }
    }

    /// Waits for what was handed over, up to its time-out.
    pub(super) async fn close(&self, patience: std::time::Duration) {
        let producer = Arc::clone(&self.lock());
        let flushed = super::client::waiting(move || producer.end(patience)).await;
        if let Ok(Err(error)) = flushed {
            tracing::warn!(%error, "records were still on their way to the broker; their edges send them again");
        }
    }

    fn failed(&self, used: &Arc<Delivery>, error: &KafkaError, bytes: usize) -> LogError {
        let code = error.rdkafka_error_code();
        if code == Some(RDKafkaErrorCode::MessageSizeTooLarge) {
            return LogError::TooLarge {
                bytes: bytes as u64,
                max: u64::from(self.max_record_bytes).saturating_sub(MAX_HEAD_BYTES as u64),
            };
        }
        if let Some((code, reason)) = used.fatal_error() {
            tracing::error!(%code, reason, "the producer cannot go on; the next record gets a new one");
            self.replace(used);
        }
        retry(error)
    }

    /// Once for each producer that failed, however many records were with it.
    fn replace(&self, failed: &Arc<Delivery>) {
        let mut current = self.lock();
        if !Arc::ptr_eq(&current, failed) {
            return;
        }
        match Delivery::start(&self.config, self.voice.clone()) {
            Ok(fresh) => {
                let old = std::mem::replace(&mut *current, Arc::new(fresh));
                // The last one to let go of it waits for what it has not yet given back.
                tokio::task::spawn_blocking(move || drop(old));
            }
            Err(error) => tracing::error!(%error, "a new producer cannot be made"),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Arc<Delivery>> {
        // A change is one assignment.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn retry(reason: impl std::fmt::Display) -> LogError {
    LogError::Retry {
        reason: reason.to_string(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use rdkafka::mocking::MockCluster;
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

    use super::*;

    fn options(brokers: String) -> KafkaOptions {
        KafkaOptions {
            brokers,
            topic: "events".to_owned(),
            generation: 0,
            partitions: 1,
            replication: 1,
            min_insync: 1,
            create: true,
            unsafe_settings: false,
            max_record_bytes: 1 << 20,
            queue_bytes: 1 << 20,
            timeout: Duration::from_secs(2),
            properties: std::collections::BTreeMap::new(),
        }
    }

    /// P4: what the broker may or may not have is not acknowledged, and the producer goes on after what is fatal to it.
    #[tokio::test]
    async fn p4_an_unknown_result_is_no_acknowledgement_and_a_fatal_error_ends_one_producer_only() {
        let broker = MockCluster::new(1).unwrap();
        broker.create_topic("events", 1, 1).unwrap();
        let producer = Producer::open(&options(broker.bootstrap_servers()), Voice::default()).unwrap();
        assert_eq!(producer.append(0, b"first", 0).await.unwrap(), 0);
        let before = Arc::clone(&producer.lock());

        // The broker is away until the record has run out of time.
        broker.broker_down(1).unwrap();
        let unknown = producer.append(0, b"second", 0).await;
        assert!(matches!(unknown, Err(LogError::Retry { .. })), "{unknown:?}");
        broker.broker_up(1).unwrap();
        assert!(Arc::ptr_eq(&before, &producer.lock()), "nothing fatal happened");
        let mut stored = producer.append(0, b"second", 0).await;
        if stored.is_err() {
            // The way back to the broker may take as long as a record has.
            stored = producer.append(0, b"second", 0).await;
        }
        assert!(stored.unwrap() >= 1);

        // Not a word of the broker that a producer with numbered records survives.
        let fatal = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH; 1];
        broker.request_errors(RDKafkaApiKey::Produce, &fatal);
        let lost = producer.append(0, b"third", 0).await;
        if lost.is_err() {
            assert!(matches!(lost, Err(LogError::Retry { .. })), "{lost:?}");
        }
        assert!(producer.append(0, b"third", 0).await.unwrap() >= 2);

        let large = producer.append(0, &vec![0; 2 << 20], 0).await;
        assert!(matches!(large, Err(LogError::TooLarge { .. })), "{large:?}");
    }
}
