//! A plugin over rows that are stored: what it would have done with them, asked in SQL through the HTTP door.

use serde_json::{Value, json};
use sluice_tests::Node;

use crate::otlp::{attribute, one_log, post, text};

async fn rows(node: &Node, sql: &str) -> Vec<Value> {
    let answer = node
        .sql()
        .unwrap()
        .ask(sql)
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
    answer.rows.into_iter().map(Value::from).collect()
}

#[tokio::test]
async fn a_plugin_is_tried_on_stored_rows_and_changes_nothing() {
    let node = Node::up().await.unwrap();
    let url = format!("{}/v1/logs", node.url("otlp-http").unwrap());
    for n in 0..6 {
        let body = one_log(
            &format!("card 4111111111111111 of user {n}"),
            vec![attribute("n", text(&n.to_string()))],
        );
        assert_eq!(post(&url, "application/x-protobuf", None, body).await.status, 200);
    }
    node.rows("SELECT body FROM logs", 6).await.unwrap();

    let config = r#"{"drop": "attrs.n == \"2\" or attrs.n == \"4\"", "reason": "even"}"#;
    let asked = format!("apply('filter', 'signal = ''log'' AND attrs[''n''] <> ''0''', '{config}')");
    let dropped =
        format!("SELECT applied, applied_reason, count(*), min(\"offset\") >= 0 FROM {asked} GROUP BY 1, 2 ORDER BY 1");
    assert_eq!(
        rows(&node, &dropped).await,
        [json!(["dropped", "even", 2, true]), json!(["kept", null, 3, true])]
    );
    // The rows are whole, and where they came from.
    let same = format!(
        "SELECT count(*) FROM {asked} a JOIN events e ON a.\"partition\" = e.\"partition\" AND a.\"offset\" = e.\"offset\" \
         AND a.\"row\" = e.\"row\" WHERE a.body = e.body AND a.\"time\" = e.\"time\" AND a.trace_id = e.trace_id AND a.tenant = e.tenant \
         AND a.attrs['n'] = e.attrs['n'] AND a.service = e.service AND a.weight = e.weight"
    );
    assert_eq!(rows(&node, &same).await, [json!([5])]);

    // The same rows from a query, and again: the plugin of the first is not the one of the second.
    let asked =
        format!("apply('filter', TABLE(SELECT * FROM events WHERE signal = 'log' AND attrs['n'] <> '0'), '{config}')");
    for _ in 0..2 {
        let dropped = format!("SELECT applied, count(*) FROM {asked} GROUP BY 1 ORDER BY 1");
        assert_eq!(rows(&node, &dropped).await, [json!(["dropped", 2]), json!(["kept", 3])]);
    }

    // What it changes is seen in the answer alone.
    let masked = "SELECT count(*) FROM apply('mask', '', '{\"card\": \"redact\"}') \
                  WHERE body NOT LIKE '%4111111111111111%' AND applied = 'kept'";
    assert_eq!(rows(&node, masked).await, [json!([6])]);
    assert_eq!(
        rows(&node, "SELECT count(*) FROM logs WHERE body LIKE '%4111111111111111%'").await,
        [json!([6])]
    );

    // What is wrong is told; nothing of the node can be read by a configuration or a condition.
    for (sql, what) in [
        ("SELECT * FROM apply('no-such-plugin')", "no-such-plugin"),
        (
            "SELECT * FROM apply('filter', '', '{\"keep\": {\"env\": \"PATH\"}}')",
            "env",
        ),
        (
            "SELECT * FROM apply('filter', '', '{\"keep\": {\"file\": \"/etc/passwd\"}}')",
            "file",
        ),
        (
            "SELECT * FROM apply('filter', '', '{\"keep\": \"nonsense ((\"}')",
            "filter",
        ),
        ("SELECT * FROM apply('filter', 'no_column = 1')", "no_column"),
        (
            "SELECT * FROM apply('filter', '1 = (SELECT count(*) FROM events)')",
            "there is no table",
        ),
        ("SELECT * FROM apply('filter', '', 'no json')", "JSON"),
    ] {
        let error = node
            .sql()
            .unwrap()
            .ask(sql)
            .await
            .map(|answer| answer.rows.len())
            .unwrap_err();
        let told = sluice_tests::error_chain(&error);
        assert!(told.contains(what), "{sql}: {told}");
    }
}
