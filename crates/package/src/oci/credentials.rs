//! Who we are to a registry: what the caller says, or else what `docker login` left.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fmt};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;

use crate::file;

/// Bytes of docker's `config.json`, of a password file, and of what a helper says.
const FILE_BYTES: u64 = 1024 * 1024;

#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub user: String,
    pub password: String,
}

#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    #[error("cannot read {}", .path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{}: {problem}; log in again with `docker login`, or give --username and --password-file", .path.display())]
    Config { path: PathBuf, problem: String },
    #[error(
        "docker-credential-{helper} fails for {host}: {problem}; log in again with `docker login`, or give --username and --password-file"
    )]
    Helper {
        helper: String,
        host: String,
        problem: String,
    },
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct DockerConfig {
    auths: std::collections::BTreeMap<String, DockerAuth>,
    creds_store: Option<String>,
    cred_helpers: std::collections::BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct DockerAuth {
    auth: Option<String>,
}

impl Credentials {
    /// A password file holds the password and a newline that does not count.
    pub fn from_password_file(user: &str, path: &Path) -> Result<Self, CredentialsError> {
        let text = file::read_text(path, FILE_BYTES).map_err(|source| CredentialsError::Io {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            user: user.to_owned(),
            password: text.trim_end_matches(['\r', '\n']).to_owned(),
        })
    }

    /// What docker's configuration has for this host.
    pub fn from_docker(host: &str) -> Result<Option<Self>, CredentialsError> {
        let folder = env::var_os("DOCKER_CONFIG").map(PathBuf::from);
        let folder = folder.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".docker")));
        match folder {
            Some(folder) => Self::from_docker_config(&folder.join("config.json"), host),
            None => Ok(None),
        }
    }

    pub(super) fn from_docker_config(path: &Path, host: &str) -> Result<Option<Self>, CredentialsError> {
        let bytes = match file::read(path, FILE_BYTES) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                return Err(CredentialsError::Io {
                    path: path.to_owned(),
                    source,
                });
            }
        };
        let wrong = |problem: String| CredentialsError::Config {
            path: path.to_owned(),
            problem,
        };
        let config: DockerConfig = serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
        if let Some(helper) = config.cred_helpers.get(host) {
            return ask_helper(helper, host);
        }
        let entry = [
            host.to_owned(),
            format!("https://{host}"),
            format!("https://{host}/v1/"),
        ]
        .into_iter()
        .find_map(|key| config.auths.get(&key));
        match (entry.and_then(|entry| entry.auth.as_deref()), &config.creds_store) {
            (Some(auth), _) if !auth.is_empty() => {
                let text = BASE64.decode(auth).ok().and_then(|bytes| String::from_utf8(bytes).ok());
                let pair = text.as_deref().and_then(|text| text.split_once(':'));
                let (user, password) =
                    pair.ok_or_else(|| wrong(format!("`auth` of {host} is not base64 of user:password")))?;
                Ok(Some(Self {
                    user: user.to_owned(),
                    password: password.to_owned(),
                }))
            }
            (_, Some(helper)) if entry.is_some() => ask_helper(helper, host),
            _ => Ok(None),
        }
    }

    pub(super) fn basic(&self) -> String {
        format!("Basic {}", BASE64.encode(format!("{}:{}", self.user, self.password)))
    }
}

/// The protocol of docker's credential helpers: the host on stdin, JSON on stdout.
fn ask_helper(helper: &str, host: &str) -> Result<Option<Credentials>, CredentialsError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        username: String,
        secret: String,
    }
    let failed = |problem: String| CredentialsError::Helper {
        helper: helper.to_owned(),
        host: host.to_owned(),
        problem,
    };
    // It is a word of the user's own file, and becomes part of a program's name, not of a path.
    if helper.is_empty() || helper.contains('/') {
        return Err(failed("this is no name of a helper".into()));
    }
    let mut child = Command::new(format!("docker-credential-{helper}"))
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    let mut said = Vec::new();
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that reads nothing says so by its answer.
        let _ = stdin.write_all(host.as_bytes());
    }
    let read = child
        .stdout
        .take()
        .map(|out| out.take(FILE_BYTES).read_to_end(&mut said));
    let status = child.wait().map_err(|error| failed(error.to_string()))?;
    if let Some(Err(error)) = read {
        return Err(failed(error.to_string()));
    }
    if !status.success() {
        let words = String::from_utf8_lossy(&said);
        return match words.contains("not found") {
            true => Ok(None),
            false => Err(failed(words.trim().chars().take(200).collect())),
        };
    }
    let answer: Answer = serde_json::from_slice(&said).map_err(|error| failed(error.to_string()))?;
    Ok(Some(Credentials {
        user: answer.username,
        password: answer.secret,
    }))
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_docker_login_left_is_found_by_host() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        assert_eq!(Credentials::from_docker_config(&path, "r.example").unwrap(), None);
        let auth = BASE64.encode("me:pass:word");
        std::fs::write(
            &path,
            format!(r#"{{"auths": {{"r.example": {{"auth": "{auth}"}}, "bad": {{"auth": "!"}}}}, "x": 1}}"#),
        )
        .unwrap();
        let found = Credentials::from_docker_config(&path, "r.example").unwrap().unwrap();
        assert_eq!((found.user.as_str(), found.password.as_str()), ("me", "pass:word"));
        assert!(!format!("{found:?}").contains("pass"), "a password is never shown");
        assert_eq!(Credentials::from_docker_config(&path, "other.example").unwrap(), None);
        assert!(Credentials::from_docker_config(&path, "bad").is_err());
    }
}
