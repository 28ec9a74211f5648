//! The configuration of an edge: one TOML file, every key with a default. `deploy/config/edge.toml` shows them all.

mod limits;
mod link;
mod plugin;
mod source;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
pub use sluice_settings::ConfigError;
use sluice_settings::units;
use sluice_wire::ids::{NodeId, TenantId};
use sluice_wire::otlp::DecodeLimits;

pub use limits::{PluginLimits, Size, Span};
pub use link::{Budget, Link, LinkClass, Policy, TimeOfDay, WhenShort, Window};
pub use plugin::{KeyedTable, PluginEntry, ShadowEntry, SignalName, TableEntry};
pub(crate) use source::compile;
pub use source::{
    FileLog, Format, HostMetrics, Indented, Multiline, Prometheus, SourceSettings, StartAt, Syslog, TlsDoor,
};

/// Everything that an edge can be told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EdgeConfig {
    /// Empty: the name in the link's certificate, or `default` without a link.
    pub tenant: String,
    /// Empty: the name in the link's certificate, or `edge` without a link.
    pub node: String,
    pub data_dir: PathBuf,
    pub listen: Listen,
    pub accept: Accept,
    pub seal: Seal,
    pub spool: SpoolSettings,
    pub link: Link,
    pub admin: Admin,
    pub packages: Packages,
    /// What is read beside the doors.
    pub source: SourceSettings,
    /// The chain, in order.
    pub plugin: Vec<PluginEntry>,
}

/// Addresses; an empty one is switched off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Listen {
    pub otlp_grpc: String,
    pub otlp_http: String,
    pub http: String,
    /// Allows addresses beyond loopback although the doors ask for no token.
    pub insecure: bool,
}

/// What the doors take. These limits bound the memory of the process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Accept {
    /// One request, once decompressed.
    #[serde(with = "units::size")]
    pub max_request_bytes: u64,
    /// All request bodies held at once.
    #[serde(with = "units::size")]
    pub max_request_memory: u64,
    /// Accepted rows in memory that wait to be sealed.
    #[serde(with = "units::size")]
    pub max_unsealed: u64,
    pub max_rows: usize,
    pub max_attributes: usize,
    pub max_depth: usize,
    pub max_columns: usize,
    /// Connections of one door.
    pub max_connections: usize,
    /// Requests of one HTTP/2 connection.
    pub max_streams: u32,
    /// Threads that decode and run plugins; 0 takes as many as there are cores, up to 4.
    pub workers: usize,
    /// From a connection to the head of its first request; then it is closed.
    #[serde(with = "units::duration")]
    pub first_request_timeout: Duration,
    /// A connection without a request for so long is closed.
    #[serde(with = "units::duration")]
    pub idle_timeout: Duration,
    /// A body that is not complete after this is refused.
    #[serde(with = "units::duration")]
    pub read_timeout: Duration,
    /// How long a request waits for room before it is told to come again.
    #[serde(with = "units::duration")]
    pub wait: Duration,
    /// What senders are told to wait when there is no room.
    #[serde(with = "units::duration")]
    pub retry_after: Duration,
}

/// When accepted rows become a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Seal {
    pub max_rows: usize,
    #[serde(with = "units::size")]
    pub max_bytes: u64,
    /// While the link is up and idle, no row waits longer.
    #[serde(with = "units::duration")]
    pub freshness: Duration,
    /// While the link is down, no row waits longer.
    #[serde(with = "units::duration")]
    pub offline_age: Duration,
    /// 0 switches compression off.
    pub zstd_level: i32,
    /// No sealed batch is larger; logs take 8 MiB.
    #[serde(with = "units::size")]
    pub max_batch_bytes: u64,
}

/// What is kept on disk until it is acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SpoolSettings {
    /// Journal and spool together; beyond it `on_full` says what happens.
    #[serde(with = "units::size")]
    pub max_bytes: u64,
    pub on_full: OnFull,
    /// With `drop_oldest`: batches that the cloud does not have after this are dropped, too. Zero: never.
    #[serde(with = "units::duration")]
    pub max_age: Duration,
    /// Kept free for the cursor and for deletes on a full disk.
    #[serde(with = "units::size")]
    pub ballast: u64,
}

/// What happens when there is no room for new events, under the cap or on the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFull {
    /// New events are refused, senders are told to come again, and nothing accepted is dropped.
    #[default]
    Refuse,
    /// The oldest sealed batches are dropped, and counted.
    DropOldest,
}

/// What an operator may look at over HTTP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// Shows events as they come in, before any plugin, to whoever has the token of this node.
    pub tap: bool,
}

