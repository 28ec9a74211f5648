//! A query that is ended, or not let in, is told which limit it was, its value, and what to do.

use serde_json::json;
use sluice_query::QueryConfig;

use super::node::Node;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_ended_names_its_limit_its_value_and_a_way_out() {
    let mut config = QueryConfig::default();
    config.limits.memory = 4 << 20;
    config.limits.total_memory = 4 << 20;
    config.limits.spill = 0;
    config.limits.max_scan = 8 << 20;
    config.limits.max_rows = 1_000;
    config.limits.threads = 2;
    let node = Node::with(config, 4).await;
    for (question, code, says) in [
        (
            json!({"sql": "SELECT count(*) FROM range(4000000) WHERE value % 3 = 1"}),
            "scan_limit",
            "`limits.max_scan` allows, which is 8388608 bytes",
        ),
        (
            json!({"sql": "SELECT a.value FROM range(400000) a JOIN range(400000) b ON a.value = b.value ORDER BY 1 DESC LIMIT 1"}),
            "memory_limit",
            "which is 4194304 bytes",
        ),
        (
            json!({"sql": "SELECT value FROM range(5000)"}),
            "too_many_rows",
            "`limits.max_rows` allows, which is 1000",
        ),
        (
            json!({"sql": "WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM t) SELECT count(*) FROM t", "timeout_ms": 200}),
            "timeout",
            "200 ms",
        ),
    ] {
        let reply = node.ask_with(&node.acme, question.clone()).await;
        let problem = reply.json();
        assert_eq!(problem["code"], code, "{question}: {problem}");
        assert!(
            problem["detail"].as_str().unwrap().contains(says),
            "{question}: {problem}"
        );
        assert!(
            problem["hint"].as_str().is_some_and(|hint| hint.len() > 10),
            "{question}: {problem}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_has_an_end() {
    let mut config = QueryConfig::default();
    config.limits.concurrency = 1;
    config.limits.tenant_concurrency = 1;
    config.limits.queue = 2;
    config.limits.tenant_queue = 1;
    config.limits.long_after = std::time::Duration::from_secs(600);
    config.limits.threads = 2;
    let node = Node::with(config, 4).await;
    let endless =
        json!({"sql": "SELECT count(*) FROM range(100000000000) a WHERE a.value % 7 = 3", "timeout_ms": 120_000});
    let first = node.ask_with(&node.acme, endless.clone());
    let second = node.ask(&node.acme, "SELECT 2");
    let check = async {
        while running(&node).await == 0 {
            tokio::task::yield_now().await;
        }
        // one of this tenant waits already, or this one does: one of two is told to come back at once
        let third = node.ask(&node.acme, "SELECT 3");
        tokio::pin!(second, third);
        let told = tokio::select! {
            told = &mut second => told,
            told = &mut third => told,
        };
        assert_eq!(told.refused(), (429, "busy".into()));
        assert!(
            told.text().contains("`limits.tenant_queue`") && told.headers.contains_key("retry-after"),
            "{}",
            told.text()
        );
    };
    tokio::select! {
        _ = first => panic!("it does not end by itself"),
        () = check => {}
    }
}

async fn running(node: &Node) -> u64 {
    let text = node.send(node.get("/metrics"), "").await.text();
    let line = text.lines().find(|l| l.starts_with("sluice_query_running ")).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}
