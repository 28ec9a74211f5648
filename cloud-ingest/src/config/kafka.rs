//! What an operator may set for a log in Kafka.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sluice_settings::units;

use super::reference::Reference;
use crate::log::kafka::RESERVED;

/// Names of topics that Kafka takes.
const MAX_TOPIC_BYTES: usize = 249;

/// The topic that is the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KafkaSettings {
    /// `host:port` of some brokers, with commas between.
    pub brokers: String,
    pub topic: String,
    /// Of batches that are set aside; empty: the name of the topic and `-quarantine`.
    pub quarantine_topic: String,
    /// Copies of each record, and how many of them must have it before it is acknowledged.
    pub replication: u16,
    pub min_insync: u16,
    /// Makes the topic when there is none.
    pub create: bool,
    /// Uses a topic that may lose what it acknowledged.
    pub unsafe_settings: bool,
    /// Groups in which processes share the partitions have this name and their role.
    pub group: String,
    /// Records that wait for the broker.
    #[serde(with = "units::size")]
    pub queue: u64,
    /// A batch that the broker did not take for so long is given back to its edge.
    #[serde(with = "units::duration")]
    pub timeout: Duration,
    /// Anything else that librdkafka understands.
    pub properties: BTreeMap<String, Property>,
}

/// The value of a property, or where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "a property is a text, { env = \"NAME\" } or { file = \"PATH\" }"
)]
pub enum Property {
    Text(String),
    Reference(Reference),
}

impl Default for KafkaSettings {
    fn default() -> Self {
        KafkaSettings {
            brokers: String::new(),
            topic: "sluice-events".to_owned(),
            quarantine_topic: String::new(),
            replication: 3,
            min_insync: 2,
            create: true,
            unsafe_settings: false,
            group: "sluice-writers".to_owned(),
            queue: 64 << 20,
            timeout: Duration::from_secs(20),
            properties: BTreeMap::new(),
        }
    }
}

impl KafkaSettings {
    /// The key that cannot be used, and why.
    pub(super) fn mistake(&self) -> Option<(String, String)> {
        let of = |key: &str, why: &str| Some((format!("log.kafka.{key}"), why.to_owned()));
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if self.brokers.trim().is_empty() {
            return of("brokers", "names no broker, such as \"kafka-1:9092,kafka-2:9092\"");
        }
        if self.topic.is_empty() || self.topic.len() > MAX_TOPIC_BYTES || !self.topic.chars().all(is_plain) {
            return of("topic", "is up to 249 letters, digits, dots, lines and underlines");
        }
        let quarantine = self.quarantine_topic();
        if quarantine == self.topic || quarantine.len() > MAX_TOPIC_BYTES || !quarantine.chars().all(is_plain) {
            return of(
                "quarantine_topic",
                "is another topic than log.kafka.topic, and has a name of the same kind",
            );
        }
        if self.group.is_empty() {
            return of("group", "must have a name");
        }
        if self.replication == 0 || self.min_insync == 0 || self.min_insync > self.replication {
            return of("min_insync", "is at least 1 and at most log.kafka.replication");
        }
        if self.queue < (8 << 20) {
            return of("queue", "is at least 8 MiB: the largest batch must fit");
        }
        if self.timeout < Duration::from_secs(1) {
            return of("timeout", "is at least 1 s");
        }
        let (name, why) = self.properties.iter().find_map(|(name, property)| {
            let why = match RESERVED.contains(&name.as_str()) {
                true => Some("cannot be set here: the promises rest on it, or another key says it"),
                false => not_built(name, property),
            };
            why.map(|why| (name, why))
        })?;
        Some((format!("log.kafka.properties.{name}"), why.to_owned()))
    }

    /// The topic of batches that are set aside.
    pub(crate) fn quarantine_topic(&self) -> String {
        match self.quarantine_topic.as_str() {
            "" => format!("{}-quarantine", self.topic),
            topic => topic.to_owned(),
        }
    }

    /// Every property with its value; the key of one that cannot be had, and why.
    pub(crate) fn resolved(&self) -> Result<BTreeMap<String, String>, (String, String)> {
        let resolve = |(name, property): (&String, &Property)| {
            let value = match property {
                Property::Text(text) => text.clone(),
                Property::Reference(reference) => reference
                    .value()
                    .map_err(|why| (format!("log.kafka.properties.{name}"), why))?,
            };
            Ok((name.clone(), value))
        };
        self.properties.iter().map(resolve).collect()
    }
}

/// What the client library of this build cannot do, of what a property asks for. Said here, with the line, and not by a client that is made
/// later.
fn not_built(name: &str, property: &Property) -> Option<&'static str> {
    // What a reference says is seen by the client.
    let Property::Text(text) = property else { return None };
    let is = |known: &[&str]| known.iter().any(|known| text.eq_ignore_ascii_case(known));
    match name {
        "security.protocol" if !is(&["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"]) => {
            Some("is PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL")
        }
        "sasl.mechanism" | "sasl.mechanisms" if !is(&["plain", "scram-sha-256", "scram-sha-512"]) => {
            Some("is PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512: this build speaks neither GSSAPI nor OAUTHBEARER")
        }
        _ => None,
    }
}
