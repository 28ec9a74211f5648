//! A broker that comes and goes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sluice_ingest::{KafkaLog, Log, LogError, LogRecord};
use sluice_wire::ids::Partition;
use tokio_util::sync::CancellationToken;

use super::broker::Broker;
use super::contract::{envelope, head};
use super::{OpenKafka, soon};

const P: Partition = Partition {
    generation: 0,
    index: 0,
};
const AFTER: u64 = 200;

/// P4: whatever was acknowledged is in the log, however often the broker is killed; readers go on by themselves and see each offset once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p4_a_broker_that_is_killed_under_load_loses_nothing_that_was_acknowledged() {
    let Some(mut broker) = Broker::start() else { return };
    let mut topic = OpenKafka::at(broker.address.to_string(), 1);
    topic.options.timeout = Duration::from_secs(2);
    let (log, _running) = topic.open().await.unwrap();
    let log = Arc::new(log);

    let enough = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..4u64)
        .map(|writer| tokio::spawn(write(Arc::clone(&log), writer, Arc::clone(&enough))))
        .collect();
    let done = CancellationToken::new();
    let reader = tokio::spawn(follow(Arc::clone(&log), done.clone()));

    for _ in 0..2 {
        let before = log.end(P);
        soon("records come in", log.wait_beyond(P, before + AFTER)).await;
        broker.kill();
        let away = async {
            while log.trouble().is_none() || log.is_end_known() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        soon("it is said that the broker is away", away).await;
        let refused = log.append(P, &head(0), envelope(0), 0).await;
        assert!(matches!(refused, Err(LogError::Retry { .. })), "{refused:?}");
        let log = Arc::clone(&log);
        broker = tokio::task::spawn_blocking(move || {
            broker.start_again();
            broker
        })
        .await
        .unwrap();
        let back = async {
            while log.trouble().is_some() || !log.is_end_known() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        soon("the broker is back", back).await;
    }
    let before = log.end(P);
    soon("records come in again", log.wait_beyond(P, before + AFTER)).await;
    enough.store(true, Ordering::Relaxed);
    let (mut acknowledged, mut refused) = (Vec::new(), 0);
    for writer in writers {
        let (stored, failures) = soon("a writer ends", writer).await.unwrap();
        acknowledged.extend(stored);
        refused += failures;
    }
    // Nobody appends any more: the reader gets to the end.
    let all = {
        let end = acknowledged.iter().map(|(offset, _)| offset + 1).max().unwrap();
        soon("the reader is there", async {
            while log.end(P) < end {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
        done.cancel();
        soon("the reader ends", reader).await.unwrap()
    };
    assert!(refused > 0, "no append met the broker's absence");
    assert!(acknowledged.len() as u64 > 3 * AFTER / 2);
    for (offset, n) in &acknowledged {
        let record = &all[*offset as usize];
        assert_eq!((record.offset, &record.envelope), (*offset, &envelope(*n)));
        assert_eq!(record.head, Some(head(*n)));
    }
}

/// Appends distinct records; one that was not acknowledged comes again. Returns what was acknowledged, and how often nothing was.
async fn write(log: Arc<KafkaLog>, writer: u64, enough: Arc<AtomicBool>) -> (Vec<(u64, u64)>, u64) {
    let (mut stored, mut failures) = (Vec::new(), 0);
    let mut n = writer << 32;
    while !enough.load(Ordering::Relaxed) {
        match log.append(P, &head(n), envelope(n), 1_790_000_000_000_000).await {
            Ok(offset) => {
                stored.push((offset, n));
                n += 1;
            }
            Err(LogError::Retry { .. }) => {
                failures += 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
    (stored, failures)
}

/// Reads as a writer of the stores does; ends behind the last record once told that nothing comes any more.
async fn follow(log: Arc<KafkaLog>, done: CancellationToken) -> Vec<LogRecord> {
    let mut all: Vec<LogRecord> = Vec::new();
    loop {
        let next = all.len() as u64;
        let records = log.read(P, next, 1 << 16).await.unwrap();
        for (offset, record) in (next..).zip(&records) {
            assert_eq!(record.offset, offset);
        }
        if records.is_empty() {
            if done.is_cancelled() && next >= log.end(P) {
                return all;
            }
            tokio::select! { () = log.wait_beyond(P, next) => {}, () = done.cancelled() => {} }
        }
        all.extend(records);
    }
}

/// Nothing is asked of a broker that is not there yet, nothing is taken meanwhile, and it goes on by itself when it comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_away_at_the_start_is_waited_for() {
    let Some(mut broker) = Broker::start() else { return };
    broker.kill();
    let topic = OpenKafka::at(broker.address.to_string(), 1);
    let log = KafkaLog::open(topic.options.clone()).unwrap();
    let stop = CancellationToken::new();
    let watching = tokio::spawn({
        let (log, stop) = (log.clone(), stop.clone());
        async move { log.run(stop).await }
    });
    let early = log.append(P, &head(1), envelope(1), 0).await;
    assert!(matches!(early, Err(LogError::Retry { .. })), "{early:?}");
    assert!(log.trouble().is_some() && !log.is_end_known());
    let opened = tokio::spawn({
        let log = log.clone();
        async move { log.opened().await }
    });
    let _broker = tokio::task::spawn_blocking(move || {
        broker.start_again();
        broker
    })
    .await
    .unwrap();
    soon("the log opens", opened).await.unwrap().unwrap();
    assert_eq!(log.append(P, &head(1), envelope(1), 0).await.unwrap(), 0);
    stop.cancel();
    watching.await.unwrap();
}
