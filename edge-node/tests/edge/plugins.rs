//! The chain at work behind the doors. Components come from `plugins/dist`; `cargo xtask guests` builds them.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use sluice_edge::EdgeConfig;
use sluice_edge::config::PluginEntry;
use sluice_wire::Signal;
use tonic::Code;

use crate::client::{Grpc, PATHS, PROTOBUF, http, post, request};
use crate::cloud::Cloud;
use crate::node::{TestNode, config, eventually};

pub(crate) fn plugin(name: &str, component: &str, settings: &str) -> PluginEntry {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../plugins/dist/{component}.wasm"));
    assert!(path.exists(), "{} is missing: cargo xtask guests", path.display());
    let text = format!(
        "[[plugin]]\nname = {name:?}\npath = {path:?}\nunsigned = true\nconfig = {settings}\nlimits.deadline = \"5 s\"\n"
    );
    EdgeConfig::from_toml(&text).unwrap().plugin.remove(0)
}

fn send(node: &TestNode, body: &Bytes) -> u16 {
    let address = node.address("otlp-http");
    node.runtime.block_on(async {
        post(&http(), address, "/v1/logs", PROTOBUF, body.clone())
            .await
            .unwrap()
            .status
    })
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path))
        } else {
            found.push(path)
        }
    }
    found
}

#[test]
fn p11_what_a_failing_mask_refuses_and_what_a_mask_hides_touches_no_disk() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    // Readable bytes, so that looking for text in files means something.
    config.seal.zstd_level = 0;
    config.plugin = vec![
        plugin("mask", "mask", "{}"),
        plugin(
            "guard",
            "faulty_mask",
            r#"{ mode = "trap", only = "poison canary-4711 0" }"#,
        ),
    ];
    let node = TestNode::start(config);
    let secret = "mail kim.canary@example.com now";
    assert_eq!(send(&node, &request(Signal::Log, "good", 3, secret)), 200);

    let poisoned = request(Signal::Log, "bad", 3, "poison canary-4711");
    let (http_at, grpc_at) = (node.address("otlp-http"), node.address("otlp-grpc"));
    node.runtime.block_on(async {
        let answer = post(&http(), http_at, "/v1/logs", PROTOBUF, poisoned.clone())
            .await
            .unwrap();
        assert_eq!((answer.status, answer.retry_after), (422, None));
        let status = Grpc::new(grpc_at)
            .call(PATHS[0].2, poisoned.clone(), None)
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition);
    });
    assert_eq!(send(&node, &request(Signal::Log, "more", 3, secret)), 200);
    eventually("everything is sealed", || {
        node.status.snapshot().journal.unsealed_bytes == 0
    });
    let cloud = Cloud::of(&node.spool);
    assert_eq!((cloud.counts.accepted, cloud.events.len()), (6, 6));
    assert_eq!(cloud.counts.refused.iter().map(|r| r.rows).sum::<u64>(), 6);
    let mut seen_masked = false;
    for file in files(dir.path()) {
        let bytes = std::fs::read(&file).unwrap();
        let holds = |text: &str| bytes.windows(text.len()).any(|w| w == text.as_bytes());
        assert!(!holds("canary"), "{} holds what a mask should hide", file.display());
        seen_masked |= holds("[email]");
    }
    assert!(seen_masked);
    node.stop();
}

