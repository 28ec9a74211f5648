//! Where an artifact is: `oci:DIR:TAG`, `oci://host/name:tag`, either with `@sha256:…` instead of a tag.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::digest::Digest;

/// Bytes of a repository's name, and characters of a tag, by the OCI distribution specification.
const REPOSITORY_BYTES: usize = 255;
const TAG_CHARS: usize = 128;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    Layout {
        folder: PathBuf,
        selector: Selector,
    },
    Registry {
        /// With its port, if one is given.
        host: String,
        repository: String,
        selector: Selector,
    },
}

/// Which of the artifacts of a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// In a folder: [`DEFAULT_TAG`], or else the only one there is.
    Unsaid,
    Tag(String),
    Digest(Digest),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    #[error(
        "{text:?} is no place for packages: write `oci:DIR`, `oci:DIR:TAG`, `oci://HOST/NAME:TAG`, or either with `@sha256:…` at its end ({problem})"
    )]
    Malformed { text: String, problem: &'static str },
    #[error("a revocation list is published under a tag, not a digest: write `oci://HOST/NAME:TAG` or `oci:DIR:TAG`")]
    TagNeeded,
}

impl Reference {
    /// Whether a text means one; anything else is a path.
    pub fn is_one(text: &str) -> bool {
        text.starts_with("oci:")
    }

    pub fn selector(&self) -> &Selector {
        match self {
            Self::Layout { selector, .. } | Self::Registry { selector, .. } => selector,
        }
    }

    /// The same place, for another artifact.
    #[must_use]
    pub fn with(&self, other: Selector) -> Self {
        let mut reference = self.clone();
        match &mut reference {
            Self::Layout { selector, .. } | Self::Registry { selector, .. } => *selector = other,
        }
        reference
    }
}

/// The tag where none is given.
pub const DEFAULT_TAG: &str = "latest";

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let malformed = |problem| ReferenceError::Malformed {
            text: text.chars().take(256).collect(),
            problem,
        };
        let rest = text
            .strip_prefix("oci:")
            .ok_or_else(|| malformed("it begins with `oci:`"))?;
        let (rest, digest) = match rest.rsplit_once('@') {
            Some((rest, digest)) if digest.starts_with("sha256:") => {
                let digest = digest.parse().map_err(|_| malformed("the digest is not one"))?;
                (rest, Some(Selector::Digest(digest)))
            }
            _ => (rest, None),
        };
        let Some(place) = rest.strip_prefix("//") else {
            let (folder, tag) = split_tag(rest);
            let selector = match (&digest, tag) {
                (None, None) => Selector::Unsaid,
                _ => selector(digest, tag).map_err(malformed)?,
            };
            if folder.is_empty() {
                return Err(malformed("the folder is missing"));
            }
            return Ok(Self::Layout {
                folder: PathBuf::from(folder),
                selector,
            });
        };
        let (host, path) = place
            .split_once('/')
            .ok_or_else(|| malformed("a name follows the host"))?;
        let (repository, tag) = split_tag(path);
        if !is_host(host) {
            return Err(malformed("the host is not one"));
        }
        if !is_repository(repository) {
            return Err(malformed(
                "a name is made of lower-case letters, digits, `.`, `_`, `-` and `/`",
            ));
        }
        Ok(Self::Registry {
            host: host.to_owned(),
            repository: repository.to_owned(),
            selector: selector(digest, tag).map_err(malformed)?,
        })
    }
}

/// A tag follows the last colon, unless a folder of that name follows it.
fn split_tag(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((place, tag)) if !tag.contains('/') => (place, Some(tag)),
        _ => (text, None),
    }
}

fn selector(digest: Option<Selector>, tag: Option<&str>) -> Result<Selector, &'static str> {
    let tag = tag.unwrap_or(DEFAULT_TAG);
    if !is_tag(tag) {
        return Err("a tag has at most 128 letters, digits, `.`, `_` and `-`");
    }
    Ok(digest.unwrap_or_else(|| Selector::Tag(tag.to_owned())))
}

pub(super) fn is_tag(tag: &str) -> bool {
    let word = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
    (1..=TAG_CHARS).contains(&tag.len())
        && tag.bytes().all(|c| word(c) || c == b'.' || c == b'-')
        && tag.bytes().next().is_some_and(word)
}

fn is_host(host: &str) -> bool {
    let fits = |c: u8| c.is_ascii_alphanumeric() || b".-:[]".contains(&c);
    !host.is_empty() && host.len() <= REPOSITORY_BYTES && host.bytes().all(fits)
}

fn is_repository(name: &str) -> bool {
    let edge = |c: Option<u8>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let fits = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"._-".contains(&c);
    name.len() <= REPOSITORY_BYTES
        && name.split('/').all(|part| {
            edge(part.bytes().next()) && edge(part.bytes().last()) && part.bytes().all(fits) && !part.contains("..")
        })
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsaid => f.write_str(DEFAULT_TAG),
            Self::Tag(tag) => f.write_str(tag),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Layout { folder, .. } => write!(f, "oci:{}", folder.display())?,
            Self::Registry { host, repository, .. } => write!(f, "oci://{host}/{repository}")?,
        }
        match self.selector() {
            Selector::Unsaid => Ok(()),
            Selector::Tag(tag) => write!(f, ":{tag}"),
            Selector::Digest(digest) => write!(f, "@{digest}"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_as_they_are_shown_and_others_refused() {
        let digest = Digest::of(b"").to_string();
        for (text, shown) in [
            ("oci:out", "oci:out"),
            ("oci:out:latest", "oci:out:latest"),
            ("oci:out:1.0.0", "oci:out:1.0.0"),
            ("oci:/a:b/out", "oci:/a:b/out"),
            (
                "oci://localhost:5000/acme/demo",
                "oci://localhost:5000/acme/demo:latest",
            ),
            (
                "oci://[::1]:5000/acme/demo:1.0.0-rc.1",
                "oci://[::1]:5000/acme/demo:1.0.0-rc.1",
            ),
            (
                &format!("oci://r.example/demo:1@{digest}"),
                &format!("oci://r.example/demo@{digest}"),
            ),
            (&format!("oci:out@{digest}"), &format!("oci:out@{digest}")),
        ] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.to_string(), shown);
            assert_eq!(shown.parse::<Reference>().unwrap(), reference);
        }
        for bad in [
            "out",
            "oci:",
            "oci://host",
            "oci:///name",
            "oci://user@host/name",
            "oci://host/../name",
            "oci://host/Name",
            "oci://host/name:",
            "oci://host/name:a/b",
            "oci://host/a//b",
            "oci://host/name?x=1",
            "oci://host/name@sha256:00",
            "oci://ho st/name",
        ] {
            assert!(bad.parse::<Reference>().is_err(), "{bad}");
        }
    }
}
