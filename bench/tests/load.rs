//! The load generator against a small receiver written for this test, which answers as it is told to.
#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use prost::Message;
use sluice_bench::corpus::Signal;
use sluice_bench::load::{self, Compression, LoadOptions, LoadReport, Protocol, Target};
use sluice_bench::oracle::Oracle;

const SEED: u64 = 11;
const COUNT: u64 = 900;
const BATCH: usize = 30;

type Answer = BoxBody<Bytes, Infallible>;

/// What a receiver does with every third request; it takes the others.
#[derive(Clone, Copy, PartialEq)]
enum Mood {
    Kind,
    Refuses,
    HangsUp,
    TakesPart,
}

struct Receiver {
    mood: Mood,
    requests: AtomicU64,
    /// Ids of what it took.
    ids: Mutex<HashSet<String>>,
    connections: AtomicU64,
}

impl Receiver {
    async fn start(mood: Mood) -> (Arc<Receiver>, SocketAddr) {
        let receiver = Arc::new(Receiver {
            mood,
            requests: AtomicU64::new(0),
            ids: Mutex::default(),
            connections: AtomicU64::new(0),
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = receiver.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                shared.connections.fetch_add(1, Ordering::Relaxed);
                let shared = shared.clone();
                let service = hyper::service::service_fn(move |request| shared.clone().answer(request));
                tokio::spawn(async move {
                    let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    let _ = server.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        (receiver, address)
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Answer>, &'static str> {
        let grpc = request.uri().path().starts_with("/opentelemetry");
        let encoding = request
            .headers()
            .get(if grpc { "grpc-encoding" } else { "content-encoding" });
        let encoding = encoding
            .map(|value| value.to_str().unwrap().to_owned())
            .unwrap_or_default();
        let body = request
            .into_body()
            .collect()
            .await
            .map_err(|_| "broken body")?
            .to_bytes();
        let body = if grpc { body.slice(5..) } else { body };
        let third = self.requests.fetch_add(1, Ordering::Relaxed) % 3 == 2;
        match self.mood {
            Mood::HangsUp if third => return Err("hangs up"),
            Mood::Refuses if third => {
                return Ok(if grpc {
                    grpc_answer(8, b"")
                } else {
                    http_answer(429, b"full")
                });
            }
            _ => {}
        }
        self.take(&unpacked(&encoding, &body));
        // Export answer with a partial success: one event rejected, "one was bad".
        let part = b"\x0a\x0f\x08\x01\x12\x0bone was bad";
        let answer: &[u8] = if self.mood == Mood::TakesPart && third {
            part
        } else {
            b""
        };
        Ok(if grpc {
            grpc_answer(0, answer)
        } else {
            http_answer(200, answer)
        })
    }

    fn take(&self, body: &[u8]) {
        let request = ExportLogsServiceRequest::decode(body).unwrap();
        let mut ids = self.ids.lock().unwrap();
        for log in request.resource_logs.iter().flat_map(|r| &r.scope_logs[0].log_records) {
            let id = format!("{:?}", log.attributes[0].value.as_ref().unwrap());
            assert!(ids.insert(id), "an event was sent twice");
        }
    }
}

fn grpc_answer(code: u16, message: &[u8]) -> Response<Answer> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", code.into());
    let mut framed = vec![0];
    framed.extend((message.len() as u32).to_be_bytes());
    framed.extend(message);
    let body = if code == 0 { Full::from(framed) } else { Full::default() };
    let body = body.with_trailers(std::future::ready(Some(Ok(trailers)))).boxed();
    Response::builder()
        .header("content-type", "application/grpc")
        .body(body)
        .unwrap()
}

fn http_answer(status: u16, message: &'static [u8]) -> Response<Answer> {
    Response::builder()
        .status(status)
        .body(Full::from(message).boxed())
        .unwrap()
}

fn unpacked(encoding: &str, body: &[u8]) -> Vec<u8> {
    use std::io::Read;
    let mut plain = Vec::new();
    match encoding {
        "gzip" => flate2::read::GzDecoder::new(body)
            .read_to_end(&mut plain)
            .map(drop)
            .unwrap(),
        "zstd" => plain = zstd::decode_all(body).unwrap(),
        _ => plain = body.to_vec(),
    }
    plain
}

async fn run(
    mood: Mood,
    target: impl Fn(SocketAddr) -> Target,
    until_accepted: bool,
) -> (Arc<Receiver>, LoadReport, Arc<Oracle>) {
    let (receiver, address) = Receiver::start(mood).await;
    let oracle = Arc::new(Oracle::new(SEED));
    let options = LoadOptions {
        target: target(address),
        seed: SEED,
        signals: vec![Signal::Log],
        first_request: 5,
        batch: BATCH,
        count: COUNT,
        until_accepted,
        rate: None,
        concurrency: 3,
    };
    let report = load::run(options, oracle.clone(), Arc::new(AtomicBool::new(false)))
        .await
        .unwrap();
    (receiver, report, oracle)
}

fn target(protocol: Protocol, compression: Compression) -> impl Fn(SocketAddr) -> Target {
    move |address| Target {
        compression,
        ..Target::new(protocol, format!("http://{address}"))
    }
}

#[tokio::test]
async fn every_protocol_and_compression_delivers_every_event_once() {
    for protocol in [Protocol::Grpc, Protocol::Http] {
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let (receiver, report, oracle) = run(Mood::Kind, target(protocol, compression), false).await;
            assert_eq!(
                (report.accepted, report.refused, report.unknown),
                (COUNT, 0, 0),
                "{:?}",
                report.errors
            );
            assert_eq!(receiver.ids.lock().unwrap().len() as u64, COUNT);
            assert_eq!(oracle.acknowledged_events(), COUNT);
            assert_eq!(report.next_request, 5 + COUNT / BATCH as u64);
            assert!(receiver.connections.load(Ordering::Relaxed) <= 3);
        }
    }
}

#[tokio::test]
async fn refusals_and_silence_are_told_apart_and_made_up_for_with_new_events() {
    for protocol in [Protocol::Grpc, Protocol::Http] {
        for mood in [Mood::Refuses, Mood::HangsUp] {
            let (receiver, report, oracle) = run(mood, target(protocol, Compression::None), true).await;
            assert!(report.accepted >= COUNT && report.accepted < COUNT + 3 * BATCH as u64);
            assert_eq!(receiver.ids.lock().unwrap().len() as u64, report.accepted);
            assert_eq!(oracle.acknowledged_events(), report.accepted);
            let failed = (report.refused, report.unknown);
            match mood {
                Mood::Refuses => assert!(failed.0 > 0 && failed.1 == 0, "{failed:?} {:?}", report.errors),
                _ => assert!(failed.0 == 0 && failed.1 > 0, "{failed:?} {:?}", report.errors),
            }
        }
    }
}

#[tokio::test]
async fn what_was_rejected_in_part_does_not_count_as_accepted() {
    for protocol in [Protocol::Grpc, Protocol::Http] {
        let (_, report, oracle) = run(Mood::TakesPart, target(protocol, Compression::None), false).await;
        assert_eq!((report.accepted, report.rejected), (COUNT - 10, 10));
        assert_eq!(report.errors, ["one was bad"]);
        assert_eq!(oracle.acknowledged_events(), COUNT - 10 * BATCH as u64);
    }
}

/// Nobody there: nothing is accepted, and the run ends.
#[tokio::test]
async fn a_receiver_that_is_not_there_is_said_to_be_not_there() {
    let nobody = |_| Target {
        timeout: Duration::from_secs(5),
        ..Target::new(Protocol::Http, "http://127.0.0.1:1")
    };
    let (_, report, _) = run(Mood::Kind, nobody, false).await;
    assert_eq!((report.accepted, report.unknown), (0, COUNT));
    assert!(report.errors[0].starts_with("not connected"), "{:?}", report.errors);
}
