//! The table `plugins`: what every edge last said of its plugins, one row per plugin and version.

use std::sync::Arc;

use arrow::array::builder::{Int64Builder, MapBuilder, StringBuilder};
use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use serde_json::Value;

use super::fold::{Fold, Key};
use crate::rows::{self, RowsError};

/// Entries of one report; a chain has a few, each with two or three versions at most.
const MAX_PLUGINS: usize = 64;
/// Reasons of one plugin; an edge sends at most 256 of all its plugins.
const MAX_REASONS: usize = 256;
/// Bytes of a text that an edge says.
const MAX_TEXT_BYTES: usize = 512;

/// What an edge says of one version of a plugin, counted since the edge loaded it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Said {
    name: String,
    version: String,
    kind: Option<String>,
    state: Option<String>,
    enabled: Option<bool>,
    rows_in: u64,
    rows_out: u64,
    dropped: Vec<(String, u64)>,
    quarantined: u64,
    refused: u64,
    faults: u64,
    last_fault: Option<String>,
    cpu_ns: u64,
    memory_bytes: u64,
    breaker: Option<String>,
    shadow: Option<String>,
}

/// Takes the list of plugins out of a report. What is not understood is passed over: an edge may be older or newer.
pub(super) fn said(report: &Value) -> Vec<Said> {
    let entries = report.get("plugins").and_then(Value::as_array);
    let entries = entries.map_or(&[][..], Vec::as_slice);
    entries.iter().take(MAX_PLUGINS).filter_map(entry).collect()
}

fn entry(value: &Value) -> Option<Said> {
    let text = |key: &str| value.get(key).and_then(Value::as_str).map(cut);
    let number = |key: &str| value.get(key).and_then(Value::as_u64).unwrap_or(0);
    let dropped = value.get("dropped").and_then(Value::as_array);
    let reason = |pair: &Value| Some((cut(pair.get(0)?.as_str()?), pair.get(1)?.as_u64()?));
    Some(Said {
        name: text("name")?,
        version: text("version").unwrap_or_default(),
        kind: text("kind"),
        state: text("state"),
        enabled: value.get("enabled").and_then(Value::as_bool),
        rows_in: number("rows_in"),
        rows_out: number("rows_out"),
        dropped: dropped
            .into_iter()
            .flatten()
            .take(MAX_REASONS)
            .filter_map(reason)
            .collect(),
        quarantined: number("quarantined"),
        refused: number("refused"),
        faults: number("faults"),
        last_fault: text("last_fault"),
        cpu_ns: number("cpu_ns"),
        memory_bytes: number("memory_bytes"),
        breaker: text("breaker"),
        shadow: value
            .get("shadow")
            .filter(|shadow| !shadow.is_null())
            .map(|shadow| shadow.to_string())
            .filter(|shadow| shadow.len() <= 16 * MAX_TEXT_BYTES),
    })
}

fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_TEXT_BYTES)].to_owned()
}

/// The columns of `plugins`; TABLES.md says what they mean.
pub(super) fn schema() -> SchemaRef {
    let mut fields = vec![
        Field::new("tenant", DataType::Utf8, true),
        Field::new("node", DataType::Utf8, true),
        Field::new("stream", DataType::Utf8, true),
        Field::new("epoch", DataType::Utf8, true),
        Field::new(
            "reported_at",
            DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            true,
        ),
        Field::new("plugin", DataType::Utf8, true),
        Field::new("version", DataType::Utf8, true),
        Field::new("kind", DataType::Utf8, true),
        Field::new("state", DataType::Utf8, true),
        Field::new("enabled", DataType::Boolean, true),
    ];
    for number in ["rows_in", "rows_out", "dropped", "quarantined", "refused", "faults"] {
        fields.push(Field::new(number, DataType::Int64, true));
    }
    fields.extend([
        Field::new("dropped_by", reasons().finish().data_type().clone(), true),
        Field::new("last_fault", DataType::Utf8, true),
        Field::new("cpu_ns", DataType::Int64, true),
        Field::new("cpu_us_per_1000_rows", DataType::Float64, true),
        Field::new("memory_bytes", DataType::Int64, true),
        Field::new("breaker", DataType::Utf8, true),
        Field::new("shadow", DataType::Utf8, true),
    ]);
    Arc::new(Schema::new(fields))
}

fn reasons() -> Reasons {
    Reasons(MapBuilder::new(None, StringBuilder::new(), Int64Builder::new()))
}

