//! The chain changes while the node runs: nothing is lost, doubled or reordered, and what cannot be done changes nothing.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use serde_json::Value;
use sluice_edge::EdgeConfig;
use sluice_edge::config::PluginEntry;
use sluice_runtime::{PluginStats, What};
use sluice_wire::Signal;

use crate::client::{self, PROTOBUF, http, post, request};
use crate::cloud::Cloud;
use crate::node::{TestNode, config, eventually, options};
use crate::plugins::plugin;

fn send(node: &TestNode, prefix: &str, rows: usize, body: &str) -> u16 {
    let (address, body) = (node.address("otlp-http"), request(Signal::Log, prefix, rows, body));
    node.runtime
        .block_on(async { post(&http(), address, "/v1/logs", PROTOBUF, body).await.unwrap() })
        .status
}

fn reload(node: &TestNode, config: &EdgeConfig, chain: &[PluginEntry]) -> Result<(), String> {
    let mut config = config.clone();
    config.plugin = chain.to_vec();
    node.runtime
        .block_on(node.status.reload(&config))
        .map_err(|error| error.to_string())
}

fn sealed(node: &TestNode) -> Cloud {
    eventually("everything is sealed", || {
        node.status.snapshot().journal.unsealed_bytes == 0
    });
    Cloud::of(&node.spool)
}

fn stats(node: &TestNode, name: &str) -> PluginStats {
    let plugins = node.status.snapshot().plugins;
    plugins
        .into_iter()
        .find(|plugin| plugin.name == name && plugin.state.is_in_place())
        .unwrap()
}

/// Says that it is over when it is dropped.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn p2_plugins_are_exchanged_under_load_and_every_event_is_stored_once_and_in_order() {
    const ROWS: usize = 5;
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let node = TestNode::start(config.clone());
    let faulty = |name: &str, mode: &str| plugin(name, "faulty", &format!("{{ mode = {mode:?} }}"));
    let chains = [
        vec![faulty("f", "ok"), plugin("m", "mask", "{}")],
        vec![plugin("m", "mask", "{}"), faulty("f", "leak")],
        vec![faulty("f", "trap"), plugin("m", "mask", "{}")],
        vec![faulty("g", "ok"), plugin("m", "mask", "{}")],
    ];
    let over = AtomicBool::new(false);
    let address = node.address("otlp-http");
    let sent: Vec<usize> = std::thread::scope(|scope| {
        let senders: Vec<_> = (0..3)
            .map(|sender| {
                let over = &over;
                scope.spawn(move || {
                    let runtime = tokio::runtime::Runtime::new().unwrap();
                    let http = http();
                    let mut requests = 0;
                    while !over.load(Ordering::SeqCst) {
                        let body = request(Signal::Log, &format!("{sender}-{requests:06}"), ROWS, "x");
                        assert!(runtime.block_on(client::send(&http, address, "/v1/logs", body)));
                        requests += 1;
                    }
                    requests
                })
            })
            .collect();
        // However this ends, so do the senders.
        let end = End(&over);
        for round in 0..20 {
            reload(&node, &config, &chains[round % chains.len()]).unwrap();
            let before = node.status.snapshot().accepted.log;
            eventually("events pass", || node.status.snapshot().accepted.log > before + 20);
        }
        drop(end);
        senders.into_iter().map(|sender| sender.join().unwrap()).collect()
    });
    let cloud = sealed(&node);
    let rows = sent.iter().sum::<usize>() * ROWS;
    assert_eq!((cloud.counts.accepted, cloud.counts.stored), (rows as u64, rows as u64));
    assert_eq!((cloud.counts.quarantined, cloud.events.len()), (0, rows));
    for (sender, requests) in sent.iter().enumerate() {
        let prefix = format!("{sender}-");
        let seen: Vec<&String> = cloud.order.iter().filter(|id| id.starts_with(&prefix)).collect();
        assert_eq!(seen.len(), requests * ROWS);
        assert!(seen.is_sorted(), "one sender's events stay in their order");
    }
    let events = node.status.snapshot().chain.events;
    assert!(events.iter().any(|event| event.what == What::RolledBack));
    node.stop();
}

