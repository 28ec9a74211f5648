//! What an operator may set for how long rows are kept.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sluice_settings::units;
use sluice_store::Retention;
use sluice_wire::ids::TenantId;

/// Below this a batch might be gone before anybody could see it.
const SHORTEST: Duration = Duration::from_secs(3600);

/// How long rows are kept after they were taken in; "0 s": for ever.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetentionSettings {
    #[serde(with = "units::duration")]
    pub keep: Duration,
    /// Of some tenants.
    pub tenants: BTreeMap<String, Keep>,
}

/// A duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Keep(#[serde(with = "units::duration")] pub Duration);

impl RetentionSettings {
    /// The key that cannot be used, and why.
    pub(super) fn mistake(&self) -> Option<(String, String)> {
        let is_short = |keep: Duration| !keep.is_zero() && keep < SHORTEST;
        let short = "is at least 1 h, or \"0 s\" for ever".to_owned();
        if is_short(self.keep) {
            return Some(("retention.keep".to_owned(), short));
        }
        self.tenants.iter().find_map(|(tenant, keep)| {
            let key = format!("retention.tenants.{tenant}");
            match TenantId::new(tenant) {
                Err(error) => Some((key, error.to_string())),
                Ok(_) => is_short(keep.0).then(|| (key, short.clone())),
            }
        })
    }

    pub(crate) fn rules(&self) -> Retention {
        let micros = |keep: Duration| i64::try_from(keep.as_micros()).unwrap_or(i64::MAX);
        let tenants = self
            .tenants
            .iter()
            .map(|(tenant, keep)| (tenant.clone(), micros(keep.0)));
        Retention::new(micros(self.keep), tenants.collect())
    }
}
