//! One file that is watched.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::place::{FileId, Place};
use crate::source::export::Attributes;

#[derive(Debug)]
pub(super) struct Tracked {
    pub(super) path: PathBuf,
    pub(super) attributes: Attributes,
    pub(super) file: Option<File>,
    pub(super) place: Place,
    /// It was found to be cut to nothing or written anew. Before it is read on, the folder is looked at once more: what it held may
    /// have been copied there, and the copy must not be taken for new.
    pub(super) rewritten: Option<Duration>,
    pub(super) size: u64,
    /// Seconds and nanoseconds.
    pub(super) modified: (i64, i64),
    /// When to see whether it still is what was read, although it is as long: it may have been written anew. Once more some time after it
    /// was read, because two changes within one tick of the file system's clock look like one.
    pub(super) verify_at: Option<Duration>,
    pub(super) grown: Duration,
    /// Since when no name leads to it.
    pub(super) gone: Option<Duration>,
    /// When it was last read.
    pub(super) used: Duration,
    /// Its place has moved and no request has told.
    pub(super) moved: bool,
}

/// Opens a file to read it. What turns out to be something else, such as a pipe, must not make us wait.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::other("is no regular file"))
    }
}

impl Tracked {
    pub(super) fn unread(&self) -> u64 {
        match self.file.is_some() || self.gone.is_none() {
            true => self.size.saturating_sub(self.place.offset),
            false => 0,
        }
    }

    pub(super) fn grew(&mut self, meta: &Metadata, now: Duration) {
        if meta.len() != self.size {
            (self.size, self.grown) = (meta.len(), now);
        }
        let modified = (meta.mtime(), meta.mtime_nsec());
        if modified != self.modified {
            (self.modified, self.verify_at) = (modified, Some(now));
        }
    }

    /// Whether it is to be looked at: there is more of it, or it may have been written anew.
    pub(super) fn is_due(&self, now: Duration) -> bool {
        if self.gone.is_some() && self.file.is_none() {
            return false;
        }
        let verify = self.place.offset > 0 && self.verify_at.is_some_and(|at| now >= at);
        self.size != self.place.offset || self.rewritten.is_some() || verify
    }

    pub(super) fn position(&self, id: FileId) -> (Vec<u8>, Vec<u8>) {
        (id.to_key(), self.place.encode(&self.path.to_string_lossy()))
    }

    pub(super) fn may_be_copied_to(&self, path: &Path) -> bool {
        let stem = |path: &Path| -> Option<Vec<u8>> {
            use std::os::unix::ffi::OsStrExt as _;
            let name = path.file_name()?.as_bytes();
            Some(name.split(|b| *b == b'.').next().unwrap_or_default().to_vec())
        };
        let (Some(own), Some(other)) = (stem(&self.path), stem(path)) else {
            return false;
        };
        self.path.parent() == path.parent() && other.starts_with(&own)
    }
}
