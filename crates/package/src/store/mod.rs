//! The packages of a node: `<data>/plugins`. What is read from it is verified at every load; what changes it does so as a whole.

mod change;
mod state;

use std::io;
use std::path::{Path, PathBuf};

use semver::Version;
use serde::{Deserialize, Serialize};

pub use change::Installed;
pub use state::{InstalledVersion, Mark, PluginState, Shadow, State, StateError, VersionText};

use crate::digest::Digest;
use crate::disk::Disk;
use crate::file;
use crate::key::KeyId;
use crate::limits::{ALL_REVOCATIONS_BYTES, STATE_BYTES};
use crate::name::PackageName;
use crate::policy::Policy;
use crate::revocation::{RevocationError, Revocations, SignedRevocations};
use crate::trust::{Trust, TrustError};
use crate::verify::{Asked, Package, Purpose, Refusal, Verified};
use state::STATE_SCHEMA;

/// A store. Several processes may use one folder at once.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
    policy: Policy,
    disk: Disk,
}

/// Notices that a store changed.
#[derive(Debug)]
pub struct Watch {
    store: Store,
    seen: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{what} is refused: {refusal}")]
    Refused { what: String, refusal: Box<Refusal> },
    #[error("{}: the component is {found}, and {installed} was installed: somebody exchanged the folder; remove this version and install it again", .folder.display())]
    Exchanged {
        folder: PathBuf,
        installed: Digest,
        found: Digest,
    },
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error(transparent)]
    Revocation(#[from] RevocationError),
    #[error("no key {name:?} is pinned here: `sluice plugin trust list` shows those that are")]
    NoSuchKey { name: String },
    #[error("another key is pinned as {name:?} ({pinned}): remove it first, or choose another name")]
    KeyNameTaken { name: String, pinned: KeyId },
    #[error("{} is damaged: {problem}; restore it from a copy, or remove the whole folder of the store and install anew", .path.display())]
    Damaged { path: PathBuf, problem: String },
    #[error("cannot {action} {}", .path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl StoreError {
    /// The refusal, if it was one.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused { refusal, .. } => Some(refusal),
            _ => None,
        }
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RevocationsFile {
    schema: u32,
    lists: Vec<SignedRevocations>,
}

