//! A batch as an Arrow IPC stream, and back from bytes that nobody vouches for.
//!
//! The Arrow reader trusts lengths and may panic on what it did not expect. So the frames of the stream are walked first, with every
//! length checked against the bytes that are there; the reader then runs where a panic becomes an error.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{UInt16Type, UInt32Type};
use arrow_array::{Array, RecordBatch, RecordBatchOptions};
use arrow_buffer::Buffer;
use arrow_ipc::reader::StreamDecoder;
use arrow_ipc::writer::{IpcWriteOptions, StreamWriter};
use arrow_ipc::{MessageHeader, MetadataVersion};
use arrow_schema::{Field, Schema};

use super::cells::Texts;
use super::columns::{check_column, expanded_bytes, expanded_bytes_at_most};
use super::{IpcLimits, LayoutError};
use crate::Signal;
use crate::limits::MAX_COLUMN_NAME_BYTES;

const CONTINUATION: [u8; 4] = [0xff; 4];
/// Bytes to which buffers are padded: the least that Arrow allows, because small batches are many.
const ALIGNMENT: usize = 8;

/// The bytes of a payload before compression.
pub fn to_ipc(batch: &RecordBatch) -> Result<Vec<u8>, LayoutError> {
    let options = IpcWriteOptions::try_new(ALIGNMENT, false, MetadataVersion::V5)?;
    let mut writer = StreamWriter::try_new_with_options(Vec::new(), batch.schema_ref(), options)?;
    writer.write(batch)?;
    writer.finish()?;
    Ok(writer.into_inner()?)
}

/// Reads and validates the bytes of a payload: sizes, nesting, names and types of columns, dictionary keys, UTF-8, offsets.
pub fn from_ipc(bytes: &[u8], limits: &IpcLimits) -> Result<RecordBatch, LayoutError> {
    limit("bytes of the arrow stream", bytes.len(), limits.max_bytes)?;
    let batch = catch_unwind(AssertUnwindSafe(|| {
        walk(bytes, limits)?;
        decode(bytes)
    }))
    .map_err(|_| LayoutError::Panicked)??;
    validate(&batch, limits)?;
    bare(batch)
}

fn limit(what: &'static str, found: usize, max: usize) -> Result<(), LayoutError> {
    if found <= max {
        Ok(())
    } else {
        Err(LayoutError::Limit { what, found, max })
    }
}

/// Goes through the frames and refuses lengths that the bytes do not bear out.
fn walk(bytes: &[u8], limits: &IpcLimits) -> Result<(), LayoutError> {
    let mut left = bytes;
    let mut messages = 0;
    loop {
        let Some((word, rest)) = left.split_first_chunk::<4>() else {
            return Err(LayoutError::Stream("ends inside a frame"));
        };
        let (length, rest) = match rest.split_first_chunk::<4>() {
            Some((length, rest)) if *word == CONTINUATION => (u32::from_le_bytes(*length), rest),
            _ => return Err(LayoutError::Stream("frame does not begin as it should")),
        };
        if length == 0 {
            return if rest.is_empty() {
                Ok(())
            } else {
                Err(LayoutError::Stream("bytes after the end"))
            };
        }
        let (header, rest) = rest
            .split_at_checked(length as usize)
            .ok_or(LayoutError::Stream("header goes beyond the end"))?;
        let message =
            arrow_ipc::root_as_message(header).map_err(|_| LayoutError::Stream("header is not a valid flatbuffer"))?;
        if message.version() != MetadataVersion::V5 {
            return Err(LayoutError::Stream("not version 5 of the format"));
        }
        let body = usize::try_from(message.bodyLength()).map_err(|_| LayoutError::Stream("negative length"))?;
        let (_, rest) = rest
            .split_at_checked(body)
            .ok_or(LayoutError::Stream("body goes beyond the end"))?;
        messages += 1;
        // A schema, a batch, and a dictionary for each column at most.
        limit(
            "messages of the arrow stream",
            messages,
            limits.max_columns.saturating_add(2),
        )?;
        match message.header_type() {
            MessageHeader::Schema if messages == 1 => {
                let fields = message
                    .header_as_schema()
                    .and_then(|s| s.fields())
                    .map_or(0, |f| f.len());
                limit("columns", fields, limits.max_columns)?;
            }
            MessageHeader::DictionaryBatch => {
                let dictionary = message.header_as_dictionary_batch();
                if dictionary.is_none_or(|d| d.isDelta()) {
                    return Err(LayoutError::Stream("dictionary comes in pieces"));
                }
                walk_batch(dictionary.and_then(|d| d.data()), body)?;
            }
            MessageHeader::RecordBatch => walk_batch(message.header_as_record_batch(), body)?,
            _ => {
                return Err(LayoutError::Stream("message of a kind that does not belong here"));
            }
        }
        left = rest;
    }
}

