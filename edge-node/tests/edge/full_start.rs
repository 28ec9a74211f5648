//! A disk that others filled, or that the node's own newest files fill: it starts, says no, drains, and takes events again.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use sluice_edge::EdgeConfig;
use sluice_edge::config::OnFull;
use sluice_edge::link::AckSink;
use sluice_wire::Signal;
use tonic::Code;

use crate::client::{Answer, Grpc, PATHS, PROTOBUF, http, post, request};
use crate::cloud::Cloud;
use crate::full_disk::Mount;
use crate::node::{TestNode, config, eventually, skipped};

/// Takes all the room there is, to the last byte.
fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    for size in [1 << 20, 4096, 1] {
        while file.write(&vec![1u8; size]).is_ok_and(|n| n > 0) {}
    }
}

fn send(node: &TestNode, prefix: &str) -> Answer {
    // No two requests share their text, so a batch is as large as what it holds.
    let text = format!("{prefix}{}", "0123456789abcdef".repeat(4096));
    let body = request(Signal::Log, prefix, 8, &text);
    let address = node.address("otlp-http");
    node.runtime
        .block_on(async { post(&http(), address, "/v1/logs", PROTOBUF, body).await.unwrap() })
}

fn check_refuses(node: &TestNode) {
    let answer = send(node, "refused");
    assert_eq!((answer.status, answer.retry_after.as_deref()), (429, Some("2")));
    let address = node.address("otlp-grpc");
    let body = request(Signal::Log, "refused", 1, "x");
    let status = node
        .runtime
        .block_on(async { Grpc::new(address).call(PATHS[0].2, body, None).await.unwrap_err() });
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(!node.status.is_ready() && node.status.snapshot().disk_full);
}

fn acknowledge(node: &TestNode) {
    (0..node.spool.status().next).for_each(|index| node.spool.acked(index));
}

fn small_disk(dir: &Path) -> Option<Mount> {
    let mount = Mount::new(dir, "24m");
    if mount.is_none() {
        skipped("this machine does not let the test mount a small file system");
    }
    mount
}

/// A node with 16 requests in its spool, stopped, on a disk that others have filled since.
fn filled_by_others(dir: &Path) -> EdgeConfig {
    let mut config = config(&dir.join("data"));
    config.seal.zstd_level = 0;
    let node = TestNode::start(config.clone());
    (0..16).for_each(|k| assert_eq!(send(&node, &format!("d{k}")).status, 200));
    node.stop();
    fill(&dir.join("filler"));
    config
}

fn check_accepts(node: &TestNode) {
    eventually("there is room again", || send(node, "after").status == 200);
    eventually("it is sealed", || node.status.snapshot().journal.unsealed_bytes == 0);
    let cloud = Cloud::of(&node.spool);
    assert_eq!((cloud.events.len(), cloud.events.get("after-0")), (8, Some(&1)));
}

#[test]
fn p5_a_node_starts_on_a_disk_that_others_filled_and_what_is_delivered_makes_room() {
    let dir = tempfile::tempdir().unwrap();
    let Some(_mount) = small_disk(dir.path()) else { return };
    let node = TestNode::start(filled_by_others(dir.path()));
    check_refuses(&node);
    assert_eq!(Cloud::of(&node.spool).events.len(), 16 * 8, "what is there can be sent");
    acknowledge(&node);
    // The others give nothing back.
    check_accepts(&node);
    node.stop();
}

#[test]
fn p5_a_node_starts_even_when_others_took_the_room_of_its_ballast() {
    let dir = tempfile::tempdir().unwrap();
    let Some(_mount) = small_disk(dir.path()) else { return };
    let config = filled_by_others(dir.path());
    for filler in ["more", "most"] {
        let node = TestNode::start(config.clone());
        check_refuses(&node);
        assert_eq!(Cloud::of(&node.spool).events.len(), 16 * 8, "what is there can be sent");
        node.crash();
        fill(&dir.path().join(filler));
    }
    let node = TestNode::start(config);
    check_refuses(&node);
    acknowledge(&node);
    // The others give nothing back, and there is not even room for the cursor.
    check_accepts(&node);
    node.stop();
}

/// The journal holds what is not sealed yet, and sealing it needs room that only the oldest batches have.
#[test]
fn p5_a_node_that_prefers_new_events_starts_on_a_disk_that_others_filled_with_nobody_to_deliver_to() {
    let dir = tempfile::tempdir().unwrap();
    let Some(_mount) = small_disk(dir.path()) else { return };
    let mut config = config(&dir.path().join("data"));
    config.seal.zstd_level = 0;
    config.spool.on_full = OnFull::DropOldest;
    let node = TestNode::start(config.clone());
    (0..12).for_each(|k| assert_eq!(send(&node, &format!("d{k}")).status, 200));
    node.stop();
    config.seal.offline_age = Duration::from_secs(3_600);
    let node = TestNode::start(config.clone());
    (0..4).for_each(|k| assert_eq!(send(&node, &format!("e{k}")).status, 200));
    node.crash();
    fill(&dir.path().join("filler"));
    let node = TestNode::start(config);
    eventually("there is room again", || send(&node, "after").status == 200);
    eventually("what the journal held is sealed", || {
        let cloud = Cloud::of(&node.spool);
        (0..4).all(|k| cloud.events.contains_key(&format!("e{k}-7")))
    });
    let counts = Cloud::of(&node.spool).counts;
    let dropped: u64 = counts.dropped.iter().map(|of| of.rows).sum();
    assert!(dropped > 0 && dropped <= 12 * 8, "{counts:?}");
    assert!(counts.dropped.iter().all(|of| of.reason == "drop_oldest"));
    assert_eq!(counts.accepted, counts.stored + dropped);
    node.stop();
}

