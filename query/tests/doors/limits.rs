//! A query ends at its limits with a word that says which, and leaves room for the others.

use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::json;
use sluice_query::QueryConfig;
use sluice_query::config::LimitsConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::node::Node;

/// Runs until it is stopped.
const ENDLESS: &str = "SELECT count(*) FROM range(100000000000) a WHERE a.value % 7 = 3";

fn limited(change: impl FnOnce(&mut LimitsConfig)) -> QueryConfig {
    let mut config = QueryConfig::default();
    change(&mut config.limits);
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_rows_and_bytes_end_a_query_with_a_clear_word() {
    let node = Node::with(
        limited(|l| {
            l.memory = 4 << 20;
            l.spill = 0;
            l.max_rows = 1_000;
            l.max_answer = 4_000;
            l.max_request = 2_000;
            l.threads = 2;
        }),
        4,
    )
    .await;
    for hungry in [
        "SELECT (value * 7919) % 500009, count(*) FROM range(500000) GROUP BY 1 ORDER BY 2 LIMIT 1",
        "SELECT a.value FROM range(1000000) a JOIN range(1000000) b ON a.value = b.value ORDER BY 1 DESC LIMIT 1",
    ] {
        let reply = node.ask(&node.acme, hungry).await;
        assert_eq!(reply.refused(), (422, "memory_limit".into()), "{hungry}");
        assert!(reply.text().contains("limits.memory"), "{}", reply.text());
    }
    let many = "SELECT value FROM range(5000)";
    assert_eq!(
        node.ask_as(&node.acme, "text/csv", "SELECT value FROM range(1000)")
            .await
            .status,
        200
    );
    assert_eq!(
        node.ask(&node.acme, many).await.refused(),
        (422, "too_many_rows".into())
    );
    assert_eq!(
        node.ask(&node.acme, "SELECT repeat('x', 5000)").await.refused(),
        (422, "answer_too_large".into())
    );
    let long = format!("SELECT '{}'", "x".repeat(3_000));
    assert_eq!(node.ask(&node.acme, &long).await.refused(), (400, "bad_request".into()));

    let cut = node.ask_with(&node.acme, json!({"sql": many, "max_rows": 3})).await;
    assert_eq!(cut.rows(), [[0], [1], [2]]);
    assert_eq!(cut.json()["stats"]["truncated"], true);
    let whole = node
        .ask_with(&node.acme, json!({"sql": "SELECT value FROM range(3)", "max_rows": 3}))
        .await;
    assert_eq!(
        whole.json()["stats"],
        json!({"rows": 3, "truncated": false, "elapsed_ms": whole.json()["stats"]["elapsed_ms"]})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_tenant_cannot_take_the_places_of_another_and_a_client_that_goes_gives_its_place_back() {
    let node = Node::with(
        limited(|l| {
            l.concurrency = 2;
            l.tenant_concurrency = 1;
            l.queue_wait = Duration::from_millis(200);
            l.long_after = Duration::from_secs(600);
            l.threads = 2;
        }),
        4,
    )
    .await;
    let running = async |node: &Node| -> u64 {
        let request = node.get("/metrics");
        let text = node.send(request, "").await.text();
        let line = text.lines().find(|l| l.starts_with("sluice_query_running ")).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    {
        let endless = node.ask_with(&node.acme, json!({"sql": ENDLESS, "timeout_ms": 120_000}));
        tokio::pin!(endless);
        let mut now = 0;
        while now == 0 {
            tokio::select! {
                _ = &mut endless => panic!("it does not end by itself"),
                n = running(&node) => now = n,
            }
        }
        let others = async {
            let mine = node.ask(&node.acme, "SELECT 1").await;
            assert_eq!(mine.refused(), (429, "busy".into()));
            assert!(mine.headers.contains_key("retry-after"));
            assert_eq!(node.ask(&node.beta, "SELECT 1").await.rows(), [[1]]);
        };
        tokio::select! {
            _ = &mut endless => panic!("it does not end by itself"),
            () = others => {}
        }
    }
    // the request was dropped with the block: its connection closed, so the query ends
    while running(&node).await > 0 {
        tokio::task::yield_now().await;
    }
    let asked = json!({"sql": ENDLESS, "timeout_ms": 300});
    let late = node.ask_with(&node.acme, asked).await;
    assert_eq!(late.refused(), (504, "timeout".into()));
    assert!(late.text().contains("300 ms"), "{}", late.text());
    while running(&node).await > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(node.ask(&node.acme, "SELECT 1").await.rows(), [[1]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_never_looks_whole() {
    let node = Node::with(limited(|l| l.max_rows = 100_000), 4).await;
    // what fails early is told, what fails after the answer began breaks it off
    let early = node
        .ask_as(
            &node.acme,
            "application/x-ndjson",
            "SELECT value, 1 / (value - 10) FROM range(20)",
        )
        .await;
    assert_eq!(early.refused(), (422, "execution".into()));
    let late = json!({"sql": "SELECT value, repeat('x', 100) FROM range(200000)"});
    let request = node
        .post("/v1/sql", &node.acme)
        .header("accept", "application/x-ndjson");
    let request = request.body(Full::new(bytes::Bytes::from(late.to_string()))).unwrap();
    let client = Client::builder(TokioExecutor::new()).build_http();
    if let Ok(response) = client.request(request).await {
        assert_eq!(response.status(), 200, "rows had already begun");
        assert!(response.into_body().collect().await.is_err(), "the answer looks whole");
    }
}

/// What is read counts, and not what a filter leaves of it.
#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_a_filter_drops_count_as_read() {
    let sql = "SELECT count(*) FROM events WHERE body LIKE '%in no row%'";
    let node = Node::with(limited(|l| l.max_scan = 200), 4).await;
    let reply = node.ask(&node.acme, sql).await;
    assert_eq!(reply.refused(), (422, "scan_limit".into()));
    assert!(
        reply.text().contains("`limits.max_scan` allows, which is 200 bytes"),
        "{}",
        reply.text()
    );
    let node = Node::start().await;
    assert_eq!(node.ask(&node.acme, sql).await.rows(), [[0]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_would_make_too_much_is_refused_at_the_door() {
    let node = Node::start().await;
    let reply = node
        .ask(&node.acme, "SELECT repeat(body, 2000000000) FROM events")
        .await;
    assert_eq!(reply.refused(), (422, "memory_limit".into()));
    assert!(
        reply.text().contains("`repeat`") && reply.text().contains("`limits.memory`"),
        "{}",
        reply.text()
    );
    let refused = node.ask(&node.acme, "SELECT wsum(DISTINCT severity) FROM events").await;
    assert_eq!(refused.refused(), (400, "unsupported".into()));
}

/// How many files others have is nobody else's business.
#[tokio::test(flavor = "multi_thread")]
async fn a_plan_tells_a_tenant_of_its_own_files_alone() {
    let node = Node::apart().await;
    let files = async |token: &str| -> u64 {
        let text = node.ask(token, "EXPLAIN SELECT body FROM events").await.text();
        assert!(!text.contains("other tenants"), "{text}");
        let (_, after) = text.split_once("cold: ").unwrap_or_else(|| panic!("{text}"));
        let (counts, _) = after.split_once(" files").unwrap();
        counts.rsplit(' ').next().unwrap().parse().unwrap()
    };
    let (acme, beta, all) = (
        files(&node.acme).await,
        files(&node.beta).await,
        files(&node.operator).await,
    );
    assert!(acme < all && beta < all, "{acme} and {beta} of {all}");
}

/// P15: who connects and asks nothing keeps nobody out for long, whether a word of HTTP was said or none.
#[tokio::test(flavor = "multi_thread")]
async fn p15_connections_that_say_nothing_are_closed() {
    let node = Node::with(limited(|l| l.connections = 2), 0).await;
    let mut silent = tokio::net::TcpStream::connect(node.address).await.unwrap();
    let mut half = tokio::net::TcpStream::connect(node.address).await.unwrap();
    half.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let reply = tokio::time::timeout(Duration::from_secs(120), node.ask(&node.acme, "SELECT 1")).await;
    assert_eq!(reply.unwrap().status, 200);
    for stream in [&mut silent, &mut half] {
        let mut rest = Vec::new();
        let end = tokio::time::timeout(Duration::from_secs(120), stream.read_to_end(&mut rest)).await;
        assert!(end.is_ok(), "it is still open");
    }
}
