//! The hot writer of one partition: whatever the log has, hot shows within moments.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::RecordBatch;
use sluice_store::{HotError, Stores};
use sluice_wire::ids::Partition;
use sluice_wire::layout::IpcLimits;
use tokio_util::sync::CancellationToken;

use super::resume::{READ_BYTES, begin};
use super::{Planner, WriterError};
use crate::log::{Log, LogRecord};
use crate::status::WriterCounters;

/// Who wrote the hot rows, for people who read seam records: columns in the memory of one process.
const ENDPOINT: &str = "embedded";

/// Rows that are planned at once; the rest of what was read is read again.
const PLAN_BYTES: usize = 32 << 20;

/// Owns one partition of the hot store.
#[derive(Clone)]
pub struct HotWriter {
    pub log: Arc<dyn Log>,
    pub stores: Stores,
    pub partition: Partition,
    pub limits: IpcLimits,
    /// Holds the state of duplicates that the cold writer saves.
    pub folder: PathBuf,
    pub counters: Arc<WriterCounters>,
}

impl std::fmt::Debug for HotWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HotWriter")
            .field("partition", &self.partition)
            .finish_non_exhaustive()
    }
}

impl HotWriter {
    /// Claims the partition from the end of cold and follows the log until told to stop.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), WriterError> {
        let begun = begin(&self.log, &self.stores, &self.folder, self.partition, &self.limits).await?;
        let mut planner = begun.planner;
        let from = planner.next();
        self.stores.seam.claim(self.partition, from, ENDPOINT).await?;
        self.stores.hot.claim(self.partition, from);
        tracing::info!(partition = %self.partition, from, "hot store claimed");
        loop {
            let records = self.log.read(self.partition, planner.next(), READ_BYTES).await?;
            if records.is_empty() {
                tokio::select! {
                    () = shutdown.cancelled() => return Ok(()),
                    () = self.log.wait_beyond(self.partition, planner.next()) => continue,
                }
            }
            let first = planner.next();
            let (moved, rows, last) = plan_all(planner, records).await?;
            planner = moved;
            if !self.insert(first, last, rows, &shutdown).await? {
                return Ok(());
            }
        }
    }

    /// Inserts, waiting for room; `false` when told to stop meanwhile.
    async fn insert(
        &self,
        first: u64,
        last: u64,
        rows: Vec<RecordBatch>,
        shutdown: &CancellationToken,
    ) -> Result<bool, WriterError> {
        let mut freed = self.counters.freed.subscribe();
        loop {
            match self.stores.hot.insert(self.partition, first, last, rows.clone()) {
                Ok(()) => return Ok(true),
                Err(HotError::Full { .. }) => {
                    // Cold takes rows over, then they may leave hot.
                    self.counters.pressure.notify_one();
                    tokio::select! {
                        () = shutdown.cancelled() => return Ok(false),
                        changed = freed.changed() => if changed.is_err() { return Ok(false) },
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Plans on a thread for blocking work, as decoding and folding take milliseconds, and stops early when the rows grow large: a
/// few bytes of log can hold many rows. Returns the planner moved on, the rows, and the last offset that is in them.
pub(super) async fn plan_all(
    mut planner: Planner,
    records: Vec<LogRecord>,
) -> Result<(Planner, Vec<RecordBatch>, u64), WriterError> {
    tokio::task::spawn_blocking(move || {
        let (mut rows, mut bytes) = (Vec::new(), 0);
        for record in &records {
            let planned = planner.plan(record);
            bytes += planned
                .rows
                .iter()
                .map(RecordBatch::get_array_memory_size)
                .sum::<usize>();
            rows.extend(planned.rows);
            if bytes >= PLAN_BYTES {
                break;
            }
        }
        let last = planner.next() - 1;
        (planner, rows, last)
    })
    .await
    .map_err(|error| WriterError::Task(error.to_string()))
}
