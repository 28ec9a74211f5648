//! States of aggregates as columns: lists of numbers and texts, one list per part of a state.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, ListArray, StringArray};
use arrow::buffer::OffsetBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type, Int64Type};
use datafusion::error::{DataFusionError, Result};
use datafusion::scalar::ScalarValue;

pub(super) fn field(name: String, kind: DataType) -> FieldRef {
    Arc::new(Field::new_list(name, Field::new_list_field(kind, true), true))
}

/// Places in a list are 32 bits.
fn list(values: ArrayRef) -> Result<ScalarValue> {
    if i32::try_from(values.len()).is_err() {
        return Err(too_long());
    }
    let item = Arc::new(Field::new_list_field(values.data_type().clone(), true));
    let offsets = OffsetBuffer::from_lengths([values.len()]);
    Ok(ScalarValue::List(Arc::new(ListArray::new(item, offsets, values, None))))
}

pub(super) fn floats(values: impl Iterator<Item = f64>) -> Result<ScalarValue> {
    list(Arc::new(Float64Array::from_iter_values(values)))
}

pub(super) fn ints(values: impl Iterator<Item = i64>) -> Result<ScalarValue> {
    list(Arc::new(Int64Array::from_iter_values(values)))
}

pub(super) fn flags(values: impl Iterator<Item = bool>) -> Result<ScalarValue> {
    list(Arc::new(BooleanArray::from_iter(values.map(Some))))
}

/// Places in a text are 32 bits too.
pub(super) fn texts<'a>(values: impl Iterator<Item = &'a str> + Clone) -> Result<ScalarValue> {
    let bytes: usize = values.clone().map(str::len).sum();
    match i32::try_from(bytes) {
        Ok(_) => list(Arc::new(StringArray::from_iter_values(values))),
        Err(_) => Err(too_long()),
    }
}

fn too_long() -> DataFusionError {
    DataFusionError::Execution(
        "one group of an aggregate has more than 2147483647 points or bytes of names: group by more, or narrow the time range".into(),
    )
}

/// One part of the states that are to be merged, all lists in one.
fn flat(states: &ArrayRef, kind: &DataType) -> Result<ArrayRef> {
    let lists = states.as_list_opt::<i32>().ok_or_else(wrong)?;
    let offsets = lists.value_offsets();
    let (first, last) = (offsets[0] as usize, offsets[lists.len()] as usize);
    Ok(cast(&lists.values().slice(first, last - first), kind)?)
}

pub(super) fn flat_floats(states: Option<&ArrayRef>) -> Result<Float64Array> {
    let flat = flat(states.ok_or_else(wrong)?, &DataType::Float64)?;
    Ok(flat.as_primitive::<Float64Type>().clone())
}

pub(super) fn flat_ints(states: Option<&ArrayRef>) -> Result<Int64Array> {
    let flat = flat(states.ok_or_else(wrong)?, &DataType::Int64)?;
    Ok(flat.as_primitive::<Int64Type>().clone())
}

pub(super) fn flat_flags(states: Option<&ArrayRef>) -> Result<BooleanArray> {
    let flat = flat(states.ok_or_else(wrong)?, &DataType::Boolean)?;
    Ok(flat.as_boolean().clone())
}

pub(super) fn flat_texts(states: Option<&ArrayRef>) -> Result<StringArray> {
    let flat = flat(states.ok_or_else(wrong)?, &DataType::Utf8)?;
    Ok(flat.as_string::<i32>().clone())
}

pub(super) fn wrong() -> DataFusionError {
    DataFusionError::Internal("a state that is to be merged is none".into())
}
