//! One event through each door, found by SQL with all that was sent along.

use bytes::Bytes;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, any_value::Value};
use serde_json::{Value as Json, json};
use sluice_bench::corpus::Signal;
use sluice_bench::load::{Client, Compression, Outcome, Protocol, Target};
use sluice_tests::Node;

use crate::otlp::{attribute, one_log, post, text};

fn event(mark: &str) -> Vec<u8> {
    let list = ArrayValue {
        values: vec![
            AnyValue {
                value: Some(Value::IntValue(1)),
            },
            AnyValue { value: Some(text("x")) },
        ],
    };
    one_log(
        &format!("hello from {mark}"),
        vec![
            attribute("mark", text(mark)),
            attribute("text", text("1")),
            attribute("whole", Value::IntValue(1)),
            attribute("broken", Value::DoubleValue(1.0)),
            attribute("truth", Value::BoolValue(true)),
            attribute("bytes", Value::BytesValue(vec![0, 255])),
            attribute("list", Value::ArrayValue(list)),
        ],
    )
}

async fn found(node: &Node, mark: &str) {
    let sql = format!(
        "SELECT body, severity, severity_text, service, trace_id, span_id, attrs['text'], attrs['whole'], attrs['broken'], \
         attrs['truth'], attrs['bytes'], attrs['list'], attr_types['text'], attr_types['whole'], attr_types['broken'], \
         attr_types['truth'], attr_types['bytes'], attr_types['list'], signal \
         FROM events WHERE attrs['mark'] = '{mark}'"
    );
    let answer = node.rows(&sql, 1).await.unwrap();
    let expected = json!([
        format!("hello from {mark}"),
        13,
        "WARN",
        "door-test",
        "0102030405060708090a0b0c0d0e0f10",
        "0102030405060708",
        "1",
        "1",
        "1.0",
        "true",
        "AP8=",
        "[1,\"x\"]",
        null,
        "int",
        "double",
        "bool",
        "bytes",
        "array",
        "log"
    ]);
    assert_eq!(answer.rows.len(), 1, "{mark}: more than once");
    assert_eq!(Json::from(answer.rows[0].clone()), expected, "{mark}");
}

/// OTLP/gRPC and OTLP/HTTP, plain and compressed, and OTLP/JSON.
#[tokio::test]
async fn an_event_through_each_door_is_found_with_its_types() {
    let node = Node::up().await.unwrap();
    let mut marks = Vec::new();
    for (protocol, door) in [(Protocol::Grpc, "otlp-grpc"), (Protocol::Http, "otlp-http")] {
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let mark = format!("{door}-{compression:?}");
            let target = Target {
                compression,
                ..Target::new(protocol, node.url(door).unwrap())
            };
            let outcome = Client::connect(&target)
                .unwrap()
                .send(Signal::Log, Bytes::from(event(&mark)))
                .await;
            assert_eq!(
                outcome,
                Outcome::Accepted {
                    rejected: 0,
                    note: String::new()
                },
                "{mark}"
            );
            marks.push(mark);
        }
    }
    let json = json!({"resourceLogs": [{
        "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "door-test"}}]},
        "scopeLogs": [{"logRecords": [{
            "timeUnixNano": "1767225600000000001", "severityNumber": 13, "severityText": "WARN",
            "body": {"stringValue": "hello from json"},
            "traceId": "0102030405060708090A0B0C0D0E0F10", "spanId": "0102030405060708",
            "attributes": [
                {"key": "mark", "value": {"stringValue": "json"}},
                {"key": "text", "value": {"stringValue": "1"}},
                {"key": "whole", "value": {"intValue": "1"}},
                {"key": "broken", "value": {"doubleValue": 1.0}},
                {"key": "truth", "value": {"boolValue": true}},
                {"key": "bytes", "value": {"bytesValue": "AP8="}},
                {"key": "list", "value": {"arrayValue": {"values": [{"intValue": 1}, {"stringValue": "x"}]}}},
            ],
        }]}],
    }]});
    let url = format!("{}/v1/logs", node.url("otlp-http").unwrap());
    let answer = post(&url, "application/json", None, json.to_string().into_bytes()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.headers["content-type"], "application/json");
    marks.push("json".to_owned());

    for mark in &marks {
        found(&node, mark).await;
    }
    let total = node.sql().unwrap().ask("SELECT count(*) FROM events").await.unwrap();
    assert_eq!(total.count().unwrap(), marks.len() as u64);
    assert!(total.is_complete(), "{}", total.completeness);
}

/// P13: nothing is answered without a token, nor to a made-up one, whatever a header claims.
#[tokio::test]
async fn p13_questions_need_a_token() {
    let node = Node::up().await.unwrap();
    let url = format!("{}/v1/sql", node.url("http").unwrap());
    let body = json!({"sql": "SELECT 1"}).to_string().into_bytes();
    assert_eq!(post(&url, "application/json", None, body).await.status, 401);
    let wrong = sluice_bench::process::Sql::new(node.url("http").unwrap(), "not-a-token".to_owned());
    let error = wrong.ask("SELECT 1").await.unwrap_err().to_string();
    assert!(error.contains("401"), "{error}");
    assert!(node.sql().unwrap().ask("SELECT 1").await.is_ok());
}
