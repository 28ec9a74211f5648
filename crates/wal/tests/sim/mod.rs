//! A disk that forgets: whatever was not synced survives a power cut in any subset, torn at any byte.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex};

use sluice_wal::storage::{Storage, StorageFile};

/// Handle to one disk; outlives the logs opened on it.
#[derive(Clone, Debug, Default)]
pub(crate) struct SimDisk {
    disk: Arc<Mutex<Disk>>,
    gate: Arc<(Mutex<Gate>, Condvar)>,
}

#[derive(Debug, Default)]
struct Disk {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    name_changes: Vec<NameChange>,
    /// Handles made before the last crash are dead.
    life: u64,
    /// Steps until everything fails as if the process had died.
    steps_left: Option<u64>,
    fail_next_sync: bool,
    capacity: Option<u64>,
    /// Offsets of every file that cannot be read.
    unreadable: std::ops::Range<u64>,
    faults: Faults,
    rng: u64,
}

/// What became of changes that were not synced, and other rare things, since the disk was made.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    pub(crate) torn: u64,
    pub(crate) lost: u64,
    pub(crate) punched: u64,
    pub(crate) removed: u64,
}

#[derive(Debug, Default)]
struct Inode {
    seen: Vec<u8>,
    durable: Vec<u8>,
    changes: Vec<Change>,
    /// Bytes that take no room.
    hole: std::ops::Range<u64>,
}

impl Inode {
    fn room(&self) -> u64 {
        self.seen.len() as u64 - (self.hole.end - self.hole.start)
    }
}

#[derive(Clone, Debug)]
enum Change {
    Write { at: usize, bytes: Vec<u8> },
    SetLen(usize),
}

#[derive(Clone, Debug)]
enum NameChange {
    Link(String, usize),
    Unlink(String),
}

/// Lets a test hold syncs back and see that one waits.
#[derive(Debug, Default)]
struct Gate {
    closed: bool,
    waiting: usize,
    passed: usize,
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    inode: usize,
    life: u64,
}

/// One life of a process on the disk.
#[derive(Debug)]
pub(crate) struct SimStorage {
    disk: SimDisk,
    life: u64,
}

impl SimDisk {
    pub(crate) fn new(seed: u64) -> Self {
        let disk = Self::default();
        disk.disk.lock().unwrap().rng = seed | 1;
        disk
    }

    pub(crate) fn storage(&self) -> Arc<SimStorage> {
        Arc::new(SimStorage {
            disk: self.clone(),
            life: self.disk.lock().unwrap().life,
        })
    }

    /// The process dies after so many more steps that change something.
    pub(crate) fn die_after(&self, steps: u64) {
        self.disk.lock().unwrap().steps_left = Some(steps);
    }

    pub(crate) fn fail_next_sync(&self) {
        self.disk.lock().unwrap().fail_next_sync = true;
    }

    pub(crate) fn faults(&self) -> Faults {
        self.disk.lock().unwrap().faults
    }

    /// Room for the content of all files.
    pub(crate) fn set_capacity(&self, bytes: Option<u64>) {
        self.disk.lock().unwrap().capacity = bytes;
    }

    /// Offsets of every file that cannot be read from now on.
    pub(crate) fn set_unreadable(&self, offsets: std::ops::Range<u64>) {
        self.disk.lock().unwrap().unreadable = offsets;
    }

    /// The process is gone; what it wrote is still in the page cache.
    pub(crate) fn kill(&self) {
        let mut disk = self.disk.lock().unwrap();
        disk.life += 1;
        disk.steps_left = None;
        disk.fail_next_sync = false;
    }

    /// The power is gone: un-synced changes survive in any subset, writes in any part.
    pub(crate) fn power_cut(&self) {
        self.kill();
        let mut disk = self.disk.lock().unwrap();
        let Disk {
            inodes,
            names,
            durable_names,
            name_changes,
            rng,
            faults,
            ..
        } = &mut *disk;
        for inode in inodes.iter_mut() {
            inode.keep_some(rng, faults);
            inode.seen = inode.durable.clone();
            inode.hole = 0..0;
        }
        for change in name_changes.drain(..) {
            if next(rng).is_multiple_of(2) {
                change.apply(durable_names);
            } else {
                faults.lost += 1;
            }
        }
        *names = durable_names.clone();
    }

