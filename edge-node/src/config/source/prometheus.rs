//! `[[source.prometheus]]`

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sluice_settings::units;

use super::{MIN_INTERVAL, within};
use crate::config::ConfigError;

/// Pages in the text formats of Prometheus and OpenMetrics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prometheus {
    /// Also the `service.name` of what is scraped, as a job is in Prometheus.
    pub name: String,
    /// `http://` or `https://` addresses; the path is `/metrics` where none is given.
    pub targets: Vec<String>,
    #[serde(default = "scrape_interval", with = "units::duration")]
    pub interval: Duration,
    #[serde(default = "scrape_timeout", with = "units::duration")]
    pub timeout: Duration,
    #[serde(default = "max_page_bytes", with = "units::size")]
    pub max_page_bytes: u64,
    /// PEM file with the authorities of the targets; without it those of the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// File with a token that targets ask for; read at every scrape.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// Given to the resource of every target.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

fn scrape_interval() -> Duration {
    Duration::from_secs(30)
}

fn scrape_timeout() -> Duration {
    Duration::from_secs(10)
}

fn max_page_bytes() -> u64 {
    4 << 20
}

impl Prometheus {
    pub(super) fn check(&self, text: &str) -> Result<(), ConfigError> {
        let refuse =
            |key: &str, message: String| Err(ConfigError::value(text, &format!("source.prometheus.{key}"), message));
        if self.targets.is_empty() {
            return refuse("targets", "names no target".to_owned());
        }
        for target in &self.targets {
            let usable = reqwest::Url::parse(target)
                .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.host_str().is_some());
            if !usable {
                return refuse(
                    "targets",
                    format!("{target:?} is no address such as http://127.0.0.1:9100/metrics"),
                );
            }
        }
        if self.interval < MIN_INTERVAL {
            return refuse("interval", "is shorter than 1 s".to_owned());
        }
        if self.timeout.is_zero() || self.timeout > self.interval {
            return refuse(
                "timeout",
                "must be longer than nothing and no longer than `interval`".to_owned(),
            );
        }
        within(
            text,
            "source.prometheus.max_page_bytes",
            self.max_page_bytes,
            1 << 10,
            64 << 20,
        )
    }
}
