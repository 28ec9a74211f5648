//! P13: a token reaches its own tenant's rows and no others, however the query is written and whatever the headers claim.

use http::Request;
use serde_json::json;
use sluice_query::QueryConfig;

use super::node::{Node, ROWS_PER_BATCH};

/// Ways out of a scope that were tried on others. `{x}` stands for the other tenant.
pub(crate) const ESCAPES: [&str; 36] = [
    "SELECT * FROM events WHERE tenant = '{x}'",
    "SELECT * FROM events WHERE tenant = '{x}' OR 1 = 1",
    "SELECT * FROM events WHERE true OR tenant IS NOT NULL -- ",
    "SELECT * FROM everything",
    "SELECT * FROM sluice.public.events",
    "SELECT * FROM \"events\" e JOIN \"events\" f ON true",
    "SELECT * FROM events a FULL OUTER JOIN events b ON a.tenant <> b.tenant",
    "SELECT * FROM logs UNION ALL SELECT * FROM logs UNION SELECT * FROM logs",
    "WITH events AS (SELECT * FROM logs) SELECT * FROM events",
    "WITH RECURSIVE r AS (SELECT body FROM events UNION ALL SELECT body FROM r WHERE false) SELECT * FROM r",
    "SELECT (SELECT max(body) FROM events WHERE tenant = '{x}')",
    "SELECT * FROM events WHERE body IN (SELECT body FROM events WHERE tenant = '{x}')",
    "SELECT EXISTS (SELECT 1 FROM events WHERE tenant = '{x}')",
    "SELECT * FROM events o WHERE EXISTS (SELECT 1 FROM events i WHERE i.tenant <> o.tenant)",
    "SELECT array_agg(DISTINCT service) FROM events",
    "SELECT * FROM ledger WHERE tenant = '{x}'",
    "SELECT * FROM streams",
    "SELECT * FROM quarantined",
    "SELECT * FROM spans UNION ALL SELECT * FROM spans",
    "SELECT * FROM information_schema.tables",
    "SELECT * FROM information_schema.columns",
    "SELECT * FROM information_schema.views",
    "SELECT * FROM datafusion.public.events",
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM 'file:///etc/passwd'",
    "SELECT * FROM 'lake/events'",
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM parquet_metadata('lake/events')",
    "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION 'lake/events'",
    "COPY events TO '/tmp/out.csv'",
    "SET datafusion.catalog.information_schema = false",
    "CREATE VIEW events AS SELECT * FROM everything",
    "SELECT 1; SELECT * FROM events WHERE tenant = '{x}'",
    "EXPLAIN ANALYZE VERBOSE SELECT * FROM events WHERE tenant = '{x}'",
    "SELECT * FROM events WHERE ten\u{0430}nt = '{x}'",
    "SELECT first_value(body) OVER (PARTITION BY 1 ORDER BY tenant DESC) FROM events /* '{x}' */",
];

