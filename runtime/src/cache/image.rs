//! One file of the cache (runtime/FORMAT.md). Pure: bytes in, bytes out.

use std::ops::Range;

const MAGIC: [u8; 7] = *b"sluimg\0";
const VERSION: u8 = 1;
/// Bytes that the MAC covers besides the machine code.
const COVERED: usize = 56;
/// Bytes before the machine code.
pub(super) const HEADER: usize = 88;

/// What a component compiled by one engine is called: nothing else can have this name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ImageName([u8; 32]);

impl ImageName {
    pub(crate) fn new(component_digest: &[u8; 32], engine_fingerprint: &[u8; 32]) -> ImageName {
        let mut hasher = blake3::Hasher::new_derive_key("sluice plugin image name 1");
        hasher.update(component_digest).update(engine_fingerprint);
        ImageName(*hasher.finalize().as_bytes())
    }

    pub(super) fn file_name(self) -> String {
        format!("{}.image", blake3::Hash::from_bytes(self.0).to_hex())
    }
}

/// The secret of one cache: who does not have it cannot make an image that is loaded.
#[derive(Clone)]
pub(super) struct Key([u8; 32]);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

impl Key {
    pub(super) const BYTES: usize = 32;

    pub(super) fn new(bytes: [u8; Self::BYTES]) -> Key {
        Key(bytes)
    }

    fn id(&self) -> [u8; 8] {
        let mut id = [0; 8];
        id.copy_from_slice(&blake3::derive_key("sluice plugin cache key id 1", &self.0)[..8]);
        id
    }

    fn mac(&self, head: &[u8], code: &[u8]) -> blake3::Hash {
        blake3::Hasher::new_keyed(&self.0).update(head).update(code).finalize()
    }
}

/// Why a file is not loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Distrust {
    #[error("it is not an image of this version")]
    Format,
    #[error("it is cut off or has something added")]
    Length,
    #[error("it was written under another key")]
    Key,
    #[error("it is the image of something else")]
    Name,
    #[error("its seal is wrong")]
    Mac,
}

/// The head of a file with this machine code.
pub(super) fn head(key: &Key, name: ImageName, code: &[u8]) -> [u8; HEADER] {
    let mut head = [0; HEADER];
    head[..7].copy_from_slice(&MAGIC);
    head[7] = VERSION;
    head[8..16].copy_from_slice(&key.id());
    head[16..48].copy_from_slice(&name.0);
    head[48..COVERED].copy_from_slice(&(code.len() as u64).to_le_bytes());
    let mac = key.mac(&head[..COVERED], code);
    head[COVERED..].copy_from_slice(mac.as_bytes());
    head
}

/// Where the machine code of a file stands, if it is to be trusted.
pub(super) fn open(key: &Key, name: ImageName, file: &[u8]) -> Result<Range<usize>, Distrust> {
    let (Some(head), Some(code)) = (file.get(..HEADER), file.get(HEADER..)) else {
        return Err(Distrust::Length);
    };
    if head[..7] != MAGIC || head[7] != VERSION {
        return Err(Distrust::Format);
    }
    if head[8..16] != key.id() {
        return Err(Distrust::Key);
    }
    if head[16..48] != name.0 {
        return Err(Distrust::Name);
    }
    if head[48..COVERED] != (code.len() as u64).to_le_bytes() {
        return Err(Distrust::Length);
    }
    let mut mac = [0; 32];
    mac.copy_from_slice(&head[COVERED..]);
    // The comparison of hashes takes the same time wherever they differ.
    if key.mac(&head[..COVERED], code) != blake3::Hash::from_bytes(mac) {
        return Err(Distrust::Mac);
    }
    Ok(HEADER..file.len())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn file(key: &Key, name: ImageName, code: &[u8]) -> Vec<u8> {
        [&head(key, name, code)[..], code].concat()
    }

    #[test]
    fn an_image_opens_with_its_key_under_its_name_and_no_other_way() {
        let (key, other) = (Key::new([1; 32]), Key::new([2; 32]));
        let (name, another) = (ImageName::new(&[3; 32], &[4; 32]), ImageName::new(&[4; 32], &[3; 32]));
        let file = file(&key, name, b"machine code");
        let place = open(&key, name, &file).unwrap();
        assert_eq!(&file[place], b"machine code");
        assert_eq!(open(&other, name, &file), Err(Distrust::Key));
        assert_eq!(open(&key, another, &file), Err(Distrust::Name));
        // An image of another version, as that version would write it.
        let mut next = file;
        next[7] = 2;
        assert_eq!(open(&key, name, &next), Err(Distrust::Format));
    }

    #[test]
    fn any_flipped_bit_and_any_other_length_is_noticed() {
        let (key, name) = (Key::new([1; 32]), ImageName::new(&[3; 32], &[4; 32]));
        let good = file(&key, name, &[7; 40]);
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&key, name, &bad).is_err(), "bit {bit}");
        }
        for length in 0..good.len() {
            assert!(open(&key, name, &good[..length]).is_err(), "{length} bytes");
        }
        assert_eq!(open(&key, name, &[&good[..], b"x"].concat()), Err(Distrust::Length));
    }

    /// The format as it was first released (runtime/FORMAT.md).
    #[test]
    fn the_format_stays() {
        let (key, name) = (Key::new([1; 32]), ImageName::new(&[3; 32], &[4; 32]));
        let written = blake3::hash(&file(&key, name, b"machine code")).to_hex();
        assert_eq!(
            written.as_str(),
            "0fefc0f012d5442a7657b09228ad1b3f323eafab59e6ab3e345545ec24ecff35"
        );
    }
}
