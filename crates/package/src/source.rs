//! `plugin.toml`: what the author of a plugin says of it that is not in the component.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use semver::Version;
use serde::{Deserialize, Deserializer, de::Error};
use sluice_settings::{ConfigError, units};

use crate::digest::Digest;
use crate::file;
use crate::limits::{COMPONENT_BYTES, KEY_FILE_BYTES};
use crate::manifest::{Capability, ComponentFacts, MANIFEST_SCHEMA, Manifest, ManifestError, WantedLimits};
use crate::name::{PackageName, parse_version};
use crate::policy::Policy;

/// The file's name.
pub const SOURCE_FILE: &str = "plugin.toml";

#[derive(Clone, Debug, Deserialize)]
pub struct PluginSource {
    pub package: PackageTable,
    #[serde(default)]
    limits: LimitsTable,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackageTable {
    pub name: PackageName,
    pub publisher: String,
    #[serde(default, deserialize_with = "version")]
    version: Option<Version>,
    description: Option<String>,
    license: Option<String>,
    homepage: Option<String>,
    capabilities: Option<BTreeSet<Capability>>,
    #[serde(default, deserialize_with = "version")]
    minimum_host: Option<Version>,
    #[serde(default, deserialize_with = "duration")]
    expires: Option<Duration>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct LimitsTable {
    interpreted: bool,
    #[serde(deserialize_with = "size")]
    memory: Option<u64>,
    #[serde(deserialize_with = "size")]
    stack: Option<u64>,
    #[serde(deserialize_with = "microseconds")]
    deadline: Option<u64>,
    #[serde(deserialize_with = "microseconds")]
    deadline_per_row: Option<u64>,
    #[serde(deserialize_with = "microseconds")]
    deadline_per_kib: Option<u64>,
    #[serde(deserialize_with = "size")]
    output: Option<u64>,
    output_ratio: Option<u64>,
    log_lines_per_second: Option<u64>,
    #[serde(deserialize_with = "size")]
    state: Option<u64>,
}

/// Why there is no manifest for a component.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error(transparent)]
    Config(Box<ConfigError>),
    #[error(
        "the component calls itself version {component}, and plugin.toml says {source_says}: change one of them, and build again"
    )]
    Version { component: Version, source_says: Version },
    #[error(
        "the component imports `{capability}`, and `capabilities` in plugin.toml does not name it: add it there, or do without"
    )]
    Capability { capability: Capability },
    #[error("the component's schema of its configuration is no JSON object: {0}")]
    ConfigSchema(String),
    #[error("the component has {bytes} bytes, and {COMPONENT_BYTES} are allowed")]
    TooLarge { bytes: u64 },
    #[error("the manifest would be refused: {0}")]
    Manifest(#[from] ManifestError),
    #[error(
        "no {SOURCE_FILE} in {} or above it: this is no folder of a plugin; `sluice plugin new NAME` makes one", .from.display()
    )]
    NotFound { from: PathBuf },
    #[error("several plugins below {}: go into one of them, such as {}", .from.display(), .first.display())]
    Several { from: PathBuf, first: PathBuf },
}

impl PluginSource {
    pub fn parse(text: &str) -> Result<Self, SourceError> {
        sluice_settings::parse(text).map_err(|error| SourceError::Config(Box::new(error)))
    }

    pub fn load(path: &Path) -> Result<Self, SourceError> {
        let text = file::read_text(path, KEY_FILE_BYTES);
        let read = text
            .map_err(|error| ConfigError::new(format!("cannot be read: {error}")))
            .and_then(|text| sluice_settings::parse(&text));
        read.map_err(|error| SourceError::Config(Box::new(error.in_file(path))))
    }

    /// The file in a folder or above it, or in the only folder right below that has one: the next command after `new` works where
    /// that was typed.
    pub fn find(from: &Path) -> Result<PathBuf, SourceError> {
        let not_found = || SourceError::NotFound { from: from.to_owned() };
        let from = std::fs::canonicalize(from).map_err(|_| not_found())?;
        if let Some(folder) = from.ancestors().find(|folder| folder.join(SOURCE_FILE).is_file()) {
            return Ok(folder.join(SOURCE_FILE));
        }
        let below = std::fs::read_dir(&from).into_iter().flatten().flatten();
        let mut below: Vec<PathBuf> = below
            .map(|entry| entry.path().join(SOURCE_FILE))
            .filter(|path| path.is_file())
            .collect();
        below.sort();
        match &below[..] {
            [only] => Ok(only.clone()),
            [] => Err(not_found()),
            [first, ..] => Err(SourceError::Several {
                first: first.parent().unwrap_or(&from).to_owned(),
                from,
            }),
        }
    }

    /// What its package asks for.
    pub fn limits(&self) -> WantedLimits {
        self.limits.wanted()
    }

