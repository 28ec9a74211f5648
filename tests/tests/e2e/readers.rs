//! Readers that nobody here wrote: DuckDB, pandas and ClickHouse read the cold table from a folder and from a bucket, and count and sum
//! the same as `sluice sql`.

use std::path::{Path, PathBuf};
use std::process::Command;

use sluice_bench::engines::Engines;
use sluice_tests::python::{interpreter, must_not_skip};
use sluice_tests::{Node, binary, eventually};

use crate::crash::Flood;

/// Of each signal: rows, traces, ids, and sums and ends of what is in every row or in some.
const QUESTION: &str = "SELECT signal, count(*), count(trace_id), count(DISTINCT attrs['evt.id']), sum(\"offset\"), sum(\"row\"), \
                        sum(severity), sum(duration_ns), CAST(min(time) AS BIGINT) / 1000, CAST(max(time) AS BIGINT) / 1000 \
                        FROM events GROUP BY signal ORDER BY signal";
const COMMIT: &str = "[ingest.cold]\ncommit_every = \"500 ms\"\n";

/// Python with these readers, and an engine; none where the machine has none and need not have one.
fn tools() -> Option<(PathBuf, Engines)> {
    let python = match interpreter() {
        Ok(python) => python,
        Err(error) if must_not_skip() => panic!("{error:#}"),
        Err(error) => {
            eprintln!("SKIPPED, the readers cannot be installed: {error:#}");
            return None;
        }
    };
    let engines = Engines::of_environment();
    if engines.is_none() {
        assert!(
            !must_not_skip(),
            "no engines: `cargo xtask services kafka clickhouse s3` gives them"
        );
        eprintln!("NOT RUN: this test needs ClickHouse and a bucket; see `cargo xtask services --help`");
    }
    Some((python, engines?))
}

#[tokio::test(flavor = "multi_thread")]
async fn others_read_the_cold_table_in_a_folder() {
    let Some((python, engines)) = tools() else { return };
    let mut node = Node::prepare(COMMIT).unwrap().started().await.unwrap();
    let expected = fill(&mut node).await;
    let table = node.data().join("lake/events").display().to_string();
    for reader in ["duckdb", "pandas"] {
        assert_eq!(read(&python, reader, &table, &[]), expected, "{reader}");
    }
    let asked = clickhouse(&engines, &format!("deltaLakeLocal('{table}')")).await;
    assert_eq!(asked, expected, "ClickHouse");
}

#[tokio::test(flavor = "multi_thread")]
async fn others_read_the_cold_table_in_a_bucket() {
    let Some((python, engines)) = tools() else { return };
    let of = |name: &str| engines.get(name).unwrap().to_owned();
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let name = format!("readers-{}-{}", std::process::id(), since.unwrap().as_nanos());
    let table = format!("{}/{name}/events", of("S3_BUCKET"));
    let config = format!(
        "[ingest]\nlake = \"s3://{}/{name}\"\n\n[ingest.s3]\nendpoint = \"{}\"\nallow_http = true\n\
         access_key = {{ env = \"AWS_ACCESS_KEY_ID\" }}\nsecret_key = {{ env = \"AWS_SECRET_ACCESS_KEY\" }}\n\n{COMMIT}",
        of("S3_BUCKET"),
        of("S3_ENDPOINT")
    );
    let mut keys = engines.bucket_environment().unwrap().to_vec();
    keys.push(("AWS_ENDPOINT_URL", of("S3_ENDPOINT")));
    let mut node = Node::prepare(&config).unwrap();
    let environment: Vec<(&str, &str)> = keys.iter().map(|(name, value)| (*name, value.as_str())).collect();
    node.start_with(&environment).await.unwrap();
    let expected = fill(&mut node).await;
    for reader in ["duckdb", "pandas"] {
        assert_eq!(
            read(&python, reader, &format!("s3://{table}"), &environment),
            expected,
            "{reader}"
        );
    }
    let (endpoint, key, secret) = (of("S3_ENDPOINT"), of("S3_ACCESS_KEY"), of("S3_SECRET_KEY"));
    let asked = clickhouse(
        &engines,
        &format!("deltaLake('{endpoint}/{table}', '{key}', '{secret}')"),
    )
    .await;
    assert_eq!(asked, expected, "ClickHouse");
}

/// Some thousand events of all signals in several commits, all of them in cold; what `sluice sql` says of them.
async fn fill(node: &mut Node) -> String {
    let flood = Flood::start(node, 20_261_123);
    flood.acknowledged(4_000).await;
    let audit = flood.audit(node).await;
    assert!(audit.holds(), "{audit}");
    let url = format!("{}/v1/status", node.url("http").unwrap());
    let token = node.process().unwrap().token().to_owned();
    // The node's edge goes on reporting every 30 s: what counts is that cold has all of it at one moment.
    let level = || async {
        let status = sluice_bench::process::get(&url, Some(&token)).await;
        let status: serde_json::Value = serde_json::from_slice(&status.map_err(|e| e.to_string())?.body).unwrap();
        let partition = status.pointer("/ingest/partitions/0").cloned().unwrap_or_default();
        match (partition["log_end"].as_u64(), partition["cold_end"].as_u64()) {
            (Some(log), Some(cold)) if log > 0 && log == cold => Ok(()),
            _ => Err(status.to_string()),
        }
    };
    eventually("cold to hold all of the log", level).await.unwrap();
    let sql = sluice_sql(node);
    assert_eq!(sql.lines().count(), 3, "{sql}");
    sql
}

/// As a person asks; the line with the names of columns left out.
fn sluice_sql(node: &mut Node) -> String {
    let (url, token) = (node.url("http").unwrap(), node.process().unwrap().token().to_owned());
    let answer = Command::new(binary().unwrap())
        .args(["sql", "--format", "csv", QUESTION])
        .env("SLUICE_URL", url)
        .env("SLUICE_TOKEN", token)
        .output()
        .unwrap();
    assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
    let text = String::from_utf8(answer.stdout).unwrap();
    text.lines().skip(1).map(|line| format!("{line}\n")).collect()
}

fn read(python: &Path, reader: &str, table: &str, environment: &[(&str, &str)]) -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/python/readers.py");
    let answer = Command::new(python)
        .args([script, reader, table])
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    assert!(
        answer.status.success(),
        "{reader}: {}",
        String::from_utf8_lossy(&answer.stderr)
    );
    String::from_utf8(answer.stdout).unwrap()
}

async fn clickhouse(engines: &Engines, table: &str) -> String {
    let statement = format!(
        "SELECT signal, count(), count(trace_id), uniqExact(attrs['evt.id']), sum(offset), sum(row), sum(severity), sum(duration_ns), \
         toUnixTimestamp64Micro(min(time)), toUnixTimestamp64Micro(max(time)) \
         FROM {table} WHERE signal <> '_batch' AND quarantined_by IS NULL GROUP BY signal ORDER BY signal \
         FORMAT TSV SETTINGS format_tsv_null_representation = ''"
    );
    let answer = engines.clickhouse(&statement).await.unwrap().text();
    answer.replace('\t', ",")
}
