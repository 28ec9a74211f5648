//! The one file of `sluice up`: the settings of the three roles, each in a table of its own.

use std::path::Path;

use anyhow::Context;
use serde::Deserialize;
use sluice_edge::EdgeConfig;
use sluice_ingest::IngestConfig;
use sluice_query::QueryConfig;

use crate::refused::Refused;

/// `deploy/config/sluice.toml` shows it. Addresses, folders and certificates that are not named are those of one machine.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct UpConfig {
    pub(crate) edge: EdgeConfig,
    pub(crate) ingest: IngestConfig,
    pub(crate) query: QueryConfig,
}

impl UpConfig {
    pub(crate) fn read(path: &Path) -> anyhow::Result<UpConfig> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::from_toml(&text).map_err(|error| error.in_file(path).into())
    }

    pub(crate) fn from_toml(text: &str) -> Result<UpConfig, Refused> {
        toml::from_str(text).map_err(|error| Refused::of_toml(text, &error))
    }
}
