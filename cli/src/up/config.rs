//! The one file of `sluice up`: the settings of the three roles, each in a table of its own.

use std::path::Path;

use serde::{Deserialize, Serialize};
use sluice_edge::EdgeConfig;
use sluice_ingest::IngestConfig;
use sluice_query::QueryConfig;
use sluice_settings::ConfigError;

use crate::ca::Policy;

/// `deploy/config/sluice.toml` shows it. Addresses, folders and certificates that are not named are those of one machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct UpConfig {
    pub(crate) edge: EdgeConfig,
    pub(crate) ingest: IngestConfig,
    pub(crate) query: QueryConfig,
    /// The authority of this machine.
    pub(crate) ca: Policy,
}

impl UpConfig {
    /// Reads the file. Plugins are looked for beside it.
    pub(crate) fn load(path: &Path) -> Result<UpConfig, ConfigError> {
        let mut config = sluice_settings::load(path, Self::from_toml)?;
        config.edge.resolve(path.parent().unwrap_or(Path::new("")));
        Ok(config)
    }

    pub(crate) fn from_toml(text: &str) -> Result<UpConfig, ConfigError> {
        let config: UpConfig = sluice_settings::parse(text).map_err(|error| with_table(error, text))?;
        config.edge.check("").map_err(|error| error.within("edge", text))?;
        config.ingest.check("").map_err(|error| error.within("ingest", text))?;
        config.query.check("").map_err(|error| error.within("query", text))?;
        config.ca.check("ca", text)?;
        Ok(config)
    }
}

/// What stands in a file of one role alone stands here in the table of that role.
fn with_table(error: ConfigError, text: &str) -> ConfigError {
    let table: toml::Table = toml::from_str(text).unwrap_or_default();
    let Some(key) = error.key.clone().filter(|key| table.contains_key(key)) else {
        return error;
    };
    let written = |key: &str| match &table[key] {
        toml::Value::Table(_) => format!("[edge.{key}]"),
        toml::Value::Array(items) if items.iter().all(toml::Value::is_table) => format!("[[edge.{key}]]"),
        _ => format!("{key} = … under [edge]"),
    };
    let of_the_edge = toml::Table::try_from(EdgeConfig::default()).is_ok_and(|edge| edge.contains_key(&key));
    match of_the_edge {
        true => error.with_hint(format!("this is the file of `sluice up`: write {}", written(&key))),
        false => error,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_file_holds_the_defaults() {
        let shipped = UpConfig::from_toml(include_str!("../../../deploy/config/sluice.toml")).unwrap();
        assert_eq!(shipped, UpConfig::default());
    }

    #[test]
    fn a_mistake_in_any_role_is_told_with_its_line_and_a_way_out() {
        let check = |text: &str, says: [&str; 2]| {
            let error = UpConfig::from_toml(text).unwrap_err().to_string();
            assert!(says.iter().all(|part| error.contains(part)), "{error}");
        };
        check(
            "[edge.seal]\nfreshnes = \"1 s\"\n",
            ["line 2", "did you mean `freshness`"],
        );
        check("\n[edge.seal]\nmax_rows = 0\n", ["line 3", "edge.seal.max_rows"]);
        check("[ingest.hot]\nkeep = \"300 MiB\"\n", ["line 2", "ingest.hot.keep"]);
        check("[[plugin]]\nname = \"mask\"\n", ["plugin: ", "write [[edge.plugin]]"]);
        check("[admin]\ntap = true\n", ["admin: ", "write [edge.admin]"]);
        check("[ca]\nlife = \"1 s\"\n", ["line 2", "ca.life"]);
        check("data_dir = \"x\"\n", ["line 1", "under [edge]"]);
        check("[query.limits]\nthreads = 5000\n", ["line 2", "query.limits.threads"]);
    }

    /// Whoever copies an example from the page of a plugin has a configuration, of an edge as of `sluice up`.
    #[test]
    fn the_examples_of_plugins_are_configurations() {
        let check = |page: &str, text: &str| {
            let example = text.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next());
            let example = example.unwrap_or_else(|| panic!("{page} has no example"));
            assert!(example.starts_with("[[plugin]] "), "{page}");
            let edge = EdgeConfig::from_toml(example).unwrap_or_else(|e| panic!("{page}: {e}"));
            let of_up = example.replace("[plugin", "[edge.plugin");
            let up = UpConfig::from_toml(&of_up).unwrap_or_else(|e| panic!("{page}: {e}"));
            assert_eq!((edge.plugin.len(), &up.edge.plugin), (1, &edge.plugin), "{page}");
        };
        check("sample", include_str!("../../../plugins/sample/README.md"));
        check("mask", include_str!("../../../plugins/mask/README.md"));
        check("enrich", include_str!("../../../plugins/enrich/README.md"));
        check("filter", include_str!("../../../plugins/filter/README.md"));
        check("cardinality", include_str!("../../../plugins/cardinality/README.md"));
        for template in [
            include_str!("../../../plugins/templates/rust/README.md"),
            include_str!("../../../plugins/templates/js/README.md"),
            include_str!("../../../plugins/templates/python/README.md"),
        ] {
            let filled = template.replace("{{name}}", "demo").replace("{{publisher}}", "local");
            check("a template", &filled);
        }
    }
}