    pub(crate) fn close_gate(&self) {
        self.gate.0.lock().unwrap().closed = true;
    }

    pub(crate) fn open_gate(&self) {
        self.gate.0.lock().unwrap().closed = false;
        self.gate.1.notify_all();
    }

    /// Blocks until a sync is being held back.
    pub(crate) fn wait_for_held_sync(&self) {
        let mut gate = self.gate.0.lock().unwrap();
        while gate.waiting == 0 {
            gate = self.gate.1.wait(gate).unwrap();
        }
    }

    pub(crate) fn syncs(&self) -> usize {
        self.gate.0.lock().unwrap().passed
    }

    fn pass_gate(&self) {
        let mut gate = self.gate.0.lock().unwrap();
        gate.waiting += 1;
        self.gate.1.notify_all();
        while gate.closed {
            gate = self.gate.1.wait(gate).unwrap();
        }
        gate.waiting -= 1;
        gate.passed += 1;
    }

    /// The disk, for a step that changes something; an error once the process has died.
    fn step(&self, life: u64) -> io::Result<std::sync::MutexGuard<'_, Disk>> {
        let mut disk = self.disk.lock().unwrap();
        let dead = disk.life != life
            || match &mut disk.steps_left {
                None => false,
                Some(0) => true,
                Some(left) => {
                    *left -= 1;
                    false
                }
            };
        if dead {
            Err(io::Error::other("the process is dead"))
        } else {
            Ok(disk)
        }
    }
}

impl Disk {
    fn used(&self) -> u64 {
        self.names.values().map(|i| self.inodes[*i].room()).sum()
    }

    fn change_name(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.name_changes.push(change);
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Link(name, inode) => {
                names.insert(name.clone(), *inode);
            }
            Self::Unlink(name) => {
                names.remove(name);
            }
        }
    }
}

impl Inode {
    fn change(&mut self, change: Change) {
        apply(&mut self.seen, &change);
        self.changes.push(change);
    }

    /// What a crash or a failed sync leaves of the changes since the last sync: any of them, in whole or in part, so a later one
    /// may be there without an earlier one.
    fn keep_some(&mut self, rng: &mut u64, faults: &mut Faults) {
        for change in std::mem::take(&mut self.changes) {
            match (next(rng) % 4, change) {
                (0, _) => faults.lost += 1,
                (1, Change::Write { at, bytes }) => {
                    faults.torn += 1;
                    let from = (next(rng) as usize) % (bytes.len() + 1);
                    let to = from + (next(rng) as usize) % (bytes.len() - from + 1);
                    let part = Change::Write {
                        at: at + from,
                        bytes: bytes[from..to].to_vec(),
                    };
                    apply(&mut self.durable, &part);
                }
                (_, change) => apply(&mut self.durable, &change),
            }
        }
    }
}

fn apply(content: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write { at, bytes } if bytes.is_empty() => {
            let _ = at;
        }
        Change::Write { at, bytes } => {
            let end = at + bytes.len();
            content.resize(content.len().max(end), 0);
            content[*at..end].copy_from_slice(bytes);
        }
        Change::SetLen(len) => content.resize(*len, 0),
    }
}

/// xorshift64*: the seed gives the schedule.
fn next(state: &mut u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
}

fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl SimStorage {
    fn file(&self, inode: usize) -> Arc<dyn StorageFile> {
        Arc::new(SimFile {
            disk: self.disk.clone(),
            inode,
            life: self.life,
        })
    }
}

