//! The plugin chain of a running node: where its plugins come from, and how it changes without a restart.
//!
//! The [`Keeper`] makes what the configuration and the store ask for into places of the chain. It is asked at the start, when the
//! configuration is read again, and by [`watch`] when the store changes, when it is time to try again what could not be loaded, or
//! when a place went back to the version before by itself.

mod builtin;
mod check;
mod keeper;
mod place;
pub(crate) mod secrets;
mod source;
mod status;
mod summary;
pub(crate) mod watch;

use std::path::PathBuf;

use sluice_package::{NameError, StoreError};
use sluice_runtime::HostError;

#[cfg(test)]
pub(crate) use builtin::STANDARD;
pub use check::{LoadedPlugin, PluginCheck, check_plugins, load_plugin};
pub(crate) use keeper::{Keeper, KeeperOptions};
pub use secrets::SecretError;
pub(crate) use source::wanted;
pub use status::{ChainStatus, RefusedChain};

/// Why the chain cannot be as it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    #[error("plugin engine does not run here")]
    Host(#[from] HostError),
    #[error("component {} of plugin `{plugin}` cannot be read", .path.display())]
    Read {
        plugin: String,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(
        "nobody vouches for the component {} of plugin `{plugin}`: say `unsigned = true` beside its path, or sign it (`sluice plugin sign`) and give the folder of the package",
        .path.display()
    )]
    Unsigned { plugin: String, path: PathBuf },
    #[error("plugin `{plugin}`: {source}")]
    Package {
        plugin: String,
        #[source]
        source: Box<StoreError>,
    },
    #[error("the store of plugins")]
    Store(#[source] Box<StoreError>),
    #[error("plugin `{plugin}`: {source}")]
    Name {
        plugin: String,
        #[source]
        source: NameError,
    },
    #[error(
        "plugin `{plugin}`: no package {package} is installed here and no standard plugin has this name: `sluice plugin install` brings a package, `path` names a component"
    )]
    NotThere { plugin: String, package: String },
    #[error(
        "plugin `{plugin}`: {package} is a standard plugin, and this program was built without it: build it after `cargo xtask guests`, or install it as a package"
    )]
    NotBuiltIn { plugin: String, package: String },
    #[error("plugin `{plugin}`: version {asked} was asked for, and what is there is {found}")]
    OtherVersion {
        plugin: String,
        asked: String,
        found: String,
    },
    #[error("configuration of plugin `{plugin}`")]
    Secret {
        plugin: String,
        #[source]
        source: SecretError,
    },
    /// In words without secrets.
    #[error("{0}")]
    Load(String),
    #[error("no thread for the candidate of a plugin")]
    Thread(#[source] std::io::Error),
}

impl ChainError {
    /// With its causes, on one line: for the status page.
    pub(crate) fn told(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            let more = cause.to_string();
            if !text.contains(&more) {
                text.push_str(": ");
                text.push_str(&more);
            }
            source = cause.source();
        }
        text
    }
}
