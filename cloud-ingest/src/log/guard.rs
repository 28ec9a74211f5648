//! Notices when the log has failed for good, so that the process ends instead of refusing batches for ever.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use sluice_wire::ids::Partition;
use tokio_util::sync::CancellationToken;

use super::{Log, LogError, LogRecord};

/// A log that cancels a token at the first [`LogError::Failed`].
#[derive(Clone)]
pub(crate) struct GuardedLog {
    pub(crate) inner: Arc<dyn Log>,
    pub(crate) failed: CancellationToken,
}

impl GuardedLog {
    fn seen<T>(&self, result: Result<T, LogError>) -> Result<T, LogError> {
        if let Err(LogError::Failed { reason }) = &result {
            tracing::error!(%reason, "the log has failed");
            self.failed.cancel();
        }
        result
    }
}

#[async_trait]
impl Log for GuardedLog {
    fn partitions(&self) -> Vec<Partition> {
        self.inner.partitions()
    }

    async fn append(&self, partition: Partition, envelope: Bytes, ingested_at_us: i64) -> Result<u64, LogError> {
        self.seen(self.inner.append(partition, envelope, ingested_at_us).await)
    }

    async fn read(&self, partition: Partition, from: u64, max_bytes: usize) -> Result<Vec<LogRecord>, LogError> {
        self.seen(self.inner.read(partition, from, max_bytes).await)
    }

    async fn wait_beyond(&self, partition: Partition, offset: u64) {
        self.inner.wait_beyond(partition, offset).await;
    }

    fn end(&self, partition: Partition) -> u64 {
        self.inner.end(partition)
    }

    fn first(&self, partition: Partition) -> u64 {
        self.inner.first(partition)
    }

    fn bytes(&self, partition: Partition) -> u64 {
        self.inner.bytes(partition)
    }

    async fn trim(&self, partition: Partition, below: u64) -> Result<(), LogError> {
        self.seen(self.inner.trim(partition, below).await)
    }
}
