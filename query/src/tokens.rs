//! Who asks: tokens, what they stand for, and the file that keeps only their hashes.
//!
//! The file is JSON:
//! `{"version": 1, "tokens": [{"name": "ci", "hash": "<64 hex digits>", "tenant": "acme", "scope": "tenant"}]}`
//! with scope `tenant` (the rows of that tenant) or `operator` (all rows, and the status of the whole node). A token is 256 random
//! bits, so one keyed hash is enough to keep it; a slow hash protects what people make up themselves.
//!
//! Beside them stand the API keys of the folder of tenants (`sluice key`): those of scope `read` stand for their tenant. Tokens and keys of a
//! tenant that is suspended there, or not in it, are refused; tokens of an operator are not.

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sluice_tenants::{Scope, Tenancy, TenantsError, looks_like_a_key};
use sluice_wire::ids::TenantId;
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

/// Separates these hashes from every other use of the hash function.
const CONTEXT: &str = "sluice query token 2026-11 v1";
/// The first characters of every token, so that one left in a file or a log is recognised.
const PREFIX: &str = "slq_";
/// A longer bearer is not looked at: a token has 68 characters.
const MAX_TOKEN: usize = 512;
const MAX_FILE: u64 = 16 << 20;

/// How far a token reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reach {
    /// The rows of its tenant.
    Tenant,
    /// All rows, and the status of the whole node.
    Operator,
}

/// Who asks, as far as this product is concerned. Made only from a token that was found.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    tenant: TenantId,
    reach: Reach,
}

impl Identity {
    pub fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    pub fn reach(&self) -> Reach {
        self.reach
    }
}

/// One line of the token file.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// For people.
    pub name: String,
    hash: String,
    tenant: String,
    scope: Reach,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Entry({}, {}, {:?})", self.name, self.tenant, self.scope)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    tokens: Vec<Entry>,
}

/// Why the token file was refused.
#[derive(Debug, thiserror::Error)]
pub enum TokensError {
    #[error("the token file {} cannot be read or written", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("the token file {} is not what it should be: {what}", path.display())]
    Invalid { path: PathBuf, what: String },
    #[error("the folder of tenants")]
    Tenants(#[from] TenantsError),
}

/// The tokens that are good now. Clones share one list, so a reload reaches every door.
#[derive(Clone)]
pub struct Tokens {
    path: Option<PathBuf>,
    known: Arc<RwLock<Arc<[Known]>>>,
    tenancy: Option<Arc<Tenancy>>,
}

struct Known {
    hash: [u8; 32],
    identity: Identity,
}

impl Tokens {
    /// Reads the file.
    pub fn open(path: &Path) -> Result<Tokens, TokensError> {
        let known = load(path)?;
        Ok(Tokens {
            path: Some(path.to_owned()),
            known: Arc::new(RwLock::new(known.into())),
            tenancy: None,
        })
    }

    /// A list that lives in memory only.
    pub fn from_entries(entries: &[Entry]) -> Result<Tokens, TokensError> {
        let known = resolve(Path::new("(memory)"), entries)?;
        Ok(Tokens {
            path: None,
            known: Arc::new(RwLock::new(known.into())),
            tenancy: None,
        })
    }

    /// Follows a folder of tenants and their keys, too.
    pub fn with_tenants(self, dir: &Path) -> Result<Tokens, TokensError> {
        let tenancy = Some(Arc::new(Tenancy::open(dir)?));
        Ok(Tokens { tenancy, ..self })
    }

    /// Takes a changed folder of tenants into use; whatever is wrong with it, the last good one stays. Blocks for a moment.
    pub fn look_at_tenants(&self) -> Result<bool, TokensError> {
        Ok(self.tenancy.as_ref().map_or(Ok(false), |tenancy| tenancy.look())?)
    }

    /// Reads the file again. A file that cannot be used leaves the list as it was.
    pub fn reload(&self) -> Result<usize, TokensError> {
        let Some(path) = &self.path else {
            return Ok(self.current().len());
        };
        let known = load(path)?;
        let count = known.len();
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = known.into();
        Ok(count)
    }

    /// Who this token or key stands for, as of now.
    pub fn identify(&self, token: &str) -> Option<Identity> {
        let now_s = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(u64::MAX, |now| now.as_secs());
        self.identify_at(token, now_s)
    }

