//! `state.json`: what is installed and what runs. Pure: what changes it is decided in `rules`, and nothing is read or written.

mod error;
mod rules;

use std::collections::BTreeMap;

use semver::Version;
use serde::{Deserialize, Serialize};

pub use error::StateError;

use crate::digest::Digest;
use crate::key::KeyId;
use crate::limits::TEXT_BYTES;
use crate::name::{PackageName, parse_version};
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
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PluginState {
    /// The version that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<VersionText>,
    /// The version that ran before it, and to which an automatic rollback goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<VersionText>,
    /// The highest ever installed. It stays when versions are removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub highest: Option<VersionText>,
    /// The kill switch. It is there for names that are not installed, too: what is built in or comes from a folder obeys it.
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

    /// Whether the operator stopped all that has this name, installed or not.
    pub fn disabled(&self, name: &PackageName) -> Option<&Mark> {
        self.plugins.get(name)?.disabled.as_ref()
    }

    /// What runs under this name, and whether it may.
    pub fn choose(&self, name: &PackageName, version: Option<&Version>) -> Result<Version, StateError> {
        if let Some(Mark { reason, at }) = self.disabled(name).cloned() {
            return Err(StateError::Disabled {
                name: name.clone(),
                reason,
                at,
            });
        }
        let plugin = self.plugin(name)?;
        let current = plugin.current.as_ref().map(|version| &version.0);
        let no_current = || StateError::NoCurrent {
            name: name.clone(),
            here: plugin.here(),
        };
        let version = version.or(current).ok_or_else(no_current)?;
        plugin.good_version(name, version)?;
        Ok(version.clone())
    }

    pub(super) fn plugin(&self, name: &PackageName) -> Result<&PluginState, StateError> {
        let plugin = self.plugins.get(name).filter(|plugin| !plugin.versions.is_empty());
        plugin.ok_or_else(|| StateError::NotInstalled { name: name.clone() })
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

    /// The same, unless it was marked bad.
    fn good_version(&self, name: &PackageName, version: &Version) -> Result<&InstalledVersion, StateError> {
        let installed = self.version(name, version)?;
        match installed.bad.clone() {
            None => Ok(installed),
            Some(Mark { reason, at }) => Err(StateError::Bad {
                name: name.clone(),
                version: version.clone(),
                reason,
                at,
            }),
        }
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

#[cfg(test)]
mod tests;
