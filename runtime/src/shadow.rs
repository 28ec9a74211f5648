//! A candidate beside the version that serves: it gets a share of the real batches, on a thread of its own, and nothing that it
//! does reaches the data, the answer to a sender, or the version that serves.

mod compare;
mod report;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use arrow_array::RecordBatch;

use crate::answer::Answer;
use crate::call::{Call, Hints};
use crate::clock::ThreadTime;
use crate::columns;
use crate::fault::Words;
use crate::lock;
use crate::plugin::{Failure, Plugin};
use crate::slot::Edition;
use crate::stats::{PluginStats, Standing};
use compare::Side;
pub use report::ShadowReport;

/// Batches that wait for the candidate; what comes meanwhile is skipped and counted.
const MAX_WAITING: usize = 8;
/// Bytes of the batches that wait, and of the one at work. A larger batch is skipped.
const MAX_WAITING_BYTES: usize = 16 * 1024 * 1024;
/// The sampling counts in millionths, so that it is the same whatever the order of threads.
const PARTS: u64 = 1_000_000;
/// How much the thread gives way to those that serve (`nice`).
#[cfg(target_os = "linux")]
const NICENESS: i32 = 10;

/// A candidate at work. Ends its thread when dropped, after the batch at hand.
#[derive(Debug)]
pub struct Shadow {
    shared: Arc<Shared>,
    share: f64,
    parts: u64,
    seen: AtomicU64,
    queue: SyncSender<Work>,
}

#[derive(Debug)]
struct Shared {
    candidate: Arc<Plugin>,
    waiting: AtomicU64,
    waiting_bytes: AtomicUsize,
    /// Set when nobody wants the rest of the queue.
    over: AtomicBool,
    report: Mutex<ShadowReport>,
}

/// A batch with what the version that serves made of it.
#[derive(Debug)]
struct Work {
    batch: RecordBatch,
    bytes: usize,
    signal: sluice_wire::Signal,
    now_ns: u64,
    tenant: String,
    hints: Hints,
    words: Words,
    /// Nothing if it failed.
    current: Option<Answer>,
    current_cpu: Duration,
}

/// A batch that the sampling chose, before the version that serves has seen it.
pub(crate) struct Sampled<'a> {
    shadow: &'a Shadow,
    batch: RecordBatch,
    words: Words,
    began: ThreadTime,
}

impl Shadow {
    /// `share` of the batches, more than 0 and at most 1.
    pub(crate) fn start(candidate: &Edition, share: f64) -> io::Result<Shadow> {
        let (queue, work) = sync_channel(MAX_WAITING);
        let report = ShadowReport {
            version: candidate.version.clone(),
            share,
            ..ShadowReport::default()
        };
        let shared = Arc::new(Shared {
            candidate: candidate.plugin.clone(),
            waiting: AtomicU64::new(0),
            waiting_bytes: AtomicUsize::new(0),
            over: AtomicBool::new(false),
            report: Mutex::new(report),
        });
        let own = shared.clone();
        thread::Builder::new()
            .name("plugin-shadow".to_owned())
            .spawn(move || own.run(&work))?;
        Ok(Shadow {
            shared,
            share,
            parts: (share.clamp(0.0, 1.0) * PARTS as f64).round() as u64,
            seen: AtomicU64::new(0),
            queue,
        })
    }

    pub fn candidate(&self) -> &Arc<Plugin> {
        &self.shared.candidate
    }

    pub fn share(&self) -> f64 {
        self.share
    }

    /// What was seen so far.
    pub fn report(&self) -> ShadowReport {
        let mut report = lock(&self.shared.report).clone();
        report.waiting = self.shared.waiting.load(Ordering::SeqCst);
        report
    }

    /// The same as the figures of a plugin. Its rows are those that were compared, and went nowhere.
    pub(crate) fn stats(&self, place: &str) -> PluginStats {
        let report = self.report();
        let mut stats = self.candidate().stats();
        stats.name = place.to_owned();
        stats.state = Standing::Shadow;
        stats.batches = report.batches;
        stats.rows_in = report.rows;
        stats.rows_out = report.kept_by_both + report.kept_by_candidate_only;
        stats.dropped = report.dropped_by_candidate.into_iter().collect();
        stats.quarantined = report.quarantined_by_candidate;
        stats.version = report.version;
        stats
    }

