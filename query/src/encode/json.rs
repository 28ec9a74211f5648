//! The JSON answer: `{"columns":[…],"rows":[[…]],"completeness":{…},"stats":{…}}`.

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use arrow::error::ArrowError;
use serde::Serialize;

use super::value;

/// What the query cost.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Stats {
    pub(crate) rows: u64,
    pub(crate) elapsed_ms: u64,
    /// There were more rows than `max_rows` asked for.
    pub(crate) truncated: bool,
}

/// Up to the opening of `rows`.
pub(crate) fn begin(schema: &Schema, out: &mut String) {
    out.push_str("{\"columns\":[");
    for (at, field) in schema.fields().iter().enumerate() {
        out.push_str(if at > 0 { ",{\"name\":" } else { "{\"name\":" });
        value::write_text(field.name(), out);
        out.push_str(",\"type\":");
        value::write_text(&value::type_name(field.data_type()), out);
        out.push('}');
    }
    out.push_str("],\"rows\":[");
}

/// The rows of one batch; `first` as long as none has been written.
pub(crate) fn rows(batch: &RecordBatch, first: bool, out: &mut String) -> Result<(), ArrowError> {
    for row in 0..batch.num_rows() {
        if !(first && row == 0) {
            out.push(',');
        }
        out.push('[');
        for (at, column) in batch.columns().iter().enumerate() {
            if at > 0 {
                out.push(',');
            }
            value::write(column.as_ref(), row, out)?;
        }
        out.push(']');
    }
    Ok(())
}

/// From the closing of `rows` on.
pub(crate) fn end(completeness: &impl Serialize, stats: &Stats, out: &mut String) -> Result<(), serde_json::Error> {
    out.push_str("],\"completeness\":");
    out.push_str(&serde_json::to_string(completeness)?);
    out.push_str(",\"stats\":");
    out.push_str(&serde_json::to_string(stats)?);
    out.push_str("}\n");
    Ok(())
}
