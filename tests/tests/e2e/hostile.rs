//! P15: a hundred hostile requests at each door of a real process. Each gets an answer that says what is wrong, none is
//! acknowledged, memory stays bounded, and the next good event is taken as if nothing had been.

use std::io::Write;

use bytes::Bytes;
use http_body_util::Full;
use opentelemetry_proto::tonic::common::v1::AnyValue;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use sluice_bench::corpus::{Corpus, Signal};
use sluice_bench::load::{Client, Compression, Outcome, Protocol, Target};
use sluice_bench::process::{HttpError, http_send};
use sluice_tests::{Node, SOON};

use crate::otlp::{attribute, one_log, post, text};

/// Name, address, content type, content encoding, body, and the statuses that say what is wrong.
type Case<'a> = (
    &'static str,
    &'a str,
    &'static str,
    Option<&'static str>,
    Vec<u8>,
    &'static [u16],
);

const REQUESTS: usize = 100;
/// Above what the process had before: the bodies that are read at once, and the allocator's slack.
const MEMORY_BOUND: u64 = 512 << 20;
const BOMB_BYTES: usize = 96 << 20;

/// Bodies that are no OTLP protobuf, in five ways.
fn malformed(number: usize, random: &mut StdRng) -> Vec<u8> {
    let good = Corpus::new(1).request(Signal::Log, number as u64, 10, 0);
    match number % 5 {
        // Cut anywhere but at the very ends.
        0 => good[..random.random_range(1..good.len() - 1)].to_vec(),
        // A wire type that does not exist, then noise.
        1 => {
            let mut noise = vec![0x0f; 1];
            noise.resize(random.random_range(2..5_000), 0);
            random.fill_bytes(&mut noise[1..]);
            noise
        }
        // A length that reaches beyond the end.
        2 => [&[0x0a, 0xff, 0xff, 0xff, 0xff, 0x07][..], &good].concat(),
        // A length of more bits than there are.
        3 => [&[0x0a][..], &[0xff; 11], &good].concat(),
        _ => deep(3_000),
    }
}

/// One log record with an attribute that is nested so deeply. Written by hand: message types would recurse.
fn deep(depth: usize) -> Vec<u8> {
    let mut value = field(1, b"bottom");
    for _ in 0..depth {
        // A value that is a list of one pair, whose value is the one before.
        let pair = [field(1, b"k"), field(2, &value)].concat();
        value = field(6, &field(1, &pair));
    }
    let attribute = [field(1, b"deep"), field(2, &value)].concat();
    let record = field(6, &attribute);
    field(1, &field(2, &field(2, &record)))
}

/// A length-delimited field of protobuf.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![number << 3 | 2];
    prost::encoding::encode_varint(content.len() as u64, &mut bytes);
    bytes.extend_from_slice(content);
    bytes
}

fn refused(outcome: &Outcome, what: &str) {
    match outcome {
        Outcome::Refused { message, .. } if message.len() > 15 => {}
        other => panic!("{what}: {other:?}"),
    }
}

