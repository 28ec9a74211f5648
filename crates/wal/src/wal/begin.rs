//! A new segment: its header, durable with its name before any record follows.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::sync::{Arc, Mutex};

use super::Newest;
use crate::open;
use crate::reader::Segment;
use crate::recovery::SparseIndex;
use crate::segment::{Header, Totals, put_commit};
use crate::storage::{Storage, StorageFile};
use crate::{Mark, WalError, crash_point};

pub(super) fn header(first: u64, before: Option<(u64, u64)>, note: Vec<u8>, marked: bool) -> Header {
    // Unpredictable for whoever sends records; quality beyond that does not matter.
    let salt = RandomState::new().build_hasher().finish() as u32;
    Header {
        first,
        prev_first: before.map(|b| b.0),
        prev_end: before.map_or(0, |b| b.1),
        salt,
        note,
        marked,
    }
}

/// Header, sync, directory sync: only then may records follow.
pub(super) fn create_segment(
    storage: &dyn Storage,
    header: &Header,
    mark: Option<Mark>,
) -> Result<(Segment, Newest), WalError> {
    let (name, file) = create_file(storage, header.first)?;
    let mut bytes = header.encode();
    let start = bytes.len() as u64;
    if header.marked {
        let (first, mark) = (header.first, mark.unwrap_or_default());
        put_commit(&mut bytes, start, header.salt, first, Totals::default(), Some(mark));
    }
    if let Err(error) = file
        .write_at(0, &bytes)
        .map_err(WalError::io("write a segment's header"))
    {
        // A leftover is recognised at the next start.
        let _ = storage.remove(&name);
        return Err(error);
    }
    crash_point("wal.new_segment_header");
    let io = |action| {
        move |source| WalError::Io {
            action,
            source: Arc::new(source),
        }
    };
    if !cfg!(feature = "break-header-sync") {
        file.sync_data().map_err(io("sync a segment's header"))?;
    }
    crash_point("wal.before_dir_sync");
    if !cfg!(feature = "break-dir-sync") {
        storage.sync_dir().map_err(io("sync the directory"))?;
    }
    let (len, salt, sparse) = (bytes.len() as u64, header.salt, Arc::<Mutex<SparseIndex>>::default());
    let segment = Segment {
        name: name.into(),
        first: header.first,
        start,
        len,
        salt: Some(salt),
        sparse: sparse.clone(),
    };
    let synced_totals = Totals::default();
    Ok((
        segment,
        Newest {
            file,
            first: header.first,
            start: len,
            salt,
            marked: header.marked,
            synced_mark: mark,
            synced_len: len,
            synced_totals,
            sparse,
        },
    ))
}

/// What stands for a segment that the disk has no room to begin: nothing is appended before it is begun.
pub(super) fn unmade(header: &Header) -> Newest {
    let len = header.begun_len();
    Newest {
        file: Arc::new(Nowhere),
        first: header.first,
        start: len,
        salt: header.salt,
        marked: header.marked,
        synced_mark: None,
        synced_len: len,
        synced_totals: Totals::default(),
        sparse: Arc::default(),
    }
}

#[derive(Debug)]
struct Nowhere;

impl StorageFile for Nowhere {
    fn read_at(&self, _: u64, _: &mut [u8]) -> io::Result<usize> {
        Ok(0)
    }

    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::StorageFull.into())
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(0)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A name taken by a file that somebody moved there is passed over.
fn create_file(storage: &dyn Storage, first: u64) -> Result<(String, Arc<dyn StorageFile>), WalError> {
    let mut name = open::segment_name(first, 0);
    for n in 1.. {
        match storage.create(&name) {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists && n < 100 => name = open::segment_name(first, n),
            other => return Ok((name, other.map_err(WalError::io("create a segment"))?)),
        }
    }
    Err(WalError::Corrupt {
        file: name,
        what: "every name for the next segment is taken".to_owned(),
    })
}
