//! What an operator may set for the query role. `deploy/config/query.toml` shows every key with its default.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::units;

/// The query role's configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueryConfig {
    /// Where the HTTP API listens.
    pub listen: SocketAddr,
    /// Serve beyond loopback without TLS. Someone on the way can then read tokens and answers.
    pub insecure: bool,
    /// The file of hashed tokens.
    pub tokens: PathBuf,
    /// Certificate and key of the HTTP door; none: plain HTTP.
    pub tls: Option<TlsConfig>,
    pub limits: LimitsConfig,
}

/// PEM files, read at start and again on SIGHUP.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// What one query, and all of them together, may use.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// For a query that names no `timeout_ms`.
    #[serde(deserialize_with = "units::duration")]
    pub timeout: Duration,
    /// What `timeout_ms` may ask for at most. Hot rows are kept for this long after cold has them, so it must not exceed the writers'
    /// `query_limit`.
    #[serde(deserialize_with = "units::duration")]
    pub max_timeout: Duration,
    /// Memory of one query; sorts and groupings beyond it spill.
    #[serde(deserialize_with = "units::size")]
    pub memory: u64,
    /// Disk that one query may spill to; "0 B" turns spilling off.
    #[serde(deserialize_with = "units::size")]
    pub spill: u64,
    /// Rows of one answer.
    pub max_rows: u64,
    /// Bytes of one JSON answer, which is built before it is sent. The other formats stream.
    #[serde(deserialize_with = "units::size")]
    pub max_answer: u64,
    /// Bytes of one request.
    #[serde(deserialize_with = "units::size")]
    pub max_request: u64,
    /// Queries that run at once.
    pub concurrency: usize,
    /// Of these, how many one tenant may hold.
    pub tenant_concurrency: usize,
    /// How long a query waits for its turn before it is told to come back.
    #[serde(deserialize_with = "units::duration")]
    pub queue_wait: Duration,
    /// Threads that compute answers; 0: one less than the machine has, at least one. They serve nothing else.
    pub threads: usize,
    /// Open connections of the HTTP door.
    pub connections: usize,
}

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {message}{}", hint.as_ref().map(|h| format!("\n  hint: {h}")).unwrap_or_default())]
pub struct ConfigError {
    pub line: usize,
    /// The key meant, where that is known.
    pub key: Option<String>,
    pub message: String,
    pub hint: Option<String>,
}

impl QueryConfig {
    /// Reads the text of a configuration file and checks what can be checked without touching the machine.
    pub fn from_toml(text: &str) -> Result<QueryConfig, ConfigError> {
        let config: QueryConfig = toml::from_str(text).map_err(|error| ConfigError::of_toml(text, &error))?;
        config.check().map_err(|(key, message)| ConfigError {
            line: line_of_key(text, key),
            key: Some(key.to_owned()),
            message,
            hint: None,
        })?;
        Ok(config)
    }

    /// What the type system does not say. The key at fault comes first.
    pub(crate) fn check(&self) -> Result<(), (&'static str, String)> {
        let l = &self.limits;
        let positive: [(&'static str, bool); 8] = [
            ("timeout", !l.timeout.is_zero()),
            ("max_timeout", !l.max_timeout.is_zero()),
            ("memory", l.memory > 0),
            ("max_rows", l.max_rows > 0),
            ("max_answer", l.max_answer > 0),
            ("max_request", l.max_request > 0),
            ("concurrency", l.concurrency > 0),
            ("tenant_concurrency", l.tenant_concurrency > 0),
        ];
        if let Some((key, _)) = positive.iter().find(|(_, fine)| !fine) {
            return Err((key, format!("`limits.{key}` must be more than 0")));
        }
        if l.timeout > l.max_timeout {
            return Err(("timeout", "`limits.timeout` is longer than `limits.max_timeout`".into()));
        }
        if l.concurrency > 1024 || l.connections == 0 || l.connections > 65_536 || l.threads > 1024 {
            return Err((
                "concurrency",
                "`limits.concurrency` and `limits.threads` go up to 1024, `limits.connections` from 1 to 65536".into(),
            ));
        }
        Ok(())
    }
}

impl Default for QueryConfig {
    fn default() -> Self {
        QueryConfig {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 7080)),
            insecure: false,
            tokens: PathBuf::from("sluice-data/tokens.json"),
            tls: None,
            limits: LimitsConfig::default(),
        }
    }
}

