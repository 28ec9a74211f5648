//! Processes that end at every named point between two durable steps, with a cloud that is never killed.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use sluice_edge::EdgeNode;
use sluice_edge::link::{AckSink, BatchSource};
use sluice_edge::spool::Spool;
use sluice_wire::Signal;
use tokio_util::sync::CancellationToken;

use crate::client::{self, http, request};
use crate::cloud::Cloud;
use crate::node::{config, eventually};

const POINTS: [&str; 15] = [
    "edge.after_decode:1",
    "edge.after_decode:9",
    "edge.journal.synced:1",
    "edge.journal.synced:9",
    "edge.sealed:1",
    "edge.sealed:3",
    "edge.spool.synced:1",
    "edge.spool.synced:3",
    "edge.acked:1",
    "edge.acked:3",
    "edge.cursor.saved:1",
    "edge.cursor.saved:2",
    "wal.after_write:5",
    "wal.after_sync:5",
    "wal.before_unlink:1",
];

/// Not a test of its own: the process that is killed. It runs a node, and carries batches to a file that is synced
/// before a batch is acknowledged, as a gateway does.
#[test]
#[ignore = "started by the crash tests"]
fn child_node() {
    let Ok(home) = std::env::var("SLUICE_TEST_HOME") else {
        return;
    };
    let home = PathBuf::from(home);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mut config = config(&home.join("data"));
        config.spool.max_bytes = 64 << 20;
        config.seal.zstd_level = 0;
        let node = EdgeNode::build(config).await.unwrap();
        let (status, spool) = (node.status(), node.spool());
        let address = node.listen().iter().find(|(name, _)| *name == "otlp-http").unwrap().1;
        let cloud = home.join("cloud");
        std::thread::spawn(move || carry(&spool, &cloud));
        let running = tokio::spawn(node.run(CancellationToken::new()));
        assert!(status.serving().await);
        std::fs::write(home.join("ready.tmp"), address.to_string()).unwrap();
        std::fs::rename(home.join("ready.tmp"), home.join("ready")).unwrap();
        running.await.unwrap().unwrap();
    });
}

pub(crate) fn carry(spool: &Spool, cloud: &Path) {
    // A frame that a kill cut short was never acknowledged.
    let whole = frames(&std::fs::read(cloud).unwrap_or_default().into())
        .map(|f| f.len() as u64 + 4)
        .sum();
    let mut file = OpenOptions::new().create(true).append(true).open(cloud).unwrap();
    file.set_len(whole).unwrap();
    let mut at = 0;
    loop {
        match spool.next_from(at).unwrap() {
            Some((index, bytes)) => {
                let mut frame = (bytes.len() as u32).to_le_bytes().to_vec();
                frame.extend_from_slice(&bytes);
                file.write_all(&frame).unwrap();
                file.sync_data().unwrap();
                spool.acked(index);
                at = index + 1;
            }
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}

pub(crate) fn read_cloud(path: &Path) -> Cloud {
    let mut cloud = Cloud::default();
    frames(&std::fs::read(path).unwrap_or_default().into()).for_each(|frame| cloud.receive(frame));
    cloud
}

fn frames(bytes: &Bytes) -> impl Iterator<Item = Bytes> {
    let mut rest = bytes.clone();
    std::iter::from_fn(move || {
        let length = u32::from_le_bytes(rest.get(..4)?.try_into().unwrap()) as usize;
        rest.get(..4 + length)?;
        let frame = rest.slice(4..4 + length);
        rest = rest.slice(4 + length..);
        Some(frame)
    })
}

fn start(home: &Path, crash_at: Option<&str>) -> Child {
    let _ = std::fs::remove_file(home.join("ready"));
    start_child("crash::child_node", home, crash_at)
}

/// One of the ignored tests of this program as a process of its own, which may die at a named point.
pub(crate) fn start_child(test: &str, home: &Path, crash_at: Option<&str>) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([test, "--exact", "--ignored", "--nocapture"])
        .env("SLUICE_TEST_HOME", home)
        .env_remove("SLUICE_CRASH_AT")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if let Some(point) = crash_at {
        command.env("SLUICE_CRASH_AT", point);
    }
    command.spawn().unwrap()
}

/// Sends until the process is gone; returns what was acknowledged and whether it ended by itself.
fn load(home: &Path, child: &mut Child, round: &str, requests: usize) -> (BTreeSet<String>, bool) {
    let mut accepted = BTreeSet::new();
    let mut ended = false;
    eventually("the node is ready or gone", || {
        ended = child.try_wait().unwrap().is_some();
        ended || home.join("ready").exists()
    });
    if ended {
        return (accepted, true);
    }
    let address = std::fs::read_to_string(home.join("ready")).unwrap().parse().unwrap();
    // Text of this size makes segments roll, so that there is something to delete.
    let filler = "lorem ipsum dolor sit amet ".repeat(2500);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let http = http();
    for k in 0..requests {
        let prefix = format!("{round}.{k}");
        let body = request(Signal::Log, &prefix, 3, &filler);
        if runtime.block_on(client::send(&http, address, "/v1/logs", body)) {
            accepted.extend((0..3).map(|row| format!("{prefix}-{row}")));
        } else if child.try_wait().unwrap().is_some() {
            return (accepted, true);
        }
    }
    (accepted, false)
}

fn check(point: &str) {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let mut obligations = BTreeSet::new();
    let mut child = start(home, Some(point));
    // Some points come only after several acknowledgements or deletions, so requests go on until the end.
    let (accepted, ended) = load(home, &mut child, "a", 3000);
    assert!(ended, "{point}: never reached");
    obligations.extend(accepted);
    child.wait().unwrap();

    // Killed without any point, too: in the middle of whatever it is at.
    let mut child = start(home, None);
    let (accepted, ended) = load(home, &mut child, "b", 5);
    assert!(!ended, "{point}: the node does not start again");
    obligations.extend(accepted);
    child.kill().unwrap();
    child.wait().unwrap();

    let mut child = start(home, None);
    let (accepted, _) = load(home, &mut child, "c", 5);
    assert_eq!(accepted.len(), 15, "{point}: the node does not accept again");
    obligations.extend(accepted);
    let cloud_path = home.join("cloud");
    eventually(&format!("{point}: every accepted event is in the cloud"), || {
        let cloud = read_cloud(&cloud_path);
        obligations.iter().all(|id| cloud.events.contains_key(id))
    });
    child.kill().unwrap();
    child.wait().unwrap();

    let cloud = read_cloud(&cloud_path);
    let many: Vec<_> = cloud.events.iter().filter(|(_, n)| **n != 1).collect();
    assert!(many.is_empty(), "{point}: stored more than once: {many:?}");
    cloud.check_sequence();
    assert_eq!(cloud.counts.accepted, cloud.events.len() as u64, "{point}");
}

#[test]
fn p1_p2_every_accepted_event_arrives_exactly_once_whatever_point_the_process_dies_at() {
    for point in POINTS {
        check(point);
    }
}
