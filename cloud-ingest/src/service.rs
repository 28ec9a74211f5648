//! Composition of ingest: `build` opens, binds and checks everything and starts nothing; `run` starts the gateway and the
//! writers, and drains them in the order in which data flows.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sluice_settings::ConfigError;
use sluice_store::{LogEnds, Retention, Stores};
use sluice_tenants::{Tenancy, TenantsError};
use sluice_wire::ids::Partition;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::admin::AdminDoor;
use crate::config::{IngestConfig, Role, Writes};
use crate::ends::{EndsOf, HotPosition};
use crate::gateway::{Authority, Gateway, GatewayConfig, GatewayError, ReadPosition};
use crate::log::kafka::Member;
use crate::log::{GuardedLog, Log, LogError, OpenError, SkippedLog, Skips};
use crate::logs::{SomeLog, open_log, open_quarantine, quarantine_of, snapshots_of};
use crate::quota::Quota;
use crate::status::{StatusHandle, WriterCounters};
use crate::writer::{
    ColdWriterOptions, Crew, Mine, SharedHotOptions, Snapshots, TidyOptions, TrimOptions, WriterError,
    check_log_is_the_one, check_log_reaches_cold, skips,
};

/// In the data folder: bytes of the day by tenant.
const DAY_FILE: &str = "tenants-today.json";
/// How long the door stays shut while the log is checked; then edges are let in and told to wait.
const SHUT: Duration = Duration::from_secs(3);
/// Pause while the lake is out of reach at the start.
const BEGIN_AGAIN: Duration = Duration::from_secs(1);

