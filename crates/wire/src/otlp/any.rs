//! A value of any kind, as it lies in the request, and its text.

use super::DecodeError;
use super::proto::Reader;
use crate::layout::AttrKind;
use crate::value::{self, type_name};

/// One `AnyValue`. Text is checked when it is taken, so that a value that is never used costs nothing.
#[derive(Clone, Copy, Debug)]
pub(super) enum Any<'a> {
    Text(&'a str),
    Bool(bool),
    Int(i64),
    Double(f64),
    Array(Reader<'a>),
    Kvlist(Reader<'a>),
    Bytes(&'a [u8]),
    Null,
}

impl<'a> Any<'a> {
    #[inline]
    pub(super) fn read(mut message: Reader<'a>) -> Result<Self, DecodeError> {
        let mut value = Self::Null;
        while let Some((number, wire)) = message.field()? {
            value = match number {
                1 => Self::Text(message.text(wire)?),
                2 => Self::Bool(message.uint(wire)? != 0),
                3 => Self::Int(message.uint(wire)? as i64),
                4 => Self::Double(message.double(wire)?),
                5 => Self::Array(message.message(wire)?),
                6 => Self::Kvlist(message.message(wire)?),
                7 => Self::Bytes(message.bytes(wire)?),
                _ => {
                    message.skip(number, wire)?;
                    value
                }
            };
        }
        Ok(value)
    }

    pub(super) fn kind(&self) -> AttrKind {
        match self {
            Self::Text(_) => AttrKind::String,
            Self::Bool(_) => AttrKind::Bool,
            Self::Int(_) => AttrKind::Int,
            Self::Double(_) => AttrKind::Double,
            Self::Array(_) | Self::Kvlist(_) => AttrKind::Json,
            Self::Bytes(_) => AttrKind::Bytes,
            Self::Null => AttrKind::Null,
        }
    }

    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Text(_) => type_name::STRING,
            Self::Bool(_) => type_name::BOOL,
            Self::Int(_) => type_name::INT,
            Self::Double(_) => type_name::DOUBLE,
            Self::Array(_) => type_name::ARRAY,
            Self::Kvlist(_) => type_name::KVLIST,
            Self::Bytes(_) => type_name::BYTES,
            Self::Null => type_name::NULL,
        }
    }

    /// Appends the text of section 3 of FORMAT.md.
    pub(super) fn write_text(&self, out: &mut Vec<u8>, depth: Depth) -> Result<(), DecodeError> {
        match self {
            Self::Text(text) => out.extend_from_slice(text.as_bytes()),
            Self::Bool(truth) => out.extend_from_slice(value::bool_text(*truth).as_bytes()),
            Self::Int(int) => value::write_int(out, *int),
            Self::Double(double) => value::write_double(out, *double),
            Self::Bytes(bytes) => value::write_base64(out, bytes),
            Self::Null => {}
            Self::Array(_) | Self::Kvlist(_) => self.write_json(out, depth)?,
        }
        Ok(())
    }

    /// Appends the value as JSON.
    pub(super) fn write_json(&self, out: &mut Vec<u8>, depth: Depth) -> Result<(), DecodeError> {
        match self {
            Self::Text(text) => value::write_json_string(out, text),
            Self::Double(double) => value::write_json_double(out, *double),
            Self::Bytes(bytes) => value::write_json_bytes(out, bytes),
            Self::Null => out.extend_from_slice(b"null"),
            Self::Bool(_) | Self::Int(_) => self.write_text(out, depth)?,
            Self::Array(items) => {
                let depth = depth.deeper()?;
                out.push(b'[');
                let mut items = *items;
                let mut first = true;
                while let Some((number, wire)) = items.field()? {
                    if number != 1 {
                        items.skip(number, wire)?;
                        continue;
                    }
                    if !std::mem::take(&mut first) {
                        out.push(b',');
                    }
                    Any::read(items.message(wire)?)?.write_json(out, depth)?;
                }
                out.push(b']');
            }
            Self::Kvlist(members) => {
                let mut object = Object::open(out, depth)?;
                let mut members = *members;
                while let Some((number, wire)) = members.field()? {
                    if number == 1 {
                        object.member(out, members.message(wire)?)?;
                    } else {
                        members.skip(number, wire)?;
                    }
                }
                out.push(b'}');
            }
        }
        Ok(())
    }
}

/// How much deeper values may nest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Depth {
    pub(super) left: usize,
    pub(super) max: usize,
}

impl Depth {
    pub(super) fn new(max: usize) -> Self {
        Self { left: max, max }
    }

    fn deeper(self) -> Result<Self, DecodeError> {
        match self.left.checked_sub(1) {
            Some(left) => Ok(Self { left, ..self }),
            None => Err(DecodeError::Limit {
                limit: "nesting of values",
                max: self.max,
            }),
        }
    }
}

/// A JSON object that is being written from key-value messages. The caller writes the closing brace.
pub(super) struct Object {
    first: bool,
    depth: Depth,
}

impl Object {
    pub(super) fn open(out: &mut Vec<u8>, depth: Depth) -> Result<Self, DecodeError> {
        out.push(b'{');
        Ok(Self {
            first: true,
            depth: depth.deeper()?,
        })
    }

    pub(super) fn member(&mut self, out: &mut Vec<u8>, pair: Reader<'_>) -> Result<(), DecodeError> {
        let (key, any) = read_pair(pair)?;
        if !self.first {
            out.push(b',');
        }
        value::write_json_key(out, key, self.first);
        self.first = false;
        any.write_json(out, self.depth)
    }
}

/// Key and value of a `KeyValue`.
pub(super) fn read_pair(mut pair: Reader<'_>) -> Result<(&str, Any<'_>), DecodeError> {
    let mut key = "";
    let mut value = Any::Null;
    while let Some((number, wire)) = pair.field()? {
        match number {
            1 => key = pair.text(wire)?,
            2 => value = Any::read(pair.message(wire)?)?,
            _ => pair.skip(number, wire)?,
        }
    }
    Ok((key, value))
}

/// A `KeyValue` whose key is not yet checked to be UTF-8.
pub(super) fn read_raw_pair<'a>(mut pair: Reader<'a>) -> Result<(Reader<'a>, Any<'a>), DecodeError> {
    if let Some((key, value)) = pair.short_pair() {
        return Ok((key, Any::read(value)?));
    }
    let mut key = Reader::new(&[]);
    let mut value = Any::Null;
    while let Some((number, wire)) = pair.field()? {
        match number {
            1 => key = pair.message(wire)?,
            2 => value = Any::read(pair.message(wire)?)?,
            _ => pair.skip(number, wire)?,
        }
    }
    Ok((key, value))
}

/// Writes `"name":` with the comma that it may need; for objects with members of our own naming.
pub(super) fn member_name(out: &mut Vec<u8>, name: &str) {
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

/// Writes `,` between the items of an array.
pub(super) fn item_separator(out: &mut Vec<u8>) {
    if out.last() != Some(&b'[') {
        out.push(b',');
    }
}
