//! A batch column by column, without the frames of Arrow IPC: FORMAT.md, section 4.
//!
//! What comes in may be hostile. Everything that takes memory is charged to a budget that the payload announced and the reader allowed.

mod bytes;
mod columns;
mod numbers;
mod references;
mod shape;
mod texts;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_schema::{ArrowError, DataType, Field, Schema};
use hashbrown::HashSet;

use crate::layout::cells::{Cells, Texts};
use crate::layout::{IpcLimits, LayoutError, validate};
use crate::limits::MAX_COLUMN_NAME_BYTES;
use bytes::{Malformed, Reader, put_bytes, put_varint};
use texts::References;

const VERSION: u8 = 1;
/// What a preset dictionary is made of: names that many batches share. It never changes.
pub(crate) const DICTIONARY_1: &[u8] = include_bytes!("dictionary-1.txt");

/// A batch packed, not compressed yet.
#[derive(Debug)]
pub(crate) struct Packed {
    pub(crate) bytes: Vec<u8>,
    /// Memory that its columns take once they are unpacked.
    pub(crate) unpacked: usize,
}

/// Packs a batch. With `shapes`, texts are taken apart, which costs time and saves most.
pub(crate) fn pack(batch: &RecordBatch, shapes: bool) -> Result<Packed, LayoutError> {
    let mut out = vec![VERSION];
    put_varint(&mut out, batch.num_rows() as u64);
    put_varint(&mut out, batch.num_columns() as u64);
    let schema = batch.schema_ref();
    // The text that refers to others comes behind them.
    let body = schema.index_of("body").ok();
    let mut order: Vec<usize> = (0..batch.num_columns()).filter(|place| Some(*place) != body).collect();
    let others = order.len();
    order.extend(body);
    let found = match body.filter(|_| shapes) {
        Some(body) => {
            let before: Vec<&ArrayRef> = order[..others].iter().map(|place| batch.column(*place)).collect();
            references::choose(batch.column(body), &before)
        }
        None => references::Found::default(),
    };
    let mut unpacked = 0;
    for (number, &place) in order.iter().enumerate() {
        let (field, column) = (schema.field(place), batch.column(place));
        put_varint(&mut out, place as u64);
        put_bytes(&mut out, field.name().as_bytes());
        let references = if number == others {
            found.references()
        } else {
            References::default()
        };
        if !columns::put_column(&mut out, column.as_ref(), &references, shapes) {
            return Err(LayoutError::Column {
                column: field.name().clone(),
                what: "has a type that batches do not have",
            });
        }
        unpacked += columns::unpacked_bytes(column.as_ref());
    }
    Ok(Packed { bytes: out, unpacked })
}

/// Unpacks and validates a batch that may be anything. `unpacked` is the memory that was announced for its columns.
pub(crate) fn unpack(bytes: &[u8], unpacked: usize, limits: &IpcLimits) -> Result<RecordBatch, LayoutError> {
    if unpacked > limits.max_bytes {
        return Err(LayoutError::Limit {
            what: "bytes of the unpacked columns",
            found: unpacked,
            max: limits.max_bytes,
        });
    }
    // Nothing here should panic; what a hostile peer sends must not end the process if something does.
    let batch = catch_unwind(AssertUnwindSafe(|| read(bytes, Budget { left: unpacked }, limits)))
        .map_err(|_| LayoutError::Panicked)?;
    let batch = batch.map_err(|error| match error {
        UnpackError::Malformed(Malformed(what)) => LayoutError::Stream(what),
        UnpackError::Arrow(error) => LayoutError::Arrow(error),
        UnpackError::Limit { what, found, max } => LayoutError::Limit { what, found, max },
    })?;
    validate(&batch, limits)?;
    Ok(batch)
}

fn read(bytes: &[u8], mut budget: Budget, limits: &IpcLimits) -> Result<RecordBatch, UnpackError> {
    let mut reader = Reader::new(bytes);
    if reader.byte()? != VERSION {
        return Err(Malformed("packed columns are of an unknown version").into());
    }
    let mut counted = |what, max| {
        let found = usize::try_from(reader.varint()?).unwrap_or(usize::MAX);
        if found > max {
            return Err(UnpackError::Limit { what, found, max });
        }
        Ok(found)
    };
    let rows = counted("rows", limits.max_rows)?;
    let count = counted("columns", limits.max_columns)?;
    // In the order in which they lie; texts refer to them by it.
    let mut read: Vec<(usize, String, ArrayRef)> = Vec::new();
    for _ in 0..count {
        let place = reader.count(count - 1)?;
        let length = reader.count(MAX_COLUMN_NAME_BYTES)?;
        let name = std::str::from_utf8(reader.take(length)?).map_err(|_| Malformed("name of a column is no text"))?;
        let earlier: Vec<_> = read.iter().map(|(_, _, column)| referable(column)).collect();
        let column = columns::read_column(&mut reader, rows, &earlier, &mut budget)?;
        read.push((place, name.to_owned(), column));
    }
    if !reader.is_empty() {
        return Err(Malformed("bytes follow the packed columns").into());
    }
    let mut places = HashSet::new();
    if !read.iter().all(|(place, _, _)| places.insert(*place)) {
        return Err(Malformed("two columns have one place").into());
    }
    read.sort_by_key(|(place, _, _)| *place);
    let fields = read.iter().map(|(_, name, column)| {
        Field::new(
            name,
            column.data_type().clone(),
            !matches!(name.as_str(), "signal" | "time"),
        )
    });
    let schema = Schema::new(fields.collect::<Vec<_>>());
    let columns = read.into_iter().map(|(_, _, column)| column).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(Arc::new(schema), columns, &options)?)
}

/// A column that texts may refer to, if it is one.
fn referable(column: &ArrayRef) -> Option<Cells<'_>> {
    match column.data_type() {
        DataType::Utf8 | DataType::Dictionary(..) => Texts::of(column.as_ref()).map(Cells::Text),
        DataType::Int64 => Cells::of(crate::layout::AttrKind::Int, column.as_ref()),
        DataType::Float64 => Cells::of(crate::layout::AttrKind::Double, column.as_ref()),
        _ => None,
    }
}

/// Memory that may still be taken.
#[derive(Debug)]
struct Budget {
    left: usize,
}

impl Budget {
    fn charge(&mut self, bytes: usize) -> Result<(), Malformed> {
        let left = self.left.checked_sub(bytes);
        self.left = left.ok_or(Malformed("packed columns take more memory than announced"))?;
        Ok(())
    }
}

#[derive(Debug)]
enum UnpackError {
    Malformed(Malformed),
    Arrow(ArrowError),
    Limit {
        what: &'static str,
        found: usize,
        max: usize,
    },
}

impl From<Malformed> for UnpackError {
    fn from(error: Malformed) -> Self {
        Self::Malformed(error)
    }
}

impl From<ArrowError> for UnpackError {
    fn from(error: ArrowError) -> Self {
        Self::Arrow(error)
    }
}
