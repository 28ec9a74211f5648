//! Opening a directory: which files are segments, where the log ends, what is missing.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use crate::WalError;
use crate::reader::Segment;
use crate::recovery::{Extent, Findings, Joint, Link, SparseIndex, joint, scan_closed, scan_newest};
use crate::salvage::{self, Salvaged};
use crate::segment::{Header, HeaderError, MAX_HEADER_BYTES};
use crate::storage::{Storage, StorageFile};
use crate::wal::{Newest, Recovery, VERIFY_AT_OPEN_BYTES};

/// A directory as it was found, its torn tail cut.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) segments: Vec<Segment>,
    /// `None` if a new segment has to be begun at `recovery.next`.
    pub(crate) newest: Option<Newest>,
    /// First index and end of the last segment, for the header of that new one.
    pub(crate) before: Option<(u64, u64)>,
    pub(crate) recovery: Recovery,
}

pub(crate) fn segment_name(first: u64, copy: u32) -> String {
    if copy == 0 {
        format!("{first:020}.wal")
    } else {
        format!("{first:020}-{copy}.wal")
    }
}

fn parse_name(name: &str) -> Option<u64> {
    let stem = name.strip_suffix(".wal")?;
    let (first, copy) = stem.split_once('-').unwrap_or((stem, "0"));
    let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    (first.len() == 20 && digits(first) && digits(copy))
        .then(|| first.parse().ok())
        .flatten()
}

const REWRITE_CHUNK_BYTES: usize = 256 << 10;

/// A file that looks like a segment.
#[derive(Debug)]
struct Candidate {
    name: String,
    file: Arc<dyn StorageFile>,
    size: u64,
    first: u64,
    header: Option<Header>,
}

impl Candidate {
    fn extent(&self) -> Extent {
        let start = self.header.as_ref().map_or(0, Header::encoded_len);
        Extent {
            start,
            len: self.size,
            first: self.first,
            salt: self.header.as_ref().map(|h| h.salt),
        }
    }

    fn link(&self) -> Link {
        let before = self.header.as_ref().and_then(|h| Some((h.prev_first?, h.prev_end)));
        Link {
            first: self.first,
            before,
        }
    }

    fn segment(&self, len: u64, sparse: SparseIndex) -> Segment {
        let Extent { start, first, salt, .. } = self.extent();
        Segment {
            name: self.name.as_str().into(),
            first,
            start,
            len,
            salt,
            sparse: Arc::new(Mutex::new(sparse)),
        }
    }
}

pub(crate) fn open(storage: &dyn Storage) -> Result<Opened, WalError> {
    let mut recovery = Recovery::default();
    let mut candidates = candidates(storage, &mut recovery)?;
    let tail = settle_newest(storage, &mut candidates, &mut recovery)?;
    // Names that a killed process made, and content that it wrote, may still be in memory only; what is shown must stay.
    storage.sync_dir().map_err(WalError::io("sync the directory"))?;
    let Some(tail) = tail else {
        recovery.first = recovery.next;
        return Ok(Opened {
            segments: Vec::new(),
            newest: None,
            before: None,
            recovery,
        });
    };
    recovery.next = tail.next;
    let mut segments = closed_segments(&candidates, tail.end, &mut recovery)?;
    report(&mut recovery, &tail);
    recovery.damaged.sort();
    recovery.first = candidates.first().map_or(tail.next, |c| c.first);
    let Some(last) = candidates.pop() else {
        return Ok(Opened {
            segments,
            newest: None,
            before: None,
            recovery,
        });
    };
    let segment = last.segment(tail.end, tail.sparse);
    let newest = last.header.as_ref().map(|header| Newest {
        file: last.file.clone(),
        first: last.first,
        start: header.begun_len(),
        salt: header.salt,
        marked: header.marked,
        synced_mark: tail.mark,
        synced_len: tail.end,
        synced_totals: tail.totals,
        sparse: segment.sparse.clone(),
    });
    segments.push(segment);
    let noted = candidates.iter().chain([&last]).rev().find_map(|c| c.header.as_ref());
    recovery.note = noted.map(|h| h.note.clone()).unwrap_or_default();
    Ok(Opened {
        segments,
        newest,
        before: Some((last.first, tail.next)),
        recovery,
    })
}

