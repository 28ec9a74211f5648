//! Reads many growing files in turn: finds them, notices when they are renamed, cut to nothing or replaced, and makes export requests
//! of their events. Blocks on the disk; time is an argument. What it holds is bounded by the files it watches, one buffer, and one
//! request.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Bound;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::PathBuf;
use std::time::Duration;

use super::cut::{Cutter, Front};
use super::glob::Pattern;
use super::parse::Parser;
use super::place::{FileId, Place};
use super::tracked::{Tracked, open};
use crate::config::StartAt;
use crate::source::event::{EventLimits, Origin};
use crate::source::export::{Attributes, Request};

/// What one file may give before it is another's turn.
const TURN_BYTES: usize = 256 << 10;
/// Longer than a tick of any file system's clock: FAT has 2 s.
const VERIFY_AFTER: Duration = Duration::from_secs(3);
const SCOPE: &str = "sluice.filelog";

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
    pub(super) settings: Settings,
    pub(super) files: BTreeMap<FileId, Tracked>,
    pub(super) buffer: Vec<u8>,
    /// Whose turn it was.
    pub(super) turn: Option<FileId>,
    pub(super) scanned: Option<Duration>,
    pub(super) scan_every: Duration,
    /// New files that may be copies which are not complete, since when.
    pub(super) copying: BTreeMap<FileId, Duration>,
    pub(super) forgotten: Vec<Vec<u8>>,
    pub(super) noticed: Noticed,
    /// What the last scan came upon; it lasts until the next one.
    pub(super) scan_problem: Option<String>,
    /// Since when there has always been something to read.
    pub(super) behind_since: Option<Duration>,
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
            scan_every: Duration::ZERO,
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
        if self.scanned.is_none_or(|at| now >= at + self.scan_every) {
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

    pub(super) fn tracked(&self, path: PathBuf, place: Place, now: Duration) -> Tracked {
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
            modified: (0, 0),
            verify_at: None,
            place,
            rewritten: None,
            grown: now,
            gone: None,
            used: now,
            moved: false,
        }
    }

    pub(super) fn open_files(&self) -> usize {
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
            tracked.grew(&file.metadata()?, now);
        }
        if !tracked.is_due(now) {
            return Ok(());
        }
        if tracked.file.is_none() {
            let path = tracked.path.clone();
            self.make_room();
            let file = open(&path)?;
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
        (tracked.rewritten, tracked.verify_at) = (None, None);
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
            tracked.verify_at = Some(now + VERIFY_AFTER);
        }
        Ok(())
    }
}

pub(super) fn read_upto(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
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
