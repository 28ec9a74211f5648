//! How far the sources that read by themselves have read. A position travels in the journal record that holds the events up to it,
//! so both are durable or neither is; before the journal lets go of a record its positions are in a file of their own. FORMAT.md
//! describes both.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sluice_wal::cursor;

use crate::tally::Cursor;

const VERSION: u8 = 1;

/// Up to where a source has read one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// The source's name.
    pub(crate) source: String,
    /// What it reads, such as a file.
    pub(crate) key: Vec<u8>,
    /// The source's own business.
    pub(crate) value: Vec<u8>,
}

/// The latest positions of all sources.
#[derive(Debug)]
pub(crate) struct Positions {
    path: PathBuf,
    /// The file is replaced when the journal has grown so much, unless the disk is full: each time costs several syncs, and the
    /// journal keeps so much more instead.
    save_every_bytes: u64,
    state: Mutex<State>,
    /// One saves at a time.
    saving: Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    /// Of every source that ever began.
    sources: BTreeMap<String, BTreeMap<Vec<u8>, Held>>,
    /// The first journal record with a position that the file does not hold.
    unsaved_from: Option<u64>,
    /// The same of what is being written into the file now.
    saving_from: Option<u64>,
    /// What the journal has grown by since the file was replaced.
    grown_bytes: u64,
}

impl State {
    fn first_unsaved(&self) -> Option<u64> {
        self.saving_from.into_iter().chain(self.unsaved_from).min()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    /// The journal record that it came with; 0 where it came with none.
    index: u64,
    value: Vec<u8>,
}

impl Positions {
    /// Reads the file. What is no such file any more is set aside, and sources begin anew.
    pub(crate) fn load(path: &Path, save_every_bytes: u64) -> io::Result<Self> {
        let found = match cursor::load(path) {
            Ok(None) => Some(BTreeMap::new()),
            Ok(Some(bytes)) if bytes.first().is_some_and(|version| *version > VERSION) => {
                return Err(io::Error::other("written by a newer version of this program: upgrade"));
            }
            Ok(Some(bytes)) => decode(&bytes),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => None,
            Err(error) => return Err(error),
        };
        let sources = match found {
            Some(sources) => sources,
            None => {
                let aside = path.with_extension("damaged");
                std::fs::rename(path, &aside)?;
                tracing::error!(aside = %aside.display(), "positions of sources cannot be read: they begin as if they were new");
                BTreeMap::new()
            }
        };
        let state = State {
            sources,
            ..State::default()
        };
        Ok(Self {
            path: path.to_owned(),
            save_every_bytes,
            state: Mutex::new(state),
            saving: Mutex::new(()),
        })
    }

    /// Whether any source ever began here; else the journal holds no positions.
    pub(crate) fn is_used(&self) -> bool {
        !self.state().sources.is_empty()
    }

    /// Takes over what a journal record holds: at the start from old ones, then from each as it is synced.
    pub(crate) fn synced(&self, index: u64, positions: impl IntoIterator<Item = Position>) {
        let mut state = self.state();
        for Position { source, key, value } in positions {
            let held = state.sources.entry(source).or_default().entry(key);
            let held = held.or_insert_with(|| Held {
                index: 0,
                value: Vec::new(),
            });
            if index >= held.index {
                *held = Held { index, value };
                state.unsaved_from = Some(state.unsaved_from.map_or(index, |first| first.min(index)));
            }
        }
    }

    /// The journal has taken so many bytes, of whatever source.
    pub(crate) fn journal_grew(&self, bytes: u64) {
        let mut state = self.state();
        state.grown_bytes = state.grown_bytes.saturating_add(bytes);
    }

    /// What a source has read; `None` if it never began.
    pub(crate) fn of(&self, source: &str) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
        let state = self.state();
        let entries = state.sources.get(source)?.iter();
        Some(entries.map(|(key, held)| (key.clone(), held.value.clone())).collect())
    }

