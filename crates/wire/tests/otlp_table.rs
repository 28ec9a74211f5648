//! What people see in the table, and what no peer gets into it.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int32Type, Int64Type, TimestampNanosecondType, UInt16Type, UInt64Type};
use arrow_array::{Array, ArrayRef, BooleanArray, DictionaryArray, Int64Array, RecordBatch, StringArray, UInt16Array};
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{Field, Schema};
use sluice_wire::Signal;
use sluice_wire::counts::{Counts, Dropped};
use sluice_wire::events::{self, Origin, Outcome};
use sluice_wire::ids::{BatchId, Epoch, NodeId, Partition, StreamId, TenantId};
use sluice_wire::layout::{self, ConcatOptions, IpcLimits};
use sluice_wire::otlp::{DecodeLimits, Decoder, json_to_protobuf};

fn batch_id() -> BatchId {
    BatchId {
        stream: StreamId {
            tenant: TenantId::new("acme").unwrap(),
            node: NodeId::new("edge-1").unwrap(),
            spool: [7; 16],
        },
        epoch: Epoch {
            number: 17,
            random: 0x9f3c,
        },
        seq: 11,
    }
}

fn origin(id: &BatchId) -> Origin<'_> {
    Origin {
        id,
        partition: Partition {
            generation: 1,
            index: 2,
        },
        offset: 9,
        ingested_at_us: 1_700_000_000_000_000,
    }
}

fn decode(signal: Signal, json: &str) -> RecordBatch {
    let limits = DecodeLimits::default();
    let bytes = json_to_protobuf(signal, json.as_bytes(), &limits).unwrap();
    Decoder::new(limits).decode(signal, &bytes, 5_000).unwrap().batch
}

fn text(rows: &RecordBatch, column: &str, row: usize) -> Option<String> {
    let column = rows.column_by_name(column).unwrap().as_string::<i32>();
    column.is_valid(row).then(|| column.value(row).to_owned())
}

fn map(rows: &RecordBatch, column: &str, row: usize) -> Vec<(String, String)> {
    let entries = rows.column_by_name(column).unwrap().as_map().value(row);
    let (keys, values) = (
        entries.column(0).as_string::<i32>(),
        entries.column(1).as_string::<i32>(),
    );
    (0..entries.len())
        .map(|i| (keys.value(i).to_owned(), values.value(i).to_owned()))
        .collect()
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

const LOGS: &str = r#"{"resourceLogs":[{"resource":{"attributes":[
    {"key":"service.name","value":{"stringValue":"shop"}},{"key":"host.name","value":{"stringValue":"h1"}},
    {"key":"replicas","value":{"intValue":3}}]},
  "scopeLogs":[{"scope":{"name":"lib","version":"1"},"logRecords":[
    {"timeUnixNano":"1000","severityNumber":17,"body":{"stringValue":"hello"},"traceId":"4bf92f3577b34da6a3ce929d0e0e4736",
     "attributes":[{"key":"n","value":{"intValue":1}},{"key":"d","value":{"doubleValue":1}},{"key":"s","value":{"stringValue":"1"}},
       {"key":"b","value":{"boolValue":true}},{"key":"y","value":{"bytesValue":"AQI="}},{"key":"e","value":{}},
       {"key":"l","value":{"arrayValue":{"values":[{"intValue":1},{"doubleValue":1},{}]}}},
       {"key":"m","value":{"kvlistValue":{"values":[{"key":"$bytes","value":{"bytesValue":"AQI="}}]}}},
       {"key":"n","value":{"stringValue":"again"}}]},
    {"observedTimeUnixNano":"2000","body":{"intValue":7},"attributes":[
       {"key":"gen_ai.system","value":{"stringValue":"old"}},{"key":"gen_ai.provider.name","value":{"stringValue":"new"}},
       {"key":"gen_ai.usage.prompt_tokens","value":{"doubleValue":12}},{"key":"gen_ai.cost","value":{"stringValue":"0.5"}}]},
    {}]}]}]}"#;

/// Both as it was decoded and with every key moved out of its column.
fn folded(signal: Signal, json: &str) -> Vec<RecordBatch> {
    let batch = decode(signal, json);
    let moved = layout::concat(std::slice::from_ref(&batch), &ConcatOptions::default()).unwrap();
    assert!(moved.schema().fields().iter().all(|f| !f.name().contains(":i:")));
    [batch, moved]
        .iter()
        .map(|b| events::fold(b, &origin(&batch_id())).unwrap())
        .collect()
}

