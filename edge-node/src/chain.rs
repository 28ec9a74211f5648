//! Loads the plugin chain that the configuration names.

use std::path::PathBuf;
use std::sync::Arc;

use sluice_runtime::{Chain, Grants, Host, HostError, HostOptions, LoadError, Plugin, PluginConfig};

use crate::config::PluginEntry;

/// Why the chain cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    #[error("plugin engine does not run here")]
    Host(#[from] HostError),
    #[error("component {path} of plugin `{plugin}` cannot be read")]
    Read {
        plugin: String,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Load(#[from] Box<LoadError>),
    #[error("configuration of plugin `{plugin}` is not plain data")]
    Config {
        plugin: String,
        #[source]
        source: serde_json::Error,
    },
}

/// Compiles every plugin. Blocks, for seconds with large components.
pub(crate) fn load(entries: &[PluginEntry]) -> Result<Chain, ChainError> {
    if entries.is_empty() {
        return Ok(Chain::new(Vec::new()));
    }
    let host = Host::new(HostOptions::default())?;
    let plugins: Result<Vec<_>, _> = entries.iter().map(|entry| load_one(&host, entry)).collect();
    Ok(Chain::new(plugins?))
}

fn load_one(host: &Host, entry: &PluginEntry) -> Result<Arc<Plugin>, ChainError> {
    let plugin = || entry.name.clone();
    let component = std::fs::read(&entry.path).map_err(|source| ChainError::Read {
        plugin: plugin(),
        path: entry.path.clone(),
        source,
    })?;
    let config = serde_json::to_value(&entry.config).map_err(|source| ChainError::Config {
        plugin: plugin(),
        source,
    })?;
    let config = PluginConfig {
        name: plugin(),
        component,
        config,
        limits: entry.limits(),
        on_fault: entry.on_fault,
        enabled: entry.enabled,
        signals: entry.signals(),
        grants: Grants::harmless(),
    };
    host.load(config).map_err(|e| ChainError::Load(Box::new(e)))
}
