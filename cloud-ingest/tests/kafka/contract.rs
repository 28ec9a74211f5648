//! What every log promises, tried on the embedded one and on Kafka alike.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sluice_ingest::log::{EmbeddedOptions, Head};
use sluice_ingest::{EmbeddedLog, Log, LogError, LogRecord};
use sluice_wire::counts::Counts;
use sluice_wire::envelope::Kind;
use sluice_wire::ids::{BatchId, Epoch, NodeId, Partition, StreamId, TenantId};

use super::{OpenKafka, soon};

/// The largest envelope of these logs.
pub(crate) const MAX: usize = 1 << 20;
const DAY_US: i64 = 86_400_000_000;

pub(crate) fn head(n: u64) -> Head {
    let stream = StreamId {
        tenant: TenantId::new("acme").unwrap(),
        node: NodeId::new("site-1").unwrap(),
        spool: [1; 16],
    };
    let epoch = Epoch { number: 1, random: 7 };
    Head {
        id: BatchId { stream, epoch, seq: n },
        kind: Kind::Data,
        counts: Counts {
            accepted: n,
            stored: n,
            ..Counts::default()
        },
    }
}

pub(crate) fn envelope(n: u64) -> Bytes {
    Bytes::from(format!("batch {n} ").repeat(1 + n as usize % 50))
}

/// Everything from `from` to the end.
pub(crate) async fn read_all(log: &dyn Log, partition: Partition, mut from: u64, max_bytes: usize) -> Vec<LogRecord> {
    let mut all = Vec::new();
    while from < log.end(partition) {
        let records = log.read(partition, from, max_bytes).await.unwrap();
        from += records.len() as u64;
        all.extend(records);
    }
    all
}

/// The first record from `from` on: one read may take longer than it waits for.
pub(crate) async fn read_one(log: &dyn Log, partition: Partition, from: u64) -> LogRecord {
    let read = async {
        loop {
            if let Some(record) = log.read(partition, from, 1).await.unwrap().into_iter().next() {
                return record;
            }
            tokio::task::yield_now().await;
        }
    };
    soon("a record", read).await
}

