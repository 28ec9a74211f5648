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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_file_holds_the_defaults() {
        let shipped = UpConfig::from_toml(include_str!("../../../deploy/config/sluice.toml")).unwrap();
        assert_eq!(format!("{shipped:?}"), format!("{:?}", UpConfig::default()));
    }

    #[test]
    fn a_mistyped_key_is_told_with_its_line_and_what_was_meant() {
        let error = UpConfig::from_toml("[edge.seal]\nfreshnes = \"1 s\"\n")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("line 2") && error.contains("did you mean `freshness`"),
            "{error}"
        );
    }
}
