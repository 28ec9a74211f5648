//! What an operator may set for ingest. `deploy/config/ingest.toml` shows every key with its default.

mod kafka;
mod otlp;
mod quarantine;
mod reference;
mod retention;
mod s3;
mod tenants;
mod writes;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sluice_settings::{ConfigError, units};

use sluice_store::hot::HotStore;
use sluice_store::hot::clickhouse::{ClickHouseConfig, ConfigError as HotConfigError};
use sluice_store::{ClickHouseHot, EmbeddedHot, Hot};

pub use self::kafka::{KafkaSettings, Property};
pub use self::otlp::OtlpSettings;
pub use self::quarantine::QuarantineSettings;
pub use self::reference::{Env, File, Reference};
pub use self::retention::{Keep, RetentionSettings};
pub use self::s3::S3Settings;
pub use self::tenants::TenantsSettings;
pub use self::writes::Writes;
use crate::gateway::{DEFAULT_EDGE_STATE, DEFAULT_GRACE, DEFAULT_MAX_LAG, MIN_EDGE_STATE};

/// Merging decodes files in memory, where rows are about ten times as large.
const MAX_FILE_BYTES: u64 = 128 << 20;
const MIN_FILE_BYTES: u64 = 1 << 20;
/// One block is one Arrow batch, whose texts of a column have at most 2 GiB.
const MAX_INSERT_BYTES: u64 = 512 << 20;
/// Far above what a query may take.
const MIN_VACUUM_AFTER: Duration = Duration::from_secs(3600);

/// The ingest role's configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IngestConfig {
    /// Any of `gateway`, `hot`, `cold`; or `otlp` by itself.
    pub roles: Vec<Role>,
    /// Log and state of the writers.
    pub data_dir: PathBuf,
    /// Folder or URL of the lake.
    pub lake: String,
    pub s3: S3Settings,
    pub admin: AdminSettings,
    pub gateway: GatewaySettings,
    pub tenants: TenantsSettings,
    pub otlp: OtlpSettings,
    pub log: LogSettings,
    pub quarantine: QuarantineSettings,
    pub retention: RetentionSettings,
    pub hot: HotSettings,
    pub cold: ColdSettings,
}

/// A part of ingest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Gateway,
    Hot,
    Cold,
    /// The OTLP door of the cloud, which a program composes of edges.
    Otlp,
}

/// Where monitors ask.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdminSettings {
    /// Address of `/healthz`, `/readyz`, `/metrics` and `/v1/status`; empty: none.
    pub listen: String,
    /// Lets others than this machine ask, without a token and without TLS.
    pub insecure: bool,
}

impl AdminSettings {
    /// `None`: nobody asks.
    pub fn address(&self) -> Result<Option<SocketAddr>, &'static str> {
        if self.listen.is_empty() {
            return Ok(None);
        }
        let Ok(address) = self.listen.parse::<SocketAddr>() else {
            return Err("is no address, such as 127.0.0.1:7080");
        };
        if !address.ip().is_loopback() && !self.insecure {
            return Err("lets every machine ask; say admin.insecure = true if that is meant");
        }
        Ok(Some(address))
    }
}

/// Where edges connect, and what they may use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GatewaySettings {
    pub listen: SocketAddr,
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// The authority that edges' certificates come from.
    pub ca: PathBuf,
    /// Serial numbers of revoked certificates; empty: none.
    pub deny_list: PathBuf,
    /// `https://host:port` of `sluice ca serve`; empty: edges get no new certificates over the link.
    pub authority: String,
    /// How long after its end a certificate may still be renewed.
    #[serde(with = "units::duration")]
    pub grace: Duration,
    pub max_sessions: usize,
    #[serde(with = "units::size")]
    pub max_batch: u64,
    /// Batches in memory over all sessions.
    #[serde(with = "units::size")]
    pub max_memory: u64,
    /// Pieces of the state of duplicates that one edge may cause.
    pub max_edge_state: u64,
    /// What edges have left from an outage is taken while hot is no further behind the log than this.
    #[serde(with = "units::duration")]
    pub max_lag: Duration,
}

