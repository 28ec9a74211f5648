//! Spans.

use super::any::{Depth, Object, item_separator, member_name};
use super::attributes::utf8;
use super::proto::Reader;
use super::table::{Table, put_text};
use super::{DecodeError, checked_id, write_id_member};
use crate::value::{write_json_string, write_uint};

/// Texts of `kind` by number, from 1 on.
pub(super) const KINDS: [&str; 5] = ["internal", "server", "client", "producer", "consumer"];
/// Texts of `status` by number, from 1 on.
pub(super) const STATUSES: [&str; 2] = ["ok", "error"];

#[derive(Default)]
struct Span<'a> {
    trace_id: &'a [u8],
    span_id: &'a [u8],
    parent_span_id: &'a [u8],
    trace_state: &'a str,
    flags: u32,
    name: &'a str,
    kind: i32,
    start: u64,
    end: u64,
    dropped: [u32; 3],
    status: i32,
    status_message: &'a str,
    events: Vec<u8>,
    links: Vec<u8>,
}

pub(super) fn read<'a>(
    table: &mut Table<'a>,
    mut message: Reader<'a>,
    pairs: &mut Vec<Reader<'a>>,
) -> Result<(), DecodeError> {
    let depth = table.attributes.depth;
    let mut span = Span::default();
    pairs.clear();
    while let Some((number, wire)) = message.field()? {
        match number {
            1 => span.trace_id = message.bytes(wire)?,
            2 => span.span_id = message.bytes(wire)?,
            3 => span.trace_state = message.text(wire)?,
            4 => span.parent_span_id = message.bytes(wire)?,
            5 => span.name = message.text(wire)?,
            6 => span.kind = message.int32(wire)?,
            7 => span.start = message.fixed64(wire)?,
            8 => span.end = message.fixed64(wire)?,
            9 => pairs.push(message.message(wire)?),
            10 => span.dropped[0] = message.uint32(wire)?,
            11 => write_event(&mut span.events, message.message(wire)?, depth)?,
            12 => span.dropped[1] = message.uint32(wire)?,
            13 => write_link(&mut span.links, message.message(wire)?, depth)?,
            14 => span.dropped[2] = message.uint32(wire)?,
            15 => (span.status, span.status_message) = read_status(message.message(wire)?)?,
            16 => span.flags = message.fixed32(wire)?,
            _ => message.skip(number, wire)?,
        }
    }
    put(table, &mut span)?
        .then(|| table.end_row(pairs))
        .transpose()
        .map(drop)
}

/// Puts the core columns; false if the span is refused.
fn put(table: &mut Table<'_>, span: &mut Span<'_>) -> Result<bool, DecodeError> {
    let row = table.rows;
    let Some(trace_id) = checked_id::<16>(table, "trace_id", span.trace_id) else {
        return Ok(false);
    };
    let Some(span_id) = checked_id::<8>(table, "span_id", span.span_id) else {
        return Ok(false);
    };
    let Some(parent) = checked_id::<8>(table, "parent_span_id", span.parent_span_id) else {
        return Ok(false);
    };
    table.put_time(span.start, 0);
    let core = &mut table.core;
    if let Some(id) = trace_id {
        core.trace_id.put(row, id);
    }
    if let Some(id) = span_id {
        core.span_id.put(row, id);
    }
    if let Some(id) = parent {
        core.parent_span_id.put(row, id);
    }
    if span.end != 0 {
        core.duration_ns.put(row, span.end.wrapping_sub(span.start) as i64);
    }
    put_text(&mut core.trace_state, row, span.trace_state);
    put_text(&mut core.name, row, span.name);
    put_enum(&mut core.kind, row, span.kind, &KINDS);
    put_enum(&mut core.status, row, span.status, &STATUSES);
    put_text(&mut core.status_message, row, span.status_message);
    if span.flags != 0 {
        core.flags.put(row, span.flags);
    }
    let counts = [
        &mut core.dropped_attributes,
        &mut core.dropped_events,
        &mut core.dropped_links,
    ];
    for (column, dropped) in counts.into_iter().zip(span.dropped) {
        if dropped != 0 {
            column.put(row, dropped);
        }
    }
    for (column, json) in [
        (&mut core.span_events, &mut span.events),
        (&mut core.links, &mut span.links),
    ] {
        if !json.is_empty() {
            json.push(b']');
            column.put(row, utf8(json)?);
        }
    }
    Ok(true)
}

