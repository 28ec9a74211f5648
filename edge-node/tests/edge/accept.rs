//! Every door takes every signal in every form, and what is accepted is in the spool exactly once.

use std::io::Write;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use prost::Message;
use sluice_edge::link::{AckSink, BatchSource};
use sluice_wire::Signal;
use tonic::codec::CompressionEncoding;

use crate::client::{self, Grpc, PATHS, PROTOBUF, http, post, request};
use crate::cloud::Cloud;
use crate::node::{TestNode, config, eventually};

pub(crate) fn gzip(body: &[u8]) -> Bytes {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap().into()
}

pub(crate) fn zstd(body: &[u8]) -> Bytes {
    zstd::stream::encode_all(body, 1).unwrap().into()
}

#[test]
fn p1_p2_every_door_and_form_is_stored_exactly_once() {
    let dir = tempfile::tempdir().unwrap();
    let node = TestNode::start(config(dir.path()));
    let (grpc_at, http_at) = (node.address("otlp-grpc"), node.address("otlp-http"));
    let expected = node.runtime.block_on(async move {
        let (http, grpc) = (http(), Grpc::new(grpc_at));
        let mut expected = Vec::new();
        for (signal, path, method) in PATHS {
            let mut form = 0;
            let mut next = |rows: usize| {
                form += 1;
                let prefix = format!("{signal}{form}");
                expected.extend((0..rows).map(|row| format!("{prefix}-{row}")));
                request(signal, &prefix, rows, "body")
            };
            for compression in [None, Some(CompressionEncoding::Gzip), Some(CompressionEncoding::Zstd)] {
                let answer = grpc.call(method, next(10), compression).await.unwrap();
                assert_eq!(answer.partial_success, None);
            }
            let plain = post(&http, http_at, path, PROTOBUF, next(10)).await.unwrap();
            assert_eq!(
                (plain.status, plain.kind.as_str(), plain.body.len()),
                (200, "application/x-protobuf", 0)
            );
            for (name, body) in [("gzip", gzip(&next(10))), ("zstd", zstd(&next(10)))] {
                let headers = [PROTOBUF[0], ("content-encoding", name)];
                assert_eq!(post(&http, http_at, path, &headers, body).await.unwrap().status, 200);
            }
            // Larger than a batch may be, so it becomes several.
            assert!(client::send(&http, http_at, path, next(20_000)).await);
            // No events at all is a success, too.
            assert!(client::send(&http, http_at, path, Bytes::new()).await);
        }
        expected
    });
    eventually("everything is sealed", || {
        node.status.snapshot().journal.unsealed_bytes == 0
    });
    let status = node.status.snapshot();
    let accepted = status.accepted;
    assert_eq!(accepted.log + accepted.span + accepted.metric, expected.len() as u64);
    let cloud = Cloud::of(&node.spool);
    assert_eq!(cloud.counts.accepted, expected.len() as u64);
    assert_eq!(cloud.events.len(), expected.len());
    assert!(expected.iter().all(|id| cloud.events.get(id) == Some(&1)));
    cloud.check_sequence();
    node.stop();
}

#[test]
fn json_is_answered_in_json_and_stored() {
    let dir = tempfile::tempdir().unwrap();
    let node = TestNode::start(config(dir.path()));
    let address = node.address("otlp-http");
    let body = r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[
        {"body":{"stringValue":"hello"},"attributes":[{"key":"evt.id","value":{"stringValue":"j-0"}}]},
        {"traceId":"00","body":{"stringValue":"bad id"}}]}]}]}"#;
    let answer = node.runtime.block_on(async {
        let headers = [("content-type", "application/json; charset=utf-8")];
        post(&http(), address, "/v1/logs", &headers, Bytes::from(body))
            .await
            .unwrap()
    });
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    assert_eq!(
        (answer.status, answer.kind.as_str()),
        (200, "application/json"),
        "{text}"
    );
    // The row with a trace id of one byte is left out, and the sender is told.
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["partialSuccess"]["rejectedLogRecords"], "1", "{text}");
    eventually("it is sealed", || !node.spool.is_drained());
    assert_eq!(Cloud::of(&node.spool).events.get("j-0"), Some(&1));
    node.stop();
}

