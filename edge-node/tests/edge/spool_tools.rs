//! What an operator sees of a data folder, beside a running node and after its end, and what can be taken out of it.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

use arrow_array::cast::AsArray;
use serde_json::Value;
use sluice_edge::link::AckSink;
use sluice_wire::Signal;

use crate::client::{PATHS, http, post, request, send};
use crate::cloud::Cloud;
use crate::node::{TestNode, config, eventually};

const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

fn tool(words: &[&str], data: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice-edge"));
    command.arg("spool").args(words).arg("--data").arg(data);
    command.output().unwrap()
}

fn json(words: &[&str], data: &Path) -> (Option<i32>, Value) {
    let output = tool(&[words, &["--json"]].concat(), data);
    let value = serde_json::from_slice(&output.stdout);
    (
        output.status.code(),
        value.unwrap_or_else(|e| panic!("{e}: {output:?}")),
    )
}

/// A node with five batches of 10 logs, 10 spans and 10 data points each, the first two acknowledged.
fn filled(dir: &Path) -> TestNode {
    let node = TestNode::start(config(dir));
    let (http, address) = (http(), node.address("otlp-http"));
    for k in 0..5 {
        for (signal, path, _) in PATHS {
            let body = request(signal, &format!("{}{k}", signal.as_str()), 10, "x");
            assert!(node.runtime.block_on(send(&http, address, path, body)));
        }
        eventually("it is sealed", || {
            let status = node.status.snapshot();
            status.journal.unsealed_bytes == 0 && status.accepted.log == 10 * (k + 1)
        });
    }
    node
}

#[test]
fn an_operator_sees_what_is_in_a_folder_while_the_node_runs_and_when_it_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let node = filled(dir.path());
    let batches = node.spool.status().next;
    (0..2).for_each(|index| node.spool.acked(index));
    eventually("the cursor is saved", || {
        json(&["inspect"], dir.path()).1["spool"]["acknowledged"] == serde_json::json!([[0, 2]])
    });
    let (code, seen) = json(&["inspect"], dir.path());
    assert_eq!((code, &seen["running"]), (Some(0), &Value::Bool(true)));
    let stream = node.spool.stream().to_string();
    node.stop();
    let (_, after) = json(&["inspect"], dir.path());
    assert_eq!(after["running"], false);
    for seen in [seen, after] {
        let number = |path: &str| {
            seen.pointer(path)
                .and_then(Value::as_u64)
                .unwrap_or_else(|| panic!("{path}: {seen:#}"))
        };
        assert_eq!(
            (number("/spool/batches"), number("/spool/waiting")),
            (batches, batches - 2)
        );
        assert_eq!((number("/spool/rows"), number("/spool/next")), (150, batches));
        assert_eq!(
            (number("/journal/unsealed_events"), number("/journal/covered")),
            (0, 15)
        );
        assert_eq!(seen["stream"], stream.as_str());
        assert_eq!(seen["epochs"][0]["first_index"], 0);
        assert!(number("/spool/files/0/bytes") > 1000 && seen["spool"]["oldest_waiting"].is_string());
    }
    let text = String::from_utf8(tool(&["inspect"], dir.path()).stdout).unwrap();
    assert!(
        text.contains("150 rows") && text.contains("acknowledged   0..2"),
        "{text}"
    );
    let nowhere = tool(&["inspect"], &dir.path().join("spool"));
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nowhere.stderr).contains("--data"));
}

