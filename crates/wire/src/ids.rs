//! Who sent a batch and which one it is: tenant, node, stream, epoch, sequence number, partition.
//!
//! Every id is validated when it is made, so that holding one means it is safe in a path, a topic key or a URI.

use std::fmt;
use std::str::FromStr;

const MAX_TENANT_BYTES: usize = 64;
const MAX_NODE_BYTES: usize = 128;

/// Why a text is not an id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    #[error("{what} is empty")]
    Empty { what: &'static str },
    #[error("{what} has {length} bytes, at most {max} are allowed")]
    TooLong {
        what: &'static str,
        length: usize,
        max: usize,
    },
    #[error("{what} holds {found:?}, which is not one of {allowed}")]
    BadCharacter {
        what: &'static str,
        found: char,
        allowed: &'static str,
    },
    #[error("{what} does not have the form {form}")]
    BadForm { what: &'static str, form: &'static str },
}

/// Name of a tenant: 1 to 64 of `a-z 0-9 _ -`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantId(Box<str>);

impl TenantId {
    pub fn new(text: &str) -> Result<Self, IdError> {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-');
        check("tenant", text, MAX_TENANT_BYTES, allowed, "a-z 0-9 _ -")?;
        Ok(Self(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Name of an edge node inside its tenant: 1 to 128 of `A-Z a-z 0-9 . _ -`, but neither `.` nor `..`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(Box<str>);

impl NodeId {
    pub fn new(text: &str) -> Result<Self, IdError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        check("node", text, MAX_NODE_BYTES, allowed, "A-Z a-z 0-9 . _ -")?;
        // Ids become parts of paths and URIs, where these two mean something else.
        if matches!(text, "." | "..") {
            return Err(IdError::BadForm {
                what: "node",
                form: "a name other than . and ..",
            });
        }
        Ok(Self(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One spool directory of one node: the unit in which order is kept. A wiped disk is a new stream.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    pub tenant: TenantId,
    pub node: NodeId,
    pub spool: [u8; 16],
}

/// One start of an edge: the start's number, and random bits so that a restored disk image never reuses it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch {
    pub number: u32,
    pub random: u64,
}

/// The identity of one batch; `seq` counts without gaps within (stream, epoch).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchId {
    pub stream: StreamId,
    pub epoch: Epoch,
    pub seq: u64,
}

/// One partition of one generation of the log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Partition {
    pub generation: u32,
    pub index: u16,
}

impl Partition {
    /// The number that stands in the tables: generation in the upper bits, index in the lower 16.
    pub fn as_i64(self) -> i64 {
        (i64::from(self.generation) << 16) | i64::from(self.index)
    }

    /// The reverse of [`Partition::as_i64`]; `None` for a number that it never returns.
    pub fn from_i64(number: i64) -> Option<Self> {
        let generation = u32::try_from(number >> 16).ok()?;
        Some(Self {
            generation,
            index: (number & 0xffff) as u16,
        })
    }
}

impl StreamId {
    /// The index of the partition that holds this stream in a log of `partitions` partitions (at least one).
    pub fn partition_index(&self, partitions: u16) -> u16 {
        let hash = blake3::hash(self.to_string().as_bytes());
        let mut head = [0u8; 8];
        head.copy_from_slice(&hash.as_bytes()[..8]);
        (u64::from_le_bytes(head) % u64::from(partitions.max(1))) as u16
    }
}

fn check(
    what: &'static str,
    text: &str,
    max: usize,
    is_allowed: impl Fn(char) -> bool,
    allowed: &'static str,
) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty { what });
    }
    if text.len() > max {
        return Err(IdError::TooLong {
            what,
            length: text.len(),
            max,
        });
    }
    match text.chars().find(|c| !is_allowed(*c)) {
        Some(found) => Err(IdError::BadCharacter { what, found, allowed }),
        None => Ok(()),
    }
}

macro_rules! text_id {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::new(text)
            }
        }
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}
text_id!(TenantId);
text_id!(NodeId);

macro_rules! debug_as_display {
    ($name:ident) => {
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}
debug_as_display!(StreamId);
debug_as_display!(Epoch);
debug_as_display!(BatchId);
debug_as_display!(Partition);

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.tenant, self.node, hex::encode(self.spool))
    }
}

