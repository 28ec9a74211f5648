//! Columns without the values of some rows, built anew so that nothing of what was taken away stays in their buffers.

use std::sync::Arc;

use arrow_array::builder::{BinaryBuilder, StringBuilder};
use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, ListArray, StructArray};
use arrow_buffer::OffsetBuffer;
use arrow_schema::DataType;

/// A column of bytes without those of some rows.
pub(crate) fn bytes_without(
    column: Option<&ArrayRef>,
    rows: usize,
    gone: impl Fn(usize) -> bool,
) -> Result<ArrayRef, String> {
    let old = match column {
        None => None,
        Some(column) => Some(
            column
                .as_binary_opt::<i32>()
                .ok_or("a column of type `y` that is not bytes")?,
        ),
    };
    let mut new = BinaryBuilder::new();
    for row in 0..rows {
        new.append_option(
            old.filter(|old| old.is_valid(row) && !gone(row))
                .map(|old| old.value(row)),
        );
    }
    Ok(Arc::new(new.finish()))
}

/// Lists of rare attributes without the entries of these rows and keys, which come ordered by row.
pub(crate) fn without(column: &ArrayRef, gone: &[(usize, &str)]) -> Result<ArrayRef, String> {
    let wrong = || "rare attributes are not a list of key, type and text".to_owned();
    let lists = column.as_list_opt::<i32>().ok_or_else(wrong)?;
    let entries = lists.values().as_struct_opt().ok_or_else(wrong)?;
    let keys = entries
        .column_by_name("key")
        .and_then(|keys| keys.as_string_opt::<i32>())
        .ok_or_else(wrong)?;
    let offsets = lists.value_offsets();
    let mut kept: Vec<usize> = Vec::with_capacity(entries.len());
    let mut lengths = Vec::with_capacity(lists.len());
    for row in 0..lists.len() {
        let first = gone.partition_point(|(at, _)| *at < row);
        let here = &gone[first..][..gone[first..].partition_point(|(at, _)| *at == row)];
        let before = kept.len();
        if lists.is_valid(row) {
            let entries = offsets[row] as usize..offsets[row + 1] as usize;
            kept.extend(entries.filter(|entry| !here.iter().any(|(_, key)| *key == keys.value(*entry))));
        }
        lengths.push(kept.len() - before);
    }
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(entries.num_columns());
    for column in entries.columns() {
        let texts = column.as_string_opt::<i32>().ok_or_else(wrong)?;
        let mut new = StringBuilder::new();
        kept.iter()
            .for_each(|entry| new.append_option(texts.is_valid(*entry).then(|| texts.value(*entry))));
        columns.push(Arc::new(new.finish()));
    }
    let entries = StructArray::try_new(entries.fields().clone(), columns, None).map_err(|e| e.to_string())?;
    let field = match lists.data_type() {
        DataType::List(field) => field.clone(),
        _ => return Err(wrong()),
    };
    let nulls = lists.nulls().cloned();
    ListArray::try_new(field, OffsetBuffer::from_lengths(lengths), Arc::new(entries), nulls)
        .map(|lists| Arc::new(lists) as ArrayRef)
        .map_err(|e| e.to_string())
}
