//! The composition of an edge: what is built, in which order it starts, and in which order it ends. Every channel and its
//! capacity is made here.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use sluice_runtime::Chain;
use sluice_wal::{Wal, WalError};
use sluice_wire::ids::{NodeId, TenantId};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::chain::{self, ChainError};
use crate::config::{ConfigError, EdgeConfig};
use crate::intake::{Intake, IntakeLimits};
use crate::journal::{self, Journal};
use crate::link::{LinkError, LinkStatus, TlsError, Uplink, certificate_identity};
use crate::recovery::{self, RecoveryError};
use crate::sealer::{Content, Pending, Policy, Queue, Sealer, blocking};
use crate::serve::{Door, DoorLimits};
use crate::source::{otlp_grpc, otlp_http};
use crate::spool::{Spool, SpoolError, SpoolOptions};
use crate::status::{Phase, Recovered, State, StatusHandle, StatusShared};
use crate::{admin, identity::IdentityError};

/// Records between intake and sealer; their bytes are bounded by `accept.max_unsealed`.
const HANDOVER_RECORDS: usize = 1024;
/// Acknowledgements are saved this long after the first of a group.
const CURSOR_DELAY: Duration = Duration::from_millis(200);
/// Requests at work get this long when the node stops.
const DOOR_DRAIN: Duration = Duration::from_secs(10);
/// Reports are batches like others; a link must not be filled with them.
const MIN_REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// Between attempts to recover on a full disk.
const FULL_PAUSE: Duration = Duration::from_secs(1);

/// A node that holds its sockets and files and does nothing until it is run.
#[derive(Debug)]
pub struct EdgeNode {
    config: EdgeConfig,
    spool: Arc<Spool>,
    journal: Wal,
    chain: Chain,
    doors: Vec<Door>,
    uplink: Option<Uplink>,
    status: StatusHandle,
}