#[test]
fn a_log_is_a_row_that_people_can_ask_for() {
    for rows in folded(Signal::Log, LOGS) {
        assert_eq!(rows.num_rows(), 3);
        assert_eq!(text(&rows, "service", 2).as_deref(), Some("shop"));
        assert_eq!(text(&rows, "host", 0).as_deref(), Some("h1"));
        assert_eq!(map(&rows, "resource_types", 1), pairs(&[("replicas", "int")]));
        assert_eq!(text(&rows, "scope_name", 0).as_deref(), Some("lib"));
        assert_eq!(
            text(&rows, "trace_id", 0).as_deref(),
            Some("4bf92f3577b34da6a3ce929d0e0e4736")
        );
        let (mut attrs, mut types) = (map(&rows, "attrs", 0), map(&rows, "attr_types", 0));
        attrs.sort();
        types.sort();
        assert_eq!(
            attrs,
            pairs(&[
                ("b", "true"),
                ("d", "1.0"),
                ("e", ""),
                ("l", "[1,1.0,null]"),
                ("m", r#"{"$$bytes":{"$bytes":"AQI="}}"#),
                ("n", "1"),
                ("s", "1"),
                ("y", "AQI="),
            ])
        );
        assert_eq!(
            types,
            pairs(&[
                ("b", "bool"),
                ("d", "double"),
                ("e", "null"),
                ("l", "array"),
                ("m", "kvlist"),
                ("n", "int"),
                ("y", "bytes")
            ])
        );
        assert_eq!(
            text(&rows, "duplicate_attrs", 0).as_deref(),
            Some(r#"{"attrs":[["n","again"]]}"#)
        );
        assert_eq!(
            (
                text(&rows, "body", 1).as_deref(),
                text(&rows, "body_type", 1).as_deref()
            ),
            (Some("7"), Some("int"))
        );
        assert_eq!(text(&rows, "body", 2), None);
        let time = rows
            .column_by_name("time")
            .unwrap()
            .as_primitive::<TimestampNanosecondType>();
        assert_eq!(time.values().as_ref(), [1000, 2000, 5000]);
        let unset = rows.column_by_name("time_unset").unwrap().as_boolean();
        assert_eq!(unset.iter().collect::<Vec<_>>(), [None, Some(true), Some(true)]);
        assert_eq!(text(&rows, "ai_system", 1).as_deref(), Some("new"));
        assert_eq!(
            rows.column_by_name("ai_input_tokens")
                .unwrap()
                .as_primitive::<Int64Type>()
                .value(1),
            12
        );
        assert_eq!(
            rows.column_by_name("ai_cost")
                .unwrap()
                .as_primitive::<Float64Type>()
                .value(1),
            0.5
        );
        assert_eq!(
            rows.column_by_name("weight")
                .unwrap()
                .as_primitive::<Float64Type>()
                .values()
                .as_ref(),
            [1.0; 3]
        );
        assert_eq!(
            rows.column_by_name("row")
                .unwrap()
                .as_primitive::<Int32Type>()
                .values()
                .as_ref(),
            [0, 1, 2]
        );
        assert_eq!(text(&rows, "epoch", 0).as_deref(), Some("17-0000000000009f3c"));
        assert_eq!(
            (text(&rows, "tenant", 0).as_deref(), text(&rows, "node", 0).as_deref()),
            (Some("acme"), Some("edge-1"))
        );
    }
}

#[test]
fn a_gpu_metric_fills_its_column() {
    let json = r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[
        {"name":"hw.gpu.utilization","unit":"1","gauge":{"dataPoints":[{"timeUnixNano":1,"asDouble":0.75}]}},
        {"name":"hw.gpu.memory.usage","sum":{"isMonotonic":false,"aggregationTemporality":2,"dataPoints":[{"timeUnixNano":1,"asInt":"1024"}]}},
        {"name":"other","gauge":{"dataPoints":[{"timeUnixNano":1,"asInt":"3"}]}}]}]}]}"#;
    let rows = &folded(Signal::Metric, json)[0];
    let utilization = rows
        .column_by_name("gpu_utilization")
        .unwrap()
        .as_primitive::<Float64Type>();
    assert_eq!(utilization.iter().collect::<Vec<_>>(), [Some(0.75), None, None]);
    let memory = rows
        .column_by_name("gpu_memory_bytes")
        .unwrap()
        .as_primitive::<Int64Type>();
    assert_eq!(memory.iter().collect::<Vec<_>>(), [None, Some(1024), None]);
    let values = rows.column_by_name("value").unwrap().as_primitive::<Float64Type>();
    assert_eq!(values.iter().collect::<Vec<_>>(), [Some(0.75), Some(1024.0), Some(3.0)]);
    assert_eq!(text(rows, "temporality", 1).as_deref(), Some("cumulative"));
}

#[test]
fn p3_a_ledger_row_names_every_count() {
    let dropped = |plugin: &str| Dropped {
        plugin: plugin.into(),
        reason: "rate".into(),
        rows: 2,
    };
    let counts = Counts {
        accepted: 5,
        stored: 3,
        dropped: vec![dropped("sample")],
        refused: vec![dropped("mask")],
        ..Counts::default()
    };
    let id = batch_id();
    let row = events::ledger_row(&origin(&id), Outcome::Duplicate, &counts, "seen at offset 3");
    assert_eq!(row.schema(), events::schema());
    assert_eq!(text(&row, "signal", 0).as_deref(), Some("_batch"));
    assert_eq!(text(&row, "name", 0).as_deref(), Some("duplicate"));
    assert_eq!(text(&row, "body", 0).as_deref(), Some("seen at offset 3"));
    assert_eq!(
        row.column_by_name("row").unwrap().as_primitive::<Int32Type>().value(0),
        -1
    );
    assert_eq!(
        row.column_by_name("count")
            .unwrap()
            .as_primitive::<UInt64Type>()
            .value(0),
        5
    );
    assert_eq!(
        map(&row, "attrs", 0),
        pairs(&[
            ("accepted", "5"),
            ("stored", "3"),
            ("quarantined", "0"),
            ("damaged", "0"),
            ("dropped/sample/rate", "2"),
            ("refused/mask/rate", "2"),
        ])
    );
}