/// What a guest is told to say of a row, and a mask behind it that hides just that.
#[test]
fn p11_the_words_of_a_plugin_ahead_of_a_mask_touch_no_disk_either() {
    const CANARY: &str = "canary-4711 of kim";
    let mask = || {
        plugin(
            "mask",
            "mask",
            r#"{ custom = [{ name = "canary", pattern = "canary.*" }] }"#,
        )
    };
    let holders = |modes: &[&str], masked: bool| {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path());
        config.seal.zstd_level = 0;
        config.plugin = modes
            .iter()
            .enumerate()
            .map(|(place, mode)| {
                // Each has a batch of its own to talk about.
                let settings = format!("{{ mode = {mode:?}, only = \"{CANARY} {place} 0\" }}");
                let mut entry = plugin(mode, "faulty", &settings);
                entry.on_fault = Some(sluice_runtime::OnFault::Quarantine);
                entry
            })
            .chain(masked.then(mask))
            .collect();
        let node = TestNode::start(config);
        for place in 0..modes.len() {
            let body = request(Signal::Log, "x", 1, &format!("{CANARY} {place}"));
            assert_eq!(send(&node, &body), 200);
        }
        eventually("everything is sealed", || {
            node.status.snapshot().journal.unsealed_bytes == 0
        });
        let status = node.status.snapshot();
        assert_eq!(status.quarantined, modes.len() as u64);
        let told = serde_json::to_string(&status).unwrap();
        let mut holders = usize::from(told.contains("4711"));
        for file in files(dir.path()) {
            let bytes = std::fs::read(&file).unwrap();
            holders += usize::from(bytes.windows(4).any(|w| w == b"4711"));
        }
        assert!(!Cloud::of(&node.spool).rows.is_empty());
        node.stop();
        holders
    };
    let modes = ["tell_body", "aside_with_body", "named_like_body"];
    assert_eq!(holders(&modes, true), 0);
    assert!(
        holders(&modes, false) >= 2,
        "the status and the files hold it without a mask"
    );
}

#[test]
fn p3_what_a_plugin_drops_is_counted_and_the_kill_switch_works_without_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.plugin = vec![plugin("sample", "sample", "{ rate = 0.2 }")];
    let node = TestNode::start(config.clone());
    let address = node.address("otlp-http");
    let spans = request(Signal::Span, "s", 100, "");
    // All spans of one trace are kept or dropped together.
    let sent = node
        .runtime
        .block_on(async { post(&http(), address, "/v1/traces", PROTOBUF, spans).await.unwrap() });
    assert_eq!(sent.status, 200);
    eventually("everything is sealed", || {
        node.status.snapshot().journal.unsealed_bytes == 0
    });
    let cloud = Cloud::of(&node.spool);
    assert_eq!((cloud.counts.accepted, cloud.counts.stored), (100, 0));
    let dropped = &cloud.counts.dropped;
    assert_eq!(
        (dropped[0].plugin.as_str(), dropped[0].reason.as_str(), dropped[0].rows),
        ("sample", "sampled", 100)
    );

    config.plugin[0].enabled = false;
    node.runtime.block_on(node.status.reload(&config)).unwrap();
    let spans = request(Signal::Span, "t", 100, "");
    node.runtime
        .block_on(async { post(&http(), address, "/v1/traces", PROTOBUF, spans).await.unwrap() });
    eventually("everything is sealed", || {
        node.status.snapshot().journal.unsealed_bytes == 0
    });
    assert_eq!(Cloud::of(&node.spool).counts.stored, 100);
    node.stop();
}

#[test]
fn p2_what_cannot_be_read_again_is_refused_before_it_is_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    // With this setting a request may have more columns than any reader takes, once the host adds its own.
    config.accept.max_columns = 1024;
    let node = TestNode::start(config);
    let records: Vec<String> = (0..8)
        .map(|_| {
            let attributes: Vec<String> = (0..1024)
                .map(|n| format!(r#"{{"key":"k{n}","value":{{"intValue":"1"}}}}"#))
                .collect();
            format!(r#"{{"attributes":[{}]}}"#, attributes.join(","))
        })
        .collect();
    let body = format!(
        r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{}]}}]}}]}}"#,
        records.join(",")
    );
    let address = node.address("otlp-http");
    let json = &[("content-type", "application/json")];
    let answer = node
        .runtime
        .block_on(async { post(&http(), address, "/v1/logs", json, body.into()).await.unwrap() });
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    assert_eq!(answer.status, 500, "{text}");
    assert!(text.contains("columns"), "{text}");
    assert_eq!(node.status.snapshot().accepted.log, 0);
    node.stop();
}
