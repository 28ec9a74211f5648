//! What an operator may set for the query role. `deploy/config/query.toml` shows every key with its default.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sluice_settings::{ConfigError, units};
use sluice_store::CacheOptions;
use sluice_store::hot::HotStore;
use sluice_store::hot::clickhouse::ClickHouseConfig;

/// Each step on workers has a part for each of them.
const MAX_WORKERS: usize = 64;

/// The query role's configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueryConfig {
    /// Where the HTTP API listens.
    pub listen: SocketAddr,
    /// Where clients of Postgres are served.
    pub pg: SocketAddr,
    /// Where clients of Arrow Flight SQL are served.
    pub flight: SocketAddr,
    /// Serve beyond loopback without TLS. Someone on the way can then read tokens and answers.
    pub insecure: bool,
    /// The file of hashed tokens.
    pub tokens: PathBuf,
    /// The folder of tenants and their keys; empty: none.
    pub tenants: PathBuf,
    /// Certificate and key of the doors; none: they speak plain text.
    pub tls: Option<TlsConfig>,
    /// Where the newest rows are. `sluice up` has its own.
    pub hot: HotConfig,
    /// What `apply` may run. `sluice up` has its own.
    pub plugins: PluginsConfig,
    pub limits: LimitsConfig,
    pub cache: CacheConfig,
    /// Who computes the cold parts of this node's queries.
    pub scale: ScaleConfig,
    /// What `sluice query --worker` does, which then does nothing else.
    pub worker: WorkerConfig,
}

/// The workers of a query node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScaleConfig {
    /// Their addresses; none: everything runs on this node.
    pub workers: Vec<String>,
    /// The file of the secret that query nodes and workers of one lake share.
    pub secret_file: PathBuf,
    /// PEM of the authorities that workers' certificates may come from.
    pub ca: PathBuf,
    /// Scans of fewer bytes of cold files run on this node.
    #[serde(with = "units::size")]
    pub min_bytes: u64,
}

/// A worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WorkerConfig {
    /// Where query nodes find it.
    pub listen: SocketAddr,
    /// Parts of queries that it computes at once; query nodes compute the others themselves.
    pub parts: usize,
}

/// What is kept so that it need not be read or computed again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CacheConfig {
    /// Memory for the parsed footers of cold files.
    #[serde(with = "units::size")]
    pub footers: u64,
    /// Memory for answers that are given again while nothing that they read has changed; "0 B": none.
    #[serde(with = "units::size")]
    pub answers: u64,
    /// How much of that one tenant may fill.
    #[serde(with = "units::size")]
    pub tenant_answers: u64,
    /// Of windows of time that move, keep the groups of each range of time in that memory, so that only new ranges are computed.
    pub ranges: bool,
    /// Disk for parts of cold files that lie in a bucket.
    #[serde(with = "units::size")]
    pub disk: u64,
    /// Where those are, in a folder of its own; empty: nowhere.
    pub dir: PathBuf,
}

impl CacheConfig {
    /// What of it the stores keep.
    pub fn options(&self) -> CacheOptions {
        let is_used = self.disk > 0 && !self.dir.as_os_str().is_empty();
        CacheOptions {
            footers: self.footers,
            disk: is_used.then(|| (self.dir.clone(), self.disk)),
        }
    }
}

/// The packages that `apply` runs over stored rows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PluginsConfig {
    /// A folder as `sluice plugin install --data-dir` fills it; empty: there is no `apply`.
    pub folder: PathBuf,
    /// Load nothing when the list of what was revoked is too old.
    pub strict_revocations: bool,
}

/// The hot store that ingest writes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HotConfig {
    pub store: HotStore,
    pub clickhouse: ClickHouseConfig,
}

