//! JSON lines over HTTP: what shippers post is taken whole or refused whole.

use bytes::Bytes;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use sluice_wire::Signal;

use crate::accept::{gzip, zstd};
use crate::client::{http, post, request};
use crate::node::{TestNode, config, eventually};
use crate::rows;

const PATH: &str = "/v1/logs/json";

#[test]
fn lines_become_events_with_their_types_in_every_encoding() {
    let dir = tempfile::tempdir().unwrap();
    let node = TestNode::start(config(dir.path()));
    let at = node.address("otlp-http");
    let line = |n: usize| {
        format!(
            r#"{{"@timestamp":"2023-11-14T22:13:20Z","level":"warn","message":"m{n}","service":"shop","host":"h1","trace_id":"5b8efff798038103d269b633813fc60c","count":{n},"ratio":0.5,"ok":true,"deep":{{"a":[1,"x"]}}}}"#
        )
    };
    node.runtime.block_on(async {
        let http = http();
        let both = format!("{}\n{}\n", line(0), line(1));
        let array = format!("[{},\n{}]", line(2), line(3));
        for (kind, encoding, body, accepted) in [
            ("application/x-ndjson", "identity", Bytes::from(both), 2),
            ("application/json", "identity", Bytes::from(array), 2),
            ("", "gzip", gzip(line(4).as_bytes()), 1),
            ("application/jsonl; charset=utf-8", "zstd", zstd(line(5).as_bytes()), 1),
            ("text/plain", "identity", Bytes::new(), 0),
        ] {
            let headers = [("content-type", kind), ("content-encoding", encoding)];
            let answer = post(&http, at, PATH, &headers, body).await.unwrap();
            assert_eq!((answer.status, answer.kind.as_str()), (200, "application/json"));
            let said: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
            assert_eq!(said, serde_json::json!({ "accepted": accepted }));
        }
    });
    eventually("all are in the spool", || rows::logs(&node.spool).len() == 6);
    let mut logs = rows::logs(&node.spool);
    logs.sort_by_key(|log| log.text().to_owned());
    for (n, log) in logs.iter().enumerate() {
        assert_eq!(
            (log.text(), log.severity, log.trace_id.len()),
            (format!("m{n}").as_str(), 13, 16)
        );
        assert_eq!(log.time_ns, 1_700_000_000_000_000_000);
        assert_eq!((log.of("service.name"), log.of("host.name")), ("shop", "h1"));
        assert_eq!(log.attributes["count"], Value::IntValue(n as i64));
        assert_eq!(log.attributes["ratio"], Value::DoubleValue(0.5));
        assert_eq!(log.attributes["ok"], Value::BoolValue(true));
        assert!(matches!(log.attributes["deep"], Value::KvlistValue(_)));
        assert_eq!(log.attributes.len(), 4);
    }
    let status = node.status.snapshot();
    let source = status.sources.iter().find(|s| s.name == "json-lines").unwrap();
    assert_eq!(source.accepted, 6);
    assert!(
        status
            .metrics()
            .contains("sluice_edge_source_accepted_total{source=\"json-lines\",kind=\"json-lines\"} 6\n")
    );
    node.stop();
}

#[test]
fn a_request_with_a_bad_line_is_refused_whole_and_the_line_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.accept.max_request_bytes = 64 << 10;
    let node = TestNode::start(config);
    let at = node.address("otlp-http");
    node.runtime.block_on(async {
        let http = http();
        let bomb = zstd(&vec![b' '; 8 << 20]);
        for (kind, encoding, body, status, says) in [
            (
                "",
                "identity",
                Bytes::from("{\"a\":1}\n{\"a\":}\n"),
                400,
                "line 2: expected value at column 6",
            ),
            (
                "",
                "identity",
                Bytes::from("[{},[]]"),
                400,
                "element 2: is not an object",
            ),
            ("", "identity", Bytes::from(vec![b'x'; 100 << 10]), 413, "65536"),
            ("", "zstd", bomb, 413, "65536"),
            ("", "br", Bytes::from("{}"), 415, "content encoding"),
            (
                "application/x-protobuf",
                "identity",
                request(Signal::Log, "a", 1, "x"),
                415,
                "application/x-ndjson",
            ),
        ] {
            let headers = [("content-type", kind), ("content-encoding", encoding)];
            let answer = post(&http, at, PATH, &headers, body).await.unwrap();
            let said: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
            let message = said["message"].as_str().unwrap();
            assert_eq!(answer.status, status, "{message}");
            assert!(message.contains(says), "{message}");
        }
    });
    let status = node.status.snapshot();
    let source = status.sources.iter().find(|s| s.name == "json-lines").unwrap();
    let refused: Vec<_> = source.refused.iter().map(|(reason, many)| (*reason, *many)).collect();
    assert_eq!(refused, [("malformed", 2), ("too_large", 2), ("unsupported", 2)]);
    assert_eq!((source.accepted, status.accepted.log), (0, 0));
    node.stop();
}
