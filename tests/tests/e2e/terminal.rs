//! `sluice sql` in a real terminal: what a person types at the prompt, key by key, and what they see.

use serde_json::{Value as Json, json};
use sluice_tests::python::{must_not_skip, run};
use sluice_tests::{Node, binary};

#[tokio::test]
async fn a_person_at_the_prompt_gets_what_they_type_for() {
    if let Err(error) = run("python3", ["--version"]) {
        assert!(!must_not_skip(), "{error:#}");
        eprintln!("SKIPPED, there is no python3 to press the keys: {error:#}");
        return;
    }
    let node = Node::up().await.unwrap();
    let home = tempfile::tempdir().unwrap();
    let arguments = [
        concat!(env!("CARGO_MANIFEST_DIR"), "/python/terminal.py").to_owned(),
        node.url("http").unwrap(),
        home.path().display().to_string(),
        binary().unwrap().display().to_string(),
        "sql".to_owned(),
        "--data".to_owned(),
        node.data().display().to_string(),
    ];
    let printed = tokio::task::spawn_blocking(|| run("python3", arguments)).await.unwrap();
    let seen: Json = serde_json::from_str(&printed.unwrap()).unwrap();
    assert_eq!(
        seen,
        json!({
            "lines": true,
            "completed": true,
            "cleared": true,
            "mistake": true,
            "ended": true,
            "time": true,
            // head, line and 40 rows
            "paged": [42, true],
            "not paged": 0,
            // by Ctrl-D and by \q
            "left": 0,
            "quit": 0,
        })
    );
}
