//! A fleet as people run it: edges, gateways, writers and queries as processes of their own, on a broker, ClickHouse and a bucket that
//! nobody here wrote. The demo, the tests of outages and the measurements of the cloud stand on it.

mod config;
mod keys;
mod twins;

use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::fs;
use std::hash::{BuildHasher, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

pub use twins::Twins;

use crate::chaos::{Processes, Programs};
use crate::corpus::Signal;
use crate::engines::Engines;
use crate::load::{self, ClientError, LoadOptions, LoadReport, Observer, Protocol, Target};
use crate::process::{Sql, Start, get};

/// Whose the edges are.
pub const TENANT: &str = "default";
/// What the gateways' certificate says, whatever their addresses.
const SERVER_NAME: &str = "localhost";
/// Numbers of requests that one edge may use: enough for any run, and far from the next edge's.
const REQUESTS_OF_AN_EDGE: u64 = 1 << 24;
/// A request without an answer for so long counts as unknown.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// Starts may wait for a broker or a bucket.
const START_LIMIT: Duration = Duration::from_secs(120);

const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// A process of the fleet, those of one kind counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    Edge(u8),
    Gateway(u8),
    Hot(u8),
    Cold,
    Query,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::Edge(n) => write!(f, "edge {n}"),
            Part::Gateway(n) => write!(f, "gateway {n}"),
            Part::Hot(n) => write!(f, "hot writer {n}"),
            Part::Cold => f.write_str("cold writer"),
            Part::Query => f.write_str("query"),
        }
    }
}

impl Part {
    /// As a name of files.
    fn file(self) -> String {
        self.to_string().replace(' ', "-")
    }
}

/// How many of each, and how they are set.
#[derive(Clone, Debug)]
pub struct Shape {
    pub edges: u8,
    pub gateways: u8,
    pub hot: u8,
    pub partitions: u16,
    pub commit_every: Duration,
    /// Share of the traces that the plugin `sample` of every edge keeps; without it there is no plugin.
    pub sample: Option<f64>,
    /// Of one insert into hot.
    pub insert_rows: Option<u64>,
}

impl Default for Shape {
    fn default() -> Self {
        Shape {
            edges: 2,
            gateways: 2,
            hot: 2,
            partitions: 4,
            commit_every: Duration::from_secs(2),
            sample: None,
            insert_rows: None,
        }
    }
}

/// Where the fleet keeps its data: a topic, a database and a place in the bucket that nobody used before.
#[derive(Clone, Debug)]
pub struct Places {
    pub name: String,
    pub database: String,
    pub lake: String,
}

impl Places {
    fn new(engines: &Engines) -> Result<Places> {
        let number = RandomState::new().build_hasher().finish();
        let name = format!("fleet-{number:016x}");
        Ok(Places {
            database: name.replace('-', "_"),
            lake: format!("s3://{}/{name}", engines.get("S3_BUCKET")?),
            name,
        })
    }
}

/// A running fleet. Dropping it ends its processes.
#[derive(Debug)]
pub struct Fleet {
    pub processes: Processes<Part>,
    pub places: Places,
    pub token: String,
    folder: PathBuf,
    edges: u8,
}

/// The next offset of every partition.
#[derive(Clone, Debug, Default)]
pub struct Ends {
    pub log: BTreeMap<i64, u64>,
    pub hot: BTreeMap<i64, u64>,
    pub cold: BTreeMap<i64, u64>,
}

impl Ends {
    /// Both stores hold all that the log holds, and that is something.
    pub fn are_level(&self) -> bool {
        let mut used = self.log.iter().filter(|(_, end)| **end > 0).peekable();
        used.peek().is_some() && used.all(|(p, end)| self.hot.get(p) == Some(end) && self.cold.get(p) == Some(end))
    }
}

/// One edge's part of a load; the load ends with its flag.
pub type Load = tokio::task::JoinHandle<Result<LoadReport, ClientError>>;

