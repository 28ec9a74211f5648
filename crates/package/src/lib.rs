//! Plugin packages: what one says of itself, who vouches for it, what was taken back, what a node keeps, and how packages travel.
//! FORMAT.md has every byte.
//!
//! A [`Package`] is bytes; [`Store::resolve`] gives [`Verified`] ones, and nothing else leads to them.

#[cfg(feature = "cli")]
pub mod command;
mod digest;
mod disk;
mod file;
mod key;
pub mod limits;
mod manifest;
mod name;
#[cfg(feature = "oci")]
pub mod oci;
mod policy;
mod revocation;
mod signature;
mod source;
mod standing;
mod store;
mod time;
mod trust;
mod verify;

pub use digest::{Digest, DigestError};
pub use key::{KeyError, KeyId, PrivateKey, PublicKey};
pub use manifest::{
    Capability, CapabilityError, ComponentFacts, FactMismatch, Kind, MANIFEST_SCHEMA, Manifest, ManifestError, Release,
    WantedLimits,
};
pub use name::{NameError, NameRule, PackageName, parse_version};
pub use policy::{CONTRACTS, Policy};
pub use revocation::{
    RangeError, Revocation, RevocationError, RevocationList, Revocations, RevokedComponent, RevokedKey,
    RevokedVersions, SignedRevocations, VersionRange,
};
pub use semver::Version;
pub use signature::Signature;
pub use source::{PluginSource, SOURCE_FILE, SourceError};
pub use standing::{Provenance, Rights};
pub use store::{
    Installed, InstalledVersion, Mark, PluginState, Shadow, State, StateError, Store, StoreError, VersionText, Watch,
};
pub use time::{TimeError, Timestamp};
pub use trust::{Trust, TrustError, TrustedKey};
pub use verify::{Asked, COMPONENT_FILE, MANIFEST_FILE, Package, Purpose, Refusal, SIGNATURE_FILE, Verified, Warning};
