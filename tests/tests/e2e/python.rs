//! The OpenTelemetry SDK for Python, unchanged, as it comes from its registry.

use serde_json::{Value, json};
use sluice_tests::Node;
use sluice_tests::python::{interpreter, must_not_skip, run};

const ATTRIBUTES: &str = "attrs['text'], attrs['whole'], attrs['broken'], attrs['truth'], attrs['list'], attrs['unicode'], \
                          attr_types['text'], attr_types['whole'], attr_types['broken'], attr_types['truth'], attr_types['list']";

fn attributes() -> Vec<Value> {
    let list = json!([
        "1",
        "1",
        "1.0",
        "true",
        "[\"a\",\"b\"]",
        "naïve ☕",
        null,
        "int",
        "double",
        "bool",
        "array"
    ]);
    list.as_array().unwrap().clone()
}

#[tokio::test]
async fn what_the_python_sdk_sends_is_found_with_its_types() {
    let python = match interpreter() {
        Ok(python) => python,
        Err(error) if must_not_skip() => panic!("{error:#}"),
        Err(error) => {
            eprintln!("SKIPPED, the SDK cannot be installed: {error:#}");
            return;
        }
    };
    let node = Node::up().await.unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/python/send.py");
    for (protocol, door) in [("grpc", "otlp-grpc"), ("http", "otlp-http")] {
        let endpoint = node.url(door).unwrap();
        let arguments = [script, protocol, &endpoint, protocol].map(str::to_owned);
        let program = python.clone();
        let printed = tokio::task::spawn_blocking(move || run(program, arguments))
            .await
            .unwrap()
            .unwrap();
        let ids: Value = serde_json::from_str(&printed).unwrap();
        check(
            &node,
            protocol,
            ids["trace_id"].as_str().unwrap(),
            ids["span_id"].as_str().unwrap(),
        )
        .await;
    }
}

async fn check(node: &Node, mark: &str, trace: &str, span: &str) {
    let by_mark = format!("attrs['mark'] = '{mark}'");
    let log = format!(
        "SELECT body, severity, severity_text, CAST(time AS BIGINT), trace_id, span_id, service, host, scope_name, \
         resource['replica'], resource_types['replica'], {ATTRIBUTES} FROM logs WHERE {by_mark}"
    );
    let mut expected = vec![
        json!("card was declined"),
        json!(17),
        json!("ERROR"),
        json!(1_767_225_600_123_456_789_i64),
        json!(trace),
        json!(span),
        json!("python-shop"),
        json!("till-7"),
        json!("shop.log"),
        json!("3"),
        json!("int"),
    ];
    expected.extend(attributes());
    assert_eq!(node.rows(&log, 1).await.unwrap().rows, [expected], "{mark}: log");

    // Found by its trace, as a person who has an id from somewhere else finds it.
    let spans = format!(
        "SELECT name, kind, status, status_message, span_id, span_events LIKE '%\"paid\"%', duration_ns > 0, {ATTRIBUTES} \
         FROM spans WHERE trace_id = '{trace}' AND {by_mark}"
    );
    let mut expected = vec![
        json!("buy"),
        json!("internal"),
        json!("error"),
        json!("declined"),
        json!(span),
        json!(true),
        json!(true),
    ];
    expected.extend(attributes());
    assert_eq!(node.rows(&spans, 1).await.unwrap().rows, [expected], "{mark}: span");

    let metrics = format!(
        "SELECT name, metric_type, unit, temporality, monotonic, value, value_int, \"count\", \"sum\", \"min\", \"max\", {ATTRIBUTES} \
         FROM metrics WHERE {by_mark} ORDER BY name"
    );
    let rows = node.rows(&metrics, 2).await.unwrap().rows;
    let first = [
        json!([
            "orders",
            "sum",
            "{order}",
            "cumulative",
            true,
            5.0,
            5,
            null,
            null,
            null,
            null
        ]),
        json!([
            "wait",
            "histogram",
            "ms",
            "cumulative",
            null,
            null,
            null,
            1,
            12.5,
            12.5,
            12.5
        ]),
    ];
    assert_eq!(rows.len(), 2, "{mark}: metrics");
    for (row, first) in rows.iter().zip(first) {
        assert_eq!(Value::from(row[..11].to_vec()), first, "{mark}: metric");
        assert_eq!(row[11..], attributes()[..], "{mark}: attributes of a metric");
    }
}
