//! What changes a store: each change under the lock, committed by `state.json`.

use std::fs::File;
use std::path::{Path, PathBuf};

use semver::Version;

use super::state::{Mark, State};
use super::{RevocationsFile, Store, StoreError};
use crate::disk::NewFile;
use crate::limits::ALL_REVOCATIONS_BYTES;
use crate::manifest::Manifest;
use crate::name::{PackageName, is_name_part};
use crate::revocation::{RevocationError, RevocationList, SignedRevocations};
use crate::trust::{Trust, TrustError, TrustedKey};
use crate::verify::{Asked, COMPONENT_FILE, MANIFEST_FILE, Package, Purpose, SIGNATURE_FILE, Verified};

/// What an installation did.
#[derive(Clone, Debug)]
pub struct Installed {
    pub manifest: Manifest,
    /// The name of the key that signed it.
    pub signer: String,
    /// The version that ran before, if this one runs instead.
    pub replaced: Option<Version>,
    pub activated: bool,
}

/// A store that nobody else changes meanwhile.
struct Change<'a> {
    store: &'a Store,
    state: State,
    _lock: File,
}

impl Store {
    /// Takes a package in, and makes it the version that runs if `activate`. Below the highest version ever installed nothing
    /// is taken; installing what is here already is no error.
    pub fn install(&self, package: Package, asked: Asked<'_>, activate: bool) -> Result<Installed, StoreError> {
        let mut change = self.begin()?;
        let bytes = package.clone();
        let verified = self.verify_with(&change.state, package, Purpose::Install, asked)?;
        let Verified { manifest, signer, .. } = verified;
        let (name, version) = (&manifest.name, &manifest.version);
        let before = change.state.plugins.get(name).and_then(|plugin| plugin.current.clone());
        let mut after = change.state.clone();
        after.install(name, version, manifest.digest, activate, (self.policy.clock)())?;
        let folder = self.package_folder(name, version);
        // A folder that `state.json` does not name was left by an installation that did not end; one that it names is
        // replaced only where its bytes are no longer those that were installed.
        let whole = change
            .state
            .plugins
            .get(name)
            .is_some_and(|plugin| plugin.versions.contains_key(&version.into()))
            && Package::read(&folder).is_ok_and(|here| here == bytes);
        if !whole {
            let files = [
                NewFile {
                    name: MANIFEST_FILE,
                    bytes: &bytes.manifest,
                },
                NewFile {
                    name: SIGNATURE_FILE,
                    bytes: &bytes.signature,
                },
                NewFile {
                    name: COMPONENT_FILE,
                    bytes: &bytes.component,
                },
            ];
            self.disk
                .put_folder(&folder, &files)
                .map_err(cannot("write", &folder))?;
        }
        change.state = after;
        change.commit()?;
        let replaced = before
            .map(|before| before.0)
            .filter(|before| activate && before != version);
        Ok(Installed {
            manifest,
            signer,
            replaced,
            activated: activate,
        })
    }

    /// Makes an installed version the one that runs. It is verified first; a mark against it is lifted.
    pub fn promote(&self, name: &PackageName, version: &Version) -> Result<(), StoreError> {
        self.change_of_version(name, version, |state| state.promote(name, version))
    }

    /// Goes back to the version that ran before, or to a chosen older one that is installed. Returns it.
    pub fn rollback(&self, name: &PackageName, version: Option<&Version>) -> Result<Version, StoreError> {
        let mut change = self.begin()?;
        let to = change.state.rollback(name, version)?;
        // What is about to run is verified before it is said that it runs.
        self.load(&change.state, name, &to)?;
        change.commit()?;
        Ok(to)
    }

    /// A version failed: it does not run again by itself. If it was the current one, the previous one is current now, and is
    /// returned; with no previous one nothing changes and the error says so.
    pub fn mark_bad(&self, name: &PackageName, version: &Version, reason: &str) -> Result<Option<Version>, StoreError> {
        let mut change = self.begin()?;
        let back = change
            .state
            .mark_bad(name, version, Mark::fitting(reason, (self.policy.clock)()))?;
        change.commit()?;
        Ok(back)
    }

    /// Lets an installed version run beside the current one on a share of the batches, without effect.
    pub fn set_shadow(&self, name: &PackageName, version: &Version, share: f64) -> Result<(), StoreError> {
        self.change_of_version(name, version, |state| state.set_shadow(name, Some((version, share))))
    }

    pub fn clear_shadow(&self, name: &PackageName) -> Result<(), StoreError> {
        let mut change = self.begin()?;
        change.state.set_shadow(name, None)?;
        change.commit()
    }

    /// The kill switch: nothing of this name runs until it is enabled.
    pub fn disable(&self, name: &PackageName, reason: &str) -> Result<(), StoreError> {
        let mut change = self.begin()?;
        change
            .state
            .set_disabled(name, Some(Mark::new(reason, (self.policy.clock)())?))?;
        change.commit()
    }

    pub fn enable(&self, name: &PackageName) -> Result<(), StoreError> {
        let mut change = self.begin()?;
        change.state.set_disabled(name, None)?;
        change.commit()
    }

