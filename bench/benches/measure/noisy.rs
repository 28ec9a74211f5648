//! A noisy tenant at twenty times its quota beside a quiet one, at one gateway: how long the quiet one waits for its acknowledgements, and
//! how long it does when it is alone. Both are the edge's own uplink, over QUIC and TLS, with a spool in memory.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arrow_array::RecordBatch;
use bytes::Bytes;
use serde_json::Value;
use sluice_bench::corpus::{Corpus, Signal};
use sluice_bench::process::{Process, Start, ca, get};
use sluice_edge::link::{AckSink, BatchSource, LinkConfig, SourceError, Uplink, Waiting};
use sluice_wire::envelope::{self, Compression};
use sluice_wire::ids::{BatchId, Epoch, StreamId};
use sluice_wire::otlp::{DecodeLimits, Decoder};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::codec::header;
use crate::{Line, line};

/// Events in a second that the noisy tenant may send, and how many times of it it does, from so many nodes.
const QUOTA: u64 = 2_000;
const TIMES: u64 = 20;
const NODES: u64 = 4;
/// Rows of a batch of each, as edges seal where there is much and where there is little.
const NOISY_ROWS: u64 = 500;
const QUIET_ROWS: usize = 100;
const QUIET_EVERY: Duration = Duration::from_millis(10);
const NOISY_EVERY: Duration = Duration::from_micros(1_000_000 * NOISY_ROWS * NODES / (QUOTA * TIMES));
/// 1,500 batches of the quiet one: fifteen of them are slower than the percentile that is told.
const PHASE: Duration = Duration::from_secs(15);
/// Each time alone and beside; the median of the ratios counts.
const ROUNDS: u64 = 3;
const PATIENCE: Duration = Duration::from_secs(60);
const EPOCH: Epoch = Epoch { number: 1, random: 7 };

pub(crate) fn measure(binary: &Path) -> Vec<Line> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let site = Site::start(binary, folder.path()).await;
        let mut rounds = Vec::new();
        for round in 0..ROUNDS {
            let alone = site.phase(round, false).await;
            let beside = site.phase(round, true).await;
            rounds.push((alone, beside));
        }
        let tenants = site.tenants().await;
        let count = |tenant: &str, field: &str| tenants[tenant][field].as_u64().unwrap();
        let held = |tenant: &str| {
            let limits = ["held_events_per_second", "held_bytes_per_second", "held_bytes_per_day", "held_memory"];
            limits.map(|field| count(tenant, field)).iter().sum::<u64>()
        };
        assert_eq!(held("quiet"), 0, "the quiet tenant was refused something");
        assert!(held("noisy") > 0, "the noisy tenant was not over its quota: {tenants}");
        let taken = count("noisy", "events") as f64 / (QUOTA as f64 * PHASE.as_secs_f64() * ROUNDS as f64);
        rounds.sort_by(|a, b| (a.1 / a.0).total_cmp(&(b.1 / b.0)));
        let (alone, beside) = rounds[rounds.len() / 2];
        let ratios = rounds.iter().map(|(alone, beside)| format!("{:.2}", beside / alone));
        vec![line(
            &format!("one gateway: p99 of acknowledgement beside a tenant at {TIMES} times its quota"),
            format!("{:.2} times that alone", beside / alone),
            format!(
                "{:.1} ms and {:.1} ms, goal 1.5 times; the rounds: {}; nothing of the quiet tenant was refused, and {taken:.1} times its \
                 quota was taken of the noisy one",
                beside * 1e3,
                alone * 1e3,
                ratios.collect::<Vec<_>>().join(", ")
            ),
        )]
    })
}

struct Site {
    folder: std::path::PathBuf,
    gateway: Process,
    quiet: RecordBatch,
    noisy: RecordBatch,
}