/// Rules for signed plugins beside the pinned keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Packages {
    /// Loads nothing while the list of revocations is missing or too old; else that is a warning.
    pub strict_revocations: bool,
}

impl Default for EdgeConfig {
    fn default() -> Self {
        Self {
            tenant: String::new(),
            node: String::new(),
            data_dir: PathBuf::from("sluice-edge-data"),
            listen: Listen::default(),
            accept: Accept::default(),
            seal: Seal::default(),
            spool: SpoolSettings::default(),
            link: Link::default(),
            admin: Admin::default(),
            packages: Packages::default(),
            source: SourceSettings::default(),
            plugin: Vec::new(),
        }
    }
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            otlp_grpc: "127.0.0.1:4317".to_owned(),
            otlp_http: "127.0.0.1:4318".to_owned(),
            http: "127.0.0.1:7080".to_owned(),
            insecure: false,
        }
    }
}

impl Default for Accept {
    fn default() -> Self {
        let limits = DecodeLimits::default();
        Self {
            max_request_bytes: 8 << 20,
            max_request_memory: 32 << 20,
            max_unsealed: 32 << 20,
            max_rows: limits.max_rows,
            max_attributes: limits.max_attributes,
            max_depth: limits.max_depth,
            max_columns: limits.max_columns,
            max_connections: 128,
            max_streams: 64,
            workers: 0,
            first_request_timeout: Duration::from_secs(10),
            // Exporters send every 60 s at least.
            idle_timeout: Duration::from_secs(75),
            read_timeout: Duration::from_secs(30),
            wait: Duration::from_secs(5),
            retry_after: Duration::from_secs(2),
        }
    }
}

impl Default for Seal {
    fn default() -> Self {
        Self {
            max_rows: 8192,
            max_bytes: 4 << 20,
            freshness: Duration::from_secs(1),
            offline_age: Duration::from_secs(30),
            zstd_level: 3,
            max_batch_bytes: 7 << 20,
        }
    }
}

impl Default for SpoolSettings {
    fn default() -> Self {
        Self {
            max_bytes: 10 << 30,
            on_full: OnFull::Refuse,
            max_age: Duration::ZERO,
            ballast: 1 << 20,
        }
    }
}

