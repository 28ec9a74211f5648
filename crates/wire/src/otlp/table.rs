//! The batch that a request becomes: its core columns, and what resource and scope contribute to their rows.

use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_schema::{Field, Schema};

use super::any::{item_separator, member_name};
use super::attributes::{Attributes, SharedSet, utf8};
use super::core::Core;
use super::proto::Reader;
use super::{DecodeError, DecodeLimits, Decoded};
use crate::Signal;
use crate::layout::Group;
use crate::layout::text::TextColumn;
use crate::value::write_json_string;

/// A batch in the making.
pub(super) struct Table<'a> {
    pub(super) rows: usize,
    pub(super) core: Core,
    pub(super) attributes: Attributes<'a>,
    /// Time of receipt, for rows without a time of their own.
    pub(super) received: i64,
    pub(super) scratch: Vec<u8>,
    rejected: u64,
    reject_reason: Option<String>,
    /// `duplicate_attrs` of the row, the resource and the scope at hand.
    duplicates: [Vec<u8>; 3],
}

/// What a resource or a scope says, beside its attributes.
pub(super) struct Shared<'a> {
    start: usize,
    set: SharedSet<'a>,
    name: &'a str,
    version: &'a str,
    dropped: u32,
    entity_refs: Vec<u8>,
}

impl<'a> Table<'a> {
    pub(super) fn new(limits: &DecodeLimits, rows: usize, received_ns: u64) -> Self {
        Self {
            rows: 0,
            core: Core::new(),
            attributes: Attributes::new(limits, rows),
            received: received_ns as i64,
            scratch: Vec::new(),
            rejected: 0,
            reject_reason: None,
            duplicates: Default::default(),
        }
    }

    /// Counts a row that is not taken. The first reason is told to the sender.
    pub(super) fn reject(&mut self, reason: impl FnOnce() -> String) {
        self.rejected += 1;
        if self.reject_reason.is_none() {
            self.reject_reason = Some(reason());
        }
    }

    /// `time` of the row at hand; `fallback` is used where the sender left it 0.
    pub(super) fn put_time(&mut self, sent: u64, fallback: u64) {
        let row = self.rows;
        let time = match (sent, fallback) {
            (0, 0) => self.received,
            (0, other) => other as i64,
            (sent, _) => sent as i64,
        };
        self.core.time.put(row, time);
        if sent == 0 {
            self.core.time_unset.put(row, true);
        }
    }

