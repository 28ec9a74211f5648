//! The spool on disks that refuse: unreadable sectors, no room.
#![allow(clippy::unwrap_used)]

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use sluice_wal::Wal;
use sluice_wal::storage::{Directory, Storage, StorageFile};
use sluice_wire::envelope::Envelope;

use super::open::wal_options;
use super::*;

/// A folder of which offsets of every segment cannot be read, or which is full.
#[derive(Debug)]
struct Disk {
    folder: Directory,
    faults: Arc<Mutex<Faults>>,
}

#[derive(Debug, Default)]
struct Faults {
    unreadable: Range<u64>,
    /// So many reads fail.
    failures: u64,
    full: bool,
}

#[derive(Debug)]
struct File {
    file: Arc<dyn StorageFile>,
    faults: Arc<Mutex<Faults>>,
}

impl Disk {
    fn file(&self, file: Arc<dyn StorageFile>) -> Arc<dyn StorageFile> {
        Arc::new(File {
            file,
            faults: self.faults.clone(),
        })
    }
}

impl Storage for Disk {
    fn list(&self) -> io::Result<Vec<String>> {
        self.folder.list()
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        Ok(self.file(self.folder.create(name)?))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        Ok(self.file(self.folder.open(name)?))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.folder.remove(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.folder.rename(from, to)
    }

    fn allocate(&self, name: &str, bytes: u64) -> io::Result<()> {
        if lock(&self.faults).full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.folder.allocate(name, bytes)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.folder.sync_dir()
    }
}

impl StorageFile for File {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let mut faults = lock(&self.faults);
        let end = offset + buf.len() as u64;
        if faults.failures > 0 && offset < faults.unreadable.end && end > faults.unreadable.start {
            faults.failures -= 1;
            // EIO
            return Err(io::Error::from_raw_os_error(5));
        }
        drop(faults);
        self.file.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if lock(&self.faults).full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.write_at(offset, bytes)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

fn open(dir: &Path, faults: &Arc<Mutex<Faults>>) -> (Spool, Opened) {
    let options = SpoolOptions {
        data_dir: dir.to_owned(),
        max_bytes: 64 << 20,
        ballast: 1 << 16,
        zstd_level: 0,
        max_batch_bytes: 1 << 20,
    };
    let disk = Disk {
        folder: Directory::lock(&dir.join("spool")).unwrap(),
        faults: faults.clone(),
    };
    let (wal, recovery) = Wal::open_on(Arc::new(disk), wal_options(&options)).unwrap();
    let (tenant, node) = ("acme".parse().unwrap(), "site".parse().unwrap());
    Spool::on(wal, &recovery, options, &tenant, &node).unwrap()
}

/// A batch whose events were all dropped, with so many bytes of text.
fn draft(position: u64) -> Draft {
    let mut counts = Counts {
        accepted: 10,
        ..Counts::default()
    };
    counts.dropped.push(sluice_wire::counts::Dropped {
        plugin: "p".to_owned(),
        reason: "r".to_owned(),
        rows: 10,
    });
    Draft {
        kind: Kind::Data,
        rows: None,
        counts,
        journal_upto: position,
        time_min_ns: 0,
        time_max_ns: 0,
        sealed_at_ns: 1,
        detail: "x".repeat(20_000),
    }
}

#[test]
fn p6_a_batch_in_an_unreadable_sector_becomes_a_tombstone_after_some_attempts_and_the_rest_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    let faults = Arc::<Mutex<Faults>>::default();
    let (spool, _) = open(dir.path(), &faults);
    (1..=5).for_each(|n| assert_eq!(spool.append(&draft(n)).unwrap(), n - 1));
    *lock(&faults) = Faults {
        unreadable: 49_152..53_248,
        failures: u64::MAX,
        full: false,
    };
    let (mut at, mut failed, mut counts) = (0, 0, Counts::default());
    let mut kinds = Vec::new();
    while kinds.len() < 5 {
        match spool.next_from(at) {
            Ok(found) => {
                let (index, bytes) = found.unwrap();
                let header = Envelope::parse(bytes.clone()).unwrap().header;
                assert_eq!((index, header.id.seq), (at, at));
                assert_eq!(spool.read(index).unwrap(), bytes, "the same bytes again");
                counts.merge(&header.counts);
                kinds.push(header.kind);
                at += 1;
            }
            Err(_) => failed += 1,
        }
        assert!(failed < 100, "the uplink never gets on: {kinds:?}");
    }
    assert_eq!(kinds.iter().filter(|k| **k == Kind::Tombstone).count(), 1);
    assert!(failed >= 3, "given up after {failed} attempts");
    assert_eq!((counts.accepted, counts.dropped_rows() + counts.damaged), (50, 50));
}

#[test]
fn p6_a_disk_that_fails_for_a_moment_costs_no_batch() {
    let dir = tempfile::tempdir().unwrap();
    let faults = Arc::<Mutex<Faults>>::default();
    let (spool, _) = open(dir.path(), &faults);
    (1..=3).for_each(|n| assert_eq!(spool.append(&draft(n)).unwrap(), n - 1));
    *lock(&faults) = Faults {
        unreadable: 0..u64::MAX,
        failures: 3,
        full: false,
    };
    let mut failed = 0;
    let bytes = loop {
        match spool.next_from(0) {
            Ok(found) => break found.unwrap().1,
            Err(_) => failed += 1,
        }
    };
    assert!(failed > 0);
    assert_eq!(Envelope::parse(bytes).unwrap().header.kind, Kind::Data);
}

#[test]
fn p6_a_disk_that_takes_nothing_either_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let faults = Arc::<Mutex<Faults>>::default();
    let (spool, _) = open(dir.path(), &faults);
    spool.append(&draft(1)).unwrap();
    lock(&faults).unreadable = 0..u64::MAX;
    lock(&faults).failures = u64::MAX;
    // The cursor cannot be written: a folder stands in its place.
    std::fs::create_dir(dir.path().join("cursor")).unwrap();
    for _ in 0..20 {
        assert!(spool.next_from(0).is_err());
    }
    lock(&faults).failures = 0;
    let (_, bytes) = spool.next_from(0).unwrap().unwrap();
    assert_eq!(Envelope::parse(bytes).unwrap().header.kind, Kind::Data);
}

