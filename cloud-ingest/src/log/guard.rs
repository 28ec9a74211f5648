//! The log as the gateway sees it: takes nothing before the log is checked against the stores, and notices when it has failed for
//! good, so that the process ends instead of refusing batches for ever.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use sluice_wire::ids::Partition;
use tokio_util::sync::CancellationToken;

use super::{Head, Log, LogError, LogRecord};

/// A log that takes batches once `checked`, and cancels a token at the first [`LogError::Failed`].
#[derive(Clone)]
pub(crate) struct GuardedLog {
    pub(crate) inner: Arc<dyn Log>,
    pub(crate) failed: CancellationToken,
    pub(crate) checked: CancellationToken,
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

    async fn append(
        &self,
        partition: Partition,
        head: &Head,
        envelope: Bytes,
        ingested_at_us: i64,
    ) -> Result<u64, LogError> {
        if !self.checked.is_cancelled() {
            let reason = self.inner.trouble().unwrap_or_else(|| "it is being checked".to_owned());
            return Err(LogError::Retry { reason });
        }
        self.seen(self.inner.append(partition, head, envelope, ingested_at_us).await)
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

    async fn fresh_end(&self, partition: Partition) -> Result<u64, LogError> {
        self.seen(self.inner.fresh_end(partition).await)
    }

    fn first(&self, partition: Partition) -> u64 {
        self.inner.first(partition)
    }

    fn bytes(&self, partition: Partition) -> u64 {
        self.inner.bytes(partition)
    }

    fn max_envelope_bytes(&self) -> Option<u32> {
        self.inner.max_envelope_bytes()
    }

    async fn trim(&self, partition: Partition, below: u64) -> Result<(), LogError> {
        self.seen(self.inner.trim(partition, below).await)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use sluice_wire::counts::Counts;
    use sluice_wire::envelope::Kind;
    use sluice_wire::ids::{BatchId, Epoch, NodeId, StreamId, TenantId};

    use super::*;

    /// Answers everything with one error.
    struct Broken(LogError);

    #[async_trait]
    impl Log for Broken {
        fn partitions(&self) -> Vec<Partition> {
            vec![Partition::default()]
        }

        async fn append(&self, _: Partition, _: &Head, _: Bytes, _: i64) -> Result<u64, LogError> {
            Err(self.0.clone())
        }

        async fn read(&self, _: Partition, _: u64, _: usize) -> Result<Vec<LogRecord>, LogError> {
            Err(self.0.clone())
        }

        async fn wait_beyond(&self, _: Partition, _: u64) {}

        fn end(&self, _: Partition) -> u64 {
            0
        }

        async fn trim(&self, _: Partition, _: u64) -> Result<(), LogError> {
            Err(self.0.clone())
        }
    }

    fn head() -> Head {
        let stream = StreamId {
            tenant: TenantId::new("acme").unwrap(),
            node: NodeId::new("site-1").unwrap(),
            spool: [1; 16],
        };
        let epoch = Epoch { number: 1, random: 7 };
        Head {
            id: BatchId { stream, epoch, seq: 0 },
            kind: Kind::Data,
            counts: Counts::default(),
        }
    }

    /// P4: whichever call meets the failure, it is noticed; what passes by itself or concerns one record is not taken for one.
    #[tokio::test]
    async fn p4_only_a_failure_for_good_is_noticed_by_every_call() {
        let p = Partition::default();
        let reason = "fsync".to_owned();
        let errors = [
            (LogError::Failed { reason: reason.clone() }, true),
            (LogError::Retry { reason }, false),
            (LogError::TooLarge { bytes: 2, max: 1 }, false),
            (LogError::NoPartition(p), false),
        ];
        for (error, is_noticed) in errors {
            for call in 0..3 {
                let log = GuardedLog {
                    inner: Arc::new(Broken(error.clone())),
                    failed: CancellationToken::new(),
                    checked: CancellationToken::new(),
                };
                let early = log.append(p, &head(), Bytes::new(), 0).await;
                assert!(matches!(early, Err(LogError::Retry { .. })), "before it is checked");
                log.checked.cancel();
                let refused = match call {
                    0 => log.append(p, &head(), Bytes::new(), 0).await.is_err(),
                    1 => log.read(p, 0, 1).await.is_err(),
                    _ => log.trim(p, 0).await.is_err(),
                };
                assert!(refused);
                assert_eq!(log.failed.is_cancelled(), is_noticed, "call {call}: {error}");
            }
        }
    }
}
