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

#[test]
fn p5_where_others_took_the_room_of_the_ballast_records_that_nobody_needs_make_room() {
    let disk = SimDisk::new(4);
    let mut wal = open(&disk);
    for _ in 0..50 {
        wal.append(&[7; 1000]).unwrap();
        wal.sync().unwrap();
    }
    wal.set_note(&50u64.to_le_bytes());
    // To the last byte, and then the ballast's place.
    disk.set_capacity(Some(wal.bytes_on_disk()));
    wal.give_up_ballast();
    let used = wal.bytes_on_disk();
    assert!(!wal.relieve(49).unwrap(), "the last record is needed");
    assert_eq!(wal.bytes_on_disk(), used);
    assert!(wal.relieve(50).unwrap());
    assert!(wal.bytes_on_disk() < 1000);
    assert_eq!((wal.first(), wal.next()), (50, 50));
    assert_eq!(wal.append(b"more").unwrap(), 50);
    wal.sync().unwrap();
}

#[test]
fn p5_a_process_that_dies_when_it_has_made_such_room_goes_on_at_the_same_index() {
    for steps in 0..12 {
        for power in [true, false] {
            let disk = SimDisk::new(100 + steps);
            let mut wal = open(&disk);
            for n in 0..30 {
                wal.append(&[n; 1000]).unwrap();
                wal.sync().unwrap();
            }
            wal.set_note(&30u64.to_le_bytes());
            let used = wal.bytes_on_disk();
            disk.set_capacity(Some(used));
            wal.give_up_ballast();
            disk.die_after(steps);
            let _ = wal.relieve(30);
            drop(wal);
            if power {
                disk.power_cut();
            } else {
                disk.kill();
            }
            // The disk is as full as before.
            let (mut wal, recovery) = Wal::open_on(disk.storage(), options()).unwrap();
            assert_eq!(wal.next(), 30, "after {steps} steps");
            let noted = 30u64.to_le_bytes();
            assert!(
                recovery.note.is_empty() || recovery.note == noted,
                "after {steps} steps"
            );
            assert!(recovery.first == 0 || recovery.note == noted, "after {steps} steps");
            wal.set_note(&30u64.to_le_bytes());
            assert!(wal.relieve(30).unwrap(), "after {steps} steps");
            assert_eq!(wal.append(b"more").unwrap(), 30);
            wal.sync().unwrap();
        }
    }
}

#[test]
fn p5_a_folder_that_was_never_used_opens_on_a_full_disk_and_begins_when_there_is_room() {
    for marks in [false, true] {
        let disk = SimDisk::new(5);
        disk.set_capacity(Some(10));
        let open = if marks { Wal::open_marked_on } else { Wal::open_on };
        let (mut wal, recovery) = open(disk.storage(), options()).unwrap();
        assert_eq!(recovery.next, 0);
        assert!(!wal.has_room());
        assert!(matches!(wal.append(b"no"), Err(WalError::Full)));
        assert!(!wal.relieve(0).unwrap());
        wal.skip_to(7).unwrap();
        wal.set_note(b"noted");
        // Room for the ballast and not for more.
        disk.set_capacity(Some(options().ballast_bytes + 50));
        assert!(!wal.has_room());
        disk.set_capacity(None);
        assert_eq!(wal.append(b"yes").unwrap(), 7);
        wal.sync().unwrap();
        drop(wal);
        disk.power_cut();
        let (wal, recovery) = open(disk.storage(), options()).unwrap();
        assert_eq!((wal.next(), wal.first(), &recovery.note[..]), (8, 7, &b"noted"[..]));
        assert_eq!((recovery.damaged.len(), recovery.gaps.len()), (0, 0));
    }
}

/// On a real file system, where a file that is open keeps its room after its name is gone.
#[test]
fn p5_files_that_a_reader_has_open_make_room_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let (mut wal, _) = Wal::open(dir.path(), options()).unwrap();
    for _ in 0..10 {
        wal.append(&[7; 50_000]).unwrap();
        wal.sync().unwrap();
    }
    let reader = wal.reader();
    assert!(reader.read(9).unwrap().is_some());
    let name = dir.path().join(&reader.segments()[0].name);
    let open = std::fs::File::open(&name).unwrap();
    assert!(wal.relieve(10).unwrap());
    assert!(!name.exists());
    assert_eq!(open.metadata().unwrap().len(), 0);
    assert!(matches!(reader.read(9), Err(WalError::Trimmed { first: 10 })));
}
