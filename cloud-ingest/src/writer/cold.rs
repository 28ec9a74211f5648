//! The cold writer: gathers the rows of all partitions and commits them to the table in files of a good size.
//!
//! Order of what must be durable: commit, state of duplicates, seam, and only then may hot and the log forget.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use sluice_store::{CommitError, OffsetRange, Stores};
use sluice_wal::crash_point;
use sluice_wire::ids::Partition;
use sluice_wire::layout::IpcLimits;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::age::{Age, wall_us};
use super::plan::Aside;
use super::resume::{begin, given_up};
use super::tidy::{Tidy, TidyOptions};
use super::trim::{TrimOptions, trim};
use super::turns::Turns;
use super::{Planner, Snapshots, WriterError};
use crate::log::{Log, LogError};
use crate::quarantine::{KeepError, Quarantine};
use crate::quota::Quota;
use crate::status::WriterCounters;

/// Pause after a commit that failed; the log keeps what waits.
const RETRY: Duration = Duration::from_secs(2);
/// How often the log is looked at for what it may forget.
const TRIM_EVERY: Duration = Duration::from_secs(60);

/// When to commit, and how much of it stays in hot.
#[derive(Clone, Debug)]
pub struct ColdWriterOptions {
    /// No row waits longer for cold.
    pub interval: Duration,
    pub max_rows: usize,
    /// Bytes of rows that are gathered in memory.
    pub max_bytes: usize,
    /// Above this, hot drops what cold has taken over.
    pub hot_keep_bytes: u64,
    pub trim: TrimOptions,
    pub tidy: TidyOptions,
}

impl ColdWriterOptions {
    /// As much as one commit shall hold.
    fn is_large(&self, rows: usize, bytes: usize) -> bool {
        rows >= self.max_rows || bytes >= self.max_bytes
    }
}

/// Writes its partitions, in one task: one commit covers them all.
#[derive(Clone)]
pub struct ColdWriter {
    pub log: Arc<dyn Log>,
    pub stores: Stores,
    pub limits: IpcLimits,
    pub partitions: Vec<Partition>,
    pub snapshots: Snapshots,
    /// Takes in all that the log has before it ends; else only what it has read. A log that others append to has no end.
    pub drains: bool,
    /// Hot is written in this process too, so the log keeps what hot has not read.
    pub beside_hot: bool,
    /// Where batches go that cannot be stored, before the log may forget them.
    pub quarantine: Option<Quarantine>,
    pub options: ColdWriterOptions,
    pub counters: Arc<WriterCounters>,
    /// Is told what each edge's batches cost in the state of duplicates.
    pub quota: Option<Arc<Quota>>,
}

impl std::fmt::Debug for ColdWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ColdWriter")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// What is read and not committed yet.
struct Gathered {
    partitions: BTreeMap<Partition, Share>,
    rows: usize,
    bytes: usize,
    /// Batches of the log that are in no table.
    aside: Vec<Aside>,
    turns: Turns,
    since: Option<Instant>,
    /// Hot has no room: drop all that may go.
    pressed: bool,
}

struct Share {
    planner: Planner,
    /// The first offset that is not in cold.
    first: u64,
    /// The durable state of duplicates covers everything below.
    saved: u64,
    rows: Vec<RecordBatch>,
}