#[test]
fn p6_verify_names_each_damaged_place_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path()).stop();
    let (code, whole) = json(&["verify"], dir.path());
    assert_eq!(
        (code, whole["damaged"].as_array().unwrap().len()),
        (Some(0), 0),
        "{whole:#}"
    );
    let batches = whole["batches"].as_u64().unwrap();
    // One byte of the third part of the spool's file, and one of the cursor.
    let file = std::fs::read_dir(dir.path().join("spool"))
        .unwrap()
        .map(|e| e.unwrap().path());
    let file = file
        .filter(|p| p.extension().is_some_and(|e| e == "wal"))
        .min()
        .unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    let at = bytes.len() / 3;
    bytes[at] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    std::fs::write(dir.path().join("cursor"), b"SLWC garbage").unwrap();
    let (code, damaged) = json(&["verify"], dir.path());
    assert_eq!(code, Some(4));
    assert_eq!(damaged["batches"], batches - 1);
    let places = damaged["damaged"].as_array().unwrap();
    assert_eq!(places.len(), 2, "{damaged:#}");
    assert_eq!(
        (&places[0]["file"], &places[0]["harmless"]),
        (&"cursor".into(), &true.into())
    );
    let place = &places[1];
    let name = format!("spool/{}", file.file_name().unwrap().to_string_lossy());
    assert_eq!(
        (&place["file"], &place["harmless"]),
        (&name.as_str().into(), &false.into())
    );
    let index = place["index"].as_u64().unwrap();
    assert!(
        place["batch"].as_str().unwrap().ends_with(&format!("/{index}")),
        "{place}"
    );
    assert_eq!(std::fs::read(&file).unwrap(), bytes);
    // The others are taken out; the exit code says that it is not everything.
    let to = dir.path().join("out");
    let exported = tool(&["export", "--to", to.to_str().unwrap()], dir.path());
    assert_eq!(exported.status.code(), Some(4), "{exported:?}");
}

#[test]
fn events_that_are_taken_out_can_be_sent_in_again_and_are_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let node = filled(dir.path());
    let (lines, arrow) = (dir.path().join("lines"), dir.path().join("arrow"));
    // Beside the running node.
    let exported = tool(
        &["export", "--format", "otlp", "--to", lines.to_str().unwrap()],
        dir.path(),
    );
    assert!(exported.status.success(), "{exported:?}");
    let again = tool(
        &["export", "--format", "otlp", "--to", lines.to_str().unwrap()],
        dir.path(),
    );
    assert_eq!(again.status.code(), Some(1), "a file is never written over");
    let original = Cloud::of(&node.spool);
    node.stop();

    let other = tempfile::tempdir().unwrap();
    let node = TestNode::start(config(other.path()));
    let (http, address) = (http(), node.address("otlp-http"));
    for (_, path, _) in PATHS {
        let name = path.strip_prefix("/v1/").unwrap();
        let text = std::fs::read_to_string(lines.join(format!("{name}-00001.jsonl"))).unwrap();
        for line in text.lines() {
            let answer = node
                .runtime
                .block_on(post(&http, address, path, JSON, line.to_owned().into()))
                .unwrap();
            assert_eq!(answer.status, 200, "{answer:?}");
        }
    }
    eventually("it is sealed", || node.status.snapshot().journal.unsealed_bytes == 0);
    assert_eq!(Cloud::of(&node.spool).events, original.events);
    node.stop();

    // Logs of the third and the fourth time only.
    let words = [
        "export",
        "--signal",
        "log",
        "--from",
        "2023-11-14T22:13:20.000000003Z",
        "--until",
        "2023-11-14T22:13:20.000000005Z",
    ];
    let exported = tool(&[&words[..], &["--to", arrow.to_str().unwrap()]].concat(), dir.path());
    assert!(exported.status.success(), "{exported:?}");
    let file = std::fs::File::open(arrow.join("events-00001.arrow")).unwrap();
    let batches: Vec<_> = arrow_ipc::reader::FileReader::try_new(file, None)
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let bodies: BTreeSet<String> = batches
        .iter()
        .flat_map(|rows| {
            rows["body"]
                .as_string::<i32>()
                .iter()
                .map(|body| body.unwrap().to_owned())
                .collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(bodies.into_iter().collect::<Vec<_>>(), ["x 3", "x 4"]);
    assert_eq!(batches.iter().map(|rows| rows.num_rows()).sum::<usize>(), 10);
    assert!(batches.iter().all(|rows| {
        rows["signal"]
            .as_string::<i32>()
            .iter()
            .all(|s| s == Some(Signal::Log.as_str()))
    }));
}