/// Where a batch is durable from its acknowledgement on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogKind {
    /// On the disk of this machine.
    #[default]
    Embedded,
    Kafka,
}

/// The log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSettings {
    pub kind: LogKind,
    pub generation: u32,
    pub partitions: u16,
    /// Which of them hot and cold of this process write.
    pub writes: Writes,
    #[serde(with = "units::size")]
    pub segment: u64,
    #[serde(with = "units::duration")]
    pub replay_window: Duration,
    /// Of one partition.
    #[serde(with = "units::size")]
    pub max_size: u64,
    pub kafka: KafkaSettings,
}

/// The hot store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HotSettings {
    pub store: HotStore,
    /// Of the embedded store.
    #[serde(with = "units::size")]
    pub max_memory: u64,
    /// Above this, the embedded store drops what cold has taken over.
    #[serde(with = "units::size")]
    pub keep: u64,
    pub clickhouse: ClickHouseSettings,
}

/// A hot store on a ClickHouse server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClickHouseSettings {
    pub url: String,
    pub database: String,
    pub user: String,
    pub password_file: PathBuf,
    pub password_env: String,
    pub ca: PathBuf,
    pub replicated_path: String,
    /// Create and change the tables at the start.
    pub migrate: bool,
    #[serde(with = "units::duration")]
    pub insert_every: Duration,
    pub insert_rows: usize,
    #[serde(with = "units::size")]
    pub insert_memory: u64,
    /// Whole days leave when they are older and cold has them, or when they are more than `keep_size`.
    #[serde(with = "units::duration")]
    pub keep: Duration,
    #[serde(with = "units::size")]
    pub keep_size: u64,
    /// No query runs longer; what it may read is kept for so long.
    #[serde(with = "units::duration")]
    pub query_limit: Duration,
    #[serde(with = "units::duration")]
    pub takeover_after: Duration,
}

/// The cold store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ColdSettings {
    #[serde(with = "units::duration")]
    pub commit_every: Duration,
    pub commit_rows: usize,
    #[serde(with = "units::size")]
    pub commit_memory: u64,
    /// How often small files are merged, up to about `file_size`.
    #[serde(with = "units::duration")]
    pub compact_every: Duration,
    #[serde(with = "units::size")]
    pub file_size: u64,
    /// How often files that nothing needs are removed, and for how long they are kept for queries that began before.
    #[serde(with = "units::duration")]
    pub vacuum_every: Duration,
    #[serde(with = "units::duration")]
    pub vacuum_after: Duration,
}

impl Default for IngestConfig {
    fn default() -> Self {
        IngestConfig {
            roles: vec![Role::Gateway, Role::Hot, Role::Cold],
            data_dir: PathBuf::from("sluice-data"),
            lake: "sluice-data/lake".to_owned(),
            s3: S3Settings::default(),
            admin: AdminSettings::default(),
            gateway: GatewaySettings::default(),
            tenants: TenantsSettings::default(),
            otlp: OtlpSettings::default(),
            log: LogSettings::default(),
            quarantine: QuarantineSettings::default(),
            retention: RetentionSettings::default(),
            hot: HotSettings::default(),
            cold: ColdSettings::default(),
        }
    }
}

impl Default for GatewaySettings {
    fn default() -> Self {
        GatewaySettings {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 7443)),
            certificate: PathBuf::new(),
            key: PathBuf::new(),
            ca: PathBuf::new(),
            deny_list: PathBuf::new(),
            authority: String::new(),
            grace: DEFAULT_GRACE,
            max_sessions: 4096,
            max_batch: 8 << 20,
            max_memory: 128 << 20,
            max_edge_state: DEFAULT_EDGE_STATE,
            max_lag: DEFAULT_MAX_LAG,
        }
    }
}

impl Default for LogSettings {
    fn default() -> Self {
        LogSettings {
            kind: LogKind::Embedded,
            generation: 0,
            partitions: 1,
            writes: Writes::All,
            segment: 64 << 20,
            replay_window: Duration::from_secs(3 * 86_400),
            max_size: 4 << 30,
            kafka: KafkaSettings::default(),
        }
    }
}