impl Site {
    async fn start(binary: &Path, folder: &Path) -> Self {
        let path = |name: &str| folder.join(name);
        let out = path("certificates").display().to_string();
        let issue = |words: &[&str]| ca(binary, &path("ca"), words).unwrap();
        issue(&["init"]);
        issue(&["issue", "--gateway", "localhost", "--out", &out]);
        issue(&["issue", "--tenant", "quiet", "--node", "site-0", "--out", &out]);
        for node in 0..NODES {
            issue(&[
                "issue",
                "--tenant",
                "noisy",
                "--node",
                &format!("site-{node}"),
                "--out",
                &out,
            ]);
        }
        for (tenant, limit) in [("quiet", 0), ("noisy", QUOTA)] {
            let mut add = Command::new(binary);
            add.args([
                "tenant",
                "add",
                tenant,
                "--burst",
                "1 s",
                "--events-per-second",
                &limit.to_string(),
                "--dir",
            ]);
            assert!(add.arg(path("tenants")).output().unwrap().status.success());
        }
        let text = format!(
            "roles = [\"gateway\"]\ndata_dir = {:?}\nlake = {:?}\n[gateway]\ncertificate = {:?}\nkey = {:?}\nca = {:?}\n[tenants]\ndir = {:?}\n",
            path("ingest"),
            path("lake"),
            path("certificates/gateway-localhost.pem"),
            path("certificates/gateway-localhost.key"),
            path("ca/ca.pem"),
            path("tenants"),
        );
        std::fs::write(path("ingest.toml"), text).unwrap();
        let start = Start {
            binary: binary.to_owned(),
            arguments: vec!["ingest".to_owned()],
            environment: Vec::new(),
            ready_file: path("ready.json"),
            log: path("ingest.log"),
            deadline: PATIENCE,
        };
        let start = start.config(&path("ingest.toml")).listen("link", "127.0.0.1:0");
        let rows = |count| {
            let body = Corpus::new(1).request(Signal::Log, 0, count, 0);
            let mut decoder = Decoder::new(DecodeLimits::default());
            decoder.decode(sluice_wire::Signal::Log, &body, 1).unwrap().batch
        };
        Site {
            folder: folder.to_owned(),
            gateway: start.listen("http", "127.0.0.1:0").spawn().await.unwrap(),
            quiet: rows(QUIET_ROWS),
            noisy: rows(NOISY_ROWS as usize),
        }
    }

    /// The quiet tenant's 99th percentile, in seconds.
    async fn phase(&self, round: u64, with_noisy: bool) -> f64 {
        let stop = CancellationToken::new();
        let mut running = JoinSet::new();
        let batches = |every: Duration| PHASE.as_nanos().div_ceil(every.as_nanos()) as u64;
        // What it takes to seal is paid before.
        let quiet = Feed::new("quiet", 0, (round, with_noisy), batches(QUIET_EVERY), &self.quiet);
        let noisy: Vec<_> = (0..if with_noisy { NODES } else { 0 })
            .map(|node| Feed::new("noisy", node, (round, with_noisy), batches(NOISY_EVERY), &self.noisy))
            .collect();
        for feed in noisy.iter().chain([&quiet]) {
            running.spawn(self.uplink(feed).run(stop.clone()));
        }
        // Not counted: the first handshake.
        for feed in noisy.iter().chain([&quiet]) {
            feed.connected().await;
        }
        let mut feeding = JoinSet::new();
        for feed in noisy {
            feeding.spawn(feed.feed(NOISY_EVERY));
        }
        Arc::clone(&quiet).feed(QUIET_EVERY).await;
        let waits = tokio::time::timeout(PATIENCE, quiet.all_acked()).await.unwrap();
        feeding.abort_all();
        stop.cancel();
        running.join_all().await;
        percentile(waits)
    }

    fn uplink(&self, feed: &Arc<Feed>) -> Uplink {
        let file = |ending: &str| {
            let name = format!("{}.{}.{ending}", feed.stream.tenant, feed.stream.node);
            self.folder.join("certificates").join(name)
        };
        let gateway = self.gateway.address("link").unwrap().to_string();
        let mut config = LinkConfig::new(gateway, file("pem"), file("key"), self.folder.join("ca/ca.pem"));
        config.server_name = Some("localhost".to_owned());
        let (source, sink) = (
            Arc::clone(feed) as Arc<dyn BatchSource>,
            Arc::clone(feed) as Arc<dyn AckSink>,
        );
        Uplink::build(config, feed.stream.clone(), EPOCH, 0, source, sink).unwrap()
    }