#[test]
fn a_rejected_row_is_a_partial_success_on_every_door() {
    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
    let dir = tempfile::tempdir().unwrap();
    let node = TestNode::start(config(dir.path()));
    let (grpc_at, http_at) = (node.address("otlp-grpc"), node.address("otlp-http"));
    let mut message = ExportLogsServiceRequest::decode(request(Signal::Log, "p", 3, "x")).unwrap();
    message.resource_logs[0].scope_logs[0].log_records[1].trace_id = vec![1, 2, 3];
    let body = Bytes::from(message.encode_to_vec());
    node.runtime.block_on(async {
        let answer = Grpc::new(grpc_at).call(PATHS[0].2, body.clone(), None).await.unwrap();
        let partial = answer.partial_success.unwrap();
        assert_eq!(partial.rejected_log_records, 1);
        assert!(partial.error_message.contains("trace"), "{}", partial.error_message);
        let answer = post(&http(), http_at, "/v1/logs", PROTOBUF, body).await.unwrap();
        let partial = ExportLogsServiceResponse::decode(answer.body)
            .unwrap()
            .partial_success
            .unwrap();
        assert_eq!(partial.rejected_log_records, 1);
    });
    node.stop();
}

#[test]
fn p5_a_full_spool_refuses_new_events_says_when_to_come_again_and_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.spool.max_bytes = 8 << 20;
    config.seal.zstd_level = 0;
    let node = TestNode::start(config);
    let (grpc_at, http_at) = (node.address("otlp-grpc"), node.address("otlp-http"));
    let filler = "0123456789abcdef".repeat(4096);
    let body = |k: usize| request(Signal::Log, &format!("f{k}"), 8, &filler);
    let send = |k: usize| {
        node.runtime
            .block_on(async { post(&http(), http_at, "/v1/logs", PROTOBUF, body(k)).await.unwrap() })
    };
    let sealed = || {
        eventually("what was accepted is sealed", || {
            node.status.snapshot().journal.unsealed_bytes == 0
        })
    };
    let mut accepted = 0;
    let refusal = loop {
        let answer = send(accepted);
        if answer.status != 200 {
            break answer;
        }
        accepted += 1;
        // What is not sealed needs room twice; here the cap itself is to be reached.
        sealed();
        assert!(accepted < 100, "the cap is never reached");
    };
    assert_eq!((refusal.status, refusal.retry_after.as_deref()), (429, Some("2")));
    let status = node
        .runtime
        .block_on(async { Grpc::new(grpc_at).call(PATHS[0].2, body(999), None).await.unwrap_err() });
    assert_eq!(status.code(), tonic::Code::ResourceExhausted);
    assert!(String::from_utf8_lossy(status.details()).contains("RetryInfo"));
    let cloud = Cloud::of(&node.spool);
    assert_eq!(cloud.counts.accepted, 8 * accepted as u64);
    // The cloud takes everything; then there is room again, without anyone's help.
    (0..node.spool.status().next).for_each(|index| node.spool.acked(index));
    eventually("there is room again", || send(1000).status == 200);
    node.stop();
}