    /// The manifest for a component that says this of itself.
    pub fn manifest(&self, facts: &ComponentFacts, component: &[u8], policy: &Policy) -> Result<Manifest, SourceError> {
        let package = &self.package;
        if let Some(version) = package.version.clone().filter(|version| *version != facts.version) {
            return Err(SourceError::Version {
                component: facts.version.clone(),
                source_says: version,
            });
        }
        if let Some(allowed) = &package.capabilities
            && let Some(&capability) = facts.capabilities.difference(allowed).next()
        {
            return Err(SourceError::Capability { capability });
        }
        if component.len() as u64 > COMPONENT_BYTES {
            return Err(SourceError::TooLarge {
                bytes: component.len() as u64,
            });
        }
        let config_schema = match facts.config_schema.trim() {
            "" => None,
            text => Some(serde_json::from_str(text).map_err(|error| SourceError::ConfigSchema(error.to_string()))?),
        };
        let now = (policy.clock)();
        let manifest = Manifest {
            schema: MANIFEST_SCHEMA,
            name: package.name.clone(),
            version: facts.version.clone(),
            kind: facts.kind,
            publisher: package.publisher.clone(),
            digest: Digest::of(component),
            size: component.len() as u64,
            contract: facts.contract.clone(),
            minimum_host: package.minimum_host.clone().unwrap_or_else(|| policy.host.clone()),
            // What it does not import it need not be granted.
            capabilities: facts.capabilities.clone(),
            reads: facts.reads.clone(),
            writes: facts.writes.clone(),
            config_schema,
            limits: self.limits.wanted(),
            created: now,
            expires: package.expires.map(|duration| now.after(duration)),
            description: package.description.clone(),
            license: package.license.clone(),
            homepage: package.homepage.clone(),
        };
        // What `parse` would refuse is not signed.
        manifest.to_bytes()?;
        Ok(manifest)
    }
}

impl LimitsTable {
    fn wanted(&self) -> WantedLimits {
        WantedLimits {
            interpreted: self.interpreted,
            memory_bytes: self.memory,
            stack_bytes: self.stack,
            deadline_us: self.deadline,
            deadline_per_row_us: self.deadline_per_row,
            deadline_per_kib_us: self.deadline_per_kib,
            output_bytes: self.output,
            output_ratio: self.output_ratio,
            log_lines_per_second: self.log_lines_per_second,
            state_bytes: self.state,
        }
    }
}

fn version<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Version>, D::Error> {
    parse_version(&String::deserialize(d)?)
        .map(Some)
        .map_err(D::Error::custom)
}

fn size<'de, D: Deserializer<'de>>(d: D) -> Result<Option<u64>, D::Error> {
    units::parse_size(&String::deserialize(d)?)
        .map(Some)
        .map_err(D::Error::custom)
}

fn duration<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Duration>, D::Error> {
    units::parse_duration(&String::deserialize(d)?)
        .map(Some)
        .map_err(D::Error::custom)
}

/// `"20 ms"`, and finer: `"5 us"`.
fn microseconds<'de, D: Deserializer<'de>>(d: D) -> Result<Option<u64>, D::Error> {
    let text = String::deserialize(d)?;
    let micro = ["us", "\u{b5}s"].iter().find_map(|unit| text.trim().strip_suffix(unit));
    if let Some(number) = micro {
        let number = number.trim().parse();
        return number
            .map(Some)
            .map_err(|_| D::Error::custom(format!("{text:?} is not a duration such as \"5 us\"")));
    }
    let whole = units::parse_duration(&text).map_err(D::Error::custom)?;
    Ok(Some(u64::try_from(whole.as_micros()).unwrap_or(u64::MAX)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::manifest::Kind;

    fn facts() -> ComponentFacts {
        ComponentFacts {
            name: "demo".into(),
            version: Version::new(1, 0, 0),
            kind: Kind::Filter,
            contract: Version::new(1, 0, 0),
            capabilities: BTreeSet::from([Capability::Log]),
            reads: vec!["body".into()],
            writes: Vec::new(),
            config_schema: r#"{"type": "object"}"#.into(),
        }
    }

    /// The example of FORMAT.md, as it stands there.
    fn documented() -> String {
        let format = include_str!("../FORMAT.md");
        let lines = format.lines().skip_while(|line| !line.starts_with("## plugin.toml"));
        lines
            .filter_map(|line| line.strip_prefix("    "))
            .collect::<Vec<_>>()
            .join("\n")
    }

    #[test]
    fn the_documented_example_becomes_a_manifest() {
        let manifest = PluginSource::parse(&documented()).unwrap();
        let manifest = manifest.manifest(&facts(), b"component", &Policy::default()).unwrap();
        assert_eq!(manifest.name.as_str(), "acme/demo");
        assert_eq!(manifest.limits.deadline_us, Some(20_000));
        assert_eq!(manifest.limits.deadline_per_row_us, Some(5));
        assert_eq!(manifest.limits.deadline_per_kib_us, Some(400));
        assert_eq!(manifest.limits.memory_bytes, Some(32 << 20));
        assert_eq!(
            manifest.expires.unwrap().seconds() - manifest.created.seconds(),
            365 * 86_400
        );
        assert!(manifest.config_schema.is_some());
        assert_eq!(Manifest::parse(&manifest.to_bytes().unwrap()).unwrap(), manifest);
    }

    #[test]
    fn what_the_source_and_the_component_disagree_about_is_not_signed() {
        let source = PluginSource::parse(&documented()).unwrap();
        let refused = |facts: &ComponentFacts| source.manifest(facts, b"component", &Policy::default()).unwrap_err();
        let newer = ComponentFacts {
            version: Version::new(1, 0, 1),
            ..facts()
        };
        assert!(matches!(refused(&newer), SourceError::Version { .. }));
        let more = ComponentFacts {
            capabilities: BTreeSet::from(Capability::ALL),
            ..facts()
        };
        assert!(matches!(
            refused(&more),
            SourceError::Capability {
                capability: Capability::Clock
            }
        ));
        let schema = ComponentFacts {
            config_schema: "[]".into(),
            ..facts()
        };
        assert!(matches!(refused(&schema), SourceError::ConfigSchema(_)));
        for (from, to, said) in [
            ("acme/demo", "Acme/demo", "not a package name"),
            ("\"5 us\"", "\"5\"", "no unit"),
            ("publisher", "publishr", "publishr"),
        ] {
            let error = PluginSource::parse(&documented().replacen(from, to, 1))
                .unwrap_err()
                .to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
