//! What an operator says of the way to the gateways, and the defaults of each class of link.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sluice_settings::{ConfigError, units};
use sluice_wire::session::LanePolicy;

use super::EdgeConfig;
use crate::link::{self, LinkConfig};

/// In the data folder: the certificate that came over the link, with its key.
const RENEWED_FILE: &str = "link-certificate.pem";

/// The way to the gateways; without a gateway everything stays in the spool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Link {
    /// Chooses the defaults of several keys, here and in `[seal]`.
    pub class: LinkClass,
    pub gateways: Vec<String>,
    /// The first gateway is the home of every node, the others stand by; else nodes are spread over them.
    pub first_is_home: bool,
    /// Where another gateway serves, home is tried again after this.
    #[serde(with = "units::duration")]
    pub return_after: Duration,
    pub server_name: String,
    pub certificate: PathBuf,
    pub key: PathBuf,
    pub ca: PathBuf,
    /// Ask the gateway for a new certificate when two thirds of its life are over.
    pub renew: bool,
    pub max_in_flight: usize,
    #[serde(with = "units::size")]
    pub max_in_flight_bytes: u64,
    /// What goes first where the link is too thin for both lanes.
    pub policy: Policy,
    /// Under `weighted`: percent of a busy link for what is live.
    pub live_percent: u8,
    /// What is in the spool for longer is backlog.
    #[serde(with = "units::duration")]
    pub live_for: Duration,
    /// How long what is on its way may stand in the queues of the network, in front of a fresh batch.
    #[serde(with = "units::duration")]
    pub max_queue: Duration,
    #[serde(with = "units::duration")]
    pub idle_timeout: Duration,
    #[serde(with = "units::duration")]
    pub keep_alive: Duration,
    #[serde(with = "units::duration")]
    pub retry_min: Duration,
    #[serde(with = "units::duration")]
    pub retry_max: Duration,
    #[serde(with = "units::duration")]
    pub connect_timeout: Duration,
    /// Silence after which a gateway is asked whether it is there before a handshake is begun.
    #[serde(with = "units::duration")]
    pub spare_after: Duration,
    #[serde(with = "units::duration")]
    pub ack_timeout: Duration,
    /// How often the node reports of itself over the link.
    #[serde(with = "units::duration")]
    pub report_every: Duration,
    /// How long an ending process waits for acknowledgements; what is not acknowledged stays in the spool.
    #[serde(with = "units::duration")]
    pub drain: Duration,
    pub budget: Budget,
}

/// What kind of link it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkClass {
    #[default]
    Fibre,
    Lte,
    Satellite,
}

/// How live and backlog share a link that is too thin for both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    #[default]
    FreshFirst,
    OldestFirst,
    Weighted,
}

/// What the link may cost; 0 is no limit. A day and its times are in UTC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Budget {
    #[serde(with = "units::size")]
    pub per_second: u64,
    #[serde(with = "units::size")]
    pub per_day: u64,
    /// Percent of a day's bytes that the backlog does not touch.
    pub live_percent: u8,
    /// What else is done when more comes in than there is room for.
    pub when_short: Vec<WhenShort>,
    /// The first that holds counts instead of `per_second`.
    pub window: Vec<Window>,
}

/// What saves bytes of a short budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WhenShort {
    /// `sample` is asked to keep fewer rows.
    Sampling,
    /// Batches are made as small as they can be.
    Compression,
}

/// Some hours of every day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    pub from: TimeOfDay,
    pub to: TimeOfDay,
    #[serde(default, with = "units::size")]
    pub per_second: u64,
    /// Bytes do not count against the day.
    #[serde(default)]
    pub free: bool,
}

/// `"22:30"`, as minutes since midnight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeOfDay(pub u16);

impl Serialize for TimeOfDay {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&format_args!("{:02}:{:02}", self.0 / 60, self.0 % 60))
    }
}

