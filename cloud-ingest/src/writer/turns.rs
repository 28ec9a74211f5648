//! Whose records come next, for a writer of several partitions. A few bytes of log can hold many rows, so what was read is planned in
//! pieces; what is left of it is not read again.

use std::sync::Arc;

use arrow::array::RecordBatch;
use sluice_store::OffsetRange;
use sluice_wire::ids::Partition;

use super::hot::plan_all;
use super::resume::READ_BYTES;
use super::{Planner, WriterError};
use crate::log::{Log, LogError, LogRecord};

/// What is left of one read of one partition, and which one it was. It never holds more than one read does.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    left: Vec<LogRecord>,
    last: Option<Partition>,
}

/// What some records of one partition became.
#[derive(Debug)]
pub(crate) struct Rows {
    pub(crate) range: OffsetRange,
    pub(crate) rows: Vec<RecordBatch>,
    /// What they take in memory.
    pub(crate) bytes: usize,
}

impl Turns {
    /// Begins where something is left, else behind the one that was read last: with much to do in all of them, whatever the writer
    /// gathers is full before each has had its turn.
    pub(crate) fn order(&self, partitions: impl Iterator<Item = Partition>) -> Vec<Partition> {
        let mut order: Vec<_> = partitions.collect();
        order.sort_unstable();
        let first = match (self.left.first(), self.last) {
            (Some(left), _) => order.partition_point(|partition| *partition < left.partition),
            (None, Some(last)) => order.partition_point(|partition| *partition <= last),
            (None, None) => 0,
        };
        let count = order.len().max(1);
        order.rotate_left(first % count);
        order
    }

    /// The next rows of a partition, behind which its planner moves on; `None`: there is nothing now. After an error the planner knows
    /// nothing, and what it was for has to begin anew.
    pub(crate) async fn plan(
        &mut self,
        log: &Arc<dyn Log>,
        partition: Partition,
        planner: &mut Planner,
    ) -> Result<Option<Rows>, WriterError> {
        let first = planner.next();
        let records = self.read(log, partition, first).await?;
        if records.is_empty() {
            return Ok(None);
        }
        let piece = plan_all(planner.take(), records).await?;
        *planner = piece.planner;
        self.keep(piece.rest);
        let last = piece.last;
        Ok(Some(Rows {
            range: OffsetRange { partition, first, last },
            rows: piece.rows,
            bytes: piece.bytes,
        }))
    }

    /// The next records of a partition: those that are left, or what the log has.
    async fn read(&mut self, log: &Arc<dyn Log>, partition: Partition, from: u64) -> Result<Vec<LogRecord>, LogError> {
        let left = std::mem::take(&mut self.left);
        let records = match left.first() {
            Some(first) if (first.partition, first.offset) == (partition, from) => left,
            _ => log.read(partition, from, READ_BYTES).await?,
        };
        if !records.is_empty() {
            self.last = Some(partition);
        }
        Ok(records)
    }

    /// Keeps what of the last read was not planned.
    fn keep(&mut self, rest: Vec<LogRecord>) {
        self.left = rest;
    }

    /// Whether something of the last read was not planned.
    pub(crate) fn has_left(&self) -> bool {
        !self.left.is_empty()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    use async_trait::async_trait;
    use bytes::Bytes;

    use super::*;
    use crate::log::Head;

    const RECORDS: u64 = 40;
    const OF_ONE_READ: u64 = 7;

    /// Counts how often each record was given.
    #[derive(Default)]
    struct Counting {
        given: Mutex<BTreeMap<(Partition, u64), u32>>,
    }

    #[async_trait]
    impl Log for Counting {
        fn partitions(&self) -> Vec<Partition> {
            (0..3).map(partition).collect()
        }

        async fn append(&self, _: Partition, _: &Head, _: Bytes, _: i64) -> Result<u64, LogError> {
            unreachable!("nobody appends here")
        }

        async fn read(&self, partition: Partition, from: u64, _: usize) -> Result<Vec<LogRecord>, LogError> {
            let offsets = from..RECORDS.min(from + OF_ONE_READ);
            let mut given = self.given.lock().unwrap();
            let record = |offset| {
                *given.entry((partition, offset)).or_default() += 1;
                LogRecord {
                    partition,
                    offset,
                    ingested_at_us: 0,
                    envelope: Bytes::new(),
                    head: None,
                    damaged: None,
                }
            };
            Ok(offsets.map(record).collect())
        }

        async fn wait_beyond(&self, _: Partition, _: u64) {}

        fn end(&self, _: Partition) -> u64 {
            RECORDS
        }

        async fn trim(&self, _: Partition, _: u64) -> Result<(), LogError> {
            unreachable!("nobody trims here")
        }
    }

    fn partition(index: u16) -> Partition {
        Partition { generation: 0, index }
    }

    /// However little of a read is planned, and however little a block holds, each record is read once and no partition waits for the
    /// end of another.
    #[tokio::test]
    async fn each_record_is_read_once_and_each_partition_has_its_turn() {
        for (planned_at_once, of_a_block) in [(1, 5), (2, 4), (3, 100), (7, 7), (7, 1)] {
            let counting = Arc::new(Counting::default());
            let log: Arc<dyn Log> = Arc::clone(&counting) as Arc<dyn Log>;
            let mut turns = Turns::default();
            let mut next: BTreeMap<_, u64> = log.partitions().into_iter().map(|p| (p, 0)).collect();
            let mut widest = 0;
            while next.values().any(|next| *next < RECORDS) {
                let mut block = 0;
                'block: for partition in turns.order(next.keys().copied()) {
                    loop {
                        let mut records = turns.read(&log, partition, next[&partition]).await.unwrap();
                        if records.is_empty() {
                            break;
                        }
                        let rest = records.split_off(records.len().min(planned_at_once));
                        for record in &records {
                            assert_eq!(record.offset, next[&partition], "in order");
                            *next.get_mut(&partition).unwrap() += 1;
                        }
                        turns.keep(rest);
                        block += records.len();
                        if block >= of_a_block {
                            break 'block;
                        }
                        if !turns.has_left() {
                            break;
                        }
                    }
                }
                widest = widest.max(next.values().max().unwrap() - next.values().min().unwrap());
            }
            let given = counting.given.lock().unwrap();
            assert_eq!(given.len() as u64, 3 * RECORDS);
            assert!(given.values().all(|times| *times == 1), "{given:?}");
            assert!(
                widest <= OF_ONE_READ,
                "one partition was {widest} records ahead of another"
            );
        }
    }
}
