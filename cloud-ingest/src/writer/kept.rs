//! The state of duplicates on the local disk.

use std::io;
use std::path::{Path, PathBuf};

use sluice_wal::cursor;

use super::WriterError;
use crate::dedup::Dedup;

/// The files that hold a state of duplicates. Twice, because once the log has forgotten what it covers, one flipped bit
/// would cost all of it.
pub(super) fn paths(folder: &Path, name: &str) -> [PathBuf; 2] {
    ["", ".copy"].map(|suffix| folder.join(format!("{name}{suffix}")))
}

/// Saves the state of duplicates; it counts as saved when both files hold it. Blocking.
pub(super) fn save(folder: &Path, name: &str, snapshot: &[u8]) -> Result<(), WriterError> {
    for path in paths(folder, name) {
        cursor::save(&path, snapshot).map_err(|source| WriterError::Snapshot { path, source })?;
    }
    Ok(())
}

/// The newer one of the two; `None` when there is no snapshot that can be used. Whether the log can stand in for it, its first offset says.
pub(super) fn load(folder: &Path, name: &str) -> Result<Option<Dedup>, WriterError> {
    let mut newest: Option<Dedup> = None;
    for path in paths(folder, name) {
        let unusable = |error: &dyn std::fmt::Display| {
            tracing::warn!(path = %path.display(), %error, "state of duplicates cannot be used");
        };
        let bytes = match cursor::load(&path) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => continue,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                unusable(&error);
                continue;
            }
            Err(source) => return Err(WriterError::Snapshot { path, source }),
        };
        match Dedup::decode(&bytes) {
            Ok(dedup) if newest.as_ref().is_none_or(|held| held.next() < dedup.next()) => newest = Some(dedup),
            Ok(_) => {}
            Err(error) => unusable(&error),
        }
    }
    Ok(newest)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn upto(next: u64) -> Vec<u8> {
        let mut dedup = Dedup::default();
        (0..next).for_each(|_| dedup.pass());
        dedup.encode()
    }

    /// P6, P16: one damaged or lost file costs nothing; an older copy, of a process that ended between the two, is the second choice.
    #[test]
    fn p6_p16_the_state_of_duplicates_survives_damage_to_either_of_its_files() {
        let name = "duplicates-0";
        let next = |folder: &Path| load(folder, name).unwrap().map(|dedup| dedup.next());
        for hit in 0..2 {
            for is_gone in [true, false] {
                let folder = tempfile::tempdir().unwrap();
                let paths = paths(folder.path(), name);
                let hurt = |path: &Path| match is_gone {
                    true => std::fs::remove_file(path).unwrap(),
                    false => {
                        let mut bytes = std::fs::read(path).unwrap();
                        *bytes.last_mut().unwrap() ^= 1;
                        std::fs::write(path, bytes).unwrap();
                    }
                };
                save(folder.path(), name, &upto(5)).unwrap();
                hurt(&paths[hit]);
                assert_eq!(next(folder.path()), Some(5));
                cursor::save(&paths[hit], &upto(7)).unwrap();
                assert_eq!(next(folder.path()), Some(7));
                hurt(&paths[hit]);
                assert_eq!(next(folder.path()), Some(5));
                hurt(&paths[1 - hit]);
                assert_eq!(next(folder.path()), None);
            }
        }
    }
}
