//! Requests that mean harm: each is told what is wrong with it, nothing is stored, the node goes on (P15).

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use sluice_wire::Signal;
use tonic::Code;

use crate::accept::{gzip, zstd};
use crate::client::{self, Grpc, PATHS, PROTOBUF, any, http, post, request};
use crate::node::{TestNode, config};

const LIMIT: usize = 1 << 20;

fn start(dir: &std::path::Path) -> TestNode {
    let mut config = config(dir);
    config.accept.max_request_bytes = LIMIT as u64;
    config.accept.max_request_memory = 4 * LIMIT as u64;
    config.accept.max_depth = 16;
    config.accept.read_timeout = Duration::from_secs(20);
    TestNode::start(config)
}

/// Protobuf bodies that are no requests, or too much of one.
fn malformed() -> Vec<(String, Bytes)> {
    let good = request(Signal::Log, "t", 20, "some text");
    let mut list: Vec<(String, Bytes)> = Vec::new();
    // Cut anywhere but between two top-level fields.
    for k in 1..60 {
        let at = good.len() * k / 60;
        list.push((format!("cut at {at}"), good.slice(..at.min(good.len() - 1))));
    }
    for byte in [0x00, 0x07, 0x0f, 0xff] {
        list.push((format!("{byte:#x} all over"), Bytes::from(vec![byte; 64])));
    }
    for length in [1u64 << 20, 1 << 31, u64::MAX >> 1, u64::MAX] {
        let mut body = BytesMut::from(&b"\x0a"[..]);
        prost::encoding::encode_varint(length, &mut body);
        body.put_slice(b"abc");
        list.push((format!("length {length}"), body.freeze()));
    }
    for depth in [17, 100, 10_000] {
        list.push((format!("depth {depth}"), nested(depth)));
    }
    list.push(("text".to_owned(), Bytes::from_static(b"GET / HTTP/1.1\r\n\r\n")));
    list.push((
        "json as protobuf".to_owned(),
        Bytes::from_static(br#"{"resourceLogs":[]}"#),
    ));
    list.push(("invalid utf-8 in a key".to_owned(), bad_utf8()));
    list
}

/// A body whose value nests so deep.
fn nested(depth: usize) -> Bytes {
    // AnyValue { array_value: ArrayValue { values: [..] } }, built inside out: prost itself gives up at depth 100.
    let mut value = any("x").encode_to_vec();
    let wrap = |tag: u8, inner: &[u8]| {
        let mut out = vec![tag << 3 | 2];
        prost::encoding::encode_varint(inner.len() as u64, &mut out);
        out.extend_from_slice(inner);
        out
    };
    for _ in 0..depth {
        value = wrap(5, &wrap(1, &value));
    }
    let record = wrap(5, &value);
    wrap(1, &wrap(2, &wrap(2, &record))).into()
}

fn bad_utf8() -> Bytes {
    let good = request(Signal::Log, "u", 1, "x");
    let at = good.windows(6).position(|w| w == b"evt.id").unwrap();
    let mut bytes = good.to_vec();
    bytes[at] = 0xff;
    bytes.into()
}

fn bomb(pack: fn(&[u8]) -> Bytes) -> Bytes {
    pack(&vec![0u8; 64 << 20])
}

#[test]
fn p15_hostile_http_requests_are_told_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path());
    let address = node.address("otlp-http");
    let told = node.runtime.block_on(async {
        let http = http();
        let mut told = 0;
        let mut check = async |what: &str, path: &str, headers: &[(&str, &str)], body: Bytes, status: &[u16]| {
            let answer = post(&http, address, path, headers, body).await;
            let answer = answer.unwrap_or_else(|e| panic!("{what}: {e:?}"));
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            assert!(status.contains(&answer.status), "{what}: {} {text}", answer.status);
            assert!(answer.body.len() > 10, "{what}: says nothing");
            assert_eq!(answer.retry_after, None, "{what}: asks to come again");
            told += 1;
        };
        for (what, body) in malformed() {
            check(&what, "/v1/logs", PROTOBUF, body, &[400]).await;
        }
        let json = &[("content-type", "application/json")][..];
        for (k, text) in [
            "",
            "{",
            "[]",
            "nul",
            "{\"resourceLogs\":5}",
            "{\"resourceLogs\":[{\"scopeLogs\":7}]}",
            "\u{1}",
        ]
        .into_iter()
        .enumerate()
        {
            check(&format!("json {k}"), "/v1/logs", json, Bytes::from(text), &[400]).await;
        }
        let deep = "[".repeat(200_000);
        check(
            "deep json",
            "/v1/logs",
            json,
            Bytes::from(format!("{{\"resourceLogs\":{deep}")),
            &[400],
        )
        .await;
        for (_, path, _) in PATHS {
            let large = Bytes::from(vec![b'x'; LIMIT + 1]);
            check("oversized", path, PROTOBUF, large, &[413]).await;
            check(
                "oversized by far",
                path,
                PROTOBUF,
                Bytes::from(vec![b'x'; 20 * LIMIT]),
                &[413],
            )
            .await;
            let packed = |name| [PROTOBUF[0], ("content-encoding", name)];
            check("gzip bomb", path, &packed("gzip"), bomb(gzip), &[413]).await;
            check("zstd bomb", path, &packed("zstd"), bomb(zstd), &[413]).await;
            check(
                "not gzip",
                path,
                &packed("gzip"),
                Bytes::from_static(b"plain text"),
                &[400],
            )
            .await;
            check(
                "not zstd",
                path,
                &packed("zstd"),
                Bytes::from_static(b"plain text"),
                &[400],
            )
            .await;
            let cut = gzip(&request(Signal::Log, "c", 50, "x"));
            check("cut gzip", path, &packed("gzip"), cut.slice(..cut.len() / 2), &[400]).await;
            check(
                "unknown encoding",
                path,
                &packed("br"),
                Bytes::from_static(b"x"),
                &[415],
            )
            .await;
            check(
                "unknown type",
                path,
                &[("content-type", "text/plain")],
                Bytes::from_static(b"x"),
                &[415],
            )
            .await;
            check("no type", path, &[], Bytes::from_static(b"x"), &[415]).await;
        }
        check("unknown path", "/v1/nothing", PROTOBUF, Bytes::new(), &[404]).await;
        told
    });
    assert!(told >= 100, "only {told} requests");
    finish(node, address);
}

