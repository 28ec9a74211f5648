//! Reads synced records while the log is being written.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;

use crate::recovery::SparseIndex;
use crate::salvage::Salvaged;
use crate::segment::{Header, Item, Source, Walk};
use crate::storage::{Storage, StorageFile};
use crate::{Entry, Mark, WalError};

/// No answer has more entries: a gap may be of any size.
const MAX_ENTRIES: usize = 65_536;
/// A quarter of what a walk reads at a time.
const COPY_BELOW_BYTES: usize = 64 << 10;

/// One segment as readers need it. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) name: Arc<str>,
    pub(crate) first: u64,
    /// Where frames begin.
    pub(crate) start: u64,
    /// Synced bytes.
    pub(crate) len: u64,
    pub(crate) salt: Option<u32>,
    pub(crate) sparse: Arc<Mutex<SparseIndex>>,
}

/// What the writer shows to readers, in the order of indices.
#[derive(Debug)]
pub(crate) struct Visible {
    pub(crate) segments: Vec<Segment>,
    /// Next index that is not synced.
    pub(crate) synced: u64,
    /// Size of all files, with what is written and not yet synced.
    pub(crate) bytes: u64,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) storage: Arc<dyn Storage>,
    visible: RwLock<Visible>,
}

impl Shared {
    pub(crate) fn new(storage: Arc<dyn Storage>, visible: Visible) -> Arc<Self> {
        Arc::new(Self {
            storage,
            visible: RwLock::new(visible),
        })
    }

