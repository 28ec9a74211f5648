//! The one writer of a log directory.

mod begin;
mod full;

use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use crate::open;
use crate::reader::{Segment, Shared, Visible};
use crate::recovery::SparseIndex;
use crate::retention::deletable;
use crate::segment::{MAX_NOTE_BYTES, MAX_PAYLOAD_BYTES, Totals, put_commit, put_record};
use crate::storage::{Directory, Storage, StorageFile};
use crate::{Mark, Reader, WalError, crash_point};
use begin::{create_segment, header};

/// Limits of one log.
#[derive(Clone, Debug)]
pub struct Options {
    /// A segment that has grown to this size is closed.
    pub segment_bytes: u64,
    pub max_record_bytes: u32,
    /// Room kept for cursors and deletes on a full disk; 0 keeps none.
    pub ballast_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            max_record_bytes: 16 << 20,
            ballast_bytes: 1 << 20,
        }
    }
}

/// What opening found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// The oldest index kept.
    pub first: u64,
    /// The index that the next record will get.
    pub next: u64,
    /// What was cut off behind the last commit.
    pub torn_bytes: u64,
    /// Records that cannot be read, with the reason, as far as opening looked: the newest segments, up to
    /// [`VERIFY_AT_OPEN_BYTES`]. Older damage shows when it is read.
    pub damaged: Vec<(u64, String)>,
    /// Note of the newest segment.
    pub note: Vec<u8>,
    /// Indices that no file holds: a segment is missing, or they were skipped.
    pub gaps: Vec<Range<u64>>,
}

/// Opening verifies this much, so that a node with a large backlog still starts within a second or two.
pub const VERIFY_AT_OPEN_BYTES: u64 = 128 << 20;
/// A group larger than this is written out in parts; memory stays bounded.
const SPILL_BYTES: usize = 4 << 20;
pub(crate) const BALLAST: &str = "ballast";

/// Appends records to a directory. Indices count from 0 without gaps over the directory's life.
///
/// Appended records are durable and visible once [`Wal::sync`] returned. [`WalError::Full`] from `append` or `sync` takes
/// back everything since the last successful `sync`.
#[derive(Debug)]
pub struct Wal {
    options: Options,
    storage: Arc<dyn Storage>,
    shared: Arc<Shared>,
    newest: Newest,
    /// Frames not yet written, which belong at offset `written`.
    pending: Vec<u8>,
    written: u64,
    next: u64,
    /// Of the segment, with what is pending.
    totals: Totals,
    note: Vec<u8>,
    /// Whether segments begun from now on carry marks.
    marks: bool,
    /// Of the last record, synced or not.
    mark: Option<Mark>,
    /// What the header of the newest segment will say of the one before it, while there was no room yet to begin it.
    unmade: Option<Before>,
    health: Health,
}

/// First index and end of the segment before a segment, if there was one.
type Before = Option<(u64, u64)>;

/// The segment that is written to.
#[derive(Debug)]
pub(crate) struct Newest {
    pub(crate) file: Arc<dyn StorageFile>,
    pub(crate) first: u64,
    /// Where records may begin.
    pub(crate) start: u64,
    pub(crate) salt: u32,
    pub(crate) marked: bool,
    pub(crate) synced_mark: Option<Mark>,
    pub(crate) synced_len: u64,
    pub(crate) synced_totals: Totals,
    pub(crate) sparse: Arc<Mutex<SparseIndex>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    Good,
    /// The ballast was given up; appending waits until it can be had again.
    Full,
    Poisoned,
}

impl Wal {
    /// Opens or makes the directory, cuts a torn tail, and reports what is missing or damaged.
    pub fn open(dir: &Path, options: Options) -> Result<(Wal, Recovery), WalError> {
        Self::open_on(Self::lock(dir)?, options)
    }

    /// The same for a log whose groups end with what [`Wal::set_mark`] said.
    pub fn open_marked(dir: &Path, options: Options) -> Result<(Wal, Recovery), WalError> {
        Self::open_marked_on(Self::lock(dir)?, options)
    }