    /// Puts the attributes of the row at hand and ends the row.
    pub(super) fn end_row(&mut self, pairs: &[Reader<'a>]) -> Result<(), DecodeError> {
        let row = self.rows;
        self.duplicates[0].clear();
        self.attributes.put_row(row, pairs, &mut self.duplicates[0])?;
        if self.duplicates.iter().any(|d| !d.is_empty()) {
            self.scratch.clear();
            self.scratch.push(b'{');
            for (group, members) in Group::ALL.into_iter().zip(&self.duplicates) {
                if !members.is_empty() {
                    member_name(&mut self.scratch, group.as_str());
                    self.scratch.push(b'[');
                    self.scratch.extend_from_slice(members);
                    self.scratch.push(b']');
                }
            }
            self.scratch.push(b'}');
            self.attributes
                .charge(1, self.duplicates[1].len() + self.duplicates[2].len())?;
            self.core.duplicate_attrs.put(row, utf8(&self.scratch)?);
        }
        self.rows += 1;
        Ok(())
    }

    /// Reads a `Resource`; its rows follow.
    pub(super) fn begin_resource(&mut self, message: Option<Reader<'a>>) -> Result<Shared<'a>, DecodeError> {
        let mut shared = self.begin_shared();
        let mut pairs = Vec::new();
        let mut message = message.unwrap_or(Reader::new(&[]));
        while let Some((number, wire)) = message.field()? {
            match number {
                1 => pairs.push(message.message(wire)?),
                2 => shared.dropped = message.uint32(wire)?,
                3 => write_entity_ref(&mut shared.entity_refs, message.message(wire)?)?,
                _ => message.skip(number, wire)?,
            }
        }
        if !shared.entity_refs.is_empty() {
            shared.entity_refs.push(b']');
        }
        shared.set = self.attributes.read_shared(Group::Resource, &pairs)?;
        self.duplicates[1] = std::mem::take(&mut shared.set.duplicates);
        Ok(shared)
    }

    /// Writes what a resource says to the rows that came since it began.
    pub(super) fn end_resource(&mut self, shared: &Shared<'a>, schema_url: &str) -> Result<(), DecodeError> {
        let (row, n) = (shared.start, self.rows - shared.start);
        self.attributes.put_shared(&shared.set, row, n)?;
        self.attributes.charge(n, schema_url.len() + shared.entity_refs.len())?;
        put_text_run(&mut self.core.resource_schema_url, row, n, schema_url);
        put_text_run(&mut self.core.entity_refs, row, n, utf8(&shared.entity_refs)?);
        if shared.dropped != 0 {
            self.core.resource_dropped_attributes.put_run(row, n, shared.dropped);
        }
        Ok(())
    }

    /// Reads an `InstrumentationScope`; its rows follow.
    pub(super) fn begin_scope(&mut self, message: Option<Reader<'a>>) -> Result<Shared<'a>, DecodeError> {
        let mut shared = self.begin_shared();
        let mut pairs = Vec::new();
        let mut message = message.unwrap_or(Reader::new(&[]));
        while let Some((number, wire)) = message.field()? {
            match number {
                1 => shared.name = message.text(wire)?,
                2 => shared.version = message.text(wire)?,
                3 => pairs.push(message.message(wire)?),
                4 => shared.dropped = message.uint32(wire)?,
                _ => message.skip(number, wire)?,
            }
        }
        shared.set = self.attributes.read_shared(Group::Scope, &pairs)?;
        self.duplicates[2] = std::mem::take(&mut shared.set.duplicates);
        Ok(shared)
    }

    /// Writes what a scope says to the rows that came since it began.
    pub(super) fn end_scope(&mut self, shared: &Shared<'a>, schema_url: &str) -> Result<(), DecodeError> {
        let (row, n) = (shared.start, self.rows - shared.start);
        self.attributes.put_shared(&shared.set, row, n)?;
        self.attributes
            .charge(n, schema_url.len() + shared.name.len() + shared.version.len())?;
        put_text_run(&mut self.core.scope_name, row, n, shared.name);
        put_text_run(&mut self.core.scope_version, row, n, shared.version);
        put_text_run(&mut self.core.scope_schema_url, row, n, schema_url);
        if shared.dropped != 0 {
            self.core.scope_dropped_attributes.put_run(row, n, shared.dropped);
        }
        Ok(())
    }

    fn begin_shared(&self) -> Shared<'a> {
        Shared {
            start: self.rows,
            set: SharedSet::default(),
            name: "",
            version: "",
            dropped: 0,
            entity_refs: Vec::new(),
        }
    }

    pub(super) fn finish(self, signal: Signal) -> Result<Decoded, DecodeError> {
        let rows = self.rows;
        let build = |e: arrow_schema::ArrowError| DecodeError::Build(e.to_string());
        let mut fields = Vec::new();
        let mut columns = Vec::new();
        let mut push = |name: &str, array: Option<ArrayRef>, nullable: bool| {
            if let Some(array) = array {
                fields.push(Field::new(name, array.data_type().clone(), nullable));
                columns.push(array);
            }
        };
        let mut kind = TextColumn::default();
        kind.put_run(0, rows, signal.as_str());
        push("signal", kind.finish(rows).map_err(build)?, false);
        for (name, array) in self.core.finish(rows).map_err(build)? {
            push(name, array, name != "time");
        }
        for (name, array) in self.attributes.finish(rows).map_err(build)? {
            push(&name, Some(array), true);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch =
            RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options).map_err(build)?;
        Ok(Decoded {
            batch,
            rejected: self.rejected,
            reject_reason: self.reject_reason,
        })
    }
}

/// Puts a text unless it is empty.
pub(super) fn put_text(column: &mut TextColumn, row: usize, text: &str) {
    if !text.is_empty() {
        column.put(row, text);
    }
}

/// Puts a text for many rows unless it is empty.
pub(super) fn put_text_run(column: &mut TextColumn, row: usize, n: usize, text: &str) {
    if !text.is_empty() {
        column.put_run(row, n, text);
    }
}

fn write_entity_ref(out: &mut Vec<u8>, mut message: Reader<'_>) -> Result<(), DecodeError> {
    let (mut schema_url, mut kind) = ("", "");
    let mut keys: [Vec<&str>; 2] = Default::default();
    while let Some((number, wire)) = message.field()? {
        match number {
            1 => schema_url = message.text(wire)?,
            2 => kind = message.text(wire)?,
            3 => keys[0].push(message.text(wire)?),
            4 => keys[1].push(message.text(wire)?),
            _ => message.skip(number, wire)?,
        }
    }
    if out.is_empty() {
        out.push(b'[');
    }
    item_separator(out);
    out.push(b'{');
    for (name, text) in [("schema_url", schema_url), ("type", kind)] {
        if !text.is_empty() {
            member_name(out, name);
            write_json_string(out, text);
        }
    }
    for (name, keys) in ["id_keys", "description_keys"].into_iter().zip(keys) {
        if keys.is_empty() {
            continue;
        }
        member_name(out, name);
        out.push(b'[');
        for key in keys {
            item_separator(out);
            write_json_string(out, key);
        }
        out.push(b']');
    }
    out.push(b'}');
    Ok(())
}