    // No code that holds these locks can panic half way through a change, so a poisoned lock holds a sound value.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Visible> {
        self.visible.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, Visible> {
        self.visible.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sees only what is synced; any number of readers run beside the writer. A clone remembers its own place, so give each
/// sequential reader its own.
#[derive(Debug)]
pub struct Reader {
    shared: Arc<Shared>,
    place: Mutex<Option<Place>>,
}

/// One file of a log, as far as it is synced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    pub name: String,
    pub first: u64,
    /// One more than the last index that it should hold.
    pub end: u64,
    pub bytes: u64,
}

/// Where the last read ended.
#[derive(Clone, Debug)]
struct Place {
    segment: Arc<str>,
    file: Arc<dyn StorageFile>,
    index: u64,
    offset: u64,
}

impl Clone for Reader {
    fn clone(&self) -> Self {
        Self::new(self.shared.clone())
    }
}

/// Part of the log that one segment answers for.
struct Portion {
    segment: Segment,
    /// One more than the last index that this segment should hold.
    end: u64,
}

impl Reader {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            place: Mutex::new(None),
        }
    }

    /// What stands at `index`; `None` if it is not synced yet.
    pub fn read(&self, index: u64) -> Result<Option<Entry>, WalError> {
        Ok(self.read_range(index, 1, usize::MAX)?.pop().map(|(_, entry)| entry))
    }

    /// Entries from `from` on, without gaps, until `max_records` or `max_bytes` is reached; one larger record is returned alone.
    /// Empty if nothing from there on is synced.
    pub fn read_range(&self, from: u64, max_records: usize, max_bytes: usize) -> Result<Vec<(u64, Entry)>, WalError> {
        self.range(from, max_records, max_bytes, false)
    }

    /// As [`Reader::read`], and what cannot be read from the disk is damage, not an error.
    pub fn salvage(&self, index: u64) -> Result<Option<Entry>, WalError> {
        Ok(self.salvage_range(index, 1, usize::MAX)?.pop().map(|(_, entry)| entry))
    }

    /// As [`Reader::read_range`], and what cannot be read from the disk is damage, not an error.
    pub fn salvage_range(
        &self,
        from: u64,
        max_records: usize,
        max_bytes: usize,
    ) -> Result<Vec<(u64, Entry)>, WalError> {
        self.range(from, max_records, max_bytes, true)
    }

    /// The marks from that of the segment which holds `from` to the end, each with the index behind the last record that it
    /// speaks of. Empty where the log carries none.
    pub fn marks(&self, from: u64) -> Result<Vec<(u64, Mark)>, WalError> {
        let mut marks = Vec::new();
        let mut at = from;
        while let Some(portion) = self.portion(at)? {
            let segment = &portion.segment;
            let file = match self.shared.storage.open(&segment.name) {
                // Reading its records tells that it is missing.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    at = portion.end;
                    continue;
                }
                other => other.map_err(WalError::io("open a segment"))?,
            };
            let source = Salvaged(&*file);
            let mut walk = Walk::new(&source, segment.start, segment.len, segment.first, segment.salt);
            while let Some(item) = walk.next().map_err(WalError::io("read a segment"))? {
                if let Item::Commit { mark: Some(mark), .. } = item {
                    marks.push((walk.expected(), mark));
                }
            }
            at = portion.end;
        }
        Ok(marks)
    }

    fn range(
        &self,
        from: u64,
        max_records: usize,
        max_bytes: usize,
        salvage: bool,
    ) -> Result<Vec<(u64, Entry)>, WalError> {
        let max_records = max_records.min(MAX_ENTRIES);
        let mut taken = Taken {
            from,
            entries: Vec::new(),
            bytes: 0,
            max_records,
            max_bytes,
        };
        while !taken.is_full() {
            let Some(portion) = self.portion(taken.from)? else {
                break;
            };
            let held = taken.entries.len();
            match self.read_portion(&portion, &mut taken, salvage) {
                // What looks damaged was being deleted.
                Ok(()) if self.is_trimmed(&portion) && taken.entries[held..].iter().any(is_damaged) => {
                    taken.entries.truncate(held);
                    return match taken.entries.is_empty() {
                        true => Err(WalError::Trimmed { first: self.first() }),
                        false => Ok(taken.entries),
                    };
                }
                // Deleted between looking it up and opening it: look again.
                Err(e) if e.kind() == io::ErrorKind::NotFound && self.first() > portion.segment.first => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    let what = "file of the segment is missing";
                    taken.lost(taken.from..portion.end, portion.segment.len, what);
                }
                other => other.map_err(WalError::io("read a segment"))?,
            }
        }
        Ok(taken.entries)
    }

    /// Next index that is not synced.
    pub fn synced(&self) -> u64 {
        self.shared.read().synced
    }

    /// The oldest index that is kept.
    pub fn first(&self) -> u64 {
        let visible = self.shared.read();
        visible.segments.first().map_or(visible.synced, |s| s.first)
    }

    /// Size of all segments.
    pub fn bytes_on_disk(&self) -> u64 {
        self.shared.read().bytes
    }

    /// The files of the log, oldest first; the last one is written to.
    pub fn segments(&self) -> Vec<SegmentInfo> {
        let visible = self.shared.read();
        let ends = visible.segments.iter().skip(1).map(|s| s.first);
        let ends = ends.chain([visible.synced]);
        let infos = visible.segments.iter().zip(ends).map(|(segment, end)| SegmentInfo {
            name: segment.name.to_string(),
            first: segment.first,
            end,
            bytes: segment.len,
        });
        infos.collect()
    }

    /// What the note of the segment says that begins at `index`: it was set before the record there was appended. `None` if
    /// no segment begins there, or its header cannot be read.
    pub fn note_at(&self, index: u64) -> Option<Vec<u8>> {
        let name = {
            let visible = self.shared.read();
            let at = visible.segments.iter().position(|s| s.first == index)?;
            visible.segments[at].name.clone()
        };
        let file = self.shared.storage.open(&name).ok()?;
        let header = Header::decode(&Salvaged(&*file)).ok()?.ok()?;
        Some(header.note)
    }

    fn is_trimmed(&self, portion: &Portion) -> bool {
        self.first() > portion.segment.first
    }

    fn portion(&self, from: u64) -> Result<Option<Portion>, WalError> {
        let visible = self.shared.read();
        if from >= visible.synced {
            return Ok(None);
        }
        let after = visible.segments.partition_point(|s| s.first <= from);
        let Some(at) = after.checked_sub(1) else {
            return Err(WalError::Trimmed {
                first: visible.segments.first().map_or(visible.synced, |s| s.first),
            });
        };
        let end = visible.segments.get(after).map_or(visible.synced, |next| next.first);
        Ok(Some(Portion {
            segment: visible.segments[at].clone(),
            end,
        }))
    }

    fn read_portion(&self, portion: &Portion, taken: &mut Taken, salvage: bool) -> io::Result<()> {
        let place = self.start_place(&portion.segment, taken.from)?;
        let file = place.file.clone();
        if salvage {
            self.walk_portion(&Salvaged(&*file), place, portion, taken)
        } else {
            self.walk_portion(&*file, place, portion, taken)
        }
    }

    fn walk_portion<S: Source + ?Sized>(
        &self,
        source: &S,
        place: Place,
        portion: &Portion,
        taken: &mut Taken,
    ) -> io::Result<()> {
        let segment = &portion.segment;
        let mut walk = Walk::new(source, place.offset, segment.len, place.index, segment.salt);
        while !taken.is_full() && walk.expected() < portion.end {
            match walk.next()? {
                Some(Item::Record { index, payload }) => {
                    lock(&segment.sparse).note(index, walk.frame_at());
                    if index < portion.end && !taken.record(index, payload) {
                        let offset = walk.frame_at();
                        *lock(&self.place) = Some(Place {
                            segment: segment.name.clone(),
                            index,
                            offset,
                            ..place
                        });
                        return Ok(());
                    }
                }
                Some(Item::Lost { indices, bytes, what }) => {
                    taken.lost(indices.start..indices.end.min(portion.end), bytes, what);
                }
                Some(Item::Commit { .. }) => {}
                None => {
                    taken.lost(walk.expected()..portion.end, walk.skipped(), "missing from the log");
                    return Ok(());
                }
            }
        }
        // A full answer may end in the middle of a lost range; the next read then begins before this place.
        let (index, offset) = (walk.expected(), walk.at());
        *lock(&self.place) = Some(Place {
            segment: segment.name.clone(),
            index,
            offset,
            ..place
        });
        Ok(())
    }

    /// The closest known place at or before `from`.
    fn start_place(&self, segment: &Segment, from: u64) -> io::Result<Place> {
        let last = lock(&self.place).clone().filter(|p| p.segment == segment.name);
        let (index, offset) = lock(&segment.sparse)
            .before(from)
            .unwrap_or((segment.first, segment.start));
        match last {
            Some(last) if last.index <= from && last.index >= index => Ok(last),
            Some(last) => Ok(Place { index, offset, ..last }),
            None => {
                let file = self.shared.storage.open(&segment.name)?;
                Ok(Place {
                    segment: segment.name.clone(),
                    file,
                    index,
                    offset,
                })
            }
        }
    }
}

