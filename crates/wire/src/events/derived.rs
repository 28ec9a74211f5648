//! Columns that repeat well-known attributes under short names.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type};
use arrow_array::{Array, ArrayRef, Float64Array, Int64Array, RecordBatch};

use crate::layout::AttrKind;
use crate::layout::cells::{Cells, GroupCells, Texts};
use crate::layout::text::strings;
use crate::value::{parse_double, type_name, write_hex};

/// Attributes of one group that fill one column: the first that a row has.
pub(super) struct Lookup<'a> {
    group: &'a GroupCells<'a>,
    keys: &'static [&'static str],
    /// By key, in the order of `keys`.
    columns: Vec<(&'static str, Cells<'a>)>,
    scratch: Vec<u8>,
}

impl<'a> Lookup<'a> {
    pub(super) fn new(group: &'a GroupCells<'a>, keys: &'static [&'static str]) -> Self {
        let columns = keys
            .iter()
            .flat_map(|wanted| {
                let same = group
                    .columns
                    .iter()
                    .filter(move |(key, kind, _)| key == wanted && *kind != AttrKind::Null);
                same.map(move |(_, _, cells)| (*wanted, *cells))
            })
            .collect();
        Self {
            group,
            keys,
            columns,
            scratch: Vec::new(),
        }
    }

    /// Whether no row can have a value.
    fn is_empty(&self) -> bool {
        self.columns.is_empty() && self.group.rest.is_none()
    }

    fn get(&mut self, row: usize) -> Option<&str> {
        for key in self.keys {
            if let Some((_, cells)) = self.columns.iter().find(|(k, cells)| k == key && cells.is_valid(row)) {
                self.scratch.clear();
                cells.write_text(row, &mut self.scratch);
                return std::str::from_utf8(&self.scratch).ok();
            }
            let rest = self.group.rest.iter().flat_map(|rest| rest.entries(row));
            if let Some([_, _, text]) = rest
                .into_iter()
                .find(|[k, kind, _]| k == key && *kind != type_name::NULL)
            {
                return Some(text);
            }
        }
        None
    }

    pub(super) fn texts(mut self, rows: usize) -> Option<ArrayRef> {
        if self.is_empty() {
            return None;
        }
        let mut out = arrow_array::builder::StringBuilder::new();
        for row in 0..rows {
            out.append_option(self.get(row));
        }
        Some(Arc::new(out.finish()))
    }

    pub(super) fn ints(mut self, rows: usize) -> Option<Int64Array> {
        (!self.is_empty()).then(|| (0..rows).map(|row| self.get(row).and_then(whole)).collect())
    }

    pub(super) fn doubles(mut self, rows: usize) -> Option<Float64Array> {
        (!self.is_empty()).then(|| (0..rows).map(|row| self.get(row).and_then(parse_double)).collect())
    }
}

/// An integer, also where a sender wrote it as a double.
fn whole(text: &str) -> Option<i64> {
    text.parse().ok().or_else(|| to_whole(parse_double(text)?))
}

/// Doubles from 2^63 on do not fit.
fn to_whole(double: f64) -> Option<i64> {
    (double.abs() < 9.2e18).then_some(double as i64)
}

/// The number that was sent with a data point, as a double.
pub(super) fn values(batch: &RecordBatch) -> Option<Float64Array> {
    let doubles = batch
        .column_by_name("value")
        .and_then(|c| c.as_primitive_opt::<Float64Type>());
    let ints = batch
        .column_by_name("value_int")
        .and_then(|c| c.as_primitive_opt::<Int64Type>());
    if ints.is_none() {
        return doubles.cloned();
    }
    let value = |row| {
        let int = ints.filter(|c| c.is_valid(row)).map(|c| c.value(row) as f64);
        int.or_else(|| doubles.filter(|c| c.is_valid(row)).map(|c| c.value(row)))
    };
    Some((0..batch.num_rows()).map(value).collect())
}

/// `gpu_utilization` and `gpu_memory_bytes`: an attribute, or the value of the metric that measures it.
pub(super) fn gpu(batch: &RecordBatch, attrs: &GroupCells<'_>) -> (Option<Float64Array>, Option<Int64Array>) {
    let rows = batch.num_rows();
    let utilization = Lookup::new(attrs, &["gpu.utilization"]).doubles(rows);
    let memory = Lookup::new(attrs, &["gpu.memory.bytes"]).ints(rows);
    let names = batch.column_by_name("name").and_then(|c| Texts::of(c.as_ref()));
    let (Some(names), Some(values)) = (names, values(batch)) else {
        return (utilization, memory);
    };
    let measured =
        |row: usize, metric: &str| (values.is_valid(row) && names.get(row) == Some(metric)).then(|| values.value(row));
    let has = |metric: &str| (0..rows).any(|row| measured(row, metric).is_some());
    let utilization = if has("hw.gpu.utilization") {
        let own = |row: usize| utilization.as_ref().filter(|c| c.is_valid(row)).map(|c| c.value(row));
        Some(
            (0..rows)
                .map(|row| own(row).or_else(|| measured(row, "hw.gpu.utilization")))
                .collect(),
        )
    } else {
        utilization
    };
    let memory = if has("hw.gpu.memory.usage") {
        let own = |row: usize| memory.as_ref().filter(|c| c.is_valid(row)).map(|c| c.value(row));
        Some(
            (0..rows)
                .map(|row| own(row).or_else(|| to_whole(measured(row, "hw.gpu.memory.usage")?)))
                .collect(),
        )
    } else {
        memory
    };
    (utilization, memory)
}

/// Ids as lower-case hex.
pub(super) fn hex_column(column: &dyn Array) -> Option<ArrayRef> {
    let ids = column.as_fixed_size_binary_opt()?;
    let mut data = Vec::with_capacity(ids.len() * ids.value_length() as usize * 2);
    let mut offsets = Vec::with_capacity(ids.len() + 1);
    offsets.push(0);
    for row in 0..ids.len() {
        if ids.is_valid(row) {
            write_hex(&mut data, ids.value(row));
        }
        offsets.push(data.len() as i32);
    }
    Some(Arc::new(strings(offsets, data, ids.nulls().cloned()).ok()?))
}