#[test]
fn p5_a_folder_that_was_never_used_waits_for_room_while_the_doors_say_no() {
    // To the last byte, and to the last name: not even a folder can be made then.
    for options in ["24m", "24m,nr_inodes=40"] {
        let dir = tempfile::tempdir().unwrap();
        let Some(_mount) = Mount::new(dir.path(), options) else {
            return skipped("this machine does not let the test mount a small file system");
        };
        let others = dir.path().join("others");
        std::fs::create_dir(&others).unwrap();
        fill(&others.join("filler"));
        let mut names = (0..100).map(|n| File::create(others.join(n.to_string())));
        let is_out_of_names = names.any(|file| file.is_err());
        assert_eq!(is_out_of_names, options.contains("nr_inodes"));
        let node = TestNode::start(config(&dir.path().join("a/data")));
        check_refuses(&node);
        std::fs::remove_dir_all(&others).unwrap();
        check_accepts(&node);
        // And it is all there after a restart.
        let (stream, config) = (node.spool.stream().clone(), config(&dir.path().join("a/data")));
        node.stop();
        let node = TestNode::start(config);
        assert_eq!(node.spool.stream(), &stream);
        assert_eq!(Cloud::of(&node.spool).events.len(), 8);
        node.stop();
    }
}

/// Others leave a little room, so the disk is full after every few requests, for days. A gateway remembers every epoch.
#[test]
fn p5_a_disk_that_is_full_again_and_again_makes_no_new_epochs() {
    let dir = tempfile::tempdir().unwrap();
    let Some(_mount) = small_disk(dir.path()) else { return };
    let mut config = config(&dir.path().join("data"));
    config.seal.zstd_level = 0;
    std::fs::write(dir.path().join("filler"), vec![1u8; 16 << 20]).unwrap();
    let node = TestNode::start(config);
    let epoch = node.spool.epoch().0;
    let (mut accepted, mut k) = (0, 0);
    for round in 0..4 {
        loop {
            k += 1;
            assert!(k < 1000, "the disk is never full");
            let answer = send(&node, &format!("r{k}"));
            if answer.status != 200 {
                break;
            }
            accepted += 8;
        }
        assert!(accepted > 0, "round {round} took nothing");
        eventually("what is delivered makes room", || {
            acknowledge(&node);
            node.status.is_ready()
        });
    }
    assert_eq!(node.spool.epoch().0, epoch);
    node.stop();
}

#[test]
fn p5_a_journal_waits_for_room_while_the_doors_say_no() {
    let dir = tempfile::tempdir().unwrap();
    let Some(_mount) = small_disk(dir.path()) else { return };
    let mut config = config(&dir.path().join("data"));
    config.seal.zstd_level = 0;
    config.seal.offline_age = std::time::Duration::from_secs(3600);
    let node = TestNode::start(config.clone());
    (0..6).for_each(|k| assert_eq!(send(&node, &format!("j{k}")).status, 200));
    node.crash();
    let filler = dir.path().join("filler");
    fill(&filler);
    let node = TestNode::start(config);
    check_refuses(&node);
    assert_eq!(node.spool.status().next, 0, "nothing can be sealed");
    std::fs::remove_file(filler).unwrap();
    eventually("events are taken again", || send(&node, "after").status == 200);
    assert_eq!(node.status.snapshot().recovered.events, 48);
    let cloud = Cloud::of(&node.spool);
    assert!(cloud.events.len() == 48 && cloud.events.values().all(|n| *n == 1));
    node.stop();
}

#[test]
fn p5_newest_files_that_fill_the_disk_are_let_go_once_they_are_delivered() {
    let dir = tempfile::tempdir().unwrap();
    let Some(_mount) = small_disk(dir.path()) else { return };
    let mut config = config(&dir.path().join("data"));
    config.seal.zstd_level = 0;
    // No file of the log ever grows to its full size on this disk.
    config.spool.max_bytes = 1 << 30;
    let node = TestNode::start(config);
    let (mut k, mut accepted) = (0, 0);
    for round in 0..3 {
        let before = accepted;
        loop {
            k += 1;
            assert!(k < 1000, "the disk is never full");
            let answer = send(&node, &format!("n{k}"));
            if answer.status != 200 {
                assert_eq!(answer.status, 429);
                break;
            }
            accepted += 8;
        }
        assert!(accepted > before, "round {round} took nothing");
        eventually("what is delivered makes room", || {
            acknowledge(&node);
            node.status.is_ready()
        });
        assert!(node.status.snapshot().spool.bytes < 8 << 20, "round {round}");
    }
    eventually("everything is delivered", || {
        acknowledge(&node);
        node.status.snapshot().journal.unsealed_bytes == 0 && node.spool.is_drained()
    });
    let status = node.status.snapshot();
    assert_eq!((status.accepted.log, status.damaged), (accepted, 0));
    node.stop();
}
