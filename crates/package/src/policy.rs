//! What a host is and what its operator allows: what a package is measured against beside its signature.

use std::collections::BTreeSet;

use semver::Version;

use crate::manifest::Capability;
use crate::time::Timestamp;

/// The contracts that hosts of this version run: `sluice:plugin` of wit/ and wit/released/.
pub const CONTRACTS: [Version; 2] = [Version::new(0, 1, 0), Version::new(1, 0, 0)];

#[derive(Clone, Debug)]
pub struct Policy {
    pub host: Version,
    pub contracts: Vec<Version>,
    /// What packages may have at most, whoever signed them.
    pub capabilities: BTreeSet<Capability>,
    /// Load nothing without a fresh revocation list. Otherwise a site that is offline goes on with what it has, and warns.
    pub strict_revocations: bool,
    /// What time it is.
    pub clock: fn() -> Timestamp,
}

impl Default for Policy {
    fn default() -> Self {
        let [major, minor, patch] = [
            env!("CARGO_PKG_VERSION_MAJOR"),
            env!("CARGO_PKG_VERSION_MINOR"),
            env!("CARGO_PKG_VERSION_PATCH"),
        ]
        // They were written by cargo.
        .map(|part| part.parse().unwrap_or(0));
        Self {
            host: Version::new(major, minor, patch),
            contracts: CONTRACTS.to_vec(),
            capabilities: BTreeSet::from(Capability::ALL),
            strict_revocations: false,
            clock: Timestamp::now,
        }
    }
}

impl Policy {
    /// A host runs every minor version up to its own; below 1.0 each minor version stands for itself.
    pub(crate) fn runs(&self, contract: &Version) -> bool {
        self.contracts.iter().any(|ours| {
            let same_line = ours.major == contract.major && (ours.major > 0 || ours.minor == contract.minor);
            same_line && contract <= ours
        })
    }
}
