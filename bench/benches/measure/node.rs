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

const EVENTS_PER_SECOND: f64 = 20_000.0;
const EVENTS: u64 = 600_000;
const ARRIVAL_LIMIT: Duration = Duration::from_secs(180);
const SAMPLE_RATE: f64 = 0.2;

struct Run {
    report: LoadReport,
    cpu_seconds_per_million: f64,
    peak_bytes: u64,
}

pub(crate) fn measure(binary: &Path, dist: &Path) -> Vec<Line> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let plain = runtime.block_on(run(binary, "", 1.0));
    let dist = dist.canonicalize().unwrap();
    let chain = format!(
        "[[edge.plugin]]\nname = \"sample\"\npath = '{0}/sample.wasm'\nconfig = {{ rate = {SAMPLE_RATE:?}, keep_errors = true }}\n\n\
         [[edge.plugin]]\nname = \"mask\"\npath = '{0}/mask.wasm'\n",
        dist.display()
    );
    let sampled = runtime.block_on(run(binary, &chain, SAMPLE_RATE));
    let ratio = sampled.cpu_seconds_per_million / plain.cpu_seconds_per_million;
    vec![
        shown("node, no plugins, 20 k logs/s", &plain, String::new()),
        shown(
            "node, sample 20 % and mask, 20 k logs/s",
            &sampled,
            format!("; {ratio:.2} times the processor time"),
        ),
    ]
}

fn shown(what: &str, run: &Run, more: String) -> Line {
    line(
        what,
        format!("{:.1} CPU-s/M events", run.cpu_seconds_per_million),
        format!(
            "acknowledged p50 {:.1} ms, p99 {:.1} ms; peak memory {} MiB{more}",
            run.report.latency_ms.p50,
            run.report.latency_ms.p99,
            run.peak_bytes >> 20
        ),
    )
}

async fn run(binary: &Path, config: &str, rate: f64) -> Run {
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
        rate: Some(EVENTS_PER_SECOND),
        concurrency: 8,
    };
    let report = load::run(options, oracle.clone(), Arc::new(AtomicBool::new(false)))
        .await
        .unwrap();
    arrived(&process.sql().unwrap(), report.accepted).await;
    let cpu = process.cpu_seconds().unwrap() - before;
    let peak_bytes = process.memory().unwrap().1;
    // A fast node that loses events is not fast.
    let audit = Audit::run(&process, &oracle, |event| event.kept_at(rate), ARRIVAL_LIMIT)
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
