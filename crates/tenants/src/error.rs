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
    /// What is written must be readable: roles would go on with the file of before, and start no more.
    #[error("{} would have {bytes} bytes and may have {max}: it stays as it was; {hint}", path.display())]
    WouldBeTooLarge {
        path: PathBuf,
        bytes: u64,
        max: u64,
        hint: &'static str,
    },
}
