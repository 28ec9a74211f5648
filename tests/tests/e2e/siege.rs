//! P15: two hundred clients that want to hold as much of an edge node as they can, each in one of ten ways, and one that sends its logs.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use sluice_bench::corpus::Signal;
use sluice_bench::load::{self, Finished, LoadOptions, Observer, Protocol, Target};
use sluice_bench::process::{Process, Start, get};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

const CLIENTS: usize = 200;
/// What the edge may have in memory meanwhile.
const MEMORY_BOUND: u64 = 256 << 20;
/// What a request may claim to hold.
const CLAIM: usize = 4 << 20;
const EVENTS: u64 = 500;
/// Far above what the good client takes; what is not served is a failure and not a matter of speed.
const SERVED_WITHIN: Duration = Duration::from_secs(120);
/// Every way must have been tried so often before the siege counts as one.
const LEAST_TRIES: u64 = 20;
/// Between the pieces of whoever is slow on purpose.
const SLOW: Duration = Duration::from_millis(20);

/// What one attacker does with a connection; an error means that the node has had enough of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    SlowBody,
    SlowHeaders,
    EndlessHeaders,
    GzipBomb,
    ZstdBombByGrpc,
    ManyGrpcStreams,
    LargeNonsense,
    HalfAndAway,
    Silent,
    EndlessChunks,
}

const WAYS: [Way; 10] = [
    Way::SlowBody,
    Way::SlowHeaders,
    Way::EndlessHeaders,
    Way::GzipBomb,
    Way::ZstdBombByGrpc,
    Way::ManyGrpcStreams,
    Way::LargeNonsense,
    Way::HalfAndAway,
    Way::Silent,
    Way::EndlessChunks,
];

struct Siege {
    http: SocketAddr,
    grpc: SocketAddr,
    gzip: Bytes,
    zstd: Bytes,
    over: AtomicBool,
    tries: [AtomicU64; WAYS.len()],
}

#[tokio::test(flavor = "multi_thread")]
async fn p15_two_hundred_hostile_clients_neither_fill_the_memory_nor_keep_a_good_one_out() {
    let folder = tempfile::tempdir().unwrap();
    let edge = edge(folder.path()).await;
    let zeros = vec![0; 64 << 20];
    let siege = Arc::new(Siege {
        http: edge.address("otlp-http").unwrap(),
        grpc: edge.address("otlp-grpc").unwrap(),
        gzip: gzip(&zeros).into(),
        zstd: zstd::encode_all(zeros.as_slice(), 3).unwrap().into(),
        over: AtomicBool::new(false),
        tries: Default::default(),
    });
    drop(zeros);
    let mut attackers = JoinSet::new();
    for number in 0..CLIENTS {
        attackers.spawn(attack(siege.clone(), number));
    }
    let tried = || siege.tries.iter().all(|n| n.load(Ordering::Relaxed) >= LEAST_TRIES);
    let good = Arc::new(Good::default());
    let mut next = 0;
    // The good client goes on until every way was tried often enough.
    while next == 0 || !tried() {
        let options = LoadOptions {
            target: Target::new(Protocol::Grpc, edge.url("otlp-grpc").unwrap()),
            seed: 4,
            signals: vec![Signal::Log],
            first_request: next,
            batch: 100,
            count: EVENTS,
            until_accepted: true,
            rate: None,
            concurrency: 2,
        };
        let run = load::run(options, good.clone(), Arc::new(AtomicBool::new(false)));
        let report = tokio::time::timeout(SERVED_WITHIN, run).await;
        let Ok(report) = report else {
            let status = get(&format!("{}/v1/status", edge.url("http").unwrap()), None).await;
            let (refused, status) = (good.refused(), status.map(|answer| answer.text()));
            panic!("the good client is not served; refused {refused} times; {status:?}");
        };
        let report = report.unwrap();
        assert!(report.accepted >= EVENTS, "{report:?}");
        next = report.next_request;
    }
    siege.over.store(true, Ordering::Relaxed);
    attackers.shutdown().await;
    let peak = edge.memory().unwrap().1;
    let tries: Vec<_> = siege.tries.iter().map(|n| n.load(Ordering::Relaxed)).collect();
    eprintln!(
        "peak {} MiB, connections by way {tries:?}, refusals of the good client {}",
        peak >> 20,
        good.refused()
    );
    assert!(peak < MEMORY_BOUND, "peak {} MiB", peak >> 20);
}

/// Whoever is asked to wait comes again; what is accepted must have been accepted by somebody.
#[derive(Default)]
struct Good {
    refused: AtomicU64,
}

