//! The link is down at 10,000 events a second until 5 M events wait on the edge: how much memory it takes, and how long until the cloud
//! has them all.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use sluice_bench::audit::Ledger;
use sluice_bench::corpus::Signal;
use sluice_bench::load::{self, LoadOptions, Protocol, Target};

use crate::edge::Site;
use crate::{Line, line};

const SEED: u64 = 13;
const RATE: f64 = 10_000.0;
const ROWS: usize = 1_000;
const EVENTS: u64 = 5_000_000;
const LIMIT: Duration = Duration::from_secs(900);
const LOOK_AGAIN: Duration = Duration::from_millis(500);

pub(crate) fn measure(binary: &Path, edge: &Path) -> Vec<Line> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    vec![runtime.block_on(run(binary, edge))]
}

async fn run(binary: &Path, edge: &Path) -> Line {
    let mut site = Site::start(binary, edge, "fibre", None).await;
    let again = site.cloud_start.clone().listen_as(&site.cloud);
    site.cloud.signal(rustix::process::Signal::KILL).unwrap();
    let options = LoadOptions {
        target: Target::new(Protocol::Grpc, site.edge.url("otlp-grpc").unwrap()),
        seed: SEED,
        signals: vec![Signal::Log],
        first_request: 0,
        batch: ROWS,
        count: EVENTS,
        until_accepted: false,
        rate: Some(RATE),
        concurrency: 8,
    };
    let report = load::run(options, Arc::new(()), Arc::new(AtomicBool::new(false)))
        .await
        .unwrap();
    assert_eq!(
        report.accepted, EVENTS,
        "a node that refuses is not measured: {report:?}"
    );
    let alone = site.peak_mib();
    let status = site.status().await;
    let waiting = status["spool"]["bytes"].as_u64().unwrap() as f64 / f64::from(1 << 20);
    site.cloud = again.spawn().await.unwrap();
    let returned = Instant::now();
    let sql = site.cloud.sql().unwrap();
    let ledger = loop {
        match Ledger::read(&sql).await {
            Ok(ledger) if ledger.accepted >= EVENTS => break ledger,
            _ => assert!(returned.elapsed() < LIMIT, "the backlog never arrived"),
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    };
    assert!(
        ledger.balances() && ledger.accepted == EVENTS && ledger.stored == EVENTS,
        "{ledger:?}"
    );
    line(
        "10 k logs/s, sample (every row kept) and mask, cloud away, 5 M events wait",
        format!("{alone:.0} MiB at most"),
        format!(
            "resident memory of the edge; {waiting:.0} MiB in its spool; all in SQL {:.0} s after the cloud is back, {:.0} MiB at most until then; accepted p99 {:.1} ms",
            returned.elapsed().as_secs_f64(),
            site.peak_mib(),
            report.latency_ms.p99
        ),
    )
}
