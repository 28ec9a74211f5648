//! Quarantined rows on their way back: each is marked with the place that it comes from.

use std::collections::BTreeSet;
use std::io::Cursor;
use std::sync::Arc;

use anyhow::{Context, Result};
use arrow::array::builder::{MapBuilder, MapFieldNames, StringBuilder};
use arrow::array::cast::AsArray;
use arrow::array::types::Int64Type;
use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, StringArray};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::ipc::reader::StreamReader;

/// The attribute that tells where a resubmitted event comes from.
pub(super) const MARKER: &str = "sluice.resubmitted_from";

/// The batches of an Arrow stream.
pub(super) fn read(stream: &[u8]) -> Result<Vec<RecordBatch>> {
    let reader = StreamReader::try_new(Cursor::new(stream), None).context("the answer is no Arrow stream")?;
    reader.collect::<Result<_, _>>().context("the answer broke off")
}

/// Those whose place is not in `done`, at most so many, marked.
pub(super) fn marked(batches: &[RecordBatch], done: &BTreeSet<String>, limit: usize) -> Result<Vec<RecordBatch>> {
    let (mut out, mut left) = (Vec::new(), limit);
    for batch in batches {
        let places = places(batch)?;
        let mask: BooleanArray = places
            .iter()
            .map(|place| {
                let wanted = left > 0 && !done.contains(place);
                left -= usize::from(wanted);
                Some(wanted)
            })
            .collect();
        let places: Vec<&String> = places
            .iter()
            .zip(&mask)
            .filter(|(_, wanted)| *wanted == Some(true))
            .map(|(p, _)| p)
            .collect();
        let rows = filter_record_batch(batch, &mask).context("rows")?;
        if rows.num_rows() > 0 {
            out.push(mark(&rows, &places)?);
        }
    }
    Ok(out)
}

/// Partition, offset and row: no two rows share them.
fn places(batch: &RecordBatch) -> Result<Vec<String>> {
    let numbers = |name: &str| -> Result<_> {
        let column = batch
            .column_by_name(name)
            .with_context(|| format!("the answer has no column {name}"))?;
        Ok(cast(column, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
    };
    let (partition, offset, row) = (numbers("partition")?, numbers("offset")?, numbers("row")?);
    let place = |at: usize| format!("{}/{}/{}", partition.value(at), offset.value(at), row.value(at));
    Ok((0..batch.num_rows()).map(place).collect())
}

fn mark(rows: &RecordBatch, places: &[&String]) -> Result<RecordBatch> {
    let at = rows
        .schema()
        .index_of("attrs")
        .context("the answer has no column attrs")?;
    let marked = marked_map(rows.column(at), places)?;
    let schema = rows.schema();
    let mut fields: Vec<Arc<Field>> = schema.fields().iter().cloned().collect();
    fields[at] = Arc::new(Field::new("attrs", marked.data_type().clone(), true));
    let mut columns = rows.columns().to_vec();
    columns[at] = marked;
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).context("rows")
}

/// The map with one entry more in each row; the mark of an earlier time gives way to the new one.
fn marked_map(column: &ArrayRef, places: &[&String]) -> Result<ArrayRef> {
    let map = column.as_map_opt().context("attrs is not a map")?;
    let text =
        |array: &ArrayRef| -> Result<StringArray> { Ok(cast(array, &DataType::Utf8)?.as_string::<i32>().clone()) };
    let (keys, values) = (text(map.keys())?, text(map.values())?);
    let names = MapFieldNames {
        entry: "key_value".to_owned(),
        key: "key".to_owned(),
        value: "value".to_owned(),
    };
    let mut out = MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new());
    for (row, place) in places.iter().enumerate() {
        let entries = match map.is_valid(row) {
            true => map.value_offsets()[row] as usize..map.value_offsets()[row + 1] as usize,
            false => 0..0,
        };
        for entry in entries.filter(|entry| keys.value(*entry) != MARKER) {
            out.keys().append_value(keys.value(entry));
            out.values()
                .append_option(values.is_valid(entry).then(|| values.value(entry)));
        }
        out.keys().append_value(MARKER);
        out.values().append_value(place);
        out.append(true).context("rows")?;
    }
    Ok(Arc::new(out.finish()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use arrow::array::{Int32Array, Int64Array};

    fn batch() -> RecordBatch {
        let mut attrs = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
        for pairs in [&[("a", "1"), (MARKER, "old")][..], &[], &[("b", "2")]] {
            for (key, value) in pairs {
                attrs.keys().append_value(key);
                attrs.values().append_value(value);
            }
            attrs.append(true).unwrap();
        }
        RecordBatch::try_from_iter([
            ("partition", Arc::new(Int64Array::from(vec![7; 3])) as ArrayRef),
            ("offset", Arc::new(Int64Array::from(vec![1, 2, 3]))),
            ("row", Arc::new(Int32Array::from(vec![0, 5, 9]))),
            ("attrs", Arc::new(attrs.finish())),
        ])
        .unwrap()
    }

    fn attrs(batch: &RecordBatch) -> Vec<Vec<(String, String)>> {
        let map = batch["attrs"].as_map();
        let text = |array: ArrayRef, at: usize| array.as_string::<i32>().value(at).to_owned();
        let row = |row: usize| {
            let entries = map.value(row);
            let pair = |at| (text(entries.column(0).clone(), at), text(entries.column(1).clone(), at));
            (0..entries.len()).map(pair).collect()
        };
        (0..batch.num_rows()).map(row).collect()
    }

    #[test]
    fn rows_are_marked_with_their_place_and_those_that_were_sent_are_passed_over() {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let all = marked(&[batch()], &BTreeSet::new(), 10).unwrap();
        assert_eq!(
            attrs(&all[0]),
            [
                vec![pair("a", "1"), pair(MARKER, "7/1/0")],
                vec![pair(MARKER, "7/2/5")],
                vec![pair("b", "2"), pair(MARKER, "7/3/9")]
            ]
        );
        let done = BTreeSet::from(["7/1/0".to_owned()]);
        let rest = marked(&[batch(), batch()], &done, 3).unwrap();
        let count = |batch: &RecordBatch| batch.num_rows();
        assert_eq!(rest.iter().map(count).collect::<Vec<_>>(), [2, 1]);
        assert!(marked(&[batch()], &done, 0).unwrap().is_empty());
    }
}
