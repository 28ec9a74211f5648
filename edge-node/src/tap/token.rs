//! The token of this node for its operator: made at the first start that needs it, readable by the owner of the folder alone.

use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rand::RngCore as _;

/// Below the data folder.
const FILE: &str = "admin-token";
/// Of randomness; written in hexadecimal.
const TOKEN_BYTES: usize = 32;
/// A token that somebody chose himself has at least so many characters.
const MIN_CHARS: usize = 32;
const MAX_CHARS: u64 = 1024;

/// What a request has to carry.
pub(crate) struct AdminToken(String);

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("the token {} cannot be read or made", .path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("others may read the token {}: `chmod 600` it, or remove it and a new one is made", .path.display())]
    Open { path: PathBuf },
    #[error("the token {} has fewer than {MIN_CHARS} characters: remove it and a new one is made", .path.display())]
    Short { path: PathBuf },
}

impl AdminToken {
    /// The one in the data folder; a new one if there is none.
    pub(crate) fn load_or_make(data_dir: &Path) -> Result<AdminToken, TokenError> {
        let path = data_dir.join(FILE);
        let io = |source| TokenError::Io {
            path: path.clone(),
            source,
        };
        let file = match std::fs::File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make(data_dir, &path).map_err(io)?;
                std::fs::File::open(&path).map_err(io)?
            }
            Err(error) => return Err(io(error)),
        };
        if file.metadata().map_err(io)?.permissions().mode() & 0o077 != 0 {
            return Err(TokenError::Open { path });
        }
        let mut text = String::new();
        file.take(MAX_CHARS).read_to_string(&mut text).map_err(io)?;
        let token = text.trim();
        if token.len() < MIN_CHARS {
            return Err(TokenError::Short { path });
        }
        Ok(AdminToken(token.to_owned()))
    }

    /// Compares without telling by its time where they differ.
    pub(crate) fn is(&self, given: &str) -> bool {
        let (own, given) = (self.0.as_bytes(), given.as_bytes());
        let differs = own.iter().zip(given).fold(0u8, |differs, (a, b)| differs | (a ^ b));
        own.len() == given.len() && differs == 0
    }
}

impl std::fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AdminToken")
    }
}

/// Written whole or not at all, and never over one that is there.
fn make(data_dir: &Path, path: &Path) -> io::Result<()> {
    let mut random = [0u8; TOKEN_BYTES];
    rand::rng().fill_bytes(&mut random);
    std::fs::create_dir_all(data_dir)?;
    let beside = data_dir.join(format!(".{FILE}.{}", std::process::id()));
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)?;
    writeln!(file, "{}", hex::encode(random))?;
    file.sync_all()?;
    let linked = std::fs::hard_link(&beside, path);
    std::fs::remove_file(&beside)?;
    match linked {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_made_once_and_one_that_others_may_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let token = AdminToken::load_or_make(&data).unwrap();
        let path = data.join(FILE);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.trim().len(), 2 * TOKEN_BYTES);
        assert!(token.is(text.trim()) && AdminToken::load_or_make(&data).unwrap().is(text.trim()));
        for wrong in ["", &text.trim()[1..], &format!("{}0", text.trim()), &"0".repeat(64)] {
            assert!(!token.is(wrong), "{wrong}");
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(AdminToken::load_or_make(&data), Err(TokenError::Open { .. })));
        std::fs::remove_file(&path).unwrap();
        assert!(!AdminToken::load_or_make(&data).unwrap().is(text.trim()), "a new one");
        std::fs::write(&path, "short").unwrap();
        assert!(matches!(AdminToken::load_or_make(&data), Err(TokenError::Short { .. })));
        assert_eq!(std::fs::read_dir(&data).unwrap().count(), 1);
    }
}