impl Default for HotSettings {
    fn default() -> Self {
        HotSettings {
            store: HotStore::Embedded,
            max_memory: 256 << 20,
            keep: 128 << 20,
            clickhouse: ClickHouseSettings::default(),
        }
    }
}

impl Default for ClickHouseSettings {
    fn default() -> Self {
        let server = ClickHouseConfig::default();
        ClickHouseSettings {
            url: server.url,
            database: server.database,
            user: server.user,
            password_file: server.password_file,
            password_env: server.password_env,
            ca: server.ca,
            replicated_path: server.replicated_path,
            migrate: true,
            insert_every: Duration::from_millis(500),
            insert_rows: 200_000,
            insert_memory: 128 << 20,
            keep: Duration::from_secs(3 * 86_400),
            keep_size: 0,
            query_limit: Duration::from_secs(360),
            takeover_after: Duration::from_secs(30),
        }
    }
}

impl ClickHouseSettings {
    /// How to reach the server.
    pub fn server(&self) -> ClickHouseConfig {
        ClickHouseConfig {
            url: self.url.clone(),
            database: self.database.clone(),
            user: self.user.clone(),
            password_file: self.password_file.clone(),
            password_env: self.password_env.clone(),
            ca: self.ca.clone(),
            replicated_path: self.replicated_path.clone(),
        }
    }
}

impl HotSettings {
    /// The store that is asked for. A server is not connected to yet.
    pub fn open(&self) -> Result<Hot, HotConfigError> {
        Ok(match self.store {
            HotStore::Embedded => EmbeddedHot::new(self.max_memory).into(),
            HotStore::ClickHouse => ClickHouseHot::new(&self.clickhouse.server())?.into(),
        })
    }
}

impl Default for ColdSettings {
    fn default() -> Self {
        ColdSettings {
            commit_every: Duration::from_secs(30),
            commit_rows: 200_000,
            commit_memory: 192 << 20,
            compact_every: Duration::from_secs(600),
            file_size: 32 << 20,
            vacuum_every: Duration::from_secs(86_400),
            vacuum_after: Duration::from_secs(7 * 86_400),
        }
    }
}

impl IngestConfig {
    /// Reads the text of a configuration file.
    pub fn from_toml(text: &str) -> Result<IngestConfig, ConfigError> {
        let config: IngestConfig = sluice_settings::parse(text)?;
        config.check(text)?;
        Ok(config)
    }