/// The map of rows by reason.
struct Reasons(MapBuilder<StringBuilder, Int64Builder>);

impl Reasons {
    fn append(&mut self, dropped: &[(String, u64)]) -> Result<(), RowsError> {
        for (reason, rows) in dropped {
            self.0.keys().append_value(reason);
            self.0.values().append_value(rows::signed(*rows));
        }
        self.0.append(true).map_err(|error| RowsError::Arrow(error.to_string()))
    }

    fn finish(mut self) -> ArrayRef {
        Arc::new(self.0.finish())
    }
}

/// The rows of the table, of one tenant or of all.
pub(super) fn rows(fold: &Fold, tenant: Option<&str>) -> Result<RecordBatch, RowsError> {
    let heard: Vec<_> = fold
        .reports()
        .filter(|(key, _)| tenant.is_none_or(|tenant| tenant == key.tenant))
        .flat_map(|(key, report)| report.plugins.iter().map(move |said| (key, report, said)))
        .collect();
    let whose = |of: fn(&Key) -> &String| -> ArrayRef {
        let values = heard.iter().map(|(key, ..)| Some(of(key)));
        Arc::new(values.collect::<StringArray>())
    };
    let text = |of: fn(&Said) -> Option<&String>| -> ArrayRef {
        let values = heard.iter().map(|(.., said)| of(said));
        Arc::new(values.collect::<StringArray>())
    };
    let int = |of: fn(&Said) -> u64| -> ArrayRef {
        let values = heard.iter().map(|(.., said)| Some(rows::signed(of(said))));
        Arc::new(values.collect::<Int64Array>())
    };
    let mut by = reasons();
    for (.., said) in &heard {
        by.append(&said.dropped)?;
    }
    let cost = |said: &Said| (said.rows_in > 0).then(|| said.cpu_ns as f64 / said.rows_in as f64);
    let epochs = heard.iter().map(|(_, report, _)| Some(report.epoch.to_string()));
    let times = heard.iter().map(|(_, report, _)| Some(report.at_us));
    let columns = vec![
        whose(|key| &key.tenant),
        whose(|key| &key.node),
        whose(|key| &key.stream),
        Arc::new(epochs.collect::<StringArray>()) as ArrayRef,
        Arc::new(times.collect::<TimestampMicrosecondArray>().with_timezone("UTC")),
        text(|said| Some(&said.name)),
        text(|said| Some(&said.version)),
        text(|said| said.kind.as_ref()),
        text(|said| said.state.as_ref()),
        Arc::new(heard.iter().map(|(.., said)| said.enabled).collect::<BooleanArray>()),
        int(|said| said.rows_in),
        int(|said| said.rows_out),
        int(|said| said.dropped.iter().fold(0, |sum, (_, rows)| sum.saturating_add(*rows))),
        int(|said| said.quarantined),
        int(|said| said.refused),
        int(|said| said.faults),
        by.finish(),
        text(|said| said.last_fault.as_ref()),
        int(|said| said.cpu_ns),
        // Nanoseconds a row are microseconds a thousand rows.
        Arc::new(heard.iter().map(|(.., said)| cost(said)).collect::<Float64Array>()),
        int(|said| said.memory_bytes),
        text(|said| said.breaker.as_ref()),
        text(|said| said.shadow.as_ref()),
    ];
    RecordBatch::try_new(schema(), columns).map_err(|error| RowsError::Arrow(error.to_string()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_understood_is_passed_over_and_what_is_too_long_is_cut() {
        let long = "é".repeat(MAX_TEXT_BYTES);
        let report = json!({"plugins": [
            {"name": "sample", "version": "1.0.0", "rows_in": 10, "dropped": [["sampled", 7], ["odd"], 3], "news": {"a": 1}},
            {"version": "1.0.0"},
            "nonsense",
            {"name": long, "cpu_ns": "many"},
        ]});
        let said = said(&report);
        assert_eq!(said.len(), 2);
        assert_eq!(
            (said[0].rows_in, &said[0].dropped),
            (10, &vec![("sampled".to_owned(), 7)])
        );
        assert_eq!((said[1].name.len(), said[1].cpu_ns), (MAX_TEXT_BYTES, 0));
        for odd in [json!(null), json!({"plugins": 7}), json!([])] {
            assert_eq!(super::said(&odd), Vec::new());
        }
    }
}