    /// Removes a version that does not run, or all versions of a package. The highest version is remembered.
    pub fn remove(&self, name: &PackageName, version: Option<&Version>) -> Result<Vec<Version>, StoreError> {
        let mut change = self.begin()?;
        let here = change.state.plugin(name)?.versions.keys().map(|text| text.0.clone());
        let gone: Vec<Version> = here.filter(|here| version.is_none_or(|one| one == here)).collect();
        change.state.remove(name, version)?;
        change.commit()?;
        // Only now: a package that the state names is whole.
        for version in &gone {
            let folder = self.package_folder(name, version);
            self.disk.take_away(&folder).map_err(cannot("remove", &folder))?;
        }
        Ok(gone)
    }

    /// Pins a key.
    pub fn add_key(&self, key: &TrustedKey) -> Result<(), StoreError> {
        let change = self.begin()?;
        let mut trust = self.trust()?;
        if let Some(pinned) = trust.keys().find(|pinned| pinned.name == key.name) {
            return Err(StoreError::KeyNameTaken {
                name: key.name.clone(),
                pinned: pinned.key.id(),
            });
        }
        trust.add(key.clone())?;
        let path = self.key_path(&key.name)?;
        self.disk
            .put_file(&path, key.to_text().as_bytes())
            .map_err(cannot("write", &path))?;
        change.commit()
    }

    /// Pins a key no more: nothing that it signed is loaded from now on, and its revocations do not count.
    pub fn remove_key(&self, name: &str) -> Result<(), StoreError> {
        let change = self.begin()?;
        let path = self.key_path(name)?;
        if !path.is_file() {
            return Err(StoreError::NoSuchKey { name: name.to_owned() });
        }
        self.disk.take_away(&path).map_err(cannot("remove", &path))?;
        change.commit()
    }

    fn key_path(&self, name: &str) -> Result<PathBuf, TrustError> {
        match is_name_part(name) {
            true => Ok(self.trust_folder().join(format!("{name}.pub"))),
            false => Err(TrustError::Name {
                text: name.chars().take(64).collect(),
            }),
        }
    }

    /// Takes a revocation list of a pinned key in; the one with the highest number counts.
    pub fn import_revocations(&self, signed: SignedRevocations) -> Result<RevocationList, StoreError> {
        let mut change = self.begin()?;
        let trust = self.trust()?;
        let list = signed.verify(&trust)?;
        let key = signed.key;
        let mut lists = self.signed_revocations()?;
        let seen = change.state.revocations.get(&key).copied().unwrap_or(0);
        if list.number < seen {
            return Err(RevocationError::Older {
                key,
                found: list.number,
                seen,
            }
            .into());
        }
        let here = lists.iter().position(|here| here.key == key);
        if let Some(here) = here.map(|place| &lists[place])
            && here.verify(&trust).is_ok_and(|old| old.number == list.number)
        {
            return match here.same_list(&signed) {
                true => Ok(list),
                false => Err(RevocationError::Forked {
                    key,
                    number: list.number,
                }
                .into()),
            };
        }
        match here {
            Some(place) => lists[place] = signed,
            None => lists.push(signed),
        }
        self.write_revocations(&trust, lists)?;
        change.state.revocations.insert(key, list.number);
        change.commit()?;
        Ok(list)
    }

    fn write_revocations(&self, trust: &Trust, mut lists: Vec<SignedRevocations>) -> Result<(), StoreError> {
        lists.retain(|list| trust.key(&list.key).is_some());
        let path = self.revocations_path();
        let damaged = |problem| StoreError::Damaged {
            path: path.clone(),
            problem,
        };
        let file = RevocationsFile { schema: 1, lists };
        let bytes = serde_json::to_vec(&file).map_err(|error| damaged(error.to_string()))?;
        if bytes.len() as u64 > ALL_REVOCATIONS_BYTES {
            return Err(RevocationError::TooLarge {
                bytes: bytes.len() as u64,
            }
            .into());
        }
        self.disk.put_file(&path, &bytes).map_err(cannot("write", &path))
    }

    fn change_of_version(
        &self,
        name: &PackageName,
        version: &Version,
        apply: impl FnOnce(&mut State) -> Result<(), super::StateError>,
    ) -> Result<(), StoreError> {
        let mut change = self.begin()?;
        apply(&mut change.state)?;
        self.load(&change.state, name, version)?;
        change.commit()
    }

    fn begin(&self) -> Result<Change<'_>, StoreError> {
        let path = self.root.join(".lock");
        self.disk
            .create_folders(&self.root)
            .map_err(cannot("make", &self.root))?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(cannot("open", &path))?;
        lock.lock().map_err(cannot("lock", &path))?;
        self.disk
            .clear_staging()
            .map_err(cannot("clear", &self.root.join("staging")))?;
        Ok(Change {
            store: self,
            state: self.state()?,
            _lock: lock,
        })
    }
}

impl Change<'_> {
    /// From here on the change is there.
    fn commit(mut self) -> Result<(), StoreError> {
        self.state.generation += 1;
        let path = self.store.state_path();
        let bytes = serde_json::to_vec_pretty(&self.state).map_err(|error| StoreError::Damaged {
            path: path.clone(),
            problem: error.to_string(),
        })?;
        self.store.disk.put_file(&path, &bytes).map_err(cannot("write", &path))
    }
}

fn cannot(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> StoreError {
    move |source| StoreError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}