impl Good {
    fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

impl Observer for Good {
    fn finished(&self, request: &Finished) {
        if !request.outcome.is_accepted() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
    }
}

async fn edge(folder: &std::path::Path) -> Process {
    let binary: PathBuf = sluice_tests::binary().unwrap().with_file_name("sluice-edge");
    Start::edge(&binary, &folder.join("data")).spawn().await.unwrap()
}

async fn attack(siege: Arc<Siege>, number: usize) {
    let of = number % WAYS.len();
    while !siege.over.load(Ordering::Relaxed) {
        siege.tries[of].fetch_add(1, Ordering::Relaxed);
        // However it ends, the attacker begins anew.
        let once = once(&siege, WAYS[of]);
        let _ = tokio::time::timeout(Duration::from_secs(2), once).await;
        // It is the memory that is besieged; a processor that is given work without end has no reserve for anybody.
        tokio::time::sleep(SLOW * 10).await;
    }
}

async fn once(siege: &Siege, way: Way) -> std::io::Result<()> {
    let by_grpc = matches!(way, Way::ZstdBombByGrpc | Way::ManyGrpcStreams);
    let mut stream = TcpStream::connect(if by_grpc { siege.grpc } else { siege.http }).await?;
    let head = |more: &str| {
        format!("POST /v1/logs HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\n{more}\r\n\r\n")
    };
    match way {
        Way::SlowBody => {
            stream
                .write_all(head(&format!("content-length: {CLAIM}")).as_bytes())
                .await?;
            drip(&mut stream, &[b'x'; 1024]).await
        }
        Way::SlowHeaders => {
            stream.write_all(b"POST /v1/logs HTTP/1.1\r\nhost: ").await?;
            drip(&mut stream, b"y").await
        }
        Way::EndlessHeaders => {
            stream.write_all(b"POST /v1/logs HTTP/1.1\r\n").await?;
            loop {
                stream
                    .write_all(format!("x-{}: {}\r\n", "n".repeat(40), "v".repeat(8_000)).as_bytes())
                    .await?;
            }
        }
        Way::GzipBomb => {
            let more = format!("content-encoding: gzip\r\ncontent-length: {}", siege.gzip.len());
            stream.write_all(head(&more).as_bytes()).await?;
            stream.write_all(&siege.gzip).await?;
            answer(&mut stream).await
        }
        Way::ZstdBombByGrpc => {
            let mut bytes = preface();
            headers(&mut bytes, 1, true);
            let message = [&[1], (siege.zstd.len() as u32).to_be_bytes().as_slice(), &siege.zstd].concat();
            let pieces: Vec<_> = message.chunks(16_000).collect();
            for (at, piece) in pieces.iter().enumerate() {
                frame(&mut bytes, 0, u8::from(at + 1 == pieces.len()), 1, piece);
            }
            stream.write_all(&bytes).await?;
            answer(&mut stream).await
        }
        Way::ManyGrpcStreams => {
            let mut bytes = preface();
            for id in (1..200).step_by(2) {
                headers(&mut bytes, id, false);
                let claim = [&[0], (CLAIM as u32).to_be_bytes().as_slice()].concat();
                frame(&mut bytes, 0, 0, id, &claim);
            }
            stream.write_all(&bytes).await?;
            for id in (1..200).step_by(2).cycle() {
                let mut more = Vec::new();
                frame(&mut more, 0, 0, id, &[0; 600]);
                stream.write_all(&more).await?;
                tokio::time::sleep(SLOW / 20).await;
            }
            Ok(())
        }
        Way::LargeNonsense => {
            let body = vec![0x0a; CLAIM - 1];
            stream
                .write_all(head(&format!("content-length: {}", body.len())).as_bytes())
                .await?;
            stream.write_all(&body).await?;
            answer(&mut stream).await
        }
        Way::HalfAndAway => {
            stream
                .write_all(head(&format!("content-length: {CLAIM}")).as_bytes())
                .await?;
            stream.write_all(&vec![1; CLAIM / 2]).await
        }
        Way::Silent => answer(&mut stream).await,
        Way::EndlessChunks => {
            stream.write_all(head("transfer-encoding: chunked").as_bytes()).await?;
            let chunk = format!("4000\r\n{}\r\n", "z".repeat(0x4000));
            loop {
                stream.write_all(chunk.as_bytes()).await?;
            }
        }
    }
}

async fn drip(stream: &mut TcpStream, piece: &[u8]) -> std::io::Result<()> {
    loop {
        stream.write_all(piece).await?;
        tokio::time::sleep(SLOW).await;
    }
}

/// Reads until the node closes.
async fn answer(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut buffer = [0; 4096];
    while stream.read(&mut buffer).await? > 0 {}
    Ok(())
}

fn preface() -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    frame(&mut bytes, 4, 0, 0, &[]);
    bytes
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// A call of the logs service: method, scheme, path, authority and content type as literals of HPACK that index nothing.
fn headers(out: &mut Vec<u8>, stream: u32, is_zstd: bool) {
    let mut block = vec![0x83, 0x86];
    let mut literal = |name: &[u8], value: &str| {
        block.extend_from_slice(name);
        block.push(value.len() as u8);
        block.extend_from_slice(value.as_bytes());
    };
    literal(&[0x04], Signal::Log.grpc_path());
    literal(&[0x01], "x");
    literal(&[0x0f, 0x10], "application/grpc");
    if is_zstd {
        let name = [&[0x00, 13], b"grpc-encoding".as_slice()].concat();
        literal(&name, "zstd");
    }
    frame(out, 1, 4, stream, &block);
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}