    /// The same on any storage.
    pub fn open_marked_on(storage: Arc<dyn Storage>, options: Options) -> Result<(Wal, Recovery), WalError> {
        let (mut wal, recovery) = Self::begin(storage, options, true)?;
        if !wal.newest.marked {
            match wal.roll() {
                // Then it goes on with the segment as it is.
                Ok(()) | Err(WalError::Full) => {}
                Err(other) => return Err(other),
            }
        }
        Ok((wal, recovery))
    }

    /// As [`Wal::open`] on any storage.
    pub fn open_on(storage: Arc<dyn Storage>, options: Options) -> Result<(Wal, Recovery), WalError> {
        Self::begin(storage, options, false)
    }

    fn lock(dir: &Path) -> Result<Arc<Directory>, WalError> {
        match Directory::lock(dir) {
            Ok(directory) => Ok(Arc::new(directory)),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => Err(WalError::Locked),
            Err(e) => Err(WalError::io("open the directory")(e)),
        }
    }

    fn begin(storage: Arc<dyn Storage>, options: Options, marks: bool) -> Result<(Wal, Recovery), WalError> {
        let found = on_ballast(&*storage, || open::open(&*storage))?;
        let recovery = found.recovery;
        if let Some(newest) = found.newest {
            let wal = Self::new(storage, options, found.segments, newest, &recovery, marks, None);
            return Ok((wal, recovery));
        }
        let header = header(recovery.next, found.before, recovery.note.clone(), marks);
        let mut segments = found.segments;
        let (newest, unmade) = match on_ballast(&*storage, || create_segment(&*storage, &header, None)) {
            Ok((segment, newest)) => {
                segments.push(segment);
                (newest, None)
            }
            // A full disk is no reason not to start; the segment is begun when there is room.
            Err(WalError::Full) => (begin::unmade(&header), Some(found.before)),
            Err(other) => return Err(other),
        };
        let wal = Self::new(storage, options, segments, newest, &recovery, marks, unmade);
        Ok((wal, recovery))
    }

    fn new(
        storage: Arc<dyn Storage>,
        options: Options,
        segments: Vec<Segment>,
        newest: Newest,
        recovery: &Recovery,
        marks: bool,
        unmade: Option<Before>,
    ) -> Wal {
        let bytes = segments.iter().map(|s| s.len).sum();
        let visible = Visible {
            segments,
            synced: recovery.next,
            bytes,
        };
        let mut wal = Wal {
            options,
            shared: Shared::new(storage.clone(), visible),
            storage,
            pending: Vec::new(),
            written: newest.synced_len,
            next: recovery.next,
            totals: newest.synced_totals,
            marks,
            mark: newest.synced_mark,
            newest,
            note: recovery.note.clone(),
            unmade,
            health: Health::Full,
        };
        // A full disk is no reason not to start: what is there can still be read, sent and deleted.
        wal.leave_full();
        wal
    }

    /// Adds a record to the open group and returns the index that it has once the group is synced.
    pub fn append(&mut self, record: &[u8]) -> Result<u64, WalError> {
        self.check_size(record)?;
        self.check_health()?;
        if !self.is_open_group() && self.newest.synced_len >= self.options.segment_bytes {
            self.roll()?;
        }
        let offset = self.written + self.pending.len() as u64;
        put_record(&mut self.pending, offset, self.newest.salt, self.next, record);
        let index = self.next;
        self.next += 1;
        self.totals.records += 1;
        self.totals.bytes += record.len() as u64;
        if self.pending.len() >= SPILL_BYTES {
            self.write_pending()?;
        }
        Ok(index)
    }

