//! One file of a table: which version of it is in use, and the next one when the file changes.

use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use super::csv_table::CsvTable;
use super::database::Database;
use crate::clock::WallTime;
use crate::lock;

/// Bytes of a CSV file; in memory it takes about as much.
pub(super) const MAX_CSV_BYTES: u64 = 64 * 1024 * 1024;
/// Bytes of a database. The largest that is sold, of all cities with their networks, has 400 MiB.
pub(super) const MAX_DATABASE_BYTES: u64 = 512 * 1024 * 1024;
/// A file is looked at not more often than this.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What tells one version of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Stamp {
        Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

/// One version of a table, immutable.
#[derive(Debug)]
pub(super) enum Version {
    Csv(CsvTable),
    Database(Box<Database>),
}

/// Looks up the same fields of many keys.
pub(super) enum Finder<'a> {
    Csv(&'a CsvTable, Vec<usize>),
    Database(&'a Database, Vec<super::database::Path<'a>>),
}

impl Version {
    fn parse(bytes: Vec<u8>, key: Option<&str>, named_database: bool) -> Result<Version, String> {
        if named_database || Database::recognise(&bytes) {
            if key.is_some() {
                return Err("a key column was given, but this is a database of addresses; leave it out".to_owned());
            }
            return Database::parse(bytes).map(|database| Version::Database(Box::new(database)));
        }
        if bytes.len() as u64 > MAX_CSV_BYTES {
            return Err(too_large(bytes.len() as u64, MAX_CSV_BYTES));
        }
        CsvTable::parse(&bytes, key).map(Version::Csv)
    }

    pub(super) fn fields(&self) -> Vec<String> {
        match self {
            Version::Csv(table) => table.fields().to_vec(),
            Version::Database(_) => Vec::new(),
        }
    }

    pub(super) fn finder<'a>(&'a self, fields: &[&'a str]) -> Result<Finder<'a>, String> {
        match self {
            Version::Csv(table) => Ok(Finder::Csv(table, table.columns(fields)?)),
            Version::Database(database) => {
                let paths = fields.iter().map(|field| super::database::Path::parse(field));
                Ok(Finder::Database(database, paths.collect()))
            }
        }
    }

    fn rows(&self) -> u64 {
        match self {
            Version::Csv(table) => table.rows() as u64,
            Version::Database(database) => database.nodes(),
        }
    }
}

impl Finder<'_> {
    pub(super) fn find(&self, key: &str, values: &mut Vec<Option<String>>) -> Result<(), String> {
        match self {
            Finder::Csv(table, columns) => {
                let row = table.row(key);
                values.extend(columns.iter().map(|column| Some(table.cell(row?, *column).to_owned())));
                Ok(())
            }
            Finder::Database(database, paths) => database.find(key, paths, values),
        }
    }
}

/// How a table is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableStatus {
    pub path: PathBuf,
    /// Rows of a CSV file, nodes of a database.
    pub rows: u64,
    pub bytes: u64,
    /// Times that a new version was taken since the start.
    pub reloads: u64,
    /// Why the version in use is not the one on the disk.
    pub problem: Option<String>,
}

#[derive(Debug)]
pub(super) struct TableFile {
    path: PathBuf,
    key: Option<String>,
    version: RwLock<Arc<Version>>,
    progress: Mutex<Progress>,
    start: WallTime,
    /// Milliseconds after `start` at which the file was looked at last.
    looked: AtomicU64,
    looking: AtomicBool,
}

#[derive(Debug)]
struct Progress {
    /// Of the version in use.
    bytes: u64,
    /// Of the newest version that was tried; none if the file was not there.
    tried: Option<Stamp>,
    reloads: u64,
    problem: Option<String>,
}

