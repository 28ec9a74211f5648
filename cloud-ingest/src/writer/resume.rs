//! Where a writer begins: the state of duplicates as of an offset, folded up to what its store holds already.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use sluice_store::Stores;
use sluice_wire::ids::Partition;
use sluice_wire::layout::IpcLimits;
use tokio_util::sync::CancellationToken;

use super::{Planner, Snapshots, WriterError};
use crate::log::{Log, LogError, LogRecord, Skips};
use crate::quota::{Meter, Quota};

/// Bytes of log records read at once.
pub(crate) const READ_BYTES: usize = 4 << 20;

/// How long a writer that is told to stop while it begins may go on: a log that answers needs less.
const BEGIN_GRACE: Duration = Duration::from_secs(5);

/// Pause while the log is out of reach.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Returns when whoever is told to stop should not wait for the log any longer.
pub(super) async fn given_up(shutdown: &CancellationToken) {
    shutdown.cancelled().await;
    tokio::time::sleep(BEGIN_GRACE).await;
}

/// Where a writer stands at its start.
pub(super) struct Begin {
    /// Stands at the first offset that cold does not hold.
    pub(super) planner: Planner,
    /// The durable state of duplicates covers everything below this offset.
    pub(super) saved: u64,
    /// The last offset that cold holds. It never goes back.
    pub(super) cold: Option<u64>,
}

/// Refuses a log that ends before cold does: what it takes from now on would get offsets that cold holds already, and nobody would
/// ever read it. To be asked before anything is appended.
pub(crate) async fn check_log_reaches_cold(log: &Arc<dyn Log>, stores: &Stores) -> Result<(), WriterError> {
    let committed = stores.cold.committed().await?;
    for partition in log.partitions() {
        let held = committed.get(&partition).map_or(0, |last| last + 1);
        // Only then may the log be asked: others append to it and commit.
        if log.end(partition) >= held {
            continue;
        }
        let end = end_of(log, partition).await?;
        if end < held {
            return Err(WriterError::LogBehind { partition, end, held });
        }
    }
    Ok(())
}

/// Refuses another log than the one whose offsets the lake holds, as far as logs can be told apart. Notes the first one.
pub(crate) async fn check_log_is_the_one(log: &Arc<dyn Log>, stores: &Stores) -> Result<(), WriterError> {
    let generations: BTreeSet<u32> = log.partitions().iter().map(|partition| partition.generation).collect();
    let Some(found) = log.fingerprint() else {
        return Ok(());
    };
    for generation in generations {
        let made = stores
            .state
            .make(&format!("log-{generation}"), 0, found.clone().into_bytes())
            .await?;
        if made != found.as_bytes() {
            let noted = String::from_utf8_lossy(&made).into_owned();
            return Err(WriterError::AnotherLog {
                generation,
                noted,
                found,
            });
        }
    }
    Ok(())
}

/// Where the log ends now; waits for a log that is out of reach.
async fn end_of(log: &Arc<dyn Log>, partition: Partition) -> Result<u64, LogError> {
    loop {
        match log.fresh_end(partition).await {
            Err(LogError::Retry { reason }) => {
                tracing::warn!(%partition, reason, "the end of the log is not known, asking again");
                tokio::time::sleep(ASK_AGAIN).await;
            }
            answer => return answer,
        }
    }
}

/// What an operator told the writers to pass over.
pub(crate) async fn skips(log: &Arc<dyn Log>, stores: &Stores) -> Result<Skips, WriterError> {
    let mut skips = Skips::default();
    for partition in log.partitions() {
        for skip in stores.skips_of(partition).await? {
            skips.add(partition, skip.first, skip.last, skip.reason);
        }
    }
    Ok(skips)
}

/// The last snapshot, and the log's records from there to the end of cold folded in.
pub(super) async fn begin(
    log: &Arc<dyn Log>,
    stores: &Stores,
    snapshots: &Snapshots,
    partition: Partition,
    limits: &IpcLimits,
    quota: Option<&Arc<Quota>>,
) -> Result<Begin, WriterError> {
    // In this order: others trim the log no further than to a snapshot that they saved, so the one read next is never behind it; and they
    // save a snapshot after the commit that it belongs to, so the table read next is never behind that.
    let first = log.first(partition);
    let restored = snapshots.load(partition).await?;
    let committed = stores.cold.committed().await?;
    let cold = committed.get(&partition).copied();
    let next = cold.map_or(first, |last| last + 1);
    let dedup = restored.filter(|dedup| {
        let fits = dedup.next() <= next;
        if !fits {
            // The table was restored from a backup, say.
            tracing::warn!(%partition, upto = dedup.next(), next, "state of duplicates is newer than its table; folding the log anew");
        }
        fits
    });
    let dedup = dedup.unwrap_or_default();
    let saved = dedup.next();
    if first > saved {
        return Err(WriterError::Forgotten {
            partition,
            known: saved,
            first,
            place: snapshots.place(partition),
            // Else cold holds rows whose copies nobody would recognise.
            is_all_known: cold.map_or(0, |last| last + 1) == saved,
        });
    }
    let mut planner = Planner::new(dedup, limits.clone());
    if !pass(log, &mut planner, partition, next).await? {
        return Err(WriterError::LogBehind {
            partition,
            end: planner.next(),
            held: next,
        });
    }
    if let Some(quota) = quota {
        let quota = Arc::clone(quota);
        planner.report_to(Meter { quota, partition });
    }
    Ok(Begin { planner, saved, cold })
}

/// Folds the records below an offset into the state of duplicates. `false` when the log ends before it.
pub(super) async fn pass(
    log: &Arc<dyn Log>,
    planner: &mut Planner,
    partition: Partition,
    upto: u64,
) -> Result<bool, WriterError> {
    while planner.next() < upto {
        let records = log.read(partition, planner.next(), READ_BYTES).await?;
        // Nothing is read where the log ends, where it is out of reach, and where what is known of its end is old.
        if records.is_empty() && end_of(log, partition).await? <= planner.next() {
            return Ok(false);
        }
        fold(planner, records, upto).await?;
    }
    Ok(true)
}

/// Folds those of some records that are below an offset: on a thread for blocking work, as checking their hashes takes a while. After an
/// error the planner knows nothing.
pub(crate) async fn fold(planner: &mut Planner, records: Vec<LogRecord>, upto: u64) -> Result<(), WriterError> {
    let mut folded = planner.take();
    let folding = tokio::task::spawn_blocking(move || {
        let below = records.iter().take_while(|record| record.offset < upto);
        below.for_each(|record| folded.pass(record));
        folded
    });
    *planner = folding.await.map_err(|error| WriterError::Task(error.to_string()))?;
    Ok(())
}
