//! What commands need of an ingest that they are not: its log and its quarantine, beside running processes where the log is shared,
//! in their place where it is not.

use std::sync::Arc;
use std::time::Duration;

use sluice_store::Stores;
use sluice_wal::WalError;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::{IngestConfig, LogKind};
use crate::log::{Log, LogError, OpenError};
use crate::logs::{QUARANTINE, SomeLog, open_log, open_quarantine, quarantine_of, snapshots_of};
use crate::quarantine::{Listing, Quarantine};
use crate::service::BuildError;
use crate::writer::Snapshots;

/// A broker that says nothing for so long is away.
const PATIENCE: Duration = Duration::from_secs(30);

/// The logs of an ingest, opened by a command.
#[derive(Debug)]
pub struct Offline {
    log: SomeLog,
    quarantine: SomeLog,
    config: IngestConfig,
    _watching: JoinSet<()>,
}

/// Why a command cannot use the logs.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    #[error("the log in {} is in use: stop ingest (or `sluice up`) first; only a log in Kafka is shared", folder.display())]
    InUse { folder: std::path::PathBuf },
    #[error("the logs of ingest")]
    Build(#[from] BuildError),
    #[error("the log does not answer")]
    Log(#[from] LogError),
    #[error("the log said nothing for 30 s: {0}")]
    Silent(String),
    #[error("the quarantine in {}", folder.display())]
    Look {
        folder: std::path::PathBuf,
        source: WalError,
    },
}

impl Offline {
    /// Opens the logs and waits until they answer.
    pub async fn open(config: &IngestConfig) -> Result<Offline, OfflineError> {
        if config.log.kind == LogKind::Embedded && !config.data_dir.join("log/meta.json").exists() {
            // Nothing is made in a folder that is none of an ingest.
            return Err(OfflineError::Silent(format!(
                "there is no log in {}",
                config.data_dir.display()
            )));
        }
        let opened = tokio::task::spawn_blocking({
            let config = config.clone();
            move || Ok::<_, BuildError>((open_log(&config)?, open_quarantine(&config)?))
        });
        let opened = opened.await.map_err(|error| OfflineError::Silent(error.to_string()))?;
        let (log, quarantine) = opened.map_err(|error| match error {
            BuildError::Log(OpenError::Partition {
                path,
                source: WalError::Locked,
            }) => OfflineError::InUse { folder: path },
            other => other.into(),
        })?;
        let mut watching = JoinSet::new();
        for log in [&log, &quarantine] {
            let log = log.clone();
            watching.spawn(async move { log.watch(CancellationToken::new()).await });
        }
        for log in [log.get(), quarantine.get()] {
            let opened = tokio::time::timeout(PATIENCE, log.opened()).await;
            opened.map_err(|_| OfflineError::Silent(log.trouble().unwrap_or_default()))??;
        }
        Ok(Offline {
            log,
            quarantine,
            config: config.clone(),
            _watching: watching,
        })
    }

    pub fn log(&self) -> Arc<dyn Log> {
        self.log.get()
    }

    pub fn quarantine(&self) -> Quarantine {
        quarantine_of(&self.quarantine, &self.config)
    }

    /// Where the states of duplicates are.
    pub(crate) fn snapshots(&self, stores: &Stores) -> Snapshots {
        snapshots_of(&self.log, &self.config, stores)
    }

    pub async fn close(self) {
        self.log.get().close().await;
        self.quarantine.get().close().await;
    }
}

/// What is set aside. An embedded quarantine is looked into without touching it, so ingest may run.
pub async fn list_quarantine(config: &IngestConfig) -> Result<Listing, OfflineError> {
    if config.log.kind == LogKind::Kafka {
        let offline = Offline::open(config).await?;
        return Ok(offline.quarantine().list().await?);
    }
    let folder = config.data_dir.join(QUARANTINE);
    if !folder.exists() {
        return Ok(Listing::default());
    }
    let looked = {
        let folder = folder.clone();
        tokio::task::spawn_blocking(move || Listing::look(&folder))
    };
    let listing = looked.await.map_err(|error| OfflineError::Silent(error.to_string()))?;
    listing.map_err(|source| OfflineError::Look { folder, source })
}