impl EdgeConfig {
    /// Parses and checks a configuration file.
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        let config: Self = sluice_settings::parse(text).map_err(|error| match error.key.as_deref() {
            Some("edge") => error.with_hint(
                "[edge] belongs into the file of `sluice up`; in that of an edge alone its keys stand by themselves: [[plugin]], [admin], …",
            ),
            _ => error,
        })?;
        let config = link::with_class(config, text)?;
        config.check(text)?;
        Ok(config)
    }

    /// Reads a configuration file. Plugins and certificates are looked for beside it.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let mut config = sluice_settings::load(path, Self::from_toml)?;
        config.resolve(path.parent().unwrap_or(Path::new("")));
        Ok(config)
    }

    /// Makes the paths of plugins and certificates relative to a folder.
    pub fn resolve(&mut self, folder: &Path) {
        let link = &mut self.link;
        for path in [&mut link.certificate, &mut link.key, &mut link.ca] {
            if !path.as_os_str().is_empty() {
                *path = folder.join(&*path);
            }
        }
        self.source.resolve(folder);
        self.plugin.iter_mut().for_each(|entry| entry.resolve(folder));
    }

    /// The rules that a type cannot hold. `text` is where the lines of mistakes are looked up.
    pub fn check(&self, text: &str) -> Result<(), ConfigError> {
        let refuse = |key: &str, message: String| Err(ConfigError::value(text, key, message));
        if let Some(Err(e)) = (!self.tenant.is_empty()).then(|| TenantId::new(&self.tenant)) {
            return refuse("tenant", e.to_string());
        }
        if let Some(Err(e)) = (!self.node.is_empty()).then(|| NodeId::new(&self.node)) {
            return refuse("node", e.to_string());
        }
        self.check_addresses(text)?;
        self.check_sizes(text)?;
        self.source
            .check(text, self.listen.insecure, self.accept.max_request_bytes)?;
        self.link.check(text)?;
        plugin::check(&self.plugin, text)
    }

    fn check_addresses(&self, text: &str) -> Result<(), ConfigError> {
        for (name, address) in self.listen.entries() {
            if address.is_empty() {
                continue;
            }
            let key = format!("listen.{name}");
            let Ok(address) = address.parse::<SocketAddr>() else {
                return Err(ConfigError::value(text, &key, format!("{address:?} is not an address"))
                    .with_hint("write ip:port, such as \"127.0.0.1:4317\", or \"\" for none"));
            };
            if !address.ip().is_loopback() && !self.listen.insecure {
                return Err(ConfigError::value(
                    text,
                    &key,
                    format!("{address} can be reached from other machines without a token and without TLS"),
                )
                .with_hint("listen on loopback, or say `insecure = true` in [listen]"));
            }
        }
        Ok(())
    }

    fn check_sizes(&self, text: &str) -> Result<(), ConfigError> {
        let ranges = [
            (
                "accept.max_request_bytes",
                self.accept.max_request_bytes,
                1 << 10,
                64 << 20,
            ),
            (
                "accept.max_request_memory",
                self.accept.max_request_memory,
                self.accept.max_request_bytes,
                1 << 32,
            ),
            ("accept.max_unsealed", self.accept.max_unsealed, 1 << 20, 1 << 32),
            ("accept.max_rows", self.accept.max_rows as u64, 1, 65_536),
            ("accept.max_attributes", self.accept.max_attributes as u64, 16, 65_536),
            ("accept.max_depth", self.accept.max_depth as u64, 1, 128),
            ("accept.max_columns", self.accept.max_columns as u64, 1, 1024),
            ("accept.max_connections", self.accept.max_connections as u64, 1, 65_536),
            ("accept.max_streams", u64::from(self.accept.max_streams), 1, 65_536),
            ("accept.workers", self.accept.workers as u64, 0, 256),
            ("seal.max_rows", self.seal.max_rows as u64, 1, 65_536),
            ("seal.max_bytes", self.seal.max_bytes, 64 << 10, 32 << 20),
            ("seal.max_batch_bytes", self.seal.max_batch_bytes, 64 << 10, 48 << 20),
            ("spool.max_bytes", self.spool.max_bytes, 8 << 20, 1 << 50),
            ("spool.ballast", self.spool.ballast, 0, 1 << 30),
            ("link.max_in_flight", self.link.max_in_flight as u64, 1, 4096),
        ];
        for (key, value, min, max) in ranges {
            if value < min || value > max {
                let message = format!("{value} is not between {min} and {max}");
                return Err(ConfigError::value(text, key, message));
            }
        }
        for (key, value) in [
            ("accept.first_request_timeout", self.accept.first_request_timeout),
            ("accept.idle_timeout", self.accept.idle_timeout),
        ] {
            if value.is_zero() {
                return Err(ConfigError::value(text, key, "must be longer than nothing"));
            }
        }
        if !self.spool.max_age.is_zero() && self.spool.on_full == OnFull::Refuse {
            return Err(ConfigError::value(
                text,
                "spool.max_age",
                "drops events that were accepted, and `on_full` refuses to",
            )
            .with_hint("say `on_full = \"drop_oldest\"`, or leave `max_age` out"));
        }
        if !(0..=19).contains(&self.seal.zstd_level) {
            return Err(ConfigError::value(text, "seal.zstd_level", "is not between 0 and 19"));
        }
        Ok(())
    }

    pub(crate) fn decode_limits(&self) -> DecodeLimits {
        let max_bytes = usize::try_from(self.accept.max_request_bytes).unwrap_or(usize::MAX);
        let defaults = DecodeLimits::default();
        DecodeLimits {
            max_bytes,
            max_rows: self.accept.max_rows,
            max_depth: self.accept.max_depth,
            max_attributes: self.accept.max_attributes,
            max_columns: self.accept.max_columns,
            // A request may unfold to four times its size at most, as many workers at once.
            max_expanded_bytes: (4 * max_bytes).min(defaults.max_expanded_bytes),
            ..defaults
        }
    }
}