impl Default for LimitsConfig {
    fn default() -> Self {
        LimitsConfig {
            timeout: Duration::from_secs(30),
            max_timeout: Duration::from_secs(300),
            memory: 512 << 20,
            spill: 1 << 30,
            max_rows: 1_000_000,
            max_answer: 64 << 20,
            max_request: 1 << 20,
            concurrency: 8,
            tenant_concurrency: 4,
            queue_wait: Duration::from_secs(5),
            threads: 0,
            connections: 1024,
        }
    }
}

impl ConfigError {
    fn of_toml(text: &str, error: &toml::de::Error) -> ConfigError {
        let line = error
            .span()
            .map_or(1, |span| 1 + text[..span.start.min(text.len())].matches('\n').count());
        let message = error.message().to_owned();
        let (key, hint) = match unknown_field(&message) {
            Some((key, known)) => {
                let near = known
                    .iter()
                    .filter(|k| strsim::damerau_levenshtein(k, &key) <= 1 + key.len() / 4)
                    .min_by_key(|k| strsim::damerau_levenshtein(k, &key));
                let hint = match near {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("the keys here are {}", known.join(", ")),
                };
                (Some(key), Some(hint))
            }
            None => (None, None),
        };
        ConfigError {
            line,
            key,
            message,
            hint,
        }
    }
}

/// Takes apart serde's "unknown field `a`, expected one of `b`, `c`".
fn unknown_field(message: &str) -> Option<(String, Vec<String>)> {
    let rest = message.strip_prefix("unknown field `")?;
    let mut quoted = rest.split('`');
    let key = quoted.next()?.to_owned();
    let known = quoted.skip(1).step_by(2).map(str::to_owned).collect();
    Some((key, known))
}

fn line_of_key(text: &str, key: &str) -> usize {
    text.lines()
        .position(|line| {
            line.trim_start()
                .strip_prefix(key)
                .is_some_and(|rest| rest.trim_start().starts_with('='))
        })
        .map_or(1, |at| at + 1)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_file_shows_every_key_with_its_default() {
        let text = include_str!("../../deploy/config/query.toml");
        let shipped = QueryConfig::from_toml(text).unwrap();
        assert_eq!(format!("{shipped:?}"), format!("{:?}", QueryConfig::default()));
        for key in [
            "listen",
            "insecure",
            "tokens",
            "cert",
            "key",
            "timeout",
            "max_timeout",
            "memory",
            "spill",
            "max_rows",
            "max_answer",
            "max_request",
            "concurrency",
            "tenant_concurrency",
            "queue_wait",
            "threads",
            "connections",
        ] {
            assert!(
                text.lines()
                    .any(|l| l.trim_start_matches("# ").starts_with(&format!("{key} = "))),
                "{key} is missing"
            );
        }
    }

    #[test]
    fn a_mistake_is_told_with_its_line_and_a_way_out() {
        let error = QueryConfig::from_toml("insecure = false\n[limits]\nmax_row = 5\n").unwrap_err();
        assert_eq!((error.line, error.key.as_deref()), (3, Some("max_row")));
        assert_eq!(error.hint.as_deref(), Some("did you mean `max_rows`?"));
        let error = QueryConfig::from_toml("[limits]\ntimeout = \"5\"\n").unwrap_err();
        assert_eq!(error.line, 2);
        let error = QueryConfig::from_toml("\n[limits]\ntimeout = \"1 h\"\n").unwrap_err();
        assert_eq!((error.line, error.key.as_deref()), (3, Some("timeout")));
    }
}