    fn identify_at(&self, token: &str, now_s: u64) -> Option<Identity> {
        if token.len() > MAX_TOKEN {
            return None;
        }
        let Some(tenancy) = self.tenancy.as_ref().map(|tenancy| tenancy.current()) else {
            return self.identify_token(token);
        };
        if looks_like_a_key(token) {
            return match tenancy.identify(token, Scope::Read, now_s) {
                Ok((_, tenant)) => Some(Identity {
                    tenant: tenant.clone(),
                    reach: Reach::Tenant,
                }),
                Err(refusal) => {
                    tracing::debug!(%refusal, "key refused");
                    None
                }
            };
        }
        let who = self.identify_token(token)?;
        (who.reach == Reach::Operator || tenancy.tenants.admit(&who.tenant).is_ok()).then_some(who)
    }

    /// Every entry is compared, in a time that does not depend on which one fits.
    fn identify_token(&self, token: &str) -> Option<Identity> {
        let hash = hash(token);
        let known = self.current();
        let mut found = Choice::from(0);
        let mut at = 0u32;
        for (index, entry) in (0u32..).zip(known.iter()) {
            let same = entry.hash.ct_eq(&hash);
            at.conditional_assign(&index, same);
            found |= same;
        }
        bool::from(found)
            .then(|| known.get(at as usize).map(|entry| entry.identity.clone()))
            .flatten()
    }

