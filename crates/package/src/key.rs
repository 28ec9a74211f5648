//! Keys that sign packages and revocation lists, and the files they are kept in.

use std::fmt;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

use crate::digest::{Digest, hex, unhex};
use crate::limits::{KEY_FILE_BYTES, TEXT_BYTES};

const PUBLIC: &str = "sluice-ed25519";
const PRIVATE: &str = "sluice-ed25519-private";

/// Names a key; the key itself is what is trusted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyId([u8; 16]);

/// What signatures are checked with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    bytes: [u8; 32],
    /// For people.
    pub comment: String,
}

/// What signs. It is read from a file and from nowhere else, and never shown.
pub struct PrivateKey {
    pair: Ed25519KeyPair,
    comment: String,
}

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("{text:?} is not a key id: 32 lower-case hexadecimal digits")]
    Id { text: String },
    #[error("this is not a public key: a line `{PUBLIC} BASE64 COMMENT`, as `sluice plugin keygen` prints it")]
    NotPublic,
    #[error("this is a private key: keep it secret and give the `.pub` file that was made with it")]
    PrivateGiven,
    #[error("{} holds no private key: a line `{PRIVATE} BASE64`, as `sluice plugin keygen` writes it", .path.display())]
    NotPrivate { path: PathBuf },
    #[error("{} may be read by others (mode {mode:03o}): run `chmod 600 {}`, and make a new key if somebody could have read it", .path.display(), .path.display())]
    Exposed { path: PathBuf, mode: u32 },
    #[error("{} exists: a key is never overwritten; choose another name", .path.display())]
    Exists { path: PathBuf },
    #[error("the comment of a key is one line of at most {TEXT_BYTES} bytes")]
    Comment,
    #[error("the operating system gives no randomness")]
    Randomness,
    #[error("cannot {action} {}", .path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

impl PublicKey {
    pub fn id(&self) -> KeyId {
        let digest = Digest::of(&self.bytes);
        let mut id = [0; 16];
        id.copy_from_slice(&digest.bytes()[..16]);
        KeyId(id)
    }

    /// Whether this key made the signature of the message.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.bytes)
            .verify(message, signature)
            .is_ok()
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(line: &str) -> Result<Self, KeyError> {
        let (kind, rest) = line.trim().split_once(' ').ok_or(KeyError::NotPublic)?;
        if kind == PRIVATE {
            return Err(KeyError::PrivateGiven);
        }
        let (key, comment) = rest.split_once(' ').unwrap_or((rest, ""));
        let bytes = decode_32(key).filter(|_| kind == PUBLIC).ok_or(KeyError::NotPublic)?;
        let comment = checked_comment(comment)?;
        Ok(Self { bytes, comment })
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PUBLIC} {}", BASE64.encode(self.bytes))?;
        if !self.comment.is_empty() {
            write!(f, " {}", self.comment)?;
        }
        Ok(())
    }
}

impl PrivateKey {
    /// Makes a key and writes it to a new file that its owner alone may read.
    pub fn generate(path: &Path, comment: &str) -> Result<Self, KeyError> {
        let comment = checked_comment(comment)?;
        let mut seed = [0; 32];
        SystemRandom::new().fill(&mut seed).map_err(|_| KeyError::Randomness)?;
        let key = Self::from_seed(&seed, comment).ok_or(KeyError::Randomness)?;
        let failed = |action| {
            move |source| KeyError::Io {
                action,
                path: path.to_owned(),
                source,
            }
        };
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(|error| match error.kind() {
                std::io::ErrorKind::AlreadyExists => KeyError::Exists { path: path.to_owned() },
                _ => failed("make")(error),
            })?;
        let line = format!("{PRIVATE} {} {}", BASE64.encode(seed), key.comment);
        writeln!(file, "{}", line.trim_end())
            .and_then(|()| file.sync_all())
            .map_err(failed("write"))?;
        Ok(key)
    }

    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let failed = |source| KeyError::Io {
            action: "read",
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(failed)?;
        let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeyError::Exposed {
                path: path.to_owned(),
                mode,
            });
        }
        let mut text = String::new();
        file.take(KEY_FILE_BYTES).read_to_string(&mut text).map_err(failed)?;
        let parsed = text
            .trim()
            .split_once(' ')
            .filter(|(kind, _)| *kind == PRIVATE)
            .and_then(|(_, rest)| {
                let (seed, comment) = rest.split_once(' ').unwrap_or((rest, ""));
                Self::from_seed(&decode_32(seed)?, checked_comment(comment).ok()?)
            });
        parsed.ok_or_else(|| KeyError::NotPrivate { path: path.to_owned() })
    }

    fn from_seed(seed: &[u8; 32], comment: String) -> Option<Self> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).ok()?;
        Some(Self { pair, comment })
    }

    pub fn public(&self) -> PublicKey {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.pair.public_key().as_ref());
        PublicKey {
            bytes,
            comment: self.comment.clone(),
        }
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        let mut signature = [0; 64];
        signature.copy_from_slice(self.pair.sign(message).as_ref());
        signature
    }

    #[cfg(test)]
    pub(crate) fn of_seed(seed: u8) -> Self {
        #[allow(clippy::unwrap_used)]
        Self::from_seed(&[seed; 32], String::new()).unwrap()
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateKey")
            .field("id", &self.public().id())
            .finish_non_exhaustive()
    }
}

fn decode_32(text: &str) -> Option<[u8; 32]> {
    BASE64.decode(text).ok()?.try_into().ok()
}

fn checked_comment(text: &str) -> Result<String, KeyError> {
    let text = text.trim();
    if text.len() > TEXT_BYTES || text.chars().any(char::is_control) {
        return Err(KeyError::Comment);
    }
    Ok(text.to_owned())
}

impl FromStr for KeyId {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let refuse = || KeyError::Id {
            text: text.chars().take(64).collect(),
        };
        unhex(text).map(Self).ok_or_else(refuse)
    }
}

impl TryFrom<String> for KeyId {
    type Error = KeyError;

    fn try_from(text: String) -> Result<Self, KeyError> {
        text.parse()
    }
}

impl From<KeyId> for String {
    fn from(id: KeyId) -> Self {
        id.to_string()
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_key_survives_its_files_and_is_kept_from_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("release.key");
        let made = PrivateKey::generate(&path, "acme releases").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(PrivateKey::generate(&path, ""), Err(KeyError::Exists { .. })));

        let read = PrivateKey::load(&path).unwrap();
        let public: PublicKey = read.public().to_string().parse().unwrap();
        assert_eq!(public, made.public());
        assert_eq!(public.comment, "acme releases");
        assert!(public.verifies(b"message", &read.sign(b"message")));
        assert!(!public.verifies(b"massage", &read.sign(b"message")));
        assert_eq!(public.id().to_string().parse::<KeyId>().unwrap(), public.id());

        let line = fs::read_to_string(&path).unwrap();
        assert!(matches!(line.parse::<PublicKey>(), Err(KeyError::PrivateGiven)));
        assert!(
            !format!("{read:?}").contains(line.split(' ').nth(1).unwrap()),
            "a seed is never shown"
        );
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(
            PrivateKey::load(&path),
            Err(KeyError::Exposed { mode: 0o640, .. })
        ));
    }

    /// RFC 8032, 7.1, test 2.
    #[test]
    fn signatures_are_those_of_the_standard() {
        let seed = unhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb").unwrap();
        let key = PrivateKey::from_seed(&seed, String::new()).unwrap();
        let expected = "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
                        085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00";
        assert_eq!(hex(&key.sign(&[0x72])), expected);
    }
}
