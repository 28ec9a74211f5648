//! `state.json`: what is installed and what runs. Pure: the rules of going forward and back stand here, and nothing is read.

use std::collections::BTreeMap;

use semver::Version;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::key::KeyId;
use crate::limits::{TEXT_BYTES, VERSIONS};
use crate::manifest::Release;
use crate::name::{PackageName, parse_version, version_text};
use crate::time::Timestamp;

pub(super) const STATE_SCHEMA: u32 = 1;

/// All that a store remembers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    schema: u32,
    /// Grows with every change of the store.
    pub generation: u64,
    pub plugins: BTreeMap<PackageName, PluginState>,
    /// The highest number of a revocation list seen, by key.
    pub revocations: BTreeMap<KeyId, u64>,
}

/// One package, in all its versions that are here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PluginState {
    /// The version that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<VersionText>,
    /// The version that ran before it, and to which an automatic rollback goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<VersionText>,
    /// The highest ever installed. It stays when versions are removed.
    #[serde(with = "version_text")]
    pub highest: Version,
    /// The kill switch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<Mark>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<Shadow>,
    /// What is here.
    pub versions: BTreeMap<VersionText, InstalledVersion>,
}

/// A version that runs beside the current one, without effect.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shadow {
    pub version: VersionText,
    /// Of the batches, above 0 and at most 1.
    pub share: f64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstalledVersion {
    pub digest: Digest,
    pub installed: Timestamp,
    /// It failed here: it does not run again until it is promoted by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bad: Option<Mark>,
}

/// A decision with its reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    pub reason: String,
    pub at: Timestamp,
}

/// A version as a key and a value of JSON.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VersionText(pub Version);

impl TryFrom<String> for VersionText {
    type Error = crate::NameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        parse_version(&text).map(Self)
    }
}

impl From<VersionText> for String {
    fn from(version: VersionText) -> Self {
        version.0.to_string()
    }
}

impl std::fmt::Display for VersionText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl From<&Version> for VersionText {
    fn from(version: &Version) -> Self {
        Self(version.clone())
    }
}

/// Why a store does not change as it was asked to.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum StateError {
    #[error("{name} is not installed here: `sluice plugin install` brings it")]
    NotInstalled { name: PackageName },
    #[error("{name} {version} is not installed here; there are: {here}")]
    NoSuchVersion {
        name: PackageName,
        version: Version,
        here: String,
    },
    #[error("no version of {name} is current: `sluice plugin promote {name} VERSION` chooses one; there are: {here}")]
    NoCurrent { name: PackageName, here: String },
    #[error("{name} is disabled since {at}: {reason}; `sluice plugin enable {name}` lets it run again")]
    Disabled {
        name: PackageName,
        reason: String,
        at: Timestamp,
    },
    #[error(
        "{name} {version} was marked bad at {at}: {reason}; install a newer version, or `sluice plugin promote {name} {version}` if you know better"
    )]
    Bad {
        name: PackageName,
        version: Version,
        reason: String,
        at: Timestamp,
    },
    #[error(
        "{name} {version} is older than {highest}, which was installed here before: going back is `sluice plugin rollback {name} VERSION`, to a version that is installed here"
    )]
    Downgrade {
        name: PackageName,
        version: Version,
        highest: Version,
    },
    #[error(
        "{release} is installed here with other bytes ({here}, not {found}): a version is published once; its publisher has to give the new bytes a new version"
    )]
    VersionTaken {
        release: Box<Release>,
        here: Digest,
        found: Digest,
    },
    #[error("there is no version of {name} to go back to: `sluice plugin disable {name}` stops it")]
    NothingToGoBackTo { name: PackageName },
    #[error("{name} {version} is the version that runs already")]
    AlreadyCurrent { name: PackageName, version: Version },
    #[error(
        "{name} {version} is newer than {current}, the one that runs: use `sluice plugin promote {name} {version}`"
    )]
    NotBack {
        name: PackageName,
        version: Version,
        current: Version,
    },
    #[error("{name} {version} {role}: {remedy}")]
    InUse {
        name: PackageName,
        version: Version,
        role: &'static str,
        remedy: String,
    },
    #[error("a share is above 0 and at most 1, and {share} is not")]
    Share { share: f64 },
    #[error("a reason is one line of 1 to {TEXT_BYTES} bytes")]
    Reason,
    #[error("{VERSIONS} versions of {name} are here, and no more are kept: `sluice plugin remove {name} VERSION`")]
    TooManyVersions { name: PackageName },
}

impl Default for State {
    fn default() -> Self {
        Self {
            schema: STATE_SCHEMA,
            generation: 0,
            plugins: BTreeMap::new(),
            revocations: BTreeMap::new(),
        }
    }
}

impl State {
    pub(super) fn schema(&self) -> u32 {
        self.schema
    }

