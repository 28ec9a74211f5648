//! The rows of these tests: logs, spans and metrics of two tenants, cold in many files and a few of them hot, with every number exact, so
//! that no order of adding them up gives another sum.

use std::path::Path;

use serde_json::{Value, json};
use sluice_store::erase::Rule;
use sluice_store::{OffsetRange, Stores};
use sluice_wire::Signal;
use sluice_wire::counts::Counts;
use sluice_wire::events::{self, Origin, Outcome};
use sluice_wire::ids::{BatchId, Epoch, NodeId, Partition, StreamId, TenantId};
use sluice_wire::otlp::{DecodeLimits, Decoder, json_to_protobuf};

pub(crate) const PARTITION: Partition = Partition {
    generation: 1,
    index: 0,
};
/// 2026-11-21T00:00:00Z
const BASE_NS: u64 = 1_795_219_200_000_000_000;
/// Records of the log that are cold, and those that are hot.
pub(crate) const COLD: u64 = 24;
const HOT: u64 = 3;
const ROWS: u64 = 60;
/// Commits that hold one record of the log each; the others hold several, so that files have rows of both tenants.
const ALONE: u64 = 12;
const TOGETHER: u64 = 3;

pub(crate) const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e0004";

pub(crate) fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

fn tenant_of(offset: u64) -> &'static str {
    if offset % 3 == 2 { "beta" } else { "acme" }
}

/// A lake with so many records of the log in cold and the others after them; some rows of acme are erased.
pub(crate) async fn fill(folder: &Path, cold: u64) -> Stores {
    let lake = folder.join("lake");
    let stores = Stores::open(lake.to_str().unwrap(), 64 << 20).await.unwrap();
    let mut first = 0;
    while first < cold {
        let last = if first < ALONE { first } else { first + TOGETHER - 1 };
        let range = OffsetRange {
            partition: PARTITION,
            first,
            last,
        };
        let rows = (first..=last).flat_map(record).collect();
        stores.cold.commit(&[range], rows).await.unwrap();
        first = last + 1;
    }
    stores.seam.claim(PARTITION, cold, "embedded").await.unwrap();
    let hot = stores.hot.embedded().unwrap();
    hot.claim(PARTITION, cold);
    for offset in cold..cold + HOT {
        hot.insert(PARTITION, offset, offset, record(offset)).unwrap();
    }
    let from = BASE_NS as i64 + 3_000_000_000;
    let erased = Rule::new(
        &tenant("acme"),
        i64::MAX / 2_000,
        Some(from),
        Some(from + 1_000_000_000),
    );
    stores.erase(&erased).await.unwrap();
    stores
}

/// One record of the log as the writers store it: its rows and its ledger row.
fn record(offset: u64) -> Vec<arrow::array::RecordBatch> {
    let (signal, text) = match offset % 4 {
        1 => (Signal::Span, spans(offset)),
        3 => (Signal::Metric, metrics(offset)),
        _ => (Signal::Log, logs(offset)),
    };
    let limits = DecodeLimits::default();
    let body = json_to_protobuf(signal, text.to_string().as_bytes(), &limits).unwrap();
    let batch = Decoder::new(limits).decode(signal, &body, BASE_NS).unwrap().batch;
    let id = BatchId {
        stream: StreamId {
            tenant: tenant(tenant_of(offset)),
            node: NodeId::new("site-1").unwrap(),
            spool: [7; 16],
        },
        epoch: Epoch { number: 1, random: 42 },
        seq: offset,
    };
    let origin = Origin {
        id: &id,
        partition: PARTITION,
        offset,
        ingested_at_us: BASE_NS as i64 / 1_000 + offset as i64,
    };
    let rows = batch.num_rows() as u64;
    let counts = Counts {
        accepted: rows,
        stored: rows,
        ..Counts::default()
    };
    vec![
        events::fold(&batch, &origin).unwrap(),
        events::ledger_row(&origin, Outcome::Accepted, &counts, ""),
    ]
}

