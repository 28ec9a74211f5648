//! How clients of the broker are made: what is set for every one of them, what people may add, and where their words go.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// How the library says that a connection was made and nobody was let in.
const NOT_LET_IN: [&str; 3] = [
    "SSL handshake failed",
    "SASL authentication error",
    "mechanism handshake failed",
];
/// Letters of what a broker says.
const MAX_REASON: usize = 400;

/// Properties that the promises rest on, or that other settings say: nobody else may set them.
pub const RESERVED: [&str; 24] = [
    "acks",
    "allow.auto.create.topics",
    "auto.offset.reset",
    "bootstrap.servers",
    "check.crcs",
    "compression.codec",
    "compression.type",
    "delivery.report.only.error",
    "delivery.timeout.ms",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "group.id",
    "isolation.level",
    "max.in.flight",
    "max.in.flight.requests.per.connection",
    "message.max.bytes",
    "message.send.max.retries",
    "message.timeout.ms",
    "metadata.broker.list",
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
            .set("reconnect.backoff.max.ms", "2000")
            // Whom the machine trusts; the library's own way to them is that of the machine it was built on.
            .set("ssl.ca.location", "probe");
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

/// What the library says of itself goes where everything else is said; what matters of it is told by the answers to our calls. Those do not
/// tell why a broker took no connection: that is kept here, for people.
#[derive(Clone, Debug, Default)]
pub(super) struct Voice {
    unwelcome: Arc<Mutex<Option<String>>>,
}

impl Voice {
    /// Why the broker lets nobody in, if it said so since it was good.
    pub(super) fn unwelcome(&self) -> Option<String> {
        self.lock().clone()
    }

    pub(super) fn is_good(&self) {
        self.lock().take();
    }

    fn not_let_in(&self, why: &str) {
        *self.lock() = Some(why.chars().take(MAX_REASON).collect());
    }

    fn lock(&self) -> MutexGuard<'_, Option<String>> {
        // A change is one assignment.
        self.unwelcome.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Voice {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(facility, message, "kafka client");
            }
            _ => tracing::debug!(facility, message, "kafka client"),
        }
        // Of its errors the library tells the first ones alone; of this it speaks again after a while.
        if facility == "FAIL" && NOT_LET_IN.iter().any(|words| message.contains(words)) {
            self.not_let_in(message);
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka client");
        if matches!(
            error.rdkafka_error_code(),
            Some(
                RDKafkaErrorCode::SSL
                    | RDKafkaErrorCode::Authentication
                    | RDKafkaErrorCode::SaslAuthenticationFailed
                    | RDKafkaErrorCode::UnsupportedSASLMechanism
            )
        ) {
            self.not_let_in(reason);
        }
    }
}

impl ConsumerContext for Voice {}

/// Runs a call that waits for the broker.
pub(super) async fn waiting<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(call)
        .await
        .map_err(|error| error.to_string())
}
