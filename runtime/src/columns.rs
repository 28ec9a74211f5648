//! The columns of a batch on their way to a plugin and back into the batch.

use std::sync::Arc;

use arrow_array::types::UInt16Type;
use arrow_array::{
    Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, StringArray, UInt32Array, new_null_array,
};
use arrow_buffer::BooleanBuffer;
use arrow_ipc::MetadataVersion;
use arrow_ipc::writer::{IpcWriteOptions, StreamWriter};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};

/// Columns that only the host writes.
pub(crate) const QUARANTINED_BY: &str = "quarantined_by";
pub(crate) const QUARANTINE_REASON: &str = "quarantine_reason";

/// The columns of `batch` with such names, sharing its buffers.
pub(crate) fn select(batch: &RecordBatch, named: impl Fn(&str) -> bool) -> Result<RecordBatch, ArrowError> {
    let indices: Vec<usize> = batch
        .schema_ref()
        .fields()
        .iter()
        .enumerate()
        .filter(|(_, field)| named(field.name()))
        .map(|(index, _)| index)
        .collect();
    batch.project(&indices)
}

/// About how many bytes `encode` will make of it.
pub(crate) fn encoded_bytes(batch: &RecordBatch) -> usize {
    const PER_COLUMN: usize = 256;
    batch
        .columns()
        .iter()
        .map(|column| column.to_data().get_slice_memory_size().unwrap_or(0) + PER_COLUMN)
        .sum()
}

/// How many values its columns hold, nulls not counted.
pub(crate) fn values(batch: &RecordBatch) -> usize {
    let columns = batch.columns().iter();
    columns.map(|column| column.len() - column.null_count()).sum()
}

/// An Arrow IPC stream, aligned as buffers in a guest are.
pub(crate) fn encode(batch: &RecordBatch, capacity: usize) -> Result<Vec<u8>, ArrowError> {
    let options = IpcWriteOptions::try_new(8, false, MetadataVersion::V5)?;
    let out = Vec::with_capacity(capacity + 1024);
    let mut writer = StreamWriter::try_new_with_options(out, batch.schema_ref(), options)?;
    writer.write(batch)?;
    writer.into_inner()
}

/// `batch` with the columns of `changed` in place of its own of the same names, or behind them.
pub(crate) fn replace(batch: &RecordBatch, changed: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let mut fields: Vec<Arc<Field>> = batch.schema_ref().fields().iter().cloned().collect();
    let mut columns = batch.columns().to_vec();
    for (field, column) in changed.schema_ref().fields().iter().zip(changed.columns()) {
        match batch.schema_ref().index_of(field.name()) {
            Ok(index) => {
                if fields[index].data_type() != column.data_type() {
                    fields[index] = Arc::new(
                        fields[index]
                            .as_ref()
                            .clone()
                            .with_data_type(column.data_type().clone()),
                    );
                }
                columns[index] = column.clone();
            }
            Err(_) => {
                fields.push(Arc::new(Field::new(field.name(), column.data_type().clone(), true)));
                columns.push(column.clone());
            }
        }
    }
    rebuild(batch, fields, columns, batch.num_rows())
}

/// The rows whose bit is set.
pub(crate) fn filter(batch: &RecordBatch, keep: &BooleanBuffer) -> Result<RecordBatch, ArrowError> {
    let predicate = BooleanArray::new(keep.clone(), None);
    if batch.num_columns() == 0 {
        let options = RecordBatchOptions::new().with_row_count(Some(keep.count_set_bits()));
        return RecordBatch::try_new_with_options(batch.schema(), Vec::new(), &options);
    }
    arrow_select::filter::filter_record_batch(batch, &predicate)
}

/// `batch` with all rows marked as set aside.
pub(crate) fn quarantine(batch: &RecordBatch, plugin: &str, reason: &str) -> Result<RecordBatch, ArrowError> {
    let rows = batch.num_rows();
    let constant = |text: &str| -> Result<ArrayRef, ArrowError> {
        let keys = arrow_array::UInt16Array::from(vec![0u16; rows]);
        let values = Arc::new(StringArray::from(vec![text]));
        Ok(Arc::new(arrow_array::DictionaryArray::<UInt16Type>::try_new(
            keys, values,
        )?))
    };
    let by = constant(plugin)?;
    let reason = constant(reason)?;
    let schema = Schema::new(vec![
        Field::new(QUARANTINED_BY, by.data_type().clone(), true),
        Field::new(QUARANTINE_REASON, reason.data_type().clone(), true),
    ]);
    replace(batch, &RecordBatch::try_new(Arc::new(schema), vec![by, reason])?)
}

