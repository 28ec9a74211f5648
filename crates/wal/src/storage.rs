//! The few operations on a directory that the log needs, and the real one.
//!
//! Tests run the same log on a simulated disk that forgets what was not synced.

use std::ffi::OsStr;
use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock};

/// One directory of plain files. Nothing is durable before the matching sync returned: content by
/// [`StorageFile::sync_data`], names by [`Storage::sync_dir`].
pub trait Storage: Debug + Send + Sync + 'static {
    fn list(&self) -> io::Result<Vec<String>>;
    /// A new file; an existing name is an error.
    fn create(&self, name: &str) -> io::Result<Arc<dyn StorageFile>>;
    fn open(&self, name: &str) -> io::Result<Arc<dyn StorageFile>>;
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Replaces `to` if it exists.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Makes a file that really takes `bytes` of the device.
    fn allocate(&self, name: &str, bytes: u64) -> io::Result<()>;
    fn sync_dir(&self) -> io::Result<()>;
}

/// An open file.
pub trait StorageFile: Debug + Send + Sync + 'static {
    /// Fills as much of `buf` as there is; fewer bytes only at the end of the file.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;
    /// Writes all of `bytes` or fails, in which case any part may have been written.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    fn set_len(&self, len: u64) -> io::Result<()>;
    fn size(&self) -> io::Result<u64>;
    fn sync_data(&self) -> io::Result<()>;
    /// Gives the room of these bytes back to the device, where it can do that; they read as zeros then.
    fn punch(&self, _from: u64, _to: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl crate::segment::Source for dyn StorageFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        StorageFile::read_at(self, offset, buf)
    }
}

/// A directory of the real file system, locked as long as this lives.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// Not there while the disk has no room for a directory that does not exist yet.
    handle: OnceLock<File>,
}

impl Directory {
    /// Makes the directory if needed, durably, and locks it. `WouldBlock` when somebody else holds the lock. Where there is no
    /// room to make it, it counts as empty, and is made when something is written.
    pub fn lock(path: &Path) -> io::Result<Directory> {
        let directory = Self {
            path: path.to_owned(),
            handle: OnceLock::new(),
        };
        match directory.handle() {
            Err(e) if is_full(&e) && !path.exists() => {}
            other => drop(other?),
        }
        Ok(directory)
    }

    fn handle(&self) -> io::Result<&File> {
        if let Some(handle) = self.handle.get() {
            return Ok(handle);
        }
        create_dir_durable(&self.path)?;
        let handle = File::open(&self.path)?;
        flock(&handle, FlockOperation::NonBlockingLockExclusive)?;
        Ok(self.handle.get_or_init(|| handle))
    }
}

/// Whether there is no room for what was asked.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl Storage for Directory {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        if self.handle.get().is_none() {
            return Ok(names);
        }
        for entry in fs::read_dir(&self.path)? {
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        self.handle()?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(self.path.join(name))?;
        Ok(Arc::new(file))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        let file = OpenOptions::new().read(true).write(true).open(self.path.join(name))?;
        Ok(Arc::new(file))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn allocate(&self, name: &str, bytes: u64) -> io::Result<()> {
        self.handle()?;
        let path = self.path.join(name);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)?;
        let result = match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => write_zeros(&file, bytes),
            other => other.map_err(io::Error::from),
        };
        if result.is_err() {
            fs::remove_file(&path)?;
        }
        result
    }

    fn sync_dir(&self) -> io::Result<()> {
        match self.handle.get() {
            Some(handle) => handle.sync_all(),
            None => Ok(()),
        }
    }
}

fn write_zeros(file: &File, bytes: u64) -> io::Result<()> {
    let zeros = [0u8; 64 << 10];
    let mut at = 0;
    while at < bytes {
        let n = (bytes - at).min(zeros.len() as u64);
        file.write_all_at(&zeros[..n as usize], at)?;
        at += n;
    }
    Ok(())
}

impl StorageFile for File {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            match FileExt::read_at(self, &mut buf[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        File::set_len(self, len)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn sync_data(&self) -> io::Result<()> {
        File::sync_data(self)
    }

    fn punch(&self, from: u64, to: u64) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(fallocate(self, flags, from, to.saturating_sub(from))?)
    }
}

/// Makes a directory and those above it; each new name is synced in its parent, else a power cut could take the whole log.
pub(crate) fn create_dir_durable(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = match path.parent() {
        Some(p) if p.as_os_str() != OsStr::new("") => p,
        _ => Path::new("."),
    };
    create_dir_durable(parent)?;
    match fs::create_dir(path) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    File::open(parent)?.sync_all()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_holder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let held = Directory::lock(&path).unwrap();
        assert_eq!(Directory::lock(&path).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(held);
        Directory::lock(&path).unwrap();
    }

    #[test]
    fn an_allocation_that_cannot_be_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let held = Directory::lock(dir.path()).unwrap();
        held.allocate("small", 4096).unwrap();
        assert!(held.allocate("huge", 1 << 60).is_err());
        assert_eq!(held.list().unwrap(), ["small"]);
    }
}
