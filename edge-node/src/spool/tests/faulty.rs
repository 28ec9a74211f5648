//! For tests: disks that refuse, with unreadable sectors or without room.
#![allow(clippy::unwrap_used)]

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex};

use sluice_wal::Wal;
use sluice_wal::storage::{Directory, Storage, StorageFile};

use crate::spool::open::wal_options;
use crate::spool::{Opened, Spool, SpoolOptions, lock};

/// A folder of which offsets of every segment cannot be read, or which is full.
#[derive(Debug)]
pub(crate) struct Disk {
    folder: Directory,
    faults: Arc<Mutex<Faults>>,
}

#[derive(Debug, Default)]
pub(crate) struct Faults {
    pub(crate) unreadable: Range<u64>,
    /// So many reads fail.
    pub(crate) failures: u64,
    pub(crate) full: bool,
    /// So many writes more succeed before the disk is full.
    pub(crate) writes_left: Option<u64>,
}

impl Faults {
    fn is_full(&self) -> bool {
        self.full || self.writes_left == Some(0)
    }
}

#[derive(Debug)]
struct File {
    file: Arc<dyn StorageFile>,
    faults: Arc<Mutex<Faults>>,
}

impl Disk {
    pub(crate) fn new(dir: &Path, faults: &Arc<Mutex<Faults>>) -> Arc<Self> {
        Arc::new(Self {
            folder: Directory::lock(dir).unwrap(),
            faults: faults.clone(),
        })
    }

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
        if lock(&self.faults).is_full() {
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
        let mut faults = lock(&self.faults);
        if faults.is_full() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        faults.writes_left = faults.writes_left.map(|left| left - 1);
        drop(faults);
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

/// Small limits, nothing compressed.
pub(crate) fn options(dir: &Path) -> SpoolOptions {
    SpoolOptions {
        data_dir: dir.to_owned(),
        max_bytes: 64 << 20,
        ballast: 1 << 16,
        zstd_level: 0,
        max_batch_bytes: 1 << 20,
    }
}

/// A spool on such a disk.
pub(crate) fn open(dir: &Path, faults: &Arc<Mutex<Faults>>) -> (Spool, Opened) {
    let options = options(dir);
    let disk = Disk::new(&dir.join("spool"), faults);
    let (wal, recovery) = Wal::open_marked_on(disk, wal_options(&options)).unwrap();
    let (tenant, node) = ("acme".parse().unwrap(), "site".parse().unwrap());
    Spool::on(wal, &recovery, options, &tenant, &node).unwrap()
}