impl<'de> Deserialize<'de> for TimeOfDay {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        let parts = text.split_once(':');
        let parts = parts.and_then(|(h, m)| Some((h.parse::<u16>().ok()?, m.parse::<u16>().ok()?)));
        match parts {
            Some((hours, minutes)) if hours < 24 && minutes < 60 => Ok(Self(hours * 60 + minutes)),
            _ => Err(serde::de::Error::custom(format!(
                "{text:?} is no time of the day such as \"22:30\""
            ))),
        }
    }
}

impl Default for Link {
    fn default() -> Self {
        let d = LinkConfig::new("", PathBuf::new(), PathBuf::new(), PathBuf::new());
        Self {
            class: LinkClass::default(),
            gateways: Vec::new(),
            first_is_home: d.first_is_home,
            return_after: d.return_after,
            server_name: String::new(),
            certificate: PathBuf::new(),
            key: PathBuf::new(),
            ca: PathBuf::new(),
            renew: true,
            max_in_flight: d.max_in_flight,
            max_in_flight_bytes: d.max_in_flight_bytes,
            policy: Policy::default(),
            live_percent: 80,
            live_for: d.live_for,
            max_queue: d.max_queue,
            idle_timeout: d.idle_timeout,
            keep_alive: d.keep_alive,
            retry_min: d.retry.0,
            retry_max: d.retry.1,
            connect_timeout: d.connect_timeout,
            spare_after: d.spare_after,
            ack_timeout: d.ack_timeout,
            report_every: Duration::from_secs(30),
            drain: Duration::from_secs(5),
            budget: Budget::default(),
        }
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            per_second: 0,
            per_day: 0,
            live_percent: link::Budget::default().live_percent,
            when_short: Vec::new(),
            window: Vec::new(),
        }
    }
}

impl LinkClass {
    /// Puts the defaults of this class into a configuration. `deploy/config/edge.toml` lists them.
    fn apply(self, config: &mut EdgeConfig) {
        let (link, seal) = (&mut config.link, &mut config.seal);
        let seconds = Duration::from_secs;
        link.class = self;
        match self {
            Self::Fibre => {}
            // Paid by the byte, and behind a carrier's NAT that forgets after half a minute.
            Self::Lte => {
                seal.zstd_level = 6;
                (link.keep_alive, link.idle_timeout) = (seconds(10), seconds(25));
                (link.max_in_flight, link.max_in_flight_bytes) = (32, 4 << 20);
                link.connect_timeout = seconds(5);
                link.report_every = seconds(60);
            }
            // Half a second away, and thin.
            Self::Satellite => {
                seal.zstd_level = 9;
                seal.freshness = seconds(5);
                link.live_for = seconds(10);
                link.max_queue = Duration::from_millis(500);
                (link.keep_alive, link.idle_timeout) = (seconds(15), seconds(40));
                (link.retry_min, link.retry_max) = (seconds(2), seconds(4));
                (link.max_in_flight, link.max_in_flight_bytes) = (32, 4 << 20);
                link.connect_timeout = seconds(10);
                link.ack_timeout = seconds(60);
                link.report_every = seconds(300);
            }
        }
    }
}

/// The configuration with the defaults of its class of link where the file says nothing.
pub(super) fn with_class(config: EdgeConfig, text: &str) -> Result<EdgeConfig, ConfigError> {
    if config.link.class == LinkClass::Fibre {
        return Ok(config);
    }
    let refuse = |error: String| ConfigError::new(format!("defaults of the link's class: {error}"));
    let mut defaults = EdgeConfig::default();
    config.link.class.apply(&mut defaults);
    let mut merged = toml::Table::try_from(&defaults).map_err(|e| refuse(e.to_string()))?;
    let given: toml::Table = text.parse().map_err(|e: toml::de::Error| refuse(e.to_string()))?;
    merge(&mut merged, given);
    merged.try_into().map_err(|e| refuse(e.to_string()))
}

fn merge(into: &mut toml::Table, from: toml::Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(toml::Value::Table(into)), toml::Value::Table(from)) => merge(into, from),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

