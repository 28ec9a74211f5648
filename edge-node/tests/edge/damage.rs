//! Restarts, and disks that lost something.

use std::path::Path;

use sluice_edge::EdgeConfig;
use sluice_edge::link::AckSink;
use sluice_wire::Signal;

use crate::client::{self, http, request};
use crate::cloud::Cloud;
use crate::node::{TestNode, config, eventually};

fn send(node: &TestNode, prefix: &str, rows: usize) {
    let address = node.address("otlp-http");
    let body = request(Signal::Log, prefix, rows, "x");
    assert!(
        node.runtime
            .block_on(async { client::send(&http(), address, "/v1/logs", body).await })
    );
}

fn sealed(node: &TestNode) {
    eventually("everything is sealed", || {
        node.status.snapshot().journal.unsealed_bytes == 0
    });
}

/// Batches wait in the journal for the end of the process.
fn lazy(dir: &Path) -> EdgeConfig {
    let mut config = config(dir);
    config.seal.offline_age = std::time::Duration::from_secs(3600);
    config
}

#[test]
fn p2_a_node_that_is_dropped_seals_its_journal_at_the_next_start_and_only_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut sent = 0;
    for round in 0..4 {
        let node = TestNode::start(lazy(dir.path()));
        for k in 0..5 {
            send(&node, &format!("{round}.{k}"), 7);
            sent += 7;
        }
        node.crash();
    }
    let node = TestNode::start(lazy(dir.path()));
    let recovered = node.status.snapshot().recovered;
    assert_eq!((recovered.records, recovered.events), (5, 35));
    let cloud = Cloud::of(&node.spool);
    assert_eq!((cloud.events.len(), cloud.counts.accepted), (sent, sent as u64));
    assert!(cloud.events.values().all(|n| *n == 1));
    cloud.check_sequence();
    node.stop();
}

#[test]
fn p2_what_is_acknowledged_and_deleted_is_never_sealed_again() {
    let dir = tempfile::tempdir().unwrap();
    let node = TestNode::start(config(dir.path()));
    send(&node, "a", 50);
    sealed(&node);
    (0..node.spool.status().next).for_each(|index| node.spool.acked(index));
    node.stop();
    // Losing the cursor is safe: the batch is sent again under its old identity, not sealed anew.
    std::fs::remove_file(dir.path().join("cursor")).unwrap();
    let node = TestNode::start(config(dir.path()));
    assert_eq!(node.status.snapshot().recovered.records, 0);
    let cloud = Cloud::of(&node.spool);
    assert_eq!(cloud.events.len(), 50);
    assert!(cloud.events.values().all(|n| *n == 1));
    node.stop();
}

#[test]
fn a_lost_identity_is_found_again_in_the_batches() {
    let dir = tempfile::tempdir().unwrap();
    let node = TestNode::start(config(dir.path()));
    let stream = node.spool.stream().clone();
    let epoch = node.spool.epoch().0;
    send(&node, "a", 3);
    sealed(&node);
    node.stop();
    std::fs::write(dir.path().join("identity"), b"garbage").unwrap();
    let node = TestNode::start(config(dir.path()));
    assert_eq!(node.spool.stream(), &stream);
    assert!(node.spool.epoch().0.number > epoch.number);
    assert!(node.status.snapshot().recovered.identity_rebuilt);
    node.stop();
}

#[test]
fn a_data_folder_of_another_node_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    TestNode::start(config(dir.path())).stop();
    let mut other = config(dir.path());
    other.node = "another".to_owned();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let error = runtime.block_on(sluice_edge::EdgeNode::build(other)).unwrap_err();
    assert_eq!(error.exit_code(), 4);
}

/// Flips one byte of the content of the `nth` file that ends so.
fn flip(dir: &Path, position: impl Fn(usize) -> usize) {
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.metadata().unwrap().len() > 1000 && !p.ends_with("ballast"))
        .collect();
    files.sort();
    let file = files.first().unwrap();
    let mut bytes = std::fs::read(file).unwrap();
    let at = position(bytes.len());
    bytes[at] ^= 0x40;
    std::fs::write(file, bytes).unwrap();
}

#[test]
fn p6_a_damaged_batch_becomes_a_tombstone_with_its_counts_and_the_rest_is_delivered() {
    let dir = tempfile::tempdir().unwrap();
    let node = TestNode::start(config(dir.path()));
    for k in 0..5 {
        send(&node, &format!("b{k}"), 100);
        sealed(&node);
    }
    node.stop();
    flip(&dir.path().join("spool"), |len| len / 2);
    let node = TestNode::start(config(dir.path()));
    let cloud = Cloud::of(&node.spool);
    assert_eq!(cloud.tombstones, 1);
    assert_eq!(
        (cloud.counts.accepted, cloud.counts.damaged, cloud.counts.stored),
        (500, 100, 400)
    );
    assert_eq!(cloud.events.len(), 400);
    cloud.check_sequence();
    node.stop();
}

#[test]
fn p3_p6_the_first_and_the_last_records_of_a_journal_are_counted_when_they_are_damaged() {
    // Five requests of 100 events; what is damaged, by where it lies, and how many records that are.
    type Places = fn(usize) -> Vec<usize>;
    let cases: [(&str, Places, u64); 4] = [
        ("the first", |_| vec![1000], 1),
        ("the last", |len| vec![len - 1000], 1),
        ("both", |len| vec![1000, len - 1000], 2),
        (
            "all",
            |len| (1..=5).map(|n| 160 + (len - 160) * n / 5 - 1000).collect(),
            5,
        ),
    ];
    for (what, places, records) in cases {
        let dir = tempfile::tempdir().unwrap();
        let node = TestNode::start(lazy(dir.path()));
        (0..5).for_each(|k| send(&node, &format!("j{k}"), 100));
        node.crash();
        // One after the other: each is a different byte.
        for nth in 0..places(100_000).len() {
            flip(&dir.path().join("journal"), |len| places(len)[nth]);
        }
        let node = TestNode::start(lazy(dir.path()));
        let recovered = node.status.snapshot().recovered;
        assert_eq!(
            (recovered.damaged_records, recovered.damaged_events, recovered.events),
            (records, 100 * records, 500),
            "{what}"
        );
        let cloud = Cloud::of(&node.spool);
        assert_eq!(
            (cloud.counts.accepted, cloud.counts.damaged, cloud.events.len() as u64),
            (500, 100 * records, 500 - 100 * records),
            "{what}"
        );
        node.stop();
    }
}

#[test]
fn p6_a_damaged_journal_record_is_counted_and_the_rest_is_sealed() {
    let dir = tempfile::tempdir().unwrap();
    let node = TestNode::start(lazy(dir.path()));
    for k in 0..5 {
        send(&node, &format!("j{k}"), 100);
    }
    node.crash();
    flip(&dir.path().join("journal"), |len| len / 2);
    let node = TestNode::start(lazy(dir.path()));
    let recovered = node.status.snapshot().recovered;
    assert_eq!((recovered.damaged_records, recovered.damaged_events), (1, 100));
    let cloud = Cloud::of(&node.spool);
    assert_eq!(
        (cloud.counts.accepted, cloud.counts.damaged, cloud.events.len()),
        (500, 100, 400)
    );
    node.stop();
}
