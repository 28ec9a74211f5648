//! One bit of one file of a log, chosen by the part of the file that it lies in. `crates/wal/FORMAT.md` describes the files.

use std::fs;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::plan::Region;

const BLOCK_BYTES: usize = 48;
const FRAME_BYTES: usize = 28;
/// What a record says of itself stands there.
const RECORD_HEAD_BYTES: usize = 32;
const RECORD: u8 = 1;
const MARKER: u8 = 2;

/// Which bit was flipped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Flipped {
    pub(super) file: PathBuf,
    pub(super) at: usize,
    pub(super) bit: u32,
    pub(super) region: Region,
}

/// Flips a bit of the log in `folder`. Where the region is empty one of the payload is taken; none where there is no record.
///
/// The last marker of the newest file is spared: damage there cannot be told from a group that was never acknowledged.
pub(super) fn flip(folder: &Path, region: Region, place: u64) -> io::Result<Option<Flipped>> {
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "wal") {
            files.push(path);
        }
    }
    files.sort();
    let mut parts = Vec::new();
    for (number, path) in files.iter().enumerate() {
        let found = regions(&fs::read(path)?, number + 1 == files.len());
        parts.extend(found.into_iter().map(|(region, range)| (path, region, range)));
    }
    for region in [region, Region::Payload] {
        let of_it: Vec<_> = parts
            .iter()
            .filter(|(_, r, range)| *r == region && !range.is_empty())
            .collect();
        let bits: u64 = of_it.iter().map(|(_, _, range)| range.len() as u64 * 8).sum();
        if bits == 0 {
            continue;
        }
        let mut left = place % bits;
        for (path, region, range) in of_it {
            let here = range.len() as u64 * 8;
            if left >= here {
                left -= here;
                continue;
            }
            let (at, bit) = (range.start + (left / 8) as usize, (left % 8) as u32);
            let file = fs::File::options().read(true).write(true).open(path)?;
            let mut byte = [0];
            file.read_exact_at(&mut byte, at as u64)?;
            file.write_all_at(&[byte[0] ^ (1 << bit)], at as u64)?;
            return Ok(Some(Flipped {
                file: path.to_path_buf(),
                at,
                bit,
                region: *region,
            }));
        }
    }
    Ok(None)
}

/// The parts of a segment file, as far as it can be read.
fn regions(bytes: &[u8], is_newest: bool) -> Vec<(Region, Range<usize>)> {
    let number = |at: usize| {
        let field = bytes.get(at..at + 4).and_then(|b| b.try_into().ok());
        field.map_or(0, |b| u32::from_le_bytes(b) as usize)
    };
    let note = number(36);
    let mut at = 2 * BLOCK_BYTES + 2 * note;
    if at > bytes.len() {
        return Vec::new();
    }
    let mut found = vec![
        (Region::Header, 0..2 * BLOCK_BYTES),
        (Region::Note, 2 * BLOCK_BYTES..at),
    ];
    let mut last_marker = None;
    while let Some(kind) = bytes.get(at) {
        let end = at + FRAME_BYTES + number(at + 8);
        if ![RECORD, MARKER].contains(kind) || end > bytes.len() {
            break;
        }
        let body = at + FRAME_BYTES;
        if *kind == MARKER {
            last_marker = Some(found.len());
            found.push((Region::Marker, at..end));
        } else {
            let head = (body + RECORD_HEAD_BYTES).min(end);
            found.push((Region::FrameHead, at..body));
            found.push((Region::RecordHead, body..head));
            found.push((Region::Payload, head..end));
        }
        at = end;
    }
    // What stands behind the last marker is a torn tail already.
    match last_marker {
        Some(marker) if is_newest => found.truncate(marker),
        None => found.truncate(2),
        _ => {}
    }
    found
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use sluice_wal::{Options, Wal};

    use super::*;

    /// What the log itself calls damaged is what was flipped, and nothing when a copy of it stands elsewhere.
    #[test]
    fn a_flip_changes_one_bit_of_the_region_that_was_asked_for() {
        for (region, places) in [
            (Region::Payload, 40),
            (Region::Header, 40),
            (Region::Marker, 40),
            (Region::FrameHead, 40),
        ] {
            for place in 0..places {
                let folder = tempfile::tempdir().unwrap();
                let (mut wal, _) = Wal::open(folder.path(), Options::default()).unwrap();
                for record in 0..4u8 {
                    wal.append(&[record; 100]).unwrap();
                    wal.sync().unwrap();
                }
                drop(wal);
                let before = segment(folder.path());
                let flipped = flip(folder.path(), region, place * 7_919).unwrap().unwrap();
                let after = segment(folder.path());
                let differ: Vec<usize> = (0..before.len()).filter(|i| before[*i] != after[*i]).collect();
                assert_eq!((flipped.region, differ), (region, vec![flipped.at]));
                let (_, recovery) = Wal::open(folder.path(), Options::default()).unwrap();
                let damaged = recovery.damaged.len();
                let expected = usize::from(matches!(region, Region::Payload | Region::FrameHead));
                assert_eq!(damaged, expected, "{flipped:?}: {recovery:?}");
            }
        }
    }

    fn segment(folder: &Path) -> Vec<u8> {
        let files = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
        let mut files = files;
        let file = files.find(|p| p.extension().is_some_and(|e| e == "wal")).unwrap();
        fs::read(file).unwrap()
    }
}