/// A batch of two rows with these columns more, or instead.
fn hostile(columns: Vec<(&str, ArrayRef)>) -> Vec<u8> {
    let rows = columns.first().map_or(2, |(_, c)| c.len());
    let mut all: Vec<(&str, ArrayRef)> = vec![
        ("signal", Arc::new(StringArray::from(vec!["log"; rows]))),
        ("time", Arc::new(Int64Array::from(vec![1; rows]))),
    ];
    all.retain(|(name, _)| columns.iter().all(|(other, _)| other != name));
    all.extend(columns);
    let fields: Vec<Field> = all
        .iter()
        .map(|(name, c)| Field::new(*name, c.data_type().clone(), true))
        .collect();
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), all.into_iter().map(|(_, c)| c).collect()).unwrap();
    let mut writer = StreamWriter::try_new(Vec::new(), batch.schema_ref()).unwrap();
    writer.write(&batch).unwrap();
    writer.finish().unwrap();
    writer.into_inner().unwrap()
}

fn refusal(bytes: &[u8]) -> String {
    layout::from_ipc(bytes, &IpcLimits::default()).unwrap_err().to_string()
}

#[test]
fn p3_p13_a_peer_cannot_write_rows_that_are_not_events() {
    let texts = |values: [&str; 2]| Arc::new(StringArray::from(values.to_vec())) as ArrayRef;
    assert!(layout::from_ipc(&hostile(vec![]), &IpcLimits::default()).is_ok());
    assert!(refusal(&hostile(vec![("signal", texts(["log", "_batch"]))])).contains("none"));
    assert!(
        refusal(&hostile(vec![(
            "signal",
            Arc::new(StringArray::from(vec![Some("log"), None]))
        )]))
        .contains("nulls")
    );
    assert!(refusal(&hostile(vec![("tenant", texts(["other", "other"]))])).contains("not a column of a batch"));
    assert!(refusal(&hostile(vec![("attrs:i:k", texts(["1", "2"]))])).contains("another type"));
    assert!(
        refusal(&hostile(vec![(
            "weight",
            Arc::new(BooleanArray::from(vec![true, true]))
        )]))
        .contains("another type")
    );
    assert!(refusal(&hostile(vec![("body", texts(["", ""])), ("body", texts(["", ""]))])).contains("twice"));
    let nulls = DictionaryArray::<UInt16Type>::new(
        UInt16Array::from(vec![0, 1]),
        Arc::new(StringArray::from(vec![Some("a"), None])),
    );
    assert!(refusal(&hostile(vec![("name", Arc::new(nulls))])).contains("nulls inside"));
}

#[test]
fn p15_small_streams_that_are_huge_as_rows_are_refused() {
    let rows = 60_000;
    let big = Arc::new(StringArray::from(vec!["x".repeat(1 << 20)]));
    let bomb = DictionaryArray::<UInt16Type>::new(UInt16Array::from(vec![0; rows]), big);
    let bytes = hostile(vec![("name", Arc::new(bomb))]);
    assert!(bytes.len() < 2 << 20);
    assert!(refusal(&bytes).contains("written out"));

    let key = format!("attrs:b:{}", "k".repeat(1000));
    let keys: Vec<String> = (0..10).map(|i| format!("{key}{i}")).collect();
    let column: ArrayRef = Arc::new(BooleanArray::from(vec![true; rows]));
    assert!(
        refusal(&hostile(
            keys.iter().map(|k| (k.as_str(), Arc::clone(&column))).collect()
        ))
        .contains("written out")
    );
}

#[test]
fn p15_streams_that_are_not_one_plain_batch_are_refused() {
    let good = hostile(vec![]);
    let with = |more: &[u8]| [good.as_slice(), more].concat();
    assert!(refusal(&with(&[0])).contains("after the end"));
    assert!(refusal(&with(&good)).contains("after the end"));
    assert!(refusal(&[]).contains("ends inside"));
    // Lengths that would make a reader allocate before it reads.
    assert!(refusal(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]).contains("beyond the end"));
    let limits = IpcLimits {
        max_rows: 1,
        ..IpcLimits::default()
    };
    assert!(layout::from_ipc(&good, &limits).is_err());
    let limits = IpcLimits {
        max_columns: 1,
        ..IpcLimits::default()
    };
    assert!(layout::from_ipc(&good, &limits).is_err());
}
