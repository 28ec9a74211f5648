//! The key of a cache: made once, for this user alone.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::NewFile;
use super::image::Key;

/// The key of this folder, made if there is none that is fit for use.
pub(super) fn open(folder: &Path) -> io::Result<Key> {
    let path = folder.join("key");
    match read(&path) {
        Ok(key) => return Ok(key),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            tracing::warn!(path = %path.display(), %error, "key of the plugin cache is replaced");
            let new = NewFile::write(folder, &[&random()?])?;
            fs::rename(&new.0, &path)?;
            return read(&path);
        }
        Err(error) => return Err(error),
    }
    let new = NewFile::write(folder, &[&random()?])?;
    match fs::hard_link(&new.0, &path) {
        Ok(()) => {}
        // Somebody was faster; his key is as good.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    File::open(folder)?.sync_all()?;
    read(&path)
}

/// Fails with `InvalidData` for a file that is no secret key.
fn read(path: &Path) -> io::Result<Key> {
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut file = File::open(path)?;
    if file.metadata()?.mode() & 0o077 != 0 {
        return Err(invalid("others may read or write it"));
    }
    let mut bytes = Vec::with_capacity(Key::BYTES);
    (&mut file).take(Key::BYTES as u64 + 1).read_to_end(&mut bytes)?;
    let bytes = bytes.try_into().map_err(|_| invalid("it has not 32 bytes"))?;
    Ok(Key::new(bytes))
}

fn random() -> io::Result<[u8; Key::BYTES]> {
    let mut bytes = [0; Key::BYTES];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_that_is_no_secret_or_no_key_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let bytes = || fs::read(&path).unwrap();
        open(folder.path()).unwrap();
        let first = bytes();
        assert_eq!(first.len(), Key::BYTES);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        open(folder.path()).unwrap();
        assert_eq!(bytes(), first);

        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        open(folder.path()).unwrap();
        let second = bytes();
        assert_ne!(second, first);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);

        fs::write(&path, b"short").unwrap();
        open(folder.path()).unwrap();
        assert_eq!(bytes().len(), Key::BYTES);
    }
}
