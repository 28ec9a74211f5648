//! One entry of the configuration on its way to a loaded plugin.

use std::collections::BTreeSet;

use sluice_package::Digest;
use sluice_runtime::{Capability, Edition, Grants, Host, Limits, LoadError, PluginConfig};

use super::ChainError;
use super::secrets::{self, Secrets};
use super::source::Source;
use crate::config::PluginEntry;

/// What a candidate is called inside the host, where state is kept by name. No place can be called so.
fn candidate_name(place: &str, number: u64) -> String {
    format!("{place}..{number}")
}

/// Everything that a plugin is made of.
pub(super) struct Plan {
    config: PluginConfig,
    secrets: Secrets,
    version: Option<String>,
    /// The same for the same version with the same code and all that it is given.
    pub(super) fingerprint: String,
    /// The same for the same doings asked of whatever version.
    pub(super) settings: String,
}

impl Plan {
    /// The plugin that serves.
    pub(super) fn new(entry: &PluginEntry, source: Source) -> Result<Plan, ChainError> {
        let (config, secrets) = secrets::resolve(&entry.config).map_err(|source| ChainError::Secret {
            plugin: entry.name.clone(),
            source,
        })?;
        let wanted = entry.limits.over(&source.limits);
        let limits = wanted.resolve();
        let grants = Grants {
            capabilities: granted(entry, &source),
            tables: entry.tables(),
            state_bytes: wanted.state_bytes(),
        };
        let signals: Vec<&str> = entry.signals().iter().map(|signal| signal.as_str()).collect();
        let settings = digest(&format!("{config} {signals:?} {:?}", grants.tables));
        let fingerprint = digest(&format!(
            "{} {settings} {} {:?} {:?}",
            Digest::of(&source.component),
            told(&limits),
            grants.capabilities,
            (grants.state_bytes, entry.on_fault, &source.version)
        ));
        Ok(Plan {
            config: PluginConfig {
                name: entry.name.clone(),
                component: source.component,
                config,
                limits,
                on_fault: entry.on_fault,
                enabled: true,
                signals: entry.signals(),
                grants,
            },
            secrets,
            version: source.version,
            fingerprint,
            settings,
        })
    }

    /// The same as a candidate beside another one: with a state of its own.
    pub(super) fn into_candidate(mut self, number: u64) -> Plan {
        self.config.name = candidate_name(&self.config.name, number);
        self
    }

    /// Compiles it and gives it its configuration. Takes up to minutes.
    pub(super) fn load(self, host: &Host) -> Result<Edition, ChainError> {
        let told = |error: &LoadError| ChainError::Load(self.secrets.redact(&error.to_string()));
        let plugin = host.load(self.config).map_err(|error| told(&error))?;
        let version = self.version.unwrap_or_else(|| plugin.version().to_owned());
        Ok(Edition { plugin, version })
    }
}

/// What the package may use, and of that what the operator leaves it. `lookup` shows nothing but the tables of the entry, so a
/// component without a package may have that, too.
fn granted(entry: &PluginEntry, source: &Source) -> BTreeSet<Capability> {
    let mut granted = source.capabilities.clone().unwrap_or(Capability::ALL.into());
    if let Some(only) = &entry.capabilities {
        granted.retain(|capability| only.contains(capability));
    }
    granted
}

fn told(limits: &Limits) -> String {
    format!("{limits:?}")
}

fn digest(text: &str) -> String {
    Digest::of(text.as_bytes()).hex()
}
