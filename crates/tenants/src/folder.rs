//! The folder, for whoever changes it: one at a time, and every file whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::error::TenantsError;
use crate::keys::Keys;
use crate::tenants::Tenants;

pub const TENANTS_FILE: &str = "tenants.toml";
pub const KEYS_FILE: &str = "keys.json";
const LOCK: &str = "lock";
/// More than any cloud needs: some 50,000 keys.
const MAX_FILE: u64 = 16 << 20;
const FEWER_TENANTS: &str = "remove tenants that nobody serves any more: `sluice tenant remove`";
const FEWER_KEYS: &str = "forget keys that open nothing any more: `sluice key prune --dead-for \"0 s\"`; or remove tenants: `sluice tenant remove`";

/// Held by whoever writes.
#[derive(Debug)]
pub struct Folder {
    dir: PathBuf,
    _lock: File,
}

impl Folder {
    /// Makes the folder if there is none, and waits for others who write, who are quick.
    pub fn lock(dir: &Path) -> Result<Self, TenantsError> {
        fs::create_dir_all(dir).map_err(at(dir))?;
        let path = dir.join(LOCK);
        let open = || {
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)?;
            file.lock()?;
            Ok(file)
        };
        Ok(Self {
            dir: dir.to_owned(),
            _lock: open().map_err(at(&path))?,
        })
    }

    /// None at all where nobody wrote any.
    pub fn tenants(&self) -> Result<Tenants, TenantsError> {
        match self.dir.join(TENANTS_FILE).exists() {
            true => read_tenants(&self.dir),
            false => Ok(Tenants::default()),
        }
    }

    pub fn keys(&self) -> Result<Keys, TenantsError> {
        read_keys(&self.dir)
    }

    /// Durable when it returns.
    pub fn save_tenants(&self, tenants: &Tenants) -> Result<(), TenantsError> {
        let text = tenants.to_toml().map_err(TenantsError::Tenants)?;
        // What could not be read again is not written.
        Tenants::from_toml(&text).map_err(TenantsError::Tenants)?;
        let path = self.dir.join(TENANTS_FILE);
        check_size(&path, text.as_bytes(), FEWER_TENANTS)?;
        replace(&path, text.as_bytes(), 0o644)
    }

    /// Durable when it returns.
    pub fn save_keys(&self, keys: &Keys) -> Result<(), TenantsError> {
        let path = self.dir.join(KEYS_FILE);
        let bytes = keys.to_json().map_err(|what| TenantsError::Keys {
            path: path.clone(),
            what,
        })?;
        check_size(&path, &bytes, FEWER_KEYS)?;
        replace(&path, &bytes, 0o600)
    }
}

/// What could not be read again is not written.
fn check_size(path: &Path, bytes: &[u8], hint: &'static str) -> Result<(), TenantsError> {
    let bytes = bytes.len() as u64;
    match bytes > MAX_FILE {
        true => Err(TenantsError::WouldBeTooLarge {
            path: path.to_owned(),
            bytes,
            max: MAX_FILE,
            hint,
        }),
        false => Ok(()),
    }
}

pub fn read_tenants(dir: &Path) -> Result<Tenants, TenantsError> {
    let path = dir.join(TENANTS_FILE);
    let bytes = read(&path)?;
    let text = String::from_utf8(bytes).map_err(|error| at(&path)(io::Error::other(error)))?;
    Tenants::from_toml(&text).map_err(|error| TenantsError::Tenants(error.in_file(&path)))
}

/// None at all where nobody made one.
pub fn read_keys(dir: &Path) -> Result<Keys, TenantsError> {
    let path = dir.join(KEYS_FILE);
    let bytes = match read(&path) {
        Err(TenantsError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(Keys::default()),
        other => other?,
    };
    Keys::from_json(&bytes).map_err(|what| TenantsError::Keys { path, what })
}

fn read(path: &Path) -> Result<Vec<u8>, TenantsError> {
    let length = fs::metadata(path).map_err(at(path))?.len();
    if length > MAX_FILE {
        return Err(TenantsError::TooLarge {
            path: path.to_owned(),
            max: MAX_FILE,
        });
    }
    fs::read(path).map_err(at(path))
}

/// Written beside it, synced, renamed, the folder synced.
fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), TenantsError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let beside = PathBuf::from(name);
    let write = || {
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    };
    write().map_err(at(path))
}

fn at(path: &Path) -> impl Fn(io::Error) -> TenantsError {
    let path = path.to_owned();
    move |source| TenantsError::Io {
        path: path.clone(),
        source,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::keys::{Key, Scope};
    use sluice_wire::ids::TenantId;

    /// P15: whoever makes keys for ever ends with an error and with a file that every role can still read.
    #[test]
    fn p15_keys_that_could_not_be_read_again_are_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::lock(dir.path()).unwrap();
        let acme = TenantId::new("acme").unwrap();
        let mint = |n: u64, name: &str, end| {
            let mut id = [0; 6];
            id.copy_from_slice(&n.to_be_bytes()[2..]);
            Key::mint(id, [7; 32], &acme, name, Scope::Write, (100, end)).1
        };
        let mut keys = Keys::default();
        keys.add(mint(0, "good", None)).unwrap();
        folder.save_keys(&keys).unwrap();
        let good = keys.clone();
        // The largest names that the command takes.
        let name = "n".repeat(64);
        for n in 1..60_000 {
            keys.add(mint(n, &name, Some(200))).unwrap();
        }
        let error = folder.save_keys(&keys).unwrap_err();
        assert!(
            matches!(error, TenantsError::WouldBeTooLarge { max: MAX_FILE, .. }),
            "{error}"
        );
        assert!(error.to_string().contains("sluice key prune"), "{error}");
        assert_eq!(folder.keys().unwrap(), good, "the file stays as it was");
        assert_eq!(keys.prune(200, 0), 59_999);
        folder.save_keys(&keys).unwrap();
        assert_eq!(folder.keys().unwrap(), good);
    }
}