fn resource(service: u64) -> Value {
    json!({"attributes": [{"key": "service.name", "value": {"stringValue": format!("svc-{service}")}}]})
}

fn time(offset: u64, row: u64) -> String {
    (BASE_NS + offset * 1_000_000_000 + row * 1_000_003).to_string()
}

fn attributes(offset: u64, row: u64) -> Value {
    json!([
        {"key": "http.route", "value": {"stringValue": format!("/r{}", (offset + row) % 5)}},
        {"key": "user", "value": {"stringValue": format!("u{}", (offset * 7 + row * 3) % 37)}},
        {"key": "code", "value": {"intValue": (200 + (row % 4) * 100).to_string()}},
    ])
}

fn logs(offset: u64) -> Value {
    let records = |service: u64| -> Vec<Value> {
        let rows = (0..ROWS).filter(|row| row % 3 == service);
        rows.map(|row| {
            let body = match row % 4 {
                0 => format!("{{\"user\":{{\"id\":{row}}},\"of\":\"{}\"}}", tenant_of(offset)),
                1 => format!("db timeout: connection refused {row}"),
                _ => format!("canary-{} said \"hi\", {row}", tenant_of(offset)),
            };
            json!({
                "timeUnixNano": time(offset, row),
                "severityNumber": 1 + (row + offset) % 20,
                "traceId": format!("4bf92f3577b34da6a3ce929d0e0e{:04x}", row % 8),
                "spanId": "00f067aa0ba902b7",
                "body": {"stringValue": body},
                "attributes": attributes(offset, row),
            })
        })
        .collect()
    };
    let of = |service| json!({"resource": resource(service), "scopeLogs": [{"logRecords": records(service)}]});
    json!({"resourceLogs": [of(0), of(1), of(2)]})
}

fn spans(offset: u64) -> Value {
    let spans: Vec<Value> = (0..ROWS)
        .map(|row| {
            let start: u64 = time(offset, row).parse().unwrap();
            json!({
                "traceId": format!("4bf92f3577b34da6a3ce929d0e0e{:04x}", row % 8),
                "spanId": format!("00f067aa0ba9{:04x}", row + 1),
                "name": format!("GET /r{}", row % 5),
                "kind": 2 + row % 2,
                "startTimeUnixNano": start.to_string(),
                "endTimeUnixNano": (start + 1_000 * (1 + (row * 13) % 50)).to_string(),
                "status": {"code": row % 3},
                "attributes": attributes(offset, row),
            })
        })
        .collect();
    json!({"resourceSpans": [{"resource": resource(offset % 3), "scopeSpans": [{"spans": spans}]}]})
}

fn metrics(offset: u64) -> Value {
    let points = |make: fn(u64, u64) -> Value| -> Vec<Value> { (0..ROWS / 2).map(|row| make(offset, row)).collect() };
    let counter = points(|offset, row| {
        json!({"timeUnixNano": time(offset, row), "startTimeUnixNano": BASE_NS.to_string(),
            "asInt": (offset * 100 + row).to_string(), "attributes": attributes(offset, row % 2)})
    });
    let histogram = points(|offset, row| {
        json!({"timeUnixNano": time(offset, row), "count": "10", "sum": 64.0,
            "bucketCounts": [(row % 4).to_string(), "2", (8 - row % 4).to_string()], "explicitBounds": [8.0, 16.0],
            "attributes": attributes(offset, row)})
    });
    json!({"resourceMetrics": [{"resource": resource(offset % 3), "scopeMetrics": [{"metrics": [
        {"name": "requests", "sum": {"aggregationTemporality": 2, "isMonotonic": true, "dataPoints": counter}},
        {"name": "latency", "histogram": {"aggregationTemporality": 1, "dataPoints": histogram}},
    ]}]}]})
}
