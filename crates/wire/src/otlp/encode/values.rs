//! Text of values back to `AnyValue` messages.

use std::borrow::Cow;

use crate::json::{Json, JsonError, Kind};
use crate::limits::MAX_JSON_DEPTH;
use crate::otlp::writer::{bytes_always, double_always, uint_always};
use crate::value::{parse_base64, parse_double, type_name};

/// Text that is not what its type says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bad(pub(super) &'static str);

impl From<JsonError> for Bad {
    fn from(error: JsonError) -> Self {
        Self(error.what)
    }
}

/// A key and its encoded `AnyValue`.
pub(super) type Pair<'a> = (Cow<'a, str>, Vec<u8>);

pub(super) fn parser(text: &str) -> Json<'_> {
    Json::new(text, MAX_JSON_DEPTH)
}

/// Appends the fields of the `AnyValue` that a text of a type stands for.
pub(super) fn write_any(out: &mut Vec<u8>, kind: &str, text: &str) -> Result<(), Bad> {
    match kind {
        type_name::STRING => bytes_always(out, 1, text.as_bytes()),
        type_name::BOOL => match text {
            "true" => uint_always(out, 2, 1),
            "false" => uint_always(out, 2, 0),
            _ => return Err(Bad("is neither true nor false")),
        },
        type_name::INT => uint_always(
            out,
            3,
            text.parse::<i64>().map_err(|_| Bad("is not a 64-bit integer"))? as u64,
        ),
        type_name::DOUBLE => double_always(out, 4, parse_double(text).ok_or(Bad("is not a double"))?),
        type_name::BYTES => bytes_always(out, 7, &parse_base64(text).ok_or(Bad("is not base64"))?),
        type_name::ARRAY | type_name::KVLIST => {
            let mut json = parser(text);
            write_json(out, &mut json)?;
            json.end()?;
        }
        type_name::NULL => {}
        _ => return Err(Bad("has a type that is not known")),
    }
    Ok(())
}

/// Appends the fields of the `AnyValue` that the next JSON value stands for.
pub(super) fn write_json(out: &mut Vec<u8>, json: &mut Json<'_>) -> Result<(), Bad> {
    match json.kind()? {
        Kind::String => bytes_always(out, 1, json.string()?.as_bytes()),
        Kind::Number => match number(json.number()?)? {
            Number::Int(int) => uint_always(out, 3, int as u64),
            Number::Double(double) => double_always(out, 4, double),
        },
        Kind::True | Kind::False => uint_always(out, 2, u64::from(json.literal()? == Kind::True)),
        Kind::Null => {
            json.literal()?;
        }
        Kind::Array => {
            let mut items = Vec::new();
            json.array(|json, _| {
                let mut item = Vec::new();
                write_json(&mut item, json)?;
                bytes_always(&mut items, 1, &item);
                Ok::<_, Bad>(())
            })?;
            bytes_always(out, 5, &items);
        }
        Kind::Object => match object(json)? {
            Object::Bytes(bytes) => bytes_always(out, 7, &bytes),
            Object::Double(double) => double_always(out, 4, double),
            Object::Members(pairs) => {
                let mut list = Vec::new();
                write_pairs(&mut list, 1, &pairs);
                bytes_always(out, 6, &list);
            }
        },
    }
    Ok(())
}

/// `KeyValue` messages in a field.
pub(super) fn write_pairs(out: &mut Vec<u8>, field: u32, pairs: &[Pair<'_>]) {
    for (key, any) in pairs {
        write_pair(out, field, key, any);
    }
}

pub(super) fn write_pair(out: &mut Vec<u8>, field: u32, key: &str, any: &[u8]) {
    let mut pair = Vec::with_capacity(key.len() + any.len() + 12);
    crate::otlp::writer::text(&mut pair, 1, Some(key));
    bytes_always(&mut pair, 2, any);
    bytes_always(out, field, &pair);
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Number {
    Int(i64),
    Double(f64),
}

/// A point or an exponent makes a double.
fn number(text: &str) -> Result<Number, Bad> {
    if text.contains(['.', 'e', 'E']) {
        return parse_double(text).map(Number::Double).ok_or(Bad("is not a double"));
    }
    text.parse()
        .map(Number::Int)
        .map_err(|_| Bad("holds an integer of more than 64 bits"))
}

/// A double or an integer, where doubles may be written as an object.
pub(super) fn read_number(json: &mut Json<'_>) -> Result<Number, Bad> {
    if json.kind()? == Kind::Number {
        return number(json.number()?);
    }
    match object(json)? {
        Object::Double(double) => Ok(Number::Double(double)),
        _ => Err(Bad("holds an object where a number belongs")),
    }
}

enum Object<'a> {
    Members(Vec<Pair<'a>>),
    Bytes(Vec<u8>),
    Double(f64),
}

/// The members of an attribute object.
pub(super) fn read_pairs<'a>(json: &mut Json<'a>) -> Result<Vec<Pair<'a>>, Bad> {
    match object(json)? {
        Object::Members(pairs) => Ok(pairs),
        _ => Err(Bad("holds a value where attributes belong")),
    }
}

fn object<'a>(json: &mut Json<'a>) -> Result<Object<'a>, Bad> {
    let mut pairs: Vec<Pair<'a>> = Vec::new();
    let mut special = None;
    json.object(|json, key| {
        if special.is_some() {
            return Err(Bad("holds an object of a kind that is not known"));
        }
        let mut any = Vec::new();
        let key = match key.strip_prefix('$') {
            Some(name) if pairs.is_empty() => match name {
                "bytes" => {
                    special = Some(Object::Bytes(
                        parse_base64(&json.string()?).ok_or(Bad("holds what is not base64"))?,
                    ));
                    return Ok(());
                }
                "double" => {
                    special = Some(Object::Double(
                        parse_double(&json.string()?).ok_or(Bad("holds what is not a double"))?,
                    ));
                    return Ok(());
                }
                _ if name.starts_with('$') => Cow::Owned(name.to_owned()),
                _ => return Err(Bad("holds an object of a kind that is not known")),
            },
            _ => key,
        };
        write_json(&mut any, json)?;
        pairs.push((key, any));
        Ok(())
    })?;
    Ok(special.unwrap_or(Object::Members(pairs)))
}
