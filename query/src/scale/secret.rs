//! What query nodes and workers of one lake show each other: a secret in a file. Who holds it reads all cold rows, of all tenants.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use subtle::ConstantTimeEq;

/// Shorter ones can be guessed.
const MIN_CHARACTERS: usize = 32;

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("`scale.secret_file` names no file: workers answer only those who show the secret in it")]
    Unnamed,
    #[error("the secret in {} cannot be read (`scale.secret_file`)", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error(
        "the secret in {} is no line of {MIN_CHARACTERS} visible characters or more (`scale.secret_file`); \
         `openssl rand -hex 32` makes one",
        path.display()
    )]
    Unfit { path: PathBuf },
}

/// A secret, never shown.
#[derive(Clone)]
pub(crate) struct Secret(HeaderValue);

impl Secret {
    pub(crate) fn open(path: &Path) -> Result<Secret, SecretError> {
        if path.as_os_str().is_empty() {
            return Err(SecretError::Unnamed);
        }
        let text = std::fs::read_to_string(path).map_err(|source| SecretError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::of(text.trim()).ok_or_else(|| SecretError::Unfit { path: path.to_owned() })
    }

    fn of(text: &str) -> Option<Secret> {
        let is_fit = text.len() >= MIN_CHARACTERS && text.bytes().all(|byte| byte.is_ascii_graphic());
        let mut value = HeaderValue::from_str(&format!("Bearer {text}"))
            .ok()
            .filter(|_| is_fit)?;
        value.set_sensitive(true);
        Some(Secret(value))
    }

    /// Puts it on a request.
    pub(crate) fn show(&self, headers: &mut HeaderMap) {
        headers.insert(AUTHORIZATION, self.0.clone());
    }

    /// Whether a request shows it, and nothing beside it.
    pub(crate) fn is_shown(&self, headers: &HeaderMap) -> bool {
        let mut given = headers.get_all(AUTHORIZATION).iter();
        match (given.next(), given.next()) {
            (Some(one), None) => bool::from(one.as_bytes().ct_eq(self.0.as_bytes())),
            _ => false,
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_secret_alone_is_good() {
        let text = "0123456789abcdef0123456789abcdef";
        let secret = Secret::of(text).unwrap();
        let mut headers = HeaderMap::new();
        assert!(!secret.is_shown(&headers));
        secret.show(&mut headers);
        assert!(secret.is_shown(&headers));
        headers.append(AUTHORIZATION, HeaderValue::from_static("Bearer other"));
        assert!(!secret.is_shown(&headers), "two of them are none");
        for other in ["Bearer 0123456789abcdef0123456789abcdeg", "Bearer ", text] {
            headers.insert(AUTHORIZATION, HeaderValue::from_str(other).unwrap());
            assert!(!secret.is_shown(&headers), "{other}");
        }
        for unfit in [
            "",
            "short",
            "0123456789abcdef 0123456789abcdef",
            "0123456789abcdef\n0123456789abcdef",
        ] {
            assert!(Secret::of(unfit).is_none(), "{unfit:?}");
        }
        secret.show(&mut headers);
        assert!(!format!("{secret:?} {headers:?}").contains("0123456789abcdef0123456789abcdef"));
    }

    #[test]
    fn a_file_that_holds_no_secret_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        assert!(matches!(Secret::open(Path::new("")), Err(SecretError::Unnamed)));
        assert!(matches!(Secret::open(&path), Err(SecretError::Read { .. })));
        std::fs::write(&path, "too short\n").unwrap();
        assert!(matches!(Secret::open(&path), Err(SecretError::Unfit { .. })));
        std::fs::write(&path, "0123456789abcdef0123456789abcdef\n").unwrap();
        Secret::open(&path).unwrap();
    }
}
