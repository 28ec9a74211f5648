//! Where a writer begins: the state of duplicates as of an offset, folded up to what its store holds already.

use std::path::Path;
use std::sync::Arc;

use sluice_store::Stores;
use sluice_wire::ids::Partition;
use sluice_wire::layout::IpcLimits;

use super::{Planner, WriterError, kept};
use crate::log::Log;
use crate::quota::{Meter, Quota};

/// Bytes of log records read at once.
pub(super) const READ_BYTES: usize = 4 << 20;

/// Where a writer stands at its start.
pub(super) struct Begin {
    /// Stands at the first offset that cold does not hold.
    pub(super) planner: Planner,
    /// The durable state of duplicates covers everything below this offset.
    pub(super) saved: u64,
}

/// Refuses a log that ends before cold does: what it takes from now on would get offsets that cold holds already, and nobody would
/// ever read it. To be asked before anything is appended.
pub(crate) async fn check_log_reaches_cold(log: &Arc<dyn Log>, stores: &Stores) -> Result<(), WriterError> {
    let committed = stores.cold.committed().await?;
    for partition in log.partitions() {
        let (end, held) = (log.end(partition), committed.get(&partition).map_or(0, |last| last + 1));
        if end < held {
            return Err(WriterError::LogBehind { partition, end, held });
        }
    }
    Ok(())
}

/// The last snapshot, and the log's records from there to the end of cold folded in.
pub(super) async fn begin(
    log: &Arc<dyn Log>,
    stores: &Stores,
    folder: &Path,
    partition: Partition,
    limits: &IpcLimits,
    quota: Option<&Arc<Quota>>,
) -> Result<Begin, WriterError> {
    // In this order: a snapshot is saved after the commit that it belongs to, so the table read next is never behind it.
    let restored = kept::load(folder, partition)?;
    let committed = stores.cold.committed().await?;
    let first = log.first(partition);
    let next = committed.get(&partition).map_or(first, |last| last + 1);
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
            path: kept::paths(folder, partition)[0].clone(),
        });
    }
    let mut planner = Planner::new(dedup, limits.clone());
    while planner.next() < next {
        let records = log.read(partition, planner.next(), READ_BYTES).await?;
        if records.is_empty() {
            return Err(WriterError::LogBehind {
                partition,
                end: planner.next(),
                held: next,
            });
        }
        records
            .iter()
            .take_while(|record| record.offset < next)
            .for_each(|record| planner.pass(record));
    }
    if let Some(quota) = quota {
        let quota = Arc::clone(quota);
        planner.report_to(Meter { quota, partition });
    }
    Ok(Begin { planner, saved })
}
