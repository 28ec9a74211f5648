//! What the host does for guests beside running them. Each is granted by name; what is not granted is not there.

pub mod clock;
pub mod lookup;
pub mod matcher;
pub mod random;
pub mod state;

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Bytes of `state` of one plugin and one tenant, keys and bookkeeping included: some ten thousand keys.
pub const DEFAULT_STATE_BYTES: usize = 1024 * 1024;

/// One of the host's interfaces that a plugin may import.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Capability {
    Log,
    Clock,
    Random,
    State,
    Lookup,
    Match,
}

impl Capability {
    pub const ALL: [Capability; 6] = [
        Capability::Log,
        Capability::Clock,
        Capability::Random,
        Capability::State,
        Capability::Lookup,
        Capability::Match,
    ];

    /// As the contract calls its interface.
    pub fn as_str(self) -> &'static str {
        match self {
            Capability::Log => "log",
            Capability::Clock => "clock",
            Capability::Random => "random",
            Capability::State => "state",
            Capability::Lookup => "lookup",
            Capability::Match => "match",
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A name that is no capability.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no capability `{0}`; there are log, clock, random, state, lookup and match")]
pub struct UnknownCapability(pub String);

impl FromStr for Capability {
    type Err = UnknownCapability;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let known = Capability::ALL
            .into_iter()
            .find(|capability| capability.as_str() == name);
        known.ok_or_else(|| UnknownCapability(name.to_owned()))
    }
}

/// What one plugin is allowed besides computing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grants {
    pub capabilities: BTreeSet<Capability>,
    /// The tables that `lookup` shows it.
    pub tables: Vec<TableSource>,
    /// Bytes that its `state` may hold for one tenant.
    pub state_bytes: usize,
}

impl Grants {
    /// Everything but `lookup`, which shows files of the node.
    pub fn harmless() -> Grants {
        let mut capabilities = BTreeSet::from(Capability::ALL);
        capabilities.remove(&Capability::Lookup);
        Grants {
            capabilities,
            tables: Vec::new(),
            state_bytes: DEFAULT_STATE_BYTES,
        }
    }

    /// Nothing at all.
    pub fn none() -> Grants {
        Grants {
            capabilities: BTreeSet::new(),
            ..Grants::harmless()
        }
    }
}

/// A table of the operator, by the name that the plugin knows.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct TableSource {
    pub name: String,
    /// A CSV file or a MaxMind database.
    pub path: PathBuf,
    /// The column of a CSV file whose texts are the keys; the first one if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_go_there_and_back() {
        for capability in Capability::ALL {
            assert_eq!(capability.to_string().parse(), Ok(capability));
            assert_eq!(serde_json::to_string(&capability).unwrap(), format!("\"{capability}\""));
        }
        assert!("Log".parse::<Capability>().is_err());
        assert!(!Grants::harmless().capabilities.contains(&Capability::Lookup));
    }
}
