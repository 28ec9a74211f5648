//! Several processes that share one log and one lake.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use sluice_ingest::config::{LogKind, Role, Writes};
use sluice_ingest::log::Head;
use sluice_ingest::writer::WriterError;
use sluice_ingest::{IngestConfig, IngestService, KafkaLog, Log, LogError, RunError, StatusHandle};
use sluice_store::Stores;
use sluice_wire::envelope::Envelope;
use sluice_wire::ids::Partition;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::broker::Broker;
use super::sealed::{ROWS, batch_of};
use super::{OpenKafka, soon};

const PARTITIONS: u16 = 4;

/// Three log records of one edge.
pub(crate) fn batch(index: u16, seq: u64) -> Bytes {
    batch_of("acme", index, seq, None)
}

/// What all processes of one fleet have in common.
struct Fleet {
    topic: OpenKafka,
    dir: tempfile::TempDir,
}

struct Process {
    status: StatusHandle,
    stop: CancellationToken,
    task: JoinHandle<Result<(), RunError>>,
}

impl Fleet {
    fn new() -> Option<Fleet> {
        Some(Fleet::over(OpenKafka::fresh(PARTITIONS)?))
    }

    fn over(topic: OpenKafka) -> Fleet {
        Fleet {
            topic,
            dir: tempfile::tempdir().unwrap(),
        }
    }

    async fn stores(&self) -> Stores {
        let lake = self.dir.path().join("lake");
        Stores::open(lake.to_str().unwrap(), 64 << 20).await.unwrap()
    }

    /// A process with a folder of its own: nothing of another one is in it.
    async fn start(&self, name: &str, roles: &[Role], writes: Writes) -> Process {
        let mut config = IngestConfig {
            roles: roles.to_vec(),
            data_dir: self.dir.path().join(name),
            ..IngestConfig::default()
        };
        config.cold.commit_every = Duration::from_millis(300);
        config.log.kind = LogKind::Kafka;
        config.log.partitions = PARTITIONS;
        config.log.writes = writes;
        config.log.kafka.brokers = self.topic.options.brokers.clone();
        config.log.kafka.topic = self.topic.options.topic.clone();
        config.log.kafka.group = self.topic.options.topic.clone();
        (config.log.kafka.replication, config.log.kafka.min_insync) = (1, 1);
        let service = IngestService::build(config, self.stores().await).unwrap();
        let (status, stop) = (service.status(), CancellationToken::new());
        let task = tokio::spawn(service.run(stop.clone()));
        Process { status, stop, task }
    }

    /// Puts batches with these numbers into every partition.
    async fn append(&self, seqs: std::ops::Range<u64>) {
        let (log, _running) = self.topic.open().await.unwrap();
        for partition in log.partitions() {
            for seq in seqs.clone() {
                append(&log, partition, seq).await.unwrap();
            }
        }
    }

