//! Keeping the cold table small, by schedule and beside the commits: small files become larger ones, and files that no version, no
//! query and no paused writer needs are removed; what was erased, or is older than its tenant's retention, is taken out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sluice_store::cold::{Cleaned, CompactOptions};
use sluice_store::erase::Place;
use sluice_store::{ColdError, Erasures, Stores};
use sluice_wire::ids::Partition;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::WriterError;
use crate::log::Log;
use crate::replay::{Progress, replay_tail};
use crate::status::WriterCounters;

/// Gateways' clocks agree to this, in microseconds.
const CLOCKS_US: i64 = 60_000_000;

/// Nobody watches.
struct Unseen;

impl Progress for Unseen {
    fn step(&self, _: u64, _: u64) {}
}

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
            let mut cleaned = Cleaned::default();
            loop {
                tokio::time::sleep(self.options.compact_every).await;
                if let Err(error) = self.compact().await {
                    self.failed("merged", &error);
                }
                if let Err(error) = self.erase(&mut cleaned).await {
                    self.failed("rid of what is erased", &error);
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

    /// Takes out what is erased, and notes the rules whose rows are gone for good.
    async fn erase(&self, cleaned: &mut Cleaned) -> Result<(), WriterError> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_us = i64::try_from(since.as_micros()).unwrap_or(i64::MAX);
        let report = self
            .stores
            .cold
            .erase(&self.stores.erased_for_good(now_us).await?, cleaned)
            .await?;
        self.counters.erased_rows.fetch_add(report.rows, Ordering::Relaxed);
        if report.rows > 0 {
            tracing::info!(
                rows = report.rows,
                files = report.files_before,
                "erased rows were taken out of cold"
            );
        }
        let (rules, done) = (self.stores.rules().await?, self.stores.rules_done(Place::Cold).await?);
        for (number, rule) in rules.iter().filter(|(number, _)| !done.contains_key(number)) {
            // Clocks of gateways differ a little.
            if now_us.saturating_sub(rule.before_us) > CLOCKS_US && self.has_passed(rule.before_us).await? {
                // Before this turn began, cold may not have had all of it.
                let only = Erasures(vec![rule.erasure()]);
                let again = self.stores.cold.erase(&only, &mut Cleaned::default()).await?;
                self.counters.erased_rows.fetch_add(again.rows, Ordering::Relaxed);
                self.stores.rule_is_done(Place::Cold, *number, "cold").await?;
            }
        }
        self.erase_hot().await
    }

    /// Whether cold holds everything that was taken in before a time.
    async fn has_passed(&self, before_us: i64) -> Result<bool, WriterError> {
        let committed = self.stores.cold.committed().await?;
        for partition in self.log.partitions() {
            let (first, end) = (self.log.first(partition), self.log.fresh_end(partition).await?);
            let next = committed.get(&partition).map_or(first, |last| last + 1);
            if next < self.log.first_since(partition, first, end, before_us).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What cold is rid of leaves hot, too.
    async fn erase_hot(&self) -> Result<(), WriterError> {
        let stores = &self.stores;
        let (cold, hot) = (
            stores.rules_done(Place::Cold).await?,
            stores.rules_done(Place::Hot).await?,
        );
        let left: Vec<u64> = cold
            .keys()
            .filter(|number| !hot.contains_key(number))
            .copied()
            .collect();
        if left.is_empty() {
            return Ok(());
        }
        if let Some(hot) = stores.hot.embedded() {
            // Another process may have it, and drops it with what cold has.
            for partition in hot.partitions() {
                if let Some(low) = stores.cold.committed().await?.get(&partition).copied() {
                    if stores.seam.load(partition).await?.low.is_none_or(|held| held < low) {
                        stores.seam.advance(partition, low).await?;
                    }
                    hot.drop_to(partition, low);
                }
            }
        } else {
            let made = replay_tail(stores, &Unseen).await;
            made.map_err(|error| WriterError::Task(format!("hot was not made again without what is erased: {error}")))?;
        }
        for number in left {
            stores.rule_is_done(Place::Hot, number, "hot").await?;
        }
        Ok(())
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
