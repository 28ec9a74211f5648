//! Which file it is and how far it was read. A file is the same if the bytes at its beginning and those just before the place are:
//! names move, inodes are given to other files, and a file may be cut to nothing and written anew under the same inode.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use crate::tally::Cursor;

const VERSION: u8 = 1;
const SKIPPING: u8 = 1;
/// As many as other collectors look at.
const HEAD_BYTES: u64 = 1024;
const TAIL_BYTES: u64 = 256;
/// A longer path cannot be opened anyway.
const MAX_PATH_BYTES: usize = 4096;

/// Device and inode: one file at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FileId {
    pub(super) device: u64,
    pub(super) inode: u64,
}

impl FileId {
    pub(super) fn to_key(self) -> Vec<u8> {
        [self.device.to_le_bytes(), self.inode.to_le_bytes()].concat()
    }

    pub(super) fn from_key(key: &[u8]) -> Option<Self> {
        let mut cursor = Cursor(key);
        let id = Self {
            device: cursor.u64()?,
            inode: cursor.u64()?,
        };
        cursor.0.is_empty().then_some(id)
    }
}

/// Some bytes of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Print {
    length: u16,
    hash: [u8; 16],
}

impl Print {
    fn of(bytes: &[u8]) -> Self {
        let mut hash = [0; 16];
        hash.copy_from_slice(&blake3::hash(bytes).as_bytes()[..16]);
        Self {
            length: bytes.len() as u16,
            hash,
        }
    }
}

/// How far a file was read. Events end here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) offset: u64,
    /// The bytes from here on are the rest of an event that was cut.
    pub(super) skipping: bool,
    head: Print,
    tail: Print,
}

impl Place {
    /// Moves to an offset of a file, and takes its prints.
    pub(super) fn move_to(&mut self, file: &File, offset: u64, skipping: bool) -> io::Result<()> {
        let head = if u64::from(self.head.length) == HEAD_BYTES && offset >= self.offset {
            self.head
        } else {
            Print::of(&read(file, 0, offset.min(HEAD_BYTES))?)
        };
        let length = offset.min(TAIL_BYTES);
        let tail = Print::of(&read(file, offset - length, length)?);
        *self = Self {
            offset,
            skipping,
            head,
            tail,
        };
        Ok(())
    }

    /// Whether a file that is shorter than what was read may become its copy: it begins alike, as far as that is known.
    pub(super) fn may_become(&self, file: &File, size: u64) -> io::Result<Option<bool>> {
        if size < u64::from(self.head.length) {
            return Ok(None);
        }
        Ok(Some(Print::of(&read(file, 0, self.head.length.into())?) == self.head))
    }

    /// Whether a file is the one that was read as far as here.
    pub(super) fn is_of(&self, file: &File) -> io::Result<bool> {
        let same = |print: Print, at: u64| match read(file, at, print.length.into()) {
            Ok(bytes) => Ok(Print::of(&bytes) == print),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        };
        if self.offset == 0 {
            return Ok(true);
        }
        Ok(same(self.tail, self.offset - u64::from(self.tail.length))? && same(self.head, 0)?)
    }

    /// The first version: FORMAT.md describes it. The path is for people, and to look beside it for a file that was renamed.
    pub(super) fn encode(&self, path: &str) -> Vec<u8> {
        let mut out = vec![VERSION, if self.skipping { SKIPPING } else { 0 }];
        out.extend_from_slice(&self.offset.to_le_bytes());
        for print in [self.head, self.tail] {
            out.extend_from_slice(&print.length.to_le_bytes());
            out.extend_from_slice(&print.hash);
        }
        out.extend_from_slice(&path.as_bytes()[..path.len().min(MAX_PATH_BYTES)]);
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<(Self, PathBuf)> {
        let mut cursor = Cursor(bytes);
        if cursor.u8()? != VERSION {
            return None;
        }
        let skipping = cursor.u8()? & SKIPPING != 0;
        let offset = cursor.u64()?;
        let mut print = || {
            let length = cursor.u16()?;
            let hash = cursor.take(16)?.try_into().ok()?;
            Some(Print { length, hash })
        };
        let (head, tail) = (print()?, print()?);
        let is_sound =
            u64::from(tail.length) <= offset.min(TAIL_BYTES) && u64::from(head.length) <= offset.min(HEAD_BYTES);
        let place = Self {
            offset,
            skipping,
            head,
            tail,
        };
        is_sound.then(|| (place, PathBuf::from(String::from_utf8_lossy(cursor.0).into_owned())))
    }
}

fn read(file: &File, at: u64, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length as usize];
    file.read_exact_at(&mut bytes, at)?;
    Ok(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs;

    #[test]
    fn a_file_is_known_by_its_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        let line = |n: usize| format!("{n} a line of this log\n");
        let write = |range: std::ops::Range<usize>| fs::write(&path, range.map(line).collect::<String>()).unwrap();
        let open = || File::open(&path).unwrap();
        for read_lines in [0, 1, 20, 200] {
            write(0..read_lines);
            let size = fs::metadata(&path).unwrap().len();
            let mut place = Place::default();
            place.move_to(&open(), size, false).unwrap();
            write(0..read_lines + 5);
            assert!(place.is_of(&open()).unwrap(), "it grew");
            let (again, at) = Place::decode(&place.encode("/x/a.log")).unwrap();
            assert_eq!((again, at), (place.clone(), PathBuf::from("/x/a.log")));
            if read_lines > 0 {
                write(1..2 * read_lines + 5);
                assert!(!place.is_of(&open()).unwrap(), "it was written anew");
                write(0..read_lines - 1);
                assert!(!place.is_of(&open()).unwrap(), "it is shorter");
            }
        }
        // The same first kilobyte, as files with a long head have it.
        let head = "x".repeat(2000);
        fs::write(&path, format!("{head}one")).unwrap();
        let mut place = Place::default();
        place.move_to(&open(), 2003, false).unwrap();
        fs::write(&path, format!("{head}two and more")).unwrap();
        assert!(!place.is_of(&open()).unwrap());
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_place_or_not(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = (Place::decode(&bytes), FileId::from_key(&bytes));
        }
    }
}