/// `open` opens the same log each time, with two partitions; the last one is closed by then.
async fn keeps_the_contract<F: Future<Output = Arc<dyn Log>>>(open: impl Fn() -> F) {
    let log = open().await;
    let [a, b] = log.partitions()[..] else {
        panic!("two partitions")
    };
    assert_eq!((log.end(a), log.first(a)), (0, 0));
    assert_eq!(log.read(a, 0, 100).await.unwrap(), []);

    // Order, offsets and bytes; a day between two records.
    let at = |n: u64| 1_790_000_000_000_000 + n as i64 * DAY_US;
    for n in 0..60u64 {
        let partition = if n % 3 == 0 { a } else { b };
        let offset = log.append(partition, &head(n), envelope(n), at(n)).await.unwrap();
        assert_eq!(offset, if n % 3 == 0 { n / 3 } else { n - n / 3 - 1 });
        assert_eq!(log.end(partition), offset + 1, "known at once to who appended");
    }
    let is_whole = |records: &[LogRecord], from: u64| {
        for (offset, record) in (from..).zip(records) {
            let n = 3 * offset;
            let wanted = LogRecord {
                partition: a,
                offset,
                ingested_at_us: at(n),
                envelope: envelope(n),
                head: Some(head(n)),
                damaged: None,
            };
            assert_eq!(*record, wanted);
        }
        assert_eq!(records.len() as u64, 20 - from);
    };
    for max_bytes in [1, 700, 1 << 20] {
        is_whole(&read_all(log.as_ref(), a, 0, max_bytes).await, 0);
    }
    is_whole(&read_all(log.as_ref(), a, 13, 1).await, 13);
    // Readers do not disturb each other.
    let both = futures::join!(read_all(log.as_ref(), a, 2, 300), read_all(log.as_ref(), a, 0, 500));
    is_whole(&both.0, 2);
    is_whole(&both.1, 0);
    assert_eq!(read_all(log.as_ref(), b, 0, 1 << 20).await.len(), 40);

    // Whoever waits is woken by what comes, and finds it.
    let waits = {
        let log = Arc::clone(&log);
        tokio::spawn(async move {
            let mut seen = Vec::new();
            let mut next = 20;
            while seen.len() < 10 {
                let records = log.read(a, next, 1 << 20).await.unwrap();
                if records.is_empty() {
                    log.wait_beyond(a, next).await;
                }
                next += records.len() as u64;
                seen.extend(records.into_iter().map(|record| record.head.unwrap().id.seq));
            }
            seen
        })
    };
    for n in 100..110 {
        log.append(a, &head(n), envelope(n), at(60)).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(
        soon("the reader that waits", waits).await.unwrap(),
        (100..110).collect::<Vec<_>>()
    );

    // What never fits, and what is not there.
    let fits = log.max_envelope_bytes().map_or(MAX, |max| max as usize);
    let large = log.append(a, &head(0), Bytes::from(vec![0; fits + 1]), 0).await;
    assert!(matches!(large, Err(LogError::TooLarge { .. })), "{large:?}");
    let largest = log
        .append(b, &head(0), Bytes::from(vec![7; fits]), at(60))
        .await
        .unwrap();
    assert_eq!(read_one(log.as_ref(), b, largest).await.envelope.len(), fits);
    let foreign = Partition {
        generation: 9,
        index: 0,
    };
    let missing = log.append(foreign, &head(0), envelope(0), 0).await;
    assert!(
        matches!(missing, Err(LogError::NoPartition(p)) if p == foreign),
        "{missing:?}"
    );

    // Forgetting by time, and for good.
    for (day, wanted) in [(0, 0), (1, 1), (3, 1), (27, 9), (28, 10), (1000, 15)] {
        let first = log.first_since(a, 0, 15, at(day)).await.unwrap();
        assert_eq!(first, wanted, "the first record since day {day}");
    }
    log.trim(a, 10).await.unwrap();
    let trimmed = {
        let log = Arc::clone(&log);
        soon("the log begins later", async move {
            while log.first(a) == 0 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            loop {
                match log.read(a, 0, 100).await {
                    Ok(records) if records.is_empty() => tokio::task::yield_now().await,
                    other => break other,
                }
            }
        })
    };
    let trimmed = trimmed.await;
    assert!(
        matches!(
            trimmed,
            Err(LogError::Trimmed {
                wanted: 0,
                first: 1..,
                ..
            })
        ),
        "{trimmed:?}"
    );
    assert_eq!(read_one(log.as_ref(), a, 10).await.offset, 10);

    // After the end nothing comes, and later something does.
    let (end, first) = (log.end(a), log.first(a));
    assert_eq!(log.read(a, end, 100).await.unwrap(), []);
    log.close().await;
    drop(log);
    let log = open().await;
    assert_eq!((log.end(a), log.first(a)), (end, first), "after a restart");
    is_whole(&read_all(log.as_ref(), a, 10, 1 << 20).await[..10], 10);
    assert_eq!(log.append(a, &head(200), envelope(200), at(61)).await.unwrap(), end);
    log.close().await;
}

#[tokio::test]
async fn the_embedded_log_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let options = EmbeddedOptions {
        generation: 0,
        partitions: 2,
        segment_bytes: 1000,
        max_envelope_bytes: MAX as u32,
        ballast_bytes: 0,
    };
    keeps_the_contract(|| async { Arc::new(EmbeddedLog::open(dir.path(), &options).unwrap()) as Arc<dyn Log> }).await;
}

#[tokio::test]
async fn the_log_in_kafka_keeps_the_contract() {
    let Some(topic) = OpenKafka::fresh(2) else { return };
    let running = std::sync::Mutex::new(None);
    keeps_the_contract(|| async {
        let (log, stop) = topic.open().await.unwrap();
        // The clients of the last one go with it.
        drop(running.lock().unwrap().replace(stop));
        Arc::new(log) as Arc<dyn Log>
    })
    .await;
}
