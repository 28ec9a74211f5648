//! RFC 4180 with a header line. Null is nothing at all, empty text is `""`; lists and maps are JSON.

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use arrow::error::ArrowError;

use super::{Encoder, value};

pub(crate) struct Csv;

impl Encoder for Csv {
    fn begin(&mut self, schema: &Schema, out: &mut Vec<u8>) -> Result<(), ArrowError> {
        for (at, field) in schema.fields().iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            cell(field.name(), out);
        }
        out.extend_from_slice(b"\r\n");
        Ok(())
    }

    fn batch(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<(), ArrowError> {
        let mut text = String::new();
        for row in 0..batch.num_rows() {
            for (at, column) in batch.columns().iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                text.clear();
                if value::write_cell(column.as_ref(), row, &mut text)? {
                    cell(&text, out);
                }
            }
            out.extend_from_slice(b"\r\n");
        }
        Ok(())
    }

    fn end(&mut self, _: &mut Vec<u8>) -> Result<(), ArrowError> {
        Ok(())
    }
}

fn cell(text: &str, out: &mut Vec<u8>) {
    let plain = !text.is_empty() && !text.contains([',', '"', '\r', '\n']);
    if plain {
        out.extend_from_slice(text.as_bytes());
        return;
    }
    out.push(b'"');
    for byte in text.bytes() {
        if byte == b'"' {
            out.push(b'"');
        }
        out.push(byte);
    }
    out.push(b'"');
}
