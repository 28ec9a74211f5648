//! Names and types of the table's columns, and putting rows together from them.

use std::iter::repeat_n;
use std::sync::{Arc, LazyLock};

use arrow_array::{
    ArrayRef, Int64Array, RecordBatch, RecordBatchOptions, StringArray, TimestampMicrosecondArray, new_null_array,
};
use arrow_schema::{ArrowError, DataType, Field, Fields, Schema, SchemaRef, TimeUnit};

use super::Origin;
use crate::layout::core_columns;

/// Text to text, as Parquet and Delta name the members.
pub(super) fn map_entries() -> Fields {
    Fields::from(vec![
        Field::new("key", DataType::Utf8, false),
        Field::new("value", DataType::Utf8, true),
    ])
}

pub(super) fn map_field() -> Field {
    Field::new("key_value", DataType::Struct(map_entries()), false)
}

/// Columns beside the core columns, with the core column that they follow.
fn added() -> Vec<(&'static str, Vec<(&'static str, DataType)>)> {
    let text = || DataType::Utf8;
    let map = || DataType::Map(Arc::new(map_field()), false);
    vec![
        ("", vec![("tenant", text()), ("node", text())]),
        (
            "duration_ns",
            vec![
                ("service", text()),
                ("host", text()),
                ("resource", map()),
                ("resource_types", map()),
            ],
        ),
        ("entity_refs", vec![("scope", map()), ("scope_types", map())]),
        (
            "scope_dropped_attributes",
            vec![("attrs", map()), ("attr_types", map())],
        ),
        (
            "exemplars",
            vec![
                ("ai_system", text()),
                ("ai_model", text()),
                ("ai_operation", text()),
                ("ai_input_tokens", DataType::Int64),
                ("ai_output_tokens", DataType::Int64),
                ("ai_cost", DataType::Float64),
                ("gpu_utilization", DataType::Float64),
                ("gpu_memory_bytes", DataType::Int64),
            ],
        ),
        (
            "quarantine_reason",
            vec![
                ("stream", text()),
                ("epoch", text()),
                ("seq", DataType::Int64),
                ("partition", DataType::Int64),
                ("offset", DataType::Int64),
                ("row", DataType::Int32),
                (
                    "ingested_at",
                    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
                ),
            ],
        ),
    ]
}

/// The type that a core column has in the table.
fn table_type(name: &str, kind: DataType) -> DataType {
    match name {
        "time" | "observed_time" | "start_time" => DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())),
        "trace_id" | "span_id" | "parent_span_id" => DataType::Utf8,
        _ => kind,
    }
}

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let mut fields: Vec<Field> = Vec::new();
    let mut added = added();
    let mut add_after = |name: &str, fields: &mut Vec<Field>| {
        for (_, columns) in added.extract_if(.., |(after, _)| *after == name) {
            fields.extend(columns.into_iter().map(|(name, kind)| Field::new(name, kind, true)));
        }
    };
    add_after("", &mut fields);
    for (name, kind) in core_columns() {
        fields.push(Field::new(name, table_type(name, kind), true));
        add_after(name, &mut fields);
    }
    Arc::new(Schema::new(fields))
});

/// The wide table with all its columns. All are nullable, as the stores that hold them want it; `signal`, `time`, the maps,
/// `weight` and what tells where a row came from never are null.
pub fn schema() -> SchemaRef {
    Arc::clone(&SCHEMA)
}

/// Columns of table rows in the making; what is not put is null.
pub(super) struct Columns {
    rows: usize,
    arrays: Vec<Option<ArrayRef>>,
}

impl Columns {
    pub(super) fn new(rows: usize) -> Self {
        Self {
            rows,
            arrays: vec![None; SCHEMA.fields().len()],
        }
    }

    /// Names that the table does not have are passed over: columns of a newer edge.
    pub(super) fn put(&mut self, name: &str, array: ArrayRef) {
        if let Ok(index) = SCHEMA.index_of(name) {
            self.arrays[index] = Some(array);
        }
    }

    pub(super) fn put_text(&mut self, name: &str, text: &str) {
        self.put(name, Arc::new(StringArray::from_iter_values(repeat_n(text, self.rows))));
    }

    fn put_int(&mut self, name: &str, int: i64) {
        self.put(name, Arc::new(Int64Array::from_value(int, self.rows)));
    }

    /// Where the rows came from; all but `row`.
    pub(super) fn put_origin(&mut self, origin: &Origin<'_>) {
        let id = origin.id;
        self.put_text("tenant", id.stream.tenant.as_str());
        self.put_text("node", id.stream.node.as_str());
        self.put_text("stream", &id.stream.to_string());
        self.put_text("epoch", &id.epoch.to_string());
        self.put_int("seq", id.seq as i64);
        self.put_int("partition", origin.partition.as_i64());
        self.put_int("offset", origin.offset as i64);
        let at = TimestampMicrosecondArray::from_value(origin.ingested_at_us, self.rows).with_timezone("UTC");
        self.put("ingested_at", Arc::new(at));
    }

    pub(super) fn finish(self) -> Result<RecordBatch, ArrowError> {
        let columns = self
            .arrays
            .into_iter()
            .zip(SCHEMA.fields())
            .map(|(array, field)| array.unwrap_or_else(|| new_null_array(field.data_type(), self.rows)))
            .collect();
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        RecordBatch::try_new_with_options(schema(), columns, &options)
    }
}
