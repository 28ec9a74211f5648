//! Revocation lists: what a key takes back. FORMAT.md has the bytes.

mod range;

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub use range::{RangeError, VersionRange};

use crate::digest::Digest;
use crate::key::{KeyId, PrivateKey};
use crate::limits::{REVOCATIONS_BYTES, TEXT_BYTES};
use crate::manifest::Manifest;
use crate::name::PackageName;
use crate::time::Timestamp;
use crate::trust::{Trust, TrustedKey};

const SCHEMA: u32 = 1;
const DOMAIN: &[u8] = b"sluice plugin revocations v1\0";

/// Everything that one key has revoked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevocationList {
    /// Grows with every list of a key.
    pub number: u64,
    pub issued: Timestamp,
    pub expires: Timestamp,
    pub entries: Vec<Revocation>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Revocation {
    Component(RevokedComponent),
    Versions(RevokedVersions),
    Key(RevokedKey),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokedComponent {
    pub digest: Digest,
    pub reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokedVersions {
    pub name: PackageName,
    pub versions: VersionRange,
    pub reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokedKey {
    pub key: KeyId,
    pub reason: String,
}

/// A list with its signature, as it travels. The list's own bytes are kept, because they were signed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedRevocations {
    schema: u32,
    pub key: KeyId,
    signature: String,
    list: Box<RawValue>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RevocationError {
    #[error("the revocation list cannot be read: {0}")]
    Malformed(String),
    #[error("the revocation list has {bytes} bytes, and {REVOCATIONS_BYTES} are allowed")]
    TooLarge { bytes: u64 },
    #[error(
        "the revocation list is signed by the key {key}, which is not pinned here: `sluice plugin trust add` pins it, if you know whose it is"
    )]
    UnknownKey { key: KeyId },
    #[error(
        "the signature of the revocation list is wrong: it was changed, or is not of the key {key}; fetch it again from its issuer"
    )]
    BadSignature { key: KeyId },
    #[error(
        "the revocation list is number {found}, and number {seen} of the key {key} was seen here before: an old list is never taken"
    )]
    Older { key: KeyId, found: u64, seen: u64 },
    #[error(
        "another revocation list with number {number} of the key {key} was seen here before: its issuer has to give the new one a new number"
    )]
    Forked { key: KeyId, number: u64 },
    #[error(
        "the revocation list number {number} of the key {key} was seen here and is gone from revocations.json: import it again with `sluice plugin revoke --import`"
    )]
    Missing { key: KeyId, number: u64 },
}

impl SignedRevocations {
    pub fn sign(key: &PrivateKey, list: &RevocationList) -> Result<Self, RevocationError> {
        let malformed = |error: serde_json::Error| RevocationError::Malformed(error.to_string());
        check(list)?;
        let text = serde_json::to_string(list).map_err(malformed)?;
        let signed = Self {
            schema: SCHEMA,
            key: key.public().id(),
            signature: BASE64.encode(key.sign(&message(&text))),
            list: RawValue::from_string(text).map_err(malformed)?,
        };
        match signed.to_bytes().len() as u64 {
            bytes if bytes > REVOCATIONS_BYTES => Err(RevocationError::TooLarge { bytes }),
            _ => Ok(signed),
        }
    }

