//! The topic: what it must be like so that nothing is lost that was acknowledged, making it so, and looking whether it is.

use std::collections::HashMap;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::client::{KafkaOptions, Voice};

/// For each call of the broker.
pub(super) const CALL: Duration = Duration::from_secs(10);

/// A topic as it is found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) partitions: usize,
    /// The smallest number of copies that a partition has.
    pub(super) replication: usize,
    pub(super) settings: HashMap<String, String>,
}

/// Why a topic is not used. `hard`: no configuration makes it usable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Objection {
    pub(super) what: String,
    pub(super) hard: bool,
}

/// What a topic is made with, by the name of the setting.
pub(super) fn settings(options: &KafkaOptions) -> [(&'static str, String); 6] {
    [
        ("cleanup.policy", "delete".to_owned()),
        // What the stores hold is trimmed by us, and nothing else is ever forgotten.
        ("retention.ms", "-1".to_owned()),
        ("retention.bytes", "-1".to_owned()),
        ("max.message.bytes", options.max_record_bytes.to_string()),
        ("min.insync.replicas", options.min_insync.to_string()),
        ("unclean.leader.election.enable", "false".to_owned()),
    ]
}

/// Everything that is wrong with a topic.
pub(super) fn objections(found: &Found, options: &KafkaOptions) -> Vec<Objection> {
    let mut all = Vec::new();
    let mut object = |hard, what: String| all.push(Objection { what, hard });
    if found.partitions != usize::from(options.partitions) {
        object(
            true,
            format!(
                "it has {} partitions and log.partitions says {}; which partition a stream goes to depends on it, so put the old \
                 number back, or begin a new log.generation with another topic",
                found.partitions, options.partitions
            ),
        );
    }
    if found.replication < usize::from(options.replication) {
        object(
            false,
            format!(
                "a partition has {} copies and log.kafka.replication asks for {}",
                found.replication, options.replication
            ),
        );
    }
    for (name, wanted) in settings(options) {
        let is = found.settings.get(name).map(String::as_str);
        let number = is.and_then(|text| text.parse::<i64>().ok());
        let at_least = || number >= wanted.parse().ok();
        let (good, hard) = match name {
            "max.message.bytes" => (at_least(), true),
            "min.insync.replicas" => (at_least(), false),
            _ => (is == Some(wanted.as_str()), false),
        };
        if !good {
            let relation = if matches!(name, "max.message.bytes" | "min.insync.replicas") {
                "at least "
            } else {
                ""
            };
            object(
                hard,
                format!(
                    "its {name} is {} and must be {relation}{wanted}",
                    is.unwrap_or("not known")
                ),
            );
        }
    }
    all
}

/// Makes the topic; one that is there already is as good.
pub(super) async fn create(admin: &AdminClient<Voice>, options: &KafkaOptions) -> Result<(), KafkaError> {
    let wanted = settings(options);
    let replication = TopicReplication::Fixed(i32::from(options.replication));
    let mut topic = NewTopic::new(&options.topic, i32::from(options.partitions), replication);
    for (name, value) in &wanted {
        topic = topic.set(name, value);
    }
    let patience = AdminOptions::new()
        .request_timeout(Some(CALL))
        .operation_timeout(Some(CALL));
    for result in admin.create_topics([&topic], &patience).await? {
        match result {
            Ok(_) => tracing::info!(topic = options.topic, partitions = options.partitions, "topic made"),
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((_, code)) => return Err(KafkaError::AdminOp(code)),
        }
    }
    Ok(())
}

/// The settings of the topic, by name.
pub(super) async fn described(admin: &AdminClient<Voice>, topic: &str) -> Result<HashMap<String, String>, KafkaError> {
    let patience = AdminOptions::new().request_timeout(Some(CALL));
    let mut settings = HashMap::new();
    for resource in admin
        .describe_configs([&ResourceSpecifier::Topic(topic)], &patience)
        .await?
    {
        let resource = resource.map_err(KafkaError::AdminOp)?;
        settings.extend(
            resource
                .entries
                .into_iter()
                .filter_map(|entry| Some((entry.name, entry.value?))),
        );
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> KafkaOptions {
        KafkaOptions {
            brokers: String::new(),
            topic: "events".to_owned(),
            generation: 0,
            partitions: 4,
            replication: 3,
            min_insync: 2,
            create: true,
            unsafe_settings: false,
            max_record_bytes: 8 << 20,
            queue_bytes: 1 << 20,
            timeout: Duration::from_secs(2),
            properties: std::collections::BTreeMap::new(),
        }
    }

    /// P4: whatever would let a topic forget what it acknowledged is named.
    #[test]
    fn p4_every_unsafe_setting_is_named_and_a_safe_topic_is_taken() {
        let good = || Found {
            partitions: 4,
            replication: 3,
            settings: settings(&options())
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
        };
        assert_eq!(objections(&good(), &options()), []);
        let check = |name: &str, value: Option<&str>, is_hard: bool| {
            let mut found = good();
            match value {
                Some(value) => found.settings.insert(name.to_owned(), value.to_owned()),
                None => found.settings.remove(name),
            };
            let all = objections(&found, &options());
            assert_eq!(all.len(), 1, "{name} = {value:?}: {all:?}");
            assert!(all[0].what.contains(name) && all[0].hard == is_hard, "{all:?}");
        };
        check("cleanup.policy", Some("compact"), false);
        check("cleanup.policy", Some("compact,delete"), false);
        check("retention.ms", Some("604800000"), false);
        check("retention.bytes", Some("1000"), false);
        check("retention.bytes", None, false);
        check("min.insync.replicas", Some("1"), false);
        check("unclean.leader.election.enable", Some("true"), false);
        check("max.message.bytes", Some("1048588"), true);
        let few = objections(
            &Found {
                partitions: 3,
                ..good()
            },
            &options(),
        );
        assert!(
            few.len() == 1 && few[0].hard && few[0].what.contains("log.partitions"),
            "{few:?}"
        );
        let thin = objections(
            &Found {
                replication: 1,
                ..good()
            },
            &options(),
        );
        assert!(
            thin.len() == 1 && !thin[0].hard && thin[0].what.contains("log.kafka.replication"),
            "{thin:?}"
        );
        // More than asked for is as good.
        let mut more = Found {
            replication: 5,
            ..good()
        };
        more.settings.insert("min.insync.replicas".to_owned(), "3".to_owned());
        assert_eq!(objections(&more, &options()), []);
    }
}