    /// What runs under this name, and whether it may.
    pub fn choose(&self, name: &PackageName, version: Option<&Version>) -> Result<Version, StateError> {
        let plugin = self.plugin(name)?;
        if let Some(Mark { reason, at }) = plugin.disabled.clone() {
            return Err(StateError::Disabled {
                name: name.clone(),
                reason,
                at,
            });
        }
        let current = plugin.current.as_ref().map(|version| &version.0);
        let no_current = || StateError::NoCurrent {
            name: name.clone(),
            here: plugin.here(),
        };
        let version = version.or(current).ok_or_else(no_current)?;
        let installed = plugin.version(name, version)?;
        if let Some(Mark { reason, at }) = installed.bad.clone() {
            return Err(StateError::Bad {
                name: name.clone(),
                version: version.clone(),
                reason,
                at,
            });
        }
        Ok(version.clone())
    }

    pub(super) fn plugin(&self, name: &PackageName) -> Result<&PluginState, StateError> {
        let plugin = self.plugins.get(name).filter(|plugin| !plugin.versions.is_empty());
        plugin.ok_or_else(|| StateError::NotInstalled { name: name.clone() })
    }

    fn plugin_mut(&mut self, name: &PackageName) -> Result<&mut PluginState, StateError> {
        self.plugin(name)?;
        self.plugins
            .get_mut(name)
            .ok_or_else(|| StateError::NotInstalled { name: name.clone() })
    }

    /// Whether this version may come in.
    pub(super) fn admits(&self, name: &PackageName, version: &Version, digest: &Digest) -> Result<(), StateError> {
        let Some(plugin) = self.plugins.get(name) else {
            return Ok(());
        };
        if let Some(here) = plugin.versions.get(&version.into()) {
            if here.digest != *digest {
                let (name, version) = (name.clone(), version.clone());
                return Err(StateError::VersionTaken {
                    release: Box::new(Release { name, version }),
                    here: here.digest,
                    found: *digest,
                });
            }
            if let Some(Mark { reason, at }) = here.bad.clone() {
                return Err(StateError::Bad {
                    name: name.clone(),
                    version: version.clone(),
                    reason,
                    at,
                });
            }
        }
        if *version < plugin.highest {
            let highest = plugin.highest.clone();
            return Err(StateError::Downgrade {
                name: name.clone(),
                version: version.clone(),
                highest,
            });
        }
        if plugin.versions.len() >= VERSIONS && !plugin.versions.contains_key(&version.into()) {
            return Err(StateError::TooManyVersions { name: name.clone() });
        }
        Ok(())
    }

    /// Takes a version in; it becomes the current one if `activate`.
    pub(super) fn install(
        &mut self,
        name: &PackageName,
        version: &Version,
        digest: Digest,
        activate: bool,
        now: Timestamp,
    ) -> Result<(), StateError> {
        self.admits(name, version, &digest)?;
        let plugin = self.plugins.entry(name.clone()).or_insert_with(|| PluginState {
            current: None,
            previous: None,
            highest: version.clone(),
            disabled: None,
            shadow: None,
            versions: BTreeMap::new(),
        });
        let installed = InstalledVersion {
            digest,
            installed: now,
            bad: None,
        };
        plugin.versions.entry(version.into()).or_insert(installed);
        plugin.highest = plugin.highest.clone().max(version.clone());
        if activate {
            plugin.go_to(version);
        }
        Ok(())
    }

    /// Makes a version the current one because somebody says so; what was held against it is forgotten.
    pub(super) fn promote(&mut self, name: &PackageName, version: &Version) -> Result<(), StateError> {
        let plugin = self.plugin_mut(name)?;
        plugin.version(name, version)?;
        if let Some(current) = plugin.current.as_ref().filter(|current| version < &current.0) {
            let highest = current.0.clone();
            return Err(StateError::Downgrade {
                name: name.clone(),
                version: version.clone(),
                highest,
            });
        }
        if let Some(installed) = plugin.versions.get_mut(&version.into()) {
            installed.bad = None;
        }
        plugin.go_to(version);
        Ok(())
    }

    /// Goes back by hand, to the previous or to a chosen older version. Nothing is previous then: what was left is not a refuge.
    pub(super) fn rollback(&mut self, name: &PackageName, version: Option<&Version>) -> Result<Version, StateError> {
        let plugin = self.plugin_mut(name)?;
        let previous = plugin.previous.as_ref().map(|previous| &previous.0);
        let nothing = || StateError::NothingToGoBackTo { name: name.clone() };
        let version = version.or(previous).cloned().ok_or_else(nothing)?;
        let installed = plugin.version(name, &version)?;
        if let Some(Mark { reason, at }) = installed.bad.clone() {
            return Err(StateError::Bad {
                name: name.clone(),
                version,
                reason,
                at,
            });
        }
        match plugin.current.as_ref().map(|current| &current.0) {
            Some(current) if *current == version => {
                return Err(StateError::AlreadyCurrent {
                    name: name.clone(),
                    version,
                });
            }
            Some(current) if *current < version => {
                return Err(StateError::NotBack {
                    name: name.clone(),
                    version,
                    current: current.clone(),
                });
            }
            _ => {}
        }
        plugin.go_to(&version);
        plugin.previous = None;
        Ok(version)
    }