impl Fleet {
    /// Makes certificates, configuration and a token below `folder`, and starts everything.
    pub async fn start(programs: &Programs, engines: &Engines, shape: &Shape, folder: &Path) -> Result<Fleet> {
        let places = Places::new(engines)?;
        let keys = keys::certificates(&programs.sluice, folder, shape.edges)?;
        let (token, tokens_file) = keys::token(folder)?;
        let ingest = folder.join("ingest.toml");
        fs::write(&ingest, config::ingest(engines, &places, shape, &keys, folder)?)?;
        let query = folder.join("query.toml");
        fs::write(&query, config::query(engines, &places, &tokens_file)?)?;

        let mut fleet = Fleet {
            processes: Processes::new(),
            places,
            token,
            folder: folder.to_owned(),
            edges: shape.edges,
        };
        let role = |part: Part, words: &[&str], config: &Path| {
            let mut start = Start::up(&programs.sluice, &folder.join(part.file()));
            start.arguments = words.iter().map(|word| (*word).to_owned()).collect();
            start.deadline = START_LIMIT;
            let start = start.config(config).listen("http", "127.0.0.1:0");
            // Of the keys of a bucket the configuration holds the names only.
            let bucket = engines.bucket_environment()?;
            Ok::<Start, anyhow::Error>(
                bucket
                    .iter()
                    .fold(start, |start, (name, value)| start.environment(name, value)),
            )
        };
        let mut gateways = Vec::new();
        for number in 1..=shape.gateways {
            let part = Part::Gateway(number);
            let start = role(part, &["ingest", "--role", "gateway"], &ingest)?.listen("link", "127.0.0.1:0");
            let process = fleet.processes.add(part, start).await?;
            gateways.push(process.address("link").context("a gateway without a door")?);
        }
        for number in 1..=shape.hot {
            let part = Part::Hot(number);
            let start = role(part, &["ingest", "--role", "hot"], &ingest)?;
            fleet.processes.add(part, start).await?;
        }
        let start = role(Part::Cold, &["ingest", "--role", "cold"], &ingest)?;
        fleet.processes.add(Part::Cold, start).await?;
        let lake = fleet.places.lake.clone();
        let start = role(Part::Query, &["query", "--lake", &lake], &query)?
            .listen("pg", "127.0.0.1:0")
            .listen("flight", "127.0.0.1:0");
        fleet.processes.add(Part::Query, start).await?;
        for number in 1..=shape.edges {
            let part = Part::Edge(number);
            let config = folder.join(format!("{}.toml", part.file()));
            fs::write(&config, config::edge(shape, &keys, number, &gateways))?;
            let start = Start::edge(&programs.edge, &folder.join(part.file())).config(&config);
            fleet.processes.add(part, start).await?;
        }
        Ok(fleet)
    }

