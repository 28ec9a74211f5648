//! Keeping the cold table small, by schedule and beside the commits: small files become larger ones, and files that no version, no
//! query and no paused writer needs are removed; what was erased, or is older than its tenant's retention, is taken out (`forget`). And
//! keeping it honest: what it holds is counted against its ledger.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sluice_store::cold::{Cleaned, CompactOptions, Known};
use sluice_store::{ColdError, Stores};
use sluice_wire::ids::Partition;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::WriterError;
use super::age::Age;
use crate::log::Log;
use crate::quarantine::Quarantine;
use crate::status::WriterCounters;

/// When to look, and what may go.
#[derive(Clone, Debug)]
pub struct TidyOptions {
    pub compact_every: Duration,
    /// Files are merged up to about this size.
    pub file_bytes: u64,
    pub vacuum_every: Duration,
    /// Replaced files stay this long for queries that began before; files that no commit names stay a week at least.
    pub vacuum_after: Duration,
    /// No query runs longer.
    pub query_limit: Duration,
}

/// The task beside the cold writer.
pub(super) struct Tidy {
    pub(super) log: Arc<dyn Log>,
    pub(super) stores: Stores,
    pub(super) beside_hot: bool,
    pub(super) quarantine: Option<Quarantine>,
    pub(super) age: Arc<Age>,
    pub(super) options: TidyOptions,
    pub(super) counters: Arc<WriterCounters>,
}

impl Tidy {
    /// Runs until told to stop. What fails is tried again at the next turn: nothing waits for it.
    pub(super) async fn run(self, shutdown: CancellationToken) {
        let turns = async {
            let mut next_vacuum = Instant::now();
            let (mut cleaned, mut known) = (Cleaned::default(), Known::default());
            loop {
                tokio::time::sleep(self.options.compact_every).await;
                if let Err(error) = self.compact().await {
                    self.failed("merged", &error);
                }
                if let Err(error) = self.by_age(&mut cleaned, &mut next_vacuum).await {
                    self.failed("rid of what is erased, too old or not needed", &error);
                }
                if let Err(error) = self.balance(&mut known).await {
                    self.failed("counted against their ledger", &error);
                }
            }
        };
        // Half a turn leaves at most files that no commit names.
        tokio::select! { () = shutdown.cancelled() => {}, () = turns => {} }
    }

    /// What goes because it is erased, or because of its age: the latter by a time that is believed.
    async fn by_age(&self, cleaned: &mut Cleaned, next_vacuum: &mut Instant) -> Result<(), WriterError> {
        let now = self.age.now().await?;
        let forgotten = self.forget(now, cleaned).await;
        // Vacuum goes by the times of files and the clock of this machine alone.
        if !now.is_held && Instant::now() >= *next_vacuum {
            let vacuumed = self.vacuum().await;
            if vacuumed.is_ok() {
                *next_vacuum = Instant::now() + self.options.vacuum_every;
            }
            return forgotten.and(vacuumed.map_err(WriterError::from));
        }
        forgotten
    }

    fn failed(&self, what: &str, error: &WriterError) {
        self.counters.tidy_failures.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(%error, source = ?std::error::Error::source(error).map(ToString::to_string), "files of the cold table were not {what}");
    }

    async fn compact(&self) -> Result<(), WriterError> {
        let options = CompactOptions {
            target_bytes: self.options.file_bytes,
            settled: Some(self.settled().await?),
            ..CompactOptions::default()
        };
        // One call reads a bounded number of bytes; each leaves fewer files, or nothing was left to do.
        loop {
            let report = self.stores.cold.compact(&options).await?;
            if report.files_before > 0 {
                let merged = report.files_before as u64;
                self.counters.merged_files.fetch_add(merged, Ordering::Relaxed);
                tracing::info!(from = report.files_before, to = report.files_after, "cold files merged");
            }
            if report.files_before == 0 || report.lost_race {
                return Ok(());
            }
        }
    }

    /// Up to where hot serves no more: what it may still serve stays in files that a query passes over whole.
    async fn settled(&self) -> Result<BTreeMap<Partition, u64>, WriterError> {
        let mut settled = self.stores.cold.committed().await?;
        // A server keeps days: files of what it serves are passed over whole, and small files would pile up meanwhile.
        if !self.beside_hot || self.stores.hot.clickhouse().is_some() {
            return Ok(settled);
        }
        let partitions: Vec<Partition> = self.log.partitions();
        for partition in partitions {
            let low = self.stores.seam.load(partition).await?.low;
            let before_claim = self
                .stores
                .hot
                .claimed(partition)
                .and_then(|(from, _)| from.checked_sub(1));
            let held = settled.remove(&partition);
            settled.extend(
                low.max(before_claim)
                    .zip(held)
                    .map(|(low, held)| (partition, low.min(held))),
            );
        }
        Ok(settled)
    }

