//! The cloud is killed under a steady load and comes back a while later: how long until what happens now is in SQL, and how long until the
//! backlog is, too. What was accepted is looked up one by one at the end.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sluice_bench::audit::{Audit, Ledger};
use sluice_bench::corpus::Signal;
use sluice_bench::load::{self, Finished, LoadOptions, Observer, Protocol, Target};
use sluice_bench::oracle::Oracle;
use sluice_bench::process::Sql;

use crate::edge::{Site, spread};
use crate::{Line, line};

const RATE: f64 = 2_000.0;
const ROWS: usize = 200;
const SEED: u64 = 9;
const BEFORE: Duration = Duration::from_secs(10);
/// Once long, and then the median of some.
const LONG: Duration = Duration::from_secs(300);
const SHORT: Duration = Duration::from_secs(60);
const SHORT_RUNS: usize = 5;
const ARRIVAL_LIMIT: Duration = Duration::from_secs(300);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

struct Run {
    fresh_s: f64,
    backlog_s: f64,
    peak_mib: f64,
}

/// Knows which request was sent last, beside what became of all.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) oracle: Arc<Oracle>,
    newest: Mutex<Option<u64>>,
}

impl Watch {
    pub(crate) fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self {
            oracle: Arc::new(Oracle::new(seed)),
            newest: Mutex::new(None),
        })
    }

    /// The number of the next request, unless one begins meanwhile.
    pub(crate) fn next(&self) -> u64 {
        self.newest.lock().unwrap().map_or(0, |k| k + 1)
    }
}

impl Observer for Watch {
    fn started(&self, k: u64, signal: Signal, rows: usize) {
        self.oracle.started(k, signal, rows);
        *self.newest.lock().unwrap() = Some(k);
    }

    fn finished(&self, request: &Finished) {
        self.oracle.finished(request);
    }
}

pub(crate) fn measure(binary: &Path, edge: &Path) -> Vec<Line> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let run = |down: Duration| runtime.block_on(run(binary, edge, down));
    let long = vec![run(LONG)];
    let short: Vec<Run> = (0..SHORT_RUNS).map(|_| run(SHORT)).collect();
    vec![shown(LONG, &long), shown(SHORT, &short)]
}

fn shown(down: Duration, runs: &[Run]) -> Line {
    let of = |value: fn(&Run) -> f64| spread(runs.iter().map(value).collect());
    line(
        &format!(
            "cloud killed for {} s at 2 k logs/s, {} times",
            down.as_secs(),
            runs.len()
        ),
        format!("fresh after {} s", of(|run| run.fresh_s)),
        format!(
            "from the moment it listens again until an event sent since is in SQL; backlog in SQL after {} s; peak memory of the edge {} MiB; nothing lost, nothing doubled",
            of(|run| run.backlog_s),
            of(|run| run.peak_mib)
        ),
    )
}

type Load = tokio::task::JoinHandle<Result<load::LoadReport, load::ClientError>>;

/// 2,000 events a second until it is told to stop.
pub(crate) fn steady(site: &Site, watch: &Arc<Watch>, seed: u64, stop: &Arc<AtomicBool>) -> Load {
    let options = LoadOptions {
        target: Target::new(Protocol::Grpc, site.edge.url("otlp-grpc").unwrap()),
        seed,
        signals: vec![Signal::Log],
        first_request: 0,
        batch: ROWS,
        count: u64::MAX,
        until_accepted: false,
        rate: Some(RATE),
        concurrency: 4,
    };
    tokio::spawn(load::run(options, watch.clone(), stop.clone()))
}

async fn run(binary: &Path, edge: &Path, down: Duration) -> Run {
    let mut site = Site::start(binary, edge, "fibre", None).await;
    let watch = Watch::new(SEED);
    let stop = Arc::new(AtomicBool::new(false));
    let load = steady(&site, &watch, SEED, &stop);
    tokio::time::sleep(BEFORE).await;
    let again = site.cloud_start.clone().listen_as(&site.cloud);
    site.cloud.kill().unwrap();
    tokio::time::sleep(down).await;
    let cloud = again.spawn().await.unwrap();
    let returned = Instant::now();
    let behind = watch.oracle.acknowledged_events();
    let sql = cloud.sql().unwrap();
    let first = watch.next();
    let fresh_s = fresh(&sql, first, returned).await;
    let backlog_s = loop {
        assert!(returned.elapsed() < ARRIVAL_LIMIT, "the backlog never arrived");
        if Ledger::read(&sql)
            .await
            .is_ok_and(|ledger| ledger.accepted >= behind + ROWS as u64)
        {
            break returned.elapsed().as_secs_f64();
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    };
    stop.store(true, Ordering::Relaxed);
    load.await.unwrap().unwrap();
    site.cloud = cloud;
    site.drained().await;
    let audit = Audit::run(&site.cloud, &watch.oracle, |_| true, ARRIVAL_LIMIT)
        .await
        .unwrap();
    assert!(audit.holds(), "{audit}");
    Run {
        fresh_s,
        backlog_s,
        peak_mib: site.peak_mib(),
    }
}

/// Until the first event that was sent after the return is in an answer.
async fn fresh(sql: &Sql, first: u64, returned: Instant) -> f64 {
    let question = format!("SELECT count(*) FROM logs WHERE attrs['evt.id'] = '{SEED}-{first}-0'");
    loop {
        assert!(returned.elapsed() < ARRIVAL_LIMIT, "nothing fresh ever arrived");
        // The doors open before the hot store has been read again: no answer is an answer of its own.
        if let Ok(answer) = sql.ask(&question).await
            && answer.count().is_ok_and(|count| count > 0)
        {
            return returned.elapsed().as_secs_f64();
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}
