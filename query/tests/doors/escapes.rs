//! P13: ways out of one's tenant, of reading only, and of this process, tried at all three doors: each is refused with a stable code, or
//! answered with nothing but the caller's own rows.

use arrow::util::pretty::pretty_format_batches;
use arrow_flight::error::FlightError;
use futures::TryStreamExt;
use serde_json::json;

use super::flight;
use super::isolation::ESCAPES;
use super::node::Node;
use super::postgres::{psql, psql_is_here};

/// A text, and the codes that may refuse it. The second list is for clients of Postgres, whose texts hold several statements and who talk
/// about their session.
const REFUSED: [(&str, &[&str], &[&str]); 40] = [
    ("SELECT * FROM everything", &["unknown_table"], &["42P01"]),
    ("SELECT * FROM beta.events", &["unknown_table"], &["42P01"]),
    ("SELECT * FROM sluice.beta.events", &["unknown_table"], &["42P01"]),
    (
        r#"SELECT * FROM "beta"."public"."events""#,
        &["unknown_table"],
        &["42P01"],
    ),
    (r#"SELECT * FROM "events; --""#, &["unknown_table"], &["42P01"]),
    ("SELECT * FROM system.tables", &["unknown_table"], &["42P01"]),
    (
        "SELECT * FROM clickhouse.sluice.events_visible",
        &["unknown_table"],
        &["42P01"],
    ),
    (
        "SELECT * FROM '/etc/passwd'",
        &["unknown_table", "syntax"],
        &["42P01", "42601"],
    ),
    (
        "SELECT * FROM 'file:///etc/passwd'",
        &["unknown_table", "syntax"],
        &["42P01", "42601"],
    ),
    (
        "SELECT * FROM 's3://lake/events/'",
        &["unknown_table", "syntax"],
        &["42P01", "42601"],
    ),
    (
        "SELECT * FROM \"http://169.254.169.254/latest\"",
        &["unknown_table"],
        &["42P01"],
    ),
    (
        "SELECT * FROM read_csv('/etc/passwd')",
        &["unknown_function"],
        &["42883"],
    ),
    (
        "SELECT * FROM read_parquet('lake/events')",
        &["unknown_function"],
        &["42883"],
    ),
    (
        "SELECT * FROM parquet_metadata('lake/events')",
        &["unknown_function"],
        &["42883"],
    ),
    (
        "SELECT * FROM delta_scan('lake/events')",
        &["unknown_function"],
        &["42883"],
    ),
    (
        "SELECT * FROM remote('127.0.0.1', 'sluice.events')",
        &["unknown_function"],
        &["42883"],
    ),
    (
        "SELECT * FROM url('http://127.0.0.1/')",
        &["unknown_function"],
        &["42883"],
    ),
    ("SELECT load_file('/etc/passwd')", &["unknown_function"], &["42883"]),
    ("SELECT getenv('SLUICE_TOKEN')", &["unknown_function"], &["42883"]),
    ("SELECT pg_read_file('/etc/passwd')", &["unknown_function"], &["42883"]),
    (
        "SELECT dblink('host=127.0.0.1', 'SELECT 1')",
        &["unknown_function"],
        &["42883"],
    ),
    (
        "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION 'lake/events'",
        &["read_only"],
        &["25006"],
    ),
    ("CREATE TABLE t AS SELECT * FROM events", &["read_only"], &["25006"]),
    (
        "CREATE VIEW events AS SELECT * FROM everything",
        &["read_only"],
        &["25006"],
    ),
    (
        "CREATE EXTENSION file_fdw",
        &["read_only", "syntax"],
        &["25006", "42601"],
    ),
    (
        "CREATE FUNCTION f() RETURNS INT RETURN 1",
        &["read_only", "syntax"],
        &["25006", "42601"],
    ),
    ("COPY events TO '/tmp/sluice-escaped.csv'", &["read_only"], &["25006"]),
    (
        "COPY (SELECT * FROM events) TO PROGRAM 'cat'",
        &["read_only", "syntax"],
        &["25006", "42601"],
    ),
    (
        "COPY events FROM PROGRAM 'id'",
        &["read_only", "syntax"],
        &["25006", "42601"],
    ),
    (
        "DO $$ BEGIN DELETE FROM events; END $$",
        &["read_only", "syntax"],
        &["25006", "42601"],
    ),
    ("INSERT INTO events SELECT * FROM events", &["read_only"], &["25006"]),
    (
        "WITH gone AS (DELETE FROM events RETURNING *) SELECT * FROM gone",
        &["read_only", "syntax", "unsupported"],
        &["25006", "42601", "0A000"],
    ),
    (
        "EXPLAIN ANALYZE INSERT INTO events SELECT * FROM events",
        &["read_only"],
        &["25006"],
    ),
    ("SELECT * INTO t FROM events", &["read_only"], &["25006"]),
    ("SELECT 1; DROP TABLE events", &["not_one_statement"], &["25006"]),
    (
        "SELECT 1 /* ; */ ; -- \n DELETE FROM events",
        &["not_one_statement"],
        &["25006"],
    ),
    (
        "SET datafusion.catalog.default_schema = 'beta'",
        &["read_only"],
        &["42704", "25006"],
    ),
    ("SET ROLE beta", &["read_only"], &["25006", "42704"]),
    ("SET SESSION AUTHORIZATION 'beta'", &["read_only"], &["25006", "42704"]),
    ("PREPARE p AS SELECT * FROM everything", &["read_only"], &["25006"]),
];

/// What the Flight door answers: its rows as text, or the code of its refusal.
async fn fly(client: &mut flight::Client, sql: &str) -> Result<String, String> {
    let code = |error: FlightError| flight::code(&flight::status(error)).1;
    let info = client.execute(sql.to_owned(), None).await.map_err(code)?;
    let stream = client.do_get(flight::ticket(&info)).await.map_err(code)?;
    let batches: Vec<_> = stream.try_collect().await.map_err(code)?;
    Ok(pretty_format_batches(&batches).unwrap().to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn p13_forty_ways_out_are_refused_at_every_door() {
    let node = Node::start().await;
    let mut client = flight::client(&node, &node.acme).await;
    for (sql, codes, states) in REFUSED {
        let (_, code) = node.ask(&node.acme, sql).await.refused();
        assert!(codes.contains(&code.as_str()), "HTTP: {sql}: {code}");
        let code = fly(&mut client, sql).await.expect_err(sql);
        assert!(codes.contains(&code.as_str()), "Flight: {sql}: {code}");
        if psql_is_here() {
            let said = psql(&node, &node.acme, &["-c", sql]).await;
            assert!(
                !said.success && states.iter().any(|state| said.err.contains(state)),
                "Postgres: {sql}: {}{}",
                said.out,
                said.err
            );
        }
    }
    assert!(!std::path::Path::new("/tmp/sluice-escaped.csv").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn p13_what_is_answered_at_any_door_holds_the_callers_own_rows_only() {
    let node = Node::start().await;
    for (token, other) in [(&node.acme, "beta"), (&node.beta, "acme")] {
        let foreign = format!("canary-{other}");
        let mut client = flight::client(&node, token).await;
        let mut answered = 0;
        for escape in ESCAPES {
            let sql = escape.replace("{x}", other);
            if let Ok(rows) = fly(&mut client, &sql).await {
                assert!(!rows.contains(&foreign), "{sql}: {rows}");
                answered += 1;
            }
            if psql_is_here() {
                let said = psql(&node, token, &["-c", &sql]).await;
                assert!(
                    !said.out.contains(&foreign) && !said.err.contains(&foreign),
                    "{sql}: {}{}",
                    said.out,
                    said.err
                );
                answered += usize::from(said.success);
            }
        }
        assert!(answered >= 20, "only {answered} ran");
        // values of parameters are values
        for value in [
            other.to_owned(),
            format!("{other}' OR '1' = '1"),
            "' UNION SELECT * FROM everything --".to_owned(),
        ] {
            let question = json!({"sql": "SELECT count(*) FROM events WHERE tenant = $1", "params": [value]});
            assert_eq!(node.ask_with(token, question).await.rows(), [[0]]);
        }
        let name = json!({"sql": "SELECT * FROM $1", "params": ["events"]});
        assert_eq!(node.ask_with(token, name).await.refused().1, "syntax");
    }
}
