//! The door for clients of Flight SQL, asked by the ADBC driver, pandas and pyarrow as they come from their registry.

use bytes::Bytes;
use serde_json::{Value as Json, json};
use sluice_bench::corpus::Signal;
use sluice_bench::load::{Client, Protocol, Target};
use sluice_tests::Node;
use sluice_tests::python::{interpreter, must_not_skip, run};

use crate::otlp::{attribute, one_log, text};

#[tokio::test]
async fn adbc_pandas_and_pyarrow_connect_list_and_ask() {
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
        let event = one_log(body, vec![attribute("mark", text("flight"))]);
        client.send(Signal::Log, Bytes::from(event)).await;
    }
    node.rows("SELECT body FROM logs WHERE attrs['mark'] = 'flight'", 2)
        .await
        .unwrap();

    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/python/flight.py").to_owned();
    let process = node.process().unwrap();
    let port = process.address("flight").unwrap().port().to_string();
    let token = process.token().to_owned();
    let printed = tokio::task::spawn_blocking(move || run(python, [script, port, token]))
        .await
        .unwrap()
        .unwrap();
    let seen: Json = serde_json::from_str(&printed).unwrap();
    let rows = json!([["hello 1", 13, "flight"], ["hello 2", 13, "flight"]]);
    assert_eq!((&seen["bearer"], &seen["basic"]), (&rows, &rows));
    assert_eq!((&seen["bound"], &seen["injected"]), (&json!(2), &json!(0)));
    assert_eq!(seen["schema"], json!(["body", "severity"]));
    assert_eq!(seen["pandas"][0], json!(["body", "time", "severity", "attrs"]));
    assert_eq!(seen["pandas"][1], 2);
    let tables = seen["tables"].as_array().unwrap();
    assert!(
        ["events", "logs", "spans"]
            .iter()
            .all(|name| tables.contains(&json!(name))),
        "{tables:?}"
    );
    assert_eq!(seen["columns"], json!(["time", "body", "attrs", "trace_id"]));
    assert_eq!(
        (&seen["table_schema"], &seen["info"]),
        (&json!("body"), &json!("Sluice"))
    );
    assert_eq!(seen["types"], json!(["TABLE", "VIEW"]));
    for (what, says) in [
        ("unknown", "unknown_column: there is no column `nope`"),
        ("write", "read_only:"),
        ("ingest", "read_only:"),
    ] {
        assert!(
            seen[what].as_str().is_some_and(|said| said.contains(says)),
            "{what}: {}",
            seen[what]
        );
    }
    let late = seen["late"].as_str().unwrap_or("");
    assert!(
        late.to_ascii_lowercase().contains("deadline") || late.contains("timeout"),
        "{late}"
    );
    assert!(
        seen["cancelled"]
            .as_str()
            .is_some_and(|said| said.to_ascii_lowercase().contains("cancel")),
        "{}",
        seen["cancelled"]
    );
    assert_eq!(seen["pyarrow"], json!(["hello 1", "hello 2"]));
    assert_eq!((&seen["beside"], &seen["header"]), (&json!(true), &json!(true)));
    assert_eq!(seen["stranger"], true);
}
