//! Looking into a log without touching it: for tools, beside a running writer or after its end.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FlockOperation, flock};

use crate::open;
use crate::reader::{Shared, Visible};
use crate::storage::{Storage, StorageFile};
use crate::{Reader, Recovery, WalError};

/// A writer may delete a file between the list of files and a look into one.
const ATTEMPTS: usize = 5;

/// A log as it was at one moment. Nothing on the disk is changed: what opening would cut off or rename is only left out.
#[derive(Debug)]
pub struct Look {
    pub reader: Reader,
    /// Beside a running writer, torn bytes may be those that it is just writing.
    pub recovery: Recovery,
}

/// Reads what a directory holds. What a running writer appends or deletes afterwards is not followed: a file that is gone
/// meanwhile reads as damage.
pub fn look(dir: &Path) -> Result<Look, WalError> {
    let storage: Arc<dyn Storage> = Arc::new(Untouched(dir.to_owned()));
    let mut attempt = 1;
    let found = loop {
        match open::open(&*storage) {
            Err(WalError::Io { source, .. }) if attempt < ATTEMPTS && is_gone(&source, dir) => attempt += 1,
            other => break other?,
        }
    };
    let bytes = found.segments.iter().map(|s| s.len).sum();
    let visible = Visible {
        synced: found.recovery.next,
        segments: found.segments,
        bytes,
    };
    Ok(Look {
        reader: Reader::new(Shared::new(storage, visible)),
        recovery: found.recovery,
    })
}

fn is_gone(error: &io::Error, dir: &Path) -> bool {
    error.kind() == io::ErrorKind::NotFound && dir.is_dir()
}

/// Whether a writer has the directory open now.
pub fn is_in_use(dir: &Path) -> io::Result<bool> {
    match flock(&File::open(dir)?, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(false),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
        Err(other) => Err(other.into()),
    }
}

/// A directory of which nothing is changed, whatever is asked: opening a log mends what it finds, and here it must not.
#[derive(Debug)]
struct Untouched(PathBuf);

#[derive(Debug)]
struct UntouchedFile(File);

impl Storage for Untouched {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn create(&self, _: &str) -> io::Result<Arc<dyn StorageFile>> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        Ok(Arc::new(UntouchedFile(File::open(self.0.join(name))?)))
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn allocate(&self, _: &str, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }
}

impl StorageFile for UntouchedFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        StorageFile::read_at(&self.0, offset, buf)
    }

    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        StorageFile::size(&self.0)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{Entry, Options, Wal};
    use std::collections::BTreeMap;

    fn content(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        let files = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
        files.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
    }

    #[test]
    fn a_look_sees_what_is_synced_and_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options {
            segment_bytes: 400,
            ballast_bytes: 0,
            ..Options::default()
        };
        let (mut wal, _) = Wal::open(dir.path(), options).unwrap();
        for n in 0..20u8 {
            wal.append(&[n; 50]).unwrap();
            wal.sync().unwrap();
        }
        assert!(is_in_use(dir.path()).unwrap());
        // A torn tail, a file that nothing can be read of, and the beginning of a segment.
        let newest = wal.reader().segments().pop().unwrap().name;
        let mut bytes = fs::read(dir.path().join(&newest)).unwrap();
        bytes.extend_from_slice(&[7; 30]);
        fs::write(dir.path().join(&newest), bytes).unwrap();
        fs::write(dir.path().join("00000000000000000099.wal"), [1; 20]).unwrap();
        let before = content(dir.path());
        let seen = look(dir.path()).unwrap();
        assert_eq!(seen.recovery.next, 20);
        assert!(seen.recovery.torn_bytes >= 50);
        for n in 0..20u8 {
            let entry = seen.reader.read(n.into()).unwrap();
            assert_eq!(entry, Some(Entry::Record(vec![n; 50].into())));
        }
        let segments = seen.reader.segments();
        assert!(segments.len() > 3 && segments.windows(2).all(|w| w[0].end == w[1].first));
        assert_eq!(content(dir.path()), before);
        drop(wal);
        assert!(!is_in_use(dir.path()).unwrap());
        assert!(look(&dir.path().join("none")).is_err());
    }
}