#[test]
fn p5_on_a_full_disk_everything_acknowledged_is_let_go_and_identities_and_positions_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let faults = Arc::<Mutex<Faults>>::default();
    let (spool, opened) = open(dir.path(), &faults);
    assert!(!opened.full);
    (1..=5).for_each(|n| assert_eq!(spool.append(&draft(n)).unwrap(), n - 1));
    let (used, epoch) = (spool.bytes_on_disk(), spool.epoch().0);
    (0..4).for_each(|n| spool.acked(n));
    spool.relieve().unwrap();
    assert_eq!(spool.bytes_on_disk(), used, "a batch in the newest file is needed");
    spool.acked(4);
    assert!(spool.relieve().unwrap());
    assert!(spool.bytes_on_disk() < 1000, "{} bytes are kept", spool.bytes_on_disk());
    assert_eq!(spool.append(&draft(6)).unwrap(), 5);
    // The totals of what is deleted are not needed to know what a damaged batch held.
    assert!(spool.epoch().0.number > epoch.number);
    drop(spool);
    std::fs::remove_file(dir.path().join("cursor")).unwrap();
    let (spool, opened) = open(dir.path(), &faults);
    assert_eq!(opened.covered, 6);
    let (index, bytes) = spool.next_from(0).unwrap().unwrap();
    assert_eq!((index, Envelope::parse(bytes).unwrap().header.id.seq), (5, 0));
}

#[test]
fn p5_what_was_let_go_is_never_sealed_again() {
    let dir = tempfile::tempdir().unwrap();
    let faults = Arc::<Mutex<Faults>>::default();
    let (spool, _) = open(dir.path(), &faults);
    spool.append(&draft(9)).unwrap();
    spool.acked(0);
    assert!(spool.relieve().unwrap());
    drop(spool);
    // Neither cursor nor record: the note of the empty segment knows it.
    std::fs::remove_file(dir.path().join("cursor")).unwrap();
    assert_eq!(open(dir.path(), &faults).1.covered, 9);
}
