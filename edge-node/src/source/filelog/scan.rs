//! Finds files and follows them: those that are new, renamed, copied before they are cut to nothing, or gone.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::place::{FileId, Place};
use super::tail::{Tailer, read_upto};
use super::tracked::open;
use crate::config::StartAt;

/// Folders are read anew so often; files that are open are looked at at every poll. Where there are very many names, it is at
/// most one part in so many of the time.
const SCAN_EVERY: Duration = Duration::from_secs(1);
const SCAN_SHARE: u32 = 20;
/// A file that no name leads to any more is kept open for so long after it last grew: writers hold on to it.
const LET_GO_AFTER: Duration = Duration::from_secs(10);
/// A file that begins like another one and stays shorter for so long is no copy of it.
const COPY_PATIENCE: Duration = Duration::from_secs(30);
/// The place in a file that is gone is kept for so long: a folder may only be away for a while.
const FORGET_AFTER: Duration = Duration::from_secs(24 * 3600);
/// Files whose places are kept; more matching files are left out and told.
const MAX_TRACKED: usize = 65_536;
/// Endings of what compressors leave behind.
const COMPRESSED: [&str; 6] = ["gz", "zst", "bz2", "xz", "lz4", "zip"];

/// A file that a pattern leads to.
struct Found {
    path: PathBuf,
    id: FileId,
    meta: fs::Metadata,
}

impl Tailer {
    /// Finds files, and those that are found no more.
    pub(super) fn scan(&mut self, now: Duration, is_first: bool) {
        let begun = Instant::now();
        self.scanned = Some(now);
        self.scan_problem = None;
        let found = self.find();
        for tracked in self.files.values_mut() {
            tracked.gone = tracked.gone.or(Some(now));
        }
        let mut new = VecDeque::new();
        self.copying.retain(|id, _| found.iter().any(|found| found.id == *id));
        for found in found {
            match self.files.get_mut(&found.id) {
                Some(tracked) => {
                    tracked.gone = None;
                    tracked.grew(&found.meta, now);
                    if tracked.path != found.path {
                        let (place, old) = (tracked.place.clone(), tracked.file.take());
                        let mut renamed = self.tracked(found.path, place, now);
                        renamed.file = old;
                        renamed.grew(&found.meta, now);
                        // The next record tells the new name.
                        renamed.moved = true;
                        self.files.insert(found.id, renamed);
                    }
                }
                None => new.push_back(found),
            }
        }
        for found in new {
            if self.files.len() >= MAX_TRACKED {
                self.noticed.left_out += 1;
                self.scan_problem = Some(format!("more than {MAX_TRACKED} files, some are left out"));
                continue;
            }
            if let Err(error) = self.add(&found, now, is_first) {
                self.scan_problem = Some(format!("{}: {error}", found.path.display()));
            }
        }
        self.let_go(now);
        self.scan_every = SCAN_EVERY.max(begun.elapsed() * SCAN_SHARE);
    }

    fn find(&mut self) -> Vec<Found> {
        let mut found: BTreeMap<FileId, Found> = BTreeMap::new();
        let (exclude, files) = (&self.settings.exclude, &self.files);
        let mut visit = |path: PathBuf| {
            let compressed = path.extension().is_some_and(|e| COMPRESSED.iter().any(|c| e == *c));
            if compressed || exclude.iter().any(|pattern| pattern.matches(&path)) {
                return;
            }
            let Some(meta) = fs::metadata(&path).ok().filter(fs::Metadata::is_file) else {
                return;
            };
            let id = FileId {
                device: meta.dev(),
                inode: meta.ino(),
            };
            // Of several names of one file, the one that is known.
            if !found.contains_key(&id) || files.get(&id).is_some_and(|f| f.path == path) {
                found.insert(id, Found { path, id, meta });
            }
        };
        let mut all = true;
        for pattern in &self.settings.include {
            all &= pattern.walk(&mut visit);
        }
        if !all {
            self.scan_problem = Some("a pattern leads to more names than are looked at: make it narrower".to_owned());
        }
        found.into_values().collect()
    }