/// One batch of several whose columns may differ: what a part lacks is null, a text column with different dictionaries
/// loses its dictionary.
pub(crate) fn stack(parts: &[RecordBatch]) -> Result<RecordBatch, ArrowError> {
    let [first, others @ ..] = parts else {
        return Ok(RecordBatch::new_empty(Arc::new(Schema::empty())));
    };
    if others.is_empty() {
        return Ok(first.clone());
    }
    let mut fields: Vec<Arc<Field>> = Vec::new();
    for part in parts {
        for field in part.schema_ref().fields() {
            if !fields.iter().any(|f| f.name() == field.name()) {
                fields.push(field.clone());
            }
        }
    }
    let mut columns = Vec::with_capacity(fields.len());
    for field in &mut fields {
        let pieces: Vec<Option<&ArrayRef>> = parts.iter().map(|part| part.column_by_name(field.name())).collect();
        let lengths = parts.iter().map(RecordBatch::num_rows);
        let column = stack_column(&pieces, lengths)?;
        *field = Arc::new(
            field
                .as_ref()
                .clone()
                .with_data_type(column.data_type().clone())
                .with_nullable(field.is_nullable() || pieces.iter().any(Option::is_none)),
        );
        columns.push(column);
    }
    let rows = parts.iter().map(RecordBatch::num_rows).sum();
    rebuild(first, fields, columns, rows)
}

/// The pieces of one column after one another; a missing piece is null.
pub(crate) fn stack_column(
    pieces: &[Option<&ArrayRef>],
    lengths: impl Iterator<Item = usize>,
) -> Result<ArrayRef, ArrowError> {
    let mut types = pieces.iter().flatten().map(|piece| piece.data_type());
    let first = types.next().cloned().unwrap_or(DataType::Null);
    let common = if types.all(|other| *other == first) {
        first
    } else {
        plain(&first)
    };
    let arrays = pieces
        .iter()
        .zip(lengths)
        .map(|(piece, rows)| match piece {
            None => Ok(new_null_array(&common, rows)),
            Some(piece) if *piece.data_type() == common => Ok((*piece).clone()),
            Some(piece) => arrow_cast::cast(piece, &common),
        })
        .collect::<Result<Vec<_>, _>>()?;
    let arrays: Vec<&dyn Array> = arrays.iter().map(|array| array.as_ref()).collect();
    arrow_select::concat::concat(&arrays)
}

/// The rows in the order of `indices`.
pub(crate) fn take(batch: &RecordBatch, indices: Vec<u32>) -> Result<RecordBatch, ArrowError> {
    arrow_select::take::take_record_batch(batch, &UInt32Array::from(indices))
}

/// The type without its dictionary.
pub(crate) fn plain(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Dictionary(_, values) => values.as_ref().clone(),
        other => other.clone(),
    }
}

fn rebuild(
    like: &RecordBatch,
    fields: Vec<Arc<Field>>,
    columns: Vec<ArrayRef>,
    rows: usize,
) -> Result<RecordBatch, ArrowError> {
    let schema: SchemaRef = Arc::new(Schema::new_with_metadata(fields, like.schema_ref().metadata().clone()));
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(schema, columns, &options)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use arrow_array::Int64Array;
    use arrow_array::cast::AsArray;

    fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap()
    }

    #[test]
    fn parts_with_different_columns_stack() {
        let dictionary: arrow_array::DictionaryArray<UInt16Type> = ["x", "y"].into_iter().collect();
        let a = batch(vec![
            ("t", Arc::new(dictionary)),
            ("n", Arc::new(Int64Array::from(vec![1, 2]))),
        ]);
        let b = batch(vec![
            ("t", Arc::new(StringArray::from(vec!["z"]))),
            ("m", Arc::new(Int64Array::from(vec![3]))),
        ]);
        let both = stack(&[a, b]).unwrap();
        assert_eq!(both.num_rows(), 3);
        let text: &StringArray = both.column_by_name("t").unwrap().as_string();
        assert_eq!(text.iter().flatten().collect::<Vec<_>>(), ["x", "y", "z"]);
        assert_eq!(both.column_by_name("n").unwrap().null_count(), 1);
        assert_eq!(both.column_by_name("m").unwrap().null_count(), 2);
    }

    #[test]
    fn quarantine_marks_every_row() {
        let marked = quarantine(&batch(vec![("n", Arc::new(Int64Array::from(vec![1, 2])))]), "p", "r").unwrap();
        for (name, text) in [(QUARANTINED_BY, "p"), (QUARANTINE_REASON, "r")] {
            let column = arrow_cast::cast(marked.column_by_name(name).unwrap(), &DataType::Utf8);
            let column = column.unwrap();
            let texts: Vec<&str> = column.as_string::<i32>().iter().flatten().collect();
            assert_eq!(texts, [text, text]);
        }
    }
}