impl Store {
    /// A store in this folder. A folder that is not there is an empty store; it is made by the first change.
    pub fn open(root: impl Into<PathBuf>, policy: Policy) -> Self {
        let root = root.into();
        Self {
            disk: Disk::new(root.clone()),
            root,
            policy,
        }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// What is installed and what runs, as of now.
    pub fn state(&self) -> Result<State, StoreError> {
        let path = self.state_path();
        let Some(bytes) = self.read_if_there(&path, STATE_BYTES)? else {
            return Ok(State::default());
        };
        let damaged = |problem: String| StoreError::Damaged {
            path: path.clone(),
            problem,
        };
        let state: State = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        match state.schema() {
            STATE_SCHEMA => Ok(state),
            other => Err(damaged(format!(
                "it has schema {other}, and this host reads {STATE_SCHEMA}: update the host"
            ))),
        }
    }

    /// The pinned keys.
    pub fn trust(&self) -> Result<Trust, StoreError> {
        Ok(Trust::load(&self.trust_folder())?)
    }

    /// The revocation lists of pinned keys, verified, and none of them older than was seen.
    pub fn revocations(&self) -> Result<Revocations, StoreError> {
        self.revocations_for(&self.state()?, &self.trust()?)
    }

    fn revocations_for(&self, state: &State, trust: &Trust) -> Result<Revocations, StoreError> {
        Ok(Revocations::verify(
            &self.signed_revocations()?,
            trust,
            &state.revocations,
        )?)
    }

    fn signed_revocations(&self) -> Result<Vec<SignedRevocations>, StoreError> {
        let path = self.revocations_path();
        let Some(bytes) = self.read_if_there(&path, ALL_REVOCATIONS_BYTES)? else {
            return Ok(Vec::new());
        };
        let file: RevocationsFile = serde_json::from_slice(&bytes).map_err(|error| StoreError::Damaged {
            path: path.clone(),
            problem: error.to_string(),
        })?;
        Ok(file.lists)
    }

    /// The version that is to run, or the given one, verified anew: signature, revocations, expiry, policy, and that it is
    /// what was installed. A package that is disabled or marked bad is not given out.
    pub fn resolve(&self, name: &PackageName, version: Option<&Version>) -> Result<Verified, StoreError> {
        let state = self.state()?;
        let version = state.choose(name, version)?;
        self.load(&state, name, &version)
    }

    /// An installed version, verified as at every load, whether it may run or not.
    pub fn verify_installed(&self, name: &PackageName, version: &Version) -> Result<Verified, StoreError> {
        self.load(&self.state()?, name, version)
    }

    fn load(&self, state: &State, name: &PackageName, version: &Version) -> Result<Verified, StoreError> {
        let installed = state.plugin(name)?.version(name, version)?.digest;
        let folder = self.package_folder(name, version);
        let asked = Asked {
            name: Some(name),
            version: Some(version),
        };
        let verified = self.verify_with(state, self.read_package(&folder)?, Purpose::Load, asked)?;
        match verified.manifest.digest {
            found if found == installed => Ok(verified),
            found => Err(StoreError::Exchanged {
                folder,
                installed,
                found,
            }),
        }
    }

    /// A package from elsewhere, under the keys and revocations of this store.
    pub fn verify(&self, package: Package, purpose: Purpose, asked: Asked<'_>) -> Result<Verified, StoreError> {
        self.verify_with(&self.state()?, package, purpose, asked)
    }

    /// A package in a folder of its own, which is not installed; it is verified as at every load.
    pub fn verify_folder(&self, folder: &Path, asked: Asked<'_>) -> Result<Verified, StoreError> {
        self.verify(self.read_package(folder)?, Purpose::Load, asked)
    }

    fn verify_with(
        &self,
        state: &State,
        package: Package,
        purpose: Purpose,
        asked: Asked<'_>,
    ) -> Result<Verified, StoreError> {
        let trust = self.trust()?;
        let revocations = self.revocations_for(state, &trust)?;
        let what = match (asked.name, asked.version) {
            (Some(name), Some(version)) => format!("{name} {version}"),
            (Some(name), None) => name.to_string(),
            _ => "the package".to_owned(),
        };
        let verified = package.verify(&trust, &revocations, &self.policy, purpose, asked);
        verified.map_err(|refusal| StoreError::Refused {
            what,
            refusal: Box::new(refusal),
        })
    }

    /// Tells when the store has changed since this call.
    pub fn watch(&self) -> Result<Watch, StoreError> {
        Ok(Watch {
            store: self.clone(),
            seen: self.state()?.generation,
        })
    }

    fn read_package(&self, folder: &Path) -> Result<Package, StoreError> {
        Package::read(folder).map_err(|(path, source)| StoreError::Io {
            action: "read",
            path,
            source,
        })
    }

    fn read_if_there(&self, path: &Path, limit: u64) -> Result<Option<Vec<u8>>, StoreError> {
        match file::read(path, limit) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StoreError::Io {
                action: "read",
                path: path.to_owned(),
                source,
            }),
        }
    }

    fn state_path(&self) -> PathBuf {
        self.root.join("state.json")
    }

    fn revocations_path(&self) -> PathBuf {
        self.root.join("revocations.json")
    }

    fn trust_folder(&self) -> PathBuf {
        self.root.join("trust")
    }

    /// Where the files of an installed version stand.
    pub fn package_folder(&self, name: &PackageName, version: &Version) -> PathBuf {
        self.root.join("packages").join(name.folder()).join(version.to_string())
    }
}

impl Watch {
    /// The new state, if the store changed since the last time it was asked. An error leaves it to be asked again.
    pub fn changed(&mut self) -> Result<Option<State>, StoreError> {
        let state = self.store.state()?;
        let changed = state.generation != self.seen;
        self.seen = state.generation;
        Ok(changed.then_some(state))
    }
}

#[cfg(test)]
mod tests;
