//! What lies in the folder, and the order in which it was used.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Bytes of a hash that a file is named after.
pub(super) const NAME_BYTES: usize = 16;

pub(super) type Name = [u8; NAME_BYTES];

/// What is there, and the order in which it was used.
#[derive(Debug, Default)]
pub(super) struct Index {
    bytes: u64,
    next: u64,
    held: HashMap<Name, Held>,
    order: BTreeMap<u64, Name>,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    bytes: u64,
    used: u64,
}

impl Index {
    /// What lies in a folder, the oldest first; what is not a part is removed.
    pub(super) fn read(folder: &Path) -> io::Result<Self> {
        let mut parts: Vec<(SystemTime, Name, u64)> = Vec::new();
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if !path.is_dir() {
                fs::remove_file(path)?;
                continue;
            }
            for entry in fs::read_dir(&path)? {
                let entry = entry?;
                let (about, name) = (entry.metadata()?, entry.file_name());
                match name
                    .to_str()
                    .and_then(parse)
                    .filter(|name| path_in(folder, name) == entry.path())
                {
                    Some(name) => parts.push((about.modified()?, name, about.len())),
                    None => fs::remove_file(entry.path())?,
                }
            }
        }
        parts.sort_unstable_by_key(|(when, name, _)| (*when, *name));
        let mut index = Self::default();
        for (_, name, bytes) in parts {
            index.insert(name, bytes);
        }
        Ok(index)
    }

    pub(super) fn insert(&mut self, name: Name, bytes: u64) {
        self.forget(&name);
        self.next += 1;
        self.bytes += bytes;
        self.held.insert(name, Held { bytes, used: self.next });
        self.order.insert(self.next, name);
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether it is there; it counts as used now.
    pub(super) fn touch(&mut self, name: &Name) -> bool {
        let Some(held) = self.held.get_mut(name) else {
            return false;
        };
        self.next += 1;
        self.order.remove(&held.used);
        held.used = self.next;
        self.order.insert(self.next, *name);
        true
    }

    pub(super) fn forget(&mut self, name: &Name) {
        if let Some(held) = self.held.remove(name) {
            self.order.remove(&held.used);
            self.bytes -= held.bytes;
        }
    }

    /// Forgets what was not used for longest, until no more than `most` is held; returns it.
    pub(super) fn make_room(&mut self, most: u64) -> Vec<Name> {
        let mut gone = Vec::new();
        while self.bytes > most
            && let Some((_, name)) = self.order.first_key_value()
        {
            let name = *name;
            self.forget(&name);
            gone.push(name);
        }
        gone
    }
}

pub(super) fn path_in(folder: &Path, name: &Name) -> PathBuf {
    let text: String = name.iter().map(|byte| format!("{byte:02x}")).collect();
    folder.join(&text[..2]).join(text)
}

fn parse(text: &str) -> Option<Name> {
    let mut name = Name::default();
    let is_hex = text.len() == 2 * NAME_BYTES && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if !is_hex {
        return None;
    }
    for (at, byte) in name.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(name)
}
