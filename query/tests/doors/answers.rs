//! What a good query is answered, in each format, and what a mistaken one is told.

use std::io::Cursor;

use arrow::ipc::reader::StreamReader;
use serde_json::{Value, json};
use sluice_query::QueryConfig;

use super::node::{Node, ROWS_PER_BATCH};

const TYPES: &str = "SELECT time, body, severity, attrs, attrs['big'] AS big, CAST(attrs['big'] AS BIGINT) AS n, \
     trace_id, CAST('NaN' AS DOUBLE) AS nan, 1.0 / 3 AS third, NULL AS nothing, '' AS empty, ['a', 'b'] AS list \
     FROM events ORDER BY time LIMIT 1";

#[tokio::test(flavor = "multi_thread")]
async fn json_keeps_every_digit_and_every_type() {
    let node = Node::start().await;
    let reply = node.ask(&node.acme, TYPES).await;
    assert_eq!(reply.headers["content-type"], "application/json");
    assert!(reply.text().contains("9007199254740993,"), "{}", reply.text());
    let answer = reply.json();
    let names: Vec<&str> = answer["columns"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["name"].as_str().unwrap())
        .collect();
    assert_eq!(names[..4], ["time", "body", "severity", "attrs"]);
    assert_eq!(answer["columns"][0]["type"], "timestamp(ns)");
    assert_eq!(answer["columns"][3]["type"], "map<string, string>");
    let row = &answer["rows"][0];
    assert_eq!(row[0], "2026-11-21T00:00:00.000000000Z");
    assert_eq!(row[1], "canary-acme said \"hi\", 0");
    assert_eq!(row[2], 9);
    assert_eq!(
        row[3],
        json!({"big": "9007199254740993", "http.route": "/cart", "who": "canary-acme"})
    );
    assert_eq!(row[5], 9_007_199_254_740_993_i64);
    assert_eq!(row[6], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(row[7], Value::Null);
    assert_eq!(row[9], Value::Null);
    assert_eq!(row[11], json!(["a", "b"]));
    assert_eq!(answer["stats"]["rows"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn hot_and_cold_are_one_table_and_the_answer_says_how_complete_it_is() {
    let node = Node::start().await;
    let reply = node
        .ask(
            &node.acme,
            "SELECT \"offset\", count(*) FROM events GROUP BY 1 ORDER BY 1",
        )
        .await;
    assert_eq!(reply.rows(), [[0, ROWS_PER_BATCH], [2, ROWS_PER_BATCH]]);
    let completeness = &reply.json()["completeness"];
    assert_eq!(
        (
            completeness["complete"].as_bool(),
            completeness["missing_records"].as_u64()
        ),
        (Some(true), Some(0))
    );
    assert_eq!(completeness["partitions"].as_array().unwrap().len(), 1);
    let stream = &completeness["streams"][0];
    assert!(
        stream["stream"].as_str().unwrap().starts_with("acme/site-1/"),
        "{stream}"
    );
    assert_eq!(stream["silent"], true, "its last record is old");

    let behind = Node::with(QueryConfig::default(), 9).await;
    for accept in [
        "application/json",
        "text/csv",
        "application/x-ndjson",
        "application/vnd.apache.arrow.stream",
    ] {
        let reply = behind.ask_as(&behind.acme, accept, "SELECT 1").await;
        let said: Value = match accept {
            "application/json" => reply.json()["completeness"].clone(),
            _ => serde_json::from_slice(reply.headers["sluice-completeness"].as_bytes()).unwrap(),
        };
        assert_eq!(
            (said["complete"].as_bool(), said["missing_records"].as_u64()),
            (Some(false), Some(5)),
            "{accept}"
        );
        assert!(said["oldest_missing_age_ms"].is_number(), "{accept}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_streaming_formats_hold_the_same_rows() {
    let node = Node::start().await;
    let sql = "SELECT time, body, attrs, NULL AS nothing, '' AS empty FROM events ORDER BY time";
    let rows = node.ask(&node.acme, sql).await.rows();
    assert_eq!(rows.len(), 2 * ROWS_PER_BATCH);

    let lines = node.ask_as(&node.acme, "application/x-ndjson", sql).await.text();
    let parsed: Vec<Value> = lines.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    for (line, row) in parsed.iter().zip(&rows) {
        assert_eq!(
            (&line["time"], &line["body"], &line["attrs"]),
            (&row[0], &row[1], &row[2])
        );
    }
    assert_eq!(parsed.len(), rows.len());

    let csv = node.ask_as(&node.acme, "text/csv", sql).await.text();
    let mut lines = csv.split("\r\n");
    assert_eq!(lines.next(), Some("time,body,attrs,nothing,empty"));
    let first = lines.next().unwrap();
    assert!(
        first.starts_with("2026-11-21T00:00:00.000000000Z,\"canary-acme said \"\"hi\"\", 0\","),
        "{first}"
    );
    assert!(first.ends_with(",,\"\""), "{first}");
    assert_eq!(lines.filter(|l| !l.is_empty()).count(), rows.len() - 1);

    let arrow = node
        .ask_as(&node.acme, "application/vnd.apache.arrow.stream", sql)
        .await;
    let batches: Vec<_> = StreamReader::try_new(Cursor::new(arrow.body), None)
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(batches.iter().map(|b| b.num_rows()).sum::<usize>(), rows.len());

    let nothing = node
        .ask_as(&node.acme, "text/csv", "SELECT body FROM events WHERE false")
        .await;
    assert_eq!(nothing.text(), "body\r\n");
    let nothing = node
        .ask_as(
            &node.acme,
            "application/vnd.apache.arrow.stream",
            "SELECT body FROM events WHERE false",
        )
        .await;
    assert_eq!(
        StreamReader::try_new(Cursor::new(nothing.body), None).unwrap().count(),
        0
    );
    assert_eq!(
        node.ask_as(&node.acme, "text/html", "SELECT 1").await.refused(),
        (406, "not_acceptable".into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_table_answers_and_can_be_listed() {
    let node = Node::start().await;
    let tables = node.ask(&node.acme, "SHOW TABLES").await.text();
    for table in [
        "events",
        "logs",
        "spans",
        "metrics",
        "ledger",
        "quarantined",
        "streams",
        "plugins",
    ] {
        assert!(tables.contains(&format!("\"{table}\"")), "{table}: {tables}");
        let reply = node.ask(&node.acme, &format!("SELECT * FROM {table}")).await;
        assert_eq!(reply.status, 200, "{table}: {}", reply.text());
        let reply = node.ask(&node.acme, &format!("DESCRIBE {table}")).await;
        assert_eq!(reply.status, 200, "{table}: {}", reply.text());
    }
    let accepted = "SELECT sum(rows) FROM ledger WHERE bucket = 'accepted'";
    assert_eq!(node.ask(&node.acme, accepted).await.rows(), [[2 * ROWS_PER_BATCH]]);
    let plan = node
        .ask(&node.acme, "EXPLAIN SELECT body FROM events WHERE time > now()")
        .await
        .text();
    assert!(plan.contains("physical_plan"), "{plan}");
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_are_values_and_never_text_of_the_query() {
    let node = Node::start().await;
    let question = json!({"sql": "SELECT count(*) FROM events WHERE body = $1 AND severity >= $2", "params": ["canary-acme said \"hi\", 3", 12]});
    assert_eq!(node.ask_with(&node.acme, question).await.rows(), [[2]]);
    let question = json!({"sql": "SELECT count(*) FROM events WHERE body = $1", "params": ["' OR '1' = '1"]});
    assert_eq!(node.ask_with(&node.acme, question).await.rows(), [[0]]);
    for question in [
        json!({"sql": "SELECT $1", "params": [[1]]}),
        json!({"sql": "SELECT 1", "parms": []}),
        json!({"sql": 5}),
        json!(["SELECT 1"]),
        json!({"sql": "SELECT 1", "timeout_ms": 0}),
        json!({"sql": "SELECT 1", "timeout_ms": 86_400_000}),
    ] {
        assert_eq!(
            node.ask_with(&node.acme, question.clone()).await.refused(),
            (400, "bad_request".into()),
            "{question}"
        );
    }
    let plain = node.post("/v1/sql", &node.acme).header("accept", "text/csv");
    let mut request = plain;
    request
        .headers_mut()
        .unwrap()
        .insert("content-type", "text/plain".parse().unwrap());
    assert_eq!(node.send(request, "SELECT 1 AS one").await.text(), "one\r\n1\r\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_is_told_with_its_place_and_a_hint() {
    let node = Node::start().await;
    for (sql, code, place, hint) in [
        ("SELEC 1", "syntax", Some((1, 1)), None),
        (
            "SELECT *\n  FROM evnts",
            "unknown_table",
            Some((2, 8)),
            Some("`events`"),
        ),
        ("SELECT bdy FROM events", "unknown_column", Some((1, 8)), Some("`body`")),
        (
            "SELECT time,\n\thttp_route FROM logs",
            "unknown_column",
            Some((2, 2)),
            Some("attrs['http.route']"),
        ),
        (
            "SELECT 'x', cuont(*) FROM events",
            "unknown_function",
            Some((1, 13)),
            Some("`count`"),
        ),
        (
            "SELECT body FROM events WHERE (time > now()",
            "syntax",
            Some((1, 44)),
            None,
        ),
        (
            "SELECT a.body FROM events a, logs b WHERE tenant = 'x'",
            "invalid_query",
            Some((1, 43)),
            Some("alias"),
        ),
        (
            "SELECT * FROM read_parquet('x')",
            "unknown_function",
            Some((1, 15)),
            Some("files"),
        ),
        ("", "not_one_statement", None, None),
        (
            "SELECT body + 1 FROM events GROUP BY service",
            "invalid_query",
            None,
            None,
        ),
    ] {
        let reply = node.ask(&node.acme, sql).await;
        let problem = reply.json();
        assert_eq!(problem["code"], code, "{sql}: {problem}");
        if let Some((line, column)) = place {
            assert_eq!(
                problem["position"],
                json!({"line": line, "column": column}),
                "{sql}: {problem}"
            );
        }
        if let Some(hint) = hint {
            assert!(
                problem["hint"].as_str().unwrap_or("").contains(hint),
                "{sql}: {problem}"
            );
        }
        assert!(!problem.to_string().contains("DataFusion"), "{problem}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_probes_answer() {
    let node = Node::start().await;
    for path in ["/healthz", "/readyz", "/metrics", "/openapi.json"] {
        let reply = node.send(node.get(path), "").await;
        assert_eq!(reply.status, 200, "{path}");
    }
    let described = node.send(node.get("/openapi.json"), "").await.json();
    for (path, methods) in described["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            let request = match method.as_str() {
                "post" => node.post(path, &node.operator),
                _ => node
                    .get(path)
                    .header("authorization", format!("Bearer {}", node.operator)),
            };
            assert!(
                ![404, 405, 500].contains(&node.send(request, "").await.status.as_u16()),
                "{method} {path}"
            );
        }
    }
    node.ask(&node.acme, "SELECT 1").await;
    let metrics = node.send(node.get("/metrics"), "").await.text();
    assert!(metrics.contains("sluice_query_asked_total"), "{metrics}");
    assert_eq!(node.send(node.get("/v1/status"), "").await.refused().0, 401);
    assert_eq!(
        node.send(node.get("/nowhere"), "").await.refused(),
        (404, "not_found".into())
    );
    assert_eq!(
        node.send(node.get("/v1/sql"), "").await.refused(),
        (405, "method_not_allowed".into())
    );
}