#[test]
fn p15_hostile_grpc_calls_are_told_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path());
    let (grpc_at, http_at) = (node.address("otlp-grpc"), node.address("otlp-http"));
    let told = node.runtime.block_on(async {
        let grpc = Grpc::new(grpc_at);
        let mut told = 0;
        let mut check = |what: &str, result: Result<_, tonic::Status>, code: Code| {
            let status = result.map(|_| ()).expect_err(what);
            assert_eq!(status.code(), code, "{what}: {status:?}");
            assert!(status.message().len() > 10, "{what}: says nothing");
            told += 1;
        };
        for (what, body) in malformed() {
            check(&what, grpc.call(PATHS[0].2, body, None).await, Code::InvalidArgument);
        }
        for (_, _, method) in PATHS {
            let large = Bytes::from(vec![b'x'; LIMIT + 1]);
            check("oversized", grpc.call(method, large, None).await, Code::InvalidArgument);
            let far = Bytes::from(vec![b'x'; 8 * LIMIT]);
            check(
                "oversized by far",
                grpc.call(method, far, None).await,
                Code::InvalidArgument,
            );
        }
        let unknown = grpc
            .call(
                "/opentelemetry.proto.collector.logs.v1.LogsService/Nothing",
                Bytes::new(),
                None,
            )
            .await;
        check("unknown method", unknown, Code::Unimplemented);

        // What no well-behaved client sends, frame by frame.
        let raw = |encoding: Option<&'static str>, flag: u8, length: u32, message: Bytes| {
            let mut body = BytesMut::new();
            body.put_u8(flag);
            body.put_u32(length);
            body.put_slice(&message);
            raw_call(grpc_at, encoding, body.freeze())
        };
        let packed = |name, bytes: Bytes| raw(Some(name), 1, bytes.len() as u32, bytes);
        let good = request(Signal::Log, "r", 3, "x");
        for (what, code, call) in [
            ("gzip bomb", 3, packed("gzip", bomb(gzip)).await),
            ("zstd bomb", 3, packed("zstd", bomb(zstd)).await),
            ("not gzip", 3, packed("gzip", good.clone()).await),
            ("not zstd", 3, packed("zstd", good.clone()).await),
            ("unknown encoding", 12, packed("snappy", good.clone()).await),
            (
                "compressed, not said how",
                3,
                raw(None, 1, good.len() as u32, good.clone()).await,
            ),
            ("strange flag", 3, raw(None, 2, good.len() as u32, good.clone()).await),
            ("longer than announced", 3, raw(None, 0, 2, good.clone()).await),
            (
                "shorter than announced",
                3,
                raw(None, 0, 1000 + good.len() as u32, good.clone()).await,
            ),
            (
                "announces four gigabytes",
                3,
                raw(None, 0, u32::MAX, good.clone()).await,
            ),
            ("no message", 3, raw_call(grpc_at, None, Bytes::new()).await),
            (
                "half a prefix",
                3,
                raw_call(grpc_at, None, Bytes::from_static(&[0, 0])).await,
            ),
        ] {
            assert_eq!(call.0, code, "{what}: {call:?}");
            assert!(!call.1.is_empty(), "{what}: says nothing");
            told += 1;
        }
        told
    });
    assert!(told >= 80, "only {told} calls");
    finish(node, http_at);
}

/// The status and message of a call made of the given bytes.
async fn raw_call(address: std::net::SocketAddr, encoding: Option<&str>, body: Bytes) -> (i32, String) {
    use http_body_util::{BodyExt, Full};
    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
        .http2_only(true)
        .build_http::<Full<Bytes>>();
    let mut request = http::Request::post(format!("http://{address}{}", PATHS[0].2))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    if let Some(encoding) = encoding {
        request = request.header("grpc-encoding", encoding);
    }
    let response = client.request(request.body(Full::new(body)).unwrap()).await.unwrap();
    let mut headers = response.headers().clone();
    if let Some(trailers) = response.into_body().collect().await.unwrap().trailers() {
        headers.extend(trailers.clone());
    }
    let text = |name: &str| {
        headers
            .get(name)
            .map(|v| v.to_str().unwrap().to_owned())
            .unwrap_or_default()
    };
    (text("grpc-status").parse().unwrap_or(-1), text("grpc-message"))
}

/// Nothing was stored, and a good request still is.
fn finish(node: TestNode, http_at: std::net::SocketAddr) {
    let status = node.status.snapshot();
    assert_eq!((status.accepted.log, status.spool.batches), (0, 0));
    let good = request(Signal::Log, "ok", 5, "x");
    assert!(
        node.runtime
            .block_on(async { client::send(&http(), http_at, "/v1/logs", good).await })
    );
    assert_eq!(node.status.snapshot().accepted.log, 5);
    node.stop();
}
