//! One JSON object per row and line.

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use arrow::error::ArrowError;

use super::{Encoder, value};

#[derive(Default)]
pub(crate) struct Ndjson {
    /// `"name":` of each column, with the comma before it.
    keys: Vec<String>,
}

impl Encoder for Ndjson {
    fn begin(&mut self, schema: &Schema, _: &mut Vec<u8>) -> Result<(), ArrowError> {
        self.keys = schema
            .fields()
            .iter()
            .enumerate()
            .map(|(at, field)| {
                let mut key = String::from(if at > 0 { "," } else { "" });
                value::write_text(field.name(), &mut key);
                key.push(':');
                key
            })
            .collect();
        Ok(())
    }

    fn batch(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<(), ArrowError> {
        let mut line = String::new();
        for row in 0..batch.num_rows() {
            line.clear();
            line.push('{');
            for (key, column) in self.keys.iter().zip(batch.columns()) {
                line.push_str(key);
                value::write(column.as_ref(), row, &mut line)?;
            }
            line.push_str("}\n");
            out.extend_from_slice(line.as_bytes());
        }
        Ok(())
    }

    fn end(&mut self, _: &mut Vec<u8>) -> Result<(), ArrowError> {
        Ok(())
    }
}