/// PEM files, read at start and again on SIGHUP.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// What one query, and all of them together, may use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// For a query that names no `timeout_ms`.
    #[serde(with = "units::duration")]
    pub timeout: Duration,
    /// What `timeout_ms` may ask for at most. Hot rows are kept for this long after cold has them, so it must not exceed the writers'
    /// `hot.clickhouse.query_limit`.
    #[serde(with = "units::duration")]
    pub max_timeout: Duration,
    /// Memory of one query; sorts and groupings beyond it spill.
    #[serde(with = "units::size")]
    pub memory: u64,
    /// Memory of all queries together. It is less than `concurrency` times `memory`: few need all that they may have.
    #[serde(with = "units::size")]
    pub total_memory: u64,
    /// Disk that one query may spill to; "0 B" turns spilling off.
    #[serde(with = "units::size")]
    pub spill: u64,
    /// Where queries spill to, in a folder of its own that is emptied at the start; empty: this machine's folder for such files.
    pub spill_dir: PathBuf,
    /// Bytes that one query may read of the stores, as they are in memory.
    #[serde(with = "units::size")]
    pub max_scan: u64,
    /// Rows of one answer.
    pub max_rows: u64,
    /// Bytes of one JSON answer, which is built before it is sent. The other formats stream.
    #[serde(with = "units::size")]
    pub max_answer: u64,
    /// Bytes of one request.
    #[serde(with = "units::size")]
    pub max_request: u64,
    /// Queries that run at once.
    pub concurrency: usize,
    /// Of these, how many one tenant may hold.
    pub tenant_concurrency: usize,
    /// Queries that wait for their turn, of all tenants and of one; who comes then is told to come back.
    pub queue: usize,
    pub tenant_queue: usize,
    /// A query that has run for this long makes room for a short one, as long as no more than half as many as `concurrency` do.
    #[serde(with = "units::duration")]
    pub long_after: Duration,
    /// How long a query waits for its turn before it is told to come back.
    #[serde(with = "units::duration")]
    pub queue_wait: Duration,
    /// Threads that compute answers; 0: as many as the machine has. They serve nothing else, and let others go first.
    pub threads: usize,
    /// Open connections of each door.
    pub connections: usize,
}

impl QueryConfig {
    /// Reads the text of a configuration file and checks what can be checked without touching the machine.
    pub fn from_toml(text: &str) -> Result<QueryConfig, ConfigError> {
        let config: QueryConfig = sluice_settings::parse(text)?;
        config.check(text)?;
        Ok(config)
    }

    /// The rules that a type cannot hold. `text` is where the lines of mistakes are looked up.
    pub fn check(&self, text: &str) -> Result<(), ConfigError> {
        let refuse = |key: &str, message: &str| Err(ConfigError::value(text, key, message));
        let l = &self.limits;
        let positive = [
            ("limits.timeout", !l.timeout.is_zero()),
            ("limits.max_timeout", !l.max_timeout.is_zero()),
            ("limits.memory", l.memory > 0),
            ("limits.total_memory", l.total_memory > 0),
            ("limits.max_scan", l.max_scan > 0),
            ("limits.max_rows", l.max_rows > 0),
            ("limits.max_answer", l.max_answer > 0),
            ("limits.max_request", l.max_request > 0),
            ("limits.concurrency", l.concurrency > 0),
            ("limits.tenant_concurrency", l.tenant_concurrency > 0),
        ];
        if let Some((key, _)) = positive.iter().find(|(_, fine)| !fine) {
            return refuse(key, "must be more than 0");
        }
        if let Err(error) = self.hot.clickhouse.check() {
            return refuse("hot.clickhouse", &error.to_string());
        }
        if l.timeout > l.max_timeout {
            return refuse("limits.timeout", "is longer than limits.max_timeout");
        }
        if l.queue > 65_536 {
            return refuse("limits.queue", "goes up to 65536");
        }
        if l.concurrency > 1024 {
            return refuse("limits.concurrency", "goes up to 1024");
        }
        if l.threads > 1024 {
            return refuse("limits.threads", "goes up to 1024");
        }
        if !(1..=65_536).contains(&l.connections) {
            return refuse("limits.connections", "goes from 1 to 65536");
        }
        if self.scale.workers.len() > MAX_WORKERS {
            return refuse("scale.workers", "names more than 64 workers");
        }
        if !self.scale.workers.is_empty() && self.scale.secret_file.as_os_str().is_empty() {
            return refuse(
                "scale.secret_file",
                "must name the file of the secret that the workers want",
            );
        }
        if !(1..=1024).contains(&self.worker.parts) {
            return refuse("worker.parts", "goes from 1 to 1024");
        }
        Ok(())
    }
}