/// The answer of a read as it grows.
struct Taken {
    /// Next index wanted.
    from: u64,
    entries: Vec<(u64, Entry)>,
    bytes: usize,
    max_records: usize,
    max_bytes: usize,
}

impl Taken {
    fn is_full(&self) -> bool {
        self.entries.len() >= self.max_records || (self.bytes >= self.max_bytes && !self.entries.is_empty())
    }

    /// False if the record is wanted but does not fit any more.
    fn record(&mut self, index: u64, payload: Bytes) -> bool {
        if index != self.from {
            return true;
        }
        let size = payload.len();
        if !self.entries.is_empty() && self.bytes.saturating_add(size) > self.max_bytes {
            self.bytes = self.max_bytes;
            return false;
        }
        self.bytes += size;
        // A slice would keep a chunk of many records alive for the sake of one.
        let payload = if size < COPY_BELOW_BYTES {
            Bytes::copy_from_slice(&payload)
        } else {
            payload
        };
        self.entries.push((index, Entry::Record(payload)));
        self.from += 1;
        true
    }

    fn lost(&mut self, indices: Range<u64>, mut bytes: u64, what: &str) {
        for index in indices {
            if index >= self.from {
                if self.is_full() {
                    return;
                }
                self.entries.push((
                    index,
                    Entry::Damaged {
                        bytes,
                        what: what.to_owned(),
                    },
                ));
                self.from = index + 1;
            }
            bytes = 0;
        }
    }
}

fn is_damaged(entry: &(u64, Entry)) -> bool {
    matches!(entry.1, Entry::Damaged { .. })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
