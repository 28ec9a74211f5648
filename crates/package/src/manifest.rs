//! What a package says of itself. Only what was signed is ever parsed.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use semver::Version;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::limits::{COLUMNS, COMPONENT_BYTES, MANIFEST_BYTES, PUBLISHER_BYTES, TEXT_BYTES};
use crate::name::{PackageName, version_text};
use crate::time::Timestamp;

/// The schema of manifests that this code writes and reads.
pub const MANIFEST_SCHEMA: u32 = 1;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub schema: u32,
    pub name: PackageName,
    #[serde(with = "version_text")]
    pub version: Version,
    pub kind: Kind,
    pub publisher: String,
    /// Of the component.
    pub digest: Digest,
    /// Bytes of the component.
    pub size: u64,
    /// Of `sluice:plugin` that the component exports.
    #[serde(with = "version_text")]
    pub contract: Version,
    #[serde(with = "version_text")]
    pub minimum_host: Version,
    pub capabilities: BTreeSet<Capability>,
    pub reads: Vec<String>,
    pub writes: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_schema: Option<serde_json::Map<String, serde_json::Value>>,
    #[serde(default)]
    pub limits: WantedLimits,
    pub created: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub homepage: Option<String>,
}

/// A package in one of its versions, for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    pub name: PackageName,
    pub version: Version,
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.version)
    }
}

/// What a plugin does to a batch; it decides what happens when the plugin fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Mask,
    Sample,
    Enrich,
    Filter,
}

/// An import of a plugin that an operator grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Capability {
    Clock,
    Log,
    Lookup,
    Match,
    Random,
    State,
}

/// What a plugin needs where it is not content with the host's defaults. A wish: the host's ceilings hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WantedLimits {
    /// The guest carries an interpreter: start from the limits for those.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub interpreted: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stack_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_per_row_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_per_kib_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_ratio: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_lines_per_second: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_bytes: Option<u64>,
}

/// What a component says of itself, found out by whoever can look into components.
#[derive(Clone, Debug, PartialEq)]
pub struct ComponentFacts {
    /// The name that the component describes itself with; the package's name ends with it, or says another on purpose.
    pub name: String,
    pub version: Version,
    pub kind: Kind,
    pub contract: Version,
    /// What it imports.
    pub capabilities: BTreeSet<Capability>,
    pub reads: Vec<String>,
    pub writes: Vec<String>,
    /// JSON text; empty if there is none.
    pub config_schema: String,
}

/// Why the bytes of a manifest are none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    #[error("it has schema {schema}, and this host reads up to {MANIFEST_SCHEMA}: update the host")]
    Newer { schema: u64 },
    #[error("{0}")]
    Json(String),
    #[error("`{key}` {problem}")]
    Value { key: &'static str, problem: String },
}

/// A manifest says one thing, the component another.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the manifest says {key} = {manifest}, the component {component}: sign the component anew, and if you did not make it, do not use it"
)]
pub struct FactMismatch {
    pub key: &'static str,
    pub manifest: String,
    pub component: String,
}

impl Manifest {
    /// Reads what a signature was found good for. Every value is within its bounds afterwards.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        #[derive(Deserialize)]
        struct Head {
            schema: u64,
        }
        let json = |error: serde_json::Error| ManifestError::Json(error.to_string());
        let head: Head = serde_json::from_slice(bytes).map_err(json)?;
        if head.schema > u64::from(MANIFEST_SCHEMA) {
            return Err(ManifestError::Newer { schema: head.schema });
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(json)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// The bytes to sign: what `parse` reads, indented for people.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ManifestError> {
        self.check()?;
        let mut bytes = serde_json::to_vec_pretty(self).map_err(|error| ManifestError::Json(error.to_string()))?;
        bytes.push(b'\n');
        if bytes.len() as u64 > MANIFEST_BYTES {
            let problem = format!(
                "makes the manifest {} bytes long, and {MANIFEST_BYTES} are allowed",
                bytes.len()
            );
            return Err(ManifestError::Value {
                key: "config_schema",
                problem,
            });
        }
        Ok(bytes)
    }