impl FromStr for StreamId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let bad = IdError::BadForm {
            what: "stream",
            form: "tenant/node/<32 lower-case hex digits>",
        };
        let mut parts = text.split('/');
        let (Some(tenant), Some(node), Some(spool), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(bad);
        };
        let mut bytes = [0u8; 16];
        if !is_lower_hex(spool) || hex::decode_to_slice(spool, &mut bytes).is_err() {
            return Err(bad);
        }
        Ok(Self {
            tenant: TenantId::new(tenant)?,
            node: NodeId::new(node)?,
            spool: bytes,
        })
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:016x}", self.number, self.random)
    }
}

impl FromStr for Epoch {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let bad = IdError::BadForm {
            what: "epoch",
            form: "<number>-<16 lower-case hex digits>",
        };
        let (number, random) = text.split_once('-').ok_or_else(|| bad.clone())?;
        // One spelling per epoch: it is compared as text in the tables.
        let canonical = !number.is_empty()
            && number.bytes().all(|b| b.is_ascii_digit())
            && (number == "0" || !number.starts_with('0'));
        if !canonical || random.len() != 16 || !is_lower_hex(random) {
            return Err(bad);
        }
        let number = number.parse().map_err(|_| bad.clone())?;
        let random = u64::from_str_radix(random, 16).map_err(|_| bad)?;
        Ok(Self { number, random })
    }
}

impl fmt::Display for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.stream, self.epoch, self.seq)
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.as_i64())
    }
}

fn is_lower_hex(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_outside_their_alphabet_are_refused() {
        for bad in ["", "Acme", "a b", "a/b", "ü", &"a".repeat(65)] {
            assert!(TenantId::new(bad).is_err(), "{bad}");
        }
        for bad in ["", "a/b", "a b", "..", ".", "é", &"n".repeat(129)] {
            assert!(NodeId::new(bad).is_err(), "{bad}");
        }
        assert!(TenantId::new(&"a".repeat(64)).is_ok());
        assert!(NodeId::new("Site-7.rack_2").is_ok());
    }

    #[test]
    fn other_spellings_of_an_epoch_or_stream_are_refused() {
        for bad in [
            "17-9F3C0123456789AB",
            "017-9f3c0123456789ab",
            "+1-9f3c0123456789ab",
            "1-9f",
            "4294967296-0000000000000000",
            "-1",
        ] {
            assert!(bad.parse::<Epoch>().is_err(), "{bad}");
        }
        assert_eq!(
            "17-9f3c0123456789ab".parse::<Epoch>().unwrap(),
            Epoch {
                number: 17,
                random: 0x9f3c_0123_4567_89ab
            }
        );
        for bad in [
            "a/b",
            "a/b/00",
            "a/b/000102030405060708090A0B0C0D0E0F",
            "a/b/000102030405060708090a0b0c0d0e0f/x",
        ] {
            assert!(bad.parse::<StreamId>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn ids_read_back_what_they_show(
            tenant in "[a-z0-9_-]{1,64}", node in "[A-Za-z0-9_-]{1,128}", spool: [u8; 16], number: u32, random: u64
        ) {
            let stream = StreamId { tenant: TenantId::new(&tenant).unwrap(), node: NodeId::new(&node).unwrap(), spool };
            prop_assert_eq!(stream.to_string().parse::<StreamId>().unwrap(), stream);
            let epoch = Epoch { number, random };
            prop_assert_eq!(epoch.to_string().parse::<Epoch>().unwrap(), epoch);
        }

        #[test]
        fn any_text_is_an_id_or_an_error(text in ".{0,80}") {
            let _ = TenantId::new(&text);
            let _ = NodeId::new(&text);
            let _ = text.parse::<StreamId>();
            let _ = text.parse::<Epoch>();
        }

        #[test]
        fn partitions_survive_the_tables_number(generation: u32, index: u16, other: i64) {
            let partition = Partition { generation, index };
            prop_assert!(partition.as_i64() >= 0);
            prop_assert_eq!(Partition::from_i64(partition.as_i64()), Some(partition));
            if let Some(read) = Partition::from_i64(other) {
                prop_assert_eq!(read.as_i64(), other);
            }
        }
    }
}
