//! The door for clients of Postgres, asked with psql: what no one here wrote says what Postgres is.

use std::process::{Command, Stdio};

use sluice_query::QueryConfig;
use sluice_query::config::TlsConfig;

use super::node::Node;

/// What psql wrote and said.
pub(crate) struct Said {
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) success: bool,
}

impl Said {
    pub(crate) fn rows(&self) -> Vec<&str> {
        assert!(self.success, "{}", self.err);
        self.out.lines().collect()
    }
}

/// Whether the tests can run here. On a developer's machine without psql they say so.
pub(crate) fn psql_is_here() -> bool {
    let found = Command::new("psql").arg("--version").stdout(Stdio::null()).status();
    let here = found.is_ok_and(|status| status.success());
    assert!(here || std::env::var_os("CI").is_none(), "psql is not installed");
    if !here {
        eprintln!("SKIPPED: psql is not installed");
    }
    here
}

/// Runs psql with these arguments, rows only, columns apart by `|`.
pub(crate) async fn psql(node: &Node, token: &str, arguments: &[&str]) -> Said {
    psql_with(node, token, &[], arguments).await
}

async fn psql_with(node: &Node, token: &str, environment: &[(&str, &str)], arguments: &[&str]) -> Said {
    let mut command = Command::new("psql");
    command
        .args(["-X", "-A", "-t", "-h", "127.0.0.1", "-U", "anyone", "-d", "sluice"])
        .args(["-p", &node.pg.port().to_string()])
        .args(["-v", "VERBOSITY=verbose", "-v", "ON_ERROR_STOP=1"])
        .args(arguments)
        .env("PGPASSWORD", token)
        .env("PGCONNECT_TIMEOUT", "20")
        .envs(environment.iter().copied())
        .stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .unwrap()
        .unwrap();
    Said {
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
        success: output.status.success(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_asks_and_gets_typed_rows_of_both_tiers() {
    if !psql_is_here() {
        return;
    }
    let node = Node::start().await;
    let sql =
        r#"SELECT "time", severity, service, body, attrs['big'], weight FROM logs WHERE severity = 9 ORDER BY "time""#;
    let said = psql(&node, &node.acme, &["-c", sql]).await;
    assert_eq!(
        said.rows(),
        [
            "2026-11-21 00:00:00.000000+00|9|canary-acme-svc|canary-acme said \"hi\", 0|9007199254740993|1.0",
            "2026-11-21 00:00:02.000000+00|9|canary-acme-svc|canary-acme said \"hi\", 0|9007199254740993|1.0",
        ],
        "{}",
        said.err
    );
    // a map has no type of its own there, and is JSON
    let maps = psql(&node, &node.acme, &["-c", "SELECT attrs FROM logs LIMIT 1"]).await;
    let attrs: serde_json::Value = serde_json::from_str(maps.rows()[0]).unwrap();
    assert_eq!(attrs["who"], "canary-acme");
    // several statements in one text, some of them about the session
    let several = "BEGIN; SET application_name = 'x;y'; SHOW application_name; SELECT count(*) FROM events; COMMIT";
    let said = psql(&node, &node.acme, &["-q", "-c", several]).await;
    assert_eq!(said.rows(), ["x;y", "8"], "{}", said.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_psql_describes_is_what_there_is() {
    if !psql_is_here() {
        return;
    }
    let node = Node::start().await;
    let tables = psql(&node, &node.acme, &["-c", r"\d"]).await;
    let names: Vec<_> = tables.rows().iter().filter_map(|row| row.split('|').nth(1)).collect();
    for table in ["events", "logs", "spans", "metrics", "ledger", "streams"] {
        assert!(names.contains(&table), "{table}: {names:?}");
    }
    let events = psql(&node, &node.acme, &["-c", r"\d events"]).await;
    let columns = events.rows();
    assert!(columns.iter().any(|row| row.starts_with("body|text|")), "{columns:?}");
    assert!(
        columns
            .iter()
            .any(|row| row.starts_with("time|timestamp with time zone|")),
        "{columns:?}"
    );
    // the numbers of tables are the same for every question
    let number = "SELECT oid FROM pg_catalog.pg_class WHERE relname = 'events'";
    let first = psql(&node, &node.acme, &["-c", number]).await;
    let again = psql(&node, &node.beta, &["-c", number]).await;
    assert_eq!((first.rows().len(), first.rows()), (1, again.rows()));
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_have_code_place_and_hint() {
    if !psql_is_here() {
        return;
    }
    let node = Node::start().await;
    let failed = async |sql: &str| {
        let said = psql(&node, &node.acme, &["-c", sql]).await;
        assert!(!said.success, "{sql}: {}", said.out);
        said.err
    };
    let table = failed("SELECT 1;\nSELECT body FROM lgs").await;
    assert!(
        table.contains("42P01") && table.contains("did you mean `logs`?"),
        "{table}"
    );
    assert!(table.contains("LINE 2:"), "{table}");
    let column = failed("SELECT bdy FROM logs").await;
    assert!(
        column.contains("42703") && column.contains("did you mean `body`?"),
        "{column}"
    );
    for (sql, code) in [
        ("SELEC 1", "42601"),
        ("DELETE FROM events", "25006"),
        ("DROP TABLE events", "25006"),
        ("CREATE TABLE t AS SELECT 1", "25006"),
        ("COPY events TO '/tmp/x'", "25006"),
        ("SET session_replication_role = replica", "42704"),
        ("SELECT nope(1)", "42883"),
        ("BEGIN; SELECT nope(1)", "42883"),
        ("SELECT * FROM '/etc/passwd'", "42P01"),
        ("SELECT pg_read_file('/etc/passwd')", "42883"),
    ] {
        let error = failed(sql).await;
        assert!(error.contains(code), "{sql}: {error}");
    }
    let limited = psql_with(
        &node,
        &node.acme,
        &[("PGOPTIONS", "")],
        &[
            "-q",
            "-c",
            "SET statement_timeout = '1ms'",
            "-c",
            "SELECT count(*) FROM generate_series(1, 2000000000) a",
        ],
    )
    .await;
    assert!(!limited.success && limited.err.contains("57014"), "{}", limited.err);
}

/// P13: a token sees the rows of its tenant, whatever the user is called and however the question is put.
#[tokio::test(flavor = "multi_thread")]
async fn p13_a_token_sees_its_tenant_and_nobody_comes_in_without_one() {
    if !psql_is_here() {
        return;
    }
    let node = Node::start().await;
    for sql in [
        "SELECT * FROM events",
        "SELECT * FROM logs, pg_catalog.pg_class LIMIT 50",
        "SELECT * FROM sluice.public.ledger",
        "SELECT tenant, body FROM events WHERE tenant = 'acme' OR true -- '",
        "WITH events AS (SELECT * FROM logs) SELECT * FROM events",
        "SELECT * FROM streams",
        "SELECT * FROM pg_catalog.pg_tables",
        "SET application_name = 'acme'; SELECT * FROM events",
    ] {
        let said = psql(&node, &node.beta, &["-U", "acme", "-c", sql]).await;
        assert!(
            said.success && !said.out.contains("acme"),
            "{sql}: {}{}",
            said.out,
            said.err
        );
    }
    let count = |rows: &Said| rows.rows()[0].to_owned();
    let sql = ["-c", "SELECT count(DISTINCT tenant), count(*) FROM events"];
    assert_eq!(count(&psql(&node, &node.beta, &sql).await), "1|8");
    assert_eq!(count(&psql(&node, &node.operator, &sql).await), "2|16");
    for password in ["", "slq_", &node.acme[..node.acme.len() - 1]] {
        let said = psql(&node, password, &["-c", "SELECT 1"]).await;
        assert!(!said.success && said.out.is_empty(), "{password}");
    }
    let elsewhere = psql(&node, &node.acme, &["-d", "postgres", "-c", "SELECT 1"]).await;
    assert!(
        elsewhere.err.contains("the database is called `sluice`"),
        "{}",
        elsewhere.err
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_lacks_records_says_so() {
    if !psql_is_here() {
        return;
    }
    let node = Node::with(QueryConfig::default(), 7).await;
    let said = psql(&node, &node.acme, &["-c", "SELECT count(*) FROM events"]).await;
    assert!(
        said.err.contains("NOTICE") && said.err.contains("lacks 3 records"),
        "{}",
        said.err
    );
    let names = psql(
        &node,
        &node.acme,
        &["-c", "SELECT relname FROM pg_catalog.pg_class LIMIT 1"],
    )
    .await;
    assert_eq!(names.err, "");
    let complete = Node::start().await;
    let said = psql(&complete, &complete.acme, &["-c", "SELECT count(*) FROM events"]).await;
    assert_eq!((said.rows(), said.err.as_str()), (vec!["8"], ""));
}

/// With a certificate no token is taken in clear text.
#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_taken_over_tls_where_there_is_a_certificate() {
    if !psql_is_here() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let root = cert.display().to_string();
    let config = QueryConfig {
        tls: Some(TlsConfig { cert, key }),
        ..QueryConfig::default()
    };
    let node = Node::with(config, 4).await;
    let verified = [("PGSSLMODE", "verify-full"), ("PGSSLROOTCERT", root.as_str())];
    let said = psql_with(&node, &node.acme, &verified, &["-c", "SELECT 40 + 2"]).await;
    assert_eq!(said.rows(), ["42"], "{}", said.err);
    let plain = psql_with(&node, &node.acme, &[("PGSSLMODE", "disable")], &["-c", "SELECT 1"]).await;
    assert!(!plain.success && plain.err.contains("over TLS only"), "{}", plain.err);
}

/// Whoever hangs up gives its place back, though its query has not made a row yet.
#[tokio::test(flavor = "multi_thread")]
async fn a_query_ends_with_its_client() {
    if !psql_is_here() {
        return;
    }
    let mut config = QueryConfig::default();
    config.limits.threads = 2;
    // its own limits end nothing here, however long a busy machine takes
    let ages = std::time::Duration::from_secs(600);
    (config.limits.timeout, config.limits.max_timeout) = (ages, ages);
    let node = Node::with(config, 4).await;
    let running = async || -> u64 {
        let text = node.send(node.get("/metrics"), "").await.text();
        let line = text.lines().find(|l| l.starts_with("sluice_query_running ")).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    let endless = "SELECT count(*) FROM range(100000000000) a WHERE a.value % 7 = 3";
    let mut client = Command::new("psql")
        .args(["-X", "-h", "127.0.0.1", "-U", "anyone", "-d", "sluice", "-c", endless])
        .args(["-p", &node.pg.port().to_string()])
        .env("PGPASSWORD", &node.acme)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while running().await == 0 {
        assert!(client.try_wait().unwrap().is_none(), "it does not end by itself");
        tokio::task::yield_now().await;
    }
    client.kill().unwrap();
    client.wait().unwrap();
    let began = std::time::Instant::now();
    while running().await > 0 {
        assert!(began.elapsed() < ages / 2, "it runs on without its client");
        tokio::task::yield_now().await;
    }
}
