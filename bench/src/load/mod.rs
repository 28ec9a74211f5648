//! The load generator: sends the corpus over OTLP at a fixed rate or as fast as answers come, and reports what was
//! acknowledged and how long that took.
//!
//! With a rate the loop is open: request k is due at k times the interval whatever the answers do, and its latency counts
//! from when it was due, so a stall of the receiver shows in every request that it delayed. At most `concurrency` requests
//! are in flight either way; memory does not grow with the length of a run.

mod client;
mod latency;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use tokio::time::Instant;

pub use client::{Client, ClientError, Compression, Outcome, Protocol, Target};
pub use latency::{Latencies, LatencySummary};

use crate::corpus::{Corpus, Signal};

/// After a request that nobody answered: as long as a restart takes, so that a dead receiver is not flooded.
const PAUSE_AFTER_SILENCE: Duration = Duration::from_millis(50);
/// Different error texts that a report repeats.
const ERRORS_KEPT: usize = 5;

/// What to send and how.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    pub target: Target,
    pub seed: u64,
    /// Request k carries the k-th of these, in turn.
    pub signals: Vec<Signal>,
    /// Number of the first request; a run that goes on where another ended starts above it.
    pub first_request: u64,
    /// Events per request.
    pub batch: usize,
    /// Events in all: offered, or acknowledged if `until_accepted`.
    pub count: u64,
    /// Go on with new events until `count` of them are acknowledged. Nothing is ever sent twice.
    pub until_accepted: bool,
    /// Events per second; none: as fast as answers come.
    pub rate: Option<f64>,
    /// Requests in flight.
    pub concurrency: usize,
}

/// One request that has its answer, or will never have one.
#[derive(Clone, Debug)]
pub struct Finished {
    pub k: u64,
    pub signal: Signal,
    pub rows: usize,
    pub bytes: usize,
    pub outcome: Outcome,
    pub latency: Duration,
}

/// Is told of every request: before its first byte leaves, and when it is over.
pub trait Observer: Send + Sync {
    fn started(&self, _k: u64, _signal: Signal, _rows: usize) {}
    fn finished(&self, request: &Finished);
}

/// Does not look.
impl Observer for () {
    fn finished(&self, _request: &Finished) {}
}

/// The run in numbers.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LoadReport {
    pub seed: u64,
    pub first_request: u64,
    pub next_request: u64,
    pub requests: u64,
    pub seconds: f64,
    pub events_per_second: f64,
    pub bytes: u64,
    /// Acknowledged.
    pub accepted: u64,
    /// Rejected within requests that were acknowledged in part.
    pub rejected: u64,
    /// Refused by the receiver.
    pub refused: u64,
    /// Sent, but nobody said what became of them.
    pub unknown: u64,
    pub latency_ms: LatencySummary,
    pub errors: Vec<String>,
}

/// Sends until the count is reached or `stop` is set.
pub async fn run(
    options: LoadOptions,
    observer: Arc<dyn Observer>,
    stop: Arc<AtomicBool>,
) -> Result<LoadReport, ClientError> {
    let shared = Arc::new(Shared {
        corpus: Corpus::new(options.seed),
        next: AtomicU64::new(0),
        accepted: AtomicU64::new(0),
        start: Instant::now(),
        observer,
        stop,
        options,
    });
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..shared.options.concurrency.max(1) {
        let client = Client::connect(&shared.options.target)?;
        workers.spawn(worker(shared.clone(), client));
    }
    let mut total = Tally::default();
    while let Some(done) = workers.join_next().await {
        match done {
            Ok(tally) => total.merge(tally),
            Err(error) => total.errors.push(format!("a worker of the generator failed: {error}")),
        }
    }
    Ok(total.report(&shared))
}

struct Shared {
    corpus: Corpus,
    options: LoadOptions,
    next: AtomicU64,
    accepted: AtomicU64,
    start: Instant,
    observer: Arc<dyn Observer>,
    stop: Arc<AtomicBool>,
}

