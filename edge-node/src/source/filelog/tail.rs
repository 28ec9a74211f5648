//! Reads many growing files in turn: finds them, notices when they are renamed, cut to nothing or replaced, and makes export requests
//! of their events. Blocks on the disk; time is an argument. What it holds is bounded by the files it watches, one buffer, and one
//! request.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io;
use std::ops::Bound;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::cut::{Cutter, Front};
use super::glob::Pattern;
use super::parse::Parser;
use super::place::{FileId, Place};
use crate::config::StartAt;
use crate::source::event::{EventLimits, Origin};
use crate::source::export::{Attributes, Request};

/// Folders are read anew so often; files that are open are looked at at every poll.
const SCAN_EVERY: Duration = Duration::from_secs(1);
/// What one file may give before it is another's turn.
const TURN_BYTES: usize = 256 << 10;
/// A file that no name leads to any more is kept open for so long after it last grew: writers hold on to it.
const LET_GO_AFTER: Duration = Duration::from_secs(10);
/// A file that begins like another one and stays shorter for so long is no copy of it.
const COPY_PATIENCE: Duration = Duration::from_secs(30);
/// The place in a file that is gone is kept for so long: a folder may only be away for a while.
const FORGET_AFTER: Duration = Duration::from_secs(24 * 3600);
/// Files whose places are kept; more matching files are left out and told.
const MAX_TRACKED: usize = 65_536;
const SCOPE: &str = "sluice.filelog";
/// Endings of what compressors leave behind.
const COMPRESSED: [&str; 6] = ["gz", "zst", "bz2", "xz", "lz4", "zip"];

/// What is read, and how.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) include: Vec<Pattern>,
    pub(super) exclude: Vec<Pattern>,
    pub(super) start_at: StartAt,
    pub(super) cutter: Cutter,
    pub(super) parser: Parser,
    pub(super) last_line_after: Duration,
    pub(super) max_open: usize,
    pub(super) service: Option<String>,
    pub(super) host: Option<String>,
    pub(super) attributes: Vec<(String, String)>,
    pub(super) event_limits: EventLimits,
    /// Of one request.
    pub(super) max_rows: usize,
    pub(super) max_bytes: usize,
}

/// What was noticed since it was last asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Noticed {
    pub(super) files: u64,
    pub(super) unread_bytes: u64,
    /// For how long there has always been something to read.
    pub(super) behind: Duration,
    pub(super) truncated_files: u64,
    pub(super) cut: u64,
    pub(super) unparsed: u64,
    pub(super) not_utf8: u64,
    pub(super) left_out: u64,
    pub(super) problem: Option<String>,
}

/// Events, and up to where the files are read with them.
#[derive(Debug)]
pub(super) struct Collected {
    pub(super) request: Request,
    /// As positions are kept: key and value.
    pub(super) places: Vec<(Vec<u8>, Vec<u8>)>,
}

#[derive(Debug)]
pub(super) struct Tailer {
    settings: Settings,
    files: BTreeMap<FileId, Tracked>,
    buffer: Vec<u8>,
    /// Whose turn it was.
    turn: Option<FileId>,
    scanned: Option<Duration>,
    /// New files that may be copies which are not complete, since when.
    copying: BTreeMap<FileId, Duration>,
    forgotten: Vec<Vec<u8>>,
    noticed: Noticed,
    /// What the last scan came upon; it lasts until the next one.
    scan_problem: Option<String>,
    /// Since when there has always been something to read.
    behind_since: Option<Duration>,
}

#[derive(Debug)]
struct Tracked {
    path: PathBuf,
    attributes: Attributes,
    file: Option<File>,
    place: Place,
    /// It was found to be cut to nothing or written anew. Before it is read on, the folder is looked at once more: what it held may
    /// have been copied there, and the copy must not be taken for new.
    rewritten: Option<Duration>,
    size: u64,
    grown: Duration,
    /// Since when no name leads to it.
    gone: Option<Duration>,
    /// When it was last read.
    used: Duration,
    /// Its place has moved and no request has told.
    moved: bool,
}

/// A file that a pattern leads to.
struct Found {
    path: PathBuf,
    id: FileId,
    size: u64,
}

impl Tailer {
    /// `known` is what was read before; `None` begins for the first time, with the places that [`Tailer::places`] then tells.
    pub(super) fn new(settings: Settings, known: Option<Vec<(Vec<u8>, Vec<u8>)>>, now: Duration) -> Self {
        let buffer = vec![0; TURN_BYTES.max(settings.cutter.max_unknown_bytes())];
        let is_first = known.is_none();
        let mut this = Self {
            settings,
            files: BTreeMap::new(),
            buffer,
            turn: None,
            scanned: None,
            copying: BTreeMap::new(),
            forgotten: Vec::new(),
            noticed: Noticed::default(),
            scan_problem: None,
            behind_since: None,
        };
        for (key, value) in known.into_iter().flatten() {
            match (FileId::from_key(&key), Place::decode(&value)) {
                (Some(id), Some((place, path))) => {
                    let mut tracked = this.tracked(path, place, now);
                    tracked.gone = Some(now);
                    this.files.insert(id, tracked);
                }
                _ => this.forgotten.push(key),
            }
        }
        let known: Vec<FileId> = this.files.keys().copied().collect();
        this.scan(now, is_first);
        for id in known {
            this.look_beside(id);
        }
        this
    }

