//! Events as they come in, for whoever has the token.

use std::net::SocketAddr;

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use http_body_util::{BodyExt, Full};
use sluice_wire::Signal;
use sluice_wire::layout::{self, IpcLimits};

use crate::client::{PROTOBUF, http, post, request};
use crate::node::{TestNode, config};
use crate::plugins::plugin;

async fn tap(address: SocketAddr, query: &str, token: Option<&str>) -> (u16, bytes::Bytes) {
    let mut request = http::Request::get(format!("http://{address}/v1/tap?{query}"));
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let response = http().request(request.body(Full::default()).unwrap()).await.unwrap();
    let status = response.status().as_u16();
    (status, response.into_body().collect().await.unwrap().to_bytes())
}

fn bodies(rows: &RecordBatch) -> Vec<String> {
    let column = arrow_cast::cast(rows.column_by_name("body").unwrap(), &arrow_schema::DataType::Utf8).unwrap();
    column.as_string::<i32>().iter().flatten().map(str::to_owned).collect()
}

#[test]
fn p13_the_tap_shows_what_comes_in_before_the_mask_and_only_with_the_token() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.plugin = vec![plugin("m", "mask", "{}")];
    config.admin.tap = true;
    let node = TestNode::start(config);
    let (admin, otlp) = (node.address("http"), node.address("otlp-http"));
    let token = std::fs::read_to_string(dir.path().join("admin-token")).unwrap();
    let token = token.trim();
    node.runtime.block_on(async {
        for wrong in [None, Some(""), Some("guess"), Some(&token[1..])] {
            assert_eq!(tap(admin, "rows=1&wait=50ms", wrong).await.0, 401, "{wrong:?}");
        }
        assert_eq!(tap(admin, "rows=none", Some(token)).await.0, 400);
        assert_eq!(tap(admin, "wait=10ms", Some(token)).await.0, 204, "nothing came in");

        let listening = tap(admin, "rows=4&signal=log&wait=30s", Some(token));
        let sending = async {
            // Until the listener has what it asked for.
            loop {
                for signal in [Signal::Span, Signal::Log] {
                    let (_, path, _) = crate::client::PATHS.iter().find(|(s, _, _)| *s == signal).unwrap();
                    let body = request(signal, "x", 3, "mail kim@example.com");
                    let answer = post(&http(), otlp, path, PROTOBUF, body).await.unwrap();
                    assert_eq!(answer.status, 200);
                }
            }
        };
        let (status, bytes) = tokio::select! {
            seen = listening => seen,
            () = sending => unreachable!(),
        };
        assert_eq!(status, 200);
        let rows = layout::from_ipc(&bytes, &IpcLimits::default()).unwrap();
        let seen = bodies(&rows);
        assert_eq!(seen.len(), 4);
        assert!(seen.iter().all(|body| body.contains("kim@example.com")), "{seen:?}");
    });
    node.stop();
}

#[test]
fn p13_a_closed_tap_shows_nothing_and_makes_no_token() {
    let dir = tempfile::tempdir().unwrap();
    let node = TestNode::start(config(dir.path()));
    let admin = node.address("http");
    assert_eq!(node.runtime.block_on(tap(admin, "rows=1", Some("anything"))).0, 403);
    assert!(!dir.path().join("admin-token").exists());
    node.stop();
}
