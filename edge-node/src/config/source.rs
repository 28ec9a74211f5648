//! What an edge reads beside the doors of OTLP: files, syslog, the machine itself, pages of Prometheus.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use regex_automata::meta::Regex;
use serde::{Deserialize, Serialize};
use sluice_settings::units;

use super::ConfigError;
use crate::source::event::time::parse_zone;

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

/// Files that grow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileLog {
    /// In status and metrics, and in the positions on disk: another name reads anew.
    pub name: String,
    /// Patterns of paths: `*`, `?`, `[a-z]`, and `**` for any folders.
    pub include: Vec<String>,
    #[serde(default)]
    pub exclude: Vec<String>,
    /// Of files that are there when the source begins for the first time; later ones are read from their beginning.
    #[serde(default)]
    pub start_at: StartAt,
    #[serde(default)]
    pub format: Format,
    /// For `regex`: named groups become attributes, or time, severity and so on by their names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multiline: Option<Multiline>,
    /// An event that is longer is cut and marked.
    #[serde(default = "max_event_bytes", with = "units::size")]
    pub max_event_bytes: u64,
    /// A last line without an end, or an event of several lines that may go on, is taken after so long without more.
    #[serde(default = "last_line_after", with = "units::duration")]
    pub last_line_after: Duration,
    #[serde(default = "poll_interval", with = "units::duration")]
    pub poll_interval: Duration,
    /// Files open at once; more of them are read in turn.
    #[serde(default = "max_open_files")]
    pub max_open_files: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Given to every event.
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StartAt {
    #[default]
    End,
    Beginning,
}

/// How a line is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    #[default]
    None,
    Json,
    Logfmt,
    Regex,
}

