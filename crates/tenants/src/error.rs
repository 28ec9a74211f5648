//! Why a folder of tenants is not used.

use std::io;
use std::path::PathBuf;

use sluice_settings::ConfigError;

/// What was wrong, and where.
#[derive(Debug, thiserror::Error)]
pub enum TenantsError {
    #[error("{} cannot be read or written", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{0}")]
    Tenants(ConfigError),
    #[error("{} is not what it should be: {what}", path.display())]
    Keys { path: PathBuf, what: String },
    #[error("{} is larger than {max} bytes", path.display())]
    TooLarge { path: PathBuf, max: u64 },
}
