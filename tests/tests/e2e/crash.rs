//! P2 under kill -9: a fresh node, with all parts in one process, dies at every named point between two durable steps; then every
//! acknowledged event is counted.
//!
//! A run that was not hit, or in which nothing was in flight when it was, proves nothing and fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sluice_bench::audit::Audit;
use sluice_bench::corpus::Signal;
use sluice_bench::load::{self, LoadOptions, Protocol, Target};
use sluice_bench::oracle::Oracle;
use sluice_bench::process::StartError;
use sluice_tests::{Node, SOON, eventually};

/// Small batches, frequent commits and small segments: every step happens often within seconds.
const CONFIG: &str = "[ingest.log]\nsegment = \"1 MiB\"\nreplay_window = \"0 s\"\n\n\
                      [ingest.hot]\nmax_memory = \"64 MiB\"\nkeep = \"1 MiB\"\n\n\
                      [ingest.cold]\ncommit_every = \"1 s\"\n";

/// Between two durable steps each; and at which of its hits the process dies. The low ones fall into the start.
const POINTS: [(&str, u32); 22] = [
    ("wal.new_segment_header", 1),
    ("wal.new_segment_header", 2),
    ("wal.before_dir_sync", 1),
    ("wal.before_dir_sync", 3),
    ("wal.after_write", 2),
    ("wal.after_write", 40),
    ("wal.after_sync", 3),
    ("wal.after_sync", 50),
    ("cursor.before_rename", 3),
    ("cursor.after_rename", 3),
    ("edge.after_decode", 10),
    ("edge.journal.synced", 10),
    ("edge.sealed", 2),
    ("edge.spool.synced", 2),
    ("edge.acked", 2),
    ("edge.cursor.saved", 2),
    ("gw.before_append", 2),
    ("gw.after_append", 2),
    ("writer.cold.before_commit", 1),
    ("writer.cold.after_commit", 1),
    ("writer.after_snapshot", 1),
    ("writer.seam.advanced", 1),
];

const SEED: u64 = 20_260_101;
/// Events that are acknowledged after the crash: the node works again.
pub(crate) const AFTERWARDS: u64 = 400;
const EVENTS_PER_SECOND: f64 = 2_000.0;

pub(crate) struct Flood {
    oracle: Arc<Oracle>,
    stop: Arc<AtomicBool>,
    load: tokio::task::JoinHandle<Result<load::LoadReport, load::ClientError>>,
}

impl Flood {
    pub(crate) fn start(node: &Node, seed: u64) -> Flood {
        let oracle = Arc::new(Oracle::new(seed));
        let stop = Arc::new(AtomicBool::new(false));
        let options = LoadOptions {
            target: Target {
                timeout: Duration::from_secs(5),
                ..Target::new(Protocol::Grpc, node.url("otlp-grpc").unwrap())
            },
            seed,
            signals: Signal::ALL.to_vec(),
            first_request: 0,
            batch: 20,
            count: u64::MAX,
            until_accepted: true,
            rate: Some(EVENTS_PER_SECOND),
            concurrency: 4,
        };
        let load = tokio::spawn(load::run(options, oracle.clone(), stop.clone()));
        Flood { oracle, stop, load }
    }

    pub(crate) async fn acknowledged(&self, events: u64) {
        let goal = self.oracle.acknowledged_events() + events;
        let reached = || async {
            let now = self.oracle.acknowledged_events();
            if now >= goal {
                Ok(())
            } else {
                Err(format!("{now} of {goal}"))
            }
        };
        eventually("acknowledged events", reached).await.unwrap();
    }

    pub(crate) async fn audit(self, node: &mut Node) -> Audit {
        self.stop.store(true, Ordering::Relaxed);
        self.load.await.unwrap().unwrap();
        Audit::run(node.process().unwrap(), &self.oracle, |_| true, SOON)
            .await
            .unwrap()
    }
}

/// F2, F3 and F7 of the failures considered: one point after the other, each in a fresh node.
#[tokio::test(flavor = "multi_thread")]
async fn p2_holds_at_every_crash_point() {
    let only = std::env::var("SLUICE_TEST_CRASH_POINT").unwrap_or_default();
    let mut broken = Vec::new();
    let mut unknown = 0;
    for (number, (point, hit)) in POINTS.into_iter().enumerate() {
        if !point.contains(&only) {
            continue;
        }
        match crash_at(CONFIG, point, hit, SEED + number as u64).await {
            Ok(audit) => {
                eprintln!(
                    "{point}:{hit}: {} accepted, {} batches seen again",
                    audit.verdict.accepted, audit.ledger.duplicates
                );
                unknown += audit.verdict.unknown_requests;
                if !audit.holds() {
                    broken.push(format!("{point}:{hit}: {audit}"));
                }
                if point == "gw.after_append" && audit.ledger.duplicates == 0 {
                    broken.push(format!(
                        "{point}:{hit}: the batch did not come again, so nothing was suppressed"
                    ));
                }
            }
            Err(why) => broken.push(format!("{point}:{hit}: {why}")),
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n\n"));
    assert!(unknown > 0 || !only.is_empty(), "nothing was in flight at any crash");
}

/// A fresh node dies at a point, starts again, and everything that was acknowledged is counted.
pub(super) async fn crash_at(config: &str, point: &str, hit: u32, seed: u64) -> Result<Audit, String> {
    let mut node = Node::prepare(config).unwrap();
    let value = format!("{point}:{hit}");
    match node.start_with(&[("SLUICE_CRASH_AT", &value)]).await {
        Ok(()) => {
            let flood = Flood::start(&node, seed);
            let ended = node.process().unwrap().ended(SOON).await.unwrap();
            if ended.is_none() {
                flood.audit(&mut node).await;
                return Err("the point was never reached".to_owned());
            }
            node.start_again()
                .await
                .map_err(|error| format!("does not start again: {error}"))?;
            flood.acknowledged(AFTERWARDS).await;
            Ok(flood.audit(&mut node).await)
        }
        Err(StartError::Ended { .. }) => {
            node.start_again()
                .await
                .map_err(|error| format!("does not start again: {error}"))?;
            let flood = Flood::start(&node, seed);
            flood.acknowledged(AFTERWARDS).await;
            Ok(flood.audit(&mut node).await)
        }
        Err(error) => Err(error.to_string()),
    }
}
