//! Damage to one file: a bit of a log, chosen by the part of its segment that it lies in, a bit anywhere, or a file that is gone. `crates/wal/FORMAT.md` describes the files.

use std::fmt;
use std::fs;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::action::Region;

const BLOCK_BYTES: usize = 48;
const FRAME_BYTES: usize = 28;
/// What a record says of itself stands there.
const RECORD_HEAD_BYTES: usize = 32;
const RECORD: u8 = 1;
const MARKER: u8 = 2;

/// What was damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Damaged {
    pub(super) file: PathBuf,
    pub(super) region: Region,
    /// Byte and bit; none where the file is gone.
    pub(super) at: Option<(usize, u32)>,
}

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at {
            Some((byte, bit)) => write!(
                f,
                "bit {bit} of byte {byte} of {} ({:?})",
                self.file.display(),
                self.region
            ),
            None => write!(f, "{} is gone", self.file.display()),
        }
    }
}

/// Damages one of `files`, which are in the order of their names. Where the region is empty a bit of the payload is taken; none where there
/// is no record.
///
/// The last marker of the newest segment is spared: damage there cannot be told from a group that was never acknowledged. So are the
/// newest segment as a whole and, where `keeps_oldest`, the oldest one: without it a log is one that has forgotten what no store holds.
pub(super) fn damage(files: &[PathBuf], region: Region, place: u64, keeps_oldest: bool) -> io::Result<Option<Damaged>> {
    match region {
        Region::Any => any_bit(files, place),
        Region::Gone => gone(files, place, keeps_oldest),
        _ => bit_of_segment(files, region, place),
    }
}

fn any_bit(files: &[PathBuf], place: u64) -> io::Result<Option<Damaged>> {
    let mut parts = Vec::new();
    for path in files {
        parts.push((path, Region::Any, 0..fs::read(path)?.len()));
    }
    flip(&parts, place)
}

fn gone(files: &[PathBuf], place: u64, keeps_oldest: bool) -> io::Result<Option<Damaged>> {
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|e| e == "wal");
    let are_segments = files.last().is_some_and(is_segment);
    let end = files.len().saturating_sub(usize::from(are_segments));
    let candidates = &files[usize::from(are_segments && keeps_oldest).min(end)..end];
    let Some(file) = candidates.get((place % candidates.len().max(1) as u64) as usize) else {
        return bit_of_segment(files, Region::Payload, place);
    };
    fs::remove_file(file)?;
    Ok(Some(Damaged {
        file: file.clone(),
        region: Region::Gone,
        at: None,
    }))
}

fn bit_of_segment(files: &[PathBuf], region: Region, place: u64) -> io::Result<Option<Damaged>> {
    let mut parts = Vec::new();
    for (number, path) in files.iter().enumerate() {
        let found = regions(&fs::read(path)?, number + 1 == files.len());
        parts.extend(found.into_iter().map(|(region, range)| (path, region, range)));
    }
    for region in [region, Region::Payload] {
        let of_it: Vec<_> = parts.iter().filter(|(_, r, _)| *r == region).cloned().collect();
        if let Some(damaged) = flip(&of_it, place)? {
            return Ok(Some(damaged));
        }
    }
    Ok(None)
}

/// Flips one bit of these parts.
fn flip(parts: &[(&PathBuf, Region, Range<usize>)], place: u64) -> io::Result<Option<Damaged>> {
    let bits: u64 = parts.iter().map(|(_, _, range)| range.len() as u64 * 8).sum();
    let mut left = place % bits.max(1);
    for (path, region, range) in parts {
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
        return Ok(Some(Damaged {
            file: path.to_path_buf(),
            region: *region,
            at: Some((at, bit)),
        }));
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
    use std::path::Path;

    use sluice_wal::{Options, Wal};

    use super::*;

    fn segment(folder: &Path) -> PathBuf {
        let mut files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        files.find(|path| path.extension().is_some_and(|e| e == "wal")).unwrap()
    }

    /// A process that another test is just starting holds a copy of every lock until it runs its own program.
    fn opened(folder: &Path) -> (Wal, sluice_wal::Recovery) {
        loop {
            match Wal::open(folder, Options::default()) {
                Err(sluice_wal::WalError::Locked) => std::thread::yield_now(),
                other => return other.unwrap(),
            }
        }
    }

    /// What the log itself calls damaged is what was hit, and nothing where a copy of it stands elsewhere.
    #[test]
    fn one_bit_of_the_region_that_was_asked_for_changes_and_the_log_sees_it() {
        for region in [
            Region::Payload,
            Region::RecordHead,
            Region::FrameHead,
            Region::Header,
            Region::Marker,
        ] {
            for place in 0..40 {
                let folder = tempfile::tempdir().unwrap();
                let (mut wal, _) = Wal::open(folder.path(), Options::default()).unwrap();
                for record in 0..4u8 {
                    wal.append(&[record; 100]).unwrap();
                    wal.sync().unwrap();
                }
                drop(wal);
                let file = segment(folder.path());
                let before = fs::read(&file).unwrap();
                let damaged = damage(std::slice::from_ref(&file), region, place * 7_919, false)
                    .unwrap()
                    .unwrap();
                let after = fs::read(&file).unwrap();
                let differ: Vec<usize> = (0..before.len()).filter(|i| before[*i] != after[*i]).collect();
                assert_eq!((damaged.region, differ), (region, vec![damaged.at.unwrap().0]));
                let (_, recovery) = opened(folder.path());
                let is_hit = matches!(region, Region::Payload | Region::RecordHead | Region::FrameHead);
                assert_eq!(recovery.damaged.len(), usize::from(is_hit), "{damaged}: {recovery:?}");
                assert_eq!(recovery.next, 4, "{damaged}: {recovery:?}");
            }
        }
    }

    #[test]
    fn neither_the_newest_segment_nor_one_that_is_to_be_kept_is_taken_away() {
        let folder = tempfile::tempdir().unwrap();
        let names = ["0.wal", "1.wal", "2.wal"].map(|name| folder.path().join(name));
        names.iter().for_each(|name| fs::write(name, b"x").unwrap());
        for place in 0..4 {
            for keeps_oldest in [true, false] {
                let damaged = damage(&names, Region::Gone, place, keeps_oldest).unwrap().unwrap();
                assert!(damaged.file != names[2] && !(keeps_oldest && damaged.file == names[0]));
                fs::write(damaged.file, b"x").unwrap();
            }
        }
    }
}
