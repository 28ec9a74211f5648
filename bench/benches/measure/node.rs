//! A whole node under a steady load: what a million events cost from the door to the table.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use sluice_bench::audit::{Audit, Ledger};
use sluice_bench::corpus::Signal;
use sluice_bench::load::{self, LoadOptions, LoadReport, Protocol, Target};
use sluice_bench::oracle::Oracle;
use sluice_bench::process::Start;

use crate::{Line, line};

const EVENTS: u64 = 600_000;
const ARRIVAL_LIMIT: Duration = Duration::from_secs(180);
/// How many requests of 1,000 events are under way at once.
const CONCURRENCY: usize = 8;

struct Run {
    report: LoadReport,
    cpu_seconds_per_million: f64,
    peak_bytes: u64,
}

pub(crate) fn measure(binary: &Path) -> Vec<Line> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let run = |config: &str, offered: Option<f64>, kept: f64| runtime.block_on(run(binary, config, offered, kept));
    let chain = |rate: f64| {
        format!(
            "[[edge.plugin]]\nname = \"sample\"\nconfig = {{ rate = {rate:?} }}\n\n[[edge.plugin]]\nname = \"mask\"\n"
        )
    };
    let plain = run("", Some(20_000.0), 1.0);
    let both = run(&chain(1.0), Some(20_000.0), 1.0);
    let sampled = run(&chain(0.2), Some(20_000.0), 0.2);
    let fast = run(&chain(1.0), Some(50_000.0), 1.0);
    let most = run(&chain(1.0), None, 1.0);
    let times = |run: &Run| {
        let ratio = run.cpu_seconds_per_million / plain.cpu_seconds_per_million;
        format!("; {ratio:.2} times the processor time of the first")
    };
    vec![
        shown("node, no plugins, 20 k logs/s", &plain, String::new()),
        shown("node, sample 100 % and mask, 20 k logs/s", &both, times(&both)),
        shown("node, sample 20 % and mask, 20 k logs/s", &sampled, times(&sampled)),
        shown("node, sample 100 % and mask, 50 k logs/s", &fast, times(&fast)),
        shown("node, sample 100 % and mask, as fast as it takes", &most, times(&most)),
    ]
}

fn shown(what: &str, run: &Run, more: String) -> Line {
    line(
        what,
        format!("{:.1} CPU-s/M events", run.cpu_seconds_per_million),
        format!(
            "accepted {:.0} logs/s, p50 {:.1} ms, p99 {:.1} ms; peak memory {} MiB{more}",
            run.report.accepted as f64 / run.report.seconds,
            run.report.latency_ms.p50,
            run.report.latency_ms.p99,
            run.peak_bytes >> 20
        ),
    )
}

async fn run(binary: &Path, config: &str, offered: Option<f64>, kept: f64) -> Run {
    let folder = tempfile::tempdir().unwrap();
    let mut start = Start::up(binary, &folder.path().join("data"));
    if !config.is_empty() {
        let path = folder.path().join("sluice.toml");
        std::fs::write(&path, config).unwrap();
        start = start.config(&path);
    }
    let process = start.spawn().await.unwrap();
    let before = process.cpu_seconds().unwrap();
    let oracle = Arc::new(Oracle::new(9));
    let options = LoadOptions {
        target: Target::new(Protocol::Grpc, process.url("otlp-grpc").unwrap()),
        seed: 9,
        signals: vec![Signal::Log],
        first_request: 0,
        batch: 1_000,
        count: EVENTS,
        until_accepted: false,
        rate: offered,
        concurrency: CONCURRENCY,
    };
    let report = load::run(options, oracle.clone(), Arc::new(AtomicBool::new(false)))
        .await
        .unwrap();
    arrived(&process.sql().unwrap(), report.accepted).await;
    let cpu = process.cpu_seconds().unwrap() - before;
    let peak_bytes = process.memory().unwrap().1;
    // A fast node that loses events is not fast.
    let audit = Audit::run(&process, &oracle, |event| event.kept_at(kept), ARRIVAL_LIMIT)
        .await
        .unwrap();
    assert!(audit.holds(), "{audit}");
    Run {
        cpu_seconds_per_million: cpu / (report.accepted as f64 / 1e6),
        report,
        peak_bytes,
    }
}

/// Until the ledger has counted everything; the questions that find out cost little beside the load.
async fn arrived(sql: &sluice_bench::process::Sql, accepted: u64) {
    let started = std::time::Instant::now();
    while started.elapsed() < ARRIVAL_LIMIT {
        if Ledger::read(sql).await.is_ok_and(|ledger| ledger.accepted >= accepted) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}
