//! Which tenants are served.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// More is a typing error.
const MAX_GATEWAYS: u32 = 1_024;

/// The folder of `sluice tenant` and `sluice key`, and how its limits are divided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TenantsSettings {
    /// Empty: whatever tenant a certificate names is served, without limits.
    pub dir: PathBuf,
    /// How many gateways share a tenant's limits: each holds to its part.
    pub gateways: u32,
}

impl Default for TenantsSettings {
    fn default() -> Self {
        Self {
            dir: PathBuf::new(),
            gateways: 1,
        }
    }
}

impl TenantsSettings {
    pub(super) fn mistake(&self) -> Option<(&'static str, &'static str)> {
        (!(1..=MAX_GATEWAYS).contains(&self.gateways)).then_some(("tenants.gateways", "goes from 1 to 1024"))
    }
}