#[test]
fn p2_a_chain_that_cannot_be_loaded_is_refused_as_a_whole_and_the_old_one_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let node = TestNode::start(config.clone());
    let good = plugin("m", "mask", "{}");
    reload(&node, &config, std::slice::from_ref(&good)).unwrap();
    assert_eq!(send(&node, "a", 3, "kim@example.com"), 200);
    let before = stats(&node, "m");
    assert_eq!((before.rows_in, before.batches, before.memory_bytes > 0), (3, 1, true));

    let mut missing = plugin("x", "faulty", "{ mode = \"ok\" }");
    missing.path = Some(dir.path().join("nowhere.wasm"));
    std::fs::write(dir.path().join("garbage.wasm"), b"\0asm and nothing").unwrap();
    let mut garbage = missing.clone();
    garbage.path = Some(dir.path().join("garbage.wasm"));
    let mut unsigned = plugin("x", "faulty", "{ mode = \"ok\" }");
    unsigned.unsigned = false;
    let mut nobody = missing.clone();
    (nobody.path, nobody.unsigned) = (None, false);
    let mut small = plugin("x", "faulty", "{ mode = \"ok\" }");
    small.limits = toml::from_str("memory = \"1 KiB\"").unwrap();
    std::fs::write(dir.path().join("secret"), "hunter2-hunter2\n").unwrap();
    let quotes = plugin(
        "x",
        "sample",
        &format!("{{ rate = {{ file = {:?} }} }}", dir.path().join("secret")),
    );
    let cases = [
        (missing, "nowhere.wasm"),
        (garbage, "`x`"),
        (unsigned, "unsigned = true"),
        (nobody, "sluice plugin install"),
        (small, "memory"),
        (quotes, "`x` refuses its configuration"),
        (plugin("x", "faulty", "{ mode = { env = \"SLUICE_NOT_SET\" } }"), "`x`"),
    ];
    for (bad, says) in cases {
        // The first entry alone could be taken over.
        let error = reload(&node, &config, &[plugin("n", "mask", "{}"), bad]).unwrap_err();
        assert!(error.contains(says), "{error}");
        let status = node.status.snapshot();
        let why = status.chain.refused.unwrap().why;
        assert!(why.contains(says) && !why.contains("hunter2"), "{why}");
        let places: Vec<&str> = status.plugins.iter().map(|plugin| plugin.name.as_str()).collect();
        assert_eq!(places, ["m"]);
    }
    assert_eq!(send(&node, "b", 3, "kim@example.com"), 200);
    reload(&node, &config, &[good]).unwrap();
    let status = node.status.snapshot();
    assert_eq!(status.chain.refused, None);
    assert!(status.chain.sources["m"].ends_with("mask.wasm, unsigned"));
    assert_eq!(stats(&node, "m").rows_in, 6, "what did not change counts on");
    node.stop();
}

#[test]
fn a_mask_that_is_switched_off_is_shown_until_it_is_on_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.plugin = vec![plugin("m", "mask", "{}")];
    let node = TestNode::start(config.clone());
    let mut off = config.plugin.clone();
    off[0].enabled = false;
    reload(&node, &config, &off).unwrap();
    assert_eq!(send(&node, "off", 2, "kim@example.com"), 200);
    let status = node.status.snapshot();
    assert!(
        status.chain.warnings[0].contains("UNMASKED"),
        "{:?}",
        status.chain.warnings
    );
    assert_eq!((status.plugins[0].enabled, status.plugins[0].rows_in), (false, 0));
    reload(&node, &config, &config.plugin).unwrap();
    assert!(node.status.snapshot().chain.warnings.is_empty());
    assert_eq!(send(&node, "on", 2, "kim@example.com"), 200);
    assert_eq!(stats(&node, "m").rows_in, 2);
    node.stop();

    // A plugin that is switched off keeps no node from starting.
    config.plugin[0].enabled = false;
    config.plugin[0].path = Some(dir.path().join("nowhere.wasm"));
    let node = TestNode::start(config);
    let status = node.status.snapshot();
    assert!(status.plugins.is_empty() && status.chain.warnings[0].contains("nowhere.wasm"));
    node.stop();
}

#[test]
fn a_start_with_a_plugin_that_cannot_be_loaded_is_refused_as_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.plugin = vec![plugin("f", "faulty", r#"{ mode = "init_trap" }"#)];
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let error = runtime
        .block_on(sluice_edge::EdgeNode::build_with(config, options()))
        .unwrap_err();
    assert_eq!(error.exit_code(), 3);
}

fn get(address: &str, path: &str) -> Bytes {
    use http_body_util::BodyExt;
    let uri: http::Uri = format!("http://{address}{path}").parse().unwrap();
    let get = http::Request::get(uri).body(http_body_util::Full::default()).unwrap();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let response = http().request(get).await.unwrap();
        response.into_body().collect().await.unwrap().to_bytes()
    })
}

