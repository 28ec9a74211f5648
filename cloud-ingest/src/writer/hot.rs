//! The writer of one partition of the embedded hot store: whatever the log has, hot shows within moments.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use sluice_store::{EmbeddedHot, HotError, OffsetRange, SeamError, Stores};
use sluice_wire::ids::Partition;
use sluice_wire::layout::IpcLimits;
use tokio_util::sync::CancellationToken;

use super::resume::{begin, given_up};
use super::turns::Turns;
use super::{Planner, Snapshots, WriterError};
use crate::log::{Log, LogRecord};
use crate::quota::Quota;
use crate::status::WriterCounters;

/// Who wrote the hot rows, for people who read seam records: columns in the memory of one process.
const ENDPOINT: &str = "embedded";

const CLAIM_RETRY: Duration = Duration::from_secs(2);

/// Rows that are planned at once.
const PLAN_BYTES: usize = 32 << 20;

/// Owns one partition of the embedded hot store.
#[derive(Clone)]
pub struct HotWriter {
    pub log: Arc<dyn Log>,
    pub stores: Stores,
    pub partition: Partition,
    pub limits: IpcLimits,
    /// Hold the state of duplicates that the cold writer saves.
    pub snapshots: Snapshots,
    pub counters: Arc<WriterCounters>,
    /// Is told what each edge's batches cost in the state of duplicates.
    pub quota: Option<Arc<Quota>>,
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
        let begin = begin(
            &self.log,
            &self.stores,
            &self.snapshots,
            self.partition,
            &self.limits,
            self.quota.as_ref(),
        );
        let begun = tokio::select! { begun = begin => begun?, () = given_up(&shutdown) => return Ok(()) };
        let mut planner = begun.planner;
        let from = planner.next();
        if !self.claim(from, &shutdown).await? {
            return Ok(());
        }
        let hot = self.hot()?;
        hot.claim(self.partition, from);
        tracing::info!(partition = %self.partition, from, "hot store claimed");
        let mut turns = Turns::default();
        loop {
            let Some(piece) = turns.plan(&self.log, self.partition, &mut planner).await? else {
                tokio::select! {
                    () = shutdown.cancelled() => return Ok(()),
                    () = self.log.wait_beyond(self.partition, planner.next()) => continue,
                }
            };
            let OffsetRange { first, last, .. } = piece.range;
            if !self.insert(first, last, piece.rows, &shutdown).await? {
                return Ok(());
            }
        }
    }

    /// Claims the partition; a lake that refuses for a while, as a full disk does, is asked again. `false` when told to stop meanwhile.
    async fn claim(&self, from: u64, shutdown: &CancellationToken) -> Result<bool, WriterError> {
        loop {
            let error = match self.stores.seam.claim(self.partition, from, ENDPOINT).await {
                Ok(_) => return Ok(true),
                Err(error @ (SeamError::Store(_) | SeamError::Contended { .. })) => error,
                Err(error) => return Err(error.into()),
            };
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            tracing::error!(partition = %self.partition, %error, cause, "hot store not claimed; trying again");
            tokio::select! {
                () = shutdown.cancelled() => return Ok(false),
                () = tokio::time::sleep(CLAIM_RETRY) => {}
            }
        }
    }

    fn hot(&self) -> Result<&EmbeddedHot, WriterError> {
        let other = || WriterError::Task("a hot store on a server has a writer of its own kind".to_owned());
        self.stores.hot.embedded().ok_or_else(other)
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
            match self.hot()?.insert(self.partition, first, last, rows.clone()) {
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

/// Records as rows.
#[derive(Debug)]
pub(crate) struct Piece {
    /// Moved on behind them.
    pub(crate) planner: Planner,
    pub(crate) rows: Vec<RecordBatch>,
    /// What they take in memory.
    pub(crate) bytes: usize,
    /// The last offset that is in them.
    pub(crate) last: u64,
    /// Records that were not planned.
    pub(crate) rest: Vec<LogRecord>,
}

/// Plans on a thread for blocking work, as decoding and folding take milliseconds, and stops early when the rows grow large: a
/// few bytes of log can hold many rows.
pub(crate) async fn plan_all(mut planner: Planner, records: Vec<LogRecord>) -> Result<Piece, WriterError> {
    tokio::task::spawn_blocking(move || {
        let (mut rows, mut bytes) = (Vec::new(), 0);
        let mut records = records.into_iter();
        for record in records.by_ref() {
            let planned = planner.plan(&record);
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
        Piece {
            last: planner.next() - 1,
            planner,
            rows,
            bytes,
            rest: records.collect(),
        }
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
    use sluice_wire::ids::{BatchId, Epoch, NodeId, StreamId, TenantId};

    use super::*;
    use crate::dedup::Dedup;

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

    /// P15: a few bytes of log cannot fill the memory; what was not planned is left over, and nothing is passed over.
    #[tokio::test]
    async fn p15_planning_stops_when_the_rows_grow_large_and_goes_on_behind_them() {
        let log: Vec<_> = (0..5).map(record).collect();
        assert!(
            log.iter().map(|r| r.envelope.len()).sum::<usize>() < crate::writer::READ_BYTES,
            "one read gives all of it"
        );
        let mut planner = Planner::new(Dedup::default(), IpcLimits::default());
        let (mut ends, mut seen): (Vec<u64>, usize) = (Vec::new(), 0);
        let mut rest = log.clone();
        while !rest.is_empty() {
            let piece = plan_all(planner, rest).await.unwrap();
            assert_eq!(piece.planner.next(), piece.last + 1);
            let left: Vec<_> = piece.rest.iter().map(|record| record.offset).collect();
            assert_eq!(left, (piece.last + 1..log.len() as u64).collect::<Vec<_>>());
            let bytes: usize = piece.rows.iter().map(RecordBatch::get_array_memory_size).sum();
            assert!(bytes < PLAN_BYTES + 3 * TEXT_BYTES, "{bytes}");
            seen += piece.rows.iter().map(RecordBatch::num_rows).sum::<usize>();
            ends.push(piece.last);
            (planner, rest) = (piece.planner, piece.rest);
        }
        // Each record has its ledger row too.
        assert_eq!(seen, 2 * log.len());
        assert!(ends.len() > 1, "all at once: {ends:?}");
    }
}