fn candidates(storage: &dyn Storage, recovery: &mut Recovery) -> Result<Vec<Candidate>, WalError> {
    let mut found = Vec::new();
    for name in storage.list().map_err(WalError::io("list the directory"))? {
        let Some(named) = parse_name(&name) else {
            continue;
        };
        let read = WalError::io("read a segment's header");
        let file = storage.open(&name).map_err(WalError::io("open a segment"))?;
        let size = file.size().map_err(WalError::io("size a segment"))?;
        let header = match Header::decode(&Salvaged(&*file)).map_err(read)? {
            // Half a beginning is that of a segment that never was.
            Ok(header) => Some(header).filter(|h| h.begun_len() <= size),
            Err(HeaderError::Unreadable) => None,
            Err(HeaderError::Newer(version)) => {
                let what = format!("has the newer format {version}: upgrade this program");
                return Err(WalError::Corrupt { file: name, what });
            }
        };
        // The header decides: files may have been renamed.
        let first = header.as_ref().map_or(named, |h| h.first);
        let candidate = Candidate {
            name,
            file,
            size,
            first,
            header,
        };
        if is_unfinished(&candidate)? {
            recovery.torn_bytes += size;
            storage
                .remove(&candidate.name)
                .map_err(WalError::io("remove an unfinished segment"))?;
        } else {
            found.push(candidate);
        }
    }
    found.sort_by_key(|c: &Candidate| (c.first, c.header.is_none(), std::cmp::Reverse(c.size), c.name.clone()));
    found.dedup_by(|extra, kept| {
        let same = extra.first == kept.first;
        if same {
            let what = format!("{} begins where {} does and is ignored", extra.name, kept.name);
            recovery.damaged.push((extra.first, what));
        }
        same
    });
    Ok(found)
}

/// Whether this is the start of a segment that did not finish: no record is written before its segment's header is synced.
/// On a full disk one may stay behind while the log goes on in the segment before.
fn is_unfinished(candidate: &Candidate) -> Result<bool, WalError> {
    if candidate.header.is_some() || candidate.size > MAX_HEADER_BYTES {
        return Ok(false);
    }
    let found = scan_newest(&Salvaged(&*candidate.file), candidate.extent()).map_err(WalError::io("read a segment"))?;
    Ok(!found.any)
}

/// Finds the segment where the log ends and cuts its torn tail. Newer files in which nothing can be read are put out of
/// the way.
fn settle_newest(
    storage: &dyn Storage,
    candidates: &mut Vec<Candidate>,
    recovery: &mut Recovery,
) -> Result<Option<Findings>, WalError> {
    while let Some(last) = candidates.last() {
        let found = scan_newest(&Salvaged(&*last.file), last.extent()).map_err(WalError::io("read a segment"))?;
        if last.header.is_none() && !found.any {
            recovery.torn_bytes += last.size;
            recovery.next = recovery.next.max(last.first);
            put_aside(storage, last, recovery)?;
            candidates.pop();
            continue;
        }
        if found.end < last.size {
            recovery.torn_bytes += last.size - found.end;
            last.file.set_len(found.end).map_err(WalError::io("cut a torn tail"))?;
        }
        make_durable(&*last.file, &found).map_err(WalError::io("sync a segment"))?;
        return Ok(Some(found));
    }
    Ok(None)
}

/// The process before may have been killed before its last sync returned, or because a sync failed: then these bytes are in
/// memory, marked as written, and no sync would write them again. So they are written again.
fn make_durable(file: &dyn StorageFile, found: &Findings) -> std::io::Result<()> {
    let mut buf = vec![0u8; REWRITE_CHUNK_BYTES];
    let mut at = found.last_group;
    while at < found.end && !cfg!(feature = "break-rewrite") {
        let want = buf.len().min((found.end - at) as usize);
        let n = match file.read_at(at, &mut buf[..want]) {
            Err(error) if salvage::is_unreadable(&error) => {
                rewrite_sectors(file, at, at + want as u64)?;
                want
            }
            other => {
                let n = other?;
                write_back(file, at, &buf[..n])?;
                n
            }
        };
        if n == 0 {
            break;
        }
        at += n as u64;
    }
    file.sync_data()
}

