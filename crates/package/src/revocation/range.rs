//! Ranges of versions that leave no gap: pre-releases lie where precedence puts them.

use std::fmt;
use std::str::FromStr;

use semver::Version;
use serde::{Deserialize, Serialize};

use crate::name::parse_version;

/// At most this many comparisons: two bound a range.
const COMPARISONS: usize = 8;

/// `*`, or comparisons that all hold: `>=1.0.0, <1.4.2`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VersionRange(Vec<(Comparison, Version)>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    AtLeast,
    Above,
    AtMost,
    Below,
    Equal,
}

use Comparison::{Above, AtLeast, AtMost, Below, Equal};

/// Longer signs first: `>=` begins with `>`.
const SIGNS: [(&str, Comparison); 5] = [
    (">=", AtLeast),
    ("<=", AtMost),
    (">", Above),
    ("<", Below),
    ("=", Equal),
];

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a range of versions: write `*`, `=1.2.3`, or comparisons such as `>=1.0.0, <1.4.2`")]
pub struct RangeError {
    text: String,
}

impl VersionRange {
    pub fn contains(&self, version: &Version) -> bool {
        self.0.iter().all(|(comparison, than)| match comparison {
            AtLeast => version >= than,
            Above => version > than,
            AtMost => version <= than,
            Below => version < than,
            Equal => version == than,
        })
    }
}

impl FromStr for VersionRange {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let refuse = || RangeError {
            text: text.chars().take(128).collect(),
        };
        if text.trim() == "*" {
            return Ok(Self(Vec::new()));
        }
        let comparison = |part: &str| {
            let part = part.trim();
            let (sign, comparison) = SIGNS.iter().find(|(sign, _)| part.starts_with(sign))?;
            Some((*comparison, parse_version(part[sign.len()..].trim()).ok()?))
        };
        let parts: Vec<_> = text
            .split(',')
            .take(COMPARISONS + 1)
            .map(comparison)
            .collect::<Option<_>>()
            .ok_or_else(refuse)?;
        match parts.len() {
            1..=COMPARISONS => Ok(Self(parts)),
            _ => Err(refuse()),
        }
    }
}

impl TryFrom<String> for VersionRange {
    type Error = RangeError;

    fn try_from(text: String) -> Result<Self, RangeError> {
        text.parse()
    }
}

impl From<VersionRange> for String {
    fn from(range: VersionRange) -> Self {
        range.to_string()
    }
}

impl fmt::Display for VersionRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("*");
        }
        for (place, (comparison, version)) in self.0.iter().enumerate() {
            let sign = SIGNS.iter().find(|(_, c)| c == comparison).map_or("", |(sign, _)| sign);
            write!(f, "{}{sign}{version}", if place == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn pre_releases_are_within_the_range_that_they_lie_in() {
        let holds = |range: &str, version: &str| {
            let parsed: VersionRange = range.parse().unwrap();
            assert_eq!(parsed.to_string().parse::<VersionRange>().unwrap(), parsed);
            parsed.contains(&version.parse().unwrap())
        };
        assert!(holds("*", "2.0.0-rc.1") && holds("<1.4.2", "1.4.2-rc.1") && holds(">=1.0.0,<2.0.0", "2.0.0-alpha"));
        assert!(holds("=1.2.3", "1.2.3") && !holds("=1.2.3", "1.2.3-a") && !holds(">=1.0.0, <1.4.2", "1.4.2"));
        for bad in [
            "",
            "1.2.3",
            "^1.0.0",
            "~1.2",
            ">=1",
            ">1.0.0,",
            "=>1.0.0",
            "* , <1.0.0",
            &"=1.0.0,".repeat(20),
        ] {
            assert!(bad.parse::<VersionRange>().is_err(), "{bad}");
        }
    }
}
