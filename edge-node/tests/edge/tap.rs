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
fn p13_a_closed_tap_shows_nothing_and_opens_and_closes_without_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let token_file = dir.path().join("admin-token");
    let node = TestNode::start(config.clone());
    let admin = node.address("http");
    let ask = |token: Option<&str>| {
        let (status, text) = node.runtime.block_on(tap(admin, "rows=1&wait=10ms", token));
        (status, String::from_utf8_lossy(&text).into_owned())
    };
    let reload = |open: bool| {
        let mut config = config.clone();
        config.admin.tap = open;
        node.runtime.block_on(node.status.reload(&config))
    };
    let (status, says) = ask(Some("anything"));
    assert_eq!(status, 403);
    for part in ["tap = true", "[admin]", "[edge.admin]", "SIGHUP"] {
        assert!(says.contains(part), "{says}");
    }
    assert!(!token_file.exists());
    reload(true).unwrap();
    let token = std::fs::read_to_string(&token_file).unwrap();
    let (none, wrong) = (ask(None), ask(Some("guess")));
    assert_eq!((none.0, wrong.0), (401, 401));
    assert!(
        none.1.contains("Bearer") && wrong.1.contains("not the token"),
        "{none:?} {wrong:?}"
    );
    assert_eq!(ask(Some(token.trim())).0, 204);
    // A token that others may read opens nothing.
    std::fs::set_permissions(&token_file, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let error = reload(true).unwrap_err().to_string();
    assert!(error.contains("chmod 600"), "{error}");
    assert_eq!(ask(Some(token.trim())).0, 403);
    // Another token in its place is the one that counts.
    std::fs::remove_file(&token_file).unwrap();
    reload(true).unwrap();
    assert_eq!(ask(Some(token.trim())).0, 401);
    reload(false).unwrap();
    assert_eq!(ask(None).0, 403);
    node.stop();
}
