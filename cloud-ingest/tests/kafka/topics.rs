//! Which topics are taken, and what is in them.

use std::time::Duration;

use bytes::Bytes;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{FutureProducer, FutureRecord};
use sluice_ingest::log::EmbeddedOptions;
use sluice_ingest::{EmbeddedLog, Log, LogError};
use sluice_wal::{Entry, Options, Wal};

use super::contract::{envelope, head, read_one};
use super::{OpenKafka, soon};

fn client(topic: &OpenKafka) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &topic.options.brokers);
    config
}

fn admin(topic: &OpenKafka) -> AdminClient<DefaultClientContext> {
    client(topic).create().unwrap()
}

async fn make(topic: &OpenKafka, settings: &[(&str, &str)]) {
    let mut new = NewTopic::new(
        &topic.options.topic,
        i32::from(topic.options.partitions),
        TopicReplication::Fixed(1),
    );
    for (name, value) in settings {
        new = new.set(name, value);
    }
    let patience = AdminOptions::new().operation_timeout(Some(Duration::from_secs(30)));
    for made in admin(topic).create_topics([&new], &patience).await.unwrap() {
        made.unwrap();
    }
}

const GOOD: [(&str, &str); 6] = [
    ("cleanup.policy", "delete"),
    ("retention.ms", "-1"),
    ("retention.bytes", "-1"),
    ("max.message.bytes", "8388608"),
    ("min.insync.replicas", "1"),
    ("unclean.leader.election.enable", "false"),
];

/// P4: a topic that may forget is not used, and says which setting it is; whoever wants it all the same can have it.
#[tokio::test]
async fn p4_an_unsafe_topic_is_refused_by_name_and_used_only_when_asked_for() {
    for (name, value) in [
        ("retention.ms", "604800000"),
        ("cleanup.policy", "compact"),
        ("unclean.leader.election.enable", "true"),
    ] {
        let Some(mut topic) = OpenKafka::fresh(1) else { return };
        let settings: Vec<_> = GOOD
            .iter()
            .map(|(n, v)| if *n == name { (*n, value) } else { (*n, *v) })
            .collect();
        make(&topic, &settings).await;
        let refused = topic.open().await.unwrap_err();
        assert!(
            matches!(&refused, LogError::Refused { reason } if reason.contains(name) && reason.contains(value) && reason.contains("unsafe_settings")),
            "{refused}"
        );
        topic.options.unsafe_settings = true;
        topic.open().await.unwrap();
    }
    let Some(mut topic) = OpenKafka::fresh(2) else { return };
    make(&topic, &GOOD).await;
    topic.open().await.unwrap();
    // Where a stream goes depends on the number: nobody may ask for that.
    topic.options.partitions = 3;
    topic.options.unsafe_settings = true;
    let refused = topic.open().await.unwrap_err();
    assert!(
        matches!(&refused, LogError::Refused { reason } if reason.contains("log.partitions")),
        "{refused}"
    );
    topic.options.partitions = 2;
    topic.options.max_record_bytes = 9 << 20;
    let refused = topic.open().await.unwrap_err();
    assert!(
        matches!(&refused, LogError::Refused { reason } if reason.contains("max.message.bytes")),
        "{refused}"
    );
}

#[tokio::test]
async fn a_topic_with_more_copies_than_brokers_is_refused_with_what_to_do() {
    let Some(mut topic) = OpenKafka::fresh(1) else { return };
    (topic.options.replication, topic.options.min_insync) = (3, 2);
    let refused = topic.open().await.unwrap_err();
    assert!(
        matches!(&refused, LogError::Refused { reason } if reason.contains("replication = 1")),
        "{refused}"
    );
}

