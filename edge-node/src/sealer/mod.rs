//! The sealer: makes batches of what the journal holds and appends them to the spool.

mod batch;
mod plan;
mod thread;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use sluice_wire::counts::Counts;
use sluice_wire::envelope::Kind;
use sluice_wire::session::LanePolicy;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::journal::Journal;
use crate::link::LinkStatus;
use crate::spool::{Draft, Spool, SpoolError};
use crate::status::{Counters, now_ns};
pub(crate) use batch::{Content, Sealed, Unsealed, quarantined, seal};
pub(crate) use plan::{Busy, Decision, Link, Pending, Policy, Queue};
pub(crate) use thread::PackingThread;

/// Between attempts to write to a full disk.
const FULL_PAUSE: Duration = Duration::from_secs(1);

/// The driver: takes records from the intake, asks the plan, seals.
pub(crate) struct Sealer {
    pub(crate) queue: Queue<Content>,
    pub(crate) accepted: mpsc::Receiver<Pending<Content>>,
    pub(crate) reports: mpsc::Receiver<String>,
    pub(crate) link: Option<watch::Receiver<LinkStatus>>,
    pub(crate) busy: Busy,
    pub(crate) spool: Arc<Spool>,
    pub(crate) journal: Arc<Journal>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) started: Instant,
    pub(crate) thread: PackingThread,
    /// Records of one batch. On a full disk fewer and fewer, because a smaller batch may still fit.
    pub(crate) at_most: usize,
    /// Cancelled when everything that will ever be handed over has been.
    pub(crate) finished: CancellationToken,
}

impl Sealer {
    /// Runs until it is told that nothing more comes, then seals what is left.
    pub(crate) async fn run(mut self) -> Result<(), SpoolError> {
        let mut was_offline = false;
        loop {
            let link = self.link_state();
            if was_offline && link != Link::Offline {
                self.seal_past().await?;
            }
            was_offline = link == Link::Offline;
            let decision = self.queue.decide(self.started.elapsed(), link);
            self.note_waiting();
            let wait = match decision {
                Decision::Seal if !self.finished.is_cancelled() => {
                    self.seal_next().await?;
                    continue;
                }
                Decision::Seal => Duration::ZERO,
                Decision::Wait(wait) => wait,
                Decision::Nothing => Duration::from_secs(3600),
            };
            tokio::select! {
                pending = self.accepted.recv() => match pending {
                    Some(pending) => self.take(pending),
                    None => break,
                },
                Some(detail) = self.reports.recv() => self.report(detail).await?,
                () = link_changed(&mut self.link) => {}
                () = tokio::time::sleep(wait) => {}
                () = self.finished.cancelled() => break,
            }
        }
        self.accepted.close();
        while let Some(pending) = self.accepted.recv().await {
            self.queue.push(pending);
        }
        // On a full disk the journal keeps what is left for the next start.
        while self.queue.waiting().1.is_some() && !self.counters.is_full() {
            self.seal_next().await?;
        }
        Ok(())
    }

    /// What waited while the link was down is sealed by itself: what comes from now on is fresh and must not stand behind it.
    async fn seal_past(&mut self) -> Result<(), SpoolError> {
        self.spool.seal_past(true);
        let mut result = Ok(());
        while result.is_ok() && self.queue.waiting().1.is_some() && !self.counters.is_full() {
            result = self.seal_next().await;
        }
        self.spool.seal_past(false);
        result
    }

    fn take(&mut self, pending: Pending<Content>) {
        self.queue.push(pending);
        while let Ok(pending) = self.accepted.try_recv() {
            self.queue.push(pending);
        }
    }

    fn link_state(&mut self) -> Link {
        let Some(link) = &mut self.link else {
            return Link::Offline;
        };
        let status = link.borrow_and_update();
        let live = usize::try_from(status.lanes.live.batches).unwrap_or(usize::MAX);
        let of_backlog = status.lanes.backlog.in_flight;
        match status.connected {
            false => Link::Offline,
            true if self.busy.is_reached(status.in_flight, of_backlog, live) => Link::Busy,
            true if of_backlog > 0 && self.busy.policy != LanePolicy::OldestFirst => Link::Shared,
            true => Link::Ready,
        }
    }

    fn note_waiting(&self) {
        let (records, oldest) = self.queue.waiting();
        self.counters.unsealed_records.store(records as u64, Ordering::Relaxed);
        let oldest = oldest.map_or(0, |at| 1 + at.as_millis() as u64);
        self.counters.unsealed_since_ms.store(oldest, Ordering::Relaxed);
    }