    /// Chooses batches evenly: of n batches `share * n`, whichever threads they come from.
    pub(crate) fn sample<'a>(&'a self, batch: &RecordBatch, call: &Call<'_>, words: Words) -> Option<Sampled<'a>> {
        let candidate = &self.shared.candidate;
        if !candidate.applies_to(call.signal) || candidate.blocked().is_some() {
            return None;
        }
        let before = u128::from(self.seen.fetch_add(1, Ordering::SeqCst));
        let parts = |batches: u128| batches * u128::from(self.parts) / u128::from(PARTS);
        (parts(before + 1) > parts(before)).then(|| Sampled {
            shadow: self,
            batch: batch.clone(),
            words,
            began: ThreadTime::now(),
        })
    }
}

impl Sampled<'_> {
    /// Hands the batch over with what the version that serves made of it; never waits.
    pub(crate) fn offer(self, current: &Result<Answer, Failure>, call: &Call<'_>) {
        let current_cpu = self.began.elapsed();
        let shared = &*self.shadow.shared;
        let changed = current.as_ref().ok().and_then(|answer| answer.changed.as_ref());
        let bytes = columns::encoded_bytes(&self.batch) + changed.map_or(0, columns::encoded_bytes);
        let before = shared.waiting_bytes.fetch_add(bytes, Ordering::SeqCst);
        let work = Work {
            batch: self.batch,
            bytes,
            signal: call.signal,
            now_ns: call.now_ns,
            tenant: call.tenant.to_owned(),
            hints: call.hints,
            words: self.words,
            current: current.as_ref().ok().cloned(),
            current_cpu,
        };
        shared.waiting.fetch_add(1, Ordering::SeqCst);
        let fits = before.saturating_add(bytes) <= MAX_WAITING_BYTES;
        if !fits || self.shadow.queue.try_send(work).is_err() {
            shared.done(bytes);
            lock(&shared.report).skipped += 1;
        }
    }
}

impl Shared {
    fn run(&self, work: &Receiver<Work>) {
        #[cfg(target_os = "linux")]
        if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
            tracing::debug!(%error, "the thread of a candidate keeps its priority");
        }
        while let Ok(work) = work.recv() {
            let bytes = work.bytes;
            if !self.over.load(Ordering::SeqCst) {
                self.compare(work);
            }
            self.done(bytes);
        }
    }

    fn compare(&self, work: Work) {
        let call = Call {
            signal: work.signal,
            now_ns: work.now_ns,
            tenant: &work.tenant,
            hints: work.hints,
        };
        let began = ThreadTime::now();
        let answer = self.candidate.apply(&work.batch, &call, work.words);
        let cpu = began.elapsed();
        let rows = work.batch.num_rows() as u64;
        let compared = match (&work.current, &answer) {
            (Some(current), Ok(candidate)) => {
                let (current, candidate) = (Side::of(current, &work.batch), Side::of(candidate, &work.batch));
                Some(compare::compare(&current, &candidate))
            }
            _ => None,
        };
        let mut report = lock(&self.report);
        report.faults_current += u64::from(work.current.is_none());
        if let Err(failure) = answer {
            report.faults_candidate += 1;
            report.last_fault = Some(failure.fault.to_string());
        }
        match compared {
            Some(Ok(compared)) => report.add(&compared, rows, work.current_cpu, cpu),
            Some(Err(error)) => {
                tracing::warn!(plugin = self.candidate.name(), %error, "answers cannot be compared");
                report.skipped += 1;
            }
            None => {}
        }
    }

    fn done(&self, bytes: usize) {
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        self.waiting_bytes.fetch_sub(bytes, Ordering::SeqCst);
    }
}

impl Drop for Shadow {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
    }
}
