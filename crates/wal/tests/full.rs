//! P5: a disk that is full, of this log or of something else, and the way out of it.
#![allow(clippy::unwrap_used)]

#[allow(dead_code)]
mod sim;

use sim::SimDisk;
use sluice_wal::{Options, Wal, WalError};

fn options() -> Options {
    Options {
        segment_bytes: 1 << 20,
        max_record_bytes: 1 << 16,
        ballast_bytes: 4096,
    }
}

fn open(disk: &SimDisk) -> Wal {
    let (mut wal, _) = Wal::open_on(disk.storage(), options()).unwrap();
    wal.set_note(&wal.next().to_le_bytes());
    wal
}

/// Records until nothing more fits; how many did.
fn fill(wal: &mut Wal) -> u64 {
    let begun = wal.next();
    loop {
        wal.set_note(&(wal.next() + 1).to_le_bytes());
        match wal.append(&[7; 1000]).and_then(|_| wal.sync()) {
            Ok(()) => {}
            Err(WalError::Full) => return wal.next() - begun,
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn p5_the_newest_segment_is_let_go_when_it_fills_the_disk_and_nobody_needs_it() {
    let disk = SimDisk::new(1);
    let mut wal = open(&disk);
    disk.set_capacity(Some(100_000));
    for _ in 0..3 {
        assert!(fill(&mut wal) > 50);
        // Never the newest segment.
        assert_eq!(wal.trim_below(wal.next()).unwrap(), 0);
        assert!(!wal.has_room());
        // Something in it is needed.
        assert!(!wal.relieve(wal.next() - 1).unwrap());
        let next = wal.next();
        assert!(wal.relieve(next).unwrap());
        assert_eq!((wal.first(), wal.next()), (next, next), "indices go on");
    }
    let next = wal.next();
    drop(wal);
    disk.power_cut();
    assert_eq!(open(&disk).next(), next);
}

#[test]
fn p5_a_log_that_lost_its_end_opens_on_a_disk_that_others_filled() {
    let disk = SimDisk::new(2);
    let mut wal = open(&disk);
    wal.append(b"one").unwrap();
    wal.sync().unwrap();
    let used = wal.bytes_on_disk() + options().ballast_bytes;
    drop(wal);
    disk.set_capacity(Some(used));
    let mut wal = open(&disk);
    assert!(!wal.has_room());
    // The reader of this log is further than it: indices are skipped, which takes a segment.
    wal.skip_to(10).unwrap();
    assert!(matches!(wal.append(b"two"), Err(WalError::Full)));
    disk.set_capacity(None);
    assert_eq!(wal.append(b"two").unwrap(), 10);
    wal.sync().unwrap();
}

#[test]
fn p5_an_empty_folder_takes_the_ballast_s_place() {
    let disk = SimDisk::new(3);
    // A process before made the ballast, and was killed before the segment.
    sluice_wal::storage::Storage::allocate(&*disk.storage(), "ballast", 4096).unwrap();
    disk.set_capacity(Some(4096));
    assert!(!open(&disk).has_room());
}
