//! What goes into one insert: the next records of all partitions of a writer, until they are many or have waited long enough.

use std::collections::BTreeMap;
use std::time::Duration;

use arrow::array::RecordBatch;
use sluice_store::{HotRows, OffsetRange};
use sluice_wire::ids::Partition;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::SharedHotWriter;
use crate::dedup::Dedup;
use crate::writer::hot::plan_all;
use crate::writer::resume::READ_BYTES;
use crate::writer::{Planner, WriterError};

/// A writer that has nothing to do looks after its claims now and then.
const IDLE: Duration = Duration::from_secs(1);

/// Rows of consecutive offsets of each partition.
#[derive(Debug, Default)]
pub(super) struct Block {
    pub(super) slices: Vec<HotRows>,
    rows: usize,
    bytes: usize,
    since: Option<Instant>,
}

impl Block {
    pub(super) fn is_empty(&self) -> bool {
        self.slices.is_empty()
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// The next offset of each partition behind it.
    pub(super) fn ends(&self) -> BTreeMap<Partition, u64> {
        self.slices
            .iter()
            .map(|slice| (slice.range.partition, slice.range.last + 1))
            .collect()
    }

    fn add(&mut self, range: OffsetRange, rows: Vec<RecordBatch>) {
        self.rows += rows.iter().map(RecordBatch::num_rows).sum::<usize>();
        self.bytes += rows.iter().map(RecordBatch::get_array_memory_size).sum::<usize>();
        self.slices.push(HotRows { range, rows });
        self.since.get_or_insert_with(Instant::now);
    }
}

impl SharedHotWriter {
    /// Reads until a block is full or its first rows have waited long enough. Empty: there was nothing for a while.
    pub(super) async fn gather(
        &self,
        planners: &mut BTreeMap<Partition, Planner>,
        shutdown: &CancellationToken,
    ) -> Result<Block, WriterError> {
        let mut block = Block::default();
        let idle_until = Instant::now() + IDLE;
        loop {
            let mut moved = false;
            if shutdown.is_cancelled() && !self.drains {
                return Ok(block);
            }
            for (partition, planner) in planners.iter_mut() {
                let first = planner.next();
                let records = self.log.read(*partition, first, READ_BYTES).await?;
                if records.is_empty() {
                    continue;
                }
                moved = true;
                // Moved, not copied: the state of duplicates may be large. An error ends this round, and with it the empty one.
                let taken = std::mem::replace(planner, Planner::new(Dedup::default(), self.limits.clone()));
                let (taken, rows, last) = plan_all(taken, records).await?;
                *planner = taken;
                let partition = *partition;
                block.add(OffsetRange { partition, first, last }, rows);
                if block.rows >= self.options.insert_rows || block.bytes >= self.options.insert_bytes {
                    return Ok(block);
                }
            }
            let due = block
                .since
                .map_or(idle_until, |since| since + self.options.insert_every);
            if Instant::now() >= due || (shutdown.is_cancelled() && !moved) {
                return Ok(block);
            }
            if !moved {
                let more = planners.iter().map(|(partition, planner)| {
                    let (partition, next) = (*partition, planner.next());
                    Box::pin(async move { self.log.wait_beyond(partition, next).await })
                });
                let more: Vec<_> = more.collect();
                tokio::select! {
                    () = shutdown.cancelled() => {}
                    () = tokio::time::sleep_until(due) => {}
                    _ = futures::future::select_all(more), if !planners.is_empty() => {}
                }
            }
        }
    }
}
