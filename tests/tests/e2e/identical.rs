//! Invariant 4: a batch is encoded once. What lies in the cloud's log is, byte for byte, what lay in the edge's spool; it
//! went over the link in between, and a gateway that had changed a byte would have acknowledged another hash.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use sluice_bench::corpus::Signal;
use sluice_bench::load::{self, LoadOptions, Protocol, Target};
use sluice_bench::oracle::Oracle;
use sluice_tests::Node;
use sluice_wal::{Entry, Options, Wal};

const EVENTS: u64 = 4_000;
const MAGIC: &[u8] = b"SLCB";

/// All records of a log folder, oldest first.
fn records(folder: &Path) -> Vec<Vec<u8>> {
    let (wal, _) = Wal::open(folder, Options::default()).unwrap();
    let reader = wal.reader();
    let mut found = Vec::new();
    for index in wal.first()..wal.next() {
        match reader.read(index).unwrap() {
            Some(Entry::Record(bytes)) => found.push(bytes.to_vec()),
            other => panic!("record {index} of {}: {other:?}", folder.display()),
        }
    }
    found
}

/// A spool record is a version, the length of the running totals, these, and the envelope.
fn envelope_of_spool(record: &[u8]) -> Vec<u8> {
    let length = u32::from_le_bytes(record[4..8].try_into().unwrap()) as usize;
    record[8 + length..].to_vec()
}

/// A log record is a head, which names its length after eight other bytes, and the envelope.
fn envelope_of_log(record: &[u8]) -> Vec<u8> {
    let length = u32::from_le_bytes(record[8..12].try_into().unwrap()) as usize;
    record[length..].to_vec()
}

/// Folders below this one that hold a log and have this name.
fn folders(root: &Path, wanted: &dyn Fn(&str) -> bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                if wanted(&path.file_name().unwrap().to_string_lossy()) {
                    found.push(path.clone());
                }
                open.push(path);
            }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cloud_log_holds_the_very_bytes_of_the_spool() {
    let mut node = Node::up().await.unwrap();
    let oracle = Arc::new(Oracle::new(4));
    let options = LoadOptions {
        target: Target::new(Protocol::Grpc, node.url("otlp-grpc").unwrap()),
        seed: 4,
        signals: Signal::ALL.to_vec(),
        first_request: 0,
        batch: 100,
        count: EVENTS,
        until_accepted: false,
        rate: None,
        concurrency: 2,
    };
    load::run(options, oracle, Arc::new(AtomicBool::new(false)))
        .await
        .unwrap();
    node.rows(&format!("SELECT 1 FROM events HAVING count(*) = {EVENTS}"), 1)
        .await
        .unwrap();
    assert!(node.stop().await.unwrap().success());

    let spool = folders(&node.data(), &|name| name == "spool");
    let log = folders(&node.data(), &|name| name.starts_with('g') && name.contains("-p"));
    // What is set aside has a log of its own.
    let log: Vec<_> = log
        .into_iter()
        .filter(|path| !path.display().to_string().contains("/quarantine/"))
        .collect();
    assert_eq!((spool.len(), log.len()), (1, 1), "{spool:?} {log:?}");
    let spooled: Vec<_> = records(&spool[0]).iter().map(|r| envelope_of_spool(r)).collect();
    let logged: BTreeSet<_> = records(&log[0]).iter().map(|r| envelope_of_log(r)).collect();
    assert!(!spooled.is_empty() && spooled.iter().all(|bytes| bytes.starts_with(MAGIC)));
    // The log may lack what was sealed while the node was stopping; that is sent after the next start.
    let sent = spooled.iter().filter(|bytes| logged.contains(*bytes)).count();
    assert!(sent > 0, "no batch of {} in the spool is in the log", spooled.len());
    let others: Vec<_> = logged
        .iter()
        .filter(|bytes| !spooled.contains(bytes))
        .map(Vec::len)
        .collect();
    assert!(
        others.is_empty(),
        "batches in the log that no spool ever held: {others:?}"
    );
    assert!(
        spooled.len() - sent <= 2,
        "{} of {} batches did not arrive",
        spooled.len() - sent,
        spooled.len()
    );
}
