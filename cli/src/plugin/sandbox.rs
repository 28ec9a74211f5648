//! One plugin in the host that edges have, for trying it.

use std::cell::Cell;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use sluice_package::command::Progress;
use sluice_runtime::{
    Compiler, DEFAULT_STATE_BYTES, Grants, Host, HostOptions, Limits, OnFault, Plugin, PluginConfig, TableSource,
};
use sluice_settings::readable;

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
    host_with(cache_folder())
}

/// A host that compiles everything anew.
pub(super) fn forgetful_host() -> Result<Host> {
    host_with(None)
}

fn host_with(cache: Option<PathBuf>) -> Result<Host> {
    let options = HostOptions {
        compiler: Compiler::this_program(),
        cache,
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

/// What is tried: a component, and what its package would ask for.
pub(super) struct Candidate<'a> {
    pub(super) name: &'a str,
    pub(super) component: Vec<u8>,
    pub(super) limits: Limits,
    pub(super) state_bytes: usize,
    /// Once is enough: later it is in the cache.
    announced: Cell<bool>,
}

impl<'a> Candidate<'a> {
    /// The project's component, with the limits that a node gives its package.
    pub(super) fn of_project(project: &'a Project) -> Result<Candidate<'a>> {
        let (limits, state_bytes) = sluice_edge::package_limits(&project.source.limits());
        Ok(Candidate {
            name: &project.name,
            component: project.read_component()?,
            limits,
            state_bytes,
            announced: Cell::new(false),
        })
    }

    /// A component of which nothing is known but its bytes.
    pub(super) fn unknown(name: &'a str, component: Vec<u8>, limits: Limits) -> Candidate<'a> {
        Candidate {
            name,
            component,
            limits,
            state_bytes: DEFAULT_STATE_BYTES,
            announced: Cell::new(false),
        }
    }

    /// Loads it with everything granted that it asks for and that is given.
    pub(super) fn load(&self, host: &Host, config: Value, tables: Vec<TableSource>) -> Result<Arc<Plugin>> {
        let mut grants = Grants::harmless();
        grants.state_bytes = self.state_bytes;
        if !tables.is_empty() {
            grants.capabilities.insert(sluice_runtime::Capability::Lookup);
            grants.tables = tables;
        }
        let _word = (!self.announced.replace(true)).then(|| compiling(self.name, &self.component));
        let plugin = host.load(PluginConfig {
            name: self.name.to_owned(),
            component: self.component.clone(),
            config,
            limits: self.limits.clone(),
            // Rows that a fault leaves behind are then told from rows that the plugin left alone.
            on_fault: Some(OnFault::Quarantine),
            enabled: true,
            signals: Vec::new(),
            grants,
        });
        plugin.context("the plugin cannot be loaded")
    }
}

/// Says so while a component is compiled for the first time, which takes an embedded interpreter up to minutes.
pub(super) fn compiling(name: &str, component: &[u8]) -> Progress {
    Progress::on_stderr(format!(
        "compiling {name} ({})",
        readable::bytes(component.len() as u64)
    ))
}