    pub(crate) fn release(&self) -> Box<Release> {
        Box::new(Release {
            name: self.name.clone(),
            version: self.version.clone(),
        })
    }

    fn check(&self) -> Result<(), ManifestError> {
        let wrong = |key, problem: String| Err(ManifestError::Value { key, problem });
        if self.schema != MANIFEST_SCHEMA {
            return wrong("schema", format!("is {}, which was never one", self.schema));
        }
        if self.size == 0 || self.size > COMPONENT_BYTES {
            return wrong(
                "size",
                format!("is {}, not between 1 and {COMPONENT_BYTES} bytes", self.size),
            );
        }
        let texts = [
            ("publisher", Some(&self.publisher), PUBLISHER_BYTES),
            ("description", self.description.as_ref(), TEXT_BYTES),
            ("license", self.license.as_ref(), TEXT_BYTES),
            ("homepage", self.homepage.as_ref(), TEXT_BYTES),
        ];
        for (key, text, limit) in texts {
            // Control characters would reach the operator's terminal.
            if text.is_some_and(|t| t.is_empty() || t.len() > limit || t.chars().any(char::is_control)) {
                return wrong(key, format!("is not a line of 1 to {limit} bytes"));
            }
        }
        for (key, columns) in [("reads", &self.reads), ("writes", &self.writes)] {
            let fits = |c: &String| (1..=TEXT_BYTES).contains(&c.len()) && !c.chars().any(char::is_control);
            if columns.len() > COLUMNS || !columns.iter().all(fits) {
                return wrong(
                    key,
                    format!("holds more than {COLUMNS} columns, or one that is no line of at most {TEXT_BYTES} bytes"),
                );
            }
        }
        if self.expires.is_some_and(|expires| expires <= self.created) {
            return wrong("expires", "is not after `created`".into());
        }
        Ok(())
    }

    /// Compares with what the component says. Columns are compared as sets.
    pub fn agrees_with(&self, facts: &ComponentFacts) -> Result<(), FactMismatch> {
        let differ = |key, manifest: String, component: String| match manifest == component {
            true => Ok(()),
            false => Err(FactMismatch {
                key,
                manifest,
                component,
            }),
        };
        fn list(columns: &[String]) -> BTreeSet<&String> {
            columns.iter().collect()
        }
        differ("version", self.version.to_string(), facts.version.to_string())?;
        differ("kind", self.kind.to_string(), facts.kind.to_string())?;
        differ("contract", self.contract.to_string(), facts.contract.to_string())?;
        differ(
            "reads",
            format!("{:?}", list(&self.reads)),
            format!("{:?}", list(&facts.reads)),
        )?;
        differ(
            "writes",
            format!("{:?}", list(&self.writes)),
            format!("{:?}", list(&facts.writes)),
        )?;
        // A manifest may name a capability that this build does not import; the other way round, it would hide one.
        let hidden: Vec<String> = facts
            .capabilities
            .difference(&self.capabilities)
            .map(ToString::to_string)
            .collect();
        differ("capabilities", String::new(), hidden.join(", ")).map_err(|mismatch| FactMismatch {
            manifest: Vec::from_iter(self.capabilities.iter().map(ToString::to_string)).join(", "),
            ..mismatch
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mask => "mask",
            Self::Sample => "sample",
            Self::Enrich => "enrich",
            Self::Filter => "filter",
        })
    }
}

impl Capability {
    pub const ALL: [Self; 6] = [
        Self::Clock,
        Self::Log,
        Self::Lookup,
        Self::Match,
        Self::Random,
        Self::State,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Clock => "clock",
            Self::Log => "log",
            Self::Lookup => "lookup",
            Self::Match => "match",
            Self::Random => "random",
            Self::State => "state",
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a capability: there are clock, log, lookup, match, random and state")]
pub struct CapabilityError {
    text: String,
}

impl FromStr for Capability {
    type Err = CapabilityError;

    fn from_str(text: &str) -> Result<Self, CapabilityError> {
        let found = Self::ALL.into_iter().find(|capability| capability.as_str() == text);
        found.ok_or_else(|| CapabilityError {
            text: text.chars().take(64).collect(),
        })
    }
}

#[cfg(test)]
pub(crate) mod tests;
