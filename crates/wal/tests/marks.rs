//! P6: what the markers say of their records, also of those that cannot be read any more.
#![allow(clippy::unwrap_used)]

#[allow(dead_code)]
mod sim;

use sim::SimDisk;
use sluice_wal::{Mark, Options, Wal, WalError};

fn options() -> Options {
    Options {
        segment_bytes: 500,
        max_record_bytes: 1 << 16,
        ballast_bytes: 0,
    }
}

fn mark(n: u64) -> Mark {
    u128::from(n).to_le_bytes()
}

/// A group of so many records, marked with the index behind it.
fn group(wal: &mut Wal, records: usize) -> Result<(), WalError> {
    for _ in 0..records {
        wal.append(&[9; 100])?;
        wal.set_mark(mark(wal.next()));
    }
    wal.sync()
}

#[test]
fn p6_each_group_is_marked_and_a_segment_begins_with_the_mark_of_what_was_before_it() {
    let disk = SimDisk::new(1);
    let (mut wal, _) = Wal::open_marked_on(disk.storage(), options()).unwrap();
    for records in [1, 3, 2, 1, 4, 2] {
        group(&mut wal, records).unwrap();
    }
    let ends = [1, 4, 6, 7, 11, 13];
    let marks = wal.reader().marks(0).unwrap();
    assert!(ends.iter().all(|end| marks.contains(&(*end, mark(*end)))), "{marks:?}");
    wal.trim_below(11).unwrap();
    let first = wal.first();
    assert!(first > 4, "something is deleted");
    assert_eq!(wal.reader().marks(first).unwrap()[0], (first, mark(first)));
    // The same after a restart, and the next group goes on.
    drop(wal);
    disk.power_cut();
    let (mut wal, _) = Wal::open_marked_on(disk.storage(), options()).unwrap();
    group(&mut wal, 1).unwrap();
    assert_eq!(wal.reader().marks(first).unwrap().last(), Some(&(14, mark(14))));
}

#[test]
fn p5_a_group_that_a_full_disk_takes_back_takes_its_mark_back() {
    let disk = SimDisk::new(2);
    let (mut wal, _) = Wal::open_marked_on(disk.storage(), options()).unwrap();
    group(&mut wal, 1).unwrap();
    disk.set_capacity(Some(wal.bytes_on_disk() + 150));
    assert!(matches!(group(&mut wal, 2), Err(WalError::Full)));
    disk.set_capacity(None);
    wal.append(b"without a mark of its own").unwrap();
    wal.sync().unwrap();
    assert_eq!(wal.reader().marks(0).unwrap().last(), Some(&(2, mark(1))));
}

#[test]
fn a_log_without_marks_is_read_and_goes_on_with_them() {
    let disk = SimDisk::new(3);
    let (mut wal, _) = Wal::open_on(disk.storage(), options()).unwrap();
    group(&mut wal, 2).unwrap();
    assert_eq!(wal.reader().marks(0).unwrap(), []);
    drop(wal);
    let (mut wal, recovery) = Wal::open_marked_on(disk.storage(), options()).unwrap();
    assert_eq!((recovery.next, recovery.damaged.len()), (2, 0));
    group(&mut wal, 1).unwrap();
    assert_eq!(wal.reader().marks(0).unwrap().last(), Some(&(3, mark(3))));
    // And one that is not told to carry them reads them, too.
    drop(wal);
    let (wal, recovery) = Wal::open_on(disk.storage(), options()).unwrap();
    assert_eq!((wal.next(), recovery.damaged.len()), (3, 0));
    assert_eq!(wal.reader().read_range(0, 10, 10_000).unwrap().len(), 3);
}
