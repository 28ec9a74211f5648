//! Whether a package may be used here: offline, with nothing but its bytes, pinned keys, revocations and the policy.

use std::path::Path;
use std::time::Duration;

use semver::Version;

use crate::digest::Digest;
use crate::file;
use crate::key::{KeyId, PrivateKey};
use crate::limits::{COMPONENT_BYTES, MANIFEST_BYTES, SIGNATURE_BYTES};
use crate::manifest::{Capability, Manifest, ManifestError, Release};
use crate::name::PackageName;
use crate::policy::Policy;
use crate::revocation::Revocations;
use crate::signature::Signature;
use crate::standing::may_run;
use crate::time::Timestamp;
use crate::trust::Trust;

/// Names of the three files of a package.
pub const MANIFEST_FILE: &str = "manifest.json";
pub const SIGNATURE_FILE: &str = "manifest.sig";
pub const COMPONENT_FILE: &str = "component.wasm";

/// The bytes of a package, of which nothing is known yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    pub manifest: Vec<u8>,
    pub signature: Vec<u8>,
    pub component: Vec<u8>,
}

/// A package that may be used. Its component is the bytes that were verified; nobody reads them a second time.
#[derive(Clone, Debug)]
pub struct Verified {
    pub manifest: Manifest,
    pub component: Vec<u8>,
    pub key: KeyId,
    /// The name under which the key is pinned.
    pub signer: String,
    pub warnings: Vec<Warning>,
}

/// What does not keep a package from running, and must be said aloud.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Warning {
    #[error(
        "the revocation list of {issuer} expired at {expired}: what was revoked since is not known here; import a newer one with `sluice plugin revoke --import`"
    )]
    RevocationsExpired { issuer: String, expired: Timestamp },
    #[error(
        "{release} was made at {created}, and this machine's clock says {now}: set it, because whether something expired cannot be told by a wrong clock"
    )]
    ClockBehind {
        release: Box<Release>,
        created: Timestamp,
        now: Timestamp,
    },
}

/// By how much a clock may be behind the publisher's before it is mentioned.
const CLOCK_SLACK: Duration = Duration::from_secs(24 * 3600);

/// What a package is verified for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// It comes in.
    Install,
    /// It is here and is to run.
    Load,
}

/// What was asked for, where something was.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked<'a> {
    pub name: Option<&'a PackageName>,
    pub version: Option<&'a Version>,
}

/// Why a package is refused, and the way out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("{part} has {bytes} bytes, and {limit} are allowed: this is no package, or one that no host takes")]
    TooLarge { part: &'static str, bytes: u64, limit: u64 },
    #[error("manifest.sig cannot be read: {0}; fetch the package again, or let its publisher sign it anew")]
    SignatureUnreadable(String),
    #[error(
        "it is signed by the key {key}, which is not pinned here: if you know whose it is, `sluice plugin trust add NAME FILE` pins it"
    )]
    UnknownKey { key: KeyId },
    #[error(
        "the signature is wrong: the manifest was changed after the key {key} ({signer}) signed it, or the signature is of another package; fetch it again from its publisher"
    )]
    BadSignature { key: KeyId, signer: String },
    #[error(
        "the component has {found} bytes, and {stated} were signed: it was cut, or something was added; fetch the package again"
    )]
    ComponentSize { stated: u64, found: u64 },
    #[error(
        "the component is not the one that was signed ({signed}), but {found}: it was changed or exchanged; fetch the package again"
    )]
    ComponentChanged { signed: Digest, found: Digest },
    #[error("the manifest is signed and cannot be used: {0}")]
    Manifest(ManifestError),
    #[error(
        "the key {signer} may not sign {name} here: `names:` in trust/{signer}.pub says for which packages it is trusted"
    )]
    NotForThisKey { name: PackageName, signer: String },
    #[error("{asked} was asked for, and this is {found}: somebody put one package in the place of another")]
    NotAsked { asked: String, found: String },
    #[error("{release} was revoked by {by}: {reason}; install another version")]
    Revoked {
        release: Box<Release>,
        reason: String,
        by: String,
    },
    #[error(
        "the key {key} ({signer}), which signed this, was revoked by {by}: {reason}; its publisher has to sign with a new key"
    )]
    KeyRevoked {
        key: KeyId,
        signer: String,
        reason: String,
        by: String,
    },
    #[error(
        "the revocation list of {issuer} expired at {expired}, so it is not known whether this was revoked: import a newer one with `sluice plugin revoke --import`"
    )]
    RevocationsStale { issuer: String, expired: Timestamp },
    #[error(
        "no revocation list covers {name}, and the policy is strict: import one with `sluice plugin revoke --import`"
    )]
    RevocationsMissing { name: PackageName },
    #[error("{release} expired at {expired}: install a newer version")]
    Expired { release: Box<Release>, expired: Timestamp },
    #[error("{release} needs a host of version {needs} or newer, and this is {host}: update the host")]
    HostTooOld {
        release: Box<Release>,
        needs: Version,
        host: Version,
    },
    #[error(
        "{release} needs contract {contract}, which this host does not run (it runs {runs}): update the host, or install a version for one of these"
    )]
    Contract {
        release: Box<Release>,
        contract: Version,
        runs: String,
    },
    #[error(
        "{release} has the capability `{capability}`, which {by} does not allow: allow it there if the plugin really needs it"
    )]
    Capability {
        release: Box<Release>,
        capability: Capability,
        by: String,
    },
}

