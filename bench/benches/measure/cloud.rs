//! What the cloud side costs on real engines: processor time of gateway, hot and cold writer for each row at a fixed load, and how many rows
//! one hot writer puts into ClickHouse in a second, beside what the same engine behind the same door takes of the same rows from a file.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use sluice_bench::chaos::Programs;
use sluice_bench::corpus::Signal;
use sluice_bench::engines::Engines;
use sluice_bench::fleet::{Fleet, Part, Shape};
use sluice_bench::load::{self, LoadOptions, Protocol, Target};

use crate::edge::spread;
use crate::{Line, line};

/// Rows of one request, and requests on their way at once: as the edge is measured.
const ROWS: usize = 1_000;
const CONCURRENCY: usize = 8;
const RATE: f64 = 20_000.0;
const WARM_UP: u64 = 20_000;
const STEADY: u64 = 400_000;
/// Rows that one hot writer finds in the log.
const BACKLOG: u64 = 600_000;
/// The median of so many runs.
const RUNS: usize = 3;
const LIMIT: Duration = Duration::from_secs(600);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
const MEASURED: [Part; 3] = [Part::Gateway(1), Part::Hot(1), Part::Cold];

struct Site {
    fleet: Fleet,
    engines: Engines,
    next_request: u64,
}

/// One drain of the log by a hot writer.
struct Drain {
    rows_per_second: f64,
    cpu_seconds_per_million: f64,
    file_rows_per_second: f64,
}

pub(crate) fn measure(binary: &Path, edge: &Path, xtask: &Path) -> Vec<Line> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let engines = Engines::start(xtask, folder.path()).await.unwrap();
        let programs = Programs {
            sluice: binary.to_owned(),
            edge: edge.to_owned(),
        };
        // As people run it: commits and inserts by the shipped configuration.
        let shape = Shape {
            edges: 1,
            gateways: 1,
            hot: 1,
            commit_every: Duration::from_secs(30),
            ..Shape::default()
        };
        let fleet = Fleet::start(&programs, &engines, &shape, folder.path()).await.unwrap();
        let mut site = Site {
            fleet,
            engines,
            next_request: 0,
        };
        site.load(WARM_UP, Some(RATE)).await;
        site.level().await;
        let mut costs: [Vec<f64>; MEASURED.len()] = Default::default();
        for _ in 0..RUNS {
            for (cost, of_run) in costs.iter_mut().zip(site.steady().await) {
                cost.push(of_run);
            }
        }
        let mut drains = Vec::new();
        for _ in 0..RUNS {
            drains.push(site.drain(folder.path()).await);
        }
        site.fleet.stop(LIMIT).await.unwrap();
        shown(costs, &drains)
    })
}

fn shown(costs: [Vec<f64>; MEASURED.len()], drains: &[Drain]) -> Vec<Line> {
    let goals = [
        "goal 1.0; the hub of the Arrow engine needs 1.8, the Collector's 3.7",
        "goal 1.5, without ClickHouse's own; a published peer needs 2.6",
        "Parquet and its statistics, commits to S3 every 30 s",
    ];
    let mut lines = Vec::new();
    for ((part, cost), goal) in MEASURED.into_iter().zip(costs).zip(goals) {
        lines.push(line(
            &format!(
                "cloud, logs at {} k/s: {}",
                RATE / 1e3,
                part.to_string().trim_end_matches(" 1")
            ),
            format!("{} CPU-s/M rows", spread(cost)),
            goal.to_owned(),
        ));
    }
    let of = |value: fn(&Drain) -> f64| spread(drains.iter().map(value).collect());
    lines.push(line(
        &format!("cloud: one hot writer, {} k rows in the log", BACKLOG / 1_000),
        format!("{} k rows/s", of(|drain| drain.rows_per_second / 1e3)),
        format!(
            "{} times what the same engine takes of the same rows from a file ({} k rows/s); {} CPU-s/M rows, without ClickHouse's own",
            of(|drain| drain.rows_per_second / drain.file_rows_per_second),
            of(|drain| drain.file_rows_per_second / 1e3),
            of(|drain| drain.cpu_seconds_per_million)
        ),
    ));
    lines
}

