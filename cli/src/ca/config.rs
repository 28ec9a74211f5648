//! What an operator may set for `sluice ca serve`. `deploy/config/ca.toml` shows every key with its default.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sluice_settings::ConfigError;

use super::Policy;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct CaConfig {
    /// The authority's folder.
    pub(crate) dir: PathBuf,
    pub(crate) listen: SocketAddr,
    /// How gateways call it; the address that it listens on is one of its names by itself.
    pub(crate) hosts: Vec<String>,
    pub(crate) policy: Policy,
}

impl Default for CaConfig {
    fn default() -> Self {
        Self {
            dir: PathBuf::from("sluice-ca"),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 7444)),
            hosts: Vec::new(),
            policy: Policy::default(),
        }
    }
}

impl CaConfig {
    pub(crate) fn from_toml(text: &str) -> Result<Self, ConfigError> {
        let config: Self = sluice_settings::parse(text)?;
        config.policy.check("policy", text)?;
        Ok(config)
    }
}

impl Policy {
    /// The rules that a type cannot hold; `table` is where the keys stand.
    pub(crate) fn check(&self, table: &str, text: &str) -> Result<(), ConfigError> {
        let refuse = |key: &str, message: &str| Err(ConfigError::value(text, &format!("{table}.{key}"), message));
        if self.life < Duration::from_secs(5) {
            return refuse(
                "life",
                "is at least 5 s: an edge must have time to ask for the next one",
            );
        }
        if self.renewals_per_hour == 0 {
            return refuse("renewals_per_hour", "must be more than 0");
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_file_shows_every_key_with_its_default() {
        let text = include_str!("../../../deploy/config/ca.toml");
        let shipped = CaConfig::from_toml(text).unwrap();
        assert_eq!(shipped, CaConfig::default());
        let missing: Vec<_> = sluice_settings::explain(&shipped, text)
            .into_iter()
            .filter(|s| s.origin == "default")
            .collect();
        assert!(missing.is_empty(), "{missing:?}");
    }

    #[test]
    fn a_mistake_is_told_with_its_line() {
        let check = |text: &str, line: usize, key: &str| {
            let error = CaConfig::from_toml(text).unwrap_err();
            assert_eq!((error.line, error.key.as_deref()), (Some(line), Some(key)), "{error}");
        };
        check("[policy]\nlife = \"1 s\"\n", 2, "policy.life");
        check("[policy]\nrenewals_per_hour = 0\n", 2, "policy.renewals_per_hour");
        check("dir = \"x\"\nhost = \"ca\"\n", 2, "host");
    }
}
