//! Metrics and their data points.

use arrow_array::types::{Float64Type, UInt64Type};

use super::EncodeError;
use super::groups::Identity;
use super::records::{read_hex, read_uint, write_items};
use super::rows::{Duplicates, Lists, Numbers, Rows};
use super::values::{Bad, Number, read_number, read_pairs, write_pairs};
use crate::json::Json;
use crate::layout::Group;
use crate::otlp::metrics::{Kind, TEMPORALITIES};
use crate::otlp::writer::{
    bytes, bytes_always, double, double_always, fixed64, fixed64_always, fixed64s, int32, sint32, text, uint, varint,
};

fn kind(rows: &Rows, row: usize) -> Result<Kind, EncodeError> {
    let name = rows.metric_type.get(row).unwrap_or_default();
    Kind::ALL
        .into_iter()
        .find(|kind| kind.as_str() == name)
        .ok_or_else(|| rows.metric_type.bad(row, Bad("is not a type of metrics")))
}

/// What the metric of a row is.
pub(super) fn metric(rows: &Rows, row: usize) -> Result<Identity, EncodeError> {
    let kind = kind(rows, row)?;
    let mut head = Vec::new();
    text(&mut head, 1, rows.name.get(row));
    text(&mut head, 2, rows.description.get(row));
    text(&mut head, 3, rows.unit.get(row));
    if let Some(metadata) = rows.metadata.get(row) {
        let mut json = super::values::parser(metadata);
        let pairs = read_pairs(&mut json).map_err(|bad| rows.metadata.bad(row, bad))?;
        write_pairs(&mut head, 12, &pairs);
    }
    let mut tail = Vec::new();
    int32(&mut tail, 2, rows.temporality.number(row, &TEMPORALITIES)?);
    uint(&mut tail, 3, u64::from(rows.monotonic.is_true(row)));
    Ok(Identity {
        head,
        field: kind.field(),
        tail,
    })
}

pub(super) fn write_point(
    out: &mut Vec<u8>,
    rows: &Rows,
    row: usize,
    duplicates: &Duplicates<'_>,
) -> Result<(), EncodeError> {
    let kind = kind(rows, row)?;
    let mut point = Vec::new();
    fixed64(&mut point, 2, rows.start_time.or_zero(row) as u64);
    fixed64(&mut point, 3, rows.sent_time(row));
    // Fields that all kinds have, under the numbers that each kind gives them.
    let (attributes, exemplars, flags) = match kind {
        Kind::Gauge | Kind::Sum => (7, 5, 8),
        Kind::Histogram => (9, 8, 10),
        Kind::Exponential => (1, 11, 10),
        Kind::Summary => (7, 0, 8),
    };
    rows.attrs
        .write(&mut point, attributes, row, &duplicates[Group::Attrs as usize])?;
    uint(&mut point, flags, u64::from(rows.flags.or_zero(row)));
    if let Some(json) = rows.exemplars.get(row).filter(|_| exemplars != 0) {
        write_items(&mut point, exemplars, json, write_exemplar).map_err(|bad| rows.exemplars.bad(row, bad))?;
    }
    match kind {
        Kind::Gauge | Kind::Sum => match (rows.value_int.get(row), rows.value.get(row)) {
            (Some(int), _) => fixed64_always(&mut point, 6, int as u64),
            (None, Some(value)) => double_always(&mut point, 4, value),
            (None, None) => {}
        },
        Kind::Histogram => {
            fixed64(&mut point, 4, rows.count.or_zero(row));
            write_statistics(&mut point, rows, row, [5, 11, 12]);
            fixed64s(&mut point, 6, rows.buckets.get::<UInt64Type>(row).into_iter());
            fixed64s(
                &mut point,
                7,
                rows.bounds.get::<Float64Type>(row).into_iter().map(f64::to_bits),
            );
        }
        Kind::Exponential => {
            fixed64(&mut point, 4, rows.count.or_zero(row));
            write_statistics(&mut point, rows, row, [5, 12, 13]);
            sint32(&mut point, 6, rows.scale.or_zero(row));
            fixed64(&mut point, 7, rows.zero_count.or_zero(row));
            double(&mut point, 14, rows.zero_threshold.or_zero(row));
            write_side(&mut point, 8, row, &rows.positive_offset, &rows.positive_buckets);
            write_side(&mut point, 9, row, &rows.negative_offset, &rows.negative_buckets);
        }
        Kind::Summary => {
            fixed64(&mut point, 4, rows.count.or_zero(row));
            double(&mut point, 5, rows.sum.or_zero(row));
            if let Some(json) = rows.quantiles.get(row) {
                write_items(&mut point, 6, json, write_quantile).map_err(|bad| rows.quantiles.bad(row, bad))?;
            }
        }
    }
    bytes_always(out, 1, &point);
    Ok(())
}

/// Sum, minimum and maximum, each in its field.
fn write_statistics(out: &mut Vec<u8>, rows: &Rows, row: usize, fields: [u32; 3]) {
    for (column, field) in [&rows.sum, &rows.min, &rows.max].into_iter().zip(fields) {
        if let Some(value) = column.get(row) {
            double_always(out, field, value);
        }
    }
}

fn write_side(
    out: &mut Vec<u8>,
    field: u32,
    row: usize,
    offset: &Numbers<arrow_array::types::Int32Type>,
    buckets: &Lists,
) {
    let Some(offset) = offset.get(row) else {
        return;
    };
    let mut side = Vec::new();
    sint32(&mut side, 1, offset);
    let mut packed = Vec::new();
    for count in buckets.get::<UInt64Type>(row) {
        varint(&mut packed, count);
    }
    bytes(&mut side, 2, &packed);
    bytes_always(out, field, &side);
}

fn write_quantile(out: &mut Vec<u8>, json: &mut Json<'_>) -> Result<(), Bad> {
    json.array(|json, n| {
        let value = match read_number(json)? {
            Number::Double(value) => value,
            Number::Int(value) => value as f64,
        };
        match n {
            0 => double(out, 1, value),
            1 => double(out, 2, value),
            _ => return Err(Bad("holds more than a quantile and a value")),
        }
        Ok(())
    })
}

fn write_exemplar(out: &mut Vec<u8>, json: &mut Json<'_>) -> Result<(), Bad> {
    json.object(|json, name| {
        match name.as_ref() {
            "time" => fixed64(out, 2, read_uint(json)?),
            "trace_id" => bytes(out, 5, &read_hex(json)?),
            "span_id" => bytes(out, 4, &read_hex(json)?),
            "value" => match read_number(json)? {
                Number::Double(value) => double_always(out, 3, value),
                Number::Int(value) => fixed64_always(out, 6, value as u64),
            },
            "filtered_attributes" => write_pairs(out, 7, &read_pairs(json)?),
            _ => json.skip()?,
        }
        Ok(())
    })
}
