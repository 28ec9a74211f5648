//! What `check` says of the plugins of a configuration: each is loaded as a start would load it, and nothing is kept of it.

use std::fmt;
use std::path::Path;

use serde::Serialize;
use sluice_runtime::Chain;
use sluice_settings::Setting;

use super::{ChainError, Keeper, KeeperOptions};
use crate::config::{EdgeConfig, PluginEntry};
use crate::node::NodeOptions;

/// One entry of the chain.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PluginCheck {
    pub plugin: String,
    /// Why a start with it would be refused.
    pub refused: Option<String>,
    /// What was loaded; nothing where the entry is switched off and cannot be loaded.
    pub loaded: Option<LoadedPlugin>,
    /// Where it comes from.
    pub source: Option<String>,
    pub warnings: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LoadedPlugin {
    pub version: String,
    pub kind: &'static str,
    /// The capabilities that it uses, all of which it has.
    pub uses: Vec<&'static str>,
}

/// Loads every plugin by itself. Compiles; blocks for as long as that takes, without the images that the node keeps, as the one who
/// checks may be somebody else than the one who runs it.
pub fn check_plugins(config: &EdgeConfig, options: &NodeOptions) -> Vec<PluginCheck> {
    let keeper = Keeper::new(KeeperOptions {
        folder: config.data_dir.join("plugins"),
        compiler: options.compiler.clone(),
        cache: false,
        strict_revocations: config.packages.strict_revocations,
    });
    let check = |entry: &crate::config::PluginEntry| {
        let result = keeper.set(std::slice::from_ref(entry));
        let status = keeper.status();
        let slot = keeper.chain().slot(&entry.name).filter(|_| result.is_ok());
        let loaded = slot.map(|slot| {
            let current = slot.current();
            let component = current.plugin.component();
            LoadedPlugin {
                version: current.version,
                kind: current.plugin.kind().as_str(),
                uses: component.capabilities.iter().map(|used| used.as_str()).collect(),
            }
        });
        PluginCheck {
            plugin: entry.name.clone(),
            source: status.sources.get(&entry.name).filter(|_| loaded.is_some()).cloned(),
            loaded,
            warnings: if result.is_ok() { status.warnings } else { Vec::new() },
            refused: result.err().map(|error| error.told()),
        }
    };
    config.plugin.iter().map(check).collect()
}

/// One plugin by its package, installed in a folder or a standard one, verified and loaded as a start would load it; for trying it on
/// rows beside the chain. Blocks while it compiles.
pub fn load_plugin(
    folder: &Path,
    options: &NodeOptions,
    strict_revocations: bool,
    package: &str,
    version: Option<&str>,
    config: toml::Table,
) -> Result<Chain, ChainError> {
    let keeper = Keeper::new(KeeperOptions {
        folder: folder.to_owned(),
        compiler: options.compiler.clone(),
        cache: true,
        strict_revocations,
    });
    keeper.set(&[PluginEntry::plain(package, version, config)])?;
    Ok(keeper.chain().clone())
}

impl PluginCheck {
    /// For scripts: the settings, and behind them what became of each plugin.
    pub fn beside(settings: &[Setting], plugins: &[PluginCheck]) -> serde_json::Value {
        let plugins = plugins.iter().map(|plugin| {
            serde_json::json!({
                "key": format!("plugin.{}", plugin.plugin),
                "value": plugin.loaded.as_ref().map(|loaded| &loaded.version),
                "origin": plugin.source,
                "kind": plugin.loaded.as_ref().map(|loaded| loaded.kind),
                "uses": plugin.loaded.as_ref().map(|loaded| &loaded.uses),
                "refused": plugin.refused,
                "warnings": plugin.warnings,
            })
        });
        settings
            .iter()
            .map(|setting| serde_json::json!(setting))
            .chain(plugins)
            .collect()
    }
}

/// On one line.
impl fmt::Display for PluginCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "plugin {}: ", self.plugin)?;
        if let Some(why) = &self.refused {
            return write!(f, "refused: {why}");
        }
        match &self.loaded {
            Some(loaded) => {
                write!(f, "{} {}, takes its configuration", loaded.kind, loaded.version)?;
                if !loaded.uses.is_empty() {
                    write!(f, ", uses {}", loaded.uses.join(", "))?;
                }
            }
            None => f.write_str("not loaded")?,
        }
        if let Some(source) = &self.source {
            write!(f, "; {source}")?;
        }
        for warning in &self.warnings {
            write!(f, "; warning: {warning}")?;
        }
        Ok(())
    }
}
