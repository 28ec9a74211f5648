//! P6: a sector that cannot be read at all costs the records that lie in it and nothing else.
#![allow(clippy::unwrap_used)]

#[allow(dead_code)]
mod sim;

use sim::SimDisk;
use sluice_wal::{Entry, Options, Wal};

const RECORDS: u64 = 200;

fn options() -> Options {
    Options {
        segment_bytes: 1 << 20,
        max_record_bytes: 1 << 16,
        ballast_bytes: 0,
    }
}

fn record(index: u64) -> Vec<u8> {
    vec![index as u8 ^ 0x5a; 1000]
}

fn filled() -> (SimDisk, Wal) {
    let disk = SimDisk::new(1);
    let (mut wal, _) = Wal::open_on(disk.storage(), options()).unwrap();
    for index in 0..RECORDS {
        wal.append(&record(index)).unwrap();
        wal.sync().unwrap();
    }
    (disk, wal)
}

/// Reads everything; the damaged.
fn salvaged(wal: &Wal) -> Vec<u64> {
    let (mut at, mut damaged) = (0, Vec::new());
    while at < wal.next() {
        for (index, entry) in wal.reader().salvage_range(at, 7, 1 << 20).unwrap() {
            assert_eq!(index, at);
            match entry {
                Entry::Record(bytes) => assert_eq!(&bytes[..], record(index)),
                Entry::Damaged { .. } => damaged.push(index),
            }
            at += 1;
        }
    }
    damaged
}

#[test]
fn p6_an_unreadable_sector_is_damage_of_the_records_in_it() {
    let (disk, wal) = filled();
    assert_eq!(salvaged(&wal), []);
    disk.set_unreadable(40_960..45_056);
    // Asked plainly, it is an error that tells what it is: another attempt may help.
    let error = wal.reader().read_range(0, 1000, usize::MAX).unwrap_err();
    assert!(error.is_unreadable(), "{error}");
    let damaged = salvaged(&wal);
    assert!(
        (4..=6).contains(&damaged.len()) && damaged.windows(2).all(|w| w[1] == w[0] + 1),
        "{damaged:?}"
    );
    let inside = damaged[2];
    assert!(matches!(
        wal.reader().salvage(inside).unwrap(),
        Some(Entry::Damaged { .. })
    ));
    // It was the disk's mood.
    disk.set_unreadable(0..0);
    assert_eq!(
        wal.reader().read(inside).unwrap(),
        Some(Entry::Record(record(inside).into()))
    );
}

#[test]
fn p6_a_log_with_an_unreadable_sector_opens_and_goes_on() {
    for from in [0, 40_960, 196_608] {
        let (disk, wal) = filled();
        drop(wal);
        disk.kill();
        disk.set_unreadable(from..from + 4096);
        let (mut wal, recovery) = Wal::open_on(disk.storage(), options()).unwrap();
        let damaged = salvaged(&wal);
        let reported: Vec<u64> = recovery.damaged.iter().map(|d| d.0).collect();
        assert_eq!(damaged, reported, "what opening reports is what reading meets");
        assert!(!damaged.is_empty() && damaged.len() <= 6, "at {from}: {damaged:?}");
        assert_eq!(wal.next(), RECORDS);
        assert_eq!(wal.append(b"more").unwrap(), RECORDS);
        wal.sync().unwrap();
    }
}