impl Default for ScaleConfig {
    fn default() -> Self {
        ScaleConfig {
            workers: Vec::new(),
            secret_file: PathBuf::new(),
            ca: PathBuf::new(),
            min_bytes: 32 << 20,
        }
    }
}

impl Default for WorkerConfig {
    fn default() -> Self {
        WorkerConfig {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 7082)),
            parts: 8,
        }
    }
}

impl Default for QueryConfig {
    fn default() -> Self {
        QueryConfig {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 7080)),
            pg: SocketAddr::from((Ipv4Addr::LOCALHOST, 7432)),
            flight: SocketAddr::from((Ipv4Addr::LOCALHOST, 7081)),
            insecure: false,
            tokens: PathBuf::from("sluice-data/tokens.json"),
            tenants: PathBuf::new(),
            tls: None,
            hot: HotConfig::default(),
            plugins: PluginsConfig::default(),
            limits: LimitsConfig::default(),
            cache: CacheConfig::default(),
            scale: ScaleConfig::default(),
            worker: WorkerConfig::default(),
        }
    }
}

impl Default for CacheConfig {
    fn default() -> Self {
        CacheConfig {
            footers: 256 << 20,
            answers: 64 << 20,
            tenant_answers: 32 << 20,
            ranges: true,
            disk: 4 << 30,
            dir: PathBuf::new(),
        }
    }
}

impl Default for LimitsConfig {
    fn default() -> Self {
        LimitsConfig {
            timeout: Duration::from_secs(30),
            max_timeout: Duration::from_secs(300),
            memory: 512 << 20,
            total_memory: 2 << 30,
            spill: 1 << 30,
            spill_dir: PathBuf::new(),
            max_scan: 1 << 40,
            max_rows: 1_000_000,
            max_answer: 64 << 20,
            max_request: 1 << 20,
            concurrency: 8,
            tenant_concurrency: 4,
            queue: 1_024,
            tenant_queue: 512,
            long_after: Duration::from_secs(1),
            queue_wait: Duration::from_secs(30),
            threads: 0,
            connections: 1024,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_file_shows_every_key_with_its_default() {
        let text = include_str!("../../deploy/config/query.toml");
        let shipped = QueryConfig::from_toml(text).unwrap();
        assert_eq!(shipped, QueryConfig::default());
        let missing: Vec<_> = sluice_settings::explain(&shipped, text)
            .into_iter()
            .filter(|s| s.origin == "default")
            .collect();
        assert!(missing.is_empty(), "{missing:?}");
        // What has no default stands there as a comment.
        assert!(text.contains("# cert = ") && text.contains("# key = "));
    }

    #[test]
    fn a_mistake_is_told_with_its_line_and_a_way_out() {
        let check = |text: &str, line: usize, key: &str, says: &str| {
            let error = QueryConfig::from_toml(text).unwrap_err();
            assert_eq!((error.line, error.key.as_deref()), (Some(line), Some(key)), "{error}");
            assert!(error.to_string().contains(says), "{error}");
        };
        check(
            "insecure = false\n[limits]\nmax_row = 5\n",
            3,
            "max_row",
            "did you mean `max_rows`?",
        );
        check("[limits]\ntimeout = \"5\"\n", 2, "timeout", "has no unit");
        check("\n[limits]\ntimeout = \"1 h\"\n", 3, "limits.timeout", "longer than");
    }
}
