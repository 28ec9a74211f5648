//! The one row that every log record leaves behind, whatever became of it.

use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, Int32Array, RecordBatch, TimestampNanosecondArray, UInt64Array};
use arrow_schema::ArrowError;

use super::columns::Columns;
use super::maps::MapBuilder;
use super::{LEDGER_SIGNAL, Origin};
use crate::counts::Counts;

/// What became of a log record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    Accepted,
    Duplicate,
    Quarantined,
    Tombstone,
    Report,
}

impl Outcome {
    /// The text of the column `name`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Duplicate => "duplicate",
            Self::Quarantined => "quarantined",
            Self::Tombstone => "tombstone",
            Self::Report => "report",
        }
    }
}

/// The ledger row of a log record; `row` is -1.
pub fn ledger_row(origin: &Origin<'_>, outcome: Outcome, counts: &Counts, detail: &str) -> RecordBatch {
    build(origin, outcome, counts, detail).expect("one row with the types of the schema, text far below 2 GiB")
}

fn build(origin: &Origin<'_>, outcome: Outcome, counts: &Counts, detail: &str) -> Result<RecordBatch, ArrowError> {
    let mut columns = Columns::new(1);
    columns.put_origin(origin);
    columns.put("row", Arc::new(Int32Array::from_value(-1, 1)));
    columns.put_text("signal", LEDGER_SIGNAL);
    columns.put_text("name", outcome.as_str());
    if !detail.is_empty() {
        columns.put_text("body", detail);
    }
    let time = TimestampNanosecondArray::from_value(origin.ingested_at_us.saturating_mul(1000), 1).with_timezone("UTC");
    columns.put("time", Arc::new(time));
    columns.put("count", Arc::new(UInt64Array::from_value(counts.accepted, 1)));
    columns.put("weight", Arc::new(Float64Array::from_value(1.0, 1)));
    columns.put("attrs", counts_map(counts)?);
    for name in ["attr_types", "resource", "resource_types", "scope", "scope_types"] {
        let mut empty = MapBuilder::new(1);
        empty.end_row();
        columns.put(name, empty.finish()?);
    }
    columns.finish()
}

fn counts_map(counts: &Counts) -> Result<ArrayRef, ArrowError> {
    let mut map = MapBuilder::new(1);
    let sums = [
        ("accepted", counts.accepted),
        ("stored", counts.stored),
        ("quarantined", counts.quarantined),
        ("damaged", counts.damaged),
    ];
    for (name, rows) in sums {
        map.put(name, &rows.to_string());
    }
    for (list, entries) in [("dropped", &counts.dropped), ("refused", &counts.refused)] {
        for entry in entries {
            map.put(
                &format!("{list}/{}/{}", entry.plugin, entry.reason),
                &entry.rows.to_string(),
            );
        }
    }
    map.end_row();
    map.finish()
}
