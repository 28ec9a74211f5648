//! One file that is watched.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
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

    pub(super) fn grew(&mut self, size: u64, now: Duration) {
        if size != self.size {
            (self.size, self.grown) = (size, now);
        }
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
