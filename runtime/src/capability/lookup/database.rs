//! A MaxMind database in memory: addresses to records, and paths into records.

use std::fmt;
use std::net::IpAddr;

use maxminddb::{MaxMindDbError, PathElement, Reader};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Stands before the metadata, in the last 128 KiB of the file.
const MARKER: &[u8] = b"\xab\xcd\xefMaxMind.com";
const MARKER_WITHIN: usize = 128 * 1024;

#[derive(Debug)]
pub(super) struct Database(Reader<Vec<u8>>);

/// `country.iso_code`, `subdivisions.0.iso_code`: names of members and, in lists, places.
#[derive(Debug)]
pub(super) struct Path<'a> {
    /// Numbers are places in lists.
    with_places: Vec<PathElement<'a>>,
    /// Numbers are names of members, as the others are.
    with_names: Vec<PathElement<'a>>,
}

impl<'a> Path<'a> {
    pub(super) fn parse(path: &'a str) -> Path<'a> {
        let place = |part: &'a str| part.parse().map_or(PathElement::Key(part), PathElement::Index);
        Path {
            with_places: path.split('.').map(place).collect(),
            with_names: path.split('.').map(PathElement::Key).collect(),
        }
    }
}

impl Database {
    pub(super) fn recognise(bytes: &[u8]) -> bool {
        let tail = &bytes[bytes.len().saturating_sub(MARKER_WITHIN)..];
        memchr::memmem::rfind(tail, MARKER).is_some()
    }

    pub(super) fn parse(bytes: Vec<u8>) -> Result<Database, String> {
        let reader = Reader::from_source(bytes).map_err(|error| format!("is no MaxMind database: {error}"))?;
        Ok(Database(reader))
    }

    pub(super) fn nodes(&self) -> u64 {
        u64::from(self.0.metadata().node_count)
    }

    /// The texts at these paths; none for all of them if the key is no address, or one that is not in the database.
    pub(super) fn find(&self, key: &str, paths: &[Path<'_>], values: &mut Vec<Option<String>>) -> Result<(), String> {
        let address = key.trim().parse::<IpAddr>().ok().map(|address| address.to_canonical());
        let known = address.filter(|address| address.is_ipv4() || self.0.metadata().ip_version == 6);
        let Some(address) = known else {
            values.extend(paths.iter().map(|_| None));
            return Ok(());
        };
        let record = self.0.lookup(address).map_err(|error| error.to_string())?;
        for path in paths {
            let mut found = record.decode_path::<Scalar>(&path.with_places);
            if matches!(found, Err(MaxMindDbError::Decoding { .. })) {
                found = record.decode_path::<Scalar>(&path.with_names);
            }
            values.push(match found {
                Ok(scalar) => scalar.and_then(|scalar| scalar.0),
                // The record is of another shape than the path.
                Err(MaxMindDbError::Decoding { .. }) => None,
                Err(error) => return Err(error.to_string()),
            });
        }
        Ok(())
    }
}

/// The text of a string, number or boolean; none of anything else.
struct Scalar(Option<String>);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

struct ScalarVisitor;

impl ScalarVisitor {
    fn text<E>(value: impl fmt::Display) -> Result<Scalar, E> {
        Ok(Scalar(Some(value.to_string())))
    }
}

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of a MaxMind database")
    }

    fn visit_str<E>(self, value: &str) -> Result<Scalar, E> {
        Self::text(value)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Scalar, E> {
        Self::text(value)
    }

    fn visit_i32<E>(self, value: i32) -> Result<Scalar, E> {
        Self::text(value)
    }

    fn visit_i64<E>(self, value: i64) -> Result<Scalar, E> {
        Self::text(value)
    }

    fn visit_u16<E>(self, value: u16) -> Result<Scalar, E> {
        Self::text(value)
    }

    fn visit_u32<E>(self, value: u32) -> Result<Scalar, E> {
        Self::text(value)
    }

    fn visit_u64<E>(self, value: u64) -> Result<Scalar, E> {
        Self::text(value)
    }

    fn visit_u128<E>(self, value: u128) -> Result<Scalar, E> {
        Self::text(value)
    }

    fn visit_f32<E>(self, value: f32) -> Result<Scalar, E> {
        Self::text(value)
    }

    fn visit_f64<E>(self, value: f64) -> Result<Scalar, E> {
        Self::text(value)
    }

    fn visit_bytes<E>(self, _: &[u8]) -> Result<Scalar, E> {
        Ok(Scalar(None))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Scalar, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar(None))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Scalar, A::Error> {
        while members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Scalar(None))
    }
}
