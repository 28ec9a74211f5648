//! The order of system calls, seen from outside: a kill does not show a missing sync, because what was written survives it.

use std::path::Path;
use std::process::{Child, Command};

use sluice_wire::Signal;

use crate::client::{PROTOBUF, http, post, request};
use crate::node::{eventually, skipped};

/// The program under strace; `None` where there is none.
fn traced(dir: &Path, options: &[&str]) -> Option<(Child, std::net::SocketAddr)> {
    let there = Command::new("strace")
        .arg("-V")
        .output()
        .is_ok_and(|o| o.status.success());
    if !there {
        skipped("strace is not installed");
        return None;
    }
    let ready = dir.join("ready");
    let child = Command::new("strace")
        .args(["-f", "-s", "64", "-o"])
        .arg(dir.join("trace"))
        .args(options)
        .arg(env!("CARGO_BIN_EXE_sluice-edge"))
        .args([
            "run",
            "--listen",
            "otlp-grpc=",
            "--listen",
            "otlp-http=127.0.0.1:0",
            "--listen",
            "http=",
            "--data",
        ])
        .arg(dir.join("data"))
        .arg("--ready-file")
        .arg(&ready)
        .env("SLUICE_LOG", "error")
        .spawn()
        .unwrap();
    eventually("the node is ready", || ready.exists());
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(&ready).unwrap()).unwrap();
    Some((child, json["listen"]["otlp-http"].as_str().unwrap().parse().unwrap()))
}

/// Sends requests one after the other; what each is answered, `None` without an answer.
fn send(address: std::net::SocketAddr, requests: usize) -> Vec<Option<u16>> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let http = http();
    let one = |k: usize| {
        let body = request(Signal::Log, &format!("o{k}"), 2, "x");
        runtime
            .block_on(post(&http, address, "/v1/logs", PROTOBUF, body))
            .ok()
            .map(|answer| answer.status)
    };
    (0..requests).map(one).collect()
}

#[test]
fn p1_the_sync_has_returned_before_success_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let calls = "trace=read,recvfrom,fdatasync,write,writev,sendto";
    let Some((mut child, address)) = traced(dir.path(), &["-e", calls]) else {
        return;
    };
    assert_eq!(send(address, 10), [Some(200); 10]);
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(dir.path().join("ready")).unwrap()).unwrap();
    Command::new("kill").arg(json["pid"].to_string()).status().unwrap();
    child.wait().unwrap();
    // Nothing but the journal syncs in this time: batches are sealed after 30 s without a link.
    let (mut synced, mut answers) = (false, 0);
    for line in std::fs::read_to_string(dir.path().join("trace")).unwrap().lines() {
        if line.contains("POST /v1/logs") {
            synced = false;
        } else if line.contains("fdatasync") && line.trim_end().ends_with("= 0") {
            synced = true;
        } else if line.contains("HTTP/1.1 200") {
            assert!(synced, "success is told before anything was synced: {line}");
            answers += 1;
        }
    }
    assert_eq!(answers, 10);
}

#[test]
fn p1_a_failed_sync_is_never_told_as_success_and_ends_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let fault = "inject=fdatasync:error=EIO:when=9+";
    let Some((mut child, address)) = traced(dir.path(), &["-e", "trace=fdatasync", "-e", fault]) else {
        return;
    };
    let answers = send(address, 12);
    assert_eq!(child.wait().unwrap().code(), Some(1));
    let good = answers.iter().take_while(|a| **a == Some(200)).count();
    assert!((1..12).contains(&good), "{answers:?}");
    assert!(
        answers[good..].iter().all(|a| matches!(a, None | Some(503))),
        "{answers:?}"
    );
    // Recovery reads again: everything that was told is there.
    let node = crate::node::TestNode::start(crate::node::config(&dir.path().join("data")));
    let cloud = crate::cloud::Cloud::of(&node.spool);
    for k in 0..good {
        assert_eq!(cloud.events.get(&format!("o{k}-1")), Some(&1));
    }
    node.stop();
}