impl Storage for SimStorage {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.disk.disk.lock().unwrap().names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        let mut disk = self.disk.step(self.life)?;
        if disk.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        disk.inodes.push(Inode::default());
        let inode = disk.inodes.len() - 1;
        disk.change_name(NameChange::Link(name.to_owned(), inode));
        Ok(self.file(inode))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        let inode = self
            .disk
            .disk
            .lock()
            .unwrap()
            .names
            .get(name)
            .copied()
            .ok_or_else(not_found)?;
        Ok(self.file(inode))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut disk = self.disk.step(self.life)?;
        if !disk.names.contains_key(name) {
            return Err(not_found());
        }
        disk.change_name(NameChange::Unlink(name.to_owned()));
        disk.faults.removed += u64::from(name.ends_with(".wal"));
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut disk = self.disk.step(self.life)?;
        let inode = disk.names.get(from).copied().ok_or_else(not_found)?;
        disk.change_name(NameChange::Unlink(from.to_owned()));
        disk.change_name(NameChange::Link(to.to_owned(), inode));
        Ok(())
    }

    fn allocate(&self, name: &str, bytes: u64) -> io::Result<()> {
        let mut disk = self.disk.step(self.life)?;
        let held = disk.names.get(name).map_or(0, |i| disk.inodes[*i].seen.len() as u64);
        if disk.capacity.is_some_and(|c| disk.used() - held + bytes > c) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if held == 0 {
            disk.inodes.push(Inode::default());
            let inode = disk.inodes.len() - 1;
            disk.inodes[inode].change(Change::SetLen(bytes as usize));
            disk.change_name(NameChange::Link(name.to_owned(), inode));
        }
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut disk = self.disk.step(self.life)?;
        for change in std::mem::take(&mut disk.name_changes) {
            change.apply(&mut disk.durable_names);
        }
        Ok(())
    }
}

impl StorageFile for SimFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let disk = self.disk.disk.lock().unwrap();
        let content = &disk.inodes[self.inode].seen;
        let end = (content.len() as u64).min(offset + buf.len() as u64);
        if offset < disk.unreadable.end.min(end) && end > disk.unreadable.start {
            // EIO
            return Err(io::Error::from_raw_os_error(5));
        }
        let rest = content.get(offset as usize..).unwrap_or_default();
        let n = rest.len().min(buf.len());
        buf[..n].copy_from_slice(&rest[..n]);
        Ok(n)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.disk.step(self.life)?;
        let (at, held) = (offset as usize, disk.inodes[self.inode].seen.len());
        let grown = (at + bytes.len()).saturating_sub(held) as u64;
        let room = disk.capacity.map_or(u64::MAX, |c| c.saturating_sub(disk.used()));
        let fits = bytes.len() - grown.saturating_sub(room) as usize;
        disk.inodes[self.inode].change(Change::Write {
            at,
            bytes: bytes[..fits].to_vec(),
        });
        if fits < bytes.len() {
            Err(io::ErrorKind::StorageFull.into())
        } else {
            Ok(())
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut disk = self.disk.step(self.life)?;
        let inode = &mut disk.inodes[self.inode];
        inode.hole.end = inode.hole.end.min(len);
        inode.hole.start = inode.hole.start.min(inode.hole.end);
        inode.change(Change::SetLen(len as usize));
        Ok(())
    }

    fn punch(&self, from: u64, to: u64) -> io::Result<()> {
        let mut disk = self.disk.step(self.life)?;
        disk.faults.punched += 1;
        let inode = &mut disk.inodes[self.inode];
        let bytes = vec![0; (to - from) as usize];
        inode.change(Change::Write {
            at: from as usize,
            bytes,
        });
        inode.hole = from..to;
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.disk.lock().unwrap().inodes[self.inode].seen.len() as u64)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.pass_gate();
        let mut disk = self.disk.step(self.life)?;
        let Disk {
            inodes,
            rng,
            faults,
            fail_next_sync,
            ..
        } = &mut *disk;
        let inode = &mut inodes[self.inode];
        if std::mem::take(fail_next_sync) {
            // The pages count as written although they are not: a second sync would say all is well.
            inode.keep_some(rng, faults);
            return Err(io::Error::other("sync failed"));
        }
        for change in std::mem::take(&mut inode.changes) {
            apply(&mut inode.durable, &change);
        }
        Ok(())
    }
}