    /// Makes everything appended so far durable, then visible. A failed sync poisons the log: nobody knows what is on disk.
    pub fn sync(&mut self) -> Result<(), WalError> {
        if self.health == Health::Poisoned {
            return Err(WalError::Poisoned);
        }
        if !self.is_open_group() {
            return Ok(());
        }
        let offset = self.written + self.pending.len() as u64;
        let mark = self.newest.marked.then(|| self.mark.unwrap_or_default());
        put_commit(
            &mut self.pending,
            offset,
            self.newest.salt,
            self.next,
            self.totals,
            mark,
        );
        self.write_pending()?;
        crash_point("wal.after_write");
        let result = sync_records(&*self.newest.file);
        self.poison_unless_done("sync records", result)?;
        crash_point("wal.after_sync");
        let grown = self.written - self.newest.synced_len;
        let mut visible = self.shared.write();
        // The group's start is a place to begin reading at; the index drops it if a close one is known.
        let mut sparse = self.newest.sparse.lock().unwrap_or_else(PoisonError::into_inner);
        sparse.note(visible.synced, self.newest.synced_len);
        drop(sparse);
        if let Some(segment) = visible.segments.last_mut() {
            segment.len = self.written;
        }
        visible.synced = self.next;
        visible.bytes += grown;
        drop(visible);
        self.newest.synced_len = self.written;
        self.newest.synced_totals = self.totals;
        self.newest.synced_mark = self.mark;
        Ok(())
    }

    /// Bytes that every segment begun from now on carries in its header, at most 64 KiB. The newest segment is never deleted,
    /// so the note outlives the records it speaks of. Set it before the record that it covers is appended; after opening it is
    /// the newest header's, and records behind that header may say more: set it again from them.
    pub fn set_note(&mut self, note: &[u8]) {
        self.note = note.to_vec();
    }

    /// What the marker behind the records appended since the last sync says: how far their writer is with the last of them.
    pub fn set_mark(&mut self, mark: Mark) {
        self.mark = Some(mark);
    }

    /// Closes the newest segment, so that it can be trimmed once it is read; nothing happens if it is empty.
    pub fn roll(&mut self) -> Result<(), WalError> {
        self.sync()?;
        if self.next == self.newest.first {
            Ok(())
        } else {
            self.begin_segment(self.next)
        }
    }

    /// Continues at `index` and leaves a gap: for a log that lost its end while its readers are further, so that no index
    /// is given twice.
    pub fn skip_to(&mut self, index: u64) -> Result<(), WalError> {
        self.sync()?;
        if index <= self.next {
            return Ok(());
        }
        if self.unmade.is_some() {
            self.next = index;
            self.newest.first = index;
            self.shared.write().synced = index;
            return Ok(());
        }
        self.begin_on_ballast(index)
    }

    /// Deletes segments that hold nothing at or above `index`; returns the bytes freed.
    pub fn trim_below(&mut self, index: u64) -> Result<u64, WalError> {
        self.trim(index, self.health == Health::Full)
    }

