//! The rows that are asked, and how they come into the stores: as records of one partition of a log.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use arrow_array::RecordBatch;
use sluice_bench::corpus::{Corpus, Signal};
use sluice_store::{EmbeddedHot, HotError, HotRows, LogEnds, OffsetRange, Stores};
use sluice_wire::counts::Counts;
use sluice_wire::events::{self, Origin, Outcome};
use sluice_wire::ids::{BatchId, Epoch, NodeId, Partition, StreamId, TenantId};
use sluice_wire::otlp::{DecodeLimits, Decoder};

use super::questions::Span;

pub(super) const TENANT: &str = "shop";
const SEED: u64 = 11;
/// Of one record of the log.
const RECORD_ROWS: u64 = 1_000;
/// Records of one commit: as many rows as half a minute of a busy cold writer has.
const COMMIT_RECORDS: u64 = 250;
const INSERT_RECORDS: u64 = 100;
const WAIT_BUSY: Duration = Duration::from_millis(200);
const PARTITION: Partition = Partition {
    generation: 0,
    index: 0,
};
/// The corpus' events are 20 µs apart, beginning here: 2026-01-01T00:00:00Z.
const BASE_US: i64 = 1_767_225_600_000_000;
const RECORD_US: i64 = RECORD_ROWS as i64 * 20;

/// Records `from..to` of the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows {
    from: u64,
    to: u64,
    /// The record that holds the trace that is looked for.
    traced: u64,
}

/// A log of which nobody here knows the end.
pub(super) struct Unknown;

impl LogEnds for Unknown {
    fn end(&self, _: Partition) -> Option<u64> {
        None
    }

    fn oldest_unread_us(&self, _: Partition, _: u64) -> Option<i64> {
        None
    }
}

impl Rows {
    pub(super) fn first(count: u64) -> Rows {
        Rows::of(0, count.div_ceil(RECORD_ROWS).max(1))
    }

    pub(super) fn next(self, count: u64) -> Rows {
        Rows::of(self.to, self.to + count.div_ceil(RECORD_ROWS).max(1))
    }

    /// These, and others that follow them.
    pub(super) fn and(self, next: Rows) -> Rows {
        Rows::of(self.from, next.to)
    }

    pub(super) fn records(self) -> Range<u64> {
        self.from..self.to
    }

    fn of(from: u64, to: u64) -> Rows {
        let middle = (from + to) / 2;
        // One of logs.
        let traced = (from..to).min_by_key(|k| (signal(*k) != Signal::Log, k.abs_diff(middle)));
        Rows {
            from,
            to,
            traced: traced.unwrap_or(from),
        }
    }

    /// The same with a trace of another place.
    pub(super) fn place(self, at: u64, of: u64) -> Rows {
        let wanted = self.from + (self.to - 1 - self.from) * at / of;
        let traced = (self.from..self.to).min_by_key(|k| (signal(*k) != Signal::Log, k.abs_diff(wanted)));
        Rows {
            traced: traced.unwrap_or(self.from),
            ..self
        }
    }

    pub(super) fn count(self) -> u64 {
        (self.to - self.from) * RECORD_ROWS
    }

    pub(super) fn span(self) -> Span {
        Span {
            from_us: BASE_US + self.from as i64 * RECORD_US,
            to_us: BASE_US + self.to as i64 * RECORD_US,
        }
    }

