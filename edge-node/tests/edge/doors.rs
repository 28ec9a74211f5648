//! P15: a connection that sends nothing, or half of something, does not keep its place at a door.

use std::net::SocketAddr;
use std::time::Duration;

use sluice_wire::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{self, Grpc, PATHS, http, request};
use crate::node::{TestNode, config};

/// Far beyond the limits of the tests, and below those of the defaults.
const PATIENCE: Duration = Duration::from_secs(50);
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// No settings.
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

async fn connect(address: SocketAddr, says: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(says).await.unwrap();
    stream
}

/// What the node still says until it closes the connection.
async fn closed(mut stream: TcpStream) -> Vec<u8> {
    let mut said = Vec::new();
    let end = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut said)).await;
    // A reset is an end, too.
    let _ = end.expect("the connection keeps its place");
    said
}

#[test]
fn p15_connections_without_a_request_give_their_places_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.accept.max_connections = 4;
    config.accept.first_request_timeout = Duration::from_secs(2);
    let node = TestNode::start(config);
    let (grpc_at, http_at) = (node.address("otlp-grpc"), node.address("otlp-http"));
    node.runtime.block_on(async {
        for address in [grpc_at, http_at, node.address("http")] {
            // As many as the door has places: nothing, half a preface, half a head, and a session without a request.
            let silent = [
                connect(address, b"").await,
                connect(address, &PREFACE[..9]).await,
                connect(address, b"POST /v1/logs HTTP/1.1\r\nhost: a\r\n").await,
                connect(address, &[PREFACE, SETTINGS].concat()).await,
            ];
            if address == http_at {
                let body = request(Signal::Log, "h", 1, "x");
                let http = http();
                let sent = client::send(&http, address, "/v1/logs", body);
                assert!(tokio::time::timeout(PATIENCE, sent).await.expect("all places are kept"));
            }
            if address == grpc_at {
                let grpc = Grpc::new(address);
                let sent = grpc.call(PATHS[0].2, request(Signal::Log, "g", 1, "x"), None);
                tokio::time::timeout(PATIENCE, sent)
                    .await
                    .expect("all places are kept")
                    .unwrap();
            }
            for stream in silent {
                closed(stream).await;
            }
        }
    });
    node.stop();
}

#[test]
fn p15_a_connection_that_was_used_and_is_silent_is_closed_and_one_at_work_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.accept.first_request_timeout = Duration::from_secs(2);
    config.accept.idle_timeout = Duration::from_secs(2);
    let node = TestNode::start(config);
    let address = node.address("otlp-http");
    node.runtime.block_on(async {
        let body = request(Signal::Log, "w", 3, "x");
        let head = format!(
            "POST /v1/logs HTTP/1.1\r\nhost: a\r\ncontent-type: application/x-protobuf\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        // The body takes longer than the limits of silence: three connections are closed for it meanwhile.
        let mut slow = connect(address, &[head.as_bytes(), &body[..5]].concat()).await;
        for _ in 0..3 {
            closed(connect(address, b"").await).await;
        }
        slow.write_all(&body[5..]).await.unwrap();
        let said = closed(slow).await;
        assert!(said.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&said));
    });
    assert_eq!(node.status.snapshot().accepted.log, 3);
    node.stop();
}