    pub(super) fn places(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.files.iter().map(|(id, tracked)| tracked.position(*id)).collect()
    }

    /// Keys of files that are gone for good.
    pub(super) fn forgotten(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.forgotten)
    }

    pub(super) fn noticed(&mut self, now: Duration) -> Noticed {
        let mut noticed = std::mem::take(&mut self.noticed);
        noticed.problem = noticed.problem.or_else(|| self.scan_problem.clone());
        noticed.files = self.files.values().filter(|f| f.gone.is_none()).count() as u64;
        noticed.unread_bytes = self.files.values().map(Tracked::unread).sum();
        self.behind_since = (noticed.unread_bytes > 0).then(|| self.behind_since.unwrap_or(now));
        noticed.behind = self
            .behind_since
            .map_or(Duration::ZERO, |since| now.saturating_sub(since));
        noticed
    }

    /// What there is to read now, within the limits of one request; `None` if there is nothing.
    pub(super) fn collect(&mut self, now: Duration, observed_ns: u64) -> Option<Collected> {
        if self.scanned.is_none_or(|at| now >= at + SCAN_EVERY) {
            self.scan(now, false);
        }
        let origin = Origin {
            service: self.settings.service.clone(),
            host: self.settings.host.clone(),
            observed_ns,
        };
        let mut request = Request::new(SCOPE);
        let mut places = Vec::new();
        for id in self.turns() {
            if self.is_full(&request) {
                break;
            }
            self.turn = Some(id);
            if let Err(error) = self.read(id, now, &origin, &mut request) {
                let path = self.files.get(&id).map(|f| f.path.display().to_string());
                self.noticed.problem = Some(format!("{}: {error}", path.unwrap_or_default()));
            }
        }
        if request.rows() == 0 {
            return None;
        }
        for (id, tracked) in self.files.iter_mut().filter(|(_, f)| f.moved) {
            tracked.moved = false;
            places.push(tracked.position(*id));
        }
        Some(Collected { request, places })
    }

    fn is_full(&self, request: &Request) -> bool {
        request.rows() >= self.settings.max_rows || request.bytes() >= self.settings.max_bytes
    }

    /// All files, beginning behind the one whose turn it was.
    fn turns(&self) -> Vec<FileId> {
        let after = self.turn.map_or(Bound::Unbounded, Bound::Excluded);
        let behind = self.files.range((after, Bound::Unbounded));
        let upto = self
            .turn
            .map_or(Bound::Excluded(FileId { device: 0, inode: 0 }), Bound::Included);
        let before = self.files.range((Bound::Unbounded, upto));
        behind.chain(before).map(|(id, _)| *id).collect()
    }

    fn tracked(&self, path: PathBuf, place: Place, now: Duration) -> Tracked {
        let mut attributes = Attributes::default();
        attributes.text("log.file.path", &path.to_string_lossy());
        if let Some(name) = path.file_name() {
            attributes.text("log.file.name", &name.to_string_lossy());
        }
        for (key, value) in &self.settings.attributes {
            attributes.text(key, value);
        }
        Tracked {
            path,
            attributes,
            file: None,
            size: place.offset,
            place,
            rewritten: None,
            grown: now,
            gone: None,
            used: now,
            moved: false,
        }
    }

    /// Finds files, and those that are found no more.
    fn scan(&mut self, now: Duration, is_first: bool) {
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
                    tracked.grew(found.size, now);
                    if tracked.path != found.path {
                        let (place, old) = (tracked.place.clone(), tracked.file.take());
                        let mut renamed = self.tracked(found.path, place, now);
                        renamed.file = old;
                        renamed.grew(found.size, now);
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
            let size = meta.len();
            // Of several names of one file, the one that is known.
            if !found.contains_key(&id) || files.get(&id).is_some_and(|f| f.path == path) {
                found.insert(id, Found { path, id, size });
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
        let file = File::open(&found.path)?;
        let mut place = Place::default();
        if is_first && self.settings.start_at == StartAt::End {
            place.move_to(&file, found.size, false)?;
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
        tracked.grew(found.size, now);
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
            if found.size >= place.offset {
                if place.is_of(file)? {
                    return Ok(Copied::Upto(place.clone()));
                }
            } else if tracked.path != found.path {
                let is_alike = match place.may_become(file, found.size)? {
                    Some(may) => may,
                    None => begins_alike(file, &tracked.path, found.size)?,
                };
                if is_alike {
                    return Ok(Copied::NotYet);
                }
            }
        }
        Ok(Copied::No)
    }

    /// Of a file that was known and that no pattern leads to any more: it may have been renamed while nobody looked.
    fn look_beside(&mut self, id: FileId) {
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
            if let Ok(file) = File::open(entry.path())
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

    fn open_files(&self) -> usize {
        self.files.values().filter(|f| f.file.is_some()).count()
    }

    /// Closes the file with a name that was not read for longest, where too many are open.
    fn make_room(&mut self) {
        if self.open_files() < self.settings.max_open {
            return;
        }
        let named = self.files.values_mut().filter(|f| f.file.is_some() && f.gone.is_none());
        if let Some(oldest) = named.min_by_key(|f| f.used) {
            oldest.file = None;
        }
    }

    /// One turn of one file.
    fn read(&mut self, id: FileId, now: Duration, origin: &Origin, request: &mut Request) -> io::Result<()> {
        let Some(tracked) = self.files.get_mut(&id) else {
            return Ok(());
        };
        if let Some(file) = &tracked.file {
            let size = file.metadata()?.len();
            tracked.grew(size, now);
        }
        if tracked.size == tracked.place.offset || (tracked.gone.is_some() && tracked.file.is_none()) {
            return Ok(());
        }
        if tracked.file.is_none() {
            let path = tracked.path.clone();
            self.make_room();
            let file = File::open(path)?;
            let meta = file.metadata()?;
            // Another file may have the name by now; the next scan finds out.
            if (meta.dev(), meta.ino()) != (id.device, id.inode) {
                return Ok(());
            }
            if let Some(tracked) = self.files.get_mut(&id) {
                tracked.file = Some(file);
            }
        }
        let (Some(tracked), settings) = (self.files.get_mut(&id), &self.settings) else {
            return Ok(());
        };
        let Some(file) = &tracked.file else {
            return Ok(());
        };
        tracked.used = now;
        if !tracked.place.is_of(file)? {
            if tracked
                .rewritten
                .is_none_or(|at| self.scanned.is_none_or(|scanned| scanned < at))
            {
                tracked.rewritten = tracked.rewritten.or(Some(now));
                self.scanned = None;
                return Ok(());
            }
            (tracked.place, tracked.moved) = (Place::default(), true);
            self.noticed.truncated_files += 1;
        }
        tracked.rewritten = None;
        let length = read_upto(file, &mut self.buffer, tracked.place.offset)?;
        let bytes = &self.buffer[..length];
        let is_end = length < self.buffer.len();
        let all = is_end && now >= tracked.grown + settings.last_line_after;
        let (mut at, mut skipping) = (0, tracked.place.skipping);
        while request.rows() < settings.max_rows && request.bytes() < settings.max_bytes {
            at += match settings.cutter.front(&bytes[at..], skipping, all) {
                Front::Unknown => break,
                Front::Rest { consumed, ended } => {
                    skipping = !ended;
                    consumed
                }
                Front::Event { text, consumed, is_cut } => {
                    skipping = is_cut;
                    self.noticed.cut += u64::from(is_cut);
                    if !text.is_empty() {
                        let found = settings.parser.push(
                            text,
                            is_cut,
                            settings.event_limits,
                            origin,
                            &tracked.attributes,
                            request,
                        );
                        self.noticed.unparsed += u64::from(found.unparsed);
                        self.noticed.not_utf8 += u64::from(found.not_utf8);
                    }
                    consumed
                }
            };
        }
        if at > 0 {
            let offset = tracked.place.offset + at as u64;
            tracked.place.move_to(file, offset, skipping)?;
            tracked.moved = true;
        }
        Ok(())
    }
}

enum Copied {
    No,
    /// As far as this its events were taken from the file itself.
    Upto(Place),
    /// It is still being copied.
    NotYet,
}

impl Tracked {
    fn unread(&self) -> u64 {
        match self.file.is_some() || self.gone.is_none() {
            true => self.size.saturating_sub(self.place.offset),
            false => 0,
        }
    }

    fn grew(&mut self, size: u64, now: Duration) {
        if size != self.size {
            (self.size, self.grown) = (size, now);
        }
    }

    fn position(&self, id: FileId) -> (Vec<u8>, Vec<u8>) {
        (id.to_key(), self.place.encode(&self.path.to_string_lossy()))
    }

    fn may_be_copied_to(&self, path: &Path) -> bool {
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

/// Whether the first bytes of two files are the same, as far as `size`.
fn begins_alike(file: &File, other: &Path, size: u64) -> io::Result<bool> {
    const COMPARED: u64 = 1024;
    let length = size.min(COMPARED) as usize;
    let Ok(other) = File::open(other) else {
        return Ok(false);
    };
    let (mut ours, mut theirs) = (vec![0; length], vec![0; length]);
    let both = read_upto(file, &mut ours, 0)?.min(read_upto(&other, &mut theirs, 0)?);
    Ok(both == length && length > 0 && ours == theirs)
}

fn read_upto(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read_at(&mut buffer[length..], offset + length as u64) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}