/// Why a node cannot be built or had to end.
#[derive(Debug, thiserror::Error)]
pub enum EdgeError {
    #[error("configuration: {0}")]
    Config(#[from] ConfigError),
    #[error("certificate of the link")]
    Certificate(#[from] TlsError),
    #[error("link")]
    Link(#[from] LinkError),
    #[error("plugin chain")]
    Chain(#[from] ChainError),
    #[error("cannot listen on {address} ({name})")]
    Bind {
        name: &'static str,
        address: String,
        #[source]
        source: std::io::Error,
    },
    #[error("data folder {path}")]
    DataDir {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("spool of the data folder")]
    Spool(#[from] SpoolError),
    #[error("journal of the data folder")]
    Journal(#[source] WalError),
    #[error("recovery")]
    Recovery(#[from] RecoveryError),
    #[error("a part of the node failed: {0}")]
    Part(String),
}

impl EdgeError {
    /// The exit code of a process that ends with it: 3 configuration refused, 4 data on disk refused, 1 anything else.
    pub fn exit_code(&self) -> u8 {
        let refused = |e: &WalError| matches!(e, WalError::Locked | WalError::Corrupt { .. });
        match self {
            Self::Config(_) | Self::Certificate(_) | Self::Link(_) | Self::Chain(_) => 3,
            Self::Journal(e) | Self::Spool(SpoolError::Log(e)) if refused(e) => 4,
            Self::Spool(SpoolError::Identity(IdentityError::Newer { .. } | IdentityError::OtherNode { .. })) => 4,
            Self::Recovery(RecoveryError::Newer { .. }) => 4,
            _ => 1,
        }
    }
}

impl EdgeNode {
    /// Checks everything, opens the data folder, binds the sockets, compiles the plugins. Starts nothing.
    pub async fn build(config: EdgeConfig) -> Result<EdgeNode, EdgeError> {
        config.check("")?;
        let (tenant, node) = names(&config)?;
        let doors = bind(&config).await?;
        let entries = config.plugin.clone();
        let chain = blocking(move || chain::load(&entries)).await?;
        let settings = config.clone();
        let (spool, journal, recovered) = blocking(move || open(&settings, &tenant, &node)).await?;
        let spool = Arc::new(spool);
        let uplink = match config.link_config() {
            Some(link) => {
                let (epoch, generation) = spool.epoch();
                let stream = spool.stream().clone();
                Some(Uplink::build(
                    link,
                    stream,
                    epoch,
                    generation,
                    spool.clone(),
                    spool.clone(),
                )?)
            }
            None => None,
        };
        let shared = StatusShared {
            started: Instant::now(),
            counters: Arc::default(),
            spool: spool.clone(),
            chain: chain.clone(),
            link: uplink.as_ref().map(Uplink::status),
            max_bytes: config.spool.max_bytes,
            phase: watch::Sender::new(Phase::Starting),
            state: State {
                recovered,
                ..State::default()
            }
            .into(),
        };
        let status = StatusHandle {
            shared: Arc::new(shared),
        };
        Ok(EdgeNode {
            config,
            spool,
            journal,
            chain,
            doors,
            uplink,
            status,
        })
    }

    /// Name and bound address of every door.
    pub fn listen(&self) -> Vec<(&'static str, SocketAddr)> {
        self.doors.iter().map(|door| (door.name, door.address())).collect()
    }

    pub fn status(&self) -> StatusHandle {
        self.status.clone()
    }

    /// The spool, as an uplink sees it: for a process that carries batches in its own way.
    pub fn spool(&self) -> Arc<Spool> {
        self.spool.clone()
    }

    /// Serves until `shutdown`, then drains: requests at work are answered, everything accepted is sealed, and what the
    /// gateway takes within `link.drain` is acknowledged. Fails when the disk cannot be trusted any more.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), EdgeError> {
        let status = self.status.clone();
        let result = Box::pin(Running::start_and_serve(self, shutdown)).await;
        status
            .shared
            .state
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .journal = None;
        if result.is_err() {
            status.set_phase(Phase::Failed);
        }
        result
    }
}

/// Who this node is: what its certificate says, if it has one.
fn names(config: &EdgeConfig) -> Result<(TenantId, NodeId), EdgeError> {
    let bad = |key: &str, e: sluice_wire::ids::IdError| ConfigError::value("", key, e.to_string());
    let given = |text: &str, default: &str| {
        if text.is_empty() {
            default.to_owned()
        } else {
            text.to_owned()
        }
    };
    if config.link.gateways.is_empty() {
        let tenant = TenantId::new(&given(&config.tenant, "default")).map_err(|e| bad("tenant", e))?;
        let node = NodeId::new(&given(&config.node, "edge")).map_err(|e| bad("node", e))?;
        return Ok((tenant, node));
    }
    let (tenant, node) = certificate_identity(&config.link.certificate)?;
    for (key, text, name) in [
        ("tenant", &config.tenant, tenant.as_str()),
        ("node", &config.node, node.as_str()),
    ] {
        if !text.is_empty() && text != name {
            let message = format!("{text:?} is not what the link's certificate says, {name:?}");
            return Err(ConfigError::value("", key, message).with_hint("leave it out").into());
        }
    }
    Ok((tenant, node))
}

async fn bind(config: &EdgeConfig) -> Result<Vec<Door>, EdgeError> {
    let mut doors = Vec::new();
    for (name, address) in config.listen.entries() {
        let Ok(socket) = address.parse() else {
            continue;
        };
        let fail = |source| EdgeError::Bind {
            name,
            address: address.to_owned(),
            source,
        };
        doors.push(Door::bind(name, socket).await.map_err(fail)?);
    }
    Ok(doors)
}

fn open(config: &EdgeConfig, tenant: &TenantId, node: &NodeId) -> Result<(Spool, Wal, Recovered), EdgeError> {
    let dir = &config.data_dir;
    std::fs::create_dir_all(dir).map_err(|source| EdgeError::DataDir {
        path: dir.display().to_string(),
        source,
    })?;
    let options = SpoolOptions {
        data_dir: dir.clone(),
        max_bytes: config.spool.max_bytes,
        ballast: config.spool.ballast,
        zstd_level: config.seal.zstd_level,
        max_batch_bytes: config.seal.max_batch_bytes,
    };
    let (spool, opened) = Spool::open(options, tenant, node)?;
    let journal_options = journal::options(config.spool.max_bytes, config.spool.ballast);
    let (mut journal, found) = Wal::open(&dir.join("journal"), journal_options).map_err(EdgeError::Journal)?;
    spool.raise_covered(journal::noted(&found.note).max(opened.covered));
    // A journal that lost its end must not give positions that the spool already speaks of to other records.
    if journal.next() < spool.covered() {
        journal.skip_to(spool.covered()).map_err(EdgeError::Journal)?;
    }
    let recovered = Recovered {
        torn_bytes: opened.torn_bytes + found.torn_bytes,
        damaged_batches: opened.damaged,
        identity_rebuilt: opened.identity_rebuilt,
        ..Recovered::default()
    };
    Ok((spool, journal, recovered))
}

/// The parts of a node at work. Dropping it stops them where they stand, as a crash would.
struct Running {
    config: EdgeConfig,
    spool: Arc<Spool>,
    status: StatusHandle,
    link: Option<watch::Receiver<LinkStatus>>,
    stop_link: CancellationToken,
    uplink: JoinSet<()>,
    stop_keeper: CancellationToken,
    keeper: JoinSet<Result<(), SpoolError>>,
}

impl Running {
    async fn start_and_serve(node: EdgeNode, shutdown: CancellationToken) -> Result<(), EdgeError> {
        let EdgeNode {
            config,
            spool,
            journal,
            chain,
            doors,
            uplink,
            status,
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
        };
        // The link first: on a full disk it makes the room that recovery needs.
        if let Some(uplink) = uplink {
            running.link = Some(uplink.status());
            running.uplink.spawn(uplink.run(running.stop_link.clone()));
        }
        running
            .keeper
            .spawn(keep_cursor(running.spool.clone(), running.stop_keeper.clone()));
        let Some(journal) = running.recover(journal, &shutdown).await? else {
            return Ok(());
        };
        running.serve(journal, chain, doors, shutdown).await
    }

    /// `None` if the node is told to stop meanwhile.
    async fn recover(&self, journal: Wal, shutdown: &CancellationToken) -> Result<Option<Arc<Journal>>, EdgeError> {
        let policy = self.policy();
        let mut recovered = self
            .status
            .shared
            .state
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .recovered
            .clone();
        let reader = journal.reader();
        loop {
            let (reader, spool, policy) = (reader.clone(), self.spool.clone(), policy.clone());
            let mut attempt = recovered.clone();
            let result = blocking(move || {
                let result = recovery::recover(&reader, &policy, &spool, &mut attempt);
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
                    tokio::select! {
                        () = tokio::time::sleep(FULL_PAUSE) => {}
                        () = shutdown.cancelled() => return Ok(None),
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
        self.status.shared.counters.damaged(recovered.damaged_events);
        let journal = Arc::new(Journal::start(journal));
        match journal.covered(self.spool.covered()).await {
            Ok(_) | Err(WalError::Full) => {}
            Err(error) => return Err(EdgeError::Journal(error)),
        }
        let mut state = self
            .status
            .shared
            .state
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        state.recovered = recovered;
        state.journal = Some(journal.clone());
        drop(state);
        Ok(Some(journal))
    }

    async fn serve(
        mut self,
        journal: Arc<Journal>,
        chain: Chain,
        doors: Vec<Door>,
        shutdown: CancellationToken,
    ) -> Result<(), EdgeError> {
        let (sealer_in, accepted) = mpsc::channel(HANDOVER_RECORDS);
        let (reports_in, reports) = mpsc::channel(1);
        let (fatal_in, mut fatal) = mpsc::channel(1);
        let (stop_doors, finished) = (CancellationToken::new(), CancellationToken::new());
        let tasks = TaskTracker::new();
        let intake = self.intake(chain, &journal, sealer_in, fatal_in, &tasks, &stop_doors);
        let sealer = Sealer {
            queue: Queue::new(self.policy(), self.spool.covered()),
            accepted,
            reports,
            link: self.link.clone(),
            max_in_flight: self.config.link.max_in_flight,
            spool: self.spool.clone(),
            journal: journal.clone(),
            counters: self.status.shared.counters.clone(),
            started: self.status.shared.started,
            finished: finished.clone(),
        };
        let mut sealing = JoinSet::new();
        sealing.spawn(sealer.run());
        let mut side = JoinSet::new();
        if let Some(link) = self.link.clone() {
            side.spawn(report(
                self.status.clone(),
                link,
                reports_in,
                self.config.link.report_every,
            ));
        }
        let mut serving = self.open_doors(doors, &intake, &stop_doors);
        self.status.set_phase(Phase::Running);

        let failure = tokio::select! {
            () = shutdown.cancelled() => None,
            Some(error) = fatal.recv() => Some(EdgeError::Journal(error)),
            Some(ended) = sealing.join_next() => Some(part("sealer", ended)),
            Some(ended) = self.keeper.join_next() => Some(part("cursor keeper", ended)),
            Some(ended) = self.uplink.join_next() => Some(part("uplink", ended.map(Ok::<_, SpoolError>))),
            Some(ended) = serving.join_next() => Some(part("door", ended.map(Ok::<_, SpoolError>))),
        };
        stop_doors.cancel();
        if let Some(error) = failure {
            return Err(error);
        }
        self.status.set_phase(Phase::Draining);
        let ended = tokio::time::timeout(DOOR_DRAIN, async { while serving.join_next().await.is_some() {} }).await;
        if ended.is_err() {
            tracing::warn!("connections did not end in time, they are cut");
            serving.shutdown().await;
        }
        tasks.close();
        tasks.wait().await;
        finished.cancel();
        while let Some(ended) = sealing.join_next().await {
            ended.map_err(|e| EdgeError::Part(format!("sealer: {e}")))??;
        }
        self.drain_link().await;
        journal.close().await;
        Ok(())
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
        chain: Chain,
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
            chain,
            journal: journal.clone(),
            sealer,
            counters: self.status.shared.counters.clone(),
            status: self.status.shared.clone(),
            budget: Arc::new(Semaphore::new(limits.budget_bytes)),
            workers: Arc::new(Semaphore::new(workers)),
            unsealed: Arc::new(Semaphore::new(limits.unsealed_bytes)),
            limits,
            tasks: tasks.clone(),
            stopping: stopping.clone(),
            fatal,
            start: self.spool.epoch().0.number,
            started: self.status.shared.started,
        })
    }

    fn open_doors(&self, doors: Vec<Door>, intake: &Arc<Intake>, stop: &CancellationToken) -> JoinSet<()> {
        let limits = DoorLimits {
            connections: self.config.accept.max_connections,
            streams: self.config.accept.max_streams,
        };
        let mut serving = JoinSet::new();
        for door in doors {
            let router = match door.name {
                "otlp-grpc" => otlp_grpc::router(intake.clone()),
                "otlp-http" => otlp_http::router(intake.clone()),
                _ => admin::router(self.status.clone()),
            };
            serving.spawn(door.serve(router, limits, stop.clone()));
        }
        serving
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

/// What the early end of a part means for the node.
fn part<T>(name: &str, ended: Result<Result<T, SpoolError>, tokio::task::JoinError>) -> EdgeError {
    match ended {
        Ok(Err(error)) => EdgeError::Spool(error),
        Ok(Ok(_)) => EdgeError::Part(format!("{name} ended")),
        Err(error) => EdgeError::Part(format!("{name}: {error}")),
    }
}

/// Saves acknowledgements a moment after they come, and at the end.
async fn keep_cursor(spool: Arc<Spool>, stop: CancellationToken) -> Result<(), SpoolError> {
    let mut acks = spool.acks();
    loop {
        let more = tokio::select! {
            changed = acks.changed() => changed.is_ok(),
            () = stop.cancelled() => false,
        };
        if more {
            tokio::select! {
                () = tokio::time::sleep(CURSOR_DELAY) => {}
                () = stop.cancelled() => {}
            }
        }
        acks.borrow_and_update();
        let spool = spool.clone();
        match blocking(move || spool.save_cursor()).await {
            Ok(_) => {}
            Err(error) if error.is_full() => tracing::warn!("disk is full, the cursor waits"),
            Err(error) => return Err(error),
        }
        if !more {
            return Ok(());
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
        if !status.shared.counters.disk_full.load(Ordering::Relaxed) {
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