    async fn seal_next(&mut self) -> Result<(), SpoolError> {
        let group = self.queue.cut_at_most(self.at_most);
        let bytes = |group: &[Pending<Content>]| group.iter().map(|p| p.bytes as u64).sum::<u64>();
        let taken_bytes = bytes(&group);
        let (spool, refused) = (self.spool.clone(), self.counters.take_refused());
        let kept = refused.clone();
        let result = self.thread.run(move || seal(group, refused, &spool, now_ns())).await;
        match result {
            Ok(sealed) => {
                self.at_most = usize::MAX;
                self.counters.sealed(&sealed);
                self.counters.unsealed_bytes.fetch_sub(taken_bytes, Ordering::Relaxed);
                self.journal.covered(sealed.upto).await.map(drop).or_else(unless_full)
            }
            Err(Unsealed {
                left: group,
                sealed,
                error,
            }) if error.is_full() => {
                if sealed.batches == 0 {
                    self.counters.put_back_refused(&kept);
                } else {
                    // The first of its batches told them.
                    self.counters.sealed(&sealed);
                }
                self.counters
                    .unsealed_bytes
                    .fetch_sub(taken_bytes - bytes(&group), Ordering::Relaxed);
                self.at_most = (group.len() / 2).max(1);
                self.queue.put_back(group);
                // What was acknowledged meanwhile is deleted by the cursor's keeper; then there is room again.
                self.counters.note_full();
                self.wait_for_room().await;
                Ok(())
            }
            Err(unsealed) => Err(unsealed.error),
        }
    }

    /// Goes on taking what was accepted, which is bounded by `accept.max_unsealed`: whoever hands it over must not wait for the
    /// disk, nor hold up a node that stops.
    async fn wait_for_room(&mut self) {
        let pause = tokio::time::sleep(FULL_PAUSE);
        tokio::pin!(pause);
        loop {
            tokio::select! {
                () = &mut pause => return,
                Some(pending) = self.accepted.recv() => self.take(pending),
                () = self.finished.cancelled() => return,
            }
        }
    }