impl Shared {
    /// The number of the next request and its rows.
    fn take(&self) -> Option<(u64, usize)> {
        let options = &self.options;
        if self.stop.load(Ordering::Relaxed) {
            return None;
        }
        if options.until_accepted {
            let reached = self.accepted.load(Ordering::Relaxed) >= options.count;
            return (!reached).then(|| (self.next.fetch_add(1, Ordering::Relaxed), options.batch));
        }
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        let before = n.saturating_mul(options.batch as u64);
        let left = options.count.saturating_sub(before);
        (left > 0).then(|| (n, left.min(options.batch as u64) as usize))
    }

    /// When the n-th request is due, if there is a rate.
    fn due(&self, n: u64) -> Option<Instant> {
        let rate = self.options.rate?;
        let seconds = (n * self.options.batch as u64) as f64 / rate;
        Some(self.start + Duration::from_secs_f64(seconds))
    }
}

async fn worker(shared: Arc<Shared>, mut client: Client) -> Tally {
    let mut tally = Tally::default();
    while let Some((n, rows)) = shared.take() {
        let k = shared.options.first_request + n;
        let signal = shared.options.signals[(k % shared.options.signals.len() as u64) as usize];
        let body = Bytes::from(shared.corpus.request(signal, k, rows, 0));
        let due = shared.due(n);
        if let Some(due) = due {
            tokio::time::sleep_until(due).await;
        }
        let from = due.unwrap_or_else(Instant::now);
        shared.observer.started(k, signal, rows);
        let bytes = body.len();
        let outcome = client.send(signal, body).await;
        let finished = Finished {
            k,
            signal,
            rows,
            bytes,
            outcome,
            latency: from.elapsed(),
        };
        if let Outcome::Accepted { rejected, .. } = &finished.outcome {
            shared
                .accepted
                .fetch_add((rows as u64).saturating_sub(*rejected), Ordering::Relaxed);
        }
        shared.observer.finished(&finished);
        if tally.add(&finished) {
            tokio::time::sleep(PAUSE_AFTER_SILENCE).await;
        }
    }
    tally
}

#[derive(Debug, Default)]
struct Tally {
    requests: u64,
    next: u64,
    bytes: u64,
    accepted: u64,
    rejected: u64,
    refused: u64,
    unknown: u64,
    latencies: Latencies,
    errors: Vec<String>,
}

impl Tally {
    /// Counts a request; true if it failed.
    fn add(&mut self, request: &Finished) -> bool {
        let rows = request.rows as u64;
        self.requests += 1;
        self.next = self.next.max(request.k + 1);
        self.bytes += request.bytes as u64;
        let message = match &request.outcome {
            Outcome::Accepted { rejected, note } => {
                self.accepted += rows.saturating_sub(*rejected);
                self.rejected += rejected;
                self.latencies.record(request.latency);
                if note.is_empty() {
                    return false;
                }
                note
            }
            Outcome::Refused { message, .. } => {
                self.refused += rows;
                message
            }
            Outcome::Unknown { message } => {
                self.unknown += rows;
                message
            }
        };
        if self.errors.len() < ERRORS_KEPT && !self.errors.contains(message) {
            self.errors.push(message.clone());
        }
        !matches!(request.outcome, Outcome::Accepted { .. })
    }

    fn merge(&mut self, other: Tally) {
        self.requests += other.requests;
        self.next = self.next.max(other.next);
        self.bytes += other.bytes;
        self.accepted += other.accepted;
        self.rejected += other.rejected;
        self.refused += other.refused;
        self.unknown += other.unknown;
        self.latencies.merge(&other.latencies);
        for error in other.errors {
            if self.errors.len() < ERRORS_KEPT && !self.errors.contains(&error) {
                self.errors.push(error);
            }
        }
    }

    fn report(self, shared: &Shared) -> LoadReport {
        let seconds = shared.start.elapsed().as_secs_f64();
        LoadReport {
            seed: shared.options.seed,
            first_request: shared.options.first_request,
            next_request: self.next.max(shared.options.first_request),
            requests: self.requests,
            seconds,
            events_per_second: self.accepted as f64 / seconds.max(1e-9),
            bytes: self.bytes,
            accepted: self.accepted,
            rejected: self.rejected,
            refused: self.refused,
            unknown: self.unknown,
            latency_ms: self.latencies.summary(),
            errors: self.errors,
        }
    }
}