    /// Until the table holds every partition up to and with this offset. Returns its rows.
    async fn held(&self, last: u64, by: &[&Process]) -> u64 {
        let stores = self.stores().await;
        let all: BTreeMap<Partition, u64> = (0..PARTITIONS)
            .map(|index| (Partition { generation: 0, index }, last))
            .collect();
        let whole = async {
            loop {
                let extent = stores.cold.extent().await.unwrap();
                if extent.committed == all {
                    return extent.rows;
                }
                assert!(
                    !by.iter().any(|process| process.task.is_finished()),
                    "a process ended by itself"
                );
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        soon("the table holds all", whole).await
    }
}

async fn append(log: &KafkaLog, partition: Partition, seq: u64) -> Result<u64, LogError> {
    let envelope = batch(partition.index, seq);
    let head = Head::from(&Envelope::parse(envelope.clone()).unwrap().header);
    log.append(partition, &head, envelope, 1_790_000_000_000_000).await
}

impl Process {
    async fn end(self) {
        self.stop.cancel();
        soon("the process ends", self.task).await.unwrap().unwrap();
    }
}

/// P2, P16: two processes share the partitions; one dies without a word, the other goes on with what it knew, and batches that come
/// again - also to a process that never saw them - are stored once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_partitions_of_a_process_that_died_go_on_elsewhere_and_each_row_is_stored_once() {
    let Some(fleet) = Fleet::new() else { return };
    fleet.append(0..3).await;
    let one = fleet.start("one", &[Role::Cold], Writes::Group).await;
    let two = fleet.start("two", &[Role::Cold], Writes::Group).await;
    let whole = u64::from(PARTITIONS) * 3 * (ROWS + 1);
    assert_eq!(fleet.held(2, &[&one, &two]).await, whole);
    fleet.append(3..5).await;
    fleet.held(4, &[&one, &two]).await;
    // As SIGKILL does: nothing is put in order.
    one.task.abort();
    drop(one);
    fleet.append(0..6).await;
    let rows = fleet.held(10, &[&two]).await;
    let (batches, records) = (6, 11);
    assert_eq!(rows, u64::from(PARTITIONS) * (batches * ROWS + records));
    two.end().await;
}

/// P2: an append whose answer does not come is in the log all the same; its edge sends it again, and the table holds its rows once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_an_append_without_an_answer_is_stored_once() {
    let Some(broker) = Broker::start() else { return };
    let mut topic = OpenKafka::at(broker.address.to_string(), PARTITIONS);
    topic.options.timeout = Duration::from_secs(2);
    let fleet = Fleet::over(topic);
    let (log, _running) = fleet.topic.open().await.unwrap();
    let [first, others @ ..] = &log.partitions()[..] else {
        panic!("no partitions")
    };
    append(&log, *first, 0).await.unwrap();
    broker.pause();
    let refused = append(&log, *first, 1).await;
    assert!(matches!(refused, Err(LogError::Retry { .. })), "{refused:?}");
    broker.go_on();
    soon("what nobody waits for is in the log", async {
        while log.end(*first) < 2 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let again = async {
        loop {
            match append(&log, *first, 1).await {
                Ok(offset) => return offset,
                Err(LogError::Retry { .. }) => tokio::time::sleep(Duration::from_millis(50)).await,
                Err(error) => panic!("{error}"),
            }
        }
    };
    assert_eq!(soon("it is taken again", again).await, 2);
    // An edge that had an answer and lost it does the same.
    for partition in others {
        for seq in [0, 1, 1] {
            append(&log, *partition, seq).await.unwrap();
        }
    }
    let one = fleet.start("one", &[Role::Cold], Writes::Group).await;
    let (batches, records) = (2, 3);
    assert_eq!(
        fleet.held(2, &[&one]).await,
        u64::from(PARTITIONS) * (batches * ROWS + records)
    );
    one.end().await;
}

/// Two processes with partitions of their own, and a zombie: a third one that believes that it has the first one's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_a_second_writer_of_the_same_partitions_does_no_harm() {
    let Some(fleet) = Fleet::new() else { return };
    let these = |list: &str| list.parse::<Writes>().unwrap();
    let mut processes = Vec::new();
    for (name, writes) in [("one", "0-1"), ("two", "2-3"), ("zombie", "1-2")] {
        processes.push(fleet.start(name, &[Role::Cold], these(writes)).await);
    }
    for round in 0..4 {
        fleet.append(2 * round..2 * round + 3).await;
    }
    // Each round repeats the last batch of the one before.
    let rows = fleet.held(11, &processes.iter().collect::<Vec<_>>()).await;
    assert_eq!(rows, u64::from(PARTITIONS) * (9 * ROWS + 12));
    for process in processes {
        let is_well = async {
            while process.status.snapshot().await.log_trouble.is_some() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        soon("the log is well", is_well).await;
        process.end().await;
    }
}

/// A process that cannot use its topic says so and ends; one whose broker is away stays and says that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_refused_ends_the_process_and_a_broker_that_is_away_does_not() {
    let Some(mut fleet) = Fleet::new() else { return };
    fleet.append(0..1).await;
    fleet.topic.options.partitions = PARTITIONS;
    let mut config = IngestConfig {
        roles: vec![Role::Hot, Role::Cold],
        data_dir: fleet.dir.path().join("wrong"),
        ..IngestConfig::default()
    };
    config.log.kind = LogKind::Kafka;
    config.log.partitions = PARTITIONS + 1;
    config.log.kafka.brokers = fleet.topic.options.brokers.clone();
    config.log.kafka.topic = fleet.topic.options.topic.clone();
    (config.log.kafka.replication, config.log.kafka.min_insync) = (1, 1);
    let service = IngestService::build(config.clone(), fleet.stores().await).unwrap();
    let ended = soon("the process ends", service.run(CancellationToken::new())).await;
    assert!(
        matches!(&ended, Err(RunError::Refused(LogError::Refused { reason })) if reason.contains("log.partitions")),
        "{ended:?}"
    );

    // The lake knows which log its offsets are those of.
    config.log.partitions = PARTITIONS;
    let mut other = config.clone();
    other.log.kafka.topic = OpenKafka::fresh(PARTITIONS).unwrap().options.topic;
    let first = fleet.start("first", &[Role::Cold], Writes::All).await;
    fleet.held(0, &[&first]).await;
    first.end().await;
    let service = IngestService::build(other, fleet.stores().await).unwrap();
    let ended = soon("the process ends", service.run(CancellationToken::new())).await;
    let another = matches!(
        &ended,
        Err(RunError::Begin(WriterError::AnotherLog { generation: 0, .. }))
    );
    assert!(another, "{ended:?}");

    let nobody = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    config.log.kafka.brokers = nobody.to_string();
    let service = IngestService::build(config, fleet.stores().await).unwrap();
    let (status, stop) = (service.status(), CancellationToken::new());
    let task = tokio::spawn(service.run(stop.clone()));
    let told = async {
        loop {
            let trouble = status.snapshot().await.log_trouble;
            if trouble.is_some_and(|trouble| !trouble.contains("not asked yet")) {
                return;
            }
            assert!(!task.is_finished());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    soon("it is told that the broker is away", told).await;
    stop.cancel();
    soon("it ends when it is told to", task).await.unwrap().unwrap();
}
