//! One plugin in the host that edges have, for trying it.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use sluice_runtime::{Compiler, Grants, Host, HostOptions, Limits, OnFault, Plugin, PluginConfig, TableSource};

use super::project::Project;

/// How a plugin is set up for a trial. The same flags on every command that runs one.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct Setup {
    /// Its configuration: JSON text, or @FILE.
    #[arg(long, value_name = "JSON", default_value = "{}")]
    pub(super) config: String,
    /// A table for `lookup`: its name and a CSV file or MaxMind database.
    #[arg(long = "table", value_name = "NAME=FILE")]
    pub(super) tables: Vec<String>,
}

impl Setup {
    pub(super) fn config(&self) -> Result<Value> {
        let text = match self.config.strip_prefix('@') {
            Some(path) => std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?,
            None => self.config.clone(),
        };
        serde_json::from_str(&text).context("--config is no JSON")
    }

    pub(super) fn tables(&self) -> Result<Vec<TableSource>> {
        self.tables
            .iter()
            .map(|text| match text.split_once('=') {
                Some((name, path)) if !name.is_empty() && !path.is_empty() => Ok(TableSource {
                    name: name.to_owned(),
                    path: PathBuf::from(path),
                    key: None,
                }),
                _ => bail!("--table {text:?}: NAME=FILE is meant, such as hosts=hosts.csv"),
            })
            .collect()
    }
}

/// The host, with what it compiled kept for the next command.
pub(super) fn host() -> Result<Host> {
    let options = HostOptions {
        compiler: Compiler::this_program(),
        cache: cache_folder(),
    };
    Host::new(options).context("the plugin engine does not run here")
}

/// The folder for this user's caches, if it can be known.
fn cache_folder() -> Option<PathBuf> {
    let of = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let base = of("XDG_CACHE_HOME").or_else(|| Some(of("HOME")?.join(".cache")))?;
    Some(base.join("sluice").join("compiled"))
}

/// A component with everything granted that it asks for and that is given.
pub(super) fn load(
    host: &Host,
    name: &str,
    component: Vec<u8>,
    config: Value,
    tables: Vec<TableSource>,
    is_interpreted: bool,
) -> Result<Arc<Plugin>> {
    let mut grants = Grants::harmless();
    if !tables.is_empty() {
        grants.capabilities.insert(sluice_runtime::Capability::Lookup);
        grants.tables = tables;
    }
    let limits = if is_interpreted {
        Limits::interpreted()
    } else {
        Limits::default()
    };
    let plugin = host.load(PluginConfig {
        name: name.to_owned(),
        component,
        config,
        limits,
        // Rows that a fault leaves behind are then told from rows that the plugin left alone.
        on_fault: Some(OnFault::Quarantine),
        enabled: true,
        signals: Vec::new(),
        grants,
    });
    plugin.context("the plugin cannot be loaded")
}

/// The project's plugin as it would be set up by an operator.
pub(super) fn load_project(host: &Host, project: &Project, setup: &Setup) -> Result<Arc<Plugin>> {
    load(
        host,
        &project.name,
        project.read_component()?,
        setup.config()?,
        setup.tables()?,
        project.language.is_interpreted(),
    )
}
