//! What each stage of a node costs in processor time, on the same rows in the order in which they pass: the product's own
//! functions, without the sockets between them.

use std::path::Path;

use arrow_array::RecordBatch;
use bytes::Bytes;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use sluice_bench::corpus::{Corpus, Signal};
use sluice_runtime::{Call, Chain, Grants, Host, HostOptions, Limits, PluginConfig};
use sluice_store::{OffsetRange, Stores};
use sluice_wal::{Options, Wal};
use sluice_wire::envelope::{self, Compression, Envelope};
use sluice_wire::events::{self, Origin};
use sluice_wire::ids::Partition;
use sluice_wire::layout::{self, ConcatOptions, IpcLimits};
use sluice_wire::otlp::{DecodeLimits, Decoder};

use crate::codec::header;
use crate::{Line, line};

const ROWS: usize = 1_000;
const REQUESTS: u64 = 200;
/// What the sealer joins when requests of this size arrive steadily.
const SEALED_REQUESTS: usize = 8;
const HOT_BYTES: u64 = 4 << 30;
const PARTITION: Partition = Partition {
    generation: 0,
    index: 0,
};

/// Processor seconds of this process, all threads.
fn cpu_seconds() -> f64 {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

struct Stages {
    lines: Vec<Line>,
    sum: f64,
}

impl Stages {
    fn run<T>(&mut self, what: &str, work: impl FnOnce() -> T) -> T {
        let before = cpu_seconds();
        let result = work();
        let per_million = (cpu_seconds() - before) * 1e6 / (REQUESTS as f64 * ROWS as f64);
        self.sum += per_million;
        let value = format!("{per_million:.2} CPU-s/M events");
        self.lines.push(line(&format!("stage: {what}"), value, String::new()));
        result
    }
}

pub(crate) fn measure(dist: &Path) -> Vec<Line> {
    let corpus = Corpus::new(3);
    let bodies: Vec<Vec<u8>> = (0..REQUESTS).map(|k| corpus.request(Signal::Log, k, ROWS, 0)).collect();
    let folder = tempfile::tempdir().unwrap();
    let wal = |name: &str| Wal::open(&folder.path().join(name), Options::default()).unwrap().0;
    let (mut journal, mut spool, mut log) = (wal("journal"), wal("spool"), wal("log"));
    let host = Host::new(HostOptions::default()).unwrap();
    let sample = chain(&host, dist, &[("sample", json!({"rate": 1.0}))]);
    let mask = chain(&host, dist, &[("mask", json!({}))]);
    let mut stages = Stages {
        lines: Vec::new(),
        sum: 0.0,
    };

    let mut decoder = Decoder::new(DecodeLimits::default());
    let decoded: Vec<RecordBatch> = stages.run("decode OTLP", || {
        let decode = |body: &Vec<u8>| decoder.decode(sluice_wire::Signal::Log, body, 1).unwrap().batch;
        bodies.iter().map(decode).collect()
    });
    let through = |chain: &Chain, batches: Vec<RecordBatch>| -> Vec<RecordBatch> {
        let run = |batch| {
            chain
                .run(batch, &Call::new(sluice_wire::Signal::Log, 0, "acme"))
                .unwrap()
                .batch
        };
        batches.into_iter().map(run).collect()
    };
    let sampled = stages.run("plugin sample, keeping all", || through(&sample, decoded));
    let masked = stages.run("plugin mask", || through(&mask, sampled));
    let records: Vec<Vec<u8>> = stages.run("journal record", || {
        masked.iter().map(|batch| layout::to_ipc(batch).unwrap()).collect()
    });
    stages.run("journal append, synced each", || append(&mut journal, &records));
    let sealed: Vec<Bytes> = stages.run("seal: join, encode, compress, hash", || {
        masked.chunks(SEALED_REQUESTS).map(seal).collect()
    });
    stages.run("spool append, synced each", || append(&mut spool, &sealed));
    stages.run("gateway: open and validate", || {
        sealed.iter().for_each(|bytes| drop(open(bytes)));
    });
    stages.run("log append, synced each", || append(&mut log, &sealed));
    let rows = stages.run("hot writer: open, to table rows", || table_rows(&sealed));
    let last = rows.len() as u64 - 1;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let stores = runtime
        .block_on(Stores::open(
            &folder.path().join("lake").display().to_string(),
            HOT_BYTES,
        ))
        .unwrap();
    let hot = stores.hot.embedded().expect("what `open` makes");
    hot.claim(PARTITION, 0);
    stages.run("hot writer: insert", || {
        hot.insert(PARTITION, 0, last, rows.clone()).unwrap();
    });
    let rows = stages.run("cold writer: open, to table rows", || table_rows(&sealed));
    stages.run("cold writer: Parquet, Delta commit", || {
        let range = OffsetRange {
            partition: PARTITION,
            first: 0,
            last,
        };
        runtime.block_on(stores.cold.commit(&[range], rows)).unwrap();
    });
    let sum = format!("{:.2} CPU-s/M events", stages.sum);
    stages.lines.push(line(
        "stage: all of these",
        sum,
        "the node below also pays for sockets, TLS and its runtime".to_owned(),
    ));
    stages.lines
}

fn append<T: AsRef<[u8]>>(wal: &mut Wal, records: &[T]) {
    for record in records {
        wal.append(record.as_ref()).unwrap();
        wal.sync().unwrap();
    }
}

fn seal(batches: &[RecordBatch]) -> Bytes {
    let rows = layout::concat(batches, &ConcatOptions::default()).unwrap();
    let mut header = header();
    header.rows = rows.num_rows() as u32;
    header.counts.accepted = rows.num_rows() as u64;
    header.counts.stored = rows.num_rows() as u64;
    envelope::seal(&header, Some(&rows), Compression::default()).unwrap()
}

fn open(bytes: &Bytes) -> (Envelope, RecordBatch) {
    let envelope = Envelope::parse(bytes.clone()).unwrap();
    let rows = envelope.rows(&IpcLimits::default()).unwrap().unwrap();
    (envelope, rows)
}

fn table_rows(sealed: &[Bytes]) -> Vec<RecordBatch> {
    let fold = |(offset, bytes): (usize, &Bytes)| {
        let (envelope, rows) = open(bytes);
        let origin = Origin {
            id: &envelope.header.id,
            partition: PARTITION,
            offset: offset as u64,
            ingested_at_us: 1,
        };
        events::fold(&rows, &origin).unwrap()
    };
    sealed.iter().enumerate().map(fold).collect()
}

/// A chain of these plugins.
pub(crate) fn chain(host: &Host, dist: &Path, plugins: &[(&str, Value)]) -> Chain {
    let load = |(name, config): &(&str, Value)| {
        let plugin = PluginConfig {
            name: (*name).to_owned(),
            component: std::fs::read(dist.join(format!("{name}.wasm"))).unwrap(),
            config: config.clone(),
            limits: Limits::default(),
            on_fault: None,
            enabled: true,
            signals: Vec::new(),
            grants: Grants::harmless(),
        };
        host.load(plugin).unwrap()
    };
    Chain::new(plugins.iter().map(load).collect())
}
