//! What the log may forget: what cold holds, what a durable state of duplicates covers, and what is older than the
//! replay window. Before it does, the state of duplicates as of where it will begin is saved, so that it can be replayed from there.

use std::sync::Arc;
use std::time::Duration;

use sluice_wire::ids::Partition;
use sluice_wire::layout::IpcLimits;

use super::resume::{READ_BYTES, fold};
use super::{Planner, Snapshots, WriterError};
use crate::dedup::Dedup;
use crate::log::{Log, LogError};

/// How long and how much of what is safe elsewhere stays for replays.
#[derive(Clone, Debug)]
pub struct TrimOptions {
    pub replay_window: Duration,
    /// Of one partition; a larger log forgets earlier than the window says.
    pub max_bytes: u64,
}

/// Forgets what it may. Everything below `safe` is in cold and covered by a durable state of duplicates.
pub(super) async fn trim(
    log: &Arc<dyn Log>,
    snapshots: &Snapshots,
    partition: Partition,
    safe: u64,
    now_us: i64,
    options: &TrimOptions,
) -> Result<(), WriterError> {
    let first = log.first(partition);
    if safe <= first {
        return Ok(());
    }
    let window = i64::try_from(options.replay_window.as_micros()).unwrap_or(i64::MAX);
    let cutoff = now_us.saturating_sub(window);
    let forgotten = async {
        let mut below = log.first_since(partition, first, safe, cutoff).await?;
        if log.bytes(partition) > options.max_bytes {
            // Half of what may go, each time: the log has whole segments, and the next look will find it smaller.
            below = below.max(first + (safe - first).div_ceil(2));
        }
        if below > first {
            save_base(log, snapshots, partition, below).await?;
            log.trim(partition, below).await?;
        }
        Ok(())
    };
    match forgotten.await {
        // Who believes that it writes the partition, too, was faster.
        Err(WriterError::Log(error @ LogError::Trimmed { .. })) => {
            tracing::debug!(%error, "another writer has trimmed the log meanwhile");
            Ok(())
        }
        done => done,
    }
}

/// The state of duplicates as of an offset of the log; `None`: the log was trimmed before such states were kept.
pub(crate) async fn base(
    log: &Arc<dyn Log>,
    snapshots: &Snapshots,
    partition: Partition,
) -> Result<Option<Dedup>, WriterError> {
    let first = log.first(partition);
    let kept = snapshots
        .load_base(partition)
        .await?
        .filter(|base| base.next() >= first);
    Ok(kept.or_else(|| (first == 0).then(Dedup::default)))
}

