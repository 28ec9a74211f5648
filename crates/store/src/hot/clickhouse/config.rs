//! Where the ClickHouse server is and who we are to it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use url::Url;

/// How to reach ClickHouse. Secrets stand in files or in the environment, never here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClickHouseConfig {
    /// Of the HTTP interface of one server, which is written and read; never that of a load balancer.
    pub url: String,
    pub database: String,
    /// Empty: the server's default user.
    pub user: String,
    /// A file that holds the password and nothing else; empty: none.
    pub password_file: PathBuf,
    /// The name of an environment variable that holds the password; empty: none.
    pub password_env: String,
    /// PEM file of the authorities that the server's certificate may come from; empty: those of this machine.
    pub ca: PathBuf,
    /// The path in ZooKeeper or Keeper of a ReplicatedMergeTree; empty: a plain MergeTree.
    pub replicated_path: String,
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("the address {url:?} of ClickHouse: {what}")]
    Url { url: String, what: String },
    #[error("the name {0:?} of the database: letters, digits and underscores, and no digit first")]
    Database(String),
    #[error("the password: `password_file` and `password_env` are both given, one is enough")]
    TwoPasswords,
    #[error("the password file {}", path.display())]
    PasswordFile { path: PathBuf, source: std::io::Error },
    #[error("the environment has no variable {0}, which is to hold the password")]
    PasswordEnv(String),
    #[error("the password holds what no HTTP header can")]
    Password,
    #[error("the certificates in {}: {what}", path.display())]
    Ca { path: PathBuf, what: String },
    #[error("replicated_path {0:?}: a path like /clickhouse/tables/{{shard}}/sluice, without quotes")]
    ReplicatedPath(String),
}

impl Default for ClickHouseConfig {
    fn default() -> Self {
        Self {
            url: "http://127.0.0.1:8123".to_owned(),
            database: "sluice".to_owned(),
            user: String::new(),
            password_file: PathBuf::new(),
            password_env: String::new(),
            ca: PathBuf::new(),
            replicated_path: String::new(),
        }
    }
}

impl ClickHouseConfig {
    /// What can be checked without touching the machine.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.address()?;
        if !is_name(&self.database) {
            return Err(ConfigError::Database(self.database.clone()));
        }
        if !self.password_file.as_os_str().is_empty() && !self.password_env.is_empty() {
            return Err(ConfigError::TwoPasswords);
        }
        let path = &self.replicated_path;
        if !path.is_empty() && (!path.starts_with('/') || path.contains(['\'', '\\', '\n'])) {
            return Err(ConfigError::ReplicatedPath(path.clone()));
        }
        Ok(())
    }

    /// The parsed address. Nothing but scheme, host and port counts.
    pub(super) fn address(&self) -> Result<Url, ConfigError> {
        let wrong = |what: &str| ConfigError::Url {
            // What stands before the host may be a password.
            url: self
                .url
                .rsplit_once('@')
                .map_or(self.url.as_str(), |(_, host)| host)
                .to_owned(),
            what: what.to_owned(),
        };
        let url = Url::parse(&self.url).map_err(|error| wrong(&error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(wrong("http://host:port or https://host:port"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("name user and password in keys of their own"));
        }
        if url.query().is_some() || url.path() != "/" {
            return Err(wrong("nothing may follow host and port"));
        }
        Ok(url)
    }

    pub(super) fn password(&self) -> Result<Option<String>, ConfigError> {
        if !self.password_env.is_empty() {
            let found = std::env::var(&self.password_env);
            return found
                .map(Some)
                .map_err(|_| ConfigError::PasswordEnv(self.password_env.clone()));
        }
        if self.password_file.as_os_str().is_empty() {
            return Ok(None);
        }
        let text = std::fs::read_to_string(&self.password_file).map_err(|source| ConfigError::PasswordFile {
            path: self.password_file.clone(),
            source,
        })?;
        Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned()))
    }
}

fn is_name(text: &str) -> bool {
    text.len() <= 128
        && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_used_is_refused_and_no_password_is_repeated() {
        let with = |url: &str| ClickHouseConfig {
            url: url.to_owned(),
            ..ClickHouseConfig::default()
        };
        for url in [
            "ftp://x",
            "http://",
            "http://u:hidden@h:1",
            "http://h:1/?password=x",
            "nonsense",
        ] {
            let error = with(url).check().unwrap_err().to_string();
            assert!(!error.contains("hidden"), "{error}");
        }
        with("https://ch.example:8443").check().unwrap();
        let mut config = with("http://h:1");
        config.database = "a`b".to_owned();
        assert!(matches!(config.check(), Err(ConfigError::Database(_))));
        config.database = "a".to_owned();
        config.password_file = "x".into();
        config.password_env = "Y".to_owned();
        assert!(matches!(config.check(), Err(ConfigError::TwoPasswords)));
    }
}
