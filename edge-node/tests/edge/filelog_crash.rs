//! A process that reads files and ends at every named point: each line arrives exactly once.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;

use sluice_edge::EdgeNode;
use sluice_edge::config::Format;
use tokio_util::sync::CancellationToken;

use crate::crash::{carry, read_cloud, start_child};
use crate::filelog::{append, tailing};
use crate::node::eventually;

/// Not a test of its own: the process that is killed.
#[test]
#[ignore = "started by the crash test"]
fn child_tailer() {
    let Ok(home) = std::env::var("SLUICE_TEST_HOME") else {
        return;
    };
    let home = PathBuf::from(home);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mut config = tailing(&home.join("data"), &format!("{}/logs/*", home.display()));
        config.source.filelog[0].format = Format::Json;
        config.spool.max_bytes = 64 << 20;
        config.seal.zstd_level = 0;
        let node = EdgeNode::build(config).await.unwrap();
        let spool = node.spool();
        let cloud = home.join("cloud");
        std::thread::spawn(move || carry(&spool, &cloud));
        node.run(CancellationToken::new()).await.unwrap();
    });
}

fn start(home: &Path, crash_at: Option<&str>) -> Child {
    start_child("filelog_crash::child_tailer", home, crash_at)
}

/// Among them each side of every step between a line and the file of positions.
const POINTS: [&str; 10] = [
    "edge.after_decode:2",
    "wal.after_write:3",
    "edge.journal.synced:1",
    "edge.journal.synced:4",
    "edge.spool.synced:2",
    "edge.sealed:2",
    "cursor.before_rename:2",
    "cursor.after_rename:2",
    "cursor.after_rename:3",
    "wal.before_unlink:1",
];

#[test]
fn p2_every_line_arrives_exactly_once_whatever_point_the_process_dies_at() {
    for point in POINTS {
        let home = tempfile::tempdir().unwrap();
        let home = home.path();
        fs::create_dir(home.join("logs")).unwrap();
        let filler = "lorem ipsum dolor sit amet ".repeat(200);
        let mut expected = BTreeSet::new();
        let mut write = |file: &str, round: &str| {
            let ids: Vec<String> = (0..300).map(|n| format!("{round}.{file}-{n}")).collect();
            let lines: String = ids
                .iter()
                .map(|id| format!("{{\"evt.id\":\"{id}\",\"msg\":\"{id} {filler}\"}}\n"))
                .collect();
            append(&home.join("logs").join(file), &lines);
            expected.extend(ids);
        };
        write("a.log", "0");
        write("b.log", "0");
        let mut child = start(home, Some(point));
        let mut ended = false;
        let mut round = 0;
        eventually(&format!("{point} is reached"), || {
            // More lines, until the process is where it shall end; in between a rotation.
            round += 1;
            if round <= 40 {
                write("a.log", &round.to_string());
                if round % 5 == 0 {
                    fs::rename(home.join("logs/a.log"), home.join(format!("logs/a.log.{round}"))).unwrap();
                }
            }
            ended = child.try_wait().unwrap().is_some();
            ended
        });
        assert!(ended, "{point}");
        // This one is killed in the middle of whatever it is at.
        let mut child = start(home, None);
        write("b.log", "x");
        let cloud_path = home.join("cloud");
        let before = read_cloud(&cloud_path).events.len();
        eventually("it goes on", || read_cloud(&cloud_path).events.len() > before);
        child.kill().unwrap();
        child.wait().unwrap();
        let mut child = start(home, None);
        write("b.log", "y");
        eventually(&format!("{point}: every line is in the cloud"), || {
            let cloud = read_cloud(&cloud_path);
            expected.iter().all(|id| cloud.events.contains_key(id))
        });
        child.kill().unwrap();
        child.wait().unwrap();
        let cloud = read_cloud(&cloud_path);
        let many: Vec<_> = cloud.events.iter().filter(|(_, n)| **n != 1).take(5).collect();
        assert!(many.is_empty(), "{point}: taken more than once: {many:?}");
        assert_eq!(cloud.events.len(), expected.len(), "{point}");
        cloud.check_sequence();
    }
}