impl TableFile {
    pub(super) fn open(path: PathBuf, key: Option<String>) -> Result<TableFile, String> {
        let (stamp, bytes) = read(&path)?;
        let version = Version::parse(bytes, key.as_deref(), is_database(&path))?;
        Ok(TableFile {
            path,
            key,
            version: RwLock::new(Arc::new(version)),
            progress: Mutex::new(Progress {
                bytes: stamp.bytes,
                tried: Some(stamp),
                reloads: 0,
                problem: None,
            }),
            start: WallTime::now(),
            looked: AtomicU64::new(0),
            looking: AtomicBool::new(false),
        })
    }

    /// The version to use. Where it is time to look at the file, another thread does, and a later call gets what it read.
    pub(super) fn current(self: &Arc<Self>) -> Arc<Version> {
        let now = self.start.elapsed_ms();
        let due = self
            .looked
            .load(Ordering::Relaxed)
            .saturating_add(LOOK_EVERY.as_millis() as u64)
            <= now;
        if due && !self.looking.swap(true, Ordering::Acquire) {
            self.looked.store(now, Ordering::Relaxed);
            let file = self.clone();
            let thread = std::thread::Builder::new().name("sluice-table".to_owned());
            let started = thread.spawn(move || {
                file.refresh();
                file.looking.store(false, Ordering::Release);
            });
            if started.is_err() {
                // No thread to be had now; the version in use stays for another second.
                self.looking.store(false, Ordering::Release);
            }
        }
        let version = self.version.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        version.clone()
    }

    pub(super) fn status(&self) -> TableStatus {
        let rows = self
            .version
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .rows();
        let progress = lock(&self.progress);
        TableStatus {
            path: self.path.clone(),
            rows,
            bytes: progress.bytes,
            reloads: progress.reloads,
            problem: progress.problem.clone(),
        }
    }

    /// Looks at the file and takes a new version, if there is one that can be read.
    fn refresh(&self) {
        let seen = std::fs::metadata(&self.path).ok().map(|metadata| Stamp::of(&metadata));
        if lock(&self.progress).tried == seen {
            return;
        }
        let read = read(&self.path);
        let tried = read.as_ref().map_or(seen, |(stamp, _)| Some(*stamp));
        let parsed = read.and_then(|(stamp, bytes)| {
            let version = Version::parse(bytes, self.key.as_deref(), is_database(&self.path))?;
            Ok((stamp, version))
        });
        let mut progress = lock(&self.progress);
        progress.tried = tried;
        match parsed {
            Ok((stamp, version)) => {
                let rows = version.rows();
                *self.version.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::new(version);
                progress.bytes = stamp.bytes;
                progress.reloads += 1;
                progress.problem = None;
                tracing::info!(path = %self.path.display(), rows, "table read again");
            }
            Err(what) => {
                tracing::warn!(path = %self.path.display(), what, "table not read again, the old one stays in use");
                progress.problem = Some(what);
            }
        }
    }
}

fn is_database(path: &std::path::Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("mmdb"))
}

/// The whole file, and the stamp of what was read.
fn read(path: &std::path::Path) -> Result<(Stamp, Vec<u8>), String> {
    let cannot = |error: std::io::Error| format!("cannot be read: {error}");
    let mut file = File::open(path).map_err(cannot)?;
    let metadata = file.metadata().map_err(cannot)?;
    if !metadata.is_file() {
        return Err("is not a file".to_owned());
    }
    let stamp = Stamp::of(&metadata);
    if stamp.bytes > MAX_DATABASE_BYTES {
        return Err(too_large(stamp.bytes, MAX_DATABASE_BYTES));
    }
    let mut bytes = Vec::with_capacity(stamp.bytes as usize);
    file.by_ref()
        .take(MAX_DATABASE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(cannot)?;
    let after = Stamp::of(&file.metadata().map_err(cannot)?);
    if after != stamp || bytes.len() as u64 != stamp.bytes {
        return Err("changed while it was read; write a new file and rename it over the old one".to_owned());
    }
    Ok((stamp, bytes))
}

fn too_large(bytes: u64, limit: u64) -> String {
    format!("has {} MiB; at most {} MiB", bytes.div_ceil(1 << 20), limit >> 20)
}
