//! P3: totals that records carry grow with the index, whoever waits for room and whatever does not fit.
#![allow(clippy::unwrap_used)]

#[allow(dead_code)]
mod sim;

use sim::SimDisk;
use sluice_wal::{Committer, CommitterOptions, Counted, Counting, Entry, Options, Wal, WalError};

const AT: usize = 4;

fn record(adds: u64, size: usize) -> Counted {
    Counted {
        record: [&[7u8; AT + 8][..], &adds.to_le_bytes(), &vec![0; size]].concat(),
        adds,
    }
}

fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn p3_the_difference_of_two_totals_is_what_lies_between_them() {
    let disk = SimDisk::new(7);
    let wal_options = Options {
        segment_bytes: 2000,
        max_record_bytes: 1 << 16,
        ballast_bytes: 0,
    };
    let (wal, _) = Wal::open_marked_on(disk.storage(), wal_options).unwrap();
    // A queue so short that most wait outside.
    let options = CommitterOptions {
        queue: 2,
        queue_bytes: 300,
        ..CommitterOptions::default()
    };
    let counting = Counting {
        at: AT,
        mark: Box::new(|total| u128::from(total).to_le_bytes()),
    };
    let committer = Committer::start_counting(wal, options, counting);
    let tasks: Vec<_> = (0..8u64)
        .map(|task| {
            let (committer, disk) = (committer.clone(), disk.clone());
            tokio::spawn(async move {
                let (mut taken, mut refused) = (0, 0);
                for n in 0..120u64 {
                    if task == 0 {
                        // The disk is full in every third round.
                        let room = (n % 3 == 0).then(|| committer.bytes_on_disk() + 40);
                        disk.set_capacity(room);
                    }
                    let records: Vec<_> = (0..=n % 3)
                        .map(|k| record(1 + task + n + k, (n % 50) as usize))
                        .collect();
                    let adds: u64 = records.iter().map(|r| r.adds).sum();
                    match committer.append_counted(records).await {
                        Ok(_) => taken += adds,
                        Err(WalError::Full) => refused += 1,
                        Err(other) => panic!("{other}"),
                    }
                }
                (taken, refused)
            })
        })
        .collect();
    let (mut taken, mut refused) = (0, 0);
    for task in tasks {
        let (more, not) = task.await.unwrap();
        taken += more;
        refused += not;
    }
    assert!(refused > 0, "the disk was never full");
    let reader = committer.reader();
    let (mut total, mut ends) = (0, vec![(0, 0)]);
    while (ends.len() as u64) <= reader.synced() {
        for (index, entry) in reader.read_range(ends.len() as u64 - 1, 100, 1 << 20).unwrap() {
            let Entry::Record(bytes) = entry else {
                panic!("damaged {index}")
            };
            total += number(&bytes, AT + 8);
            assert_eq!(number(&bytes, AT), total, "total of record {index}");
            ends.push((index + 1, total));
        }
    }
    assert_eq!(total, taken);
    for (next, mark) in reader.marks(0).unwrap() {
        assert!(ends.contains(&(next, number(&mark, 0))), "mark at {next}");
    }
    committer.close().await;
}
