//! {{name}}: keeps warnings and worse, and everything of some services.

use sluice_plugin::prelude::*;

#[plugin_config]
pub struct Config {
    /// Services of which every event is kept.
    #[serde(default)]
    services: Vec<String>,
}

#[sluice_plugin(name = "{{name}}", kind = filter, reads = ["severity", "service"])]
pub fn keep(row: Row, config: &Config) -> bool {
    row.severity() >= WARN || config.services.iter().any(|service| service == row.service())
}
