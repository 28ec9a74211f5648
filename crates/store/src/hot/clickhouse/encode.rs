//! Rows as the body of one INSERT: an Arrow stream of those columns in which any row says something.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Date32Array, Int64Array, RecordBatch, UInt32Array, UInt64Array};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Int32Type, Schema, TimestampMicrosecondType};
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use bytes::Bytes;
use sluice_wire::ids::Partition;

use super::numbered::numbered;
use super::schema::{BATCH_ROWS, DROP_DAY, GENERATION};
use crate::hot::HotRows;
use crate::rows::{self, RowsError};

const MICROS_PER_DAY: i64 = 86_400_000_000;
const LEDGER_ROW: i32 = -1;
/// Rows that are worth a batch of their own in the stream. Others, as the ledger's, are copied together: a server takes many small
/// batches slowly. It makes one block of all of them in any case, and sorts it.
const LARGE_ROWS: usize = 2048;

/// One block of rows on its way.
#[derive(Debug)]
pub(super) struct Block {
    /// Names in the order of the stream's columns.
    pub(super) columns: Vec<String>,
    pub(super) body: Bytes,
    /// The day on which the server may drop it, in days since 1970: the same for all rows.
    pub(super) day: i32,
}

/// `None` when there are no rows. No row gets an earlier day than `not_before`.
pub(super) fn block(
    slices: &[HotRows],
    generation: impl Fn(Partition) -> u64,
    not_before: i32,
) -> Result<Option<Block>, RowsError> {
    let batches: Vec<(u64, &RecordBatch)> = slices
        .iter()
        .flat_map(|slice| slice.rows.iter().map(|rows| (generation(slice.range.partition), rows)))
        .filter(|(_, rows)| rows.num_rows() > 0)
        .collect();
    if batches.is_empty() {
        return Ok(None);
    }
    let logical = sluice_wire::events::schema();
    let used: Vec<usize> = (0..logical.fields().len())
        .filter(|index| batches.iter().any(|(_, rows)| says_something(rows.column(*index))))
        .collect();
    let day = batches
        .iter()
        .filter_map(|(_, rows)| latest_day(rows))
        .fold(not_before, i32::max);
    let counts = data_rows(&batches)?;

    let mut fields: Vec<Field> = used.iter().map(|index| logical.field(*index).clone()).collect();
    fields.extend([
        Field::new(GENERATION, DataType::UInt64, false),
        Field::new(DROP_DAY, DataType::Date32, false),
        Field::new(BATCH_ROWS, DataType::UInt32, false),
    ]);
    let schema = Arc::new(Schema::new(fields));
    let wide = batches.iter().map(|(generation, rows)| {
        let mut arrays: Vec<ArrayRef> = used.iter().map(|index| Arc::clone(rows.column(*index))).collect();
        let count = rows.num_rows();
        arrays.push(Arc::new(UInt64Array::from_value(*generation, count)));
        arrays.push(Arc::new(Date32Array::from_value(day, count)));
        arrays.push(Arc::new(batch_rows(rows, &counts)?));
        RecordBatch::try_new(Arc::clone(&schema), arrays).map_err(arrow)
    });
    let (large, small): (Vec<_>, Vec<_>) = wide
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .partition(|rows| rows.num_rows() >= LARGE_ROWS);
    let mut written = large;
    if !small.is_empty() {
        written.push(concat_batches(&schema, &small).map_err(arrow)?);
        drop(small);
    }
    let numbered = numbered(&written).map_err(arrow)?;
    // Numbers take no more than the texts that they stand for.
    let room = bytes(&written);
    drop(written);
    let body = stream(numbered, room).map_err(arrow)?;
    Ok(Some(Block {
        columns: schema.fields().iter().map(|field| field.name().clone()).collect(),
        body: Bytes::from(body),
        day,
    }))
}

fn stream(batches: Vec<RecordBatch>, room: usize) -> Result<Vec<u8>, ArrowError> {
    let schema = batches
        .first()
        .map_or_else(|| Arc::new(Schema::empty()), RecordBatch::schema);
    let mut body = Vec::with_capacity(room + (64 << 10));
    let mut writer = StreamWriter::try_new(&mut body, &schema)?;
    for rows in batches {
        writer.write(&rows)?;
    }
    writer.finish()?;
    drop(writer);
    Ok(body)
}

fn bytes(batches: &[RecordBatch]) -> usize {
    batches.iter().map(RecordBatch::get_array_memory_size).sum()
}

/// The server fills in what is not sent: null, or an empty list or map.
fn says_something(column: &ArrayRef) -> bool {
    match column.data_type() {
        DataType::Map(..) => column.as_map().value_offsets().windows(2).any(|pair| pair[0] < pair[1]),
        DataType::List(_) => {
            let offsets = column.as_list::<i32>().value_offsets();
            offsets.windows(2).any(|pair| pair[0] < pair[1])
        }
        _ => column.null_count() < column.len(),
    }
}

fn latest_day(rows: &RecordBatch) -> Option<i32> {
    let at = rows
        .column_by_name("ingested_at")?
        .as_primitive_opt::<TimestampMicrosecondType>()?;
    let day = arrow::compute::max(at)?.div_euclid(MICROS_PER_DAY);
    // What a Date of ClickHouse holds.
    Some(day.clamp(0, i64::from(u16::MAX)) as i32)
}

/// How many rows beside the ledger's stand at each place of the log.
fn data_rows(batches: &[(u64, &RecordBatch)]) -> Result<HashMap<(i64, i64), u32>, RowsError> {
    let mut counts = HashMap::new();
    for (_, rows) in batches {
        let (partitions, offsets, numbers) = places(rows)?;
        let mut at = 0;
        while at < rows.num_rows() {
            let place = (partitions.value(at), offsets.value(at));
            let mut count = 0;
            while at < rows.num_rows() && (partitions.value(at), offsets.value(at)) == place {
                count += u32::from(numbers[at] != LEDGER_ROW);
                at += 1;
            }
            *counts.entry(place).or_default() += count;
        }
    }
    Ok(counts)
}

fn batch_rows(rows: &RecordBatch, counts: &HashMap<(i64, i64), u32>) -> Result<UInt32Array, RowsError> {
    let (partitions, offsets, numbers) = places(rows)?;
    let of = |at: usize| match numbers[at] {
        LEDGER_ROW => counts
            .get(&(partitions.value(at), offsets.value(at)))
            .copied()
            .unwrap_or(0),
        _ => 0,
    };
    Ok((0..rows.num_rows()).map(of).collect())
}

fn places(rows: &RecordBatch) -> Result<(&Int64Array, &Int64Array, &[i32]), RowsError> {
    let numbers = rows
        .column_by_name("row")
        .and_then(|column| column.as_primitive_opt::<Int32Type>())
        .filter(|numbers| numbers.null_count() == 0)
        .ok_or(RowsError::Null("row"))?;
    Ok((
        rows::ints(rows, "partition")?,
        rows::ints(rows, "offset")?,
        numbers.values(),
    ))
}

fn arrow(error: ArrowError) -> RowsError {
    RowsError::Arrow(error.to_string())
}
