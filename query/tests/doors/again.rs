//! The same question again: answered from what was answered before, to the same tenant alone, and told in the metrics.

use serde_json::json;
use sluice_query::QueryConfig;

use super::node::Node;

const COUNT: &str = "SELECT count(*) AS n, min(body) AS first FROM events";

async fn metric(node: &Node, name: &str) -> u64 {
    let text = node.send(node.get("/metrics"), "").await.text();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
    line.unwrap_or_else(|| panic!("no {name} in\n{text}")).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dashboard_is_answered_again_without_a_scan_and_each_tenant_has_its_own() {
    let node = Node::start().await;
    let (again, made) = ("sluice_query_answers_again_total", "sluice_query_answers_made_total");
    let first = node.ask(&node.acme, COUNT).await;
    assert_eq!(first.rows(), [[json!(8), json!("canary-acme said \"hi\", 0")]]);
    assert_eq!((metric(&node, again).await, metric(&node, made).await), (0, 1));
    let read = metric(&node, "sluice_query_lake_reads_total").await;
    assert!(read > 0);
    let second = node.ask(&node.acme, COUNT).await;
    assert_eq!(second.rows(), first.rows());
    assert_eq!(second.json()["completeness"]["complete"], true);
    assert_eq!((metric(&node, again).await, metric(&node, made).await), (1, 1));
    assert_eq!(metric(&node, "sluice_query_lake_reads_total").await, read);
    assert!(metric(&node, "sluice_query_answers_bytes").await > 0);

    let other = node.ask(&node.beta, COUNT).await.rows();
    assert_eq!(other[0][1], "canary-beta said \"hi\", 0");
    let all = node.ask(&node.operator, COUNT).await.rows();
    assert_eq!(all[0][0], 16);
    assert_eq!(metric(&node, again).await, 1);
    // Parameters are part of the question.
    for (number, wanted) in [(9, 2), (9, 2), (12, 2), (99, 0)] {
        let question = json!({"sql": "SELECT count(*) FROM events WHERE severity = $1", "params": [number]});
        assert_eq!(node.ask_with(&node.acme, question).await.rows()[0][0], wanted);
    }
    assert_eq!(metric(&node, again).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_room_every_answer_is_made() {
    let mut config = QueryConfig::default();
    config.cache.answers = 0;
    let node = Node::with(config, 4).await;
    for _ in 0..2 {
        assert_eq!(node.ask(&node.acme, COUNT).await.rows()[0][0], 8);
    }
    assert_eq!(metric(&node, "sluice_query_answers_again_total").await, 0);
    assert_eq!(metric(&node, "sluice_query_answers_bytes").await, 0);
}
