//! A small file that is replaced as a whole: after a crash it holds the old bytes or the new ones.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::crash_point;
use crate::storage::create_dir_durable;

const MAGIC: [u8; 4] = *b"SLWC";
const VERSION: u8 = 1;
const HEAD_BYTES: usize = 16;

/// Replaces the file, with a checksum around the bytes; [`load`] reads it back.
pub fn save(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace(path, &encode(bytes))
}

/// Replaces any file durably with exactly these bytes: written beside it, synced, renamed, directory synced.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        create_dir_durable(parent)?;
    }
    let beside = beside(path);
    let result = write_synced(&beside, bytes).and_then(|()| {
        crash_point("cursor.before_rename");
        fs::rename(&beside, path)
    });
    if result.is_err() {
        // On a full disk the half-written file would take the room that the next attempt needs.
        let _ = fs::remove_file(&beside);
        return result;
    }
    crash_point("cursor.after_rename");
    let parent = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

/// The bytes last saved; `None` if there is no file. `InvalidData` if what is there is not what was saved.
pub fn load(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => decode(&bytes).map(|content| Some(content.to_vec())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().map_or_else(OsString::new, OsString::from);
    name.push(".tmp");
    path.with_file_name(name)
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn encode(content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEAD_BYTES + content.len());
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[VERSION, 0, 0, 0]);
    out.extend_from_slice(&(content.len() as u32).to_le_bytes());
    out.extend_from_slice(&crc32c::crc32c(content).to_le_bytes());
    out.extend_from_slice(content);
    out
}

fn decode(bytes: &[u8]) -> io::Result<&[u8]> {
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("cursor file: {what}"));
    let Some((head, content)) = bytes.split_at_checked(HEAD_BYTES) else {
        return Err(bad("too short"));
    };
    if head[..4] != MAGIC {
        return Err(bad("not a cursor file"));
    }
    if head[4] != VERSION {
        return Err(bad("written by another version"));
    }
    if head[8..12] != (content.len() as u32).to_le_bytes() || head[12..] != crc32c::crc32c(content).to_le_bytes() {
        return Err(bad("length or checksum does not match"));
    }
    Ok(content)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_last_is_loaded_and_damage_is_told_from_absence() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cursor");
        assert_eq!(load(&path).unwrap(), None);
        save(&path, b"one").unwrap();
        save(&path, b"").unwrap();
        save(&path, b"three").unwrap();
        assert_eq!(load(&path).unwrap().unwrap(), b"three");
        let good = fs::read(&path).unwrap();
        for at in [0, 4, 9, 13, 17] {
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            fs::write(&path, &bytes).unwrap();
            assert_eq!(load(&path).unwrap_err().kind(), io::ErrorKind::InvalidData, "byte {at}");
        }
        fs::write(&path, &good[..10]).unwrap();
        assert_eq!(load(&path).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
