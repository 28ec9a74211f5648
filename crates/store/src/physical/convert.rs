//! One column to its stored form and back.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Decimal128Array, Int32Array, Int64Array, ListArray, TimestampMicrosecondArray,
    TimestampNanosecondArray, UInt32Array, UInt64Array,
};
use arrow::datatypes::{
    DataType, Decimal128Type, Int32Type, Int64Type, TimestampMicrosecondType, TimestampNanosecondType, UInt32Type,
    UInt64Type,
};
use arrow::error::ArrowError;

use super::{Stored, U64_DIGITS, stored_type};

const NANOS_PER_MICRO: i64 = 1000;

pub(super) fn store(stored: Stored, array: &ArrayRef, into: &mut Vec<ArrayRef>) -> Result<(), ArrowError> {
    match stored {
        Stored::Same => into.push(Arc::clone(array)),
        Stored::Nanoseconds => {
            let nanos = typed::<TimestampNanosecondType>(array)?;
            let micros: TimestampMicrosecondArray = nanos.unary(|ns| ns.div_euclid(NANOS_PER_MICRO));
            let rest: Int32Array = nanos.unary(|ns| ns.rem_euclid(NANOS_PER_MICRO) as i32);
            into.push(Arc::new(micros.with_timezone("UTC")));
            into.push(Arc::new(rest));
        }
        Stored::Unsigned64 => into.push(Arc::new(to_decimal(array)?)),
        Stored::Unsigned32 => {
            let wide: Int64Array = typed::<UInt32Type>(array)?.unary(i64::from);
            into.push(Arc::new(wide));
        }
        Stored::Unsigned64List => {
            let list = lists(array)?;
            let DataType::List(field) = stored_type(array.data_type(), stored) else {
                return Err(wrong(array));
            };
            let values = to_decimal(list.values())?;
            let list = ListArray::try_new(field, list.offsets().clone(), Arc::new(values), list.nulls().cloned())?;
            into.push(Arc::new(list));
        }
    }
    Ok(())
}

pub(super) fn restore(stored: Stored, source: &[ArrayRef], logical: &DataType) -> Result<ArrayRef, ArrowError> {
    let [first, rest @ ..] = source else {
        return Err(ArrowError::SchemaError("a stored column is missing".to_owned()));
    };
    Ok(match stored {
        Stored::Same if first.data_type() == logical => Arc::clone(first),
        Stored::Same => arrow::compute::cast(first, logical)?,
        Stored::Nanoseconds => {
            let micros = typed::<TimestampMicrosecondType>(first)?;
            let rest = rest.first().ok_or_else(|| wrong(first))?;
            let nanos: TimestampNanosecondArray = join_nanos(micros, typed::<Int32Type>(rest)?);
            Arc::new(nanos.with_data_type(logical.clone()))
        }
        Stored::Unsigned64 => Arc::new(to_unsigned(first)?),
        Stored::Unsigned32 => {
            let narrow: UInt32Array = typed::<Int64Type>(first)?
                .try_unary(|wide| u32::try_from(wide).map_err(|_| ArrowError::ComputeError(out_of_range(wide))))?;
            Arc::new(narrow)
        }
        Stored::Unsigned64List => {
            let DataType::List(field) = logical else {
                return Err(wrong(first));
            };
            let list = lists(first)?;
            let values = to_unsigned(list.values())?;
            Arc::new(ListArray::try_new(
                Arc::clone(field),
                list.offsets().clone(),
                Arc::new(values),
                list.nulls().cloned(),
            )?)
        }
    })
}

/// A foreign writer may have left the nanoseconds out: they count as zero then.
fn join_nanos(micros: &TimestampMicrosecondArray, rest: &Int32Array) -> TimestampNanosecondArray {
    // Wrapping is exact here: the earliest time's microseconds lie below what fits, and the remainder brings it back.
    let join = |us: i64, ns: i32| us.wrapping_mul(NANOS_PER_MICRO).wrapping_add(i64::from(ns));
    if rest.null_count() == 0 {
        let values = micros
            .values()
            .iter()
            .zip(rest.values())
            .map(|(us, ns)| join(*us, *ns))
            .collect();
        return TimestampNanosecondArray::new(values, micros.nulls().cloned());
    }
    micros
        .iter()
        .zip(rest.iter())
        .map(|(us, ns)| us.map(|us| join(us, ns.unwrap_or(0))))
        .collect()
}

fn to_decimal(array: &ArrayRef) -> Result<Decimal128Array, ArrowError> {
    let decimal: Decimal128Array = typed::<UInt64Type>(array)?.unary(i128::from);
    decimal.with_precision_and_scale(U64_DIGITS, 0)
}

fn to_unsigned(array: &ArrayRef) -> Result<UInt64Array, ArrowError> {
    typed::<Decimal128Type>(array)?
        .try_unary(|wide| u64::try_from(wide).map_err(|_| ArrowError::ComputeError(out_of_range(wide))))
}

fn out_of_range(value: impl std::fmt::Display) -> String {
    format!("the stored value {value} is outside the column's range")
}

fn typed<T: arrow::datatypes::ArrowPrimitiveType>(
    array: &ArrayRef,
) -> Result<&arrow::array::PrimitiveArray<T>, ArrowError> {
    array.as_primitive_opt::<T>().ok_or_else(|| wrong(array))
}

fn lists(array: &ArrayRef) -> Result<&ListArray, ArrowError> {
    array.as_list_opt::<i32>().ok_or_else(|| wrong(array))
}

fn wrong(array: &ArrayRef) -> ArrowError {
    ArrowError::SchemaError(format!(
        "a column of type {} is stored in another way",
        array.data_type()
    ))
}
