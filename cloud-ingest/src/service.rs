//! Composition of ingest: `build` opens, binds and checks everything and starts nothing; `run` starts the gateway and the
//! writers, and drains them in the order in which data flows.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use sluice_settings::ConfigError;
use sluice_store::{LogEnds, Stores};
use sluice_wire::ids::Partition;
use sluice_wire::layout::IpcLimits;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::{IngestConfig, Role};
use crate::ends::{EmbeddedEnds, HotPosition};
use crate::gateway::{Authority, Gateway, GatewayConfig, GatewayError, ReadPosition};
use crate::log::{EmbeddedLog, EmbeddedOptions, GuardedLog, Log, OpenError};
use crate::status::{StatusHandle, WriterCounters};
use crate::writer::{
    ColdWriter, ColdWriterOptions, HotWriter, TidyOptions, TrimOptions, WriterError, check_log_reaches_cold,
};

/// Kept free in every partition's folder, so that deleting works on a full disk.
const BALLAST_BYTES: u64 = 1 << 20;

/// Why ingest did not come to be.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("configuration")]
    Config(#[from] ConfigError),
    #[error("the log did not open")]
    Log(#[from] OpenError),
    #[error("the gateway did not start")]
    Gateway(#[from] GatewayError),
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
    #[error("the log has failed; the next start reads again what is on disk")]
    Log,
    #[error("a task of ingest ended: {0}")]
    Task(String),
}

/// Ingest, bound and not yet running.
#[derive(Debug)]
pub struct IngestService {
    log: Arc<EmbeddedLog>,
    stores: Stores,
    gateway: Option<Gateway>,
    config: IngestConfig,
    folder: PathBuf,
    counters: Arc<WriterCounters>,
    log_failed: CancellationToken,
}

impl IngestService {
    /// Opens the log, binds the gateway, prepares the writers. Needs a running tokio runtime.
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
        let log = Arc::new(EmbeddedLog::open(
            &config.data_dir.join("log"),
            &EmbeddedOptions {
                generation: config.log.generation,
                partitions: config.log.partitions,
                segment_bytes: config.log.segment,
                max_envelope_bytes: config.gateway.max_batch as u32,
                ballast_bytes: BALLAST_BYTES,
            },
        )?);
        let folder = config.data_dir.join("writers");
        std::fs::create_dir_all(&folder).map_err(|source| BuildError::Folder {
            path: folder.clone(),
            source,
        })?;
        let log_failed = CancellationToken::new();
        let guarded = GuardedLog {
            inner: Arc::clone(&log) as Arc<dyn Log>,
            failed: log_failed.clone(),
        };
        let has = |role| config.roles.contains(&role);
        let reader = has(Role::Hot).then(|| Arc::new(HotPosition(stores.clone())) as Arc<dyn ReadPosition>);
        let gateway = has(Role::Gateway)
            .then(|| Gateway::build(gateway_config(&config, authority), Arc::new(guarded), reader))
            .transpose()?;
        Ok(IngestService {
            log,
            stores,
            gateway,
            config,
            folder,
            counters: Arc::default(),
            log_failed,
        })
    }

    /// The bound doors by name.
    pub fn listen(&self) -> Vec<(&'static str, SocketAddr)> {
        self.gateway
            .iter()
            .map(|gateway| ("link", gateway.local_addr()))
            .collect()
    }

    /// Makes the gateway look at its certificates and its deny list at once.
    pub fn look_again(&self) -> Option<Arc<Notify>> {
        self.gateway.as_ref().map(Gateway::look_again)
    }

    /// Where the log ends, for the read side.
    pub fn log_ends(&self) -> Arc<dyn LogEnds> {
        Arc::new(EmbeddedEnds(Arc::clone(&self.log)))
    }

    pub fn partitions(&self) -> Vec<Partition> {
        self.log.partitions()
    }

    pub fn status(&self) -> StatusHandle {
        StatusHandle {
            log: Arc::clone(&self.log) as Arc<dyn Log>,
            stores: self.stores.clone(),
            gateway: self.gateway.as_ref().map(Gateway::status),
            counters: Arc::clone(&self.counters),
        }
    }

    /// Runs until told to stop, or until a writer cannot go on: then everything stops, loudly.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), RunError> {
        check_log_reaches_cold(&(Arc::clone(&self.log) as Arc<dyn Log>), &self.stores)
            .await
            .map_err(RunError::Begin)?;
        let log = Arc::clone(&self.log);
        let (writers_stop, gateway_stop) = (CancellationToken::new(), CancellationToken::new());
        let mut writers = self.start_writers(&writers_stop);
        let mut gateway = JoinSet::new();
        if let Some(door) = self.gateway {
            gateway.spawn(door.run(gateway_stop.clone()));
        }
        let mut result = tokio::select! {
            () = shutdown.cancelled() => Ok(()),
            () = self.log_failed.cancelled() => Err(RunError::Log),
            Some(ended) = writers.join_next() => flatten(ended).and(Err(RunError::Task("a writer".to_owned()))),
            Some(ended) = gateway.join_next() => Err(RunError::Task(ended.err().map_or("the gateway".to_owned(), |e| e.to_string()))),
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
        result
    }

    fn start_writers(&self, stop: &CancellationToken) -> JoinSet<Result<(), RunError>> {
        let mut writers = JoinSet::new();
        let log: Arc<dyn Log> = Arc::clone(&self.log) as Arc<dyn Log>;
        let quota = self.gateway.as_ref().map(Gateway::quota);
        if self.config.roles.contains(&Role::Hot) {
            for partition in self.log.partitions() {
                let writer = HotWriter {
                    log: Arc::clone(&log),
                    stores: self.stores.clone(),
                    partition,
                    limits: IpcLimits::default(),
                    folder: self.folder.clone(),
                    counters: Arc::clone(&self.counters),
                    quota: quota.clone(),
                };
                let stop = stop.clone();
                writers.spawn(async move {
                    writer
                        .run(stop)
                        .await
                        .map_err(|source| RunError::Writer { writer: "hot", source })
                });
            }
        }
        if self.config.roles.contains(&Role::Cold) {
            let writer = ColdWriter {
                log,
                stores: self.stores.clone(),
                limits: IpcLimits::default(),
                folder: self.folder.clone(),
                beside_hot: self.config.roles.contains(&Role::Hot),
                options: cold_options(&self.config),
                counters: Arc::clone(&self.counters),
                quota,
            };
            let stop = stop.clone();
            writers.spawn(async move {
                writer
                    .run(stop)
                    .await
                    .map_err(|source| RunError::Writer { writer: "cold", source })
            });
        }
        writers
    }
}

fn flatten(ended: Result<Result<(), RunError>, tokio::task::JoinError>) -> Result<(), RunError> {
    ended.unwrap_or_else(|error| Err(RunError::Task(error.to_string())))
}

fn gateway_config(config: &IngestConfig, authority: Option<Arc<dyn Authority>>) -> GatewayConfig {
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
    gateway.max_batch_bytes = settings.max_batch as u32;
    gateway.max_total_bytes = settings.max_memory;
    gateway.max_edge_state = settings.max_edge_state;
    gateway.max_lag = settings.max_lag;
    gateway
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
        },
    }
}