    /// What the node says of itself, as a batch without rows.
    async fn report(&mut self, detail: String) -> Result<(), SpoolError> {
        let spool = self.spool.clone();
        let counts = Counts {
            refused: self.counters.take_refused().refused,
            ..Counts::default()
        };
        let kept = counts.clone();
        let result = blocking(move || {
            let now = now_ns();
            let draft = Draft {
                kind: Kind::Report,
                rows: None,
                counts,
                journal_upto: spool.covered(),
                time_min_ns: now as i64,
                time_max_ns: now as i64,
                sealed_at_ns: now,
                detail,
            };
            spool.append(&draft)
        })
        .await;
        match result {
            Ok(_) => Ok(()),
            Err(error) if error.is_full() => {
                self.counters.put_back_refused(&kept);
                Ok(())
            }
            // A report that cannot be told is no reason to stop sealing events.
            Err(error @ (SpoolError::Seal(_) | SpoolError::TooLarge { .. })) => {
                tracing::warn!(%error, "report is left out");
                self.counters.put_back_refused(&kept);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

/// A full disk stops no trimming for good: the next batch tries again.
fn unless_full(error: sluice_wal::WalError) -> Result<(), SpoolError> {
    match error {
        sluice_wal::WalError::Full => Ok(()),
        other => Err(SpoolError::Log(other)),
    }
}

async fn link_changed(link: &mut Option<watch::Receiver<LinkStatus>>) {
    let gone = match link {
        Some(link) => link.changed().await.is_err(),
        None => true,
    };
    if gone {
        std::future::pending::<()>().await;
    }
}

pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is going down and this task with it.
            Err(_) => std::future::pending().await,
        },
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::spool::SpoolOptions;
    use crate::spool::tests::faulty;
    use sluice_wal::Wal;

    fn sealer(
        spool: Spool,
        dir: &std::path::Path,
        accepted: mpsc::Receiver<Pending<Content>>,
        reports: mpsc::Receiver<String>,
        patience: Duration,
        link: Option<watch::Receiver<LinkStatus>>,
    ) -> Sealer {
        let journal = Wal::open(&dir.join("journal"), crate::journal::options(64 << 20, 0))
            .unwrap()
            .0;
        let policy = Policy {
            max_rows: 10,
            max_bytes: 1 << 20,
            freshness: patience,
            offline_age: patience,
        };
        Sealer {
            queue: Queue::new(policy, 0),
            accepted,
            reports,
            link,
            busy: Busy {
                policy: LanePolicy::FreshFirst,
                max_in_flight: 1,
            },
            spool: Arc::new(spool),
            journal: Arc::new(Journal::start(
                journal,
                1,
                Arc::new(crate::positions::Positions::load(&dir.join("positions"), 0).unwrap()),
            )),
            counters: Arc::default(),
            started: Instant::now(),
            thread: PackingThread::start(),
            at_most: usize::MAX,
            finished: CancellationToken::new(),
        }
    }

    fn pending(index: u64) -> Pending<Content> {
        Pending {
            index,
            damaged_before: 0,
            accepted: Duration::ZERO,
            rows: 0,
            bytes: 0,
            content: Content::default(),
        }
    }

    /// Else what waits to be handed over would keep a node from stopping.
    #[tokio::test]
    async fn p5_a_sealer_on_a_full_disk_goes_on_taking_what_was_accepted() {
        let dir = tempfile::tempdir().unwrap();
        let faults = Arc::default();
        let (spool, _) = faulty::open(dir.path(), &faults);
        faults.lock().unwrap().full = true;
        let (accepted_in, accepted) = mpsc::channel(2);
        let (_reports_in, reports) = mpsc::channel(1);
        let sealer = sealer(spool, dir.path(), accepted, reports, Duration::ZERO, None);
        let (finished, counters, spool) = (sealer.finished.clone(), sealer.counters.clone(), sealer.spool.clone());
        let sealing = tokio::spawn(sealer.run());
        accepted_in.send(pending(0)).await.unwrap();
        counters.full().wait_for(|full| *full).await.unwrap();
        for index in 1..50 {
            accepted_in.send(pending(index)).await.unwrap();
        }
        while accepted_in.capacity() < 2 {
            tokio::task::yield_now().await;
        }
        faults.lock().unwrap().full = false;
        let mut sealed = crate::link::BatchSource::changed(&*spool);
        while spool.covered() < 50 {
            sealed.changed().await.unwrap();
        }
        finished.cancel();
        sealing.await.unwrap().unwrap();
    }

    /// A sealer and what feeds it.
    struct Bench {
        _dir: tempfile::TempDir,
        accepted: mpsc::Sender<Pending<Content>>,
        reports: mpsc::Sender<String>,
        finished: CancellationToken,
        spool: Arc<Spool>,
        counters: Arc<Counters>,
    }

    fn bench(patience: Duration, link: Option<watch::Receiver<LinkStatus>>) -> (Sealer, Bench) {
        let dir = tempfile::tempdir().unwrap();
        let options = SpoolOptions {
            data_dir: dir.path().to_owned(),
            max_bytes: 64 << 20,
            ballast: 0,
            zstd_level: 0,
            max_batch_bytes: 1 << 20,
        };
        let spool = Spool::open(options, &"acme".parse().unwrap(), &"site".parse().unwrap())
            .unwrap()
            .0;
        let (accepted_in, accepted) = mpsc::channel(4);
        let (reports_in, reports) = mpsc::channel(4);
        let sealer = sealer(spool, dir.path(), accepted, reports, patience, link);
        let bench = Bench {
            _dir: dir,
            accepted: accepted_in,
            reports: reports_in,
            finished: sealer.finished.clone(),
            spool: sealer.spool.clone(),
            counters: sealer.counters.clone(),
        };
        (sealer, bench)
    }

    #[tokio::test]
    async fn p6_what_waited_during_an_outage_is_sealed_by_itself_when_the_link_is_back() {
        let (link, watched) = watch::channel(LinkStatus::default());
        let (sealer, bench) = bench(Duration::from_secs(3600), Some(watched));
        let sealing = tokio::spawn(sealer.run());
        bench.accepted.send(pending(0)).await.unwrap();
        while bench.counters.unsealed_records.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        assert!(bench.spool.is_drained());
        link.send_modify(|status| status.connected = true);
        let mut sealed = crate::link::BatchSource::changed(&*bench.spool);
        sealed.wait_for(|next| *next == 1).await.unwrap();
        assert_eq!(crate::link::BatchSource::past(&*bench.spool), 1);
        // What comes later is fresh.
        bench.accepted.send(pending(1)).await.unwrap();
        bench.finished.cancel();
        sealing.await.unwrap().unwrap();
        assert_eq!(
            (*sealed.borrow(), crate::link::BatchSource::past(&*bench.spool)),
            (2, 1)
        );
    }

    #[tokio::test]
    async fn p10_a_report_that_cannot_be_written_does_not_end_the_sealer() {
        let (sealer, bench) = bench(Duration::ZERO, None);
        bench.counters.refused_by_plugin("mask", "trap", 7);
        let spool = bench.spool.clone();
        let sealing = tokio::spawn(sealer.run());
        // Larger than the header of a batch may be, and in the second case than a batch.
        for bytes in [600 << 10, 2 << 20] {
            bench.reports.send("x".repeat(bytes)).await.unwrap();
        }
        while bench.reports.capacity() < 4 {
            tokio::task::yield_now().await;
        }
        bench.accepted.send(pending(0)).await.unwrap();
        let mut sealed = crate::link::BatchSource::changed(&*spool);
        sealed.wait_for(|next| *next > 0).await.unwrap();
        bench.finished.cancel();
        sealing.await.unwrap().unwrap();
        let (_, bytes) = crate::link::BatchSource::next_from(&*spool, 0).unwrap().unwrap();
        let header = sluice_wire::envelope::Envelope::parse(bytes).unwrap().header;
        assert_eq!(
            header.counts.refused[0].rows, 7,
            "what the reports would have told is told by the next batch"
        );
    }
}