#[test]
fn the_status_pages_say_what_happened() {
    let dir = tempfile::tempdir().unwrap();
    let node = TestNode::start(config(dir.path()));
    let (http_at, admin) = (node.address("otlp-http"), node.address("http"));
    node.runtime.block_on(async {
        let http = http();
        assert!(client::send(&http, http_at, "/v1/logs", request(Signal::Log, "s", 5, "x")).await);
        let refused = post(&http, http_at, "/v1/logs", PROTOBUF, Bytes::from_static(b"\xff\xff"))
            .await
            .unwrap();
        assert_eq!(refused.status, 400);
        let get = async |path: &str| {
            let uri = format!("http://{admin}{path}").parse().unwrap();
            let response = http.get(uri).await.unwrap();
            let status = response.status().as_u16();
            let body = http_body_util::BodyExt::collect(response.into_body())
                .await
                .unwrap()
                .to_bytes();
            (status, String::from_utf8(body.to_vec()).unwrap())
        };
        assert_eq!(get("/healthz").await.0, 200);
        assert_eq!(get("/readyz").await.0, 200);
        assert_eq!(get("/nothing").await.0, 404);
        let metrics = get("/metrics").await.1;
        assert!(
            metrics.contains("sluice_edge_accepted_total{signal=\"log\"} 5"),
            "{metrics}"
        );
        assert!(
            metrics.contains("sluice_edge_refused_requests_total{reason=\"malformed\"} 1"),
            "{metrics}"
        );
        let status: serde_json::Value = serde_json::from_str(&get("/v1/status").await.1).unwrap();
        assert_eq!(
            (&status["accepted"]["log"], &status["phase"]),
            (&5.into(), &"running".into())
        );
    });
    node.stop();
}

#[test]
fn p2_a_request_of_several_records_is_accepted_as_a_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    // Records of 32 KiB at most, room for some forty of them, and nothing is sealed before the node ends.
    config.seal.max_batch_bytes = 64 << 10;
    config.seal.offline_age = std::time::Duration::from_secs(3600);
    config.accept.max_unsealed = 1 << 20;
    config.accept.wait = std::time::Duration::from_millis(200);
    let node = TestNode::start(config.clone());
    let address = node.address("otlp-http");
    let filler = "0123456789abcdef".repeat(128);
    let send = |prefix: &str, rows: usize| {
        let body = request(Signal::Log, prefix, rows, &filler);
        let answer = node
            .runtime
            .block_on(post(&http(), address, "/v1/logs", PROTOBUF, body));
        answer.unwrap().status
    };
    assert_eq!(send("a", 300), 200);
    assert!(
        node.status.snapshot().journal.unsealed_records > 10,
        "it is several records"
    );
    let unsealed = node.status.snapshot().journal.unsealed_bytes;
    assert_eq!(send("b", 300), 429);
    let status = node.status.snapshot();
    assert_eq!((status.accepted.log, status.journal.unsealed_bytes), (300, unsealed));
    // What fits beside it still does.
    assert_eq!(send("c", 20), 200);
    node.crash();
    let node = TestNode::start(config);
    let cloud = Cloud::of(&node.spool);
    assert!(
        cloud.events.keys().all(|id| !id.starts_with('b')),
        "a part of it was accepted"
    );
    assert_eq!((cloud.events.len(), cloud.counts.accepted), (320, 320));
    node.stop();
}

#[test]
fn p2_a_gateway_with_a_small_limit_gets_small_batches_and_nothing_counts_as_damaged() {
    const LIMIT: usize = 16 << 10;
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.seal.zstd_level = 0;
    let node = TestNode::start(config);
    let address = node.address("otlp-http");
    let send = |prefix: &str, rows: usize, filler: usize| {
        let body = request(Signal::Log, prefix, rows, &"x".repeat(filler));
        assert!(node.runtime.block_on(client::send(&http(), address, "/v1/logs", body)));
    };
    node.spool.welcomed(1, LIMIT as u32);
    send("parted", 100, 1000);
    send("whole", 1, 2 * LIMIT);
    eventually("everything is sealed", || {
        node.status.snapshot().journal.unsealed_bytes == 0
    });
    let status = node.status.snapshot();
    assert_eq!((status.damaged, status.spool.max_batch_bytes), (0, LIMIT as u64));
    let cloud = Cloud::of(&node.spool);
    assert_eq!(
        (cloud.events.len(), cloud.counts.stored, cloud.counts.damaged),
        (101, 101, 0)
    );
    cloud.check_sequence();
    let mut large = 0;
    let mut at = 0;
    while let Some((index, bytes)) = node.spool.next_from(at).unwrap() {
        large += usize::from(bytes.len() > LIMIT);
        at = index + 1;
    }
    assert_eq!(large, 1, "only one event is larger than the gateway takes");
    node.stop();
}
