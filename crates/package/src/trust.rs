//! Pinned keys: whose packages an operator takes. One file for each key, `trust/NAME.pub`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use crate::file;
use crate::key::{KeyError, KeyId, PublicKey};
use crate::limits::{KEY_FILE_BYTES, TRUSTED_KEYS};
use crate::manifest::Capability;
use crate::name::{NameRule, PackageName, is_name_part};

/// A pinned key and what it is trusted with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedKey {
    /// That of its file.
    pub name: String,
    pub key: PublicKey,
    /// Which packages it may sign; `None`: any.
    pub names: Option<Vec<NameRule>>,
    /// Which capabilities its packages may have; `None`: all.
    pub capabilities: Option<BTreeSet<Capability>>,
}

/// All pinned keys.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    keys: BTreeMap<KeyId, TrustedKey>,
}

#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error("{}: {problem}", .path.display())]
    File { path: PathBuf, problem: String },
    #[error("{text:?} is not a name for a key: 1 to 64 characters of a-z, 0-9 and `-`")]
    Name { text: String },
    #[error("the key {key} is pinned twice, as {first} and as {second}: remove one with `sluice plugin trust remove`")]
    Twice { key: KeyId, first: String, second: String },
    #[error("there are more than {TRUSTED_KEYS} files in {}: remove some", .path.display())]
    Many { path: PathBuf },
    #[error("cannot read {}", .path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

impl TrustedKey {
    pub fn covers(&self, package: &PackageName) -> bool {
        self.names
            .as_ref()
            .is_none_or(|rules| rules.iter().any(|rule| rule.covers(package)))
    }

    /// Reads what a `.pub` file holds.
    pub fn parse(name: &str, text: &str) -> Result<Self, String> {
        let mut lines = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        let key = lines
            .next()
            .unwrap_or_default()
            .parse()
            .map_err(|error: KeyError| error.to_string())?;
        let (mut names, mut capabilities) = (None, None);
        for line in lines {
            let (limit, values) = line.split_once(':').unwrap_or((line, ""));
            let values = values.split(',').map(str::trim);
            let twice = match limit {
                "names" => {
                    let rules: Result<Vec<NameRule>, _> = values.map(str::parse).collect();
                    names.replace(rules.map_err(|error| error.to_string())?).is_some()
                }
                "capabilities" => {
                    // `capabilities:` alone allows none.
                    let allowed: Result<_, _> = values.filter(|value| !value.is_empty()).map(str::parse).collect();
                    capabilities
                        .replace(allowed.map_err(|e: crate::CapabilityError| e.to_string())?)
                        .is_some()
                }
                _ => {
                    return Err(format!(
                        "{limit:?} is no limit of a key: there are `names:` and `capabilities:`"
                    ));
                }
            };
            if twice {
                return Err(format!("`{limit}:` stands there twice: put all values on one line"));
            }
        }
        Ok(Self {
            name: name.to_owned(),
            key,
            names,
            capabilities,
        })
    }

    /// The text of its file.
    pub fn to_text(&self) -> String {
        let mut text = format!("{}\n", self.key);
        // A String takes whatever is written to it.
        if let Some(names) = &self.names {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            let _ = writeln!(text, "names: {}", names.join(", "));
        }
        if let Some(capabilities) = &self.capabilities {
            let capabilities: Vec<&str> = capabilities.iter().map(|c| c.as_str()).collect();
            let _ = writeln!(text, "capabilities: {}", capabilities.join(", "));
        }
        text
    }
}

impl Trust {
    /// Reads all `.pub` files of the folder; no folder, no keys.
    pub fn load(folder: &Path) -> Result<Self, TrustError> {
        let failed = |source| TrustError::Io {
            path: folder.to_owned(),
            source,
        };
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(failed(error)),
        };
        let mut paths = Vec::new();
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|extension| extension == "pub") {
                paths.push(path);
            }
            if paths.len() > TRUSTED_KEYS {
                return Err(TrustError::Many {
                    path: folder.to_owned(),
                });
            }
        }
        paths.sort();
        let mut trust = Self::default();
        for path in paths {
            let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            let wrong = |problem| TrustError::File {
                path: path.clone(),
                problem,
            };
            let text = file::read_text(&path, KEY_FILE_BYTES).map_err(|source| TrustError::Io {
                path: path.clone(),
                source,
            })?;
            trust.add(TrustedKey::parse(name, &text).map_err(wrong)?)?;
        }
        Ok(trust)
    }

    pub fn add(&mut self, key: TrustedKey) -> Result<(), TrustError> {
        if !is_name_part(&key.name) {
            return Err(TrustError::Name {
                text: key.name.chars().take(64).collect(),
            });
        }
        let id = key.key.id();
        if let Some(first) = self.keys.get(&id) {
            return Err(TrustError::Twice {
                key: id,
                first: first.name.clone(),
                second: key.name,
            });
        }
        self.keys.insert(id, key);
        Ok(())
    }

    pub fn key(&self, id: &KeyId) -> Option<&TrustedKey> {
        self.keys.get(id)
    }

    pub fn keys(&self) -> impl Iterator<Item = &TrustedKey> {
        self.keys.values()
    }
}