    pub fn sql(&self) -> Result<Sql> {
        let url = self.processes.process(Part::Query)?.url("http")?;
        Ok(Sql::new(url, self.token.clone()))
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What a process says of itself.
    pub async fn status(&self, part: Part) -> Result<Value> {
        Ok(serde_json::from_str(&self.page(part, "/v1/status").await?)?)
    }

    /// The sum of a metric of a process over all its labels; none where it does not say.
    pub async fn metric(&self, part: Part, name: &str) -> Result<Option<f64>> {
        let page = self.page(part, "/metrics").await?;
        let values = page.lines().filter_map(|line| {
            let (labelled, value) = line.rsplit_once(' ')?;
            let is_it = labelled == name || labelled.strip_prefix(name)?.starts_with('{');
            value.parse::<f64>().ok().filter(|_| is_it)
        });
        Ok(values.reduce(|sum, value| sum + value))
    }

    async fn page(&self, part: Part, path: &str) -> Result<String> {
        let url = format!("{}{path}", self.processes.process(part)?.url("http")?);
        let answer = get(&url, Some(&self.token)).await?;
        ensure!(answer.status.is_success(), "{part} answers {} to {path}", answer.status);
        Ok(answer.text())
    }

    /// Batches that no gateway has acknowledged yet, and events that are not sealed into one.
    pub async fn held_at_edges(&self) -> Result<u64> {
        let mut held = 0;
        for number in 1..=self.edges {
            let status = self.status(Part::Edge(number)).await?;
            let at = |pointer: &str| status.pointer(pointer).and_then(Value::as_u64);
            let both = (at("/spool/batches"), at("/journal/unsealed_records"));
            let (Some(batches), Some(records)) = both else {
                bail!("an edge does not say what it holds: {status}");
            };
            held += batches + records;
        }
        Ok(held)
    }

    /// How far log, hot and cold are.
    pub async fn ends(&self, engines: &Engines) -> Result<Ends> {
        let mut ends = Ends::default();
        for part in [Part::Gateway(1), Part::Cold] {
            let status = self.status(part).await?;
            let partitions = status.pointer("/partitions").and_then(Value::as_array);
            for one in partitions.context("no partitions in a status")? {
                let at = |name: &str| one.get(name).and_then(Value::as_u64);
                let partition = one.get("partition").and_then(Value::as_i64);
                let partition = partition.context("a partition without a number")?;
                let log = ends.log.entry(partition).or_default();
                *log = at("log_end").unwrap_or(0).max(*log);
                ends.cold.extend(at("cold_end").map(|end| (partition, end)));
            }
        }
        let statement = format!(
            "SELECT partition, max(offset) + 1 FROM `{}`.`events_visible` GROUP BY partition FORMAT TSVRaw",
            self.places.database
        );
        for line in engines.clickhouse(&statement).await?.text().lines() {
            let (partition, end) = line.split_once('\t').context("not two columns")?;
            ends.hot.insert(partition.parse()?, end.parse()?);
        }
        Ok(ends)
    }

    /// Distinct events for every edge until `stop`, together so many in a second.
    pub fn load(
        &self,
        seed: u64,
        rate: f64,
        batch: usize,
        observer: &Arc<dyn Observer>,
        stop: &Arc<AtomicBool>,
    ) -> Result<Vec<Load>> {
        let of = |number: u8| {
            let address = self.processes.process(Part::Edge(number))?.url("otlp-grpc")?;
            let options = LoadOptions {
                target: Target {
                    timeout: ANSWER_LIMIT,
                    ..Target::new(Protocol::Grpc, address)
                },
                seed,
                signals: Signal::ALL.to_vec(),
                first_request: first_request(number),
                batch,
                count: u64::MAX,
                until_accepted: true,
                rate: Some(rate / f64::from(self.edges)),
                concurrency: 4,
            };
            Ok(tokio::spawn(load::run(options, Arc::clone(observer), Arc::clone(stop))))
        };
        (1..=self.edges).map(of).collect()
    }

    /// Waits until the edges hold nothing, ends them because their reports would go on for ever, and waits until both stores hold all
    /// of the log. No load may run any more.
    pub async fn arrive(&mut self, engines: &Engines, limit: Duration) -> Result<()> {
        let begun = Instant::now();
        self.sent(limit).await?;
        let edges: Vec<Part> = (1..=self.edges).map(Part::Edge).collect();
        self.processes.stop(edges, limit).await?;
        self.level(engines, limit.saturating_sub(begun.elapsed())).await
    }

    /// Waits until the edges hold nothing: the log has what they took.
    pub async fn sent(&mut self, limit: Duration) -> Result<()> {
        let begun = Instant::now();
        loop {
            self.all_run()?;
            let held = self.held_at_edges().await?;
            if held == 0 {
                return Ok(());
            }
            ensure!(begun.elapsed() < limit, "the edges still hold {held} batches");
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Waits until both stores hold all of the log.
    pub async fn level(&mut self, engines: &Engines, limit: Duration) -> Result<()> {
        let begun = Instant::now();
        loop {
            self.all_run()?;
            let ends = self.ends(engines).await;
            match &ends {
                Ok(ends) if ends.are_level() => return Ok(()),
                _ if begun.elapsed() > limit => bail!("the stores do not catch up with the log: {ends:?}"),
                _ => tokio::time::sleep(LOOK_AGAIN).await,
            }
        }
    }

    /// Nobody starts again by itself here, so nobody may end by itself.
    pub fn all_run(&mut self) -> Result<()> {
        if let Some((part, log)) = self.processes.ended().pop() {
            bail!("{part} has ended by itself:\n{log}");
        }
        Ok(())
    }

    /// Everything in the order in which data flows.
    pub async fn stop(&mut self, limit: Duration) -> Result<()> {
        let order: Vec<Part> = self.processes.names().collect();
        self.processes.stop(order, limit).await
    }
}

/// The number of the first request of an edge.
fn first_request(edge: u8) -> u64 {
    u64::from(edge - 1) * REQUESTS_OF_AN_EDGE
}

/// Which edge a request of a load went to.
pub fn edge_of(request: u64) -> u8 {
    u8::try_from(request / REQUESTS_OF_AN_EDGE).map_or(u8::MAX, |edge| edge.saturating_add(1))
}