fn walk_batch(batch: Option<arrow_ipc::RecordBatch<'_>>, body: usize) -> Result<(), LayoutError> {
    let batch = batch.ok_or(LayoutError::Stream("message without its contents"))?;
    if batch.compression().is_some() {
        return Err(LayoutError::Stream("buffers are compressed one by one"));
    }
    // One bit is the least that an element takes; only the rows of a batch without columns take nothing.
    let most = (body as i64).saturating_mul(8);
    if !(0..=most).contains(&batch.length()) {
        return Err(LayoutError::Stream("more rows than bytes"));
    }
    for node in batch.nodes().iter().flatten() {
        if !(0..=most).contains(&node.length()) || !(0..=node.length()).contains(&node.null_count()) {
            return Err(LayoutError::Stream(
                "column has a length that its bytes do not bear out",
            ));
        }
    }
    let mut used = 0i64;
    for buffer in batch.buffers().iter().flatten() {
        let end = buffer.offset().checked_add(buffer.length());
        if buffer.offset() < 0 || buffer.length() < 0 || end.is_none_or(|end| end > body as i64) {
            return Err(LayoutError::Stream("buffer lies outside of its message"));
        }
        used = used.saturating_add(buffer.length());
    }
    // Buffers that overlap could be copied many times over.
    if used > body as i64 {
        return Err(LayoutError::Stream("buffers overlap"));
    }
    Ok(())
}

fn decode(bytes: &[u8]) -> Result<RecordBatch, LayoutError> {
    let mut decoder = StreamDecoder::new();
    let mut buffer = Buffer::from(bytes);
    let batch = decoder
        .decode(&mut buffer)?
        .ok_or(LayoutError::Stream("holds no batch"))?;
    if decoder.decode(&mut buffer)?.is_some() {
        return Err(LayoutError::Stream("holds more than one batch"));
    }
    decoder.finish()?;
    Ok(batch)
}

/// Whether a batch is of the layout and inside the limits; for batches that a plugin returned or changed.
pub fn validate(batch: &RecordBatch, limits: &IpcLimits) -> Result<(), LayoutError> {
    limit("rows", batch.num_rows(), limits.max_rows)?;
    limit("columns", batch.num_columns(), limits.max_columns)?;
    let mut names = HashSet::new();
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        let name = field.name();
        limit("bytes of a column's name", name.len(), MAX_COLUMN_NAME_BYTES)?;
        check_column(name, field.data_type())?;
        let wrong = |what| {
            Err(LayoutError::Column {
                column: name.chars().take(80).collect(),
                what,
            })
        };
        if !names.insert(name.as_str()) {
            return wrong("occurs twice");
        }
        if matches!(name.as_str(), "signal" | "time") && column.null_count() > 0 {
            return wrong("has nulls");
        }
        if hidden_nulls(column.as_ref()) {
            return wrong("has nulls inside its values");
        }
    }
    if batch.num_rows() > 0 {
        for name in ["signal", "time"] {
            if !names.contains(name) {
                return Err(LayoutError::Column {
                    column: name.into(),
                    what: "is missing",
                });
            }
        }
        check_signals(batch)?;
    }
    // Nearly every batch is far below the limit, and then nobody needs to know by how much.
    if expanded_bytes_at_most(batch) <= limits.max_expanded_bytes {
        return Ok(());
    }
    limit(
        "bytes of text written out",
        expanded_bytes(batch),
        limits.max_expanded_bytes,
    )
}

/// Rows must be of a kind that senders may send: a row that posed as one of ours would falsify the ledger.
fn check_signals(batch: &RecordBatch) -> Result<(), LayoutError> {
    let wrong = || LayoutError::Column {
        column: "signal".into(),
        what: "has a value that is none",
    };
    let texts = batch
        .column_by_name("signal")
        .and_then(|c| Texts::of(c.as_ref()))
        .ok_or_else(wrong)?;
    let is_signal = |text: &str| Signal::parse(text).is_some();
    // Nearly every dictionary holds nothing else, and then it does not matter which row has which.
    if let Texts::Dict16(_, values) | Texts::Dict32(_, values) = texts
        && values.iter().flatten().all(is_signal)
    {
        return Ok(());
    }
    let mut right = true;
    texts.each_run(|_, _, text| right &= is_signal(text));
    if right { Ok(()) } else { Err(wrong()) }
}

/// Nulls where no reader expects them: in a dictionary's values, in a list's items.
fn hidden_nulls(column: &dyn Array) -> bool {
    if let Some(dict) = column.as_dictionary_opt::<UInt16Type>() {
        return dict.values().null_count() > 0;
    }
    if let Some(dict) = column.as_dictionary_opt::<UInt32Type>() {
        return dict.values().null_count() > 0;
    }
    if let Some(list) = column.as_list_opt::<i32>() {
        let members = list.values().as_struct_opt().map(|s| s.columns()).unwrap_or_default();
        return list.values().null_count() > 0 || members.iter().any(|m| m.null_count() > 0);
    }
    false
}

/// The same batch under a schema without metadata and with the nullability of the layout.
fn bare(batch: RecordBatch) -> Result<RecordBatch, LayoutError> {
    let fields: Vec<Field> = batch
        .schema_ref()
        .fields()
        .iter()
        .map(|f| {
            Field::new(
                f.name(),
                f.data_type().clone(),
                !matches!(f.name().as_str(), "signal" | "time"),
            )
        })
        .collect();
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(
        Arc::new(Schema::new(fields)),
        batch.columns().to_vec(),
        &options,
    )?)
}
