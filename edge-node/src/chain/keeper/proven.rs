//! Which versions have proven themselves, beyond the life of the process: what has not finds the version before it standing by
//! again. FORMAT.md has the file. Losing it is safe: a version is then on probation once more.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sluice_package::Manifest;
use sluice_wal::cursor;

const VERSION: u32 = 1;
/// Bytes of the file: some thousand places.
const MAX_BYTES: u64 = 1 << 20;

/// The file, read when it is needed.
#[derive(Debug)]
pub(super) struct ProvenFile(PathBuf);

/// By the name of the place.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Content {
    version: u32,
    proven: BTreeMap<String, Release>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Release {
    package: String,
    version: String,
    digest: String,
}

impl Release {
    fn of(manifest: &Manifest) -> Release {
        Release {
            package: manifest.name.to_string(),
            version: manifest.version.to_string(),
            digest: manifest.digest.to_string(),
        }
    }
}

impl ProvenFile {
    /// In the folder of the store.
    pub(super) fn in_folder(folder: &Path) -> ProvenFile {
        ProvenFile(folder.join("proven.json"))
    }

    /// Whether just this release has proven itself in this place.
    pub(super) fn has(&self, place: &str, manifest: &Manifest) -> bool {
        self.read().proven.get(place) == Some(&Release::of(manifest))
    }

    /// Remembers it, and forgets places that are no more.
    pub(super) fn note(&self, place: &str, manifest: &Manifest, is_place: impl Fn(&str) -> bool) -> io::Result<()> {
        let mut content = self.read();
        content.version = VERSION;
        content.proven.retain(|place, _| is_place(place));
        content.proven.insert(place.to_owned(), Release::of(manifest));
        let mut text = serde_json::to_vec_pretty(&content)?;
        text.push(b'\n');
        cursor::replace(&self.0, &text)
    }

    /// What is missing, damaged or from the future says nothing.
    fn read(&self) -> Content {
        let mut text = Vec::new();
        let read = std::fs::File::open(&self.0).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut text));
        let content: Option<Content> = read.ok().and_then(|_| serde_json::from_slice(&text).ok());
        content.filter(|content| content.version == VERSION).unwrap_or_default()
    }
}
