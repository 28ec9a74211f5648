//! Names of packages and their versions: narrow enough that a name is a path, a tag and a key as it stands.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use semver::Version;
use serde::{Deserialize, Serialize};

use crate::limits::{NAME_PART_CHARS, VERSION_CHARS};

/// `name` or `vendor/name`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PackageName(String);

/// What is wrong with a name or a version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {expected}")]
pub struct NameError {
    text: String,
    expected: &'static str,
}

const NAME: &str =
    "a package name: `name` or `vendor/name`, each part 1 to 64 characters of a-z, 0-9 and `-` with no `-` at its ends";
const VERSION: &str = "a version: three numbers with an optional pre-release in lower case, such as 1.4.0 or 2.0.0-rc.1, without build metadata";
const RULE: &str = "a package name, `vendor/*` or `*`";

impl NameError {
    fn new(text: &str, expected: &'static str) -> Self {
        // What a hostile file holds is shown, but not at any length.
        let text = text.chars().take(2 * NAME_PART_CHARS).collect();
        Self { text, expected }
    }
}

impl PackageName {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn vendor(&self) -> Option<&str> {
        self.0.split_once('/').map(|(vendor, _)| vendor)
    }

    /// Its folder below `packages/`. There is nothing in a name that could lead elsewhere.
    pub(crate) fn folder(&self) -> PathBuf {
        self.0.split('/').collect()
    }
}

impl FromStr for PackageName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let parts: Vec<&str> = text.split('/').collect();
        if parts.len() <= 2 && parts.iter().all(|part| is_name_part(part)) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError::new(text, NAME))
        }
    }
}

impl TryFrom<String> for PackageName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<PackageName> for String {
    fn from(name: PackageName) -> Self {
        name.0
    }
}

impl fmt::Display for PackageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

pub(crate) fn is_name_part(part: &str) -> bool {
    let fits = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    (1..=NAME_PART_CHARS).contains(&part.len())
        && part.bytes().all(fits)
        && !part.starts_with('-')
        && !part.ends_with('-')
}

/// A version of a package, under the rules of FORMAT.md.
pub fn parse_version(text: &str) -> Result<Version, NameError> {
    let refuse = || NameError::new(text, VERSION);
    if text.len() > VERSION_CHARS || text.bytes().any(|c| c.is_ascii_uppercase()) {
        return Err(refuse());
    }
    let version = Version::parse(text).map_err(|_| refuse())?;
    if !version.build.is_empty() {
        return Err(refuse());
    }
    Ok(version)
}

/// For `#[serde(with = …)]`.
pub(crate) mod version_text {
    use semver::Version;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(value: &Version, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(value)
    }
    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Version, D::Error> {
        super::parse_version(&String::deserialize(d)?).map_err(D::Error::custom)
    }
}

/// Which packages a key may sign: one of them, or all of a vendor.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum NameRule {
    Any,
    Vendor(String),
    Exactly(PackageName),
}

impl NameRule {
    pub fn covers(&self, name: &PackageName) -> bool {
        match self {
            Self::Any => true,
            Self::Vendor(vendor) => name.vendor() == Some(vendor),
            Self::Exactly(one) => one == name,
        }
    }
}

impl FromStr for NameRule {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text == "*" {
            return Ok(Self::Any);
        }
        match text.strip_suffix("/*") {
            Some(vendor) if is_name_part(vendor) => Ok(Self::Vendor(vendor.to_owned())),
            Some(_) => Err(NameError::new(text, RULE)),
            None => text.parse().map(Self::Exactly).map_err(|_| NameError::new(text, RULE)),
        }
    }
}

impl TryFrom<String> for NameRule {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<NameRule> for String {
    fn from(rule: NameRule) -> Self {
        rule.to_string()
    }
}

impl fmt::Display for NameRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Vendor(vendor) => write!(f, "{vendor}/*"),
            Self::Exactly(name) => name.fmt(f),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::{Component, Path};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_and_versions_that_could_be_taken_for_others_are_refused() {
        for good in ["mask", "acme/mask", "a", "0/9", "a-b/c-d-e", &"x".repeat(64)] {
            assert_eq!(good.parse::<PackageName>().unwrap().as_str(), good);
        }
        let long = "x".repeat(65);
        for bad in [
            "",
            "/",
            "a/",
            "/a",
            "a/b/c",
            "..",
            "../mask",
            "acme/..",
            "acme/../mask",
            ".",
            "Mask",
            "acme/Mask",
            "ACME/mask",
            "m\u{430}sk",
            "mask ",
            " mask",
            "mask\n",
            "mask\0",
            "a_b",
            "a.b",
            "-a",
            "a-",
            "a\\b",
            "acme%2fmask",
            "~",
            &long,
        ] {
            assert!(bad.parse::<PackageName>().is_err(), "{bad:?}");
        }
        for good in ["0.0.1", "1.2.3", "1.0.0-rc.1"] {
            assert_eq!(parse_version(good).unwrap().to_string(), good);
        }
        for bad in [
            "",
            "1",
            "1.2",
            "01.2.3",
            "1.2.3+b",
            "1.2.3-RC",
            "v1.2.3",
            " 1.2.3",
            "1.2.3/..",
            "..",
            &format!("1.2.3-{long}"),
        ] {
            assert!(parse_version(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        /// Whatever is accepted stays below the folder it is put in.
        #[test]
        fn a_name_is_never_a_way_out(text in "[a-zA-Z0-9./\\\\ -]{0,12}") {
            if let Ok(name) = text.parse::<PackageName>() {
                let folder = name.folder();
                prop_assert!(folder.components().all(|c| matches!(c, Component::Normal(_))));
                prop_assert!(Path::new("/store").join(&folder).starts_with("/store"));
                prop_assert_eq!(name.to_string(), text);
            }
        }
    }

    #[test]
    fn a_rule_covers_its_vendor_and_no_other() {
        let covers = |rule: &str, name: &str| rule.parse::<NameRule>().unwrap().covers(&name.parse().unwrap());
        assert!(covers("*", "mask") && covers("acme/*", "acme/mask") && covers("acme/mask", "acme/mask"));
        assert!(!covers("acme/*", "acme") && !covers("acme/*", "acme-evil/mask") && !covers("mask", "acme/mask"));
        for bad in ["", "*/mask", "Acme/*", "acme/m*", "**", "a/b/*"] {
            assert!(bad.parse::<NameRule>().is_err(), "{bad}");
        }
    }
}
