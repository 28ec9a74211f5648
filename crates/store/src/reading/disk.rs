//! Parts of the lake's files on this machine's disk, under a cap: what was not used for longest goes first.
//!
//! A part is a block of a file with the hash of its name and bytes before it, in a file of its own that is put in place whole. Nothing is
//! synced: what a crash leaves half-written does not fit its hash, and is removed and read from the lake again. The folder can be
//! removed whenever no process uses it.

mod index;

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use object_store::{Error, Result};

use self::index::{Index, NAME_BYTES, Name, path_in};
use super::Counts;

/// The folder within the one that is configured: what is in it that is not ours is removed.
const FOLDER: &str = "sluice-cache";
/// A request to a bucket takes as long as the transfer of a few hundred KiB.
pub(super) const BLOCK: u64 = 256 << 10;
const HASH_BYTES: usize = blake3::OUT_LEN;
const STORE: &str = "files kept of the lake";

/// A file of the lake, as blocks know it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Object {
    hash: [u8; HASH_BYTES],
    size: u64,
}

/// The blocks of one read.
#[derive(Debug)]
pub(super) struct Found {
    here: BTreeMap<u64, Bytes>,
    missing: Vec<u64>,
    size: u64,
}

#[derive(Debug)]
pub(super) struct Disk {
    folder: PathBuf,
    most: u64,
    index: Mutex<Index>,
    /// Names of files that are not in place yet.
    aside: AtomicU64,
    counts: Arc<Counts>,
}

impl Object {
    /// `place` is where its table is.
    pub(super) fn new(place: &str, path: &str, size: u64) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in [place, path] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        hasher.update(&size.to_le_bytes());
        Self {
            hash: *hasher.finalize().as_bytes(),
            size,
        }
    }

    fn name(&self, block: u64) -> Name {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.hash).update(&block.to_le_bytes());
        let mut name = Name::default();
        name.copy_from_slice(&hasher.finalize().as_bytes()[..NAME_BYTES]);
        name
    }
}

fn span(block: u64, size: u64) -> Range<u64> {
    block * BLOCK..((block + 1) * BLOCK).min(size)
}

impl Found {
    /// What is to be fetched, in order.
    pub(super) fn missing(&self) -> Vec<Range<u64>> {
        self.missing.iter().map(|block| span(*block, self.size)).collect()
    }

    fn range(&self, range: &Range<u64>) -> Option<Bytes> {
        let mut parts = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let block = at / BLOCK;
            let (bytes, start) = (self.here.get(&block)?, block * BLOCK);
            let end = range.end.min(start + BLOCK);
            let within = usize::try_from(at - start).ok()?..usize::try_from(end - start).ok()?;
            if within.end > bytes.len() {
                return None;
            }
            parts.push(bytes.slice(within));
            at = end;
        }
        Some(match parts.len() {
            0 => Bytes::new(),
            1 => parts.remove(0),
            _ => {
                let mut joined = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
                parts.iter().for_each(|part| joined.extend_from_slice(part));
                joined.freeze()
            }
        })
    }
}

impl Disk {
    /// Opens a folder with what an earlier process left in it.
    pub(super) fn open(folder: &Path, most: u64, counts: Arc<Counts>) -> io::Result<Self> {
        let folder = folder.join(FOLDER);
        // Rows of all tenants are in it.
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let disk = Self {
            index: Mutex::new(Index::read(&folder)?),
            folder,
            most,
            aside: AtomicU64::new(0),
            counts,
        };
        let too_much = disk.index().make_room(most);
        disk.remove(&too_much);
        Ok(disk)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.index().bytes()
    }

    /// The blocks that some ranges of an object lie in, as far as they are here.
    pub(super) async fn look(self: &Arc<Self>, object: Object, ranges: &[Range<u64>]) -> Result<Found> {
        let mut needed: Vec<u64> = ranges
            .iter()
            .filter(|range| range.start < range.end)
            .flat_map(|range| range.start / BLOCK..=(range.end - 1) / BLOCK)
            .collect();
        needed.sort_unstable();
        needed.dedup();
        let disk = Arc::clone(self);
        blocking(move || {
            let mut found = Found {
                here: BTreeMap::new(),
                missing: Vec::new(),
                size: object.size,
            };
            for block in needed {
                match disk.get(object.name(block), span(block, object.size)) {
                    Some(bytes) => {
                        found.here.insert(block, bytes);
                    }
                    None => found.missing.push(block),
                }
            }
            let bytes = found.here.values().map(|bytes| bytes.len() as u64).sum();
            Counts::add(&disk.counts.disk_hits, found.here.len() as u64);
            Counts::add(&disk.counts.disk_hit_bytes, bytes);
            Counts::add(&disk.counts.disk_misses, found.missing.len() as u64);
            found
        })
        .await
    }

