//! The writer of one partition of the hot store in this process's memory, which begins anew with the process.

use sluice_store::{EmbeddedHot, HotError};
use sluice_wire::ids::Partition;
use tokio_util::sync::CancellationToken;

use super::{HotWriter, plan_all};
use crate::writer::WriterError;
use crate::writer::resume::{READ_BYTES, begin};

/// Where hot is, for people who read seam records.
const ENDPOINT: &str = "embedded";

impl HotWriter {
    /// Claims a partition from the end of cold and follows the log until told to stop.
    pub(super) async fn follow(
        &self,
        hot: &EmbeddedHot,
        partition: Partition,
        shutdown: &CancellationToken,
    ) -> Result<(), WriterError> {
        let quota = self.quota.as_ref();
        let begun = begin(&self.log, &self.stores, &self.folder, partition, &self.limits, quota).await?;
        let mut planner = begun.planner;
        let from = planner.next();
        self.stores.seam.claim(partition, from, ENDPOINT).await?;
        hot.claim(partition, from);
        tracing::info!(%partition, from, "hot store claimed");
        loop {
            let records = self.log.read(partition, planner.next(), READ_BYTES).await?;
            if records.is_empty() {
                tokio::select! {
                    () = shutdown.cancelled() => return Ok(()),
                    () = self.log.wait_beyond(partition, planner.next()) => continue,
                }
            }
            let first = planner.next();
            let (moved, rows, last) = plan_all(planner, records).await?;
            planner = moved;
            let mut freed = self.counters.freed.subscribe();
            // Waits for room.
            loop {
                match hot.insert(partition, first, last, rows.clone()) {
                    Ok(()) => break,
                    Err(HotError::Full { .. }) => {
                        // Cold takes rows over, then they may leave hot.
                        self.counters.pressure.notify_one();
                        tokio::select! {
                            () = shutdown.cancelled() => return Ok(()),
                            changed = freed.changed() => if changed.is_err() { return Ok(()) },
                        }
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }
}
