//! Where the rows of a part go: a few batches ahead of who reads them, and these are of the query's memory. When it has no more, a part
//! goes no further than the one batch that it holds.

use std::collections::VecDeque;

use arrow::array::RecordBatch;
use datafusion::common::Result;
use datafusion::execution::memory_pool::MemoryReservation;
use tokio::sync::mpsc;

/// Batches between a part and who reads it.
pub(super) const BATCHES_AHEAD: usize = 2;

pub(super) struct Out {
    to: mpsc::Sender<Result<RecordBatch>>,
    /// Of the batches that may still lie there.
    reserved: MemoryReservation,
    sizes: VecDeque<usize>,
}

/// Nobody wants the rows any more.
#[derive(Debug)]
pub(super) struct Unwanted;

impl Out {
    pub(super) fn new(to: mpsc::Sender<Result<RecordBatch>>, reserved: MemoryReservation) -> Out {
        Out {
            to,
            reserved,
            sizes: VecDeque::with_capacity(BATCHES_AHEAD + 1),
        }
    }

    pub(super) async fn give(&mut self, batch: RecordBatch) -> Result<(), Unwanted> {
        let size = batch.get_array_memory_size();
        self.sizes.push_back(size);
        if self.sizes.len() > BATCHES_AHEAD {
            self.sizes.pop_front();
        }
        let ahead = self.sizes.iter().fold(0usize, |sum, size| sum.saturating_add(*size));
        if self.reserved.try_resize(ahead).is_err() {
            // All places free: what was given before has been taken.
            let all = self.to.reserve_many(self.to.max_capacity()).await;
            drop(all.map_err(|_| Unwanted)?);
            self.sizes.clear();
            self.reserved.free();
        }
        self.to.send(Ok(batch)).await.map_err(|_| Unwanted)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use arrow::array::Int64Array;
    use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryConsumer, MemoryPool};
    use futures::FutureExt;

    use super::*;

    fn batch(rows: i64) -> RecordBatch {
        let column = Int64Array::from_iter_values(0..rows);
        RecordBatch::try_from_iter([("n", Arc::new(column) as _)]).unwrap()
    }

    #[tokio::test]
    async fn what_lies_ahead_is_of_the_memory_and_without_memory_it_is_one_batch() {
        let size = batch(1_000).get_array_memory_size();
        for (memory, ahead) in [(size * BATCHES_AHEAD, BATCHES_AHEAD), (size / 2, 1)] {
            let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(memory));
            let (to, mut from) = mpsc::channel(BATCHES_AHEAD);
            let mut out = Out::new(to, MemoryConsumer::new("rows").register(&pool));
            let mut given = 0;
            while out.give(batch(1_000)).now_or_never().is_some() {
                given += 1;
                assert!(pool.reserved() <= memory);
            }
            assert_eq!(given, ahead);
            // Who reads gets all of it, in its order.
            let giving = async {
                for rows in 1..=50 {
                    out.give(batch(rows)).await.unwrap();
                }
                drop(out);
            };
            let reading = async {
                let mut seen = Vec::new();
                while let Some(batch) = from.recv().await {
                    seen.push(batch.unwrap().num_rows());
                }
                seen
            };
            let ((), seen) = tokio::join!(giving, reading);
            assert_eq!(seen[ahead..], (1..=50).collect::<Vec<usize>>());
            assert_eq!(pool.reserved(), 0);
        }
    }
}
