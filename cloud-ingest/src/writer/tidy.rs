//! Keeping the cold table small, by schedule and beside the commits: small files become larger ones, and files that no version, no
//! query and no paused writer needs are removed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sluice_store::cold::CompactOptions;
use sluice_store::{ColdError, Stores};
use sluice_wire::ids::Partition;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::WriterError;
use crate::log::Log;
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
}

/// The task beside the cold writer.
pub(super) struct Tidy {
    pub(super) log: Arc<dyn Log>,
    pub(super) stores: Stores,
    pub(super) beside_hot: bool,
    pub(super) options: TidyOptions,
    pub(super) counters: Arc<WriterCounters>,
}

impl Tidy {
    /// Runs until told to stop. What fails is tried again at the next turn: nothing waits for it.
    pub(super) async fn run(self, shutdown: CancellationToken) {
        let turns = async {
            let mut next_vacuum = Instant::now();
            loop {
                tokio::time::sleep(self.options.compact_every).await;
                if let Err(error) = self.compact().await {
                    self.failed("merged", &error);
                }
                if Instant::now() >= next_vacuum {
                    match self.vacuum().await {
                        Ok(()) => next_vacuum = Instant::now() + self.options.vacuum_every,
                        Err(error) => self.failed("removed", &error.into()),
                    }
                }
            }
        };
        // Half a turn leaves at most files that no commit names.
        tokio::select! { () = shutdown.cancelled() => {}, () = turns => {} }
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