/// Why ingest did not come to be.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("configuration")]
    Config(#[from] ConfigError),
    #[error("the log did not open")]
    Log(#[from] OpenError),
    #[error("the log did not open")]
    Kafka(#[from] LogError),
    #[error("the gateway did not start")]
    Gateway(#[from] GatewayError),
    #[error("the folder of tenants")]
    Tenants(#[from] TenantsError),
    #[error("role otlp is not a part of this: it is a process of its own")]
    Otlp,
    #[error("cannot listen on {address} (http)")]
    Admin {
        address: SocketAddr,
        source: std::io::Error,
    },
    #[error("the folder of the writers, {}", path.display())]
    Folder { path: PathBuf, source: std::io::Error },
}

/// Why a running ingest stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("the {writer} writer stopped")]
    Writer { writer: &'static str, source: WriterError },
    #[error("ingest cannot begin")]
    Begin(#[source] WriterError),
    #[error("the log is not used")]
    Refused(#[source] LogError),
    #[error("the log has failed; the next start reads again what is on disk")]
    Log,
    #[error("a task of ingest ended: {0}")]
    Task(String),
}

/// Ingest, bound and not yet running.
#[derive(Debug)]
pub struct IngestService {
    log: SomeLog,
    /// Of batches that are set aside, if a role here sets any aside.
    set_aside: Option<SomeLog>,
    stores: Stores,
    gateway: Option<Gateway>,
    admin: Option<AdminDoor>,
    config: IngestConfig,
    snapshots: Snapshots,
    members: Members,
    counters: Arc<WriterCounters>,
    quota: Option<Arc<Quota>>,
    log_failed: CancellationToken,
    log_checked: CancellationToken,
}

/// Memberships in the groups of processes that share the partitions, if they do.
#[derive(Debug, Default)]
struct Members {
    hot: Option<Member>,
    cold: Option<Member>,
}

impl IngestService {
    /// Opens the log, binds the gateway, prepares the writers. Needs a running tokio runtime. A broker may be away.
    pub fn build(config: IngestConfig, stores: Stores) -> Result<IngestService, BuildError> {
        Self::build_with(config, stores, None)
    }

    /// The same with an authority that the gateway asks for certificates of edges.
    pub fn build_with(
        config: IngestConfig,
        stores: Stores,
        authority: Option<Arc<dyn Authority>>,
    ) -> Result<IngestService, BuildError> {
        config.check("")?;
        if config.roles.contains(&Role::Otlp) {
            return Err(BuildError::Otlp);
        }
        let tenants = (!config.tenants.dir.as_os_str().is_empty())
            .then(|| Tenancy::open_without_keys(&config.tenants.dir).map(Arc::new))
            .transpose()?;
        let log = open_log(&config)?;
        let sets_aside = config
            .roles
            .iter()
            .any(|role| matches!(role, Role::Gateway | Role::Cold));
        let set_aside = sets_aside.then(|| open_quarantine(&config)).transpose()?;
        let quarantine = set_aside.as_ref().map(|log| quarantine_of(log, &config));
        let snapshots = snapshots_of(&log, &config, &stores);
        if let Snapshots::Folder(folder) = &snapshots {
            std::fs::create_dir_all(folder).map_err(|source| BuildError::Folder {
                path: folder.clone(),
                source,
            })?;
        }
        let (log_failed, log_checked) = (CancellationToken::new(), CancellationToken::new());
        let guarded = GuardedLog {
            inner: log.get(),
            failed: log_failed.clone(),
            checked: log_checked.clone(),
        };
        let has = |role| config.roles.contains(&role);
        let mut members = Members::default();
        if let (Writes::Group, SomeLog::Kafka(kafka)) = (&config.log.writes, &log) {
            let join = |role: &str| kafka.join(&format!("{}.{role}", config.log.kafka.group));
            members.hot = has(Role::Hot).then(|| join("hot")).transpose()?;
            members.cold = has(Role::Cold).then(|| join("cold")).transpose()?;
        }
        let reader = has(Role::Hot).then(|| Arc::new(HotPosition(stores.clone())) as Arc<dyn ReadPosition>);
        let gateway = has(Role::Gateway)
            .then(|| {
                let mut settings = gateway_config(&config, &guarded, authority, tenants);
                settings.quarantine = quarantine;
                Gateway::build(settings, Arc::new(guarded), reader)
            })
            .transpose()?;
        let quota = gateway.as_ref().map(Gateway::quota);
        let admin = config
            .admin
            .address()
            .map_err(|why| ConfigError::value("", "admin.listen", why))?;
        let bind = |address| AdminDoor::bind(address).map_err(|source| BuildError::Admin { address, source });
        let admin = admin.map(bind).transpose()?;
        Ok(IngestService {
            log,
            set_aside,
            stores,
            gateway,
            admin,
            config,
            snapshots,
            members,
            counters: Arc::default(),
            quota,
            log_failed,
            log_checked,
        })
    }

    /// The bound doors by name.
    pub fn listen(&self) -> Vec<(&'static str, SocketAddr)> {
        let link = self.gateway.iter().map(|gateway| ("link", gateway.local_addr()));
        let http = self.admin.iter().map(|door| ("http", door.address()));
        link.chain(http).collect()
    }

    /// Makes the gateway look at its certificates and its deny list at once.
    pub fn look_again(&self) -> Option<Arc<Notify>> {
        self.gateway.as_ref().map(Gateway::look_again)
    }

    /// Where the log ends, for the read side.
    pub fn log_ends(&self) -> Arc<dyn LogEnds> {
        Arc::new(EndsOf(self.log.get()))
    }

    pub fn partitions(&self) -> Vec<Partition> {
        self.log.get().partitions()
    }

    pub fn status(&self) -> StatusHandle {
        StatusHandle {
            log: self.log.get(),
            stores: self.stores.clone(),
            gateway: self.gateway.as_ref().map(Gateway::status),
            counters: Arc::clone(&self.counters),
        }
    }

    /// Runs until told to stop, or until a writer cannot go on: then everything stops, loudly.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), RunError> {
        // Ends with this call.
        let mut watching = JoinSet::new();
        if let SomeLog::Kafka(kafka) = self.log.clone() {
            let (failed, checked) = (self.log_failed.clone(), self.log_checked.clone());
            watching.spawn(async move {
                kafka.run(CancellationToken::new()).await;
                // Before that, whoever waits for the log is told why it is not used.
                if checked.is_cancelled() {
                    failed.cancel();
                }
            });
        }
        if let Some(set_aside @ SomeLog::Kafka(_)) = self.set_aside.clone() {
            watching.spawn(async move { set_aside.watch(CancellationToken::new()).await });
        }
        if let Some(door) = self.admin.take() {
            watching.spawn(door.serve(self.status()));
        }
        let log = self.log.get();
        let (stores, checked) = (self.stores.clone(), self.log_checked.clone());
        let checking = Arc::clone(&log);
        // Whoever writes cold says for all how long rows are kept.
        let retention = self
            .config
            .roles
            .contains(&Role::Cold)
            .then(|| self.config.retention.rules());
        let mut begin = Box::pin(async move {
            checking.opened().await.map_err(RunError::Refused)?;
            // Without the lake nothing is known yet, and nothing is wrong yet.
            let skips = loop {
                match may_begin(&checking, &stores, retention.as_ref()).await {
                    Err(error) if error.is_passing() => {
                        tracing::warn!(%error, "ingest cannot begin yet; trying again");
                        tokio::time::sleep(BEGIN_AGAIN).await;
                    }
                    done => break done.map_err(RunError::Begin)?,
                }
            };
            checked.cancel();
            Ok::<Skips, RunError>(skips)
        });
        let begun = match tokio::time::timeout(SHUT, &mut begin).await {
            Ok(result) => Some(result?),
            Err(_) => None,
        };
        let (writers_stop, gateway_stop) = (CancellationToken::new(), CancellationToken::new());
        let mut writers = JoinSet::new();
        let mut has_begun = begun.is_some();
        if let Some(skips) = begun {
            self.start_writers(skips, &writers_stop, &mut writers, &mut watching);
        }
        let mut gateway = JoinSet::new();
        if let Some(door) = self.gateway.take() {
            gateway.spawn(door.run(gateway_stop.clone()));
        }
        let mut result = loop {
            tokio::select! {
                () = shutdown.cancelled() => break Ok(()),
                () = self.log_failed.cancelled() => break Err(RunError::Log),
                checked = &mut begin, if !has_begun => match checked {
                    Ok(skips) => {
                        has_begun = true;
                        self.start_writers(skips, &writers_stop, &mut writers, &mut watching);
                    }
                    Err(error) => break Err(error),
                },
                Some(ended) = writers.join_next() => break flatten(ended).and(Err(RunError::Task("a writer".to_owned()))),
                Some(ended) = gateway.join_next() => break Err(RunError::Task(ended.err().map_or("the gateway".to_owned(), |e| e.to_string()))),
            }
        };
        // No new batch, then the writers take in what the log has.
        gateway_stop.cancel();
        while let Some(ended) = gateway.join_next().await {
            result = result.and(ended.map_err(|error| RunError::Task(error.to_string())));
        }
        writers_stop.cancel();
        while let Some(ended) = writers.join_next().await {
            result = result.and(flatten(ended));
        }
        log.close().await;
        if let Some(set_aside) = &self.set_aside {
            set_aside.get().close().await;
        }
        result
    }

    fn start_writers(
        &mut self,
        skips: Skips,
        stop: &CancellationToken,
        writers: &mut JoinSet<Result<(), RunError>>,
        watching: &mut JoinSet<()>,
    ) {
        let has = |role| self.config.roles.contains(&role);
        let mut log = self.log.get();
        if !skips.is_empty() {
            tracing::warn!(
                records = skips.len(),
                "records of the log are passed over, as an operator said"
            );
            log = Arc::new(SkippedLog { inner: log, skips });
        }
        let crew = Crew {
            log,
            stores: self.stores.clone(),
            snapshots: self.snapshots.clone(),
            counters: Arc::clone(&self.counters),
            quota: self.quota.clone(),
            quarantine: self.set_aside.as_ref().map(|log| quarantine_of(log, &self.config)),
            cold: cold_options(&self.config),
            shared_hot: hot_options(&self.config),
            beside_hot: has(Role::Hot),
            drains: matches!(self.log, SomeLog::Embedded(_)),
        };
        let writes = self.config.log.writes.clone();
        let all: BTreeSet<u16> = crew
            .log
            .partitions()
            .into_iter()
            .map(|partition| partition.index)
            .collect();
        let mut mine = |member: Option<Member>| -> Mine {
            match (&writes, member) {
                (_, Some(member)) => {
                    let mine = member.partitions();
                    watching.spawn(member.run());
                    mine
                }
                (Writes::These(these), None) => watch::Sender::new(these.clone()).subscribe(),
                (Writes::All | Writes::Group, None) => watch::Sender::new(all.clone()).subscribe(),
            }
        };
        if has(Role::Hot) {
            let run = crew.clone().run_hot(mine(self.members.hot.take()), stop.clone());
            writers.spawn(async move { run.await.map_err(|source| RunError::Writer { writer: "hot", source }) });
        }
        if has(Role::Cold) {
            let run = crew.run_cold(mine(self.members.cold.take()), stop.clone());
            writers.spawn(async move { run.await.map_err(|source| RunError::Writer { writer: "cold", source }) });
        }
    }
}

/// What must hold before anything is appended or written; the records that the writers pass over. Says how long rows are kept, if that is
/// for this process to say.
async fn may_begin(log: &Arc<dyn Log>, stores: &Stores, retention: Option<&Retention>) -> Result<Skips, WriterError> {
    check_log_is_the_one(log, stores).await?;
    check_log_reaches_cold(log, stores).await?;
    if let Some(retention) = retention {
        stores.keep_for(retention).await?;
    }
    skips(log, stores).await
}

fn flatten(ended: Result<Result<(), RunError>, tokio::task::JoinError>) -> Result<(), RunError> {
    ended.unwrap_or_else(|error| Err(RunError::Task(error.to_string())))
}

fn gateway_config(
    config: &IngestConfig,
    log: &GuardedLog,
    authority: Option<Arc<dyn Authority>>,
    tenants: Option<Arc<Tenancy>>,
) -> GatewayConfig {
    let settings = &config.gateway;
    let mut gateway = GatewayConfig::new(
        settings.listen,
        settings.certificate.clone(),
        settings.key.clone(),
        settings.ca.clone(),
    );
    gateway.deny_list = (!settings.deny_list.as_os_str().is_empty()).then(|| settings.deny_list.clone());
    gateway.authority = authority;
    gateway.grace = settings.grace;
    gateway.max_sessions = settings.max_sessions;
    let fits = log.max_envelope_bytes().unwrap_or(u32::MAX);
    gateway.max_batch_bytes = fits.min(settings.max_batch as u32);
    gateway.max_total_bytes = settings.max_memory;
    gateway.max_edge_state = settings.max_edge_state;
    gateway.max_lag = settings.max_lag;
    gateway.day_file = tenants.is_some().then(|| config.data_dir.join(DAY_FILE));
    gateway.tenants = tenants;
    gateway.gateways = config.tenants.gateways;
    gateway
}

fn hot_options(config: &IngestConfig) -> SharedHotOptions {
    let settings = &config.hot.clickhouse;
    SharedHotOptions {
        migrate: settings.migrate,
        insert_every: settings.insert_every,
        insert_rows: settings.insert_rows,
        insert_bytes: usize::try_from(settings.insert_memory).unwrap_or(usize::MAX),
        keep: settings.keep,
        keep_bytes: settings.keep_size,
        query_limit: settings.query_limit,
        takeover_after: settings.takeover_after,
    }
}

fn cold_options(config: &IngestConfig) -> ColdWriterOptions {
    ColdWriterOptions {
        interval: config.cold.commit_every,
        max_rows: config.cold.commit_rows,
        max_bytes: usize::try_from(config.cold.commit_memory).unwrap_or(usize::MAX),
        hot_keep_bytes: config.hot.keep,
        trim: TrimOptions {
            replay_window: config.log.replay_window,
            max_bytes: config.log.max_size,
        },
        tidy: TidyOptions {
            compact_every: config.cold.compact_every,
            file_bytes: config.cold.file_size,
            vacuum_every: config.cold.vacuum_every,
            vacuum_after: config.cold.vacuum_after,
            query_limit: config.hot.clickhouse.query_limit,
        },
    }
}
