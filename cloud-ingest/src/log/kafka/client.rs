//! How clients of the broker are made: what is set for every one of them, what people may add, and where their words go.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;

/// Properties that the promises rest on, or that other settings say: nobody else may set them.
pub const RESERVED: [&str; 20] = [
    "acks",
    "allow.auto.create.topics",
    "auto.offset.reset",
    "bootstrap.servers",
    "check.crcs",
    "compression.codec",
    "compression.type",
    "delivery.timeout.ms",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "group.id",
    "isolation.level",
    "max.in.flight.requests.per.connection",
    "message.max.bytes",
    "message.timeout.ms",
    "queue.buffering.max.kbytes",
    "request.required.acks",
    "retries",
    "transactional.id",
];

/// Where the log is, and what it must be like.
#[derive(Clone, Debug)]
pub struct KafkaOptions {
    /// `host:port` of some brokers, with commas between.
    pub brokers: String,
    pub topic: String,
    pub generation: u32,
    pub partitions: u16,
    pub replication: u16,
    pub min_insync: u16,
    /// Makes the topic when there is none.
    pub create: bool,
    /// Uses a topic that may lose what it acknowledged.
    pub unsafe_settings: bool,
    /// The largest record of the topic.
    pub max_record_bytes: u32,
    /// Records that wait for the broker in this process.
    pub queue_bytes: u64,
    /// A record that is not stored after so long is given back.
    pub timeout: Duration,
    /// Anything else that librdkafka understands.
    pub properties: BTreeMap<String, String>,
}

impl KafkaOptions {
    /// What all clients share. Without a broker they are made all the same.
    pub(super) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("client.id", "sluice")
            // After an outage the broker is found again within seconds.
            .set("reconnect.backoff.ms", "100")
            .set("reconnect.backoff.max.ms", "2000");
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        config
            .set("bootstrap.servers", &self.brokers)
            // A topic that is gone must not come back empty, with the broker's own settings.
            .set("allow.auto.create.topics", "false");
        config
    }
}

/// What the library says of itself goes where everything else is said; what matters of it is told by the answers to our calls.
#[derive(Clone, Debug, Default)]
pub(super) struct Voice;

impl ClientContext for Voice {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(facility, message, "kafka client");
            }
            _ => tracing::debug!(facility, message, "kafka client"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka client");
    }
}

impl ConsumerContext for Voice {}

/// Runs a call that waits for the broker.
pub(super) async fn waiting<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(call)
        .await
        .map_err(|error| error.to_string())
}