impl ColdWriter {
    /// Follows the log until told to stop; then commits what is there.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), WriterError> {
        let Some(mut gathered) = self.begin(&shutdown).await? else {
            return Ok(());
        };
        // Ends with this writer.
        let mut tidying = JoinSet::new();
        let age = Arc::new(Age::new(self.stores.clone(), Arc::clone(&self.counters), wall_us));
        // Before anything is written: the files that are there tell the time, where nothing else does.
        if let Err(error) = age.now().await {
            tracing::warn!(%error, "the time of retention is not known yet; it is asked for again");
        }
        tidying.spawn(self.tidy(&age).run(shutdown.clone()));
        let mut next_trim = Instant::now() + TRIM_EVERY;
        loop {
            // What is due was refused a moment ago: no more is read until it is in the table.
            let was_due = gathered.is_due(&self.options);
            let stopping = shutdown.is_cancelled();
            let moved = match !was_due && (self.drains || !stopping) {
                false => false,
                true => match self.gather(&mut gathered).await {
                    Err(error) if self.is_stored_by_another(&error, &shutdown).await => {
                        tracing::warn!(%error, "another writer has stored that; cutting again from the end of the table");
                        let Some(begun) = self.begin_anew(&gathered, &shutdown).await? else {
                            return Ok(());
                        };
                        gathered = begun;
                        continue;
                    }
                    moved => moved?,
                },
            };
            let stopping = stopping || (self.drains && shutdown.is_cancelled());
            let drained = stopping && !moved && !was_due;
            if gathered.is_due(&self.options) || drained {
                match self.commit(&mut gathered).await {
                    Ok(()) if drained => return Ok(()),
                    Ok(()) => {}
                    // Another writer has stored them, and what else there is the next start finds in the log.
                    Err(WriterError::Commit(CommitError::Overlap { .. })) if stopping => return Ok(()),
                    Err(error) if stopping => return Err(error),
                    Err(WriterError::Commit(CommitError::Overlap { .. })) => {
                        tracing::warn!("the cold table moved on by itself; cutting again from its end");
                        let Some(begun) = self.begin_anew(&gathered, &shutdown).await? else {
                            return Ok(());
                        };
                        gathered = begun;
                        continue;
                    }
                    Err(WriterError::Commit(
                        error @ (CommitError::Gap { .. } | CommitError::BadRange { .. } | CommitError::Encode(_)),
                    )) => {
                        for (partition, share) in &gathered.partitions {
                            let (first, next) = (share.first, share.planner.next());
                            tracing::error!(
                                %partition, first, next,
                                "rows of these offsets cannot be stored; `sluice log skip` lets the writers pass over a record"
                            );
                        }
                        return Err(error.into());
                    }
                    Err(error) => {
                        tracing::error!(%error, "cold commit failed; trying again");
                        self.counters
                            .commit_failures
                            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        tokio::select! { () = shutdown.cancelled() => {}, () = tokio::time::sleep(RETRY) => {} }
                        continue;
                    }
                }
            }
            if let Some(Err(error)) = tidying.try_join_next() {
                return Err(WriterError::Task(error.to_string()));
            }
            if Instant::now() >= next_trim {
                match self.trim_all(&gathered, &age).await {
                    Err(error) if error.is_passing() => {
                        tracing::warn!(%error, "the log was not trimmed, it is tried again in a minute");
                    }
                    done => done?,
                }
                next_trim = Instant::now() + TRIM_EVERY;
            }
            if !moved {
                self.wait(&mut gathered, next_trim, &shutdown).await;
            }
        }
    }

    fn tidy(&self, age: &Arc<Age>) -> Tidy {
        Tidy {
            log: Arc::clone(&self.log),
            stores: self.stores.clone(),
            beside_hot: self.beside_hot,
            quarantine: self.quarantine.clone(),
            age: Arc::clone(age),
            options: self.options.tidy.clone(),
            counters: Arc::clone(&self.counters),
        }
    }

    /// What was gathered is somebody else's by now; whoever waits for room still does.
    async fn begin_anew(
        &self,
        gathered: &Gathered,
        shutdown: &CancellationToken,
    ) -> Result<Option<Gathered>, WriterError> {
        let pressed = gathered.pressed;
        let begun = self.begin(shutdown).await?;
        Ok(begun.map(|begun| Gathered { pressed, ..begun }))
    }

    /// `None`: told to stop while the log or the lake was out of reach.
    async fn begin(&self, shutdown: &CancellationToken) -> Result<Option<Gathered>, WriterError> {
        tokio::select! {
            begun = self.begin_at_last(shutdown) => Ok(Some(begun?)),
            () = given_up(shutdown) => Ok(None),
        }
    }

    /// Waits for a lake that is out of reach.
    async fn begin_at_last(&self, shutdown: &CancellationToken) -> Result<Gathered, WriterError> {
        loop {
            match self.begin_once().await {
                Err(error) if error.is_passing() => {
                    tracing::warn!(%error, "the cold writer cannot begin yet; trying again");
                    tokio::time::sleep(RETRY).await;
                }
                Err(error) if self.is_stored_by_another(&error, shutdown).await => {
                    tracing::warn!(%error, "another writer has stored that; beginning anew");
                    tokio::time::sleep(RETRY).await;
                }
                done => return done,
            }
        }
    }

    /// The log forgets what the table holds. Who finds something gone that it has not read may be the last to hear that its partition
    /// belongs to another writer.
    async fn is_stored_by_another(&self, error: &WriterError, shutdown: &CancellationToken) -> bool {
        let WriterError::Log(LogError::Trimmed { partition, first, .. }) = error else {
            return false;
        };
        let known = async {
            loop {
                match self.stores.cold.committed().await {
                    Ok(all) => break all.get(partition).is_some_and(|last| *last + 1 >= *first),
                    Err(error) => tracing::warn!(%error, "the table is not known at the moment; asking again"),
                }
                tokio::time::sleep(RETRY).await;
            }
        };
        // Whoever is told to stop begins anew, and gives that up without an error.
        tokio::select! { known = known => known, () = given_up(shutdown) => true }
    }

    async fn begin_once(&self) -> Result<Gathered, WriterError> {
        let mut partitions = BTreeMap::new();
        for partition in self.partitions.iter().copied() {
            let quota = self.quota.as_ref();
            let begun = begin(&self.log, &self.stores, &self.snapshots, partition, &self.limits, quota).await?;
            let mut planner = begun.planner;
            if self.quarantine.is_some() {
                planner.set_aside();
            }
            let share = Share {
                first: planner.next(),
                saved: begun.saved,
                planner,
                rows: Vec::new(),
            };
            partitions.insert(partition, share);
        }
        Ok(Gathered {
            partitions,
            rows: 0,
            bytes: 0,
            aside: Vec::new(),
            turns: Turns::default(),
            since: None,
            pressed: false,
        })
    }

    /// Reads once from every partition; `false` when there was nothing to read.
    async fn gather(&self, gathered: &mut Gathered) -> Result<bool, WriterError> {
        let mut moved = false;
        for partition in gathered.turns.order(gathered.partitions.keys().copied()) {
            let Some(share) = gathered.partitions.get_mut(&partition) else {
                continue;
            };
            // After an error the planner knows nothing: whoever goes on begins anew.
            while let Some(piece) = gathered.turns.plan(&self.log, partition, &mut share.planner).await? {
                moved = true;
                let aside = share.planner.take_aside();
                gathered.bytes += aside.iter().map(|aside| aside.batch.len()).sum::<usize>();
                gathered.aside.extend(aside);
                gathered.rows += piece.rows.iter().map(RecordBatch::num_rows).sum::<usize>();
                gathered.bytes += piece.bytes;
                share.rows.extend(piece.rows);
                if self.options.is_large(gathered.rows, gathered.bytes) {
                    gathered.since.get_or_insert_with(Instant::now);
                    return Ok(true);
                }
                if !gathered.turns.has_left() {
                    break;
                }
            }
        }
        if moved {
            gathered.since.get_or_insert_with(Instant::now);
        }
        Ok(moved)
    }

    /// Keeps what is in no table, so that the log may forget it. A quarantine without room is an alarm and stops nothing else.
    async fn keep_aside(&self, gathered: &mut Gathered) -> Result<(), WriterError> {
        let Some(quarantine) = &self.quarantine else {
            return Ok(());
        };
        while let Some(aside) = gathered.aside.last() {
            let kept = quarantine.keep(
                &aside.id,
                &aside.why,
                &aside.batch,
                Some(aside.place),
                aside.ingested_at_us,
            );
            match kept.await {
                Ok(()) => {}
                Err(KeepError::Log(error)) => return Err(error.into()),
                Err(error @ (KeepError::Full { .. } | KeepError::Share { .. } | KeepError::Note(_))) => {
                    let (partition, offset) = aside.place;
                    self.counters
                        .not_set_aside
                        .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    tracing::error!(%partition, offset, %error, "a batch that cannot be stored stays in the log alone, for as long as that has it");
                }
            }
            gathered.aside.pop();
        }
        Ok(())
    }

    async fn commit(&self, gathered: &mut Gathered) -> Result<(), WriterError> {
        self.keep_aside(gathered).await?;
        let pending = |share: &Share| share.planner.next() > share.first;
        let ranges: Vec<_> = gathered
            .partitions
            .iter()
            .filter(|(_, share)| pending(share))
            .map(|(partition, share)| OffsetRange {
                partition: *partition,
                first: share.first,
                last: share.planner.next() - 1,
            })
            .collect();
        if !ranges.is_empty() {
            let rows = gathered
                .partitions
                .values()
                .flat_map(|share| share.rows.iter().cloned())
                .collect();
            crash_point("writer.cold.before_commit");
            self.stores.cold.commit(&ranges, rows).await?;
            crash_point("writer.cold.after_commit");
            for (partition, share) in &mut gathered.partitions {
                if pending(share) {
                    let next = share.planner.next();
                    self.snapshots.save(*partition, next, share.planner.snapshot()).await?;
                    share.saved = next;
                }
                share.first = share.planner.next();
                share.rows.clear();
            }
            crash_point("writer.after_snapshot");
            self.counters.committed(gathered.rows);
        }
        (gathered.rows, gathered.bytes, gathered.since) = (0, 0, None);
        let keep = if std::mem::take(&mut gathered.pressed) {
            0
        } else {
            self.options.hot_keep_bytes
        };
        if let Err(error) = self.relieve_hot(gathered, keep).await {
            // The rows are in cold; what hot keeps too long it drops after a later commit, or when it asks again.
            tracing::warn!(%error, "the seam could not be moved");
        }
        self.counters.freed.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Saying so durably comes first; a query that read the older record finds out from hot itself what is gone.
    async fn relieve_hot(&self, gathered: &Gathered, keep_bytes: u64) -> Result<(), WriterError> {
        // A server drops whole days, by itself.
        let Some(hot) = self.stores.hot.embedded().filter(|hot| hot.bytes() > keep_bytes) else {
            return Ok(());
        };
        for (partition, share) in &gathered.partitions {
            let Some(low) = share.first.checked_sub(1) else {
                continue;
            };
            let held = self.stores.seam.load(*partition).await?.low;
            if held.is_none_or(|held| held < low) {
                self.stores.seam.advance(*partition, low).await?;
            }
            crash_point("writer.seam.advanced");
            hot.drop_to(*partition, low);
        }
        Ok(())
    }

    async fn trim_all(&self, gathered: &Gathered, age: &Age) -> Result<(), WriterError> {
        let now_us = age.now().await?.us;
        for (partition, share) in &gathered.partitions {
            // What hot has not read yet must stay too.
            let hot = match (self.stores.hot.claimed(*partition), self.stores.hot.clickhouse()) {
                (Some((_, next)), _) => next,
                (None, None) if !self.beside_hot => u64::MAX,
                (None, None) => 0,
                // Some other process writes it, and says how far it is.
                (None, Some(_)) => {
                    let position = self.stores.seam.position(*partition).await?;
                    position.map_or(0, |position| position.next)
                }
            };
            let safe = share.first.min(share.saved).min(hot);
            match trim(&self.log, &self.snapshots, *partition, safe, now_us, &self.options.trim).await {
                Err(WriterError::Log(LogError::Retry { reason })) => {
                    tracing::warn!(%partition, reason, "the log was not trimmed, it is tried again in a minute");
                }
                done => done?,
            }
        }
        Ok(())
    }

    async fn wait(&self, gathered: &mut Gathered, next_trim: Instant, shutdown: &CancellationToken) {
        let more = gathered.partitions.iter().map(|(partition, share)| {
            let (log, partition, next) = (Arc::clone(&self.log), *partition, share.planner.next());
            Box::pin(async move { log.wait_beyond(partition, next).await })
        });
        let due = gathered
            .since
            .map_or(next_trim, |since| next_trim.min(since + self.options.interval));
        tokio::select! {
            () = shutdown.cancelled() => {}
            _ = futures::future::select_all(more) => {}
            () = tokio::time::sleep_until(due) => {}
            () = self.counters.pressure.notified() => gathered.pressed = true,
        }
    }
}

impl Gathered {
    fn is_due(&self, options: &ColdWriterOptions) -> bool {
        options.is_large(self.rows, self.bytes)
            || self.pressed
            || self.since.is_some_and(|since| since.elapsed() >= options.interval)
    }
}
