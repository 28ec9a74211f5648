//! A disk that is really full: a small file system in memory, where this machine lets us mount one.

use std::path::{Path, PathBuf};
use std::process::Command;

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
