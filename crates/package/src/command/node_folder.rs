//! Whether a folder is a node's: a mistyped `--data` must neither make a store that nobody runs nor show one that is empty.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use super::CommandError;

/// What a node, or a change of its store, leaves in its `plugins` folder.
const OF_STORE: [&str; 3] = ["state.json", "trust", ".lock"];
/// How deep a data folder may lie below the one that was named: `sluice-data/edge` and a folder of several of those.
const DEPTH: usize = 3;
/// Entries that are looked at in search of one, and folders that are named in a message.
const LOOKED_AT: usize = 2000;
const NAMED: usize = 5;

/// Refuses a folder that is no node's, unless it is to be made one.
pub(super) fn check(folder: &Path, create: Create) -> Result<(), CommandError> {
    if is_one(folder) || create == Create::Asked {
        return Ok(());
    }
    let problem = match fs::metadata(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => "it is not there",
        Err(_) => "it cannot be looked at",
        Ok(found) if !found.is_dir() => "it is no folder",
        Ok(_) => "no node has run in it, and no package or key was taken in",
    };
    let mut text = format!("{} is no node's data folder: {problem}", folder.display());
    for other in near(folder) {
        let _ = write!(text, "\n  did you mean --data {}", other.display());
    }
    text.push_str("\n  the first `sluice up` or `sluice-edge run` makes it");
    text.push_str(match create {
        Create::Possible => "; before that, --create does",
        _ => "; before that, `sluice plugin install` or `trust add` with --create does",
    });
    Err(CommandError::Usage(text))
}

/// Whether a folder that is no node's yet may become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Create {
    Never,
    Possible,
    Asked,
}

fn is_one(folder: &Path) -> bool {
    let plugins = folder.join("plugins");
    let ran = folder.join("identity").is_file() && folder.join("spool").is_dir();
    ran || OF_STORE.iter().any(|name| plugins.join(name).exists())
}

/// Nodes' folders below it; of one that is not there and is meant from here, those beside it and its like further up.
fn near(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let parent = folder.parent().map(|parent| match parent.as_os_str().is_empty() {
        true => Path::new("."),
        false => parent,
    });
    match (folder.is_dir(), parent) {
        (true, _) => below(folder, &mut found),
        (false, Some(parent)) if folder.is_relative() && parent.is_dir() => below(parent, &mut found),
        _ => {}
    }
    if folder.is_relative() {
        let mut up = PathBuf::from("..");
        for _ in 0..DEPTH {
            let like = up.join(folder);
            if is_one(&like) {
                found.push(like);
            }
            up.push("..");
        }
    }
    found.truncate(NAMED);
    found
}

fn below(folder: &Path, found: &mut Vec<PathBuf>) {
    let mut level = vec![folder.to_owned()];
    let mut left = LOOKED_AT;
    for _ in 0..DEPTH {
        let mut next = Vec::new();
        for folder in level {
            let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
            // Of the folders themselves, not of what links lead to: those can lead anywhere.
            let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            for entry in folders {
                if left == 0 {
                    return;
                }
                left -= 1;
                let path = entry.path();
                match is_one(&path) {
                    true => found.push(path),
                    false if entry.file_name().to_string_lossy().starts_with('.') => {}
                    false => next.push(path),
                }
            }
        }
        next.sort();
        level = next;
    }
    found.sort();
}