#[tokio::test(flavor = "multi_thread")]
async fn p13_no_query_reaches_another_tenants_rows() {
    let node = Node::start().await;
    for (token, own, other) in [(&node.acme, "acme", "beta"), (&node.beta, "beta", "acme")] {
        let foreign = format!("canary-{other}");
        let mut answered = 0;
        for escape in ESCAPES {
            let sql = escape.replace("{x}", other);
            for accept in ["application/json", "text/csv"] {
                let reply = node.ask_as(token, accept, &sql).await;
                assert!(!reply.text().contains(&foreign), "{own} asked {sql}: {}", reply.text());
                assert!(reply.status.as_u16() < 500, "{sql}: {}", reply.text());
                answered += usize::from(reply.status.is_success());
            }
        }
        // the corpus is empty talk unless many of these really run and see their own rows
        assert!(answered >= 30, "only {answered} ran");
        let own_rows = node
            .ask(token, "SELECT count(*), min(tenant), max(tenant) FROM events")
            .await
            .rows();
        assert_eq!(own_rows, [[json!(2 * ROWS_PER_BATCH), json!(own), json!(own)]]);
    }
    let all = node
        .ask(&node.operator, "SELECT count(DISTINCT tenant), count(*) FROM events")
        .await
        .rows();
    assert_eq!(
        all,
        [[json!(2), json!(4 * ROWS_PER_BATCH)]],
        "the rows are there for who may see them"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn p13_completeness_and_status_show_a_tenant_its_own_streams_only() {
    let node = Node::start().await;
    for (token, own, other) in [(&node.acme, "acme", "beta"), (&node.beta, "beta", "acme")] {
        let streams = node.ask(token, "SELECT 1").await.json()["completeness"]["streams"].to_string();
        assert!(streams.contains(own) && !streams.contains(other), "{streams}");
        let request = node
            .get("/v1/status")
            .header("authorization", format!("Bearer {token}"));
        let status = node.send(request, "").await.text();
        assert!(status.contains(own) && !status.contains(other), "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p13_only_the_token_says_who_asks() {
    let node = Node::start().await;
    let body = r#"{"sql": "SELECT DISTINCT tenant FROM events"}"#;
    let mut spoofed = node.post("/v1/sql", &node.acme);
    for header in [
        "x-scope-orgid",
        "x-tenant",
        "x-forwarded-user",
        "x-remote-user",
        "sluice-tenant",
        "x-forwarded-for",
    ] {
        spoofed = spoofed.header(header, "beta");
    }
    assert_eq!(
        node.send(spoofed.header("cookie", "tenant=beta"), body).await.rows(),
        [["acme"]]
    );

    let bad_tokens = [
        "",
        "x",
        "acme",
        &node.acme[..node.acme.len() - 1],
        &format!("{}0", node.acme),
        "null",
        "*",
    ];
    for token in bad_tokens {
        assert_eq!(
            node.ask(token, "SELECT 1").await.refused(),
            (401, "unauthorized".into()),
            "{token:?}"
        );
    }
    let sql = format!("http://{}/v1/sql", node.address);
    for request in [
        Request::post(&sql).header("x-scope-orgid", "acme"),
        Request::post(format!("{sql}?token={}&access_token={0}", node.acme)),
        Request::post(&sql).header("authorization", format!("Basic {}", node.acme)),
        Request::post(&sql).header("authorization", &node.acme),
        Request::post(&sql)
            .header("authorization", format!("Bearer {}", node.acme))
            .header("authorization", format!("Bearer {}", node.beta)),
    ] {
        let reply = node.send(request, body).await;
        assert_eq!(reply.refused(), (401, "unauthorized".into()));
        assert_eq!(reply.headers["www-authenticate"], "Bearer");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_can_be_written() {
    let node = Node::start().await;
    for sql in [
        "INSERT INTO events SELECT * FROM events",
        "DELETE FROM events",
        "UPDATE events SET body = ''",
        "DROP VIEW logs",
        "CREATE TABLE t (a INT)",
        "CREATE SCHEMA s",
        "COPY (SELECT 1) TO '/tmp/sluice-written.csv'",
        "SET a = 1",
        "EXPLAIN INSERT INTO events SELECT * FROM events",
    ] {
        assert_eq!(
            node.ask(&node.operator, sql).await.refused(),
            (403, "read_only".into()),
            "{sql}"
        );
    }
    assert!(!std::path::Path::new("/tmp/sluice-written.csv").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_loopback_only_with_tls_or_on_purpose() {
    let folder = tempfile::tempdir().unwrap();
    let tables = super::node::fill(folder.path(), 4).await;
    let mut config = QueryConfig {
        listen: "0.0.0.0:0".parse().unwrap(),
        pg: "127.0.0.1:0".parse().unwrap(),
        flight: "127.0.0.1:0".parse().unwrap(),
        ..QueryConfig::default()
    };
    let none = sluice_query::Tokens::from_entries(&[]).unwrap();
    let refused = sluice_query::QueryService::build(config.clone(), tables.clone(), none.clone()).await;
    assert!(matches!(refused, Err(sluice_query::BuildError::Insecure { .. })));
    (config.listen, config.pg) = (config.pg, config.listen);
    let refused = sluice_query::QueryService::build(config.clone(), tables.clone(), none.clone()).await;
    assert!(matches!(refused, Err(sluice_query::BuildError::Insecure { .. })));
    (config.pg, config.flight) = (config.flight, config.pg);
    let refused = sluice_query::QueryService::build(config.clone(), tables.clone(), none.clone()).await;
    assert!(matches!(refused, Err(sluice_query::BuildError::Insecure { .. })));
    config.insecure = true;
    assert!(sluice_query::QueryService::build(config, tables, none).await.is_ok());
}
