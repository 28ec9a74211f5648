//! The keys that stand for tenants: `keys.json`. Only hashes are kept.

use std::collections::HashMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use sluice_wire::ids::TenantId;
use subtle::ConstantTimeEq;

const VERSION: u32 = 1;
/// The first characters of every key, so that one left in a file or a log is recognised.
const PREFIX: &str = "slk_";
/// Separates these hashes from every other use of the hash function.
const CONTEXT: &str = "sluice api key 2026-11 v1";
const ID_BYTES: usize = 6;
const SECRET_BYTES: usize = 32;
/// A longer text is no key: `slk_`, 12 digits, `_`, 64 digits.
const KEY_CHARACTERS: usize = PREFIX.len() + 2 * ID_BYTES + 1 + 2 * SECRET_BYTES;

/// What a key opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// The OTLP door of the cloud.
    Write,
    /// The doors of the query role.
    Read,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Write => "write",
            Self::Read => "read",
        })
    }
}

/// One key, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    pub id: String,
    pub tenant: String,
    /// For people.
    pub name: String,
    pub scope: Scope,
    hash: String,
    /// Seconds since 1970, as the other times.
    pub created_at: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<u64>,
}

/// Why a key opens nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum KeyRefusal {
    #[error("the key is not known here")]
    Unknown,
    #[error("the key was revoked")]
    Revoked,
    #[error("the key is expired")]
    Expired,
    #[error("the key is not for this: its scope is another one")]
    Scope,
    #[error("the key's tenant is suspended, or not served here any more")]
    Tenant,
}

impl KeyRefusal {
    pub const ALL: [Self; 5] = [Self::Unknown, Self::Revoked, Self::Expired, Self::Scope, Self::Tenant];

    /// In metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown_key",
            Self::Revoked => "revoked_key",
            Self::Expired => "expired_key",
            Self::Scope => "wrong_scope",
            Self::Tenant => "tenant",
        }
    }
}

/// All of them, by id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    keys: Vec<Key>,
    by_id: HashMap<String, (usize, [u8; 32], TenantId)>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    keys: Vec<Key>,
}

/// Whether a text wants to be one of these keys, and not another kind of token.
pub fn looks_like_a_key(text: &str) -> bool {
    text.starts_with(PREFIX)
}

impl Key {
    /// Makes a key out of random bits: the text to hand out once, and what to keep.
    pub fn mint(
        id: [u8; ID_BYTES],
        secret: [u8; SECRET_BYTES],
        tenant: &TenantId,
        name: &str,
        scope: Scope,
        (created_at, expires_at): (u64, Option<u64>),
    ) -> (String, Key) {
        let id = hex::encode(id);
        let text = format!("{PREFIX}{id}_{}", hex::encode(secret));
        let key = Key {
            id,
            tenant: tenant.to_string(),
            name: name.to_owned(),
            scope,
            hash: hex::encode(hash(&text)),
            created_at,
            expires_at,
            revoked_at: None,
        };
        (text, key)
    }

    pub fn is_revoked(&self) -> bool {
        self.revoked_at.is_some()
    }

    pub fn is_expired(&self, now_s: u64) -> bool {
        self.expires_at.is_some_and(|end| now_s >= end)
    }

    /// Since when it opens nothing, if it does not.
    pub fn dead_since(&self, now_s: u64) -> Option<u64> {
        let expired = self.expires_at.filter(|end| now_s >= *end);
        self.revoked_at.into_iter().chain(expired).min()
    }
}

impl Keys {
    pub fn from_json(bytes: &[u8]) -> Result<Self, String> {
        let file: File = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if file.version != VERSION {
            return Err(format!("version {} is not known to this build", file.version));
        }
        let mut keys = Self::default();
        for key in file.keys {
            keys.add(key)?;
        }
        Ok(keys)
    }

    pub fn to_json(&self) -> Result<Vec<u8>, String> {
        let file = File {
            version: VERSION,
            keys: self.keys.clone(),
        };
        serde_json::to_vec_pretty(&file).map_err(|error| error.to_string())
    }