impl Link {
    pub(super) fn check(&self, text: &str) -> Result<(), ConfigError> {
        let refuse = |key: &str, message: &str| Err(ConfigError::value(text, key, message));
        let not_zero = [
            ("link.return_after", self.return_after),
            ("link.live_for", self.live_for),
            ("link.keep_alive", self.keep_alive),
            ("link.connect_timeout", self.connect_timeout),
            ("link.ack_timeout", self.ack_timeout),
            ("link.retry_max", self.retry_max),
        ];
        if let Some((key, _)) = not_zero.iter().find(|(_, value)| value.is_zero()) {
            return refuse(key, "must be longer than nothing");
        }
        if self.idle_timeout <= self.keep_alive {
            return refuse(
                "link.keep_alive",
                "must be shorter than link.idle_timeout, else a quiet link counts as dead",
            );
        }
        if self.retry_min > self.retry_max {
            return refuse("link.retry_min", "must not be longer than link.retry_max");
        }
        if !(1..=99).contains(&self.live_percent) {
            return refuse("link.live_percent", "goes from 1 to 99");
        }
        if self.budget.live_percent > 100 {
            return refuse("link.budget.live_percent", "goes from 0 to 100");
        }
        if self.budget.window.iter().any(|window| window.from == window.to) {
            return refuse("link.budget.window", "has a window that ends when it begins");
        }
        if !self.gateways.is_empty() {
            for (key, path) in [
                ("link.certificate", &self.certificate),
                ("link.key", &self.key),
                ("link.ca", &self.ca),
            ] {
                if path.as_os_str().is_empty() {
                    return Err(ConfigError::value(text, key, "is needed to reach a gateway")
                        .with_hint("`sluice ca issue --tenant T --node N` makes it"));
                }
            }
        }
        Ok(())
    }

    /// Where a certificate that came over the link is kept, if any is asked for.
    pub(crate) fn renewed_file(&self, data_dir: &std::path::Path) -> Option<PathBuf> {
        self.renew.then(|| data_dir.join(RENEWED_FILE))
    }

    /// How the two lanes share the link.
    pub(crate) fn lane_policy(&self) -> LanePolicy {
        match self.policy {
            Policy::FreshFirst => LanePolicy::FreshFirst,
            Policy::OldestFirst => LanePolicy::OldestFirst,
            Policy::Weighted => LanePolicy::Weighted {
                live_percent: self.live_percent,
            },
        }
    }

    /// What the uplink needs; `None` without a gateway.
    pub(crate) fn resolve(&self, data_dir: &std::path::Path) -> Option<LinkConfig> {
        let d = LinkConfig::new("", PathBuf::new(), PathBuf::new(), PathBuf::new());
        (!self.gateways.is_empty()).then(|| LinkConfig {
            gateways: self.gateways.clone(),
            first_is_home: self.first_is_home,
            return_after: self.return_after,
            server_name: (!self.server_name.is_empty()).then(|| self.server_name.clone()),
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            ca: self.ca.clone(),
            renewed: self.renewed_file(data_dir),
            look_every: d.look_every,
            clock: d.clock,
            max_in_flight: self.max_in_flight,
            max_in_flight_bytes: self.max_in_flight_bytes,
            policy: self.lane_policy(),
            live_for: self.live_for,
            max_queue: self.max_queue,
            idle_timeout: self.idle_timeout,
            keep_alive: self.keep_alive,
            retry: (self.retry_min, self.retry_max),
            connect_timeout: self.connect_timeout,
            spare_after: self.spare_after,
            ack_timeout: self.ack_timeout,
            budget: self.budget.resolve(self.policy),
            budget_file: Some(data_dir.join("link-budget")),
        })
    }
}