    /// Begins to watch a file.
    fn add(&mut self, found: &Found, now: Duration, is_first: bool) -> io::Result<()> {
        let file = open(&found.path)?;
        let mut place = Place::default();
        if is_first && self.settings.start_at == StartAt::End {
            place.move_to(&file, found.meta.len(), false)?;
        } else if !is_first {
            match self.copied_from(found, &file)? {
                Copied::No => {}
                Copied::Upto(read) => place = read,
                Copied::NotYet if now < *self.copying.entry(found.id).or_insert(now) + COPY_PATIENCE => return Ok(()),
                Copied::NotYet => {}
            }
        }
        self.copying.remove(&found.id);
        let mut tracked = self.tracked(found.path.clone(), place, now);
        tracked.grew(&found.meta, now);
        tracked.moved = tracked.place.offset > 0;
        tracked.file = (self.open_files() < self.settings.max_open).then_some(file);
        self.files.insert(found.id, tracked);
        Ok(())
    }

    /// Whether a new file is the copy that a rotation makes before it cuts the file itself to nothing: it lies beside it, its name
    /// begins alike, and so do its bytes.
    fn copied_from(&self, found: &Found, file: &File) -> io::Result<Copied> {
        for tracked in self.files.values().filter(|f| f.may_be_copied_to(&found.path)) {
            let place = &tracked.place;
            if place.offset == 0 {
                continue;
            }
            let size = found.meta.len();
            if size >= place.offset {
                if place.is_of(file)? {
                    return Ok(Copied::Upto(place.clone()));
                }
            } else if tracked.path != found.path {
                let is_alike = match place.may_become(file, size)? {
                    Some(may) => may,
                    None => begins_alike(file, &tracked.path, size)?,
                };
                if is_alike {
                    return Ok(Copied::NotYet);
                }
            }
        }
        Ok(Copied::No)
    }

    /// Of a file that was known and that no pattern leads to any more: it may have been renamed while nobody looked.
    pub(super) fn look_beside(&mut self, id: FileId) {
        let Some(tracked) = self.files.get_mut(&id).filter(|f| f.gone.is_some()) else {
            return;
        };
        let folder = tracked.path.parent().unwrap_or(Path::new("/"));
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let Some(meta) = entry.metadata().ok().filter(|m| m.is_file()) else {
                continue;
            };
            if (meta.dev(), meta.ino()) != (id.device, id.inode) {
                continue;
            }
            if let Ok(file) = open(&entry.path())
                && tracked.place.is_of(&file).unwrap_or(false)
            {
                tracked.size = meta.len();
                tracked.file = Some(file);
            }
            return;
        }
    }

    /// Closes what is read to its end and has no name, and forgets what is gone for long.
    fn let_go(&mut self, now: Duration) {
        for tracked in self.files.values_mut() {
            let idle = now >= tracked.grown + LET_GO_AFTER.max(2 * self.settings.last_line_after);
            if tracked.gone.is_some_and(|at| now >= at + LET_GO_AFTER) && idle && tracked.unread() == 0 {
                tracked.file = None;
            }
        }
        let forgotten = &mut self.forgotten;
        self.files.retain(|id, tracked| {
            let keep = tracked.file.is_some() || tracked.gone.is_none_or(|at| now < at + FORGET_AFTER);
            if !keep {
                forgotten.push(id.to_key());
            }
            keep
        });
    }
}

enum Copied {
    No,
    /// As far as this its events were taken from the file itself.
    Upto(Place),
    /// It is still being copied.
    NotYet,
}

/// Whether the first bytes of two files are the same, as far as `size`.
fn begins_alike(file: &File, other: &Path, size: u64) -> io::Result<bool> {
    const COMPARED: u64 = 1024;
    let length = size.min(COMPARED) as usize;
    let Ok(other) = open(other) else {
        return Ok(false);
    };
    let (mut ours, mut theirs) = (vec![0; length], vec![0; length]);
    let both = read_upto(file, &mut ours, 0)?.min(read_upto(&other, &mut theirs, 0)?);
    Ok(both == length && length > 0 && ours == theirs)
}
