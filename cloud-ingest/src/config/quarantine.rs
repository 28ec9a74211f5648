//! What an operator may set for batches that are set aside.

use serde::{Deserialize, Serialize};
use sluice_settings::units;

use crate::quarantine::QuarantineLimits;

/// How much of what can never be stored is kept. Beyond it edges keep what they have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QuarantineSettings {
    pub max_batches: u64,
    /// Of an embedded one.
    #[serde(with = "units::size")]
    pub max_size: u64,
}

impl Default for QuarantineSettings {
    fn default() -> Self {
        QuarantineSettings {
            max_batches: 10_000,
            max_size: 1 << 30,
        }
    }
}

impl QuarantineSettings {
    pub(crate) fn limits(&self) -> QuarantineLimits {
        QuarantineLimits {
            max_batches: self.max_batches,
            max_bytes: self.max_size,
        }
    }
}
