//! What goes into one insert: the next records of all partitions of a writer, until they are many or have waited long enough.

use std::collections::BTreeMap;
use std::time::Duration;

use arrow::array::RecordBatch;
use sluice_store::HotRows;
use sluice_wire::ids::Partition;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::SharedHotWriter;
use crate::writer::turns::{Rows, Turns};
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

    fn add(&mut self, Rows { range, rows, bytes }: Rows) {
        self.rows += rows.iter().map(RecordBatch::num_rows).sum::<usize>();
        self.bytes += bytes;
        self.slices.push(HotRows { range, rows });
        self.since.get_or_insert_with(Instant::now);
    }
}

impl SharedHotWriter {
    /// Reads until a block is full or its first rows have waited long enough. Empty: there was nothing for a while.
    pub(super) async fn gather(
        &self,
        planners: &mut BTreeMap<Partition, Planner>,
        turns: &mut Turns,
        shutdown: &CancellationToken,
    ) -> Result<Block, WriterError> {
        let mut block = Block::default();
        let idle_until = Instant::now() + IDLE;
        loop {
            let mut moved = false;
            if shutdown.is_cancelled() && !self.drains {
                return Ok(block);
            }
            for partition in turns.order(planners.keys().copied()) {
                let Some(planner) = planners.get_mut(&partition) else {
                    continue;
                };
                // An error ends this round, and with it the planner that knows nothing.
                while let Some(piece) = turns.plan(&self.log, partition, planner).await? {
                    moved = true;
                    block.add(piece);
                    if block.rows >= self.options.insert_rows || block.bytes >= self.options.insert_bytes {
                        return Ok(block);
                    }
                    if !turns.has_left() {
                        break;
                    }
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
