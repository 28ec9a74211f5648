//! The program itself: ready file, exit codes, signals.

use std::process::{Command, Stdio};

use sluice_wire::Signal;

use crate::client::{self, http, request};
use crate::node::eventually;

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice-edge"));
    command.env("SLUICE_LOG", "warn");
    command
}

#[test]
fn sigterm_drains_and_the_next_start_finds_everything() {
    let dir = tempfile::tempdir().unwrap();
    let ready = dir.path().join("ready.json");
    let mut child = program()
        .args([
            "run",
            "--listen",
            "otlp-grpc=127.0.0.1:0",
            "--listen",
            "otlp-http=127.0.0.1:0",
        ])
        .args(["--listen", "http=127.0.0.1:0", "--data"])
        .arg(dir.path().join("data"))
        .arg("--ready-file")
        .arg(&ready)
        .spawn()
        .unwrap();
    eventually("the ready file is there", || ready.exists());
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(&ready).unwrap()).unwrap();
    assert_eq!(json["pid"], child.id());
    let address = json["listen"]["otlp-http"].as_str().unwrap().parse().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let body = request(Signal::Log, "x", 10, "x");
    assert!(runtime.block_on(async { client::send(&http(), address, "/v1/logs", body).await }));

    let url = format!("http://{}", json["listen"]["http"].as_str().unwrap());
    let output = program().args(["status", "--url", &url]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.contains("10 logs"), "{text}");

    let kill = Command::new("kill")
        .args(["-TERM", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(kill.success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let node = crate::node::TestNode::start(crate::node::config(&dir.path().join("data")));
    let cloud = crate::cloud::Cloud::of(&node.spool);
    assert_eq!((cloud.events.len(), node.status.snapshot().recovered.records), (10, 0));
    node.stop();
}

#[test]
fn exit_codes_mean_something() {
    let dir = tempfile::tempdir().unwrap();
    let bad = dir.path().join("bad.toml");
    std::fs::write(&bad, "tenant = \"acme\"\n[seal]\nfreshnes = \"1 s\"\n").unwrap();
    let code = |args: &[&str]| {
        let output = program().args(args).stdin(Stdio::null()).output().unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap(),
            String::from_utf8(output.stdout).unwrap(),
        )
    };
    let bad = bad.to_str().unwrap();
    let (status, stderr, _) = code(&["check", bad]);
    assert_eq!(status, Some(1));
    assert!(
        stderr.contains("bad.toml:3") && stderr.contains("did you mean `freshness`?"),
        "{stderr}"
    );
    assert_eq!(code(&["run", "--config", bad]).0, Some(3));
    assert_eq!(code(&["run", "--listen", "nothing=127.0.0.1:0"]).0, Some(2));
    assert_eq!(code(&["fly"]).0, Some(2));
    assert_eq!(code(&["status", "--url", "http://127.0.0.1:9"]).0, Some(1));
    let good = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/config/edge.toml");
    let (status, _, stdout) = code(&["check", good]);
    assert_eq!(status, Some(0));
    assert!(stdout.contains("seal.max_rows = 8192  # file"), "{stdout}");

    // A folder that somebody else uses is refused.
    let data = dir.path().join("data");
    let node = crate::node::TestNode::start(crate::node::config(&data));
    let doors = ["--listen", "otlp-grpc=", "--listen", "otlp-http=", "--listen", "http="];
    let args = [&["run", "--data", data.to_str().unwrap()][..], &doors[..]].concat();
    assert_eq!(code(&args).0, Some(4));
    node.stop();
}
