//! Whether a package that was verified before may go on running: its key, the limits of that key, and what was revoked since.
//! Reads no package again, so it can be asked of all that a node has loaded whenever its store changes.

use std::sync::Arc;

use crate::key::KeyId;
use crate::manifest::Manifest;
use crate::revocation::{Revocations, Revoked};
use crate::store::{Store, StoreError};
use crate::time::Timestamp;
use crate::trust::{Trust, TrustedKey};
use crate::verify::{Refusal, Verified};

/// Who vouched for what, once its component is loaded.
#[derive(Clone, Debug)]
pub struct Provenance {
    manifest: Arc<Manifest>,
    key: KeyId,
}

/// The keys and revocations of a store as they are at one moment.
#[derive(Clone, Debug)]
pub struct Rights {
    trust: Trust,
    revocations: Revocations,
    now: Timestamp,
}

impl Verified {
    /// What is needed to ask again whether it may run.
    pub fn provenance(&self) -> Provenance {
        Provenance {
            manifest: Arc::new(self.manifest.clone()),
            key: self.key,
        }
    }
}

impl Provenance {
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }
}

impl Store {
    pub fn rights(&self) -> Result<Rights, StoreError> {
        Ok(Rights {
            trust: self.trust()?,
            revocations: self.revocations()?,
            now: (self.policy().clock)(),
        })
    }
}

impl Rights {
    /// Why it may not run any more, if somebody took that back.
    pub fn taken_back(&self, package: &Provenance) -> Option<Refusal> {
        let Some(signer) = self.trust.key(&package.key) else {
            return Some(Refusal::UnknownKey { key: package.key });
        };
        may_run(&package.manifest, package.key, signer, &self.revocations).err()
    }

    /// The end that its publisher set, if that has passed. It keeps a package from being loaded and ends nothing that runs.
    pub fn expired(&self, package: &Provenance) -> Option<Timestamp> {
        package.manifest.expires.filter(|expires| *expires <= self.now)
    }
}

/// What can be taken back of a package whose signature holds.
pub(crate) fn may_run(
    manifest: &Manifest,
    key: KeyId,
    signer: &TrustedKey,
    revocations: &Revocations,
) -> Result<(), Refusal> {
    if !signer.covers(&manifest.name) {
        return Err(Refusal::NotForThisKey {
            name: manifest.name.clone(),
            signer: signer.name.clone(),
        });
    }
    match revocations.revoked(manifest, &key) {
        None => {}
        Some(Revoked::Package { reason, by }) => {
            return Err(Refusal::Revoked {
                release: manifest.release(),
                reason,
                by,
            });
        }
        Some(Revoked::Key { reason, by }) => {
            return Err(Refusal::KeyRevoked {
                key,
                signer: signer.name.clone(),
                reason,
                by,
            });
        }
    }
    if let Some(allowed) = &signer.capabilities
        && let Some(&capability) = manifest.capabilities.difference(allowed).next()
    {
        return Err(Refusal::Capability {
            release: manifest.release(),
            capability,
            by: format!("trust/{}.pub", signer.name),
        });
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::key::PrivateKey;
    use crate::manifest::tests::manifest;
    use crate::policy::Policy;
    use crate::revocation::{Revocation, RevocationList, RevokedKey, SignedRevocations};
    use crate::verify::{Asked, Package};
    use std::time::Duration;

    fn now() -> Timestamp {
        Timestamp::from_seconds(1_796_000_000)
    }

    fn pinned(name: &str, key: &PrivateKey) -> TrustedKey {
        TrustedKey {
            name: name.into(),
            key: key.public(),
            names: None,
            capabilities: None,
        }
    }

    /// Whatever is taken back of a key or of a package is seen without the package, which is not there any more.
    #[test]
    fn p12_what_is_loaded_is_asked_for_its_rights_again_without_its_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let policy = Policy {
            clock: now,
            ..Policy::default()
        };
        let store = Store::open(folder.path(), policy);
        let (key, other) = (PrivateKey::of_seed(1), PrivateKey::of_seed(2));
        let trusted = pinned("acme", &key);
        store.add_key(&trusted).unwrap();
        let component = b"component".to_vec();
        let mut manifest = manifest("acme/demo", "1.0.0", &component);
        manifest.expires = Some(now().after(Duration::from_secs(60)));
        let package = Package::sign(&manifest, component, &key).unwrap();
        store.install(package, Asked::default(), true).unwrap();
        let provenance = store.resolve(&manifest.name, None).unwrap().provenance();
        std::fs::remove_dir_all(folder.path().join("packages")).unwrap();
        let taken_back = || store.rights().unwrap().taken_back(&provenance);
        assert_eq!(taken_back(), None);

        let again = |change: &dyn Fn(&mut TrustedKey)| {
            store.remove_key("acme").unwrap();
            let mut limited = trusted.clone();
            change(&mut limited);
            store.add_key(&limited).unwrap();
            taken_back()
        };
        let names = again(&|key| key.names = Some(vec!["other/*".parse().unwrap()]));
        assert!(matches!(names, Some(Refusal::NotForThisKey { .. })), "{names:?}");
        let capabilities = again(&|key| key.capabilities = Some(std::collections::BTreeSet::new()));
        assert_eq!(
            matches!(capabilities, Some(Refusal::Capability { .. })),
            !manifest.capabilities.is_empty(),
            "{capabilities:?}"
        );
        assert_eq!(again(&|_| {}), None);
        store.remove_key("acme").unwrap();
        assert!(matches!(taken_back(), Some(Refusal::UnknownKey { .. })));
        store.add_key(&trusted).unwrap();
        store.add_key(&pinned("other", &other)).unwrap();
        let list = RevocationList {
            number: 1,
            issued: now(),
            expires: now().after(Duration::from_secs(60)),
            entries: vec![Revocation::Key(RevokedKey {
                key: key.public().id(),
                reason: "stolen".to_owned(),
            })],
        };
        store
            .import_revocations(SignedRevocations::sign(&other, &list).unwrap())
            .unwrap();
        assert!(matches!(taken_back(), Some(Refusal::KeyRevoked { .. })));
        let mut rights = store.rights().unwrap();
        assert_eq!(rights.expired(&provenance), None);
        rights.now = now().after(Duration::from_secs(60));
        assert_eq!(rights.expired(&provenance), manifest.expires);
    }
}