impl Site {
    /// Logs through the edge; returns when the edge has taken them.
    async fn load(&mut self, count: u64, rate: Option<f64>) {
        let address = self.fleet.processes.process(Part::Edge(1)).unwrap().url("otlp-grpc");
        let options = LoadOptions {
            target: Target::new(Protocol::Grpc, address.unwrap()),
            seed: 9,
            signals: vec![Signal::Log],
            first_request: self.next_request,
            batch: ROWS,
            count,
            until_accepted: true,
            rate,
            concurrency: CONCURRENCY,
        };
        let report = load::run(options, Arc::new(()), Arc::new(AtomicBool::new(false))).await;
        self.next_request = report.unwrap().next_request;
    }

    /// Until the edge holds nothing, and both tiers have what the log has. Its edge reports now and then, and what was sent before that has
    /// arrived long since.
    async fn level(&mut self) {
        self.fleet.sent(LIMIT).await.unwrap();
        self.fleet.level(&self.engines, LIMIT).await.unwrap();
    }

    fn cpu_seconds(&self, part: Part) -> f64 {
        self.fleet.processes.process(part).unwrap().cpu_seconds().unwrap()
    }

    /// Processor seconds for a million rows of each part: of the gateway until all is acknowledged, of the writers until all is stored.
    async fn steady(&mut self) -> [f64; MEASURED.len()] {
        let before = MEASURED.map(|part| self.cpu_seconds(part));
        self.load(STEADY, Some(RATE)).await;
        self.fleet.sent(LIMIT).await.unwrap();
        let gateway = self.cpu_seconds(MEASURED[0]);
        self.level().await;
        let mut costs = MEASURED.map(|part| self.cpu_seconds(part));
        costs[0] = gateway;
        for (cost, before) in costs.iter_mut().zip(before) {
            *cost = (*cost - before) / (STEADY as f64 / 1e6);
        }
        costs
    }

    /// Fills the log while no writer runs, then lets one of hot loose; and gives the same rows to the engine from a file.
    async fn drain(&mut self, folder: &Path) -> Drain {
        self.fleet.processes.kill(Part::Hot(1)).unwrap();
        // Hot begins where cold ends.
        self.fleet.processes.kill(Part::Cold).unwrap();
        let before = self.hot_rows("events").await;
        self.load(BACKLOG, None).await;
        self.fleet.sent(LIMIT).await.unwrap();
        self.fleet.processes.start(Part::Hot(1)).await.unwrap();
        let mut first = None;
        let (seconds, rows) = loop {
            let now = self.hot_rows("events").await - before;
            let (since, at) = *first.get_or_insert((Instant::now(), now));
            if now >= BACKLOG {
                break (since.elapsed().as_secs_f64(), now - at);
            }
            if now == 0 {
                first = None;
            }
            assert!(since.elapsed() < LIMIT, "the hot writer has written {now} rows only");
            tokio::time::sleep(LOOK_AGAIN).await;
        };
        let cpu = self.cpu_seconds(Part::Hot(1));
        let file_rows_per_second = self.load_file(&folder.join("rows.arrow")).await;
        self.fleet.processes.start(Part::Cold).await.unwrap();
        self.level().await;
        Drain {
            rows_per_second: rows as f64 / seconds,
            cpu_seconds_per_million: cpu / (BACKLOG as f64 / 1e6),
            file_rows_per_second,
        }
    }

    async fn hot_rows(&self, table: &str) -> u64 {
        let statement = format!("SELECT count() FROM `{}`.`{table}`", self.fleet.places.database);
        self.engines
            .clickhouse(&statement)
            .await
            .unwrap()
            .text()
            .trim()
            .parse()
            .unwrap()
    }

    /// Rows in a second into a table of the same making.
    async fn load_file(&self, path: &Path) -> f64 {
        let (database, path) = (&self.fleet.places.database, path.display());
        let ask = async |statement: String| self.engines.clickhouse(&statement).await.unwrap();
        ask(format!(
            "INSERT INTO FUNCTION file('{path}', 'ArrowStream') SELECT * FROM `{database}`.`events` ORDER BY `partition`, `offset` DESC \
             LIMIT {BACKLOG} SETTINGS engine_file_truncate_on_insert = 1"
        ))
        .await;
        ask(format!("CREATE TABLE `{database}`.`copy` AS `{database}`.`events`")).await;
        let begun = Instant::now();
        ask(format!(
            "INSERT INTO `{database}`.`copy` SELECT * FROM file('{path}', 'ArrowStream')"
        ))
        .await;
        let seconds = begun.elapsed().as_secs_f64();
        let rows = self.hot_rows("copy").await;
        ask(format!("DROP TABLE `{database}`.`copy` SYNC")).await;
        assert_eq!(rows, BACKLOG, "the file holds the same rows");
        rows as f64 / seconds
    }
}