    /// Whether the table holds what its ledger says.
    async fn balance(&self, known: &mut Known) -> Result<(), WriterError> {
        let Some(balance) = self.stores.cold.balance(known).await? else {
            return Ok(());
        };
        for hole in &balance.holes {
            tracing::error!(
                wrong = hole.wrong.as_str(),
                tenant = hole.tenant,
                stream = hole.stream,
                partition = hole.partition,
                first = hole.first,
                last = hole.last,
                events = hole.events,
                "the ledger does not hold: events are missing, too many or without a name"
            );
        }
        let unread = balance.unread;
        self.counters.balance.send_replace(Some(balance));
        match unread {
            0 => Ok(()),
            _ => Err(WriterError::Uncounted { ranges: unread }),
        }
    }

    async fn vacuum(&self) -> Result<(), ColdError> {
        let report = self.stores.cold.vacuum(self.options.vacuum_after).await?;
        let removed = report.files_removed as u64;
        self.counters.removed_files.fetch_add(removed, Ordering::Relaxed);
        if removed > 0 {
            tracing::info!(files = removed, "old cold files removed");
        }
        Ok(())
    }
}

impl std::fmt::Debug for Tidy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tidy")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::AtomicI64;

    use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
    use arrow::datatypes::DataType;
    use sluice_store::erase::AgeClock;
    use sluice_store::{OffsetRange, Retention};
    use sluice_wire::counts::Counts;
    use sluice_wire::envelope::{Compression, Header, Kind, seal};
    use sluice_wire::ids::{BatchId, Epoch, NodeId, StreamId, TenantId};
    use sluice_wire::layout::IpcLimits;

    use super::super::age::wall_us;
    use super::*;
    use crate::dedup::Dedup;
    use crate::log::{EmbeddedLog, EmbeddedOptions, LogRecord};
    use crate::writer::Planner;

    const DAY_US: i64 = 86_400_000_000;

    static WALL: AtomicI64 = AtomicI64::new(0);

    /// One row and its ledger row.
    fn rows(ingested_at_us: i64) -> Vec<RecordBatch> {
        let stream = StreamId {
            tenant: TenantId::new("acme").unwrap(),
            node: NodeId::new("site-1").unwrap(),
            spool: [1; 16],
        };
        let epoch = Epoch { number: 1, random: 7 };
        let header = Header {
            id: BatchId { stream, epoch, seq: 0 },
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
        let batch =
            RecordBatch::try_from_iter_with_nullable([("signal", signal, false), ("time", time, false)]).unwrap();
        let record = LogRecord {
            partition: Partition::default(),
            offset: 0,
            ingested_at_us,
            envelope: seal(&header, Some(&batch), Compression::default()).unwrap(),
            head: None,
            damaged: None,
        };
        Planner::new(Dedup::default(), IpcLimits::default()).plan(&record).rows
    }

    /// Nothing is deleted by a clock that jumped, over restarts, until somebody says that it is right.
    #[tokio::test]
    async fn a_clock_a_year_ahead_takes_nothing_out_of_cold() {
        let folder = tempfile::tempdir().unwrap();
        let stores = Stores::open(folder.path().join("lake").to_str().unwrap(), 0)
            .await
            .unwrap();
        let options = EmbeddedOptions {
            generation: 0,
            partitions: 1,
            segment_bytes: 1 << 20,
            max_envelope_bytes: 1 << 20,
            ballast_bytes: 0,
        };
        let log: Arc<dyn Log> = Arc::new(EmbeddedLog::open(&folder.path().join("log"), &options).unwrap());
        let now = wall_us();
        let range = OffsetRange {
            partition: Partition::default(),
            first: 0,
            last: 0,
        };
        stores.cold.commit(&[range], rows(now - DAY_US)).await.unwrap();
        let retention = Retention::new(30 * DAY_US, BTreeMap::new());
        stores.keep_for(&retention).await.unwrap();
        let day = Duration::from_secs(86_400);
        let counters: Arc<WriterCounters> = Arc::default();
        let start = || Tidy {
            log: Arc::clone(&log),
            stores: stores.clone(),
            beside_hot: false,
            quarantine: None,
            age: Arc::new(Age::new(stores.clone(), Arc::clone(&counters), || {
                WALL.load(Ordering::Relaxed)
            })),
            options: TidyOptions {
                compact_every: day,
                file_bytes: 1 << 20,
                vacuum_every: day,
                vacuum_after: day * 7,
                query_limit: day,
            },
            counters: Arc::clone(&counters),
        };
        let turn = async |tidy: &Tidy| {
            let begun = Instant::now();
            let mut next_vacuum = begun;
            tidy.by_age(&mut Cleaned::default(), &mut next_vacuum).await.unwrap();
            let rows = stores.cold.extent().await.unwrap().rows;
            (
                rows,
                next_vacuum > begun,
                counters.clock_ahead_s.load(Ordering::Relaxed) > 0,
            )
        };
        let set = |us| WALL.store(us, Ordering::Relaxed);
        // Even at the very first start.
        set(now + 365 * DAY_US);
        assert_eq!(turn(&start()).await, (2, false, true));
        set(now);
        let running = start();
        assert_eq!(turn(&running).await, (2, true, false));
        set(now + 365 * DAY_US);
        for tidy in [&running, &start(), &start()] {
            assert_eq!(turn(tidy).await, (2, false, true));
        }
        let trusted = AgeClock::trusted(now + 365 * DAY_US);
        stores.save_age_clock(&trusted).await.unwrap();
        assert_eq!(turn(&running).await, (1, true, false));
    }
}