    /// A version failed. If it is the current one, the previous one becomes current, and is returned.
    pub(super) fn mark_bad(
        &mut self,
        name: &PackageName,
        version: &Version,
        mark: Mark,
    ) -> Result<Option<Version>, StateError> {
        let plugin = self.plugin_mut(name)?;
        plugin.version(name, version)?;
        let text = VersionText::from(version);
        let mut back = None;
        if plugin.current.as_ref() == Some(&text) {
            let good = |other: &VersionText| plugin.versions.get(other).is_some_and(|v| v.bad.is_none());
            let previous = plugin.previous.clone().filter(good);
            let previous = previous.ok_or_else(|| StateError::NothingToGoBackTo { name: name.clone() })?;
            back = Some(previous.0.clone());
            plugin.current = Some(previous);
        }
        plugin.previous = plugin
            .previous
            .take()
            .filter(|previous| *previous != text && back.is_none());
        plugin.shadow = plugin.shadow.take().filter(|shadow| shadow.version != text);
        if let Some(installed) = plugin.versions.get_mut(&text) {
            installed.bad = Some(mark);
        }
        Ok(back)
    }

    pub(super) fn set_shadow(&mut self, name: &PackageName, shadow: Option<(&Version, f64)>) -> Result<(), StateError> {
        let plugin = self.plugin_mut(name)?;
        let Some((version, share)) = shadow else {
            plugin.shadow = None;
            return Ok(());
        };
        plugin.version(name, version)?;
        if !(share > 0.0 && share <= 1.0) {
            return Err(StateError::Share { share });
        }
        if plugin.current.as_ref().is_some_and(|current| current.0 == *version) {
            return Err(StateError::AlreadyCurrent {
                name: name.clone(),
                version: version.clone(),
            });
        }
        plugin.shadow = Some(Shadow {
            version: version.into(),
            share,
        });
        Ok(())
    }

    pub(super) fn set_disabled(&mut self, name: &PackageName, mark: Option<Mark>) -> Result<(), StateError> {
        self.plugin_mut(name)?.disabled = mark;
        Ok(())
    }

    /// Forgets one version, or all of them; what was the highest is remembered.
    pub(super) fn remove(&mut self, name: &PackageName, version: Option<&Version>) -> Result<(), StateError> {
        let plugin = self.plugin_mut(name)?;
        let Some(version) = version else {
            plugin.versions.clear();
            (plugin.current, plugin.previous, plugin.shadow) = (None, None, None);
            return Ok(());
        };
        plugin.version(name, version)?;
        let text = VersionText::from(version);
        let in_use = |role, remedy| StateError::InUse {
            name: name.clone(),
            version: version.clone(),
            role,
            remedy,
        };
        if plugin.current.as_ref() == Some(&text) {
            return Err(in_use(
                "runs",
                format!("roll back or promote another version first, or remove all of {name}"),
            ));
        }
        if plugin.shadow.as_ref().is_some_and(|shadow| shadow.version == text) {
            return Err(in_use(
                "runs in the shadow",
                format!("`sluice plugin shadow {name} --off` first"),
            ));
        }
        plugin.versions.remove(&text);
        plugin.previous = plugin.previous.take().filter(|previous| *previous != text);
        Ok(())
    }
}

impl PluginState {
    pub(super) fn version(&self, name: &PackageName, version: &Version) -> Result<&InstalledVersion, StateError> {
        self.versions
            .get(&version.into())
            .ok_or_else(|| StateError::NoSuchVersion {
                name: name.clone(),
                version: version.clone(),
                here: self.here(),
            })
    }

    fn here(&self) -> String {
        let versions: Vec<String> = self.versions.keys().map(ToString::to_string).collect();
        versions.join(", ")
    }

    fn go_to(&mut self, version: &Version) {
        let version = VersionText::from(version);
        if self.current.as_ref() != Some(&version) {
            self.previous = self.current.replace(version.clone());
        }
        self.shadow = self.shadow.take().filter(|shadow| shadow.version != version);
    }
}

impl Mark {
    pub(super) fn new(reason: &str, at: Timestamp) -> Result<Self, StateError> {
        let reason = reason.trim();
        if reason.is_empty() || reason.len() > TEXT_BYTES || reason.chars().any(char::is_control) {
            return Err(StateError::Reason);
        }
        Ok(Self {
            reason: reason.to_owned(),
            at,
        })
    }

    /// Of a text that comes from elsewhere (a fault's message): made to fit instead of refused.
    pub(super) fn fitting(reason: &str, at: Timestamp) -> Self {
        let mut fit = String::new();
        for c in reason.chars().map(|c| if c.is_control() { ' ' } else { c }) {
            if fit.len() + c.len_utf8() > TEXT_BYTES {
                break;
            }
            fit.push(c);
        }
        let fit = fit.trim();
        Self {
            reason: if fit.is_empty() { "no reason given" } else { fit }.to_owned(),
            at,
        }
    }
}