/// Puts the text of an enum: its name, or its number where it has none; nothing for 0.
pub(super) fn put_enum(column: &mut crate::layout::text::TextColumn, row: usize, number: i32, names: &[&str]) {
    match usize::try_from(number) {
        Ok(0) => {}
        Ok(n) if n <= names.len() => column.put(row, names[n - 1]),
        _ => column.put(row, itoa::Buffer::new().format(number)),
    }
}

fn read_status(mut message: Reader<'_>) -> Result<(i32, &str), DecodeError> {
    let mut status = (0, "");
    while let Some((number, wire)) = message.field()? {
        match number {
            2 => status.1 = message.text(wire)?,
            3 => status.0 = message.int32(wire)?,
            _ => message.skip(number, wire)?,
        }
    }
    Ok(status)
}

fn begin_item(out: &mut Vec<u8>) {
    if out.is_empty() {
        out.push(b'[');
    }
    item_separator(out);
    out.push(b'{');
}

fn write_event(out: &mut Vec<u8>, mut message: Reader<'_>, depth: Depth) -> Result<(), DecodeError> {
    let (mut time, mut name, mut dropped) = (0, "", 0);
    let mut pairs = Vec::new();
    while let Some((number, wire)) = message.field()? {
        match number {
            1 => time = message.fixed64(wire)?,
            2 => name = message.text(wire)?,
            3 => pairs.push(message.message(wire)?),
            4 => dropped = message.uint32(wire)?,
            _ => message.skip(number, wire)?,
        }
    }
    begin_item(out);
    write_number_member(out, "time", time);
    write_text_member(out, "name", name);
    write_pairs_member(out, "attributes", &pairs, depth)?;
    write_number_member(out, "dropped_attributes", u64::from(dropped));
    out.push(b'}');
    Ok(())
}

fn write_link(out: &mut Vec<u8>, mut message: Reader<'_>, depth: Depth) -> Result<(), DecodeError> {
    let (mut trace_id, mut span_id, mut trace_state, mut dropped, mut flags) = (&[][..], &[][..], "", 0, 0);
    let mut pairs = Vec::new();
    while let Some((number, wire)) = message.field()? {
        match number {
            1 => trace_id = message.bytes(wire)?,
            2 => span_id = message.bytes(wire)?,
            3 => trace_state = message.text(wire)?,
            4 => pairs.push(message.message(wire)?),
            5 => dropped = message.uint32(wire)?,
            6 => flags = message.fixed32(wire)?,
            _ => message.skip(number, wire)?,
        }
    }
    begin_item(out);
    write_id_member(out, "trace_id", trace_id);
    write_id_member(out, "span_id", span_id);
    write_text_member(out, "trace_state", trace_state);
    write_pairs_member(out, "attributes", &pairs, depth)?;
    write_number_member(out, "dropped_attributes", u64::from(dropped));
    write_number_member(out, "flags", u64::from(flags));
    out.push(b'}');
    Ok(())
}

pub(super) fn write_number_member(out: &mut Vec<u8>, name: &str, number: u64) {
    if number != 0 {
        member_name(out, name);
        write_uint(out, number);
    }
}

fn write_text_member(out: &mut Vec<u8>, name: &str, text: &str) {
    if !text.is_empty() {
        member_name(out, name);
        write_json_string(out, text);
    }
}

pub(super) fn write_pairs_member(
    out: &mut Vec<u8>,
    name: &str,
    pairs: &[Reader<'_>],
    depth: Depth,
) -> Result<(), DecodeError> {
    if pairs.is_empty() {
        return Ok(());
    }
    member_name(out, name);
    write_pairs(out, pairs, depth)
}

/// Key-value messages as a JSON object.
pub(super) fn write_pairs(out: &mut Vec<u8>, pairs: &[Reader<'_>], depth: Depth) -> Result<(), DecodeError> {
    let mut object = Object::open(out, depth)?;
    for pair in pairs {
        object.member(out, *pair)?;
    }
    out.push(b'}');
    Ok(())
}
