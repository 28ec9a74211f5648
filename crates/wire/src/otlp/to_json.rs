//! OTLP/protobuf to OTLP/JSON: one object without line breaks, as files of one request a line have it.

use super::DecodeError;
use super::json_schema::{Field, Kind, LOGS, METRICS, Message, TRACES};
use super::proto::{Reader, Wire};
use crate::Signal;
use crate::limits::MAX_VALUE_DEPTH;
use crate::value::{write_base64, write_double, write_hex, write_int, write_json_string, write_uint};

/// Messages that one level of a nested value takes: the value, its list, a pair.
const MESSAGES_PER_VALUE: usize = 3;
/// Messages around the deepest value.
const MESSAGES_AROUND: usize = 16;

/// The OTLP/JSON text of an export request. Unknown fields are left out; 64-bit integers are strings, enums numbers and ids hex, as
/// OTLP has it.
pub fn protobuf_to_json(signal: Signal, body: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let message = match signal {
        Signal::Log => &LOGS,
        Signal::Span => &TRACES,
        Signal::Metric => &METRICS,
    };
    let mut out = Vec::with_capacity(2 * body.len());
    let depth = MAX_VALUE_DEPTH * MESSAGES_PER_VALUE + MESSAGES_AROUND;
    write_message(&mut out, message, Reader::new(body), depth)?;
    Ok(out)
}

fn write_message(
    out: &mut Vec<u8>,
    message: &Message,
    mut reader: Reader<'_>,
    depth: usize,
) -> Result<(), DecodeError> {
    if depth == 0 {
        return Err(reader.malformed("values are nested too deeply"));
    }
    // By field: where each of its values stands.
    let mut places: Vec<(usize, Wire, Reader<'_>)> = Vec::new();
    while let Some((number, wire)) = reader.field()? {
        if let Some(at) = message.fields.iter().position(|field| field.number == number) {
            places.push((at, wire, reader));
        }
        reader.skip(number, wire)?;
    }
    out.push(b'{');
    let mut is_first = true;
    for (at, field) in message.fields.iter().enumerate() {
        let mut values = places.iter().filter(|place| place.0 == at);
        let last = match field.repeated {
            true => None,
            false => values.clone().next_back(),
        };
        let Some(some) = last.or_else(|| values.clone().next()) else {
            continue;
        };
        if !std::mem::take(&mut is_first) {
            out.push(b',');
        }
        write_json_string(out, field.name);
        out.push(b':');
        if field.repeated {
            out.push(b'[');
            let begun = out.len();
            values.try_for_each(|(_, wire, reader)| write_values(out, begun, field, *wire, *reader, depth))?;
            out.push(b']');
        } else {
            write_value(out, field, some.1, &mut some.2.clone(), depth)?;
        }
    }
    out.push(b'}');
    Ok(())
}

/// One value of a repeated field, or many packed ones.
fn write_values(
    out: &mut Vec<u8>,
    begun: usize,
    field: &Field,
    wire: Wire,
    mut reader: Reader<'_>,
    depth: usize,
) -> Result<(), DecodeError> {
    let comma = |out: &mut Vec<u8>| {
        if out.len() > begun {
            out.push(b',');
        }
    };
    let Some(single) = packed_wire(field.kind).filter(|_| wire == Wire::Bytes) else {
        comma(out);
        return write_value(out, field, wire, &mut reader, depth);
    };
    let mut packed = reader.message(wire)?;
    while !packed.is_empty() {
        comma(out);
        write_value(out, field, single, &mut packed, depth)?;
    }
    Ok(())
}

/// How numbers of a kind are packed; `None` for what never is.
fn packed_wire(kind: Kind) -> Option<Wire> {
    match kind {
        Kind::Text | Kind::Bytes | Kind::Hex | Kind::Message(_) => None,
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => Some(Wire::Fixed64),
        Kind::Fixed32 => Some(Wire::Fixed32),
        Kind::Bool | Kind::Int64 | Kind::Uint64 | Kind::Uint32 | Kind::Sint32 | Kind::Enum(..) => Some(Wire::Varint),
    }
}

fn write_value(
    out: &mut Vec<u8>,
    field: &Field,
    wire: Wire,
    reader: &mut Reader<'_>,
    depth: usize,
) -> Result<(), DecodeError> {
    match field.kind {
        Kind::Text => write_json_string(out, reader.text(wire)?),
        Kind::Bytes => {
            let bytes = reader.bytes(wire)?;
            quoted(out, |out| write_base64(out, bytes));
        }
        Kind::Hex => {
            let bytes = reader.bytes(wire)?;
            quoted(out, |out| write_hex(out, bytes));
        }
        Kind::Bool => out.extend_from_slice(if reader.uint(wire)? == 0 { b"false" } else { b"true" }),
        Kind::Double => match reader.double(wire)? {
            value if value.is_finite() => write_double(out, value),
            value => quoted(out, |out| write_double(out, value)),
        },
        Kind::Fixed64 => {
            let value = reader.fixed64(wire)?;
            quoted(out, |out| write_uint(out, value));
        }
        Kind::Uint64 => {
            let value = reader.uint(wire)?;
            quoted(out, |out| write_uint(out, value));
        }
        Kind::Sfixed64 => {
            let value = reader.fixed64(wire)? as i64;
            quoted(out, |out| write_int(out, value));
        }
        Kind::Int64 => {
            let value = reader.uint(wire)? as i64;
            quoted(out, |out| write_int(out, value));
        }
        Kind::Uint32 => write_uint(out, u64::from(reader.uint32(wire)?)),
        Kind::Fixed32 => write_uint(out, u64::from(reader.fixed32(wire)?)),
        Kind::Sint32 => write_int(out, i64::from(reader.sint32(wire)?)),
        Kind::Enum(..) => write_int(out, i64::from(reader.int32(wire)?)),
        Kind::Message(message) => write_message(out, message, reader.message(wire)?, depth - 1)?,
    }
    Ok(())
}

fn quoted(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    out.push(b'"');
    write(out);
    out.push(b'"');
}
