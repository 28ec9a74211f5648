//! The hot writer: whatever the log has, hot shows within moments.
//!
//! In memory each partition has a writer of its own (`embedded`). On a server one writer inserts for all its partitions (`shared`):
//! `start` says where it begins, `gather` what goes into one insert, `standby` when it takes over what another one let lie, `keeper`
//! and `retention` what leaves the server.

mod embedded;
mod gather;
mod keeper;
mod retention;
mod shared;
mod standby;
mod start;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use sluice_store::{Hot, Stores};
use sluice_wire::layout::IpcLimits;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::shared::SharedWriter;
use super::{Planner, WriterError};
use crate::log::{Log, LogRecord};
use crate::quota::Quota;
use crate::status::WriterCounters;

/// Rows that are planned at once; the rest of what was read is read again.
const PLAN_BYTES: usize = 32 << 20;

/// Owns the partitions of the log in the hot store.
#[derive(Clone)]
pub struct HotWriter {
    pub log: Arc<dyn Log>,
    pub stores: Stores,
    pub limits: IpcLimits,
    /// Holds the state of duplicates that the cold writer saves.
    pub folder: PathBuf,
    pub counters: Arc<WriterCounters>,
    /// Is told what each edge's batches cost in the state of duplicates.
    pub quota: Option<Arc<Quota>>,
    pub options: HotWriterOptions,
}

/// How a server is written, and what it keeps.
#[derive(Clone, Debug)]
pub struct HotWriterOptions {
    /// Create and change the tables when they are not those of this program.
    pub migrate: bool,
    /// No row waits longer for its insert, unless the one before takes longer.
    pub insert_every: Duration,
    /// An insert has about as many rows and bytes at most.
    pub insert_rows: usize,
    pub insert_bytes: usize,
    /// Days that lie back further are dropped, once cold has them.
    pub keep: Duration,
    /// So many bytes are kept at most, as far as cold has the rest; 0: as many as there are.
    pub keep_bytes: u64,
    /// No query runs longer.
    pub query_limit: Duration,
    /// A partition whose owner has not moved for so long, though there is something to do, is taken over.
    pub takeover_after: Duration,
}

impl std::fmt::Debug for HotWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HotWriter")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl HotWriter {
    /// Follows the log until told to stop; then what the log has is in hot, as far as hot takes it.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), WriterError> {
        match self.stores.hot.clone() {
            Hot::ClickHouse(hot) => SharedWriter::new(self, hot).run(shutdown).await,
            Hot::Embedded(hot) => {
                let mut writers = JoinSet::new();
                for partition in self.log.partitions() {
                    let (writer, hot, shutdown) = (self.clone(), hot.clone(), shutdown.clone());
                    writers.spawn(async move { writer.follow(&hot, partition, &shutdown).await });
                }
                while let Some(ended) = writers.join_next().await {
                    ended.map_err(|error| WriterError::Task(error.to_string()))??;
                }
                Ok(())
            }
        }
    }
}

/// Plans on a thread for blocking work, as decoding and folding take milliseconds, and stops early when the rows grow large: a
/// few bytes of log can hold many rows. Returns the planner moved on, the rows, and the last offset that is in them.
pub(in crate::writer) async fn plan_all(
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use arrow::datatypes::DataType;
    use sluice_wire::counts::Counts;
    use sluice_wire::envelope::{Compression, Header, Kind, seal};
    use sluice_wire::ids::{BatchId, Epoch, NodeId, Partition, StreamId, TenantId};

    use super::*;
    use crate::dedup::Dedup;
    use crate::writer::resume::READ_BYTES;

    const TEXT_BYTES: usize = 12 << 20;

    /// One row that is tiny in the log and large in memory.
    fn record(offset: u64) -> LogRecord {
        let stream = StreamId {
            tenant: TenantId::new("acme").unwrap(),
            node: NodeId::new("site-1").unwrap(),
            spool: [1; 16],
        };
        let epoch = Epoch { number: 1, random: 7 };
        let header = Header {
            id: BatchId {
                stream,
                epoch,
                seq: offset,
            },
            generation: 0,
            kind: Kind::Data,
            rows: 1,
            counts: Counts {
                accepted: 1,
                stored: 1,
                ..Counts::default()
            },
            journal_upto: 0,
            time_min_ns: 0,
            time_max_ns: 0,
            sealed_at_ns: 0,
            detail: String::new(),
        };
        let dictionary = DataType::Dictionary(Box::new(DataType::UInt16), Box::new(DataType::Utf8));
        let signal = arrow::compute::cast(&StringArray::from(vec!["log"]), &dictionary).unwrap();
        let time: ArrayRef = Arc::new(Int64Array::from(vec![0]));
        let body: ArrayRef = Arc::new(StringArray::from(vec!["x".repeat(TEXT_BYTES)]));
        let rows = [("signal", signal, false), ("time", time, false), ("body", body, true)];
        let rows = RecordBatch::try_from_iter_with_nullable(rows).unwrap();
        LogRecord {
            partition: Partition::default(),
            offset,
            ingested_at_us: 0,
            envelope: seal(&header, Some(&rows), Compression::default()).unwrap(),
            head: None,
            damaged: None,
        }
    }

    /// P15: a few bytes of log cannot fill the memory; what was not planned is read again, and nothing is passed over.
    #[tokio::test]
    async fn p15_planning_stops_when_the_rows_grow_large_and_goes_on_behind_them() {
        let log: Vec<_> = (0..5).map(record).collect();
        assert!(
            log.iter().map(|r| r.envelope.len()).sum::<usize>() < READ_BYTES,
            "one read gives all of it"
        );
        let mut planner = Planner::new(Dedup::default(), IpcLimits::default());
        let (mut ends, mut seen) = (Vec::new(), 0);
        while (planner.next() as usize) < log.len() {
            let rest = log[planner.next() as usize..].to_vec();
            let (moved, rows, last) = plan_all(planner, rest).await.unwrap();
            assert_eq!(moved.next(), last + 1);
            let bytes: usize = rows.iter().map(RecordBatch::get_array_memory_size).sum();
            assert!(bytes < PLAN_BYTES + 3 * TEXT_BYTES, "{bytes}");
            seen += rows.iter().map(RecordBatch::num_rows).sum::<usize>();
            (planner, ends) = (moved, [ends, vec![last]].concat());
        }
        // Each record has its ledger row too.
        assert_eq!(seen, 2 * log.len());
        assert!(ends.len() > 1, "all at once: {ends:?}");
    }
}
