//! A disk that is really full: a small file system in memory, where this machine lets us mount one.

use std::path::{Path, PathBuf};
use std::process::Command;

use sluice_edge::config::OnFull;
use sluice_edge::link::AckSink;
use sluice_wire::Signal;

use crate::client::{PROTOBUF, http, post, request};
use crate::cloud::Cloud;
use crate::node::{TestNode, config, eventually, skipped};

pub(crate) struct Mount(PathBuf);

impl Mount {
    pub(crate) fn new(dir: &Path, size: &str) -> Option<Self> {
        let option = format!("size={size}");
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &option, "tmpfs"])
            .arg(dir)
            .status();
        status.is_ok_and(|s| s.success()).then(|| Self(dir.to_owned()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn p5_a_full_disk_loses_nothing_and_accepts_again_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let Some(_mount) = Mount::new(dir.path(), "24m") else {
        return skipped("this machine does not let the test mount a small file system");
    };
    let mut config = config(&dir.path().join("data"));
    config.seal.zstd_level = 0;
    // Small segments, so that what is acknowledged is soon deleted.
    config.spool.max_bytes = 16 << 20;
    let node = TestNode::start(config.clone());
    let filler = "0123456789abcdef".repeat(4096);
    let address = node.address("otlp-http");
    let send = |k: usize| {
        let body = request(Signal::Log, &format!("d{k}"), 8, &filler);
        node.runtime
            .block_on(async { post(&http(), address, "/v1/logs", PROTOBUF, body).await.unwrap() })
    };
    // Others use the disk, too: the cap is never reached.
    let filler_file = dir.path().join("filler");
    let fill = |from: usize| {
        std::fs::write(&filler_file, vec![1u8; 14 << 20]).unwrap();
        for accepted in 0..200 {
            let answer = send(from + accepted);
            if answer.status != 200 {
                assert_eq!((answer.status, answer.retry_after.as_deref()), (429, Some("2")));
                return accepted;
            }
        }
        panic!("the disk is never full");
    };
    let accepted = fill(0);
    // Somebody cleans up; what was accepted is sealed and delivered, and new events are taken, without a restart.
    std::fs::remove_file(&filler_file).unwrap();
    eventually("what was accepted is sealed", || {
        node.status.snapshot().journal.unsealed_bytes == 0
    });
    assert_eq!(Cloud::of(&node.spool).events.len(), 8 * accepted);
    (0..node.spool.status().next).for_each(|index| node.spool.acked(index));
    eventually("there is room again", || send(1000).status == 200);
    eventually("it is sealed", || !node.spool.is_drained());
    (0..node.spool.status().next).for_each(|index| node.spool.acked(index));
    eventually("what is acknowledged is deleted", || {
        node.spool.bytes_on_disk() < 4 << 20
    });

    // A node that is told to stop on a full disk stops; its journal keeps what is not sealed.
    let accepted = fill(2000);
    node.stop();
    std::fs::remove_file(&filler_file).unwrap();
    let node = TestNode::start(config);
    let cloud = Cloud::of(&node.spool);
    assert_eq!(
        cloud.events.keys().filter(|id| id.starts_with("d2")).count(),
        8 * accepted
    );
    assert!(cloud.events.values().all(|n| *n == 1));
    node.stop();
}

/// Bytes of all files of the logs; the ballast is no part of the cap.
fn bytes_on_disk(data: &Path) -> u64 {
    let files = ["journal", "spool"].map(|log| std::fs::read_dir(data.join(log)).unwrap());
    let files = files.into_iter().flatten().map(|e| e.unwrap());
    let logs = files.filter(|e| e.file_name().to_string_lossy().ends_with(".wal"));
    let bytes = |file: std::fs::DirEntry| match file.metadata() {
        Ok(metadata) => metadata.len(),
        // The node let go of it since the folder was listed.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
        Err(error) => panic!("{}: {error}", file.path().display()),
    };
    logs.map(bytes).sum()
}

#[test]
fn p5_requests_at_once_do_not_pass_the_cap_on_the_same_room() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.seal.zstd_level = 0;
    config.spool.max_bytes = 8 << 20;
    config.accept.workers = 16;
    // One after the other has room in memory.
    config.accept.max_unsealed = 1 << 20;
    config.accept.wait = std::time::Duration::from_secs(60);
    let node = TestNode::start(config.clone());
    let address = node.address("otlp-http");
    let text = "0123456789abcdef".repeat(8192);
    let answers = node.runtime.block_on(async {
        let http = http();
        let sends = (0..16).map(|k| {
            let (http, body) = (http.clone(), request(Signal::Log, &format!("c{k}"), 8, &text));
            async move { post(&http, address, "/v1/logs", PROTOBUF, body).await.unwrap().status }
        });
        futures::future::join_all(sends).await
    });
    let taken = answers.iter().filter(|status| **status == 200).count();
    assert!(answers.iter().all(|status| [200, 429].contains(status)), "{answers:?}");
    assert!((1..16).contains(&taken), "{taken} of 16 were taken");
    eventually("it is sealed", || node.status.snapshot().journal.unsealed_bytes == 0);
    let used = bytes_on_disk(dir.path());
    assert!(
        used <= config.spool.max_bytes,
        "{used} bytes under a cap of {}",
        config.spool.max_bytes
    );
    assert_eq!(Cloud::of(&node.spool).events.len(), 8 * taken);
    node.stop();
}

