//! Log records.

use super::any::Any;
use super::attributes::utf8;
use super::proto::Reader;
use super::table::{Table, put_text};
use super::{DecodeError, checked_id};
use crate::value::type_name;

/// Fields of one record, before it is known whether it is taken.
#[derive(Default)]
struct Record<'a> {
    time: u64,
    observed: u64,
    severity: i32,
    severity_text: &'a str,
    body: Option<Any<'a>>,
    dropped: u32,
    flags: u32,
    trace_id: &'a [u8],
    span_id: &'a [u8],
    event_name: &'a str,
}

pub(super) fn read<'a>(
    table: &mut Table<'a>,
    mut message: Reader<'a>,
    pairs: &mut Vec<Reader<'a>>,
) -> Result<(), DecodeError> {
    let mut record = Record::default();
    pairs.clear();
    while let Some((number, wire)) = message.field()? {
        match number {
            1 => record.time = message.fixed64(wire)?,
            2 => record.severity = message.int32(wire)?,
            3 => record.severity_text = message.text(wire)?,
            5 => record.body = Some(Any::read(message.message(wire)?)?),
            6 => pairs.push(message.message(wire)?),
            7 => record.dropped = message.uint32(wire)?,
            8 => record.flags = message.fixed32(wire)?,
            9 => record.trace_id = message.bytes(wire)?,
            10 => record.span_id = message.bytes(wire)?,
            11 => record.observed = message.fixed64(wire)?,
            12 => record.event_name = message.text(wire)?,
            _ => message.skip(number, wire)?,
        }
    }
    put(table, &record)?.then(|| table.end_row(pairs)).transpose().map(drop)
}

/// Puts the core columns; false if the record is refused.
fn put(table: &mut Table<'_>, record: &Record<'_>) -> Result<bool, DecodeError> {
    let row = table.rows;
    let Some(trace_id) = checked_id::<16>(table, "trace_id", record.trace_id) else {
        return Ok(false);
    };
    let Some(span_id) = checked_id::<8>(table, "span_id", record.span_id) else {
        return Ok(false);
    };
    table.put_time(record.time, record.observed);
    let core = &mut table.core;
    if record.observed != 0 {
        core.observed_time.put(row, record.observed as i64);
    }
    if record.severity != 0 {
        core.severity.put(row, record.severity);
    }
    put_text(&mut core.severity_text, row, record.severity_text);
    put_text(&mut core.name, row, record.event_name);
    if let Some(id) = trace_id {
        core.trace_id.put(row, id);
    }
    if let Some(id) = span_id {
        core.span_id.put(row, id);
    }
    if record.flags != 0 {
        core.flags.put(row, record.flags);
    }
    if record.dropped != 0 {
        core.dropped_attributes.put(row, record.dropped);
    }
    match &record.body {
        None => {}
        Some(Any::Text(text)) => core.body.put(row, text),
        Some(any) => {
            table.scratch.clear();
            any.write_text(&mut table.scratch, table.attributes.depth)?;
            core.body.put(row, utf8(&table.scratch)?);
            debug_assert_ne!(any.type_name(), type_name::STRING);
            core.body_type.put(row, any.type_name());
        }
    }
    Ok(true)
}