    /// The rules that a type cannot hold. `text` is where the lines of mistakes are looked up.
    pub fn check(&self, text: &str) -> Result<(), ConfigError> {
        let refuse = |key: &str, message: &str| Err(ConfigError::value(text, key, message));
        let positive = [
            ("gateway.max_sessions", self.gateway.max_sessions as u64),
            ("gateway.max_memory", self.gateway.max_memory),
            ("gateway.max_lag", self.gateway.max_lag.as_millis() as u64),
            ("log.partitions", u64::from(self.log.partitions)),
            ("quarantine.max_batches", self.quarantine.max_batches),
            ("quarantine.max_size", self.quarantine.max_size),
            ("cold.commit_rows", self.cold.commit_rows as u64),
            ("cold.commit_memory", self.cold.commit_memory),
            ("hot.max_memory", self.hot.max_memory),
            ("hot.clickhouse.insert_rows", self.hot.clickhouse.insert_rows as u64),
            ("hot.clickhouse.insert_memory", self.hot.clickhouse.insert_memory),
            (
                "hot.clickhouse.insert_every",
                self.hot.clickhouse.insert_every.as_millis() as u64,
            ),
            (
                "hot.clickhouse.query_limit",
                self.hot.clickhouse.query_limit.as_millis() as u64,
            ),
            (
                "hot.clickhouse.takeover_after",
                self.hot.clickhouse.takeover_after.as_millis() as u64,
            ),
            ("cold.compact_every", self.cold.compact_every.as_millis() as u64),
            ("cold.vacuum_every", self.cold.vacuum_every.as_millis() as u64),
        ];
        if let Some((key, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return refuse(key, "must be more than 0");
        }
        if !((64 << 10)..=(48 << 20)).contains(&self.gateway.max_batch) {
            return refuse("gateway.max_batch", "goes from 64 KiB to 48 MiB");
        }
        if self.log.segment < (1 << 20) {
            return refuse("log.segment", "is at least 1 MiB");
        }
        if self.hot.keep >= self.hot.max_memory {
            return refuse(
                "hot.keep",
                "must be less than hot.max_memory, else hot never gets room again",
            );
        }
        if let Err(error) = self.hot.clickhouse.server().check() {
            return refuse("hot.clickhouse", &error.to_string());
        }
        if self.hot.clickhouse.insert_memory > MAX_INSERT_BYTES {
            return refuse("hot.clickhouse.insert_memory", "is at most 512 MiB");
        }
        if self.gateway.max_edge_state < MIN_EDGE_STATE {
            return refuse(
                "gateway.max_edge_state",
                "is at least 16: an edge needs two for each of its starts",
            );
        }
        if !(MIN_FILE_BYTES..=MAX_FILE_BYTES).contains(&self.cold.file_size) {
            return refuse("cold.file_size", "goes from 1 MiB to 128 MiB");
        }
        if self.cold.vacuum_after < MIN_VACUUM_AFTER {
            return refuse(
                "cold.vacuum_after",
                "is at least 1 h: a query may still read what was replaced, see limits.max_timeout of the query role",
            );
        }
        let authority = &self.gateway.authority;
        if !authority.is_empty() && !authority.starts_with("https://") {
            return refuse("gateway.authority", "is not of the form https://HOST:PORT");
        }
        if let Err(why) = self.admin.address() {
            return refuse("admin.listen", why);
        }
        if self.log.kind == LogKind::Kafka
            && let Some((key, why)) = self.log.kafka.mistake()
        {
            return refuse(&key, &why);
        }
        if let Some((key, why)) = self.retention.mistake() {
            return refuse(&key, &why);
        }
        match &self.log.writes {
            Writes::All => {}
            _ if self.log.kind == LogKind::Embedded => {
                return refuse(
                    "log.writes",
                    "is \"all\" with the embedded log, which one process has for itself",
                );
            }
            Writes::These(these) if these.last().is_some_and(|last| *last >= self.log.partitions) => {
                return refuse(
                    "log.writes",
                    "names a partition that is not there: they count from 0 to log.partitions - 1",
                );
            }
            Writes::Group | Writes::These(_) => {}
        }
        if self.roles.is_empty() {
            return refuse("roles", "names no role: gateway, hot, cold, otlp");
        }
        if let Some((key, why)) = self.tenants.mistake() {
            return refuse(key, why);
        }
        if self.roles.contains(&Role::Otlp) {
            if self.roles.len() > 1 {
                return refuse("roles", "has \"otlp\" beside others: it is a process of its own");
            }
            if self.tenants.dir.as_os_str().is_empty() {
                return refuse(
                    "tenants.dir",
                    "is not set: the OTLP door knows tenants by the keys in it",
                );
            }
            if let Some((key, why)) = self.otlp.mistake() {
                return refuse(key, &why);
            }
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
        let text = include_str!("../../deploy/config/ingest.toml");
        let shipped = IngestConfig::from_toml(text).unwrap();
        assert_eq!(shipped, IngestConfig::default());
        let missing: Vec<_> = sluice_settings::explain(&shipped, text)
            .into_iter()
            .filter(|s| s.origin == "default")
            .collect();
        assert!(missing.is_empty(), "{missing:?}");
    }

    #[test]
    fn a_mistake_is_told_with_its_line() {
        let check = |text: &str, line: usize, key: &str| {
            let error = IngestConfig::from_toml(text).unwrap_err();
            assert_eq!((error.line, error.key.as_deref()), (Some(line), Some(key)), "{error}");
        };
        check("lake = \"x\"\n[hot]\nkep = \"1 MiB\"\n", 3, "kep");
        check("[hot]\nkeep = \"300 MiB\"\n", 2, "hot.keep");
        check("[cold]\nvacuum_after = \"5 min\"\n", 2, "cold.vacuum_after");
        check("[cold]\nfile_size = \"1 GiB\"\n", 2, "cold.file_size");
        check("[cold]\ncompact_every = \"0 s\"\n", 2, "cold.compact_every");
        check("\n[gateway]\nmax_edge_state = 3\n", 3, "gateway.max_edge_state");
        check("[gateway]\nauthority = \"http://ca:7444\"\n", 2, "gateway.authority");
        check("[admin]\nlisten = \"7080\"\n", 2, "admin.listen");
        check("[admin]\nlisten = \"0.0.0.0:7080\"\n", 2, "admin.listen");
        IngestConfig::from_toml("[admin]\nlisten = \"0.0.0.0:7080\"\ninsecure = true\n").unwrap();
        check("[retention]\nkeep = \"5 min\"\n", 2, "retention.keep");
        check("[retention.tenants]\nacme = \"1 min\"\n", 2, "retention.tenants.acme");
        check("[log]\nwrites = \"0-3\"\n", 2, "log.writes");
        check("[tenants]\ngateways = 0\n", 2, "tenants.gateways");
        check("roles = [\"otlp\", \"hot\"]\n", 1, "roles");
        let otlp = "roles = [\"otlp\"]\n[tenants]\ndir = \"t\"\n[otlp]\n";
        check(&format!("{otlp}http = \"x\"\n"), 5, "otlp.http");
        check(&format!("{otlp}http = \"0.0.0.0:4318\"\n"), 5, "otlp.http");
        check(&format!("{otlp}cert = \"c.pem\"\n"), 5, "otlp.cert");
        IngestConfig::from_toml(&format!("{otlp}http = \"0.0.0.0:4318\"\ncert = \"c\"\nkey = \"k\"\n")).unwrap();
        let kafka = "[log]\nkind = \"kafka\"\npartitions = 4\n[log.kafka]\nbrokers = \"b:1\"\n";
        IngestConfig::from_toml(kafka).unwrap();
        check(
            "[log]\nkind = \"kafka\"\n[log.kafka]\nbrokers = \"\"\n",
            4,
            "log.kafka.brokers",
        );
        check(&format!("{kafka}min_insync = 4\n"), 6, "log.kafka.min_insync");
        check(
            &kafka.replace("partitions = 4", "partitions = 4\nwrites = \"2-4\""),
            4,
            "log.writes",
        );
        let properties = |line: &str| format!("{kafka}[log.kafka.properties]\n{line}\n");
        let acks = IngestConfig::from_toml(&properties("acks = \"1\"")).unwrap_err();
        assert_eq!(acks.key.as_deref(), Some("log.kafka.properties.acks"), "{acks}");
        for (line, key) in [
            ("\"security.protocol\" = \"TLS\"", "security.protocol"),
            ("\"sasl.mechanism\" = \"GSSAPI\"", "sasl.mechanism"),
        ] {
            let error = IngestConfig::from_toml(&properties(line)).unwrap_err();
            assert_eq!(error.key, Some(format!("log.kafka.properties.{key}")), "{error}");
            assert!(error.to_string().contains("PLAIN"), "{error}");
        }
        for line in [
            "\"security.protocol\" = \"sasl_ssl\"",
            "\"sasl.mechanism\" = \"SCRAM-SHA-512\"",
            "\"ssl.ca.location\" = \"/ca.pem\"",
        ] {
            IngestConfig::from_toml(&properties(line)).unwrap();
        }
        let secret = "\"sasl.mechanism\" = \"PLAIN\"\n\"sasl.password\" = { env = \"PATH\" }";
        let read = IngestConfig::from_toml(&properties(secret))
            .unwrap()
            .log
            .kafka
            .resolved()
            .unwrap();
        assert_eq!(read["sasl.mechanism"], "PLAIN");
        assert_eq!(Some(&read["sasl.password"]), std::env::var("PATH").ok().as_ref());
        let missing = "\"sasl.password\" = { file = \"/nowhere/at/all\" }";
        let missing = IngestConfig::from_toml(&properties(missing))
            .unwrap()
            .log
            .kafka
            .resolved();
        assert_eq!(missing.unwrap_err().0, "log.kafka.properties.sasl.password");
    }
}