impl Listen {
    /// Name of each door and its address.
    pub fn entries(&self) -> [(&'static str, &str); 3] {
        [
            ("otlp-grpc", &self.otlp_grpc),
            ("otlp-http", &self.otlp_http),
            ("http", &self.http),
        ]
    }

    /// Overrides one address, as `--listen NAME=ADDR` does.
    pub fn set(&mut self, name: &str, address: &str) -> Result<(), ConfigError> {
        let place = match name {
            "otlp-grpc" => &mut self.otlp_grpc,
            "otlp-http" => &mut self.otlp_http,
            "http" => &mut self.http,
            _ => {
                return Err(
                    ConfigError::value("", &format!("listen.{name}"), "there is no such address")
                        .with_hint("names are otlp-grpc, otlp-http and http"),
                );
            }
        };
        *place = address.to_owned();
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const SHIPPED: &str = include_str!("../../../deploy/config/edge.toml");
    /// Shown as examples.
    const LISTS: [&str; 5] = [
        "plugin",
        "link.budget.window",
        "source.filelog",
        "source.syslog",
        "source.prometheus",
    ];

    #[test]
    fn the_shipped_file_shows_every_key_with_its_default() {
        let shipped = EdgeConfig::from_toml(SHIPPED).unwrap();
        assert_eq!(shipped, EdgeConfig::default());
        let missing: Vec<_> = sluice_settings::explain(&shipped, SHIPPED)
            .into_iter()
            .filter(|s| s.origin == "default" && !LISTS.contains(&s.key.as_str()))
            .collect();
        assert!(missing.is_empty(), "{missing:?}");
    }

    /// What is shown behind one `#` is meant to be taken over.
    #[test]
    fn the_example_of_a_plugin_can_be_taken_over() {
        let example: Vec<&str> = SHIPPED
            .lines()
            .skip_while(|line| *line != "# [[plugin]]")
            .map(|line| line.strip_prefix("# ").unwrap())
            .collect();
        let config = EdgeConfig::from_toml(&example.join("\n")).unwrap();
        let entry = &config.plugin[0];
        assert_eq!(entry.limits.resolve(), sluice_runtime::Limits::default());
        assert_eq!(entry.limits.state_bytes(), sluice_runtime::DEFAULT_STATE_BYTES);
        assert_eq!((entry.tables.len(), entry.shadow.is_some()), (3, true));
    }

    #[test]
    fn mistakes_are_told_with_line_key_and_hint() {
        let check = |text: &str, line: usize, key: &str, says: &str| {
            let error = EdgeConfig::from_toml(text).unwrap_err();
            assert_eq!((error.line, error.key.as_deref()), (Some(line), Some(key)), "{error}");
            assert!(error.to_string().contains(says), "{error}");
        };
        check("[seal]\nmax_row = 4", 2, "max_row", "did you mean `max_rows`?");
        check(
            "tenant = \"a\"\n\n[lisen]\nhttp = \"\"",
            3,
            "lisen",
            "did you mean `listen`?",
        );
        check("[seal]\n\nfreshness = \"5\"", 3, "freshness", "has no unit");
        check("[spool]\nmax_bytes = \"1 TB\"", 2, "max_bytes", "64 MiB");
        check("[spool]\nmax_bytes = \"1 KiB\"", 2, "spool.max_bytes", "between");
        check("[spool]\nmax_age = \"1 h\"", 2, "spool.max_age", "drop_oldest");
        check("[spool]\non_full = \"drop\"", 2, "on_full", "drop_oldest");
        check("tenant = \"A\"", 1, "tenant", "tenant");
        check("[listen]\nhttp = \"0.0.0.0:80\"", 2, "listen.http", "insecure = true");
        check("[listen]\nhttp = \"localhost\"", 2, "listen.http", "ip:port");
        check(
            "[[plugin]]\nname = \"a\"\npath = \"x\"\nsignals = [\"lug\"]",
            4,
            "signals",
            "log",
        );
        let plugin = |more: &str| format!("[[plugin]]\nname = \"a\"\n{more}");
        check(&plugin("path = \"x.wasm\""), 3, "plugin.path", "unsigned = true");
        check(&plugin("unsigned = true"), 3, "plugin.unsigned", "goes with `path`");
        check(
            &plugin("limits = { memry = \"1 MiB\" }"),
            3,
            "memry",
            "did you mean `memory`?",
        );
        check(&plugin("shadow = { share = 0.5 }"), 3, "plugin.shadow", "one version");
        check(
            &plugin("shadow = { version = \"1.0.0\", share = 0.0 }"),
            3,
            "plugin.shadow",
            "more than 0",
        );
        check(&plugin("tables = { t = 1 }"), 3, "tables", "path of a file");
        check(&plugin("capabilities = [\"network\"]"), 3, "capabilities", "lookup");
        check("[[plugin]]\nname = \"a b\"", 2, "plugin.name", "no name");
        check("[[edge.plugin]]\nname = \"mask\"", 1, "edge", "[[plugin]]");
    }

    #[test]
    fn a_link_needs_its_certificates() {
        let error = EdgeConfig::from_toml("[link]\ngateways = [\"gw:7443\"]").unwrap_err();
        assert_eq!(error.key.as_deref(), Some("link.certificate"));
    }

    #[test]
    fn explain_tells_where_a_value_comes_from() {
        let text = "[seal]\nmax_rows = 100\n";
        let settings = sluice_settings::explain(&EdgeConfig::from_toml(text).unwrap(), text);
        let find = |key: &str| settings.iter().find(|s| s.key == key).unwrap();
        assert_eq!(
            (find("seal.max_rows").origin, find("seal.max_rows").value.as_str()),
            ("file", "100")
        );
        assert_eq!(find("seal.freshness").origin, "default");
    }
}