#[test]
fn p5_a_node_that_is_told_to_stop_does_not_wait_for_room() {
    let dir = tempfile::tempdir().unwrap();
    let Some(_mount) = Mount::new(dir.path(), "24m") else {
        return skipped("this machine does not let the test mount a small file system");
    };
    let mut config = config(&dir.path().join("data"));
    config.seal.zstd_level = 0;
    config.accept.max_unsealed = 1 << 20;
    config.seal.offline_age = std::time::Duration::from_secs(3600);
    // Whoever waits for room would wait longer than the test.
    config.accept.wait = std::time::Duration::from_secs(3600);
    let node = TestNode::start(config.clone());
    let address = node.address("otlp-http");
    let text = "0123456789abcdef".repeat(4096);
    let answers = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let all_connected = std::sync::Arc::new(tokio::sync::Barrier::new(40));
    for k in 0..40 {
        let (http, answers, all_connected) = (http(), answers.clone(), all_connected.clone());
        let body = request(Signal::Log, &format!("w{k}"), 8, &text);
        node.runtime.spawn(async move {
            let nothing = post(&http, address, "/v1/logs", PROTOBUF, bytes::Bytes::new()).await;
            all_connected.wait().await;
            assert_eq!(nothing.unwrap().status, 200);
            let answer = post(&http, address, "/v1/logs", PROTOBUF, body).await;
            answers.lock().unwrap().push(answer.map(|a| a.status).unwrap_or(0));
        });
    }
    eventually("some are taken and the others wait", || {
        answers.lock().unwrap().contains(&200)
    });
    let filler_file = dir.path().join("filler");
    std::fs::write(&filler_file, vec![1u8; 40 << 20]).unwrap_err();
    node.stop();
    let answers = answers.lock().unwrap().clone();
    let taken = answers.iter().filter(|status| **status == 200).count();
    assert!((1..40).contains(&taken) && !answers.contains(&0), "{answers:?}");
    std::fs::remove_file(&filler_file).unwrap();
    let node = TestNode::start(config);
    let cloud = Cloud::of(&node.spool);
    assert!(cloud.events.len() >= 8 * taken && cloud.events.values().all(|n| *n == 1));
    node.stop();
}

/// The opposite of the default, opted into: new events are never refused, old ones are counted instead.
#[test]
fn p3_p5_where_the_oldest_may_be_dropped_the_newest_are_taken_and_all_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.seal.zstd_level = 0;
    config.seal.max_bytes = 1 << 20;
    config.spool.max_bytes = 16 << 20;
    config.spool.on_full = OnFull::DropOldest;
    let node = TestNode::start(config.clone());
    let text = "0123456789abcdef".repeat(4096);
    let address = node.address("otlp-http");
    for k in 0..100 {
        let body = request(Signal::Log, &format!("o{k}"), 8, &text);
        let sent = async { post(&http(), address, "/v1/logs", PROTOBUF, body).await.unwrap() };
        assert_eq!(node.runtime.block_on(sent).status, 200, "request {k}");
        assert!(bytes_on_disk(dir.path()) <= config.spool.max_bytes);
    }
    eventually("it is sealed", || node.status.snapshot().journal.unsealed_bytes == 0);
    let check = |node: &TestNode| {
        let cloud = Cloud::of(&node.spool);
        cloud.check_sequence();
        assert!(cloud.counts.balances());
        assert_eq!(
            (cloud.counts.accepted, cloud.counts.stored),
            (800, cloud.events.len() as u64)
        );
        let [dropped] = &cloud.counts.dropped[..] else {
            panic!("{:?}", cloud.counts)
        };
        assert_eq!(
            (dropped.plugin.as_str(), dropped.reason.as_str()),
            ("_spool", "drop_oldest")
        );
        assert_eq!(dropped.rows + cloud.counts.stored, 800);
        // The newest are there.
        assert!(dropped.rows > 0 && (90..100).all(|k| cloud.events.contains_key(&format!("o{k}-0"))));
        dropped.rows
    };
    let rows = check(&node);
    let status = node.status.snapshot();
    assert_eq!(
        (status.dropped[0].plugin.as_str(), status.dropped[0].rows),
        ("_spool", rows)
    );
    assert!(status.spool.given_up > 0 && node.status.is_ready());
    node.crash();
    let node = TestNode::start(config);
    assert_eq!(check(&node), rows, "the same after a restart");
    (0..node.spool.status().next).for_each(|index| node.spool.acked(index));
    eventually("the cloud has all of it", || node.spool.is_drained());
    node.stop();
}
