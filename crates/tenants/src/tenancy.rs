//! The folder, for a role that follows it: what was read last and can be used.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use sluice_wire::ids::TenantId;

use crate::error::TenantsError;
use crate::folder::{KEYS_FILE, TENANTS_FILE, read_keys, read_tenants};
use crate::keys::{Key, KeyRefusal, Keys, Scope};
use crate::tenants::Tenants;

/// One reading.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub tenants: Tenants,
    pub keys: Keys,
}

/// Follows a folder. Whatever is wrong with changed files, the last good ones stay in use.
#[derive(Debug)]
pub struct Tenancy {
    dir: PathBuf,
    with_keys: bool,
    current: RwLock<Arc<Snapshot>>,
    /// Contents are compared, as times may be coarse.
    seen: Mutex<Seen>,
}

type Seen = [Option<Vec<u8>>; 2];

impl Tenancy {
    /// For a role that takes keys.
    pub fn open(dir: &Path) -> Result<Self, TenantsError> {
        Self::open_as(dir, true)
    }

    /// For a gateway, which knows tenants by their certificates.
    pub fn open_without_keys(dir: &Path) -> Result<Self, TenantsError> {
        Self::open_as(dir, false)
    }

    fn open_as(dir: &Path, with_keys: bool) -> Result<Self, TenantsError> {
        // Looked at before they are read: what changes between the two is read again.
        let seen = contents(dir, with_keys);
        Ok(Self {
            current: RwLock::new(Arc::new(read(dir, with_keys)?)),
            dir: dir.to_owned(),
            with_keys,
            seen: Mutex::new(seen),
        })
    }

    pub fn current(&self) -> Arc<Snapshot> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes changed files into use; true if there were any. Blocks for as long as reading two small files takes.
    pub fn look(&self) -> Result<bool, TenantsError> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let now = contents(&self.dir, self.with_keys);
        if now == *seen {
            return Ok(false);
        }
        let snapshot = read(&self.dir, self.with_keys)?;
        // Only then: what could not be read is tried again.
        *seen = now;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(snapshot);
        Ok(true)
    }
}

impl Snapshot {
    /// Whom a key stands for, if its tenant is served.
    pub fn identify(&self, text: &str, scope: Scope, now_s: u64) -> Result<(&Key, &TenantId), KeyRefusal> {
        let (key, tenant) = self.keys.identify(text, scope, now_s)?;
        match self.tenants.admit(tenant) {
            Ok(_) => Ok((key, tenant)),
            Err(_) => Err(KeyRefusal::Tenant),
        }
    }
}

fn read(dir: &Path, with_keys: bool) -> Result<Snapshot, TenantsError> {
    Ok(Snapshot {
        tenants: read_tenants(dir)?,
        keys: match with_keys {
            true => read_keys(dir)?,
            false => Keys::default(),
        },
    })
}

fn contents(dir: &Path, with_keys: bool) -> Seen {
    let of = |name: &str| std::fs::read(dir.join(name)).ok();
    [of(TENANTS_FILE), if with_keys { of(KEYS_FILE) } else { None }]
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::folder::Folder;
    use crate::tenants::{State, Tenant};

    #[test]
    fn changes_are_followed_and_a_broken_file_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert!(
            Tenancy::open(dir.path()).is_err(),
            "a folder without tenants is a mistake"
        );
        let acme = TenantId::new("acme").unwrap();
        let folder = Folder::lock(dir.path()).unwrap();
        let mut tenants = folder.tenants().unwrap();
        tenants.insert(acme.clone(), Tenant::default());
        folder.save_tenants(&tenants).unwrap();
        let tenancy = Tenancy::open(dir.path()).unwrap();
        let (text, key) = Key::mint([1; 6], [2; 32], &acme, "ci", Scope::Write, (1, None));
        let mut keys = folder.keys().unwrap();
        keys.add(key).unwrap();
        folder.save_keys(&keys).unwrap();
        let who = || tenancy.current().identify(&text, Scope::Write, 5).map(|_| ());
        assert_eq!(who(), Err(KeyRefusal::Unknown));
        assert!(tenancy.look().unwrap() && !tenancy.look().unwrap());
        assert_eq!(who(), Ok(()));

        std::fs::write(
            dir.path().join(TENANTS_FILE),
            "version = 1\n[tenant.acme]\nstate = \"gone\"\n",
        )
        .unwrap();
        assert!(tenancy.look().is_err());
        assert_eq!(who(), Ok(()));
        tenants.get_mut(&acme).unwrap().state = State::Suspended;
        folder.save_tenants(&tenants).unwrap();
        assert!(tenancy.look().unwrap());
        assert_eq!(who(), Err(KeyRefusal::Tenant));
        tenants.remove(&acme);
        folder.save_tenants(&tenants).unwrap();
        assert!(tenancy.look().unwrap());
        assert_eq!(who(), Err(KeyRefusal::Tenant));
    }

    #[test]
    fn nobody_overwrites_what_another_one_wrote_meanwhile() {
        let dir = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for writer in 0..8 {
                let dir = dir.path();
                scope.spawn(move || {
                    for n in 0..5 {
                        let folder = Folder::lock(dir).unwrap();
                        let mut tenants = folder.tenants().unwrap();
                        tenants.insert(TenantId::new(&format!("t-{writer}-{n}")).unwrap(), Tenant::default());
                        folder.save_tenants(&tenants).unwrap();
                    }
                });
            }
        });
        assert_eq!(read_tenants(dir.path()).unwrap().len(), 40);
    }
}