    /// Keeps what was missing, and gives what the ranges are.
    pub(super) async fn keep(
        self: &Arc<Self>,
        object: Object,
        mut found: Found,
        fetched: Vec<Bytes>,
        ranges: &[Range<u64>],
    ) -> Result<Vec<Bytes>> {
        let mut new = Vec::new();
        for (block, bytes) in std::mem::take(&mut found.missing).into_iter().zip(fetched) {
            let wanted = span(block, object.size);
            if bytes.len() as u64 == wanted.end - wanted.start {
                new.push((object.name(block), bytes.clone()));
            }
            found.here.insert(block, bytes);
        }
        if !new.is_empty() {
            let disk = Arc::clone(self);
            blocking(move || disk.put(&new)).await?;
        }
        let whole = ranges.iter().map(|range| found.range(range));
        whole.collect::<Option<Vec<_>>>().ok_or_else(|| Error::Generic {
            store: STORE,
            source: "an object of the lake is shorter than its table says".into(),
        })
    }

    fn get(&self, name: Name, span: Range<u64>) -> Option<Bytes> {
        if !self.index().touch(&name) {
            return None;
        }
        let length = usize::try_from(span.end - span.start).ok()?;
        match read_part(&self.path(&name), &name, length) {
            Ok(Some(bytes)) => return Some(bytes),
            Ok(None) => {
                Counts::add(&self.counts.disk_damaged, 1);
                tracing::warn!(file = %self.path(&name).display(), "a part kept of the lake is damaged and is read again");
            }
            Err(error) => tracing::debug!(%error, "a part kept of the lake cannot be read"),
        }
        self.index().forget(&name);
        self.remove(&[name]);
        None
    }

    fn put(&self, new: &[(Name, Bytes)]) {
        for (name, bytes) in new {
            let held = (bytes.len() + HASH_BYTES) as u64;
            if held > self.most {
                continue;
            }
            let gone = self.index().make_room(self.most - held);
            self.remove(&gone);
            if let Err(error) = self.write(name, bytes) {
                // The disk is full, say: the lake has it.
                tracing::debug!(%error, "a part of the lake is not kept");
                continue;
            }
            self.index().insert(*name, held);
        }
    }

    fn write(&self, name: &Name, bytes: &Bytes) -> io::Result<()> {
        let path = self.path(name);
        let number = self.aside.fetch_add(1, Ordering::Relaxed);
        let aside = self.folder.join(format!("new-{}-{number}", std::process::id()));
        let write = || {
            let mut file = fs::File::create(&aside)?;
            file.write_all(hash(name, bytes).as_bytes())?;
            file.write_all(bytes)?;
            drop(file);
            match fs::rename(&aside, &path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    path.parent().map_or(Ok(()), fs::create_dir_all)?;
                    fs::rename(&aside, &path)
                }
                placed => placed,
            }
        };
        write().inspect_err(|_| drop(fs::remove_file(&aside)))
    }

    fn remove(&self, names: &[Name]) {
        for name in names {
            // What is gone already is what is wanted.
            drop(fs::remove_file(self.path(name)));
        }
    }

    fn path(&self, name: &Name) -> PathBuf {
        path_in(&self.folder, name)
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        // Each change is complete before anything can fail.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn hash(name: &Name, bytes: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(name).update(bytes);
    hasher.finalize()
}

/// `None`: it is damaged.
fn read_part(path: &Path, name: &Name, length: usize) -> io::Result<Option<Bytes>> {
    let mut file = fs::File::open(path)?;
    if file.metadata()?.len() != (length + HASH_BYTES) as u64 {
        return Ok(None);
    }
    let mut whole = Vec::with_capacity(length + HASH_BYTES);
    file.read_to_end(&mut whole)?;
    let whole = Bytes::from(whole);
    if whole.len() != length + HASH_BYTES {
        return Ok(None);
    }
    let (said, bytes) = (whole.slice(..HASH_BYTES), whole.slice(HASH_BYTES..));
    Ok((hash(name, &bytes).as_bytes() == said.as_ref()).then_some(bytes))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|source| Error::Generic {
            store: STORE,
            source: source.into(),
        })
}

#[cfg(test)]
mod tests;
