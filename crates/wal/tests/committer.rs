//! Group commit: an answer means synced, and one sync serves all who wait.
#![allow(clippy::unwrap_used)]

#[allow(dead_code)]
mod sim;

use std::sync::Arc;

use bytes::Bytes;
use sim::SimDisk;
use sluice_wal::{Committer, CommitterOptions, Entry, Options, Wal, WalError};

fn start(disk: &SimDisk, options: CommitterOptions) -> Committer {
    let wal_options = Options {
        segment_bytes: 1 << 20,
        max_record_bytes: 1 << 16,
        ballast_bytes: 0,
    };
    Committer::start(Wal::open_on(disk.storage(), wal_options).unwrap().0, options)
}

fn record(n: usize) -> Bytes {
    Bytes::from(format!("record {n}"))
}

#[tokio::test]
async fn p1_an_append_returns_only_after_the_sync_and_one_sync_serves_a_group() {
    let disk = SimDisk::new(1);
    let committer = start(&disk, CommitterOptions::default());
    let before = disk.syncs();
    disk.close_gate();
    let mut tasks = vec![tokio::spawn({
        let committer = committer.clone();
        async move { committer.append(record(0)).await }
    })];
    let held = disk.clone();
    tokio::task::spawn_blocking(move || held.wait_for_held_sync())
        .await
        .unwrap();
    for n in 1..=50 {
        let committer = committer.clone();
        tasks.push(tokio::spawn(async move { committer.append(record(n)).await }));
    }
    // On this single-threaded runtime every task has put its record into the queue after one turn.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(
        tasks.iter().all(|t| !t.is_finished()),
        "answered before the sync returned"
    );
    assert_eq!(committer.reader().synced(), 0, "visible before the sync returned");
    disk.open_gate();
    let mut indices = Vec::new();
    for (n, task) in tasks.into_iter().enumerate() {
        let index = task.await.unwrap().unwrap();
        assert_eq!(committer.reader().read(index).unwrap(), Some(Entry::Record(record(n))));
        indices.push(index);
    }
    indices.sort_unstable();
    assert_eq!(indices, (0..=50).collect::<Vec<_>>());
    assert_eq!(disk.syncs() - before, 2, "the fifty that waited share one sync");
    assert_eq!(*committer.synced().borrow(), 51);
}

#[tokio::test]
async fn a_failed_sync_refuses_the_whole_group_and_all_that_follows() {
    let disk = SimDisk::new(2);
    let committer = start(&disk, CommitterOptions::default());
    committer.append(record(0)).await.unwrap();
    disk.fail_next_sync();
    assert!(committer.append(record(1)).await.unwrap_err().is_fatal());
    assert!(matches!(committer.append(record(2)).await, Err(WalError::Poisoned)));
    assert_eq!(committer.reader().synced(), 1);
    assert_eq!(committer.reader().read(0).unwrap(), Some(Entry::Record(record(0))));
}

#[tokio::test]
async fn p5_a_full_disk_refuses_and_recovers_alone() {
    let disk = SimDisk::new(3);
    let committer = start(&disk, CommitterOptions::default());
    committer.append(record(0)).await.unwrap();
    disk.set_capacity(Some(committer.bytes_on_disk() + 40));
    assert!(matches!(committer.append(record(1)).await, Err(WalError::Full)));
    assert!(matches!(
        committer.append(Bytes::from(vec![0; 1 << 17])).await,
        Err(WalError::TooLarge { .. })
    ));
    disk.set_capacity(None);
    assert_eq!(committer.append(record(2)).await.unwrap(), 1);
    assert_eq!(committer.reader().read(1).unwrap(), Some(Entry::Record(record(2))));
}

#[tokio::test]
async fn p2_records_that_belong_together_are_all_in_the_log_or_none_is() {
    let disk = SimDisk::new(5);
    let committer = start(&disk, CommitterOptions::default());
    committer.append(record(0)).await.unwrap();
    let three: Vec<Bytes> = (1..=3).map(|n| Bytes::from(vec![n; 1000])).collect();
    // Room for two of the three, and then for a group that is too large for memory, of which a part is written early.
    let large: Vec<Bytes> = (0..100).map(|n| Bytes::from(vec![n; 60_000])).collect();
    for (records, room) in [(&three, 2500), (&large, 5_500_000)] {
        disk.set_capacity(Some(committer.bytes_on_disk() + room));
        assert!(matches!(
            committer.append_all(records.clone()).await,
            Err(WalError::Full)
        ));
        assert_eq!(committer.reader().synced(), 1);
    }
    disk.set_capacity(None);
    // One that is never taken: none of them is.
    let mut bad = three.clone();
    bad.insert(1, Bytes::from(vec![0; 1 << 17]));
    assert!(matches!(
        committer.append_all(bad).await,
        Err(WalError::TooLarge { .. })
    ));
    assert_eq!(committer.append_all(three.clone()).await.unwrap(), 1);
    for (index, expected) in (1..).zip(&three) {
        assert_eq!(
            committer.reader().read(index).unwrap(),
            Some(Entry::Record(expected.clone()))
        );
    }
    // A power cut before the sync leaves none.
    disk.fail_next_sync();
    assert!(committer.append_all(three).await.unwrap_err().is_fatal());
    disk.power_cut();
    let again = start(&disk, CommitterOptions::default());
    let found = again.reader().synced();
    assert!(found == 4 || found == 7, "a part of a group: {found}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_beside_writers_see_every_record_once_in_order_while_segments_come_and_go() {
    let disk = SimDisk::new(4);
    let options = Options {
        segment_bytes: 4096,
        max_record_bytes: 1 << 16,
        ballast_bytes: 0,
    };
    let options_committer = CommitterOptions {
        queue: 8,
        queue_bytes: 200,
        ..CommitterOptions::default()
    };
    let committer = Committer::start(Wal::open_on(disk.storage(), options).unwrap().0, options_committer);
    let written = Arc::new(std::sync::Mutex::new(std::collections::BTreeMap::new()));
    let writers: Vec<_> = (0..4)
        .map(|w| {
            let (committer, written) = (committer.clone(), written.clone());
            tokio::spawn(async move {
                for n in 0..500 {
                    let record = record(w * 1000 + n);
                    let index = committer.append(record.clone()).await.unwrap();
                    assert!(written.lock().unwrap().insert(index, record).is_none());
                }
            })
        })
        .collect();
    let (mut seen, mut synced, reader) = (Vec::new(), committer.synced(), committer.reader());
    while seen.len() < 2000 {
        let from = seen.len() as u64;
        synced.wait_for(|s| *s > from).await.unwrap();
        for (index, entry) in reader.read_range(from, 100, 1000).unwrap() {
            let Entry::Record(bytes) = entry else {
                panic!("damaged {index}")
            };
            assert_eq!(index, seen.len() as u64);
            seen.push(bytes);
        }
        committer.trim_below(seen.len() as u64).await.unwrap();
    }
    for writer in writers {
        writer.await.unwrap();
    }
    assert!(written.lock().unwrap().values().eq(seen.iter()));
    assert!(reader.first() > 0 && matches!(reader.read(0), Err(WalError::Trimmed { .. })));
    committer.close().await;
}
