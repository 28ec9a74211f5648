//! How queries read the files of the cold table: parsed footers are kept in memory, and what was read of a bucket on this machine's disk,
//! both under a cap. Files never change and their names are never used again, so nothing that is kept can be out of date; which files a
//! query reads is decided by the version that it pinned, never here.

mod disk;
mod footers;
mod objects;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use chrono::DateTime;
use datafusion::datasource::physical_plan::ParquetFileReaderFactory;
use datafusion::execution::cache::cache_manager::{CachedFileMetadataEntry, FileMetadataCache};
use datafusion::execution::cache::default_cache::DefaultCache;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore};

use self::disk::Disk;
use self::objects::Objects;
use crate::cold::{ColdFile, ColdTable};

/// A footer of a file of a million rows takes about 3 MiB in memory, with its page index.
const FOOTERS: u64 = 256 << 20;

/// What may be kept of cold files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheOptions {
    /// Bytes of memory for parsed footers.
    pub footers: u64,
    /// Where parts of files that lie in a bucket are kept, and how many bytes of them.
    pub disk: Option<(PathBuf, u64)>,
}

impl Default for CacheOptions {
    fn default() -> Self {
        Self {
            footers: FOOTERS,
            disk: None,
        }
    }
}

/// What is kept of cold files. One table has one.
pub struct Caches {
    footers: Arc<FileMetadataCache>,
    disk: Option<Arc<Disk>>,
    counts: Arc<Counts>,
}

/// What was read of cold files, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reads {
    /// What the lake was asked for: reads, and the bytes of their answers.
    pub lake_reads: u64,
    pub lake_bytes: u64,
    /// What this machine's disk had instead.
    pub disk_hits: u64,
    pub disk_hit_bytes: u64,
    /// What it did not have.
    pub disk_misses: u64,
    /// Parts on this machine's disk that were damaged; they were removed and read again.
    pub disk_damaged: u64,
    /// What the disk holds now.
    pub disk_bytes: u64,
    /// What the parsed footers in memory are of.
    pub footers: u64,
}

#[derive(Debug, Default)]
struct Counts {
    lake_reads: AtomicU64,
    lake_bytes: AtomicU64,
    disk_hits: AtomicU64,
    disk_hit_bytes: AtomicU64,
    disk_misses: AtomicU64,
    disk_damaged: AtomicU64,
}

impl Counts {
    fn add(counter: &AtomicU64, more: u64) {
        counter.fetch_add(more, Ordering::Relaxed);
    }
}

impl Caches {
    /// Opens the folder on disk, and forgets what in it is not whole.
    pub fn open(options: &CacheOptions) -> io::Result<Caches> {
        let counts = Arc::<Counts>::default();
        let disk = options
            .disk
            .as_ref()
            .map(|(folder, most)| Disk::open(folder, *most, Arc::clone(&counts)).map(Arc::new));
        Ok(Caches {
            footers: footers(options.footers),
            disk: disk.transpose()?,
            counts,
        })
    }

    pub fn reads(&self) -> Reads {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counts = &self.counts;
        Reads {
            lake_reads: of(&counts.lake_reads),
            lake_bytes: of(&counts.lake_bytes),
            disk_hits: of(&counts.disk_hits),
            disk_hit_bytes: of(&counts.disk_hit_bytes),
            disk_misses: of(&counts.disk_misses),
            disk_damaged: of(&counts.disk_damaged),
            disk_bytes: self.disk.as_ref().map_or(0, |disk| disk.bytes()),
            footers: self.footers.len() as u64,
        }
    }

    /// The way to some files of a table: as objects, and as Parquet.
    pub(crate) fn files(
        &self,
        table: &ColdTable,
        files: &[Arc<ColdFile>],
    ) -> (Arc<dyn ObjectStore>, Arc<dyn ParquetFileReaderFactory>) {
        // What lies on this machine's disk already is not put there again.
        let disk = self.disk.as_ref().filter(|_| table.is_remote());
        let known: HashMap<Path, ObjectMeta> = files
            .iter()
            .map(|file| (file.path.clone(), object_meta(file)))
            .collect();
        let objects: Arc<dyn ObjectStore> = Arc::new(Objects::new(
            table.store(),
            table.place().to_owned(),
            known,
            disk.cloned(),
            Arc::clone(&self.counts),
        ));
        let readers = footers::Readers::new(Arc::clone(&objects), Arc::clone(&self.footers));
        (objects, Arc::new(readers))
    }
}

impl Default for Caches {
    fn default() -> Self {
        Caches {
            footers: footers(FOOTERS),
            disk: None,
            counts: Arc::default(),
        }
    }
}

impl fmt::Debug for Caches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caches")
            .field("reads", &self.reads())
            .finish_non_exhaustive()
    }
}

fn footers(most: u64) -> Arc<FileMetadataCache> {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    Arc::new(DefaultCache::<Path, CachedFileMetadataEntry>::new(most))
}

/// A file as the version of the table describes it: that is also what a kept footer is checked against.
pub(crate) fn object_meta(file: &ColdFile) -> ObjectMeta {
    ObjectMeta {
        location: file.path.clone(),
        last_modified: DateTime::from_timestamp_millis(file.modified_ms).unwrap_or_default(),
        size: file.bytes,
        e_tag: None,
        version: None,
    }
}
