//! A node at work: in which order its parts start, and in which order they end. Every channel and its capacity is made here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sluice_wal::WalError;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::keeper::{Clock, Keeper};
use super::{EdgeError, EdgeNode};
use crate::admin;
use crate::chain;
use crate::config::{EdgeConfig, WhenShort};
use crate::hints::HintBoard;
use crate::intake::{Intake, IntakeLimits, Readers};
use crate::journal::Journal;
use crate::link::{LinkStatus, Thrift};
use crate::otlp::OtlpRoutes;
use crate::recovery::{self, RecoveryError};
use crate::sealer::{Busy, Content, PackingThread, Pending, Policy, Queue, Sealer, blocking};
use crate::serve::{Door, DoorLimits};
use crate::source::at_work::Built;
use crate::source::{otlp_grpc, otlp_http};
use crate::spool::{Spool, SpoolError};
use crate::status::{Phase, StatusHandle};
use crate::tap::TapDoor;

/// Records between intake and sealer; their bytes are bounded by `accept.max_unsealed`.
const HANDOVER_RECORDS: usize = 1024;
/// When the node stops: how long requests may wait for room, then be answered. With `link.drain`, 5 s, it is less than the 10 s
/// after which supervisors kill.
const WAITING_DRAIN: Duration = Duration::from_secs(2);
const DOOR_DRAIN: Duration = Duration::from_secs(2);
/// Reports are batches like others; a link must not be filled with them.
const MIN_REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// How often sealed bytes are compared with the budget of the link: several batches, and a burst is over.
const THRIFT_INTERVAL: Duration = Duration::from_secs(5);
/// On a full disk recovery makes batches no smaller than this, but for single records.
const MIN_BATCH_BYTES: usize = 64 << 10;
/// Between attempts to recover on a full disk.
const FULL_PAUSE: Duration = Duration::from_secs(1);

/// The parts of a node at work. Dropping it stops them where they stand, as a crash would.
pub(super) struct Running {
    config: EdgeConfig,
    spool: Arc<Spool>,
    status: StatusHandle,
    link: Option<watch::Receiver<LinkStatus>>,
    stop_link: CancellationToken,
    uplink: JoinSet<()>,
    stop_keeper: CancellationToken,
    keeper: JoinSet<Result<(), SpoolError>>,
    tap: TapDoor,
    stop_watch: CancellationToken,
    watch: JoinSet<()>,
    routes: watch::Sender<Option<OtlpRoutes>>,
}

impl Running {
    pub(super) async fn start_and_serve(node: EdgeNode, shutdown: CancellationToken) -> Result<(), EdgeError> {
        let EdgeNode {
            config,
            spool,
            journal,
            plugins,
            tap,
            doors,
            sources,
            positions,
            uplink,
            status,
            routes,
        } = node;
        let mut running = Running {
            config,
            spool,
            status,
            link: None,
            stop_link: CancellationToken::new(),
            uplink: JoinSet::new(),
            stop_keeper: CancellationToken::new(),
            keeper: JoinSet::new(),
            tap,
            stop_watch: CancellationToken::new(),
            watch: JoinSet::new(),
            routes,
        };
        // The link first: on a full disk it makes the room that recovery needs.
        if let Some(uplink) = uplink {
            running.link = Some(uplink.status());
            running.uplink.spawn(uplink.run(running.stop_link.clone()));
        }
        let keeper = Keeper {
            spool: running.spool.clone(),
            status: running.status.shared.clone(),
            max_age: running.config.spool.max_age,
            clock: Clock::start(),
            stop: running.stop_keeper.clone(),
        };
        running.keeper.spawn(keeper.run());
        running
            .watch
            .spawn(chain::watch::run(plugins, running.stop_watch.clone()));
        let journal = Arc::new(Journal::start(journal, running.spool.epoch().0.number, positions));
        running.serve(journal, doors, sources, shutdown).await
    }

