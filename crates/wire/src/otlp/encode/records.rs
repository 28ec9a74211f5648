//! Log records and spans.

use super::EncodeError;
use super::rows::{Duplicates, Rows};
use super::values::{Bad, parser, read_pairs, write_any, write_pairs};
use crate::json::Json;
use crate::layout::Group;
use crate::otlp::spans::{KINDS, STATUSES};
use crate::otlp::writer::{bytes, bytes_always, fixed32, fixed64, int32, text, uint};
use crate::value::type_name;

pub(super) fn write_log(
    out: &mut Vec<u8>,
    rows: &Rows,
    row: usize,
    duplicates: &Duplicates<'_>,
) -> Result<(), EncodeError> {
    let mut log = Vec::new();
    fixed64(&mut log, 1, rows.sent_time(row));
    int32(&mut log, 2, rows.severity.or_zero(row));
    text(&mut log, 3, rows.severity_text.get(row));
    if let Some(body) = rows.body.get(row) {
        let mut any = Vec::new();
        let kind = rows.body_type.get(row).unwrap_or(type_name::STRING);
        write_any(&mut any, kind, body).map_err(|bad| rows.body.bad(row, bad))?;
        bytes_always(&mut log, 5, &any);
    }
    rows.attrs.write(&mut log, 6, row, &duplicates[Group::Attrs as usize])?;
    uint(&mut log, 7, u64::from(rows.dropped_attributes.or_zero(row)));
    fixed32(&mut log, 8, rows.flags.or_zero(row));
    bytes(&mut log, 9, &rows.trace_id.hex(row)?);
    bytes(&mut log, 10, &rows.span_id.hex(row)?);
    fixed64(&mut log, 11, rows.observed_time.or_zero(row) as u64);
    text(&mut log, 12, rows.name.get(row));
    bytes_always(out, 2, &log);
    Ok(())
}

pub(super) fn write_span(
    out: &mut Vec<u8>,
    rows: &Rows,
    row: usize,
    duplicates: &Duplicates<'_>,
) -> Result<(), EncodeError> {
    let start = rows.sent_time(row);
    let mut span = Vec::new();
    bytes(&mut span, 1, &rows.trace_id.hex(row)?);
    bytes(&mut span, 2, &rows.span_id.hex(row)?);
    text(&mut span, 3, rows.trace_state.get(row));
    bytes(&mut span, 4, &rows.parent_span_id.hex(row)?);
    text(&mut span, 5, rows.name.get(row));
    int32(&mut span, 6, rows.kind.number(row, &KINDS)?);
    fixed64(&mut span, 7, start);
    if let Some(duration) = rows.duration_ns.get(row) {
        fixed64(&mut span, 8, start.wrapping_add(duration as u64));
    }
    rows.attrs
        .write(&mut span, 9, row, &duplicates[Group::Attrs as usize])?;
    uint(&mut span, 10, u64::from(rows.dropped_attributes.or_zero(row)));
    if let Some(events) = rows.span_events.get(row) {
        write_items(&mut span, 11, events, write_event).map_err(|bad| rows.span_events.bad(row, bad))?;
    }
    uint(&mut span, 12, u64::from(rows.dropped_events.or_zero(row)));
    if let Some(links) = rows.links.get(row) {
        write_items(&mut span, 13, links, write_link).map_err(|bad| rows.links.bad(row, bad))?;
    }
    uint(&mut span, 14, u64::from(rows.dropped_links.or_zero(row)));
    let mut status = Vec::new();
    text(&mut status, 2, rows.status_message.get(row));
    int32(&mut status, 3, rows.status.number(row, &STATUSES)?);
    bytes(&mut span, 15, &status);
    fixed32(&mut span, 16, rows.flags.or_zero(row));
    bytes_always(out, 2, &span);
    Ok(())
}

/// Messages of a JSON array in a field.
pub(super) fn write_items(
    out: &mut Vec<u8>,
    field: u32,
    json: &str,
    mut write: impl FnMut(&mut Vec<u8>, &mut Json<'_>) -> Result<(), Bad>,
) -> Result<(), Bad> {
    let mut json = parser(json);
    json.array(|json, _| {
        let mut item = Vec::new();
        write(&mut item, json)?;
        bytes_always(out, field, &item);
        Ok::<_, Bad>(())
    })?;
    Ok(json.end()?)
}

pub(super) fn read_uint<T: std::str::FromStr>(json: &mut Json<'_>) -> Result<T, Bad> {
    json.number()?
        .parse()
        .map_err(|_| Bad("holds a number that is out of range"))
}

pub(super) fn read_hex(json: &mut Json<'_>) -> Result<Vec<u8>, Bad> {
    hex::decode(json.string()?.as_bytes()).map_err(|_| Bad("holds an id that is not hex"))
}

fn write_event(out: &mut Vec<u8>, json: &mut Json<'_>) -> Result<(), Bad> {
    json.object(|json, name| {
        match name.as_ref() {
            "time" => fixed64(out, 1, read_uint(json)?),
            "name" => text(out, 2, Some(&json.string()?)),
            "attributes" => write_pairs(out, 3, &read_pairs(json)?),
            "dropped_attributes" => uint(out, 4, u64::from(read_uint::<u32>(json)?)),
            _ => json.skip()?,
        }
        Ok(())
    })
}

fn write_link(out: &mut Vec<u8>, json: &mut Json<'_>) -> Result<(), Bad> {
    json.object(|json, name| {
        match name.as_ref() {
            "trace_id" => bytes(out, 1, &read_hex(json)?),
            "span_id" => bytes(out, 2, &read_hex(json)?),
            "trace_state" => text(out, 3, Some(&json.string()?)),
            "attributes" => write_pairs(out, 4, &read_pairs(json)?),
            "dropped_attributes" => uint(out, 5, u64::from(read_uint::<u32>(json)?)),
            "flags" => fixed32(out, 6, read_uint(json)?),
            _ => json.skip()?,
        }
        Ok(())
    })
}