    /// With `empty` files are emptied before they are deleted: a reader may hold one open, and then it would keep its room.
    fn trim(&mut self, index: u64, empty: bool) -> Result<u64, WalError> {
        if self.health == Health::Poisoned {
            return Err(WalError::Poisoned);
        }
        let firsts: Vec<u64> = self.shared.read().segments.iter().map(|s| s.first).collect();
        let mut freed = 0;
        for _ in 0..deletable(&firsts, index) {
            // Out of sight first: a reader that finds the file gone must also find the index trimmed.
            let segment = {
                let mut visible = self.shared.write();
                let segment = visible.segments.remove(0);
                visible.bytes -= segment.len;
                segment
            };
            crash_point("wal.before_unlink");
            if empty {
                // If it cannot be done, the room comes a little later.
                drop(self.storage.open(&segment.name).and_then(|file| file.set_len(0)));
            }
            match self.storage.remove(&segment.name) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(WalError::io("delete a segment")(e));
                }
                _ => freed += segment.len,
            }
            // One by one: after a crash the segments left are without a hole.
            let result = self.storage.sync_dir();
            self.poison_unless_done("sync the directory", result)?;
        }
        if freed > 0 {
            self.leave_full();
        }
        Ok(freed)
    }

    /// The index that the next record gets.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// The oldest index kept.
    pub fn first(&self) -> u64 {
        self.shared.read().segments.first().map_or(self.next, |s| s.first)
    }

    pub fn bytes_on_disk(&self) -> u64 {
        self.shared.read().bytes
    }

    pub fn reader(&self) -> Reader {
        Reader::new(self.shared.clone())
    }

    fn is_open_group(&self) -> bool {
        self.written > self.newest.synced_len || !self.pending.is_empty()
    }

    /// Whether a record of this size is taken at all.
    pub(crate) fn check_size(&self, record: &[u8]) -> Result<(), WalError> {
        let (bytes, max) = (
            record.len() as u64,
            u64::from(self.options.max_record_bytes.min(MAX_PAYLOAD_BYTES)),
        );
        if bytes > max {
            Err(WalError::TooLarge { bytes, max })
        } else {
            Ok(())
        }
    }

    fn check_health(&mut self) -> Result<(), WalError> {
        if self.health == Health::Full {
            self.leave_full();
        }
        match self.health {
            Health::Good => Ok(()),
            Health::Full => Err(WalError::Full),
            Health::Poisoned => Err(WalError::Poisoned),
        }
    }

    /// Writes what is pending. A full disk takes the whole group back; any other failure leaves no one sure of anything.
    fn write_pending(&mut self) -> Result<(), WalError> {
        match self
            .newest
            .file
            .write_at(self.written, &self.pending)
            .map_err(WalError::io("write records"))
        {
            Ok(()) => {
                self.written += self.pending.len() as u64;
                self.pending.clear();
                Ok(())
            }
            Err(WalError::Full) => {
                self.pending.clear();
                let result = self.newest.file.set_len(self.newest.synced_len);
                self.poison_unless_done("cut back what did not fit", result)?;
                self.written = self.newest.synced_len;
                self.next = self.shared.read().synced;
                self.totals = self.newest.synced_totals;
                self.mark = self.newest.synced_mark;
                self.enter_full();
                Err(WalError::Full)
            }
            Err(other) => {
                self.health = Health::Poisoned;
                Err(other)
            }
        }
    }

    fn begin_segment(&mut self, first: u64) -> Result<(), WalError> {
        if self.note.len() > MAX_NOTE_BYTES {
            return Err(WalError::TooLarge {
                bytes: self.note.len() as u64,
                max: MAX_NOTE_BYTES as u64,
            });
        }
        let before = match self.unmade {
            Some(before) => before,
            None => Some((self.newest.first, self.next)),
        };
        let header = header(first, before, self.note.clone(), self.marks);
        let (segment, newest) = match create_segment(&*self.storage, &header, self.newest.synced_mark) {
            Ok(made) => made,
            Err(WalError::Full) => {
                self.enter_full();
                return Err(WalError::Full);
            }
            Err(other) => {
                self.health = Health::Poisoned;
                return Err(other);
            }
        };
        let mut visible = self.shared.write();
        visible.bytes += segment.len;
        visible.segments.push(segment);
        visible.synced = first;
        drop(visible);
        self.written = newest.synced_len;
        self.totals = Totals::default();
        self.next = first;
        self.newest = newest;
        self.unmade = None;
        Ok(())
    }

    fn poison_unless_done(&mut self, action: &'static str, result: std::io::Result<()>) -> Result<(), WalError> {
        result.map_err(|source| {
            self.health = Health::Poisoned;
            WalError::Io {
                action,
                source: Arc::new(source),
            }
        })
    }
}

/// A step of opening that may need a little room; a full disk may be why the process before ended.
fn on_ballast<T>(storage: &dyn Storage, step: impl Fn() -> Result<T, WalError>) -> Result<T, WalError> {
    match step() {
        Err(WalError::Full) => {
            let _ = storage.remove(BALLAST);
            step()
        }
        other => other,
    }
}

fn sync_records(file: &dyn StorageFile) -> std::io::Result<()> {
    if cfg!(feature = "break-fsync") {
        Ok(())
    } else {
        file.sync_data()
    }
}