    pub(super) fn trace(self) -> String {
        let expected = Corpus::new(SEED).expected(Signal::Log, self.traced, RECORD_ROWS as usize);
        let id = expected[500].trace_id.unwrap();
        id.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    pub(super) fn service(self) -> String {
        let expected = Corpus::new(SEED).expected(Signal::Log, 0, 1);
        expected[0].service.clone()
    }
}

/// Six records of logs, three of spans, one of metrics.
fn signal(k: u64) -> Signal {
    match k % 10 {
        0..6 => Signal::Log,
        6..9 => Signal::Span,
        _ => Signal::Metric,
    }
}

fn wire(signal: Signal) -> sluice_wire::Signal {
    match signal {
        Signal::Log => sluice_wire::Signal::Log,
        Signal::Span => sluice_wire::Signal::Span,
        Signal::Metric => sluice_wire::Signal::Metric,
    }
}

/// The rows of some records, as the writers store them.
fn records(from: u64, to: u64) -> Vec<RecordBatch> {
    let mut decoder = Decoder::new(DecodeLimits::default());
    let corpus = Corpus::new(SEED);
    let mut rows = Vec::new();
    for k in from..to {
        let body = corpus.request(signal(k), k, RECORD_ROWS as usize, 0);
        let at = BASE_US + k as i64 * RECORD_US;
        let batch = decoder
            .decode(wire(signal(k)), &body, at.unsigned_abs() * 1_000)
            .unwrap()
            .batch;
        let id = BatchId {
            stream: StreamId {
                tenant: TenantId::new(TENANT).unwrap(),
                node: NodeId::new("measure").unwrap(),
                spool: [7; 16],
            },
            epoch: Epoch { number: 1, random: 1 },
            seq: k,
        };
        let origin = Origin {
            id: &id,
            partition: PARTITION,
            offset: k,
            ingested_at_us: at,
        };
        let counts = Counts {
            accepted: RECORD_ROWS,
            stored: RECORD_ROWS,
            ..Counts::default()
        };
        rows.push(events::fold(&batch, &origin).unwrap());
        rows.push(events::ledger_row(&origin, Outcome::Accepted, &counts, ""));
    }
    rows
}

/// The next rows are made while some are stored.
async fn made(from: u64, to: u64) -> Vec<RecordBatch> {
    tokio::task::spawn_blocking(move || records(from, to)).await.unwrap()
}

/// The lake with the first rows; made, or gone on with, where an earlier run did not come to the end.
pub(super) async fn cold(count: u64) -> PathBuf {
    let base = std::env::var_os("SLUICE_MEASURE_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/measure"),
        PathBuf::from,
    );
    let lake = base.join(format!("lake-1-{count}"));
    std::fs::create_dir_all(&lake).unwrap();
    let stores = Stores::open_with(lake.to_str().unwrap(), EmbeddedHot::new(0).into())
        .await
        .unwrap();
    let rows = Rows::first(count);
    let committed = stores.cold.committed().await.unwrap();
    let mut next = committed.get(&PARTITION).map_or(0, |last| last + 1);
    let step = |from: u64| (from + COMMIT_RECORDS).min(rows.to);
    let mut making = tokio::spawn(made(next, step(next)));
    while next < rows.to {
        let to = step(next);
        let batches = making.await.unwrap();
        making = tokio::spawn(made(to, step(to)));
        let range = OffsetRange {
            partition: PARTITION,
            first: next,
            last: to - 1,
        };
        stores.cold.commit(&[range], batches).await.unwrap();
        next = to;
        if next % (20 * COMMIT_RECORDS) == 0 {
            println!(
                "  {} M of {} M cold rows",
                next * RECORD_ROWS / 1_000_000,
                rows.count() / 1_000_000
            );
        }
    }
    lake
}

/// A hot writer's inserts.
pub(super) async fn hot(stores: &Stores, rows: Rows) {
    let endpoint = stores.hot.endpoint();
    let claimed = stores.seam.claim(PARTITION, rows.from, &endpoint).await.unwrap();
    stores.hot.claim(PARTITION, claimed.last_claim().unwrap());
    let mut next = rows.from;
    let step = |from: u64| (from + INSERT_RECORDS).min(rows.to);
    let mut making = tokio::spawn(made(next, step(next)));
    while next < rows.to {
        let to = step(next);
        let batches = making.await.unwrap();
        making = tokio::spawn(made(to, step(to)));
        let range = OffsetRange {
            partition: PARTITION,
            first: next,
            last: to - 1,
        };
        let slices = [HotRows { range, rows: batches }];
        while let Err(error) = stores.hot.insert(&slices).await {
            assert!(matches!(error, HotError::Busy { .. }), "{error}");
            tokio::time::sleep(WAIT_BUSY).await;
        }
        next = to;
    }
}

/// The same files in another folder: files of a lake are only ever replaced whole.
pub(super) fn link(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (path, name) = {
            let entry = entry.unwrap();
            (entry.path(), entry.file_name())
        };
        match path.is_dir() {
            true => link(&path, &to.join(name)),
            // In another file system they are copied.
            false => std::fs::hard_link(&path, to.join(&name))
                .or_else(|_| std::fs::copy(&path, to.join(&name)).map(drop))
                .unwrap(),
        }
    }
}