/// The program, its signal and its pages.
#[test]
fn sighup_exchanges_plugins_of_a_real_process_and_its_pages_tell() {
    let dir = tempfile::tempdir().unwrap();
    let (file, ready) = (dir.path().join("edge.toml"), dir.path().join("ready"));
    let component = |name: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../plugins/dist/{name}.wasm"));
        std::fs::copy(path, dir.path().join(format!("{name}.wasm"))).unwrap();
    };
    component("faulty");
    component("mask");
    let write = |plugins: &str| {
        let doors = "[listen]\notlp-grpc = \"\"\notlp-http = \"127.0.0.1:0\"\nhttp = \"127.0.0.1:0\"\n";
        let text = format!("data_dir = {:?}\n{doors}{plugins}", dir.path().join("data"));
        std::fs::write(&file, text).unwrap();
    };
    // Paths are looked for beside the file.
    let entry = |name: &str, component: &str, config: &str| {
        format!(
            "[[plugin]]\nname = {name:?}\npath = \"{component}.wasm\"\nunsigned = true\nconfig = {config}\nlimits.deadline = \"5 s\"\n"
        )
    };
    write(&entry("first", "faulty", "{ mode = \"ok\" }"));
    let mut child = Command::new(env!("CARGO_BIN_EXE_sluice-edge"))
        .args(["run", "--config"])
        .arg(&file)
        .arg("--ready-file")
        .arg(&ready)
        .env("SLUICE_LOG", "error")
        .spawn()
        .unwrap();
    eventually("the node is ready", || ready.exists());
    let json: Value = serde_json::from_slice(&std::fs::read(&ready).unwrap()).unwrap();
    let at = |door: &str| json["listen"][door].as_str().unwrap().to_owned();
    let status = || serde_json::from_slice::<Value>(&get(&at("http"), "/v1/status")).unwrap();
    let send = |prefix: &str| {
        let body = request(Signal::Log, prefix, 4, "kim@example.com");
        let address = at("otlp-http").parse().unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        assert!(runtime.block_on(client::send(&http(), address, "/v1/logs", body)));
    };
    let hangup = || {
        let signal = Command::new("kill").args(["-HUP", &child.id().to_string()]).status();
        assert!(signal.unwrap().success());
    };
    send("a");
    assert_eq!(status()["plugins"][0]["name"], "first");
    write(&format!(
        "{}{}",
        entry("first", "faulty", "{ mode = \"trap\" }"),
        entry("second", "mask", "{}")
    ));
    hangup();
    eventually("the second plugin is there", || {
        status()["plugins"]
            .as_array()
            .unwrap()
            .iter()
            .any(|p| p["name"] == "second")
    });
    send("b");
    let now = status();
    assert_eq!(now["accepted"]["log"], 8);
    assert_eq!(now["quarantined"], 0);
    let of = |name: &str| {
        let plugins = now["plugins"].as_array().unwrap();
        plugins
            .iter()
            .find(|p| p["name"] == name && p["state"] == "current")
            .unwrap()
            .clone()
    };
    assert_eq!(
        (&of("first")["rows_in"], &of("second")["rows_in"]),
        (&8.into(), &4.into())
    );
    assert!(of("first")["rolled_back_from"].is_string());
    let metrics = String::from_utf8(get(&at("http"), "/metrics").to_vec()).unwrap();
    for (name, metric, value) in [
        ("second", "rows_total", 4),
        ("second", "rows_out_total", 4),
        ("second", "batches_total", 1),
        ("second", "on_probation", 0),
        ("first", "rolled_back", 1),
        ("first", "rows_total", 8),
    ] {
        let version = of(name)["version"].as_str().unwrap().to_owned();
        let line = format!("sluice_edge_plugin_{metric}{{plugin=\"{name}\",version=\"{version}\"}} {value}");
        assert!(metrics.lines().any(|l| l == line), "{line} is not in\n{metrics}");
    }

    write("[[plugin]]\nname = \"first\"\npath = \"nowhere.wasm\"\nunsigned = true\n");
    hangup();
    eventually("the refusal is told", || status()["chain"]["refused"].is_object());
    assert_eq!(status()["plugins"][0]["name"], "first");
    send("c");
    Command::new("kill")
        .args(["-TERM", &child.id().to_string()])
        .status()
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