impl Package {
    /// Makes a package of a manifest that states the component's digest and size.
    pub fn sign(manifest: &Manifest, component: Vec<u8>, key: &PrivateKey) -> Result<Self, ManifestError> {
        let manifest = manifest.to_bytes()?;
        let signature = Signature::sign(key, &manifest, &component).to_bytes();
        Ok(Self {
            manifest,
            signature,
            component,
        })
    }

    /// Reads the three files of a package.
    pub fn read(folder: &Path) -> Result<Self, (std::path::PathBuf, std::io::Error)> {
        let part = |name: &str, limit| {
            let path = folder.join(name);
            file::read(&path, limit).map_err(|error| (path, error))
        };
        Ok(Self {
            manifest: part(MANIFEST_FILE, MANIFEST_BYTES)?,
            signature: part(SIGNATURE_FILE, SIGNATURE_BYTES)?,
            component: part(COMPONENT_FILE, COMPONENT_BYTES)?,
        })
    }

    /// Everything that decides but what the store remembers. Nothing of the manifest is parsed before its signature holds.
    pub fn verify(
        self,
        trust: &Trust,
        revocations: &Revocations,
        policy: &Policy,
        purpose: Purpose,
        asked: Asked<'_>,
    ) -> Result<Verified, Refusal> {
        for (part, bytes, limit) in [
            (MANIFEST_FILE, &self.manifest, MANIFEST_BYTES),
            (SIGNATURE_FILE, &self.signature, SIGNATURE_BYTES),
            (COMPONENT_FILE, &self.component, COMPONENT_BYTES),
        ] {
            let bytes = bytes.len() as u64;
            if bytes > limit {
                return Err(Refusal::TooLarge { part, bytes, limit });
            }
        }
        let signature = Signature::parse(&self.signature).map_err(Refusal::SignatureUnreadable)?;
        let key = signature.key;
        let signer = trust.key(&key).ok_or(Refusal::UnknownKey { key })?;
        if !signature.verifies(&signer.key, &self.manifest) {
            return Err(Refusal::BadSignature {
                key,
                signer: signer.name.clone(),
            });
        }
        let manifest = Manifest::parse(&self.manifest).map_err(Refusal::Manifest)?;
        let found = self.component.len() as u64;
        if found != manifest.size {
            return Err(Refusal::ComponentSize {
                stated: manifest.size,
                found,
            });
        }
        let found = Digest::of(&self.component);
        if found != signature.component || found != manifest.digest {
            return Err(Refusal::ComponentChanged {
                signed: manifest.digest,
                found,
            });
        }

        may_run(&manifest, key, signer, revocations)?;
        asked.is_answered_by(&manifest)?;
        let now = (policy.clock)();
        let mut warnings = freshness(revocations, policy, purpose, &manifest.name, now)?;
        policy.admits(&manifest, now)?;
        if manifest.created > now.after(CLOCK_SLACK) {
            warnings.push(Warning::ClockBehind {
                release: manifest.release(),
                created: manifest.created,
                now,
            });
        }
        Ok(Verified {
            manifest,
            component: self.component,
            key,
            signer: signer.name.clone(),
            warnings,
        })
    }
}

impl Asked<'_> {
    fn is_answered_by(&self, manifest: &Manifest) -> Result<(), Refusal> {
        let other_name = self.name.is_some_and(|name| *name != manifest.name);
        if other_name || self.version.is_some_and(|version| *version != manifest.version) {
            let text = |name: Option<&PackageName>, version: Option<&Version>| {
                let parts = [name.map(ToString::to_string), version.map(ToString::to_string)];
                parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
            };
            return Err(Refusal::NotAsked {
                asked: text(self.name, self.version),
                found: text(Some(&manifest.name), Some(&manifest.version)),
            });
        }
        Ok(())
    }
}

impl Policy {
    fn admits(&self, manifest: &Manifest, now: Timestamp) -> Result<(), Refusal> {
        if let Some(expired) = manifest.expires.filter(|expires| *expires <= now) {
            return Err(Refusal::Expired {
                release: manifest.release(),
                expired,
            });
        }
        if self.host < manifest.minimum_host {
            let (needs, host) = (manifest.minimum_host.clone(), self.host.clone());
            return Err(Refusal::HostTooOld {
                release: manifest.release(),
                needs,
                host,
            });
        }
        if !self.runs(&manifest.contract) {
            let runs: Vec<String> = self.contracts.iter().map(ToString::to_string).collect();
            return Err(Refusal::Contract {
                release: manifest.release(),
                contract: manifest.contract.clone(),
                runs: runs.join(", "),
            });
        }
        if let Some(&capability) = manifest.capabilities.difference(&self.capabilities).next() {
            return Err(Refusal::Capability {
                release: manifest.release(),
                capability,
                by: "the policy of this host".into(),
            });
        }
        Ok(())
    }
}

/// A list that is too old refuses what comes in, and only warns of what is here, unless the policy is strict.
fn freshness(
    revocations: &Revocations,
    policy: &Policy,
    purpose: Purpose,
    name: &PackageName,
    now: Timestamp,
) -> Result<Vec<Warning>, Refusal> {
    if policy.strict_revocations && !revocations.cover(name) {
        return Err(Refusal::RevocationsMissing { name: name.clone() });
    }
    match revocations.stale(name, now) {
        None => Ok(Vec::new()),
        Some((issuer, expired)) if purpose == Purpose::Install || policy.strict_revocations => {
            Err(Refusal::RevocationsStale { issuer, expired })
        }
        Some((issuer, expired)) => Ok(vec![Warning::RevocationsExpired { issuer, expired }]),
    }
}

#[cfg(test)]
mod tests;