/// Sectors of zeros are left as they are: they may be a hole, for whose content a full disk has no room, and one that was never
/// written reads the same.
fn write_back(file: &dyn StorageFile, at: u64, bytes: &[u8]) -> std::io::Result<()> {
    let is_empty = |piece: &[u8]| piece.iter().all(|byte| *byte == 0);
    let mut from = 0;
    for (start, end) in salvage::pieces(at, at + bytes.len() as u64) {
        let (start, end) = ((start - at) as usize, (end - at) as usize);
        if is_empty(&bytes[start..end]) {
            if from < start {
                file.write_at(at + from as u64, &bytes[from..start])?;
            }
            from = end;
        }
    }
    if from < bytes.len() {
        file.write_at(at + from as u64, &bytes[from..])?;
    }
    Ok(())
}

/// What cannot be read was on the disk, so nothing has to be written there.
fn rewrite_sectors(file: &dyn StorageFile, from: u64, to: u64) -> std::io::Result<()> {
    let mut buf = Vec::new();
    for (at, end) in salvage::pieces(from, to) {
        buf.resize((end - at) as usize, 0);
        if let Some(n) = salvage::sector(file, at, &mut buf)? {
            file.write_at(at, &buf[..n])?;
        }
    }
    Ok(())
}

fn put_aside(storage: &dyn Storage, last: &Candidate, recovery: &mut Recovery) -> Result<(), WalError> {
    let what = format!("{}: neither header nor records can be read; renamed", last.name);
    recovery.damaged.push((last.first, what));
    storage
        .rename(&last.name, &format!("{}.damaged", last.name))
        .map_err(WalError::io("rename a damaged segment"))
}

/// All but the last; finds gaps, and damage in as much of the newest as is verified at opening.
fn closed_segments(
    candidates: &[Candidate],
    newest_bytes: u64,
    recovery: &mut Recovery,
) -> Result<Vec<Segment>, WalError> {
    let mut budget = VERIFY_AT_OPEN_BYTES.saturating_sub(newest_bytes);
    let mut segments = Vec::new();
    for pair in candidates.windows(2).rev() {
        let (earlier, later) = (&pair[0], &pair[1]);
        let joint = joint(earlier.link(), later.link());
        let mut sparse = SparseIndex::default();
        if joint == Joint::Unknown || earlier.size <= budget {
            budget = budget.saturating_sub(earlier.size);
            let mut found =
                scan_closed(&Salvaged(&*earlier.file), earlier.extent()).map_err(WalError::io("read a segment"))?;
            let end = if let Joint::Ends(end) = joint {
                end
            } else {
                found.next.min(later.first)
            };
            if found.next < end {
                found.lost.push((found.next..end, 0, "missing from the log"));
            }
            // Behind the end may stand what a full disk took back, if the cut was not synced.
            found.lost.retain(|(indices, _, _)| indices.start < end);
            report(recovery, &found);
            push_gap(recovery, end..later.first);
            sparse = found.sparse;
        } else if let Joint::Ends(end) = joint {
            push_gap(recovery, end..later.first);
        }
        segments.push(earlier.segment(earlier.size, sparse));
    }
    segments.reverse();
    recovery.gaps.reverse();
    Ok(segments)
}

fn push_gap(recovery: &mut Recovery, gap: Range<u64>) {
    if !gap.is_empty() {
        recovery.gaps.push(gap);
    }
}

fn report(recovery: &mut Recovery, found: &Findings) {
    for (indices, _, what) in &found.lost {
        recovery
            .damaged
            .extend(indices.clone().map(|index| (index, (*what).to_owned())));
    }
}
