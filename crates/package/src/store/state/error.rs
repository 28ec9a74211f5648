//! What a store says to a change that its rules do not allow.

use semver::Version;

use crate::digest::Digest;
use crate::limits::{TEXT_BYTES, VERSIONS};
use crate::manifest::Release;
use crate::name::PackageName;
use crate::time::Timestamp;

/// Why a store does not change as it was asked to.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum StateError {
    #[error("{name} is not installed here: `sluice plugin install` brings it")]
    NotInstalled { name: PackageName },
    #[error("{name} {version} is not installed here; there are: {here}")]
    NoSuchVersion {
        name: PackageName,
        version: Version,
        here: String,
    },
    #[error("no version of {name} is current: `sluice plugin promote {name} VERSION` chooses one; there are: {here}")]
    NoCurrent { name: PackageName, here: String },
    #[error("{name} is disabled since {at}: {reason}; `sluice plugin enable {name}` lets it run again")]
    Disabled {
        name: PackageName,
        reason: String,
        at: Timestamp,
    },
    #[error(
        "{name} {version} was marked bad at {at}: {reason}; install a newer version, or `sluice plugin promote {name} {version}` if you know better"
    )]
    Bad {
        name: PackageName,
        version: Version,
        reason: String,
        at: Timestamp,
    },
    #[error(
        "{name} {version} is older than {highest}, which was installed here before: going back is `sluice plugin rollback {name} VERSION`, to a version that is installed here"
    )]
    Downgrade {
        name: PackageName,
        version: Version,
        highest: Version,
    },
    #[error(
        "{release} is installed here with other bytes ({here}, not {found}): a version is published once; its publisher has to give the new bytes a new version"
    )]
    VersionTaken {
        release: Box<Release>,
        here: Digest,
        found: Digest,
    },
    #[error("there is no version of {name} to go back to: `sluice plugin disable {name}` stops it")]
    NothingToGoBackTo { name: PackageName },
    #[error("{name} {version} is the version that runs already")]
    AlreadyCurrent { name: PackageName, version: Version },
    #[error(
        "{name} {version} is newer than {current}, the one that runs: use `sluice plugin promote {name} {version}`"
    )]
    NotBack {
        name: PackageName,
        version: Version,
        current: Version,
    },
    #[error("{name} {version} {role}: {remedy}")]
    InUse {
        name: PackageName,
        version: Version,
        role: &'static str,
        remedy: String,
    },
    #[error("a share is above 0 and at most 1, and {share} is not")]
    Share { share: f64 },
    #[error("a reason is one line of 1 to {TEXT_BYTES} bytes")]
    Reason,
    #[error("{VERSIONS} versions of {name} are here, and no more are kept: `sluice plugin remove {name} VERSION`")]
    TooManyVersions { name: PackageName },
}
