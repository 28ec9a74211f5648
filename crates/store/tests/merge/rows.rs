//! Rows of any kind: every column of the table with values and nulls, and offsets, times and tenants that overlap between commits.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Decimal128Array, FixedSizeBinaryArray, Float64Array, Int32Array, Int64Array, ListArray,
    MapArray, RecordBatch, StringArray, StructArray, TimestampMicrosecondArray, TimestampNanosecondArray, UInt32Array,
    UInt64Array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, TimeUnit};
use sluice_wire::events::schema;
use sluice_wire::ids::Partition;

use crate::common::{DAY_NS, START_NS, Seeded};

/// Rows of one offset.
pub(crate) fn of(rng: &mut Seeded, partition: Partition, offset: u64, rows: usize) -> RecordBatch {
    let table = schema();
    let columns = table.fields().iter().map(|field| {
        let mut text = |from: &[Option<&str>]| -> ArrayRef {
            let pick = (0..rows).map(|_| from[rng.below(from.len() as u64) as usize]);
            Arc::new(pick.collect::<StringArray>())
        };
        match field.name().as_str() {
            "tenant" => text(&[Some("acme"), Some("bolt")]),
            "signal" => text(&[Some("log"), Some("span"), Some("metric"), Some("_batch")]),
            "service" => text(&[None, Some("api"), Some("web"), Some("")]),
            "quarantined_by" => text(&[None, None, None, Some("mask")]),
            "partition" => Arc::new(Int64Array::from_value(partition.as_i64(), rows)) as ArrayRef,
            "offset" => Arc::new(Int64Array::from_value(offset as i64, rows)),
            "row" => Arc::new(
                (0..rows as i32)
                    .map(|row| (row % 7 > 0).then_some(row))
                    .collect::<Int32Array>(),
            ),
            // Few times, so that many are equal, on both sides of midnight.
            "time" => {
                let midnight = START_NS - START_NS.rem_euclid(DAY_NS);
                let time = |_| midnight + rng.below(40) as i64 * 499 - 9_000;
                let times: TimestampNanosecondArray = (0..rows).map(time).collect::<Vec<i64>>().into();
                Arc::new(times.with_timezone("UTC"))
            }
            "trace_id" => {
                let id = |_| (rng.below(3) > 0).then(|| format!("{:032x}", rng.below(u64::MAX)));
                Arc::new((0..rows).map(id).collect::<StringArray>())
            }
            _ => column(rng, field.data_type(), rows, field.is_nullable()),
        }
    });
    RecordBatch::try_new(schema(), columns.collect()).unwrap()
}

fn nulls(rng: &mut Seeded, rows: usize, nullable: bool) -> Option<NullBuffer> {
    let share = [1, 4, u64::MAX][rng.below(3) as usize];
    nullable.then(|| (0..rows).map(|_| rng.below(share) > 0).collect::<Vec<bool>>().into())
}

fn column(rng: &mut Seeded, kind: &DataType, rows: usize, nullable: bool) -> ArrayRef {
    let nulls = nulls(rng, rows, nullable);
    let numbers: Vec<u64> = (0..rows).map(|_| rng.below(u64::MAX) << rng.below(12)).collect();
    let signed = || numbers.iter().map(|number| *number as i64);
    match kind {
        DataType::Utf8 => {
            let text = |number: &u64| match number >> 8 & 7 {
                0 => String::new(),
                1 => "ü€ñ".repeat((number & 31) as usize),
                _ => format!("text {}", number & 15),
            };
            let texts: Vec<String> = numbers.iter().map(text).collect();
            let valid = |at: usize| nulls.as_ref().is_none_or(|nulls| nulls.is_valid(at));
            let texts = texts.iter().enumerate().map(|(at, text)| valid(at).then_some(text));
            Arc::new(texts.collect::<StringArray>())
        }
        DataType::Boolean => Arc::new(BooleanArray::new(
            numbers.iter().map(|number| number & 16 > 0).collect::<Vec<_>>().into(),
            nulls,
        )),
        DataType::Int32 => Arc::new(Int32Array::new(signed().map(|int| int as i32).collect(), nulls)),
        DataType::Int64 => Arc::new(Int64Array::new(signed().collect(), nulls)),
        DataType::UInt32 => Arc::new(UInt32Array::new(signed().map(|int| int as u32).collect(), nulls)),
        DataType::UInt64 => Arc::new(UInt64Array::new(numbers.into(), nulls)),
        DataType::Float64 => Arc::new(Float64Array::new(signed().map(|int| int as f64 / 3.0).collect(), nulls)),
        DataType::Decimal128(..) => {
            let wide = Decimal128Array::new(numbers.iter().map(|number| i128::from(*number)).collect(), nulls);
            Arc::new(wide.with_data_type(kind.clone()))
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            let times = TimestampNanosecondArray::new(signed().collect(), nulls);
            Arc::new(times.with_data_type(kind.clone()))
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            let times = TimestampMicrosecondArray::new(signed().map(|us| us / 5000).collect(), nulls);
            Arc::new(times.with_data_type(kind.clone()))
        }
        DataType::FixedSizeBinary(width) => {
            let bytes = numbers.iter().map(|number| vec![*number as u8; *width as usize]);
            Arc::new(FixedSizeBinaryArray::try_from_iter(bytes).unwrap())
        }
        DataType::List(item) => {
            let offsets = offsets(rng, rows);
            let items = column(rng, item.data_type(), end(&offsets), item.is_nullable());
            Arc::new(ListArray::new(Arc::clone(item), offsets, items, nulls))
        }
        DataType::Struct(members) => {
            let member = |field: &Arc<Field>| column(rng, field.data_type(), rows, field.is_nullable());
            let members_of = members.iter().map(member).collect();
            Arc::new(StructArray::new(members.clone(), members_of, nulls))
        }
        DataType::Map(entry, is_sorted) => {
            let offsets = offsets(rng, rows);
            let entries = column(rng, entry.data_type(), end(&offsets), false);
            let entries = entries.as_any().downcast_ref::<StructArray>().unwrap().clone();
            Arc::new(MapArray::new(Arc::clone(entry), offsets, entries, nulls, *is_sorted))
        }
        other => panic!("the table has columns of type {other}, which this does not make"),
    }
}

fn offsets(rng: &mut Seeded, rows: usize) -> OffsetBuffer<i32> {
    OffsetBuffer::from_lengths((0..rows).map(|_| rng.below(4) as usize))
}

fn end(offsets: &OffsetBuffer<i32>) -> usize {
    *offsets.last().unwrap() as usize
}