    async fn serve(
        mut self,
        journal: Arc<Journal>,
        doors: Vec<Door>,
        sources: Built,
        shutdown: CancellationToken,
    ) -> Result<(), EdgeError> {
        let (sealer_in, accepted) = mpsc::channel(HANDOVER_RECORDS);
        let (reports_in, reports) = mpsc::channel(1);
        let (fatal_in, mut fatal) = mpsc::channel(1);
        let (stop_doors, finished) = (CancellationToken::new(), CancellationToken::new());
        let tasks = TaskTracker::new();
        let intake = self.intake(&journal, sealer_in, fatal_in, &tasks, &stop_doors);
        let mut entrance = Entrance {
            closed: doors,
            open: JoinSet::new(),
        };
        if journal.positions().is_used() {
            let (reader, positions) = (journal.reader(), journal.positions().clone());
            blocking(move || recovery::read_positions(&reader, &positions))
                .await
                .map_err(EdgeError::Journal)?;
        }
        let recovered = self
            .recover(&journal, &intake, &mut entrance, &stop_doors, &shutdown)
            .await?;
        if !recovered {
            journal.close().await;
            return Ok(());
        }
        let sealer = Sealer {
            queue: Queue::new(self.policy(), self.spool.covered()),
            accepted,
            reports,
            link: self.link.clone(),
            busy: Busy {
                policy: self.config.link.lane_policy(),
                max_in_flight: self.config.link.max_in_flight,
            },
            spool: self.spool.clone(),
            journal: journal.clone(),
            counters: self.status.shared.counters.clone(),
            started: self.status.shared.started,
            thread: PackingThread::start(),
            at_most: usize::MAX,
            finished: finished.clone(),
        };
        let mut sealing = JoinSet::new();
        sealing.spawn(sealer.run());
        let mut side = JoinSet::new();
        if let Some(link) = self.link.clone() {
            let when_short = &self.config.link.budget.when_short;
            if !when_short.is_empty() {
                side.spawn(save(self.spool.hints().clone(), link.clone(), when_short.clone()));
            }
            side.spawn(report(
                self.status.clone(),
                link,
                reports_in,
                self.config.link.report_every,
            ));
        }
        intake.recovered.store(true, Ordering::Release);
        self.open_doors(&mut entrance, &intake, &stop_doors);
        let mut serving = entrance.open;
        let settings = self.status.shared.source_settings.subscribe();
        serving.spawn(sources.run(intake.clone(), settings, stop_doors.clone()));

        let failure = tokio::select! {
            () = shutdown.cancelled() => None,
            Some(error) = fatal.recv() => Some(EdgeError::Journal(error)),
            Some(ended) = sealing.join_next() => Some(part("sealer", ended)),
            Some(ended) = self.keeper.join_next() => Some(part("cursor keeper", ended)),
            Some(ended) = self.uplink.join_next() => Some(part("uplink", ended.map(Ok::<_, SpoolError>))),
            Some(ended) = serving.join_next() => Some(part("source", ended.map(Ok::<_, SpoolError>))),
            Some(ended) = self.watch.join_next() => Some(part("watch of plugins", ended.map(Ok::<_, SpoolError>))),
        };
        stop_doors.cancel();
        if let Some(error) = failure {
            return Err(error);
        }
        self.status.set_phase(Phase::Draining);
        let mut ended = false;
        for patience in [WAITING_DRAIN, DOOR_DRAIN] {
            let all = async { while serving.join_next().await.is_some() {} };
            ended = ended || tokio::time::timeout(patience, all).await.is_ok();
            intake.stop_waiting();
        }
        if !ended {
            tracing::warn!("connections did not end in time, they are cut");
            serving.shutdown().await;
        }
        tasks.close();
        tasks.wait().await;
        finished.cancel();
        while let Some(ended) = sealing.join_next().await {
            ended.map_err(|e| EdgeError::Part(format!("sealer: {e}")))??;
        }
        self.stop_watch.cancel();
        while self.watch.join_next().await.is_some() {}
        self.drain_link().await;
        journal.close().await;
        Ok(())
    }

