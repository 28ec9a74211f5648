//! What an edge node costs beside a gateway: processor time, memory and bytes on the wire for each event, from OTLP/gRPC to acknowledged
//! by the cloud, both plugins on, every answer after fdatasync, mutual TLS.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use serde_json::Value;
use sluice_bench::corpus::Signal;
use sluice_bench::load::{self, LoadOptions, LoadReport, Protocol, Target};
use sluice_bench::process::{Process, Start, ca, get};
use sluice_bench::relay::{Relay, Weather};

use crate::{Line, line};

const WARM_UP: u64 = 20_000;
const LOAD: Duration = Duration::from_secs(15);
const DRAIN_LIMIT: Duration = Duration::from_secs(120);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How many requests are under way at once.
const CONCURRENCY: usize = 8;
const LOWEST_PRIORITY: i32 = 19;
/// The median of so many runs, which take turns.
const RUNS: usize = 5;

/// What is measured.
struct Case {
    what: &'static str,
    class: &'static str,
    rate: f64,
    rows: usize,
    /// Whether the cloud, which is another machine's work elsewhere, has only what of the processors the edge leaves.
    cloud_stands_back: bool,
}

const CASES: [Case; 6] = [
    case("10 k/s", "fibre", 10_000.0, 1_000),
    case("50 k/s", "fibre", 50_000.0, 1_000),
    Case {
        cloud_stands_back: true,
        ..case(
            "50 k/s, the cloud beside it at the lowest priority",
            "fibre",
            50_000.0,
            1_000,
        )
    },
    case("50 k/s, class lte", "lte", 50_000.0, 1_000),
    case("50 k/s, class satellite", "satellite", 50_000.0, 1_000),
    case("10 rows a second, one request", "fibre", 10.0, 10),
];

const fn case(what: &'static str, class: &'static str, rate: f64, rows: usize) -> Case {
    Case {
        what,
        class,
        rate,
        rows,
        cloud_stands_back: false,
    }
}

/// One run of one case.
struct Run {
    cpu_seconds_per_million: f64,
    bytes_per_event: f64,
    peak_mib: f64,
    ack_p50_ms: f64,
    ack_p99_ms: f64,
    sync_p99_ms: f64,
}

/// A cloud and an edge that sends to it.
pub(crate) struct Site {
    pub(crate) cloud: Process,
    pub(crate) cloud_start: Start,
    pub(crate) edge: Process,
    pub(crate) edge_start: Start,
    /// What stands between the two, if anything does.
    pub(crate) relay: Option<Relay>,
    folder: tempfile::TempDir,
}

struct Files {
    certificate: PathBuf,
    key: PathBuf,
    ca: PathBuf,
}

pub(crate) fn measure(binary: &Path, edge: &Path) -> Vec<Line> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut runs: [Vec<Run>; CASES.len()] = Default::default();
    for _ in 0..RUNS {
        for (case, runs) in CASES.iter().zip(&mut runs) {
            runs.push(runtime.block_on(run(binary, edge, case)));
        }
    }
    CASES.iter().zip(&runs).map(|(case, runs)| shown(case, runs)).collect()
}

fn shown(case: &Case, runs: &[Run]) -> Line {
    let of = |value: fn(&Run) -> f64| spread(runs.iter().map(value).collect());
    line(
        &format!("edge, {}, sample (every row kept) and mask", case.what),
        format!("{} CPU-s/M events", of(|run| run.cpu_seconds_per_million)),
        format!(
            "{} bytes an event on the wire (UDP payload); peak memory {} MiB; acknowledged p50 {} ms, p99 {} ms, p99 of a bare fdatasync {} ms",
            of(|run| run.bytes_per_event),
            of(|run| run.peak_mib),
            of(|run| run.ack_p50_ms),
            of(|run| run.ack_p99_ms),
            of(|run| run.sync_p99_ms),
        ),
    )
}

/// Median, and the least and the most.
pub(crate) fn spread(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    let (least, most) = (values[0], values[values.len() - 1]);
    format!("{:.1} ({least:.1} to {most:.1})", values[values.len() / 2])
}

async fn run(binary: &Path, edge: &Path, case: &Case) -> Run {
    let site = Site::start(binary, edge, case.class, None).await;
    if case.cloud_stands_back {
        stand_back(&site.cloud);
    }
    let first = site.load(case, 0, WARM_UP.min((case.rate * 2.0) as u64)).await;
    site.drained().await;
    let mut syncs = sync_times(&site.folder.path().join("probe"));
    let (cpu, sent) = (site.edge.cpu_seconds().unwrap(), site.udp_sent().await);
    let count = (case.rate * LOAD.as_secs_f64()) as u64;
    let report = site.load(case, first.requests + 1, count).await;
    site.drained().await;
    let (cpu, sent) = (
        site.edge.cpu_seconds().unwrap() - cpu,
        site.udp_sent().await.checked_sub(sent).unwrap(),
    );
    assert_eq!(
        site.number("/link/sessions").await,
        1,
        "bytes of one connection are counted"
    );
    assert_eq!(
        report.accepted, count,
        "a node that refuses is not measured: {report:?}"
    );
    syncs.extend(sync_times(&site.folder.path().join("probe")));
    syncs.sort_by(f64::total_cmp);
    let events = report.accepted as f64;
    Run {
        cpu_seconds_per_million: cpu / (events / 1e6),
        bytes_per_event: sent as f64 / events,
        peak_mib: site.peak_mib(),
        ack_p50_ms: report.latency_ms.p50,
        ack_p99_ms: report.latency_ms.p99,
        sync_p99_ms: syncs[syncs.len() * 99 / 100],
    }
}

