//! Where a writer begins: the state of duplicates as of an offset, folded up to what its store holds already.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sluice_wal::cursor;
use sluice_wire::ids::Partition;
use sluice_wire::layout::IpcLimits;

use super::{Planner, WriterError};
use crate::dedup::Dedup;
use crate::log::Log;

/// Bytes of log records read at once.
pub(super) const READ_BYTES: usize = 4 << 20;

/// The file that holds the state of duplicates of a partition.
pub(super) fn snapshot_path(folder: &Path, partition: Partition) -> PathBuf {
    folder.join(format!("duplicates-{partition}"))
}

/// A planner that stands at `next`: the last snapshot, and the log's records from there on folded in.
pub(super) async fn planner_at(
    log: &Arc<dyn Log>,
    folder: &Path,
    partition: Partition,
    next: u64,
    limits: &IpcLimits,
) -> Result<Planner, WriterError> {
    let path = snapshot_path(folder, partition);
    let saved = cursor::load(&path).map_err(|source| WriterError::Snapshot {
        path: path.clone(),
        source,
    })?;
    let restored = match saved.as_deref().map(Dedup::decode) {
        Some(Ok(dedup)) if dedup.next() <= next => Some(dedup),
        Some(Ok(dedup)) => {
            // Saved after a commit that the table no longer holds: the table was restored from a backup, say.
            tracing::warn!(%partition, upto = dedup.next(), next, "state of duplicates is newer than its table; folding the log anew");
            None
        }
        Some(Err(error)) => {
            tracing::warn!(%partition, %error, "state of duplicates cannot be used; folding the log anew");
            None
        }
        None => None,
    };
    let dedup = restored.unwrap_or_default();
    let known = dedup.next();
    let first = log.first(partition);
    if first > known {
        return Err(WriterError::Forgotten {
            partition,
            known,
            first,
            path,
        });
    }
    let mut planner = Planner::new(dedup, limits.clone());
    while planner.next() < next {
        let records = log.read(partition, planner.next(), READ_BYTES).await?;
        if records.is_empty() {
            // The table holds more than the log: the log was lost. What comes next would repeat offsets.
            return Err(WriterError::Forgotten {
                partition,
                known: planner.next(),
                first: log.end(partition),
                path,
            });
        }
        records
            .iter()
            .take_while(|record| record.offset < next)
            .for_each(|record| planner.pass(record));
    }
    Ok(planner)
}