    fn current(&self) -> Arc<[Known]> {
        Arc::clone(&self.known.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tokens({} known)", self.current().len())
    }
}

/// Makes a token out of 256 random bits: the text to hand out once, and the entry to keep.
pub fn mint(random: [u8; 32], name: &str, tenant: &TenantId, scope: Reach) -> (String, Entry) {
    let token = format!("{PREFIX}{}", hex::encode(random));
    let entry = Entry {
        name: name.to_owned(),
        hash: hex::encode(hash(&token)),
        tenant: tenant.as_str().to_owned(),
        scope,
    };
    (token, entry)
}

/// Replaces the file: written beside it, synced, renamed. Only its owner may read it.
pub fn save(path: &Path, entries: &[Entry]) -> Result<(), TokensError> {
    let io = |source| TokensError::Io {
        path: path.to_owned(),
        source,
    };
    resolve(path, entries)?;
    let file = File {
        version: 1,
        tokens: entries.to_vec(),
    };
    let text = serde_json::to_vec_pretty(&file).map_err(|e| io(e.into()))?;
    let beside = path.with_extension("json.new");
    let mut out = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)
        .map_err(io)?;
    out.write_all(&text).and_then(|()| out.sync_all()).map_err(io)?;
    fs::rename(&beside, path).map_err(io)?;
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
    fs::File::open(folder.unwrap_or(Path::new(".")))
        .and_then(|dir| dir.sync_all())
        .map_err(io)
}

/// The entries of a file, to add to or take from.
pub fn entries(path: &Path) -> Result<Vec<Entry>, TokensError> {
    let io = |source| TokensError::Io {
        path: path.to_owned(),
        source,
    };
    let invalid = |what: String| TokensError::Invalid {
        path: path.to_owned(),
        what,
    };
    if fs::metadata(path).map_err(io)?.len() > MAX_FILE {
        return Err(invalid(format!("it is larger than {MAX_FILE} bytes")));
    }
    let bytes = fs::read(path).map_err(io)?;
    let file: File = serde_json::from_slice(&bytes).map_err(|e| invalid(e.to_string()))?;
    if file.version != 1 {
        return Err(invalid(format!("version {} is not known", file.version)));
    }
    Ok(file.tokens)
}

fn load(path: &Path) -> Result<Vec<Known>, TokensError> {
    resolve(path, &entries(path)?)
}

fn resolve(path: &Path, entries: &[Entry]) -> Result<Vec<Known>, TokensError> {
    entries
        .iter()
        .map(|entry| {
            let invalid = |what: String| TokensError::Invalid {
                path: path.to_owned(),
                what: format!("token `{}`: {what}", entry.name),
            };
            let mut hash = [0u8; 32];
            hex::decode_to_slice(&entry.hash, &mut hash)
                .map_err(|_| invalid("the hash is not 64 hex digits".into()))?;
            let tenant = TenantId::new(&entry.tenant).map_err(|e| invalid(e.to_string()))?;
            Ok(Known {
                hash,
                identity: Identity {
                    tenant,
                    reach: entry.scope,
                },
            })
        })
        .collect()
}

fn hash(token: &str) -> [u8; 32] {
    blake3::derive_key(CONTEXT, token.as_bytes())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> TenantId {
        TenantId::new(name).unwrap()
    }

    #[test]
    fn p13_a_token_gives_its_tenant_and_nothing_near_it_does() {
        let (a, a_entry) = mint([1; 32], "a", &tenant("acme"), Reach::Tenant);
        let (b, b_entry) = mint([2; 32], "b", &tenant("beta"), Reach::Operator);
        let tokens = Tokens::from_entries(&[a_entry, b_entry]).unwrap();
        assert_eq!(tokens.identify(&a).unwrap().tenant().as_str(), "acme");
        assert_eq!(tokens.identify(&b).unwrap().reach(), Reach::Operator);
        for near in [
            &a[..a.len() - 1],
            &a[1..],
            "",
            PREFIX,
            &a.to_uppercase(),
            &"x".repeat(10_000),
        ] {
            assert_eq!(tokens.identify(near), None, "{near}");
        }
    }

    #[test]
    fn p13_a_key_of_scope_read_asks_for_its_tenant_while_that_is_served() {
        use sluice_tenants::{Folder, Key, State, Tenant};
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::lock(dir.path()).unwrap();
        let (mut tenants, mut keys) = (folder.tenants().unwrap(), folder.keys().unwrap());
        let acme = tenant("acme");
        tenants.insert(acme.clone(), Tenant::default());
        let mut mint = |n: u8, scope, end| {
            let (text, key) = Key::mint([n; 6], [n; 32], &acme, "k", scope, (1, end));
            keys.add(key).unwrap();
            text
        };
        let (read, write, expired) = (
            mint(1, Scope::Read, Some(100)),
            mint(2, Scope::Write, None),
            mint(3, Scope::Read, Some(50)),
        );
        folder.save_tenants(&tenants).unwrap();
        folder.save_keys(&keys).unwrap();
        let (of_acme, a) = mint_token(1, "acme", Reach::Tenant);
        let (of_beta, b) = mint_token(2, "beta", Reach::Tenant);
        let (operator, c) = mint_token(3, "beta", Reach::Operator);
        let plain = Tokens::from_entries(&[a, b, c]).unwrap();
        assert!(plain.identify_at(&read, 60).is_none(), "nobody named the folder");
        let tokens = plain.with_tenants(dir.path()).unwrap();
        let who = |token: &str| {
            tokens
                .identify_at(token, 60)
                .map(|who| (who.tenant.to_string(), who.reach))
        };
        assert_eq!(who(&read), Some(("acme".to_owned(), Reach::Tenant)));
        assert!(who(&of_acme).is_some() && who(&operator).is_some());
        assert!(
            [&write, &expired, &of_beta]
                .into_iter()
                .all(|token| who(token).is_none())
        );
        assert!(tokens.identify_at(&read, 100).is_none());
        tenants.get_mut(&acme).unwrap().state = State::Suspended;
        folder.save_tenants(&tenants).unwrap();
        assert!(tokens.look_at_tenants().unwrap());
        assert!(who(&read).is_none() && who(&of_acme).is_none() && who(&operator).is_some());
    }

    fn mint_token(n: u8, name: &str, reach: Reach) -> (String, Entry) {
        mint([n; 32], name, &tenant(name), reach)
    }

    #[test]
    fn the_file_holds_no_token_and_a_bad_file_keeps_the_last_good_list() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.json");
        let (first, entry) = mint([7; 32], "first", &tenant("acme"), Reach::Tenant);
        save(&path, std::slice::from_ref(&entry)).unwrap();
        let tokens = Tokens::open(&path).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(!text.contains(&first) && !text.contains(&first[PREFIX.len()..]));

        let (second, other) = mint([8; 32], "second", &tenant("beta"), Reach::Tenant);
        save(&path, &[other]).unwrap();
        assert!(tokens.identify(&second).is_none());
        assert_eq!(tokens.reload().unwrap(), 1);
        assert!(tokens.identify(&second).is_some() && tokens.identify(&first).is_none());

        fs::write(&path, "{\"version\": 1, \"tokens\": [{}]}").unwrap();
        assert!(tokens.reload().is_err());
        assert!(tokens.identify(&second).is_some());
    }
}
