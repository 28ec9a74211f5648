//! Columns as ClickHouse sends them as columns of the table `events`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, MapArray, RecordBatch, RecordBatchOptions, StructArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;

/// The columns of `schema`, in its order, from an answer that has them in the same order.
pub(crate) fn rows(answer: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let columns = schema.fields().iter().zip(answer.columns());
    let arrays = columns
        .map(|(field, column)| fit(column, field.data_type()))
        .collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(answer.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), arrays, &options)
}

fn fit(column: &ArrayRef, wanted: &DataType) -> Result<ArrayRef, ArrowError> {
    if column.data_type() == wanted {
        return Ok(Arc::clone(column));
    }
    Ok(match (column.data_type(), wanted) {
        (DataType::Map(..), DataType::Map(entries, ordered)) => {
            let map = column.as_map();
            let DataType::Struct(members) = entries.data_type() else {
                return Err(ArrowError::SchemaError("the entries of a map are no struct".to_owned()));
            };
            let parts = members
                .iter()
                .zip(map.entries().columns())
                .map(|(member, part)| fit(part, member.data_type()))
                .collect::<Result<Vec<_>, _>>()?;
            let parts = StructArray::try_new(members.clone(), parts, None)?;
            let offsets = map.offsets().clone();
            Arc::new(MapArray::try_new(
                Arc::clone(entries),
                offsets,
                parts,
                map.nulls().cloned(),
                *ordered,
            )?)
        }
        (DataType::List(_), DataType::List(item)) => {
            let list = column.as_list::<i32>();
            let values = fit(list.values(), item.data_type())?;
            // ClickHouse has no null lists, and `events` has no empty ones.
            let filled: NullBuffer = list.value_offsets().windows(2).map(|pair| pair[0] < pair[1]).collect();
            let nulls = (filled.null_count() > 0).then_some(filled);
            Arc::new(ListArray::try_new(
                Arc::clone(item),
                list.offsets().clone(),
                values,
                nulls,
            )?)
        }
        _ => arrow::compute::cast(column, wanted)?,
    })
}
