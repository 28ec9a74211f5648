//! The program itself: ready file, exit codes, signals.

use std::path::Path;
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

fn dist(component: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../plugins/dist/{component}.wasm"))
}

fn entry(name: &str, path: &Path, more: &str) -> String {
    format!("[[plugin]]\nname = {name:?}\npath = {path:?}\nunsigned = true\nlimits.deadline = \"5 s\"\n{more}\n")
}

/// Whether a process has a handler for SIGHUP.
fn catches_hangup(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    mask.is_some_and(|mask| u64::from_str_radix(mask.trim(), 16).unwrap() & 1 == 1)
}

#[test]
fn sighup_works_under_nohup_and_one_that_comes_during_the_start_is_not_lost() {
    let dir = tempfile::tempdir().unwrap();
    let (file, ready, log) = (
        dir.path().join("edge.toml"),
        dir.path().join("ready"),
        dir.path().join("log"),
    );
    // The start waits for this plugin until somebody writes it.
    let pipe = dir.path().join("first.wasm");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let write = |plugins: &str| {
        let doors = "[listen]\notlp-grpc = \"\"\notlp-http = \"\"\nhttp = \"127.0.0.1:0\"\n";
        let text = format!("data_dir = {:?}\n{doors}{plugins}", dir.path().join("data"));
        std::fs::write(&file, text).unwrap();
    };
    write(&entry("first", &pipe, "config = { mode = \"ok\" }"));
    let mut child = Command::new("nohup")
        .arg(env!("CARGO_BIN_EXE_sluice-edge"))
        .args(["run", "--config"])
        .arg(&file)
        .arg("--ready-file")
        .arg(&ready)
        .env("SLUICE_LOG", "info")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&log).unwrap())
        .current_dir(dir.path())
        .spawn()
        .unwrap();
    let hangup = || {
        let kill = Command::new("kill").args(["-HUP", &child.id().to_string()]).status();
        assert!(kill.unwrap().success());
    };
    eventually("the signal is waited for", || catches_hangup(child.id()));
    assert!(!ready.exists(), "it still starts");
    write(&entry("second", &dist("faulty"), "config = { mode = \"ok\" }"));
    hangup();
    std::fs::write(&pipe, std::fs::read(dist("faulty")).unwrap()).unwrap();
    let says = |text: &str| std::fs::read_to_string(&log).unwrap().contains(text);
    eventually("the chain is the one of the new file", || {
        says("chain reloaded: second 1.0.0 (new), first 1.0.0 (removed)")
    });
    assert!(says("chain: first 1.0.0\n"));
    assert!(!says("the next start takes over"));
    write("[seal]\nmax_rows = 100\n[[plugin]]\nname = \"mask\"\npath = \"nowhere.wasm\"\nunsigned = true\n");
    hangup();
    eventually("the refusal is told", || says("nowhere.wasm"));
    assert!(says("the next start takes over seal.max_rows"));
    let kill = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
    assert!(kill.unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn check_looks_at_the_plugins_as_a_start_does() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let check = |plugins: &str, json: bool| {
        let file = dir.path().join("edge.toml");
        std::fs::write(&file, format!("data_dir = {data:?}\n{plugins}")).unwrap();
        let mut command = program();
        command.arg("check").arg(&file);
        if json {
            command.arg("--json");
        }
        let output = command.stdin(Stdio::null()).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let nowhere = dir.path().join("nowhere.wasm");
    let good = [entry("m", &dist("mask"), ""), entry("off", &nowhere, "enabled = false")].concat();
    let (code, stdout, stderr) = check(&good, false);
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "{stdout}");
    let line = |name: &str| {
        stdout
            .lines()
            .find(|line| line.starts_with(&format!("# plugin {name}: ")))
            .unwrap()
    };
    assert!(line("m").contains("mask ") && line("m").contains("match"), "{stdout}");
    assert!(
        line("off").contains("not loaded") && line("off").contains("nowhere.wasm"),
        "{stdout}"
    );

    std::fs::write(dir.path().join("garbage.wasm"), b"\0asm and nothing").unwrap();
    let bad = [
        ("missing", &*nowhere, "", "nowhere.wasm"),
        ("garbage", &dir.path().join("garbage.wasm"), "", "`garbage`"),
        (
            "wishes",
            &dist("faulty"),
            "config = { colour = \"red\" }",
            "unknown field `colour`",
        ),
        (
            "powers",
            &dist("faulty"),
            "config = { mode = \"ok\" }\ncapabilities = [\"log\"]",
            "not granted",
        ),
        (
            "secret",
            &dist("faulty"),
            "config = { mode = { env = \"SLUICE_NOT_SET\" } }",
            "SLUICE_NOT_SET",
        ),
    ];
    let text: Vec<String> = bad
        .iter()
        .map(|(name, path, more, _)| entry(name, path, more))
        .collect();
    let (code, stdout, stderr) = check(&format!("{}{good}", text.concat()), false);
    assert_eq!(code, Some(3));
    assert!(
        stdout.contains("# plugin m: ") && stdout.contains("seal.max_rows = "),
        "{stdout}"
    );
    for (name, _, _, says) in &bad {
        let line = stderr
            .lines()
            .find(|line| line.contains(&format!("plugin {name}: refused: ")));
        assert!(
            line.is_some_and(|line| line.contains(says) && line.contains("edge.toml")),
            "{name}: {stderr}"
        );
    }
    assert_eq!(stderr.lines().count(), bad.len(), "{stderr}");
    let (code, stdout, _) = check(&format!("{}{good}", text[0]), true);
    let json: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    let of = |key: &str| {
        json.as_array()
            .unwrap()
            .iter()
            .find(|item| item["key"] == key)
            .unwrap()
            .clone()
    };
    assert_eq!(code, Some(3));
    assert!(
        of("plugin.missing")["refused"]
            .as_str()
            .unwrap()
            .contains("nowhere.wasm")
    );
    assert_eq!(
        (&of("plugin.m")["refused"], &of("plugin.m")["kind"]),
        (&serde_json::Value::Null, &"mask".into())
    );
    assert_eq!(of("seal.max_rows")["origin"], "default");
    assert!(!data.exists(), "looking changes nothing");
}
