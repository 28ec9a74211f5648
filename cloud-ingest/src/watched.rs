//! The ends of a shared log for a process that neither writes nor reads it: what a query needs to say what it lacks.

use std::sync::Arc;

use sluice_store::LogEnds;
use sluice_wire::ids::Partition;
use tokio_util::sync::CancellationToken;

use crate::config::{IngestConfig, LogKind};
use crate::ends::EndsOf;
use crate::logs::{SomeLog, open_log};
use crate::service::BuildError;

/// A log in Kafka that is only looked at.
#[derive(Clone, Debug)]
pub struct WatchedLog {
    log: SomeLog,
}

impl WatchedLog {
    /// `None` for an embedded log, whose end only the process that has it open knows. The broker may be away, and no topic is made.
    pub fn open(config: &IngestConfig) -> Result<Option<WatchedLog>, BuildError> {
        if config.log.kind == LogKind::Embedded {
            return Ok(None);
        }
        let mut config = config.clone();
        config.log.kafka.create = false;
        Ok(Some(WatchedLog {
            log: open_log(&config)?,
        }))
    }

    pub fn ends(&self) -> Arc<dyn LogEnds> {
        Arc::new(EndsOf(self.log.get()))
    }

    pub fn partitions(&self) -> Vec<Partition> {
        self.log.get().partitions()
    }

    /// Asks for the ends until told to stop.
    pub async fn run(self, stop: CancellationToken) {
        self.log.watch(stop).await;
    }
}