/// A thread is what has a priority; those that come later have that of the one that starts them.
fn stand_back(process: &Process) {
    for entry in std::fs::read_dir(format!("/proc/{}/task", process.pid())).unwrap() {
        let id: i32 = entry.unwrap().file_name().to_str().unwrap().parse().unwrap();
        rustix::process::setpriority_process(rustix::process::Pid::from_raw(id), LOWEST_PRIORITY).unwrap();
    }
}

/// Milliseconds of writing 64 KiB and an fdatasync, 200 times.
fn sync_times(path: &Path) -> Vec<f64> {
    let mut file = File::create(path).unwrap();
    let bytes = vec![7; 64 << 10];
    let mut once = || {
        let begun = Instant::now();
        file.write_all(&bytes).unwrap();
        file.sync_data().unwrap();
        begun.elapsed().as_secs_f64() * 1_000.0
    };
    (0..200).map(|_| once()).collect()
}

impl Site {
    pub(crate) async fn start(binary: &Path, edge: &Path, class: &str, weather: Option<Weather>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cloud_start = Start::up(binary, &folder.path().join("cloud"));
        let cloud = cloud_start.spawn().await.unwrap();
        let files = certificate(binary, &folder.path().join("cloud/ca"), folder.path());
        let mut gateway = cloud.address("link").unwrap();
        let mut relay = None;
        if let Some(weather) = weather {
            let started = Relay::start(gateway, weather).await.unwrap();
            gateway = started.address;
            relay = Some(started);
        }
        let data = folder.path().join("edge");
        let text = format!(
            "[link]\nclass = {class:?}\ngateways = [\"{gateway}\"]\nserver_name = \"localhost\"\n\
             certificate = {:?}\nkey = {:?}\nca = {:?}\n\
             [[plugin]]\nname = \"sample\"\nconfig = {{ rate = 1.0 }}\n[[plugin]]\nname = \"mask\"\n",
            files.certificate, files.key, files.ca
        );
        let config = folder.path().join("edge.toml");
        std::fs::write(&config, text).unwrap();
        let edge_start = Start::edge(edge, &data).config(&config);
        let edge = edge_start.spawn().await.unwrap();
        let site = Self {
            cloud,
            cloud_start,
            edge,
            edge_start,
            relay,
            folder,
        };
        site.until("the link is up", |status| status["link"]["connected"] == true)
            .await;
        site
    }

    async fn load(&self, case: &Case, first_request: u64, count: u64) -> LoadReport {
        let options = LoadOptions {
            target: Target::new(Protocol::Grpc, self.edge.url("otlp-grpc").unwrap()),
            seed: 9,
            signals: vec![Signal::Log],
            first_request,
            batch: case.rows,
            count,
            until_accepted: false,
            rate: Some(case.rate),
            concurrency: CONCURRENCY,
        };
        load::run(options, Arc::new(()), Arc::new(AtomicBool::new(false)))
            .await
            .unwrap()
    }

    pub(crate) fn relay(&self) -> &Relay {
        self.relay.as_ref().expect("started with a relay")
    }

    /// The most that the edge held of memory, since it was started.
    pub(crate) fn peak_mib(&self) -> f64 {
        self.edge.memory().unwrap().1 as f64 / f64::from(1 << 20)
    }

    /// Kills the edge and starts it at the same doors.
    pub(crate) async fn restart_edge(&mut self) {
        let again = self.edge_start.clone().listen_as(&self.edge);
        self.edge.signal(rustix::process::Signal::KILL).unwrap();
        self.edge.ended(DRAIN_LIMIT).await.unwrap();
        self.edge = again.spawn().await.unwrap();
    }

    pub(crate) async fn status(&self) -> Value {
        let url = format!("{}/v1/status", self.edge.url("http").unwrap());
        serde_json::from_str(&get(&url, None).await.unwrap().text()).unwrap()
    }

    pub(crate) async fn number(&self, pointer: &str) -> u64 {
        let status = self.status().await;
        let found = status.pointer(pointer).and_then(Value::as_u64);
        found.unwrap_or_else(|| panic!("no {pointer} in {status}"))
    }

    async fn udp_sent(&self) -> u64 {
        self.number("/link/path/udp_sent_bytes").await
    }

    /// Until everything accepted is acknowledged by the cloud.
    pub(crate) async fn drained(&self) {
        self.until("everything is acknowledged", |status| {
            status["journal"]["unsealed_bytes"] == 0 && status["spool"]["batches"] == 0
        })
        .await;
    }

    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&Value) -> bool) {
        let begun = Instant::now();
        loop {
            let status = self.status().await;
            if holds(&status) {
                return;
            }
            assert!(begun.elapsed() < DRAIN_LIMIT, "never happened: {what}: {status}");
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}

/// As an operator makes them.
fn certificate(binary: &Path, authority: &Path, out: &Path) -> Files {
    let out = out.display().to_string();
    let words = [
        "--json", "issue", "--tenant", "bench", "--node", "site-1", "--out", &out,
    ];
    let made: Value = serde_json::from_str(&ca(binary, authority, &words).unwrap()).unwrap();
    let file = |name: &str| PathBuf::from(made[name].as_str().unwrap());
    Files {
        certificate: file("certificate"),
        key: file("key"),
        ca: file("ca"),
    }
}