async fn still_well(node: &mut Node, before: u64, mark: &str) {
    let mark = mark.to_owned();
    let target = Target::new(Protocol::Grpc, node.url("otlp-grpc").unwrap());
    let body = one_log("still here", vec![attribute("mark", text(&mark))]);
    let outcome = Client::connect(&target)
        .unwrap()
        .send(Signal::Log, Bytes::from(body))
        .await;
    assert!(outcome.is_accepted(), "{outcome:?}");
    node.rows(&format!("SELECT body FROM logs WHERE attrs['mark'] = '{mark}'"), 1)
        .await
        .unwrap();
    let process = node.process().unwrap();
    assert!(process.is_alive());
    let peak = process.memory().unwrap().1;
    assert!(
        peak < before + MEMORY_BOUND,
        "memory went from {before} to {peak} bytes"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn p15_a_hundred_hostile_requests_by_grpc_are_refused_one_by_one() {
    let mut node = Node::up().await.unwrap();
    let before = node.process().unwrap().memory().unwrap().1;
    let url = node.url("otlp-grpc").unwrap();
    let bodies = {
        let mut random = StdRng::seed_from_u64(1);
        (0..REQUESTS)
            .map(|number| malformed(number, &mut random))
            .collect::<Vec<_>>()
    };
    let client = |compression| {
        let target = Target {
            compression,
            ..Target::new(Protocol::Grpc, url.clone())
        };
        Client::connect(&target).unwrap()
    };
    let kinds = [Compression::None, Compression::Gzip, Compression::Zstd];
    let mut clients = kinds.map(client);
    for (number, body) in bodies.into_iter().enumerate() {
        let signal = if number % 5 == 4 {
            Signal::Log
        } else {
            Signal::ALL[number % 3]
        };
        let outcome = clients[number % 3].send(signal, Bytes::from(body)).await;
        refused(&outcome, &format!("request {number}"));
    }
    for compression in [Compression::Gzip, Compression::Zstd] {
        let bomb = Bytes::from(vec![0; BOMB_BYTES]);
        let outcome = client(compression).send(Signal::Log, bomb).await;
        assert!(!outcome.is_accepted(), "{compression:?} bomb: {outcome:?}");
    }
    still_well(&mut node, before, "after-grpc").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p15_a_hundred_hostile_requests_by_http_are_refused_one_by_one() {
    const PROTOBUF: &str = "application/x-protobuf";
    const JSON: &str = "application/json";
    let mut node = Node::up().await.unwrap();
    let before = node.process().unwrap().memory().unwrap().1;
    let base = node.url("otlp-http").unwrap();
    let logs = format!("{base}/v1/logs");
    let bodies = {
        let mut random = StdRng::seed_from_u64(2);
        (0..REQUESTS - 20)
            .map(|number| malformed(number, &mut random))
            .collect::<Vec<_>>()
    };
    for (number, body) in bodies.into_iter().enumerate() {
        let answer = post(&logs, PROTOBUF, None, body).await;
        assert_eq!(answer.status, 400, "request {number}: {}", answer.text());
        assert!(answer.body.len() > 10, "request {number}: says nothing");
    }

    let good = Corpus::new(1).request(Signal::Log, 1, 10, 0);
    let deep_json = format!("{}{}", "{\"resourceLogs\":[".repeat(3_000), "]}".repeat(3_000));
    let wrong_type = r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"timeUnixNano":{}}]}]}]}"#;
    let bad_hex = r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"traceId":"zz"}]}]}]}"#;
    let cases: [Case<'_>; 19] = [
        ("no JSON", &logs, JSON, None, b"{".to_vec(), &[400]),
        ("JSON array", &logs, JSON, None, b"[]".to_vec(), &[400]),
        ("JSON text", &logs, JSON, None, b"\"x\"".to_vec(), &[400]),
        ("protobuf as JSON", &logs, JSON, None, good.clone(), &[400]),
        ("JSON as protobuf", &logs, PROTOBUF, None, wrong_type.into(), &[400]),
        ("deep JSON", &logs, JSON, None, deep_json.into_bytes(), &[400]),
        ("wrong JSON type", &logs, JSON, None, wrong_type.into(), &[400]),
        ("bad hex", &logs, JSON, None, bad_hex.into(), &[400]),
        (
            "not UTF-8",
            &logs,
            JSON,
            None,
            b"{\"resourceLogs\":\"\xff\"}".to_vec(),
            &[400],
        ),
        ("content type", &logs, "text/plain", None, good.clone(), &[415]),
        ("no content type", &logs, "", None, good.clone(), &[400, 415]),
        ("encoding", &logs, PROTOBUF, Some("br"), good.clone(), &[400, 415]),
        ("not gzip", &logs, PROTOBUF, Some("gzip"), good.clone(), &[400]),
        ("not zstd", &logs, PROTOBUF, Some("zstd"), good.clone(), &[400]),
        ("cut gzip", &logs, PROTOBUF, Some("gzip"), half(gzip(&good)), &[400]),
        (
            "gzip bomb",
            &logs,
            PROTOBUF,
            Some("gzip"),
            gzip(&vec![0; BOMB_BYTES]),
            &[400, 413],
        ),
        (
            "zstd bomb",
            &logs,
            PROTOBUF,
            Some("zstd"),
            zstd::encode_all(&vec![0; BOMB_BYTES][..], 1).unwrap(),
            &[400, 413],
        ),
        (
            "path",
            &format!("{base}/v1/profiles"),
            PROTOBUF,
            None,
            good.clone(),
            &[404],
        ),
        (
            "path upwards",
            &format!("{base}/v1/../../etc/passwd"),
            PROTOBUF,
            None,
            good.clone(),
            &[404],
        ),
    ];
    for (what, url, content_type, encoding, body, statuses) in cases {
        let answer = post(url, content_type, encoding, body).await;
        assert!(
            statuses.contains(&answer.status.as_u16()),
            "{what}: {} {}",
            answer.status,
            answer.text()
        );
    }
    // Whoever sends far too much may find the connection closed before the answer is read; a receiver that read on to be
    // polite would be the one that is harmed.
    let request = http::Request::post(&logs).header("content-type", PROTOBUF);
    let request = request.body(Full::from(vec![0x0a; 80 << 20])).unwrap();
    match http_send(request, SOON).await {
        Ok(answer) => assert_eq!(answer.status, 413, "{}", answer.text()),
        Err(HttpError::Send(_)) => {}
        Err(error) => panic!("{error}"),
    }
    still_well(&mut node, before, "after-http").await;
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn half(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(bytes.len() / 2);
    bytes
}

/// What was refused whole can be refused in part: one bad event does not take its neighbours with it.
#[tokio::test(flavor = "multi_thread")]
async fn one_bad_event_does_not_take_its_neighbours_with_it() {
    let node = Node::up().await.unwrap();
    let good = one_log("good neighbour", vec![attribute("mark", text("part"))]);
    // The same record with a trace id of three bytes, in a resource group of its own: messages may be concatenated.
    let bad = {
        use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
        use prost::Message;
        let mut request = ExportLogsServiceRequest::decode(&good[..]).unwrap();
        request.resource_logs[0].scope_logs[0].log_records[0].trace_id = vec![1, 2, 3];
        request.resource_logs[0].scope_logs[0].log_records[0].body = Some(AnyValue {
            value: Some(text("bad")),
        });
        request.encode_to_vec()
    };
    let target = Target::new(Protocol::Grpc, node.url("otlp-grpc").unwrap());
    let outcome = Client::connect(&target)
        .unwrap()
        .send(Signal::Log, Bytes::from([good, bad].concat()))
        .await;
    let Outcome::Accepted { rejected: 1, note } = outcome else {
        panic!("{outcome:?}");
    };
    assert!(note.contains("trace"), "{note}");
    let answer = node
        .rows("SELECT body FROM logs WHERE attrs['mark'] = 'part'", 1)
        .await
        .unwrap();
    assert_eq!(answer.rows, [[serde_json::json!("good neighbour")]]);
}
