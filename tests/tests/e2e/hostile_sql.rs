//! P15: a hundred hostile requests at the door for questions. Each gets an error with a stable code and words to go by, none is
//! a mistake of ours, memory stays bounded, and the next good question is answered.

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};
use sluice_bench::process::{HttpAnswer, http_send};
use sluice_tests::{Node, SOON};

/// Above what the process had before: one query's memory as its limit below allows, twice, and the allocator's slack.
const MEMORY_BOUND: u64 = 384 << 20;
const CONFIG: &str = "[query.limits]\nmemory = \"64 MiB\"\nspill = \"64 MiB\"\nmax_request = \"256 KiB\"\n";
/// What takes too long is ended after this.
const TIMEOUT_MS: u64 = 1_500;

/// Bodies that are no request.
fn no_requests() -> Vec<Vec<u8>> {
    let good = json!({"sql": "SELECT 1", "params": [1, 2], "max_rows": 5}).to_string();
    // Every cut of it lacks at least the last brace.
    let mut bodies: Vec<Vec<u8>> = (0..good.len())
        .step_by(3)
        .map(|end| good.as_bytes()[..end].to_vec())
        .collect();
    let wrong = [
        json!([]),
        json!("SELECT 1"),
        json!({}),
        json!({"sql": 5}),
        json!({"sql": null}),
        json!({"sql": "SELECT 1", "tenant": "other"}),
        json!({"sql": "SELECT 1", "timeout_ms": -1}),
        json!({"sql": "SELECT 1", "timeout_ms": 1e300}),
        json!({"sql": "SELECT 1", "max_rows": "all"}),
        json!({"sql": "SELECT 1", "params": {"a": 1}}),
    ];
    bodies.extend(wrong.iter().map(|body| body.to_string().into_bytes()));
    bodies.push(b"{\"sql\": \"\xff\xfe\"}".to_vec());
    bodies.push(format!("{}{}", "[".repeat(100_000), "]".repeat(100_000)).into_bytes());
    bodies.push(
        format!(
            "{{\"sql\": \"SELECT 1\", \"params\": {}1{}}}",
            "[".repeat(60_000),
            "]".repeat(60_000)
        )
        .into(),
    );
    bodies.push(json!({"sql": "x".repeat(300 << 10)}).to_string().into_bytes());
    bodies
}

/// Common tables that each read the one before.
fn chain(links: usize, select: &str) -> String {
    let tables: String = (1..links).map(|n| format!(", a{n} AS ({select}{})", n - 1)).collect();
    format!("WITH a0 AS (SELECT 1 AS x){tables} SELECT nothing FROM a{}", links - 1)
}

/// Each reads the one before twice: a few words, and more steps than atoms.
fn doubling(links: usize) -> String {
    let tables: String = (1..links)
        .map(|n| format!(", a{n} AS (SELECT * FROM a{0} UNION ALL SELECT * FROM a{0})", n - 1))
        .collect();
    format!("WITH a0 AS (SELECT 1 AS x){tables} SELECT count(*) FROM a{}", links - 1)
}

/// Queries that cannot be answered.
fn no_queries() -> Vec<String> {
    let nested =
        |open: &str, inner: &str, close: &str, n: usize| format!("{}{inner}{}", open.repeat(n), close.repeat(n));
    let mut queries: Vec<String> = [
        "",
        ";",
        "--",
        "/*",
        "SELECT",
        "SELECT * FROM",
        "SELECT 'open",
        "SELECT \"open",
        "SELECT \u{0} FROM logs",
        "SELECT \u{202e} FROM logs",
        "SELECT 1; SELECT 2",
        "SELECT nothing FROM logs",
        "SELECT * FROM nowhere",
        "SELECT no_function(1)",
        "SELECT count(*) FROM logs GROUP BY 99",
        "SELECT body + 1 FROM logs WHERE 'a' AND 5",
        "SELECT * FROM logs WHERE time > 'not a time'",
        "SELECT CAST('x' AS BIGINT) FROM logs",
        "SELECT $1",
        "SELECT arrow_cast(1, 'NoSuchType')",
        "DROP TABLE events",
        "DELETE FROM events",
        "INSERT INTO events SELECT * FROM events",
        "UPDATE events SET body = ''",
        "CREATE TABLE t AS SELECT 1",
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
        "CREATE VIEW v AS SELECT 1",
        "COPY (SELECT 1) TO '/tmp/x.csv'",
        "SET datafusion.execution.batch_size = 1",
        "TRUNCATE events",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM \"http://127.0.0.1/x.parquet\"",
        "SELECT * FROM pg_catalog.pg_shadow",
        "GRANT ALL ON events TO public",
        "BEGIN",
        "EXECUTE immediate 'x'",
        "EXPLAIN ANALYZE VERBOSE DROP TABLE events",
    ]
    .map(str::to_owned)
    .to_vec();
    queries.extend([
        nested("(", "SELECT 1", ")", 20_000),
        format!("SELECT {}", nested("(", "1", ")", 20_000)),
        format!("SELECT {}1", "NOT ".repeat(20_000)),
        format!("SELECT {}1", "- ".repeat(20_000)),
        format!("SELECT {}", nested("abs(", "1", ")", 10_000)),
        format!("SELECT {}", nested("CASE WHEN true THEN ", "1", " END", 5_000)),
        format!("SELECT {}", nested("[", "1", "]", 20_000)),
        nested("SELECT * FROM (", "SELECT 1", ")", 5_000),
        format!("SELECT CAST(1 AS {})", nested("ARRAY<", "INT", ">", 5_000)),
        format!(
            "SELECT {}1{}",
            "(".repeat(10),
            format!("{})", " + 1".repeat(1_900)).repeat(10)
        ),
        chain(8_000, "SELECT x + 1 AS x FROM a"),
        chain(2_000, "SELECT x + 1 AS x FROM a"),
        chain(40, "SELECT b.x FROM a0 b UNION ALL SELECT x FROM a"),
        doubling(40),
        format!("SELECT CAST(1 AS INT{})", "[]".repeat(20_000)),
        format!("SELECT 1{} FROM nowhere", " + 1".repeat(50_000)),
        format!("SELECT 1{} FROM nowhere", " + 1".repeat(1_900)),
        format!("SELECT 1 FROM nowhere WHERE true{}", " OR true".repeat(1_900)),
        format!("SELECT 1 FROM nowhere{}", " UNION ALL SELECT 1".repeat(10_000)),
        format!("SELECT 1{} FROM nowhere", "::int".repeat(40_000)),
        format!("SELECT a{} FROM nowhere", ".a".repeat(60_000)),
        format!("SELECT 1 FROM nowhere{}", " JOIN nowhere USING (a)".repeat(8_000)),
        format!("WITH {} SELECT 1 FROM nowhere", "\u{1F4A3}".repeat(2_000)),
    ]);
    // What would run for ever or need all memory there is.
    queries.extend(
        [
            "SELECT count(*) FROM generate_series(1, 10000000000000) a",
            "SELECT count(*) FROM generate_series(1, 1000000) a, generate_series(1, 1000000) b WHERE a.value <> b.value",
            "SELECT a.value, b.value FROM generate_series(1, 1000000) a, generate_series(1, 1000000) b \
             ORDER BY a.value * b.value DESC LIMIT 5",
            "SELECT repeat('x', 1000) || CAST(a.value AS VARCHAR) k, count(*) FROM generate_series(1, 10000000) a GROUP BY 1",
            "WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM t) SELECT count(*) FROM t",
        ]
        .map(str::to_owned),
    );
    queries
}