    /// A source begins, with positions that no event has carried yet; they are on disk when it returns. Blocks.
    pub(crate) fn begin(&self, source: &str, positions: Vec<(Vec<u8>, Vec<u8>)>) -> io::Result<()> {
        let is_new = {
            let mut state = self.state();
            let is_new = !state.sources.contains_key(source);
            let entries = state.sources.entry(source.to_owned()).or_default();
            for (key, value) in positions {
                entries.entry(key).or_insert(Held { index: 0, value });
            }
            is_new
        };
        let result = self.save();
        // It has not begun, and begins with the next attempt.
        if result.is_err() && is_new {
            self.state().sources.remove(source);
        }
        result
    }

    /// What is gone needs no position; told to the file when it is next replaced.
    pub(crate) fn forget(&self, source: &str, keys: &[Vec<u8>]) {
        if let Some(entries) = self.state().sources.get_mut(source) {
            keys.iter().for_each(|key| drop(entries.remove(key)));
        }
    }

    /// Whether the file holds every position of the journal's records below `upto`.
    pub(crate) fn is_saved(&self, upto: u64) -> bool {
        self.state().first_unsaved().is_none_or(|first| first >= upto)
    }

    /// How far the journal may be trimmed if it need not be kept from `upto` down: as far as positions are in the file. `now` makes
    /// it replace the file whatever that costs. Blocks.
    pub(crate) fn keep(&self, upto: u64, now: bool) -> u64 {
        let due = {
            let state = self.state();
            let unsaved = state.first_unsaved().is_some_and(|first| first < upto);
            unsaved && (now || state.grown_bytes >= self.save_every_bytes)
        };
        if due && let Err(error) = self.save() {
            tracing::warn!(%error, "positions of sources cannot be saved, the journal waits");
        }
        self.state().first_unsaved().map_or(upto, |first| first.min(upto))
    }

    fn save(&self) -> io::Result<()> {
        let _one = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        let (bytes, grown) = {
            let mut state = self.state();
            let grown = std::mem::take(&mut state.grown_bytes);
            // Others must not trim what is only on its way to the disk.
            state.saving_from = state.unsaved_from.take();
            (encode(&state.sources), grown)
        };
        let result = cursor::save(&self.path, &bytes);
        let mut state = self.state();
        let saving = state.saving_from.take();
        if result.is_err() {
            // What came meanwhile is later.
            state.unsaved_from = saving.or(state.unsaved_from);
            state.grown_bytes = state.grown_bytes.saturating_add(grown);
        }
        result
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code that holds this lock can panic half way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Positions as they stand in a journal record.
pub(crate) fn write_list(positions: &[Position], out: &mut Vec<u8>) {
    for position in positions {
        bytes(out, position.source.as_bytes());
        bytes(out, &position.key);
        bytes(out, &position.value);
    }
}

/// The reverse; `None` if it is anything else.
pub(crate) fn read_list(list: &[u8]) -> Option<Vec<Position>> {
    let mut cursor = Cursor(list);
    let mut positions = Vec::new();
    while !cursor.0.is_empty() {
        positions.push(Position {
            source: text(&mut cursor)?,
            key: field(&mut cursor)?.to_vec(),
            value: field(&mut cursor)?.to_vec(),
        });
    }
    Some(positions)
}

fn encode(sources: &BTreeMap<String, BTreeMap<Vec<u8>, Held>>) -> Vec<u8> {
    let mut out = vec![VERSION, 0, 0, 0];
    out.extend_from_slice(&(sources.len() as u32).to_le_bytes());
    for (name, entries) in sources {
        bytes(&mut out, name.as_bytes());
        out.extend_from_slice(&(entries.len() as u32).to_le_bytes());
        for (key, held) in entries {
            out.extend_from_slice(&held.index.to_le_bytes());
            bytes(&mut out, key);
            bytes(&mut out, &held.value);
        }
    }
    out
}

fn decode(file: &[u8]) -> Option<BTreeMap<String, BTreeMap<Vec<u8>, Held>>> {
    let mut cursor = Cursor(file);
    if cursor.u8()? != VERSION {
        return None;
    }
    cursor.take(3)?;
    let mut sources = BTreeMap::new();
    for _ in 0..cursor.u32()? {
        let name = text(&mut cursor)?;
        let mut entries = BTreeMap::new();
        for _ in 0..cursor.u32()? {
            let index = cursor.u64()?;
            let key = field(&mut cursor)?.to_vec();
            let value = field(&mut cursor)?.to_vec();
            entries.insert(key, Held { index, value });
        }
        sources.insert(name, entries);
    }
    cursor.0.is_empty().then_some(sources)
}

/// Names, keys and values are bounded by whoever makes them, far below what the length can say.
fn bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&bytes[..usize::from(length)]);
}

