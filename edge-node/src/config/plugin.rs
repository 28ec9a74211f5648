//! The entries of the plugin chain.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sluice_runtime::{Capability, OnFault, TableSource};
use sluice_wire::Signal;

use super::ConfigError;
use super::limits::PluginLimits;
use crate::chain::secrets;

/// One `[[plugin]]` table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PluginEntry {
    /// Its name in counts and messages; and the package to look for, where `package` does not name another.
    pub name: String,
    /// A component, or the folder of a signed package, instead of a package that is installed here or built in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// Allows a component that nobody signed.
    #[serde(default)]
    pub unsigned: bool,
    /// The name of the package, where it is not the name of the entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// This version and no other; without it the one that is current in the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Handed to the plugin; `{ env = "NAME" }` and `{ file = "PATH" }` in it are replaced by what they name.
    #[serde(default)]
    pub config: toml::Table,
    /// Nothing but these, of what the package may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<BTreeSet<Capability>>,
    /// For `lookup`, by the name that the plugin knows.
    #[serde(default)]
    pub tables: BTreeMap<String, TableEntry>,
    #[serde(default)]
    pub limits: PluginLimits,
    /// `quarantine` or `bypass`; a mask always refuses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_fault: Option<OnFault>,
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Empty: all.
    #[serde(default)]
    pub signals: Vec<SignalName>,
    /// A candidate beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<ShadowEntry>,
}

/// `log`, `span` or `metric`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SignalName {
    Log,
    Span,
    Metric,
}

/// A CSV file or a MaxMind database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "a table is the path of a file, or { path = \"…\", key = \"the column of a CSV file\" }"
)]
pub enum TableEntry {
    Path(PathBuf),
    Keyed(KeyedTable),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyedTable {
    pub path: PathBuf,
    pub key: String,
}

/// A version that runs beside the one that serves, without effect.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShadowEntry {
    /// Of the same package, from the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Or a component or package folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    #[serde(default)]
    pub unsigned: bool,
    /// Instead of the configuration of the one that serves; alone, it is the same plugin that is tried with another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<toml::Table>,
    /// Of the batches, more than 0 and at most 1.
    #[serde(default = "all")]
    pub share: f64,
}

fn yes() -> bool {
    true
}

fn all() -> f64 {
    1.0
}

impl PluginEntry {
    /// A package with a configuration, and everything else as it is without being named.
    pub(crate) fn plain(package: &str, version: Option<&str>, config: toml::Table) -> PluginEntry {
        PluginEntry {
            // Names of packages may have a slash, those of entries do not.
            name: package.rsplit('/').next().unwrap_or(package).to_owned(),
            path: None,
            unsigned: false,
            package: Some(package.to_owned()),
            version: version.map(str::to_owned),
            config,
            capabilities: None,
            tables: BTreeMap::new(),
            limits: PluginLimits::default(),
            on_fault: None,
            enabled: true,
            signals: Vec::new(),
            shadow: None,
        }
    }

    /// The package to look for in the store, and among the standard plugins.
    pub(crate) fn package(&self) -> &str {
        self.package.as_deref().unwrap_or(&self.name)
    }

    pub(crate) fn signals(&self) -> Vec<Signal> {
        let signal = |name: &SignalName| match name {
            SignalName::Log => Signal::Log,
            SignalName::Span => Signal::Span,
            SignalName::Metric => Signal::Metric,
        };
        self.signals.iter().map(signal).collect()
    }

    pub(crate) fn tables(&self) -> Vec<TableSource> {
        let source = |(name, table): (&String, &TableEntry)| {
            let (path, key) = match table {
                TableEntry::Path(path) => (path.clone(), None),
                TableEntry::Keyed(KeyedTable { path, key }) => (path.clone(), Some(key.clone())),
            };
            let name = name.clone();
            TableSource { name, path, key }
        };
        self.tables.iter().map(source).collect()
    }

    /// Makes every path in it relative to a folder.
    pub(super) fn resolve(&mut self, folder: &Path) {
        let tables = self.tables.values_mut().map(|table| match table {
            TableEntry::Path(path) | TableEntry::Keyed(KeyedTable { path, .. }) => path,
        });
        let shadow = self.shadow.iter_mut().filter_map(|shadow| shadow.path.as_mut());
        for path in self.path.iter_mut().chain(tables).chain(shadow) {
            *path = folder.join(&*path);
        }
        secrets::resolve_paths(&mut self.config, folder);
        for config in self.shadow.iter_mut().filter_map(|shadow| shadow.config.as_mut()) {
            secrets::resolve_paths(config, folder);
        }
    }
}

/// What the entries say by themselves; whether their plugins can be had is seen when they are loaded.
pub(super) fn check(chain: &[PluginEntry], text: &str) -> Result<(), ConfigError> {
    let refuse = |key: &str, message: String, hint: &str| {
        let error = ConfigError::value(text, &format!("plugin.{key}"), message);
        Err(error.with_hint(hint))
    };
    for (place, entry) in chain.iter().enumerate() {
        let name = &entry.name;
        if chain[..place].iter().any(|earlier| earlier.name == *name) {
            let hint = "counts are kept by name: give each entry its own";
            return refuse("name", format!("{name:?} occurs twice"), hint);
        }
        let named = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(named) || name.contains("..") {
            return refuse(
                "name",
                format!("{name:?} is no name of a place in the chain"),
                "1 to 48 letters, digits, `_`, `-` and single `.`; the name of the package goes into `package`",
            );
        }
        let from_path = entry.path.is_some();
        if entry.unsigned && !from_path {
            return refuse(
                "unsigned",
                format!("`unsigned = true` of {name:?} goes with `path`"),
                "leave it out: packages are signed, and standard plugins are part of the program",
            );
        }
        let is_component = |path: &Path| path.extension().is_some_and(|extension| extension == "wasm");
        if entry.path.as_deref().is_some_and(is_component) && !entry.unsigned {
            return refuse(
                "path",
                format!("nobody vouches for the component of {name:?}"),
                "say `unsigned = true` beside it, or sign it (`sluice plugin sign`) and give the folder of the package",
            );
        }
        let Some(shadow) = &entry.shadow else { continue };
        let differs = [shadow.version.is_some(), shadow.path.is_some(), shadow.config.is_some()];
        if (shadow.version.is_some() && shadow.path.is_some()) || !differs.contains(&true) {
            return refuse(
                "shadow",
                format!("the shadow of {name:?} is one version of the package, one path, or another configuration"),
                "write shadow = { version = \"1.3.0\", share = 0.1 }",
            );
        }
        if !(shadow.share > 0.0 && shadow.share <= 1.0) {
            let message = format!("the share of the shadow of {name:?} is more than 0 and at most 1");
            return refuse("shadow", message, "write share = 0.1 for every tenth batch");
        }
    }
    Ok(())
}

/// Bytes of a name: the host takes 64, and a candidate's is made of it.
const MAX_NAME: usize = 48;