    pub fn add(&mut self, key: Key) -> Result<(), String> {
        let mut digest = [0; 32];
        let what = |what: String| format!("key {:?}: {what}", key.id);
        hex::decode_to_slice(&key.hash, &mut digest).map_err(|_| what("the hash is not 64 hex digits".to_owned()))?;
        let tenant = TenantId::new(&key.tenant).map_err(|error| what(error.to_string()))?;
        let place = (self.keys.len(), digest, tenant);
        if self.by_id.contains_key(&key.id) {
            return Err(what("is there twice".to_owned()));
        }
        self.by_id.insert(key.id.clone(), place);
        self.keys.push(key);
        Ok(())
    }

    /// Whom a key stands for.
    pub fn identify(&self, text: &str, scope: Scope, now_s: u64) -> Result<(&Key, &TenantId), KeyRefusal> {
        if text.len() != KEY_CHARACTERS {
            return Err(KeyRefusal::Unknown);
        }
        let id = text.strip_prefix(PREFIX).and_then(|rest| rest.split_once('_'));
        // An id is no secret: only what is compared with the hash is.
        let found = id.and_then(|(id, _)| self.by_id.get(id)).ok_or(KeyRefusal::Unknown)?;
        let (at, digest, tenant) = found;
        if !bool::from(digest.ct_eq(&hash(text))) {
            return Err(KeyRefusal::Unknown);
        }
        let key = self.keys.get(*at).ok_or(KeyRefusal::Unknown)?;
        match () {
            () if key.is_revoked() => Err(KeyRefusal::Revoked),
            () if key.is_expired(now_s) => Err(KeyRefusal::Expired),
            () if key.scope != scope => Err(KeyRefusal::Scope),
            () => Ok((key, tenant)),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Key> {
        self.keys.iter()
    }

    /// Revokes those that are meant. A key that was revoked before stays revoked since then.
    pub fn revoke(&mut self, now_s: u64, is_meant: impl Fn(&Key) -> bool) -> Vec<Key> {
        let meant = self.keys.iter_mut().filter(|key| is_meant(key));
        meant
            .map(|key| {
                key.revoked_at.get_or_insert(now_s);
                key.clone()
            })
            .collect()
    }

    /// Forgets those of a tenant that is removed: whoever adds the name again begins anew.
    pub fn forget(&mut self, tenant: &TenantId) -> usize {
        self.retain(|key| key.tenant != tenant.as_str())
    }

    /// Forgets those that were revoked, or expired, so many seconds ago. They open nothing either way; only that a use of one is told from
    /// that of a made-up one ends with it.
    pub fn prune(&mut self, now_s: u64, dead_for_s: u64) -> usize {
        self.retain(|key| {
            let dead_since = key.dead_since(now_s);
            dead_since.is_none_or(|since| now_s.saturating_sub(since) < dead_for_s)
        })
    }

    /// How many are gone.
    fn retain(&mut self, stays: impl Fn(&Key) -> bool) -> usize {
        let before = self.keys.len();
        let kept: Vec<Key> = self.keys.drain(..).filter(stays).collect();
        let gone = before - kept.len();
        *self = Self::default();
        for key in kept {
            // It was in before.
            drop(self.add(key));
        }
        gone
    }
}

fn hash(text: &str) -> [u8; 32] {
    blake3::derive_key(CONTEXT, text.as_bytes())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> TenantId {
        TenantId::new(name).unwrap()
    }

    #[test]
    fn p13_a_key_gives_its_tenant_and_nothing_near_it_does() {
        let mint = |n: u8, tenant: &TenantId, end| Key::mint([n; 6], [n; 32], tenant, "ci", Scope::Write, (100, end));
        let (acme, acme_key) = mint(1, &tenant("acme"), None);
        let (beta, beta_key) = mint(2, &tenant("beta"), Some(200));
        let mut keys = Keys::default();
        keys.add(acme_key.clone()).unwrap();
        keys.add(beta_key).unwrap();
        assert!(keys.add(acme_key).is_err());
        let who = |keys: &Keys, text: &str, now| {
            keys.identify(text, Scope::Write, now)
                .map(|(_, tenant)| tenant.to_string())
        };
        assert_eq!(who(&keys, &acme, 150), Ok("acme".to_owned()));
        assert_eq!(who(&keys, &beta, 199), Ok("beta".to_owned()));
        assert_eq!(who(&keys, &beta, 200), Err(KeyRefusal::Expired));
        assert_eq!(keys.identify(&acme, Scope::Read, 150).unwrap_err(), KeyRefusal::Scope);
        let mixed = format!("{}{}", &acme[..16], &beta[16..]);
        for near in [
            &acme[1..],
            &acme[..80],
            &acme.to_uppercase(),
            &mixed,
            "",
            PREFIX,
            &"x".repeat(9_999),
        ] {
            assert_eq!(who(&keys, near, 150), Err(KeyRefusal::Unknown), "{near}");
        }
        // What is written holds no secret and is read back as it was.
        let json = keys.to_json().unwrap();
        let text = String::from_utf8(json.clone()).unwrap();
        assert!(!text.contains(&hex::encode([1; 32])) && !text.contains(PREFIX));
        assert_eq!(Keys::from_json(&json).unwrap(), keys);
        assert_eq!(keys.revoke(160, |key| key.tenant == "acme").len(), 1);
        assert_eq!(keys.revoke(170, |key| key.tenant == "acme")[0].revoked_at, Some(160));
        assert_eq!(who(&keys, &acme, 150), Err(KeyRefusal::Revoked));
        // A revoked key tells nobody who guesses that it ever was one.
        let mut guessed = acme.clone();
        guessed.replace_range(80..81, if acme.ends_with('0') { "1" } else { "0" });
        assert_eq!(who(&keys, &guessed, 150), Err(KeyRefusal::Unknown));
        assert_eq!(keys.forget(&tenant("acme")), 1);
        assert_eq!(who(&keys, &acme, 150), Err(KeyRefusal::Unknown));
        assert_eq!(who(&keys, &beta, 199), Ok("beta".to_owned()));
    }

    #[test]
    fn only_keys_that_have_long_opened_nothing_are_forgotten() {
        let mint = |n: u8, end| Key::mint([n; 6], [n; 32], &tenant("acme"), "ci", Scope::Write, (100, end));
        let mut keys = Keys::default();
        for (n, end) in [
            (1, None),
            (2, Some(1_000)),
            (3, Some(9_000)),
            (4, None),
            (5, Some(4_000)),
        ] {
            keys.add(mint(n, end).1).unwrap();
        }
        // One that is revoked after it expired is dead since it expired.
        keys.revoke(3_000, |key| {
            key.id == hex::encode([4; 6]) || key.id == hex::encode([2; 6])
        });
        let left = |keys: &Keys| keys.iter().map(|key| key.id[..2].to_owned()).collect::<Vec<_>>();
        assert_eq!(keys.prune(5_000, 4_001), 0);
        assert_eq!(keys.prune(5_000, 4_000), 1);
        assert_eq!(left(&keys), ["01", "03", "04", "05"]);
        assert_eq!(keys.prune(5_000, 2_000), 1);
        assert_eq!(left(&keys), ["01", "03", "05"]);
        assert_eq!(keys.prune(5_000, 0), 1);
        // What is good is never forgotten, and stays good.
        assert_eq!(left(&keys), ["01", "03"]);
        let (text, _) = mint(3, Some(9_000));
        assert!(keys.identify(&text, Scope::Write, 5_000).is_ok());
    }

    #[test]
    fn a_file_that_is_no_list_of_keys_says_why() {
        for (text, says) in [
            ("{}", "version"),
            ("{\"version\":2,\"keys\":[]}", "version 2"),
            ("{\"version\":1,\"keys\":[{\"id\":\"a\"}]}", "tenant"),
        ] {
            let error = Keys::from_json(text.as_bytes()).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