fn field<'a>(cursor: &mut Cursor<'a>) -> Option<&'a [u8]> {
    let length = cursor.u16()?;
    cursor.take(length.into())
}

fn text(cursor: &mut Cursor<'_>) -> Option<String> {
    String::from_utf8(field(cursor)?.to_vec()).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    fn position(key: &[u8], value: &[u8]) -> Position {
        Position {
            source: "web".to_owned(),
            key: key.to_vec(),
            value: value.to_vec(),
        }
    }

    pub(crate) fn list() -> impl Strategy<Value = Vec<Position>> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..20);
        let one = (".{0,8}", bytes(), bytes()).prop_map(|(source, key, value)| Position { source, key, value });
        proptest::collection::vec(one, 0..5)
    }

    #[test]
    fn the_journal_is_kept_until_its_positions_are_in_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("positions");
        let positions = Positions::load(&path, 100).unwrap();
        assert!(!positions.is_used());
        assert_eq!((positions.of("web"), positions.keep(9, false)), (None, 9));

        positions.begin("web", vec![(b"a".to_vec(), b"0".to_vec())]).unwrap();
        positions.synced(5, [position(b"a", b"5")]);
        positions.synced(7, [position(b"b", b"7")]);
        assert_eq!(positions.keep(5, false), 5);
        // That much may stay; more may not.
        positions.journal_grew(99);
        assert_eq!(positions.keep(9, false), 5);
        let stale = Positions::load(&path, 100).unwrap();
        assert_eq!(stale.of("web"), Some(vec![(b"a".to_vec(), b"0".to_vec())]));
        positions.journal_grew(1);
        assert_eq!(positions.keep(9, false), 9);
        positions.synced(9, [position(b"b", b"7")]);
        positions.journal_grew(99);
        assert_eq!((positions.keep(12, false), positions.keep(12, true)), (9, 12));
        // What the journal still holds completes it, and records that the file is ahead of change nothing.
        let again = Positions::load(&path, 100).unwrap();
        again.synced(4, [position(b"a", b"4")]);
        again.synced(10, [position(b"b", b"8")]);
        let at = |key: &[u8], value: &[u8]| (key.to_vec(), value.to_vec());
        assert_eq!(again.of("web"), Some(vec![at(b"a", b"5"), at(b"b", b"8")]));
        again.forget("web", &[b"a".to_vec()]);
        assert_eq!(again.of("web"), Some(vec![at(b"b", b"8")]));
    }

    #[test]
    fn a_file_that_cannot_be_written_keeps_the_journal() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("gone");
        let path = folder.join("positions");
        let positions = Positions::load(&path, 100).unwrap();
        // A file where the folder should be.
        std::fs::write(&folder, "").unwrap();
        positions.synced(3, [position(b"a", b"3")]);
        assert_eq!(positions.keep(9, true), 3);
        positions.synced(6, [position(b"a", b"6")]);
        assert_eq!(positions.keep(9, true), 3);
        std::fs::remove_file(&folder).unwrap();
        assert_eq!(positions.keep(9, true), 9);
    }

    #[test]
    fn a_damaged_file_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("positions");
        std::fs::write(&path, b"nonsense").unwrap();
        assert!(!Positions::load(&path, 100).unwrap().is_used());
        assert!(!path.exists());
        assert_eq!(
            std::fs::read(dir.path().join("positions.damaged")).unwrap(),
            b"nonsense"
        );
    }

    proptest! {
        #[test]
        fn lists_read_back(list in list()) {
            let mut bytes = Vec::new();
            write_list(&list, &mut bytes);
            prop_assert_eq!(read_list(&bytes).unwrap(), list);
        }

        #[test]
        fn any_bytes_are_positions_or_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = (read_list(&bytes), decode(&bytes));
        }
    }
}
