//! The log on a real disk: what comes back after reopening, after damage, and from a log of the first version.
#![allow(clippy::unwrap_used)]

use sluice_wire::counts::Counts;
use sluice_wire::envelope::Kind;
use sluice_wire::ids::{BatchId, Epoch, NodeId, StreamId, TenantId};

use super::*;

fn head(n: u8) -> Head {
    let stream = StreamId {
        tenant: TenantId::new("acme").unwrap(),
        node: NodeId::new("site-1").unwrap(),
        spool: [1; 16],
    };
    let epoch = Epoch { number: 1, random: 7 };
    Head {
        id: BatchId {
            stream,
            epoch,
            seq: u64::from(n),
        },
        kind: Kind::Data,
        counts: Counts {
            accepted: 2,
            stored: 2,
            ..Counts::default()
        },
    }
}

fn options(partitions: u16) -> EmbeddedOptions {
    EmbeddedOptions {
        generation: 1,
        partitions,
        segment_bytes: 500,
        max_envelope_bytes: 1000,
        ballast_bytes: 0,
    }
}

#[tokio::test]
async fn p4_what_append_returned_for_is_there_after_reopening_with_its_offset_and_time() {
    let dir = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(dir.path(), &options(2)).unwrap();
    let [a, b] = log.partitions()[..] else {
        panic!("two partitions")
    };
    for n in 0..30u8 {
        let partition = if n % 3 == 0 { a } else { b };
        log.append(partition, &head(n), Bytes::from(vec![n; 40]), i64::from(n))
            .await
            .unwrap();
    }
    let too_large = log.append(a, &head(0), Bytes::from(vec![0; 1001]), 0).await;
    assert!(matches!(too_large, Err(LogError::TooLarge { bytes: 1001, max: 1000 })));
    log.close().await;
    drop(log);
    let log = EmbeddedLog::open(dir.path(), &options(2)).unwrap();
    assert_eq!((log.end(a), log.end(b)), (10, 20));
    log.wait_beyond(b, 19).await;
    let mut offsets = Vec::new();
    while (offsets.len() as u64) < log.end(a) {
        for record in log.read(a, offsets.len() as u64, 100).await.unwrap() {
            assert_eq!(record.ingested_at_us, 3 * record.offset as i64);
            assert_eq!(record.envelope, vec![3 * record.offset as u8; 40]);
            assert_eq!(record.head, Some(head(3 * record.offset as u8)));
            offsets.push(record.offset);
        }
    }
    assert_eq!(offsets, (0..10).collect::<Vec<_>>());
    log.trim(a, 10).await.unwrap();
    assert!(matches!(
        log.read(a, 0, 100).await,
        Err(LogError::Trimmed { wanted: 0, .. })
    ));
}

async fn all(log: &EmbeddedLog, partition: Partition) -> Vec<LogRecord> {
    let mut records = Vec::new();
    while (records.len() as u64) < log.end(partition) {
        records.extend(log.read(partition, records.len() as u64, 1 << 20).await.unwrap());
    }
    records
}

/// P3, P6: whatever of a record is damaged, its neighbours are whole; and as long as its head is, so are identity, counts and time.
#[tokio::test]
async fn p3_a_damaged_record_leaves_its_identity_and_counts() {
    let content = |n: u8| vec![b'a' + n; 50];
    for (victim, at_end, has_head) in [(0u8, true, true), (4, true, true), (9, true, true), (4, false, false)] {
        let dir = tempfile::tempdir().unwrap();
        let log = EmbeddedLog::open(dir.path(), &options(1)).unwrap();
        let [p] = log.partitions()[..] else {
            panic!("one partition")
        };
        for n in 0..12 {
            log.append(p, &head(n), Bytes::from(content(n)), 100 + i64::from(n))
                .await
                .unwrap();
        }
        log.close().await;
        drop(log);
        let mut hits = 0;
        for segment in std::fs::read_dir(dir.path().join("g1-p0")).unwrap() {
            let path = segment.unwrap().path();
            let mut bytes = std::fs::read(&path).unwrap();
            let found = bytes.windows(50).position(|w| w == content(victim));
            if let Some(envelope) = found {
                // The envelope, or the name of the stream before it.
                bytes[if at_end { envelope + 10 } else { envelope - 20 }] ^= 4;
                std::fs::write(&path, bytes).unwrap();
                hits += 1;
            }
        }
        assert_eq!(hits, 1);
        let log = EmbeddedLog::open(dir.path(), &options(1)).unwrap();
        let records = all(&log, p).await;
        assert_eq!(records.len(), 12);
        for (n, record) in (0u8..).zip(&records) {
            let is_damaged = n == victim;
            let known = !is_damaged || has_head;
            assert_eq!(record.damaged.is_some(), is_damaged, "{record:?}");
            assert_eq!(record.head, known.then(|| head(n)));
            assert_eq!(record.ingested_at_us, if known { 100 + i64::from(n) } else { 0 });
            assert_eq!(record.envelope, if is_damaged { vec![] } else { content(n) });
        }
    }
}

/// A log as the first version wrote it stays readable, goes on with records of the second, and is then refused by the first.
#[tokio::test]
async fn records_of_the_first_version_are_read_and_the_log_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let meta = dir.path().join("meta.json");
    std::fs::write(&meta, "{\"version\":1,\"generation\":1,\"partitions\":1}").unwrap();
    let (mut wal, _) = Wal::open(&dir.path().join("g1-p0"), Options::default()).unwrap();
    let old = [&1_763_700_000_000_000i64.to_le_bytes()[..], b"SLCB envelope"].concat();
    wal.append(&old).unwrap();
    wal.sync().unwrap();
    drop(wal);
    let log = EmbeddedLog::open(dir.path(), &options(1)).unwrap();
    let [p] = log.partitions()[..] else {
        panic!("one partition")
    };
    log.append(p, &head(1), Bytes::from_static(b"new"), 5).await.unwrap();
    let records = all(&log, p).await;
    let shown: Vec<_> = records
        .iter()
        .map(|r| (r.ingested_at_us, &r.envelope[..], r.head.is_some()))
        .collect();
    assert_eq!(
        shown,
        [
            (1_763_700_000_000_000, &b"SLCB envelope"[..], false),
            (5, &b"new"[..], true)
        ]
    );
    assert!(std::fs::read_to_string(&meta).unwrap().contains("\"version\":2"));
    log.close().await;
    drop(log);
    std::fs::write(&meta, "{\"version\":3,\"generation\":1,\"partitions\":1}").unwrap();
    let newer = EmbeddedLog::open(dir.path(), &options(1));
    assert!(matches!(newer, Err(OpenError::Newer { version: 3, .. })));
}

#[tokio::test]
async fn another_number_of_partitions_or_generation_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    EmbeddedLog::open(dir.path(), &options(2)).unwrap().close().await;
    let refused = EmbeddedLog::open(dir.path(), &options(3)).unwrap_err();
    assert!(
        matches!(
            refused,
            OpenError::Mismatch {
                found_partitions: 2,
                partitions: 3,
                ..
            }
        ),
        "{refused}"
    );
    let other = EmbeddedOptions {
        generation: 2,
        ..options(2)
    };
    assert!(matches!(
        EmbeddedLog::open(dir.path(), &other),
        Err(OpenError::Mismatch { .. })
    ));
}
