//! Stored rows back to OTLP.

mod groups;
mod points;
mod records;
mod rows;
mod values;

use arrow_array::RecordBatch;

use crate::Signal;
use groups::Groups;
use rows::Rows;

/// Why rows do not turn back into a request.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    #[error("row {row}, column {column}: {what}")]
    Value {
        row: usize,
        column: &'static str,
        what: String,
    },
    #[error("column {column} has a type that cannot be read")]
    Column {
        column: &'static str,
        #[source]
        source: arrow_schema::ArrowError,
    },
}

/// One export request with the rows of `signal`, as protobuf; rows of other signals are passed over. The rows have columns of
/// `events::schema()`; a missing one reads as null. Neighbours of the same resource, scope and metric share one message.
pub fn encode_rows(signal: Signal, rows: &RecordBatch) -> Result<Vec<u8>, EncodeError> {
    let rows = Rows::new(rows)?;
    let mut groups = Groups::default();
    for row in (0..rows.len()).filter(|row| rows.signal.get(*row) == Some(signal.as_str())) {
        let duplicates = rows.duplicates(row)?;
        groups.enter_resource(rows.resource(row, &duplicates)?);
        groups.enter_scope(rows.scope(row, &duplicates)?);
        match signal {
            Signal::Log => records::write_log(groups.records(), &rows, row, &duplicates)?,
            Signal::Span => records::write_span(groups.records(), &rows, row, &duplicates)?,
            Signal::Metric => {
                groups.enter_metric(points::metric(&rows, row)?);
                points::write_point(groups.points(), &rows, row, &duplicates)?;
            }
        }
    }
    Ok(groups.finish())
}
