//! What is left of damaged log records: their heads, read from the segment files themselves, because the log hands out whole
//! records only. `crates/wal/FORMAT.md` describes the files; what looks otherwise yields nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crc32c::crc32c;

use super::head::{self, MAX_HEAD_BYTES, Opening, u32_at, u64_at};

const SEGMENT_MAGIC: [u8; 4] = *b"SLWS";
const SEGMENT_VERSION: u8 = 1;
/// Of the two copies of a segment's header.
const BLOCK_BYTES: usize = 48;
const FRAME_BYTES: usize = 28;
/// What a disk loses at a time.
const SECTOR_BYTES: u64 = 4096;
/// Bytes looked at at once when a frame cannot be read and the next one is searched.
const WINDOW_BYTES: usize = 1 << 20;

/// The heads of those of `indices` whose head is still whole. Blocking.
pub(super) fn heads(dir: &Path, indices: &BTreeSet<u64>) -> BTreeMap<u64, Opening> {
    let mut found = BTreeMap::new();
    let segments = match segments(dir) {
        Ok(segments) => segments,
        Err(error) => {
            tracing::warn!(path = %dir.display(), %error, "heads of damaged records cannot be looked for");
            return found;
        }
    };
    for (at, (first, path)) in segments.iter().enumerate() {
        let end = segments.get(at + 1).map_or(u64::MAX, |(next, _)| *next);
        let wanted: BTreeSet<u64> = indices.range(*first..end.max(*first)).copied().collect();
        if wanted.is_empty() {
            continue;
        }
        if let Err(error) = walk(path, &wanted, &mut found) {
            tracing::warn!(path = %path.display(), %error, "segment cannot be searched for heads of damaged records");
        }
    }
    found
}

/// The segments of a log by the first index that their names say.
fn segments(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut segments = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let first = path
            .file_name()
            .and_then(|name| name.to_str()?.strip_suffix(".wal"))
            .and_then(|name| name.split('-').next()?.parse().ok());
        segments.extend(first.map(|first| (first, path)));
    }
    segments.sort();
    Ok(segments)
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    is_record: bool,
    length: u32,
    index: u64,
}

fn walk(path: &Path, wanted: &BTreeSet<u64>, found: &mut BTreeMap<u64, Opening>) -> io::Result<()> {
    let file = File::open(path)?;
    let end = file.metadata()?.len();
    let Some(Frames {
        first: mut expected,
        mut at,
        salt,
    }) = frames_of(&file)?
    else {
        return Ok(());
    };
    while at < end {
        let head = read(&file, at, FRAME_BYTES)?;
        let Some(frame) = frame(&head, at, salt) else {
            // Only the frame's own head may be damaged; the record behind it has a checksum for its beginning.
            if wanted.contains(&expected) {
                let bytes = read(&file, at + FRAME_BYTES as u64, MAX_HEAD_BYTES)?;
                found.extend(head::take(&bytes).map(|opening| (expected, opening)));
            }
            match next_frame(&file, at + 1, end, salt)? {
                Some(next) => at = next,
                None => return Ok(()),
            }
            continue;
        };
        if frame.is_record && wanted.contains(&frame.index) {
            let length = MAX_HEAD_BYTES.min(frame.length as usize);
            let bytes = read(&file, at + FRAME_BYTES as u64, length)?;
            found.extend(head::take(&bytes).map(|opening| (frame.index, opening)));
        }
        expected = frame.index + u64::from(frame.is_record);
        at += FRAME_BYTES as u64 + u64::from(frame.length);
    }
    Ok(())
}

/// The frames of a segment: the index of the first record, where they begin, and the salt that they carry.
struct Frames {
    first: u64,
    at: u64,
    salt: u32,
}

fn frames_of(file: &File) -> io::Result<Option<Frames>> {
    let blocks = read(file, 0, 2 * BLOCK_BYTES)?;
    let good = |block: &&[u8]| {
        block.len() == BLOCK_BYTES
            && block.starts_with(&SEGMENT_MAGIC)
            && block[4] == SEGMENT_VERSION
            && u32_at(block, 44) == crc32c(&block[..44])
    };
    Ok(blocks.chunks(BLOCK_BYTES).find(good).map(|block| {
        let note = u64::from(u32_at(block, 36));
        Frames {
            first: u64_at(block, 8),
            at: 2 * (BLOCK_BYTES as u64 + note),
            salt: u32_at(block, 32),
        }
    }))
}

fn frame(bytes: &[u8], at: u64, salt: u32) -> Option<Frame> {
    let bytes = bytes.get(..FRAME_BYTES)?;
    let is_record = match bytes[..4] {
        [1, 0, 0, 0] => true,
        [2, 0, 0, 0] => false,
        _ => return None,
    };
    let mut covered = bytes[..24].to_vec();
    covered.extend_from_slice(&at.to_le_bytes());
    let whole = u32_at(bytes, 4) == salt && u32_at(bytes, 24) == crc32c(&covered);
    whole.then(|| Frame {
        is_record,
        length: u32_at(bytes, 8),
        index: u64_at(bytes, 12),
    })
}

fn next_frame(file: &File, mut at: u64, end: u64, salt: u32) -> io::Result<Option<u64>> {
    while at < end {
        let window = read(file, at, WINDOW_BYTES)?;
        let starts = 0..window.len().saturating_sub(FRAME_BYTES - 1);
        let hit = starts
            .clone()
            .find(|start| frame(&window[*start..], at + *start as u64, salt).is_some());
        if let Some(hit) = hit {
            return Ok(Some(at + hit as u64));
        }
        // Windows overlap by less than a frame's head.
        at += starts.len().max(1) as u64;
    }
    Ok(None)
}

/// Up to `length` bytes; fewer at the end of the file. What the disk does not give reads as zeros.
fn read(file: &File, at: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while filled < length {
        let place = at + filled as u64;
        let sector = usize::try_from(SECTOR_BYTES - place % SECTOR_BYTES).unwrap_or(usize::MAX);
        match file.read_at(&mut bytes[filled..], place) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Sector by sector, so that its neighbours are found.
            Err(_) => {
                let end = length.min(filled.saturating_add(sector));
                match file.read_at(&mut bytes[filled..end], place) {
                    Ok(0) => break,
                    Ok(n) => filled += n,
                    Err(_) => {
                        bytes[filled..end].fill(0);
                        filled = end;
                    }
                }
            }
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}