impl Budget {
    fn resolve(&self, policy: Policy) -> link::Budget {
        let limit = |bytes: u64| (bytes > 0).then_some(bytes);
        link::Budget {
            per_second: limit(self.per_second),
            per_day: limit(self.per_day),
            // Nothing live is sent before the backlog, so what is kept for it would be kept for nobody.
            live_percent: match policy {
                Policy::OldestFirst => 0,
                _ => self.live_percent,
            },
            windows: self
                .window
                .iter()
                .map(|window| link::Window {
                    from_minute: window.from.0,
                    to_minute: window.to.0,
                    per_second: limit(window.per_second),
                    free: window.free,
                })
                .collect(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_class_gives_defaults_and_what_is_written_counts() {
        let text = "[link]\nclass = \"satellite\"\nkeep_alive = \"20 s\"\n[seal]\nmax_rows = 100\n[[plugin]]\nname = \"filter\"\n";
        let config = EdgeConfig::from_toml(text).unwrap();
        assert_eq!(config.link.keep_alive, Duration::from_secs(20));
        assert_eq!(config.link.idle_timeout, Duration::from_secs(40));
        assert_eq!((config.seal.zstd_level, config.seal.max_rows), (9, 100));
        assert_eq!(config.seal.freshness, Duration::from_secs(5));
        assert_eq!((config.plugin.len(), config.accept), (1, EdgeConfig::default().accept));
        let written = "[link]\nclass = \"lte\"\n[seal]\nzstd_level = 3\n";
        assert_eq!(EdgeConfig::from_toml(written).unwrap().seal.zstd_level, 3);
        let fibre = EdgeConfig::from_toml("[link]\nclass = \"fibre\"\n").unwrap();
        assert_eq!(fibre, EdgeConfig::default());
    }

    /// What the shipped file says of the classes is what they are.
    #[test]
    fn the_shipped_table_of_classes_is_true() {
        let shipped = include_str!("../../../deploy/config/edge.toml");
        let of = |class: LinkClass| {
            let mut config = EdgeConfig::default();
            class.apply(&mut config);
            toml::Table::try_from(&config).unwrap()
        };
        let tables = [LinkClass::Fibre, LinkClass::Lte, LinkClass::Satellite].map(of);
        let value = |table: &toml::Table, (section, key): (&str, &str)| {
            let value = table[section][key].to_string();
            value.trim_matches('"').to_owned()
        };
        let mut rows = 0;
        for (section, keys) in [
            ("seal", tables[0]["seal"].as_table()),
            ("link", tables[0]["link"].as_table()),
        ] {
            for key in keys.unwrap().keys().filter(|key| *key != "class") {
                let values = tables.each_ref().map(|table| value(table, (section, key)));
                if values.iter().all(|v| *v == values[0]) {
                    continue;
                }
                rows += 1;
                let row = format!(
                    "#   {:<26}{:<10}{:<10}{}",
                    format!("{section}.{key}"),
                    values[0],
                    values[1],
                    values[2]
                );
                assert!(shipped.lines().any(|line| line == row), "no line {row:?}");
            }
        }
        assert_eq!(rows, 12);
    }

    #[test]
    fn budgets_are_read_and_mistakes_told() {
        let text = "[link.budget]\nper_day = \"500 MB\"\n[[link.budget.window]]\nfrom = \"22:00\"\nto = \"06:30\"\nfree = true\n";
        let budget = EdgeConfig::from_toml(text)
            .unwrap()
            .link
            .budget
            .resolve(Policy::FreshFirst);
        assert_eq!((budget.per_day, budget.per_second), (Some(500_000_000), None));
        assert_eq!(
            (budget.windows[0].from_minute, budget.windows[0].to_minute),
            (1320, 390)
        );
        let check = |text: &str, line: usize, key: &str| {
            let error = EdgeConfig::from_toml(text).unwrap_err();
            assert_eq!((error.line, error.key.as_deref()), (Some(line), Some(key)), "{error}");
        };
        check("[link]\nkeep_alive = \"60 s\"\n", 2, "link.keep_alive");
        check("[link]\nretry_min = \"1 h\"\n", 2, "link.retry_min");
        check("[link]\nlive_percent = 100\n", 2, "link.live_percent");
        check("[link]\nclass = \"dsl\"\n", 2, "class");
        check("[link.budget]\nwhen_short = [\"thrift\"]\n", 2, "when_short");
        let late = "[[link.budget.window]]\nfrom = \"25:00\"\nto = \"06:00\"\n";
        assert!(EdgeConfig::from_toml(late).unwrap_err().to_string().contains("22:30"));
    }
}