    /// Seals what the journal holds. False if the node is told to stop meanwhile. Where a full disk makes it wait, the
    /// doors open and say so.
    async fn recover(
        &self,
        journal: &Arc<Journal>,
        intake: &Arc<Intake>,
        entrance: &mut Entrance,
        stop_doors: &CancellationToken,
        shutdown: &CancellationToken,
    ) -> Result<bool, EdgeError> {
        let mut policy = self.policy();
        let shared = &self.status.shared;
        let mut recovered = shared.state().recovered.clone();
        let reader = journal.reader();
        loop {
            let (reader, spool, sizes) = (reader.clone(), self.spool.clone(), policy.clone());
            let (mut attempt, chain) = (recovered.clone(), intake.chain.clone());
            let result = blocking(move || {
                let result = recovery::recover(&reader, &sizes, &spool, chain.reasons(), &mut attempt);
                result.map(|()| attempt)
            })
            .await;
            match result {
                Ok(done) => {
                    recovered = done;
                    break;
                }
                Err(RecoveryError::Spool(error)) if error.is_full() => {
                    tracing::warn!("disk is full, recovery waits for room");
                    shared.counters.note_full();
                    self.open_doors(entrance, intake, stop_doors);
                    // A smaller batch may still fit.
                    policy.max_bytes = (policy.max_bytes / 2).max(MIN_BATCH_BYTES);
                    // The record before the first that is not sealed is needed for its total.
                    self.let_go(journal, self.spool.covered().saturating_sub(1)).await?;
                    tokio::select! {
                        () = tokio::time::sleep(FULL_PAUSE) => {}
                        () = shutdown.cancelled() => return Ok(false),
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        if recovered.records > 0 || recovered.damaged_records > 0 {
            tracing::info!(
                records = recovered.records,
                events = recovered.events,
                damaged = recovered.damaged_records,
                "sealed what the journal held"
            );
        }
        shared.counters.damaged(recovered.damaged_events);
        self.let_go(journal, self.spool.covered()).await?;
        let mut state = shared.state_mut();
        state.recovered = recovered;
        state.journal = Some(journal.clone());
        drop(state);
        Ok(true)
    }

    /// Deletes what is in the spool; on a full disk it is tried again.
    async fn let_go(&self, journal: &Journal, upto: u64) -> Result<(), EdgeError> {
        let result = if self.status.shared.counters.is_full() {
            journal.relieve(upto).await.map(drop)
        } else {
            journal.covered(upto).await.map(drop)
        };
        match result {
            Ok(()) | Err(WalError::Full) => Ok(()),
            Err(error) => Err(EdgeError::Journal(error)),
        }
    }

    fn policy(&self) -> Policy {
        let seal = &self.config.seal;
        Policy {
            max_rows: seal.max_rows,
            max_bytes: usize::try_from(seal.max_bytes).unwrap_or(usize::MAX),
            freshness: seal.freshness,
            offline_age: seal.offline_age,
        }
    }

    fn intake(
        &self,
        journal: &Arc<Journal>,
        sealer: mpsc::Sender<Pending<Content>>,
        fatal: mpsc::Sender<WalError>,
        tasks: &TaskTracker,
        stopping: &CancellationToken,
    ) -> Arc<Intake> {
        let accept = &self.config.accept;
        let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX).min(u32::MAX as usize);
        let limits = IntakeLimits {
            decode: self.config.decode_limits(),
            budget_bytes: size(accept.max_request_memory),
            unsealed_bytes: size(accept.max_unsealed),
            record_rows: self.config.seal.max_rows,
            // The envelope's own bytes must fit beside the rows.
            record_bytes: size(self.config.seal.max_batch_bytes - (32 << 10)),
            wait: accept.wait,
            read_timeout: accept.read_timeout,
            retry_after: accept.retry_after,
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let workers = if accept.workers == 0 {
            cores.min(4)
        } else {
            accept.workers
        };
        Arc::new(Intake {
            chain: self.status.shared.plugins.chain().clone(),
            tenant: self.spool.stream().tenant.to_string(),
            hints: self.spool.hints().clone(),
            tap: self.tap.tap(),
            journal: journal.clone(),
            sealer,
            counters: self.status.shared.counters.clone(),
            sources: self.status.shared.sources.clone(),
            status: self.status.shared.clone(),
            budget: Arc::new(Semaphore::new(limits.budget_bytes)),
            readers: Readers::default(),
            workers: Arc::new(Semaphore::new(workers)),
            unsealed: Arc::new(Semaphore::new(limits.unsealed_bytes)),
            limits,
            tasks: tasks.clone(),
            stopping: stopping.clone(),
            recovered: AtomicBool::new(false),
            fatal,
            start: self.spool.epoch().0.number,
            started: self.status.shared.started,
        })
    }

    /// From now on requests are answered; done once.
    fn open_doors(&self, entrance: &mut Entrance, intake: &Arc<Intake>, stop: &CancellationToken) {
        let limits = DoorLimits {
            connections: self.config.accept.max_connections,
            streams: self.config.accept.max_streams,
            first_request: self.config.accept.first_request_timeout,
            idle: self.config.accept.idle_timeout,
        };
        for door in std::mem::take(&mut entrance.closed) {
            let router = match door.name {
                "otlp-grpc" => otlp_grpc::router(intake.clone()),
                "otlp-http" => otlp_http::router(intake.clone()),
                _ => admin::router(self.status.clone(), self.tap.clone()),
            };
            entrance.open.spawn(door.serve(router, limits, stop.clone()));
        }
        self.routes.send_replace(Some(OtlpRoutes {
            grpc: otlp_grpc::router(intake.clone()),
            http: otlp_http::router(intake.clone()),
        }));
        self.status.set_phase(Phase::Running);
    }

    /// Gives the link a while to empty the spool, then ends it and saves what is acknowledged.
    async fn drain_link(&mut self) {
        if let Some(link) = self.link.as_ref().filter(|link| link.borrow().connected) {
            let mut acks = self.spool.acks();
            let link = link.clone();
            let spool = self.spool.clone();
            let drained = async move {
                while !spool.is_drained() && link.borrow().connected {
                    // Woken by acknowledgements; the pause is for a link that went down.
                    let _ = tokio::time::timeout(Duration::from_millis(100), acks.changed()).await;
                }
            };
            if tokio::time::timeout(self.config.link.drain, drained).await.is_err() {
                tracing::info!(
                    batches = self.spool.status().batches,
                    "batches stay in the spool for the next start"
                );
            }
        }
        self.stop_link.cancel();
        while self.uplink.join_next().await.is_some() {}
        self.stop_keeper.cancel();
        while let Some(ended) = self.keeper.join_next().await {
            if let Ok(Err(error)) = ended {
                tracing::warn!(%error, "cursor cannot be saved; batches will be sent again");
            }
        }
    }
}

/// The doors, before and after they are open.
struct Entrance {
    closed: Vec<Door>,
    open: JoinSet<()>,
}

/// What the early end of a part means for the node.
fn part<T>(name: &str, ended: Result<Result<T, SpoolError>, tokio::task::JoinError>) -> EdgeError {
    match ended {
        Ok(Err(error)) => EdgeError::Spool(error),
        Ok(Ok(_)) => EdgeError::Part(format!("{name} ended")),
        Err(error) => EdgeError::Part(format!("{name}: {error}")),
    }
}

/// Makes a short budget of the link felt where rows are chosen and batches are made.
async fn save(board: Arc<HintBoard>, link: watch::Receiver<LinkStatus>, when_short: Vec<WhenShort>) {
    let (started, mut thrift) = (Instant::now(), Thrift::default());
    let mut turns = tokio::time::interval(THRIFT_INTERVAL);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        let room = link.borrow().budget.as_ref().and_then(|budget| budget.room_per_second);
        let now_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let wish = thrift.handle(now_ms, board.sealed_bytes(), room);
        if when_short.contains(&WhenShort::Sampling) {
            board.set_share(wish.share);
        }
        if when_short.contains(&WhenShort::Compression) {
            board.set_tight(wish.is_tight);
        }
    }
}

/// Tells the cloud how this node is: when a link comes up, and then every so often while it is.
async fn report(
    status: StatusHandle,
    mut link: watch::Receiver<LinkStatus>,
    reports: mpsc::Sender<String>,
    every: Duration,
) {
    while link.wait_for(|link| link.connected).await.is_ok() {
        // On a full disk what little room there is belongs to events.
        if !status.shared.counters.is_full() {
            let status = status.clone();
            match blocking(move || serde_json::to_string(&status.snapshot())).await {
                Ok(detail) => {
                    if reports.send(detail).await.is_err() {
                        return;
                    }
                }
                Err(error) => tracing::warn!(%error, "report cannot be written"),
            }
        }
        tokio::time::sleep(every.max(MIN_REPORT_INTERVAL)).await;
    }
}
