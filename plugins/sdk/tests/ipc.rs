//! What the small reader and writer of streams make is what the general ones make.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use arrow_array::builder::{ListBuilder, StringBuilder, StructBuilder};
use arrow_array::types::{UInt16Type, UInt32Type};
use arrow_array::*;
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{DataType, Field, Schema};

fn batch(rows: usize) -> RecordBatch {
    let text = |row: usize| (row % 3 != 1).then(|| format!("text {row}"));
    let number = |row: usize| (row % 4 != 2).then_some(row as i64);
    let mut rest = ListBuilder::new(StructBuilder::from_fields(
        vec![
            Field::new("key", DataType::Utf8, false),
            Field::new("text", DataType::Utf8, false),
        ],
        0,
    ));
    for row in 0..rows {
        for entry in 0..row % 3 {
            for field in 0..2 {
                let builder = rest.values().field_builder::<StringBuilder>(field).unwrap();
                builder.append_value(format!("{field} {entry}"));
            }
            rest.values().append(true);
        }
        rest.append(row % 5 != 4);
    }
    let small = |row: usize| ["a", "b"][row % 2];
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("utf8", Arc::new((0..rows).map(text).collect::<StringArray>())),
        (
            "dict16",
            Arc::new((0..rows).map(small).collect::<DictionaryArray<UInt16Type>>()),
        ),
        ("i64", Arc::new((0..rows).map(number).collect::<Int64Array>())),
        (
            "i32",
            Arc::new(Int32Array::from_iter_values((0..rows).map(|row| row as i32))),
        ),
        (
            "u32",
            Arc::new(UInt32Array::from_iter_values((0..rows).map(|row| row as u32))),
        ),
        (
            "u64",
            Arc::new(UInt64Array::from_iter_values((0..rows).map(|row| row as u64))),
        ),
        (
            "f64",
            Arc::new(Float64Array::from_iter_values((0..rows).map(|row| row as f64))),
        ),
        (
            "bool",
            Arc::new(
                (0..rows)
                    .map(|row| (row % 7 != 0).then_some(row % 2 == 0))
                    .collect::<BooleanArray>(),
            ),
        ),
        (
            "binary",
            Arc::new(
                (0..rows)
                    .map(|row| text(row).map(String::into_bytes))
                    .collect::<BinaryArray>(),
            ),
        ),
        (
            "dict32",
            Arc::new(
                (0..rows)
                    .map(|row| (row % 2 == 0).then_some("x"))
                    .collect::<DictionaryArray<UInt32Type>>(),
            ),
        ),
        (
            "fixed",
            Arc::new(FixedSizeBinaryArray::new(16, vec![7u8; 16 * rows].into(), None)),
        ),
        ("rest", Arc::new(rest.finish())),
    ];
    let columns = columns.into_iter().filter(|(name, _)| rows > 0 || *name != "fixed");
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, values)| (name, values, true))).unwrap()
}

fn general(batch: &RecordBatch) -> Vec<u8> {
    let mut writer = StreamWriter::try_new(Vec::new(), batch.schema_ref()).unwrap();
    writer.write(batch).unwrap();
    writer.into_inner().unwrap()
}

#[test]
fn reader_and_writer_agree_with_the_general_ones() {
    let whole = batch(100);
    let empty = RecordBatch::try_new_with_options(
        Arc::new(Schema::empty()),
        Vec::new(),
        &RecordBatchOptions::new().with_row_count(Some(9)),
    )
    .unwrap();
    for batch in [
        batch(0),
        batch(1),
        whole.clone(),
        whole.slice(3, 50),
        whole.slice(99, 1),
        empty,
    ] {
        assert_eq!(sluice_plugin::ipc::read(general(&batch)).unwrap(), batch);
        let own = sluice_plugin::ipc::write(batch.schema_ref(), batch.columns(), batch.num_rows()).unwrap();
        assert_eq!(sluice_plugin::ipc::read(own.clone()).unwrap(), batch);
        let read = StreamReader::try_new(&own[..], None).unwrap().next().unwrap().unwrap();
        assert_eq!(read, batch);
    }
}

#[test]
fn bytes_cut_anywhere_are_an_error() {
    let bytes = general(&batch(20));
    for length in 0..bytes.len() - 8 {
        assert!(sluice_plugin::ipc::read(bytes[..length].to_vec()).is_err(), "{length}");
    }
}
