//! The door for clients of Postgres, asked by clients as they come from their registries: psycopg, asyncpg, SQLAlchemy and pandas, pgx and
//! JDBC.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Result;
use bytes::Bytes;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use serde_json::{Value as Json, json};
use sluice_bench::corpus::Signal;
use sluice_bench::load::{Client, Protocol, Target};
use sluice_tests::Node;
use sluice_tests::python::{interpreter, must_not_skip, run};

use crate::otlp::{attribute, one_log, text};

const CLIENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/clients");
const JDBC: &str = "org.postgresql:postgresql:42.7.8";

/// A tool that this machine may lack; in CI it may not.
fn found<T>(tool: Result<T>) -> Option<T> {
    match tool {
        Ok(tool) => Some(tool),
        Err(error) if must_not_skip() => panic!("{error:#}"),
        Err(error) => {
            eprintln!("SKIPPED, the client cannot be installed: {error:#}");
            None
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap()
}

/// A node with two logs, its port and its token.
async fn filled() -> (Node, String, String) {
    let mut node = Node::up().await.unwrap();
    let target = Target::new(Protocol::Http, node.url("otlp-http").unwrap());
    let mut client = Client::connect(&target).unwrap();
    for body in ["hello 1", "hello 2"] {
        let event = one_log(
            body,
            vec![attribute("mark", text("pg")), attribute("whole", Value::IntValue(1))],
        );
        client.send(Signal::Log, Bytes::from(event)).await;
    }
    node.rows("SELECT body FROM logs WHERE attrs['mark'] = 'pg'", 2)
        .await
        .unwrap();
    let process = node.process().unwrap();
    let port = process.address("pg").unwrap().port().to_string();
    let token = process.token().to_owned();
    (node, port, token)
}

#[tokio::test]
async fn python_clients_connect_list_and_ask() {
    let Some(python) = found(interpreter()) else { return };
    let (_node, port, token) = filled().await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/python/postgres.py").to_owned();
    let printed = blocking(|| run(python, [script, port, token])).await.unwrap();
    let seen: Json = serde_json::from_str(&printed).unwrap();
    let rows = seen["text"].as_array().unwrap();
    let found: Vec<_> = rows.iter().map(|row| (&row[0], &row[1], &row[3])).collect();
    let (severity, mark) = (json!(13), json!("pg"));
    assert_eq!(
        found,
        [
            (&json!("hello 1"), &severity, &mark),
            (&json!("hello 2"), &severity, &mark)
        ]
    );
    assert_eq!(seen["binary"], seen["text"], "both ways to write a value say the same");
    assert_eq!(seen["since"], 2);
    assert_eq!(seen["map"], json!({"mark": "pg", "whole": "1"}));
    assert_eq!(seen["error"], json!(["42703", "8"]));
    assert_eq!((&seen["aborted"], &seen["after"]), (&json!("25P02"), &json!(1)));
    assert_eq!(seen["tables"], json!(["events"]));
    let views = [
        "ledger",
        "logs",
        "metrics",
        "plugins",
        "quarantined",
        "service_red",
        "spans",
        "streams",
    ];
    assert_eq!(seen["views"], json!(views));
    assert_eq!(seen["indexes"], json!([[], true]));
    assert_eq!(seen["described"], json!([{"text": null}, {}, [], []]));
    assert_eq!(seen["nothing else"], json!([[], [], [], []]));
    assert_eq!(seen["reflected"], json!([9, "TIMESTAMP", 0]));
    assert_eq!(seen["has"], json!([true, false]));
    assert_eq!(
        seen["columns"],
        json!(["time TIMESTAMP", "tenant TEXT", "node TEXT", "service TEXT"])
    );
    assert_eq!(seen["keys"], json!([[], []]));
    assert_eq!(seen["schemas"], true);
    assert_eq!(seen["orm"], json!(["hello 1", "hello 2"]));
    assert_eq!(seen["pandas"], json!([["body", "severity"], 2]));
    assert_eq!(seen["asyncpg"], json!(["hello 1", "hello 2"]));
    assert_eq!(
        (&seen["cursor"], &seen["cancelled"]),
        (&json!(1_000), &json!([true, 1]))
    );
    assert_eq!(seen["completeness"], json!([2, 0]));
    assert_eq!(seen["stranger"], true);
}

#[tokio::test]
async fn pgx_connects_asks_and_cancels() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("pgx");
    let built = {
        let program = program.clone();
        blocking(move || {
            let source = Path::new(CLIENTS).join("pgx");
            let arguments: [OsString; 6] = [
                "-C".into(),
                source.into(),
                "build".into(),
                "-o".into(),
                program.into(),
                ".".into(),
            ];
            run("go", arguments)
        })
        .await
    };
    if found(built).is_none() {
        return;
    }
    let (_node, port, token) = filled().await;
    let printed = blocking(|| run(program, [port, token])).await.unwrap();
    let seen: Json = serde_json::from_str(&printed).unwrap();
    assert_eq!(
        (&seen["bodies"], &seen["since"]),
        (&json!(["hello 1", "hello 2"]), &json!(2))
    );
    assert_eq!(seen["map"], json!({"mark": "pg", "whole": "1"}));
    assert_eq!(
        (&seen["late"], &seen["batch"], &seen["write"]),
        (&json!(true), &json!("42703"), &json!("25006"))
    );
}

/// The driver's file and the program that uses it.
fn java(folder: &Path) -> Result<PathBuf> {
    let plugin = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy";
    run(
        "mvn",
        [
            "-q".to_owned(),
            "-B".to_owned(),
            plugin.to_owned(),
            format!("-Dartifact={JDBC}"),
            format!("-DoutputDirectory={}", folder.display()),
        ],
    )?;
    let [door, dbeaver] = ["jdbc/Door.java", "jdbc/DBeaver.java"].map(|program| Path::new(CLIENTS).join(program));
    let arguments = ["-d".as_ref(), folder.as_os_str(), door.as_os_str(), dbeaver.as_os_str()];
    run("javac", arguments)?;
    Ok(folder.to_owned())
}

#[tokio::test]
async fn jdbc_connects_lists_and_asks() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    let Some(classes) = found(blocking(move || java(&path)).await) else {
        return;
    };
    let (_node, port, token) = filled().await;
    let path = format!("{0}:{0}/*", classes.display());
    let ask = async |program: &str| {
        let arguments = ["-cp", &path, program, &port, &token].map(str::to_owned);
        blocking(|| run("java", arguments)).await.unwrap()
    };
    let door = ask("Door").await;
    for line in [
        "bodies [hello 1 13 true pg, hello 2 13 true pg]",
        "tables [events, ledger, logs, metrics, plugins, quarantined, service_red, spans, streams]",
        "columns [time, tenant, node, service]",
        "schemas true",
        "catalogs [sluice]",
        "base tables [events]",
        "views [service_red, spans, streams]",
        "kinds true",
        "primary keys []",
        "indexes []",
        "imported []",
        "exported []",
        "identifier []",
        "time timestamptz 93 NO null",
        "types true",
        "functions [json_get_str]",
        "arguments [returnValue]",
        "procedures []",
        "rights [SELECT]",
        "rights to columns [SELECT]",
        "keywords true",
        "fetched 1000",
        "late 57014",
        "write 25006",
        "column 42703",
    ] {
        said(&door, line);
    }
    let opening = ask("DBeaver").await;
    for line in [
        "user [sluice]",
        "path [public]",
        "database [sluice]",
        "databases [sluice]",
        "setting [on]",
        "keywords true",
        "roles [sluice]",
        "extensions []",
        "methods true",
        "encodings true",
        "schemas [pg_catalog, public]",
        "types true",
        "types of the schema []",
        "events is r, logs is v",
        "sizes 9",
        "functions true",
        "found [events]",
        "columns [tenant, node, signal, time]",
        "constraints []",
        "indexes []",
        "parents []",
        "triggers []",
        "rights [SELECT]",
        "rows true",
    ] {
        said(&opening, line);
    }
}

fn said(printed: &str, line: &str) {
    assert!(
        printed.lines().any(|said| said == line),
        "{line} is missing:\n{printed}"
    );
}