/// Folds the records below an offset into the state that the log begins with.
async fn save_base(
    log: &Arc<dyn Log>,
    snapshots: &Snapshots,
    partition: Partition,
    below: u64,
) -> Result<(), WriterError> {
    let Some(base) = base(log, snapshots, partition).await? else {
        return Ok(());
    };
    let mut planner = Planner::new(base, IpcLimits::default());
    while planner.next() < below {
        let records = log.read(partition, planner.next(), READ_BYTES).await?;
        if records.is_empty() {
            let reason = "what is to be trimmed cannot be read".to_owned();
            return Err(LogError::Retry { reason }.into());
        }
        fold(&mut planner, records, below).await?;
    }
    snapshots.save_base(partition, planner.next(), planner.snapshot()).await
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use bytes::Bytes;
    use sluice_wire::counts::Counts;
    use sluice_wire::envelope::{Compression, Header, Kind, seal};
    use sluice_wire::ids::{BatchId, Epoch, NodeId, StreamId, TenantId};

    use super::*;
    use crate::log::{EmbeddedLog, EmbeddedOptions, Head, LogRecord};

    fn tombstone(seq: u64) -> (Head, Bytes) {
        let stream = StreamId {
            tenant: TenantId::new("acme").unwrap(),
            node: NodeId::new("site-1").unwrap(),
            spool: [1; 16],
        };
        let header = Header {
            id: BatchId {
                stream,
                epoch: Epoch { number: 1, random: 7 },
                seq,
            },
            generation: 0,
            kind: Kind::Tombstone,
            rows: 0,
            counts: Counts {
                accepted: 1,
                damaged: 1,
                ..Counts::default()
            },
            journal_upto: 0,
            time_min_ns: 0,
            time_max_ns: 0,
            sealed_at_ns: 0,
            detail: "x".repeat(300),
        };
        (
            Head::from(&header),
            seal(&header, None, Compression::default()).unwrap(),
        )
    }

    /// What it says of its beginning is older than what another process has trimmed.
    struct TrimmedByAnother;

    #[async_trait::async_trait]
    impl Log for TrimmedByAnother {
        fn partitions(&self) -> Vec<Partition> {
            vec![Partition::default()]
        }

        async fn append(&self, _: Partition, _: &Head, _: Bytes, _: i64) -> Result<u64, LogError> {
            unreachable!("nobody appends here")
        }

        async fn read(&self, partition: Partition, wanted: u64, _: usize) -> Result<Vec<LogRecord>, LogError> {
            let first = 12;
            Err(LogError::Trimmed {
                partition,
                wanted,
                first,
            })
        }

        async fn wait_beyond(&self, _: Partition, _: u64) {}

        fn end(&self, _: Partition) -> u64 {
            20
        }

        /// As if all were old enough.
        async fn first_since(&self, _: Partition, _: u64, high: u64, _: i64) -> Result<u64, LogError> {
            Ok(high)
        }

        async fn trim(&self, _: Partition, _: u64) -> Result<(), LogError> {
            unreachable!("it is trimmed already")
        }
    }

    /// Two that take themselves for the writer of a partition look after its log at the same time.
    #[tokio::test]
    async fn p2_who_is_late_with_trimming_leaves_it_at_that() {
        let folder = tempfile::tempdir().unwrap();
        let log: Arc<dyn Log> = Arc::new(TrimmedByAnother);
        let snapshots = Snapshots::Folder(folder.path().to_owned());
        let options = TrimOptions {
            replay_window: Duration::ZERO,
            max_bytes: u64::MAX,
        };
        let p = Partition::default();
        trim(&log, &snapshots, p, 12, 1000, &options).await.unwrap();
        assert!(
            snapshots.load_base(p).await.unwrap().is_none(),
            "what was not read is not kept"
        );
    }

    /// P16: what is planned from where a trimmed log begins is what was planned when it was whole.
    #[tokio::test]
    async fn p16_a_trimmed_log_is_replayed_with_the_same_outcomes() {
        let folder = tempfile::tempdir().unwrap();
        let options = EmbeddedOptions {
            generation: 0,
            partitions: 1,
            segment_bytes: 2000,
            max_envelope_bytes: 1 << 20,
            ballast_bytes: 0,
        };
        let log: Arc<dyn Log> = Arc::new(EmbeddedLog::open(&folder.path().join("log"), &options).unwrap());
        let p = Partition::default();
        // Each number comes twice, far apart.
        for n in 0..60u64 {
            let (head, envelope) = tombstone((n * 7) % 30);
            log.append(p, &head, envelope, n as i64).await.unwrap();
        }
        let snapshots = Snapshots::Folder(folder.path().to_owned());
        let outcomes = async |from: Dedup| {
            let mut planner = Planner::new(from, IpcLimits::default());
            let mut outcomes = Vec::new();
            while planner.next() < 60 {
                for record in log.read(p, planner.next(), READ_BYTES).await.unwrap() {
                    outcomes.push((record.offset, planner.plan(&record).outcome));
                }
            }
            outcomes
        };
        let whole = outcomes(base(&log, &snapshots, p).await.unwrap().unwrap()).await;
        let keep_nothing = TrimOptions {
            replay_window: Duration::ZERO,
            max_bytes: u64::MAX,
        };
        for safe in [20, 41] {
            trim(&log, &snapshots, p, safe, 1000, &keep_nothing).await.unwrap();
            assert!(log.first(p) > 0, "nothing was trimmed");
            let base = base(&log, &snapshots, p).await.unwrap().unwrap();
            assert_eq!(base.next(), safe);
            assert_eq!(outcomes(base).await, whole[safe as usize..]);
        }
        // Without it the log says nothing about copies, and nobody may pretend that it does.
        std::fs::remove_file(folder.path().join("base-0")).unwrap();
        std::fs::remove_file(folder.path().join("base-0.copy")).unwrap();
        assert!(base(&log, &snapshots, p).await.unwrap().is_none());
        log.close().await;
    }
}
