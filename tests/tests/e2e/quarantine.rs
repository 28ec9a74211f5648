//! Events that a plugin failed on find their way back once it is mended, and only once.

use std::fs;
use std::process::{Command, Output};

use serde_json::{Value, json};
use sluice_tests::{Node, binary, plugins};

use crate::otlp::{attribute, one_log, post, text};

fn quarantine(node: &Node, words: &[&str]) -> Output {
    let mut command = Command::new(binary().unwrap());
    command.arg("quarantine").args(words).arg("--data").arg(node.data());
    command.output().unwrap()
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[tokio::test]
async fn quarantined_events_are_listed_and_sent_in_again_once() {
    let component = plugins().unwrap().join("faulty.wasm");
    let config = format!(
        "[[edge.plugin]]\nname = \"faulty\"\npath = {:?}\nunsigned = true\nconfig = {{ mode = \"trap\", only = \"unlucky\" }}\n",
        component.display().to_string()
    );
    let mut node = Node::prepare(&config).unwrap().started().await.unwrap();
    let url = format!("{}/v1/logs", node.url("otlp-http").unwrap());
    for n in 0..3 {
        let body = one_log("unlucky", vec![attribute("n", text(&n.to_string()))]);
        assert_eq!(post(&url, "application/x-protobuf", None, body).await.status, 200);
    }
    node.rows("SELECT * FROM quarantined", 3).await.unwrap();
    let list: Value = serde_json::from_str(&said(&quarantine(&node, &["list", "--json"]))).unwrap();
    assert_eq!(
        (&list[0]["plugin"], &list[0]["events"], &list[0]["signal"]),
        (&json!("faulty"), &json!(3), &json!("log"))
    );
    let reason = list[0]["reason"].as_str().unwrap().to_owned();
    assert!(said(&quarantine(&node, &["list"])).contains(&format!("3 logs  faulty: {reason}")));
    assert!(said(&quarantine(&node, &["list", "--plugin", "other"])).contains("nothing"));

    // The plugin is mended.
    node.stop().await.unwrap();
    fs::write(node.data().join("../sluice.toml"), "").unwrap();
    node.start_again().await.unwrap();
    let dry = said(&quarantine(&node, &["resubmit", "--reason", &reason, "--dry-run"]));
    assert!(dry.starts_with("3 events would be sent, 0 are passed over"), "{dry}");
    let sent = said(&quarantine(&node, &["resubmit", "--plugin", "faulty", "--limit", "2"]));
    assert!(sent.starts_with("2 events sent"), "{sent}");
    let copies = "SELECT attrs['n'], body, attrs['sluice.resubmitted_from'] FROM events \
                  WHERE attrs['sluice.resubmitted_from'] IS NOT NULL ORDER BY 1";
    node.rows(copies, 2).await.unwrap();
    let sent = said(&quarantine(&node, &["resubmit"]));
    assert!(sent.starts_with("1 events sent"), "{sent}");
    let answer = node.rows(copies, 3).await.unwrap();
    let places =
        "SELECT attrs['n'], body, concat(\"partition\", '/', \"offset\", '/', \"row\") FROM quarantined ORDER BY 1";
    let places = node.rows(places, 3).await.unwrap();
    assert_eq!(answer.rows, places.rows, "each copy says where it comes from");
    // Everything has its copy: nothing is sent twice.
    let nothing = said(&quarantine(&node, &["resubmit"]));
    assert!(
        nothing.starts_with("0 events sent in again, 3 passed over"),
        "{nothing}"
    );
    assert_eq!(node.rows(copies, 3).await.unwrap().rows.len(), 3);
}