    async fn tenants(&self) -> Value {
        let answer = get(&(self.gateway.url("http").unwrap() + "/v1/status"), None)
            .await
            .unwrap();
        let status: Value = serde_json::from_str(&answer.text()).unwrap();
        status["gateway"]["tenants"].clone()
    }
}

fn percentile(mut waits: Vec<f64>) -> f64 {
    waits.sort_by(f64::total_cmp);
    waits[(waits.len() * 99).div_ceil(100) - 1]
}

/// A spool in memory that fills at its pace, and what became of its batches.
struct Feed {
    stream: StreamId,
    batches: Vec<Bytes>,
    end: watch::Sender<u64>,
    welcomed: watch::Sender<bool>,
    known: Mutex<Known>,
    acked: watch::Sender<usize>,
}

#[derive(Default)]
struct Known {
    /// When each came.
    came: Vec<Instant>,
    acked: BTreeSet<u64>,
    waits: Vec<f64>,
}

impl Feed {
    fn new(tenant: &str, node: u64, (round, with_noisy): (u64, bool), batches: u64, rows: &RecordBatch) -> Arc<Self> {
        let mut spool = [0; 16];
        spool[..3].copy_from_slice(&[round as u8, u8::from(with_noisy), node as u8 + 1]);
        let stream = StreamId {
            tenant: tenant.parse().unwrap(),
            node: format!("site-{node}").parse().unwrap(),
            spool,
        };
        let sealed = |seq| {
            let mut header = header();
            header.id = BatchId {
                stream: stream.clone(),
                epoch: EPOCH,
                seq,
            };
            header.generation = 0;
            header.rows = rows.num_rows() as u32;
            header.counts.accepted = rows.num_rows() as u64;
            header.counts.stored = rows.num_rows() as u64;
            envelope::seal(&header, Some(rows), Compression::default()).unwrap()
        };
        Arc::new(Feed {
            batches: (0..batches).map(sealed).collect(),
            stream,
            end: watch::Sender::new(0),
            welcomed: watch::Sender::new(false),
            known: Mutex::default(),
            acked: watch::Sender::new(0),
        })
    }

    async fn connected(&self) {
        let mut welcomed = self.welcomed.subscribe();
        let welcomed = tokio::time::timeout(PATIENCE, welcomed.wait_for(|welcomed| *welcomed)).await;
        welcomed.unwrap().unwrap();
    }

    /// Lets one batch after the other come, at its time whatever became of the ones before.
    async fn feed(self: Arc<Self>, every: Duration) {
        let mut ticks = tokio::time::interval(every);
        for end in 1..=self.batches.len() as u64 {
            ticks.tick().await;
            self.known.lock().unwrap().came.push(Instant::now());
            self.end.send_replace(end);
        }
    }

    /// Seconds from the coming of each to its acknowledgement.
    async fn all_acked(&self) -> Vec<f64> {
        let mut acked = self.acked.subscribe();
        acked.wait_for(|acked| *acked == self.batches.len()).await.unwrap();
        self.known.lock().unwrap().waits.clone()
    }
}

impl BatchSource for Feed {
    fn next_from(&self, index: u64) -> Result<Option<(u64, Bytes)>, SourceError> {
        let end = *self.end.borrow();
        let known = self.known.lock().unwrap();
        let next = (index..end).find(|index| !known.acked.contains(index));
        Ok(next.map(|index| (index, self.batches[index as usize].clone())))
    }

    fn read(&self, index: u64) -> Result<Bytes, SourceError> {
        Ok(self.batches[index as usize].clone())
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.end.subscribe()
    }

    fn waiting(&self, range: Range<u64>) -> Waiting {
        let known = self.known.lock().unwrap();
        let batches = range.filter(|index| !known.acked.contains(index)).count() as u64;
        Waiting { batches, bytes: 0 }
    }
}

impl AckSink for Feed {
    fn acked(&self, index: u64) {
        let mut known = self.known.lock().unwrap();
        if known.acked.insert(index) {
            let wait = known.came[index as usize].elapsed().as_secs_f64();
            known.waits.push(wait);
            self.acked.send_replace(known.acked.len());
        }
    }

    fn welcomed(&self, _generation: u32, _max_batch_bytes: u32) {
        self.welcomed.send_replace(true);
    }
}
