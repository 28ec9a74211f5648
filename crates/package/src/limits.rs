//! Sizes and counts that are looked at before anything is read. All in one place, with their unit and origin.

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// Bytes of `manifest.json`: nearly all of it is the schema of the configuration; the largest known has 6 KiB.
pub const MANIFEST_BYTES: u64 = 64 * KIB;
/// Bytes of `manifest.sig`; a real one has 300.
pub const SIGNATURE_BYTES: u64 = 4 * KIB;
/// Bytes of a component: what the host compiles at most. The largest known (an embedded Python) has 18 MB.
pub const COMPONENT_BYTES: u64 = 64 * MIB;
/// Bytes of one signed revocation list: some 5,000 entries.
pub const REVOCATIONS_BYTES: u64 = MIB;
/// Bytes of `revocations.json`: lists of several keys.
pub const ALL_REVOCATIONS_BYTES: u64 = 8 * MIB;
/// Bytes of `state.json`: some ten thousand installed versions.
pub const STATE_BYTES: u64 = 4 * MIB;
/// Bytes of a key file, public or private, with its limits.
pub const KEY_FILE_BYTES: u64 = 16 * KIB;
/// Pinned keys of one store.
pub const TRUSTED_KEYS: usize = 256;
/// Characters of one part of a name, and of a version.
pub const NAME_PART_CHARS: usize = 64;
pub const VERSION_CHARS: usize = 64;
/// Columns in `reads`, and in `writes`.
pub const COLUMNS: usize = 256;
/// Bytes of one text of a manifest, a reason or a comment.
pub const TEXT_BYTES: usize = 1024;
/// Bytes of the publisher's name.
pub const PUBLISHER_BYTES: usize = 128;
/// Versions of one package that a store keeps.
pub const VERSIONS: usize = 64;
