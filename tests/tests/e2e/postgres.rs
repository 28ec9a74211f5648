//! The door for clients of Postgres, asked by psycopg and SQLAlchemy as they come from their registry.

use bytes::Bytes;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use serde_json::{Value as Json, json};
use sluice_bench::corpus::Signal;
use sluice_bench::load::{Client, Protocol, Target};
use sluice_tests::Node;
use sluice_tests::python::{interpreter, must_not_skip, run};

use crate::otlp::{attribute, one_log, text};

#[tokio::test]
async fn psycopg_and_sqlalchemy_connect_list_and_ask() {
    let python = match interpreter() {
        Ok(python) => python,
        Err(error) if must_not_skip() => panic!("{error:#}"),
        Err(error) => {
            eprintln!("SKIPPED, the clients cannot be installed: {error:#}");
            return;
        }
    };
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

    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/python/postgres.py").to_owned();
    let process = node.process().unwrap();
    let port = process.address("pg").unwrap().port().to_string();
    let token = process.token().to_owned();
    let printed = tokio::task::spawn_blocking(move || run(python, [script, port, token]))
        .await
        .unwrap()
        .unwrap();
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
    let tables = seen["tables"].as_array().unwrap();
    assert!(
        ["events", "logs", "spans"]
            .iter()
            .all(|name| tables.contains(&json!(name))),
        "{tables:?}"
    );
    assert_eq!(seen["has"], json!([true, false]));
    assert_eq!(seen["orm"], json!(["hello 1", "hello 2"]));
    assert_eq!(seen["stranger"], true);
}