/// The record in Kafka is byte for byte the record of the embedded log.
#[tokio::test]
async fn a_record_is_the_same_in_both_logs_and_a_foreign_one_is_damage() {
    let Some(topic) = OpenKafka::fresh(1) else { return };
    let (log, _running) = topic.open().await.unwrap();
    let [p] = log.partitions()[..] else {
        panic!("one partition")
    };
    log.append(p, &head(5), envelope(5), 1_790_000_000_123_456)
        .await
        .unwrap();

    let dir = tempfile::tempdir().unwrap();
    let options = EmbeddedOptions {
        generation: 0,
        partitions: 1,
        segment_bytes: 1 << 20,
        max_envelope_bytes: 1 << 20,
        ballast_bytes: 0,
    };
    let embedded = EmbeddedLog::open(dir.path(), &options).unwrap();
    embedded
        .append(p, &head(5), envelope(5), 1_790_000_000_123_456)
        .await
        .unwrap();
    embedded.close().await;
    drop(embedded);
    let (wal, _) = Wal::open(&dir.path().join("g0-p0"), Options::default()).unwrap();
    let Some(Entry::Record(record)) = wal.reader().read(0).unwrap() else {
        panic!("a record")
    };

    let raw: FutureProducer = client(&topic).create().unwrap();
    let send = async |payload: &[u8]| {
        let message = FutureRecord::<(), [u8]>::to(&topic.options.topic)
            .partition(0)
            .payload(payload);
        raw.send(message, Duration::from_secs(30)).await.unwrap();
    };
    // What the embedded log wrote is read here as if it had been appended here.
    send(&record).await;
    send(b"who wrote this?").await;
    soon("all three are known", log.wait_beyond(p, 2)).await;
    let mut records = Vec::new();
    while records.len() < 3 {
        records.extend(log.read(p, records.len() as u64, 1 << 20).await.unwrap());
    }
    let content = |n: usize| (&records[n].head, &records[n].envelope, records[n].ingested_at_us);
    assert_eq!(content(0), content(1));
    assert_eq!(records[0].envelope, envelope(5));
    assert!(records[2].damaged.is_some() && records[2].envelope == Bytes::new() && records[2].offset == 2);
}

/// What one process appended, another one knows as soon as it asks: it must not take itself for ahead of the log.
#[tokio::test]
async fn the_end_as_of_now_is_that_of_all_processes() {
    let Some(topic) = OpenKafka::fresh(1) else { return };
    let (one, _running) = topic.open().await.unwrap();
    let (two, watching) = topic.open().await.unwrap();
    let [p] = one.partitions()[..] else {
        panic!("one partition")
    };
    // Nobody tells the second one anything any more.
    drop(watching);
    for n in 0..5 {
        let offset = one.append(p, &head(n), envelope(n), 0).await.unwrap();
        assert_eq!(two.fresh_end(p).await.unwrap(), offset + 1);
        assert_eq!(two.end(p), offset + 1);
        assert_eq!(read_one(&two, p, offset).await.offset, offset);
    }
}

/// A topic that was made anew is not the log: it takes nothing under offsets that the stores hold already.
#[tokio::test]
async fn p2_a_topic_that_was_made_anew_is_not_taken_for_the_log() {
    let Some(topic) = OpenKafka::fresh(1) else { return };
    let (log, _running) = topic.open().await.unwrap();
    let [p] = log.partitions()[..] else {
        panic!("one partition")
    };
    for n in 0..20 {
        log.append(p, &head(n), envelope(n), 0).await.unwrap();
    }
    assert_eq!(read_one(&log, p, 19).await.offset, 19);
    let deleted = admin(&topic)
        .delete_topics(&[&topic.options.topic], &AdminOptions::new())
        .await
        .unwrap();
    deleted.into_iter().for_each(|one| drop(one.unwrap()));
    let made_again = async {
        loop {
            let new = NewTopic::new(&topic.options.topic, 1, TopicReplication::Fixed(1));
            let made = admin(&topic).create_topics([&new], &AdminOptions::new()).await.unwrap();
            if made.iter().all(Result::is_ok) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    soon("the topic is made again", made_again).await;
    let noticed = async {
        loop {
            if let Err(LogError::Failed { reason }) = log.append(p, &head(99), envelope(99), 0).await {
                return reason;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let reason = soon("the log notices", noticed).await;
    assert!(reason.contains(&topic.options.topic), "{reason}");
}
