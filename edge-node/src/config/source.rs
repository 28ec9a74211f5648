//! What an edge reads beside the doors of OTLP: files, syslog, the machine itself, pages of Prometheus.

mod filelog;
mod prometheus;
mod syslog;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sluice_settings::units;

use super::ConfigError;
pub(crate) use filelog::compile;
pub use filelog::{FileLog, Format, Indented, Multiline, StartAt};
pub use prometheus::Prometheus;
pub use syslog::{Syslog, TlsDoor};

/// `[source]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SourceSettings {
    pub host: HostMetrics,
    pub filelog: Vec<FileLog>,
    pub syslog: Vec<Syslog>,
    pub prometheus: Vec<Prometheus>,
}

/// Metrics of the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HostMetrics {
    pub enabled: bool,
    #[serde(with = "units::duration")]
    pub interval: Duration,
    /// Where `proc` and `sys` of the machine are: another folder than `/` inside a container.
    pub root: PathBuf,
}

impl Default for HostMetrics {
    fn default() -> Self {
        Self {
            enabled: false,
            interval: Duration::from_secs(30),
            root: PathBuf::from("/"),
        }
    }
}

impl SourceSettings {
    /// Makes paths relative to a folder.
    pub(super) fn resolve(&mut self, folder: &Path) {
        let join = |path: &mut PathBuf| *path = folder.join(&*path);
        for source in &mut self.filelog {
            for pattern in source.include.iter_mut().chain(&mut source.exclude) {
                // What is no UTF-8 cannot be told apart from a pattern; it is left as it stands.
                if let Some(joined) = folder.join(&*pattern).to_str() {
                    *pattern = joined.to_owned();
                }
            }
        }
        for tls in self.syslog.iter_mut().filter_map(|source| source.tls.as_mut()) {
            join(&mut tls.certificate);
            join(&mut tls.key);
            tls.client_ca.iter_mut().for_each(join);
        }
        for source in &mut self.prometheus {
            source.ca.iter_mut().for_each(join);
            source.token_file.iter_mut().for_each(join);
        }
    }

    /// `max_request_bytes`: what one event becomes must fit into a request.
    pub(super) fn check(&self, text: &str, insecure: bool, max_request_bytes: u64) -> Result<(), ConfigError> {
        let sizes = (self
            .filelog
            .iter()
            .map(|s| ("source.filelog.max_event_bytes", s.max_event_bytes)))
        .chain(
            self.syslog
                .iter()
                .map(|s| ("source.syslog.max_message_bytes", s.max_message_bytes)),
        );
        for (key, bytes) in sizes {
            if bytes > max_request_bytes / 4 {
                let message = format!("{bytes} is more than a quarter of `max_request_bytes` in [accept]");
                return Err(ConfigError::value(text, key, message));
            }
        }
        let names = (self.filelog.iter().map(|s| ("source.filelog.name", &s.name)))
            .chain(self.syslog.iter().map(|s| ("source.syslog.name", &s.name)))
            .chain(self.prometheus.iter().map(|s| ("source.prometheus.name", &s.name)));
        let mut seen: BTreeSet<&str> = ["host", "json-lines", "otlp-grpc", "otlp-http"].into();
        for (key, name) in names {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.chars().all(plain) {
                let message = format!("{name:?} is no name");
                return Err(
                    ConfigError::value(text, key, message).with_hint("letters, digits, `-`, `_` and `.`, up to 64")
                );
            }
            if !seen.insert(name.as_str()) {
                return Err(ConfigError::value(
                    text,
                    key,
                    format!("{name:?} is the name of another source"),
                ));
            }
        }
        if self.host.interval < MIN_INTERVAL {
            return Err(ConfigError::value(text, "source.host.interval", "is shorter than 1 s"));
        }
        self.filelog.iter().try_for_each(|source| source.check(text))?;
        self.syslog.iter().try_for_each(|source| source.check(text, insecure))?;
        self.prometheus.iter().try_for_each(|source| source.check(text))
    }
}

const MAX_NAME_BYTES: usize = 64;
const MIN_INTERVAL: Duration = Duration::from_secs(1);

fn within(text: &str, key: &str, value: u64, min: u64, max: u64) -> Result<(), ConfigError> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(ConfigError::value(
        text,
        key,
        format!("{value} is not between {min} and {max}"),
    ))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