    pub fn parse(bytes: &[u8]) -> Result<Self, RevocationError> {
        if bytes.len() as u64 > REVOCATIONS_BYTES {
            return Err(RevocationError::TooLarge {
                bytes: bytes.len() as u64,
            });
        }
        serde_json::from_slice(bytes).map_err(|error| RevocationError::Malformed(error.to_string()))
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        // Texts, a number and JSON that was parsed before.
        let mut bytes = serde_json::to_vec(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// The list, if a pinned key signed it.
    pub fn verify(&self, trust: &Trust) -> Result<RevocationList, RevocationError> {
        if self.schema != SCHEMA {
            let text = format!(
                "it has schema {}, and this host reads {SCHEMA}: update the host",
                self.schema
            );
            return Err(RevocationError::Malformed(text));
        }
        let key = trust
            .key(&self.key)
            .ok_or(RevocationError::UnknownKey { key: self.key })?;
        let signature = BASE64.decode(&self.signature).unwrap_or_default();
        if !key.key.verifies(&message(self.list.get()), &signature) {
            return Err(RevocationError::BadSignature { key: self.key });
        }
        let list = serde_json::from_str(self.list.get());
        let list: RevocationList = list.map_err(|error| RevocationError::Malformed(error.to_string()))?;
        check(&list)?;
        Ok(list)
    }

    pub(crate) fn same_list(&self, other: &Self) -> bool {
        self.list.get() == other.list.get()
    }
}

fn message(list: &str) -> Vec<u8> {
    [DOMAIN, list.as_bytes()].concat()
}

fn check(list: &RevocationList) -> Result<(), RevocationError> {
    let reasons = list.entries.iter().map(Revocation::reason);
    for reason in reasons {
        if reason.is_empty() || reason.len() > TEXT_BYTES || reason.chars().any(char::is_control) {
            return Err(RevocationError::Malformed(format!(
                "a reason is not a line of 1 to {TEXT_BYTES} bytes"
            )));
        }
    }
    if list.number == 0 || list.expires <= list.issued {
        return Err(RevocationError::Malformed(
            "its number is 0, or it expires before it was issued".into(),
        ));
    }
    Ok(())
}

impl Revocation {
    pub fn reason(&self) -> &str {
        match self {
            Self::Component(entry) => &entry.reason,
            Self::Versions(entry) => &entry.reason,
            Self::Key(entry) => &entry.reason,
        }
    }
}

/// The verified lists of a store.
#[derive(Clone, Debug, Default)]
pub struct Revocations {
    lists: BTreeMap<KeyId, (TrustedKey, RevocationList)>,
}

/// What a list says of a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Revoked {
    Package { reason: String, by: String },
    Key { reason: String, by: String },
}

impl Revocations {
    /// Lists of keys that are pinned no more count no more. `seen` are the highest numbers seen, by key.
    pub fn verify(
        lists: &[SignedRevocations],
        trust: &Trust,
        seen: &BTreeMap<KeyId, u64>,
    ) -> Result<Self, RevocationError> {
        let mut verified = BTreeMap::new();
        for signed in lists {
            let Some(key) = trust.key(&signed.key) else { continue };
            let list = signed.verify(trust)?;
            if let Some(&seen) = seen.get(&signed.key).filter(|seen| list.number < **seen) {
                return Err(RevocationError::Older {
                    key: signed.key,
                    found: list.number,
                    seen,
                });
            }
            verified.insert(signed.key, (key.clone(), list));
        }
        let gone = seen
            .iter()
            .find(|(key, _)| trust.key(key).is_some() && !verified.contains_key(key));
        if let Some((&key, &number)) = gone {
            return Err(RevocationError::Missing { key, number });
        }
        Ok(Self { lists: verified })
    }

    pub fn lists(&self) -> impl Iterator<Item = (&TrustedKey, &RevocationList)> {
        self.lists.values().map(|(key, list)| (key, list))
    }

    /// The list of one key.
    pub fn of(&self, key: &KeyId) -> Option<&RevocationList> {
        self.lists.get(key).map(|(_, list)| list)
    }

    /// The lists whose keys may say something about this package.
    fn about(&self, name: &PackageName) -> impl Iterator<Item = &(TrustedKey, RevocationList)> {
        self.lists.values().filter(|(key, _)| key.covers(name))
    }

    pub(crate) fn revoked(&self, manifest: &Manifest, signer: &KeyId) -> Option<Revoked> {
        self.about(&manifest.name).find_map(|(key, list)| {
            let by = || key.name.clone();
            list.entries.iter().find_map(|entry| match entry {
                Revocation::Component(entry) => (entry.digest == manifest.digest).then(|| Revoked::Package {
                    reason: entry.reason.clone(),
                    by: by(),
                }),
                Revocation::Versions(entry) => (entry.name == manifest.name
                    && entry.versions.contains(&manifest.version))
                .then(|| Revoked::Package {
                    reason: entry.reason.clone(),
                    by: by(),
                }),
                Revocation::Key(entry) => (entry.key == *signer).then(|| Revoked::Key {
                    reason: entry.reason.clone(),
                    by: by(),
                }),
            })
        })
    }

    /// The key and the end of a list that covers the package and is no longer fresh.
    pub(crate) fn stale(&self, name: &PackageName, now: Timestamp) -> Option<(String, Timestamp)> {
        let mut expired = self.about(name).filter(|(_, list)| list.expires <= now);
        expired.next().map(|(key, list)| (key.name.clone(), list.expires))
    }

    pub(crate) fn cover(&self, name: &PackageName) -> bool {
        self.about(name).next().is_some()
    }
}
