//! Taking erased rows out of rows of the table, and telling it in their ledger rows.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, MapArray, RecordBatch, StringArray, StructArray};
use arrow::buffer::OffsetBuffer;
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, TimestampMicrosecondType, TimestampNanosecondType};

use super::{Erasure, Erasures};
use crate::rows::{self, LEDGER, RowsError};

/// What was erased of each batch, by its place in the log.
pub(crate) type Charges = HashMap<(i64, i64), Charge>;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Charge {
    stored: u64,
    quarantined: u64,
}

impl Charge {
    pub(crate) fn rows(self) -> u64 {
        self.stored + self.quarantined
    }

    pub(crate) fn add(&mut self, more: Charge) {
        self.stored += more.stored;
        self.quarantined += more.quarantined;
    }
}

impl Erasures {
    /// Leaves erased rows out and charges the ledger rows of their batches, which are among the rows.
    pub fn apply(&self, batches: Vec<RecordBatch>) -> Result<Vec<RecordBatch>, RowsError> {
        if self.0.is_empty() {
            return Ok(batches);
        }
        let mut charges = Charges::new();
        let struck = batches.into_iter().map(|batch| {
            let struck = strike(&batch, &self.0, &mut charges)?;
            Ok(struck.unwrap_or(batch))
        });
        let struck = struck.collect::<Result<Vec<_>, RowsError>>()?;
        let charged = struck
            .into_iter()
            .map(|batch| Ok(charge(&batch, &charges)?.unwrap_or(batch)));
        charged.collect()
    }
}

/// The rows that are not erased, and counts the others; `None`: none is.
pub(crate) fn strike(
    batch: &RecordBatch,
    erasures: &[Erasure],
    charges: &mut Charges,
) -> Result<Option<RecordBatch>, RowsError> {
    let (tenants, signals) = (rows::texts(batch, "tenant")?, rows::texts(batch, "signal")?);
    let (partitions, offsets) = (rows::ints(batch, "partition")?, rows::ints(batch, "offset")?);
    let quarantined = batch.column_by_name("quarantined_by").ok_or(RowsError::Schema)?;
    let times = rows::numbers::<TimestampNanosecondType>(batch, "time")?;
    let taken_in = rows::numbers::<TimestampMicrosecondType>(batch, "ingested_at")?;
    let is_erased = |row: usize, erasure: &Erasure| {
        erasure.whose.includes(tenants.value(row))
            && taken_in.is_valid(row)
            && taken_in.value(row) < erasure.before_us
            && erasure.from_ns.is_none_or(|from| times.value(row) >= from)
            && erasure.to_ns.is_none_or(|to| times.value(row) < to)
    };
    let mut stays = Vec::with_capacity(batch.num_rows());
    for row in 0..batch.num_rows() {
        let erased = signals.value(row) != LEDGER && erasures.iter().any(|erasure| is_erased(row, erasure));
        if erased {
            let charge = charges.entry((partitions.value(row), offsets.value(row))).or_default();
            match quarantined.is_valid(row) {
                true => charge.quarantined += 1,
                false => charge.stored += 1,
            }
        }
        stays.push(!erased);
    }
    if stays.iter().all(|stays| *stays) {
        return Ok(None);
    }
    filter_record_batch(batch, &BooleanArray::from(stays))
        .map(Some)
        .map_err(|error| RowsError::Arrow(error.to_string()))
}

/// The rows with what was erased in the ledger rows; `None`: they say nothing of those batches.
pub(crate) fn charge(batch: &RecordBatch, charges: &Charges) -> Result<Option<RecordBatch>, RowsError> {
    let signals = rows::texts(batch, "signal")?;
    let (partitions, offsets) = (rows::ints(batch, "partition")?, rows::ints(batch, "offset")?);
    let of = |row: usize| {
        let place = (partitions.value(row), offsets.value(row));
        charges.get(&place).filter(|_| signals.value(row) == LEDGER).copied()
    };
    if (0..batch.num_rows()).all(|row| of(row).is_none()) {
        return Ok(None);
    }
    let index = batch.schema().index_of("attrs").map_err(|_| RowsError::Schema)?;
    let attrs = batch.column(index).as_map_opt().ok_or(RowsError::Schema)?;
    let (keys, values) = (
        attrs.keys().as_string_opt::<i32>(),
        attrs.values().as_string_opt::<i32>(),
    );
    let (keys, values) = keys.zip(values).ok_or(RowsError::Schema)?;
    let (mut new_keys, mut new_values, mut lengths) = (Vec::new(), Vec::new(), Vec::new());
    for row in 0..batch.num_rows() {
        let entries = attrs.value_offsets()[row] as usize..attrs.value_offsets()[row + 1] as usize;
        let mut list: Vec<(&str, String)> = entries
            .map(|at| (keys.value(at), values.value(at).to_owned()))
            .collect();
        if let Some(charge) = of(row) {
            list = charged(list, charge);
        }
        lengths.push(list.len());
        for (key, value) in list {
            new_keys.push(key);
            new_values.push(value);
        }
    }
    let DataType::Map(entries, ordered) = attrs.data_type() else {
        return Err(RowsError::Schema);
    };
    let DataType::Struct(members) = entries.data_type() else {
        return Err(RowsError::Schema);
    };
    let arrow = |error: arrow::error::ArrowError| RowsError::Arrow(error.to_string());
    let parts: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(new_keys)),
        Arc::new(StringArray::from(new_values)),
    ];
    let parts = StructArray::try_new(members.clone(), parts, None).map_err(arrow)?;
    let offsets = OffsetBuffer::from_lengths(lengths);
    let map =
        MapArray::try_new(Arc::clone(entries), offsets, parts, attrs.nulls().cloned(), *ordered).map_err(arrow)?;
    let mut columns = batch.columns().to_vec();
    columns[index] = Arc::new(map);
    RecordBatch::try_new(batch.schema(), columns).map(Some).map_err(arrow)
}

/// The counts of a batch after some of its rows were erased.
fn charged(list: Vec<(&str, String)>, charge: Charge) -> Vec<(&str, String)> {
    let number = |text: &str| text.parse::<u64>().unwrap_or(0);
    let mut erased = charge.stored + charge.quarantined;
    let mut new = Vec::with_capacity(list.len() + 1);
    for (key, value) in list {
        match key {
            "stored" => new.push((key, number(&value).saturating_sub(charge.stored).to_string())),
            "quarantined" => new.push((key, number(&value).saturating_sub(charge.quarantined).to_string())),
            "erased" => erased += number(&value),
            _ => new.push((key, value)),
        }
    }
    new.push(("erased", erased.to_string()));
    new
}