struct Door {
    url: String,
    token: String,
}

impl Door {
    async fn send(
        &self,
        body: impl Into<Bytes>,
        change: impl FnOnce(http::request::Builder) -> http::request::Builder,
    ) -> HttpAnswer {
        let body: Bytes = body.into();
        let request = Request::post(&self.url)
            .header("authorization", format!("Bearer {}", self.token))
            .header("content-type", "application/json");
        let request = change(request).body(Full::new(body.clone())).unwrap();
        let shown = |error| format!("{error}: {:.80}", String::from_utf8_lossy(&body));
        http_send(request, SOON).await.map_err(shown).unwrap()
    }
}

/// A problem document that helps, and not one about ourselves.
fn check(what: &str, answer: &HttpAnswer) {
    let shown: String = what.chars().take(60).collect();
    let text = answer.text();
    let text = &text[..text.len().min(2_000)];
    let problem: Value = serde_json::from_str(text).unwrap_or_else(|_| panic!("{shown}: {} {text}", answer.status));
    let status = answer.status.as_u16();
    assert!((400..600).contains(&status) && status != 500, "{shown}: {text}");
    for key in ["code", "title", "detail"] {
        assert!(
            problem[key].as_str().is_some_and(|words| words.len() > 3),
            "{shown}: no {key} in {text}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p15_a_hundred_hostile_questions_are_refused_one_by_one() {
    let mut node = Node::prepare(CONFIG).unwrap().started().await.unwrap();
    let before = node.process().unwrap().memory().unwrap().1;
    let door = Door {
        url: format!("{}/v1/sql", node.url("http").unwrap()),
        token: node.process().unwrap().token().to_owned(),
    };
    let mut sent = 0;
    for body in no_requests() {
        let what = String::from_utf8_lossy(&body).into_owned();
        check(&what, &door.send(body, |request| request).await);
        sent += 1;
    }
    for sql in no_queries() {
        let body = json!({"sql": sql, "timeout_ms": TIMEOUT_MS, "max_rows": 1_000_000}).to_string();
        check(&sql, &door.send(body, |request| request).await);
        sent += 1;
    }
    let good = json!({"sql": "SELECT 1"}).to_string();
    let wrong_tokens = ["", "x", "Bearer", "Basic eDp4", "null", "../../token", "0"];
    for token in wrong_tokens {
        let other = Door {
            url: door.url.clone(),
            token: token.to_owned(),
        };
        let answer = other.send(good.clone(), |request| request).await;
        assert_eq!(answer.status, 401, "{token}");
        check(token, &answer);
        sent += 1;
    }
    for (name, value, status) in [
        ("accept", "image/png", 406),
        ("accept", "no format at all", 406),
        ("content-encoding", "gzip", 400),
    ] {
        let answer = door.send(good.clone(), |request| request.header(name, value)).await;
        assert_eq!(answer.status, status, "{name}: {value}: {}", answer.text());
        check(value, &answer);
        sent += 1;
    }
    assert!(sent >= 100, "only {sent}");

    let answer = node.sql().unwrap().ask("SELECT count(*) FROM events").await.unwrap();
    assert_eq!(answer.count().unwrap(), 0);
    let process = node.process().unwrap();
    assert!(process.is_alive());
    let peak = process.memory().unwrap().1;
    assert!(
        peak < before + MEMORY_BOUND,
        "memory went from {before} to {peak} bytes"
    );
}
