//! Looking into rows of the table: whose they are, whether they are shown, and where in the log they came from.

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray, Int64Array, PrimitiveArray, RecordBatch, StringArray, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{ArrowPrimitiveType, TimestampMicrosecondType, TimestampNanosecondType};
use sluice_wire::ids::Partition;

/// The `signal` of ledger rows.
pub(crate) const LEDGER: &str = "_batch";

/// Why rows cannot be taken as rows of the table.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowsError {
    #[error("the rows do not have the columns of the table")]
    Schema,
    #[error("column {0} is null in a row where it never is")]
    Null(&'static str),
    #[error("a row of partition {partition}, offset {offset} is outside the ranges given")]
    Outside { partition: i64, offset: i64 },
    #[error("{0}")]
    Arrow(String),
}

/// Consecutive offsets of one partition, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OffsetRange {
    pub partition: Partition,
    pub first: u64,
    pub last: u64,
}

/// Refuses rows of another shape, or from elsewhere than the ranges.
pub(crate) fn check(batch: &RecordBatch, ranges: &[OffsetRange]) -> Result<(), RowsError> {
    if batch.schema().fields() != sluice_wire::events::schema().fields() {
        return Err(RowsError::Schema);
    }
    for name in ["tenant", "signal", "time", "partition", "offset"] {
        if batch.column_by_name(name).is_none_or(|column| column.null_count() > 0) {
            return Err(RowsError::Null(name));
        }
    }
    let (partitions, offsets) = (ints(batch, "partition")?, ints(batch, "offset")?);
    let bounds: BTreeMap<i64, (i64, i64)> = ranges
        .iter()
        .map(|r| (r.partition.as_i64(), (signed(r.first), signed(r.last))))
        .collect();
    for (partition, offset) in partitions.values().iter().zip(offsets.values()) {
        if bounds
            .get(partition)
            .is_none_or(|(first, last)| offset < first || offset > last)
        {
            return Err(RowsError::Outside {
                partition: *partition,
                offset: *offset,
            });
        }
    }
    Ok(())
}

/// Offsets as the tables hold them; the log never gets near the end of the signed numbers.
pub(crate) fn signed(offset: u64) -> i64 {
    i64::try_from(offset).unwrap_or(i64::MAX)
}

pub(crate) fn numbers<'a, T: ArrowPrimitiveType>(
    batch: &'a RecordBatch,
    name: &'static str,
) -> Result<&'a PrimitiveArray<T>, RowsError> {
    batch
        .column_by_name(name)
        .and_then(|c| c.as_primitive_opt::<T>())
        .ok_or(RowsError::Schema)
}

pub(crate) fn ints<'a>(batch: &'a RecordBatch, name: &'static str) -> Result<&'a Int64Array, RowsError> {
    numbers(batch, name)
}

pub(crate) fn texts<'a>(batch: &'a RecordBatch, name: &'static str) -> Result<&'a StringArray, RowsError> {
    batch
        .column_by_name(name)
        .and_then(|c| c.as_string_opt::<i32>())
        .ok_or(RowsError::Schema)
}

/// Smallest and largest `time` in nanoseconds; the batch has rows.
pub(crate) fn time_bounds(batch: &RecordBatch) -> Result<(i64, i64), RowsError> {
    let times = numbers::<TimestampNanosecondType>(batch, "time")?;
    let bounds = arrow::compute::min(times).zip(arrow::compute::max(times));
    bounds.ok_or(RowsError::Null("time"))
}

/// Smallest `ingested_at`, in microseconds since 1970; the batch has rows.
pub(crate) fn oldest_us(batch: &RecordBatch) -> Result<i64, RowsError> {
    let taken_in = numbers::<TimestampMicrosecondType>(batch, "ingested_at")?;
    match taken_in.null_count() {
        0 => arrow::compute::min(taken_in).ok_or(RowsError::Null("ingested_at")),
        // Of what is not said, any time is possible.
        _ => Ok(i64::MIN),
    }
}

/// Smallest and largest `offset`; the batch has rows.
pub(crate) fn offset_bounds(batch: &RecordBatch) -> Result<(i64, i64), RowsError> {
    let offsets = ints(batch, "offset")?;
    arrow::compute::min(offsets)
        .zip(arrow::compute::max(offsets))
        .ok_or(RowsError::Null("offset"))
}

/// Which rows `events` hides: those of the ledger, and quarantined ones.
pub(crate) fn is_hidden(signals: &StringArray, quarantined_by: &dyn Array, row: usize) -> bool {
    signals.value(row) == LEDGER || quarantined_by.is_valid(row)
}

/// A tenant, and whether `events` hides the rows.
pub(crate) type Owner = (String, bool);

/// Splits rows by tenant, and by whether `events` shows them. The order within a group is kept.
pub(crate) fn split(batch: &RecordBatch) -> Result<Vec<(Owner, RecordBatch)>, RowsError> {
    let (tenants, signals) = (texts(batch, "tenant")?, texts(batch, "signal")?);
    let quarantined = batch.column_by_name("quarantined_by").ok_or(RowsError::Schema)?;
    let mut groups: BTreeMap<(&str, bool), Vec<u32>> = BTreeMap::new();
    for row in 0..batch.num_rows() {
        let key = (tenants.value(row), is_hidden(signals, quarantined, row));
        groups.entry(key).or_default().push(row as u32);
    }
    let whole = groups.len() == 1;
    groups
        .into_iter()
        .map(|((tenant, hidden), rows)| {
            let part = if whole {
                batch.clone()
            } else {
                take_record_batch(batch, &UInt32Array::from(rows)).map_err(|e| RowsError::Arrow(e.to_string()))?
            };
            Ok(((tenant.to_owned(), hidden), part))
        })
        .collect()
}