/// Which lines are one event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "multiline is { start = \"a pattern of first lines\" } or \"indented\""
)]
pub enum Multiline {
    /// Lines until the next one that matches.
    Start { start: String },
    /// A line and the indented lines behind it.
    Indented(Indented),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Indented {
    Indented,
}

/// Syslog over UDP, TCP and TLS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Syslog {
    pub name: String,
    #[serde(default)]
    pub udp: String,
    #[serde(default)]
    pub tcp: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsDoor>,
    /// Of senders that name no zone (RFC 3164): `UTC` or an offset such as `+02:00`.
    #[serde(default = "utc")]
    pub zone: String,
    #[serde(default = "max_message_bytes", with = "units::size")]
    pub max_message_bytes: u64,
    #[serde(default = "syslog_connections")]
    pub max_connections: usize,
    /// Messages that wait to be accepted.
    #[serde(default = "max_waiting_bytes", with = "units::size")]
    pub max_waiting_bytes: u64,
    /// What the kernel holds for the UDP socket; it grants no more than `net.core.rmem_max`.
    #[serde(default = "udp_buffer", with = "units::size")]
    pub udp_buffer: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsDoor {
    pub address: String,
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Senders must have a certificate of this authority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<PathBuf>,
}

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

impl Default for HostMetrics {
    fn default() -> Self {
        Self {
            enabled: false,
            interval: Duration::from_secs(30),
            root: PathBuf::from("/"),
        }
    }
}

fn max_event_bytes() -> u64 {
    128 << 10
}

fn last_line_after() -> Duration {
    Duration::from_secs(5)
}

fn poll_interval() -> Duration {
    Duration::from_millis(250)
}

/// A quarter of what a process may usually open.
fn max_open_files() -> usize {
    256
}

fn utc() -> String {
    "UTC".to_owned()
}

/// RFC 5424 asks receivers for 2 KiB; what applications send is longer.
fn max_message_bytes() -> u64 {
    64 << 10
}

fn syslog_connections() -> usize {
    128
}

fn max_waiting_bytes() -> u64 {
    4 << 20
}

fn udp_buffer() -> u64 {
    2 << 20
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
        let mut seen = BTreeSet::new();
        for (key, name) in names {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.chars().all(plain) {
                let message = format!("{name:?} is no name");
                return Err(
                    ConfigError::value(text, key, message).with_hint("letters, digits, `-`, `_` and `.`, up to 64")
                );
            }
            if !seen.insert(name) {
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

fn regex(text: &str, key: &str, pattern: &str) -> Result<Regex, ConfigError> {
    compile(pattern).map_err(|why| ConfigError::value(text, key, why))
}

/// A pattern within the sizes that patterns may have here.
pub(crate) fn compile(pattern: &str) -> Result<Regex, String> {
    use regex_automata::util::syntax;
    let sizes = Regex::config()
        .nfa_size_limit(Some(MAX_PATTERN_BYTES))
        .hybrid_cache_capacity(MAX_PATTERN_BYTES);
    Regex::builder()
        .configure(sizes)
        .syntax(syntax::Config::new().utf8(false))
        .build(pattern)
        .map_err(|error| match error.syntax_error() {
            // The first lines point into the pattern; the last one says what is wrong.
            Some(syntax) => syntax.to_string().lines().last().unwrap_or_default().to_owned(),
            None => format!("is larger than {MAX_PATTERN_BYTES} bytes once compiled"),
        })
}

/// Of a compiled pattern, and of what it remembers while it searches.
const MAX_PATTERN_BYTES: usize = 1 << 20;

impl FileLog {
    fn check(&self, text: &str) -> Result<(), ConfigError> {
        let refuse = |key: &str, message: &str| {
            Err(ConfigError::value(
                text,
                &format!("source.filelog.{key}"),
                message.to_owned(),
            ))
        };
        if self.include.is_empty() {
            return refuse("include", "names no file");
        }
        for (key, patterns) in [("include", &self.include), ("exclude", &self.exclude)] {
            if patterns.iter().any(String::is_empty) {
                return refuse(key, "an empty pattern matches nothing");
            }
        }
        match (self.format, &self.pattern) {
            (Format::Regex, None) => return refuse("format", "\"regex\" needs a `pattern`"),
            (Format::Regex, Some(pattern)) => {
                let regex = regex(text, "source.filelog.pattern", pattern)?;
                if regex.group_info().all_names().all(|(_, _, name)| name.is_none()) {
                    return refuse("pattern", "has no named group, such as (?<message>.*)");
                }
            }
            (_, Some(_)) => return refuse("pattern", "goes with format = \"regex\""),
            (_, None) => {}
        }
        if let Some(Multiline::Start { start }) = &self.multiline {
            regex(text, "source.filelog.multiline", start)?;
        }
        within(
            text,
            "source.filelog.max_event_bytes",
            self.max_event_bytes,
            256,
            1 << 20,
        )?;
        within(
            text,
            "source.filelog.max_open_files",
            self.max_open_files as u64,
            1,
            65_536,
        )?;
        if self.poll_interval.is_zero() {
            return refuse("poll_interval", "must be longer than nothing");
        }
        Ok(())
    }
}

impl Syslog {
    fn check(&self, text: &str, insecure: bool) -> Result<(), ConfigError> {
        let tls = self.tls.as_ref();
        let trusted = tls.is_some_and(|tls| tls.client_ca.is_some());
        let doors = [
            ("udp", self.udp.as_str(), false),
            ("tcp", self.tcp.as_str(), false),
            ("tls", tls.map_or("", |tls| tls.address.as_str()), trusted),
        ];
        if doors.iter().all(|(_, address, _)| address.is_empty()) {
            return Err(ConfigError::value(text, "source.syslog.name", "has no address")
                .with_hint("give it `udp`, `tcp` or `tls`"));
        }
        for (name, address, trusted) in doors.into_iter().filter(|(_, address, _)| !address.is_empty()) {
            let key = format!("source.syslog.{name}");
            let Ok(socket) = address.parse::<SocketAddr>() else {
                return Err(ConfigError::value(text, &key, format!("{address:?} is not an address"))
                    .with_hint("write ip:port, such as \"127.0.0.1:514\""));
            };
            if !socket.ip().is_loopback() && !insecure && !trusted {
                let message = format!("{socket} can be reached from other machines, and anybody may send there");
                return Err(ConfigError::value(text, &key, message)
                    .with_hint("use `tls` with `client_ca`, or say `insecure = true` in [listen]"));
            }
        }
        if parse_zone(&self.zone).is_none() {
            let message = format!("{:?} is no zone", self.zone);
            return Err(
                ConfigError::value(text, "source.syslog.zone", message).with_hint("write \"UTC\" or \"+02:00\"")
            );
        }
        within(
            text,
            "source.syslog.max_message_bytes",
            self.max_message_bytes,
            480,
            1 << 20,
        )?;
        within(
            text,
            "source.syslog.max_connections",
            self.max_connections as u64,
            1,
            65_536,
        )?;
        within(
            text,
            "source.syslog.max_waiting_bytes",
            self.max_waiting_bytes,
            self.max_message_bytes.max(64 << 10),
            64 << 20,
        )?;
        within(text, "source.syslog.udp_buffer", self.udp_buffer, 4 << 10, 256 << 20)
    }
}

impl Prometheus {
    fn check(&self, text: &str) -> Result<(), ConfigError> {
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
