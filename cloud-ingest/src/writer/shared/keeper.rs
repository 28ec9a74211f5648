//! Looks after a shared hot store beside its writer: the view of the rows that count, days that may leave, rows of lost claims.
//!
//! What a query may still read stays: nothing is deleted before it has been out of reach for as long as a query may run, by this
//! process's own monotonic clock.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sluice_store::SeamRecord;
use sluice_store::hot::clickhouse::Day;
use sluice_wire::ids::Partition;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::SharedHotWriter;
use super::retention::{Keep, leaving};
use crate::writer::WriterError;
use crate::writer::age::wall_us;

const EVERY: Duration = Duration::from_secs(60);
/// For seam records that a query holds for up to a second, and for a clock that ticks a little faster.
const MARGIN: Duration = Duration::from_secs(10);
const SECONDS_PER_DAY: u64 = 86_400;
/// Deleting rows of lost claims rewrites parts.
const SWEEP_EVERY: Duration = Duration::from_secs(3600);

/// The task beside the writer.
pub(super) struct Keeper {
    writer: SharedHotWriter,
    /// Days that are out of reach, and since when.
    waiting: BTreeMap<String, Instant>,
    /// What the seam said when rows of lost claims were first seen.
    dead: BTreeMap<Partition, (Instant, SeamRecord)>,
    next_sweep: Instant,
}

impl Keeper {
    pub(super) fn new(writer: SharedHotWriter) -> Self {
        Self {
            writer,
            waiting: BTreeMap::new(),
            dead: BTreeMap::new(),
            next_sweep: Instant::now(),
        }
    }

    /// Runs until told to stop. What fails is tried again at the next turn.
    pub(super) async fn run(mut self, shutdown: CancellationToken) {
        let turns = async {
            loop {
                tokio::time::sleep(EVERY).await;
                if let Err(error) = self.turn().await {
                    tracing::warn!(%error, source = ?std::error::Error::source(&error).map(ToString::to_string), "hot was not tidied");
                }
            }
        };
        tokio::select! { () = shutdown.cancelled() => {}, () = turns => {} }
    }

    async fn turn(&mut self) -> Result<(), WriterError> {
        let seam = self.writer.seam_records().await?;
        self.writer.hot.show(&seam).await?;
        self.drop_days(seam).await?;
        if Instant::now() >= self.next_sweep {
            self.sweep().await?;
        }
        Ok(())
    }

    /// Moves L over the days that may leave, and drops those that have been below L for long enough.
    async fn drop_days(&mut self, mut seam: BTreeMap<Partition, SeamRecord>) -> Result<(), WriterError> {
        let options = &self.writer.options;
        let days = self.writer.hot.days(&seam).await?;
        let cold = self.writer.stores.cold.committed().await?;
        let keep = Keep {
            oldest: oldest_day(self.writer.stores.believed_us(wall_us()).await?, options.keep),
            bytes: options.keep_bytes,
        };
        let leaving = leaving(&days, keep, &cold);
        for (partition, highest) in leaving.iter().flat_map(|day| &day.highest) {
            let Some(known) = seam.get(partition) else { continue };
            if known.low.is_none_or(|low| low < *highest) {
                // A replay may have made the rows of the day again since they were looked at: then L must not move over them.
                let moved = self.writer.stores.seam.advance_after(*partition, known, *highest);
                let record = moved.await?;
                seam.insert(*partition, record);
            }
        }
        let out_of_reach: Vec<&Day> = leaving.iter().filter(|day| is_below(day, &seam)).collect();
        self.waiting
            .retain(|name, _| out_of_reach.iter().any(|day| day.name == *name));
        for day in out_of_reach {
            let since = *self.waiting.entry(day.name.clone()).or_insert_with(Instant::now);
            if since.elapsed() >= self.writer.options.query_limit + MARGIN {
                self.writer.hot.drop_day(day).await?;
                self.waiting.remove(&day.name);
                tracing::info!(day = day.name, bytes = day.bytes, "a day left hot");
            }
        }
        Ok(())
    }

    async fn sweep(&mut self) -> Result<(), WriterError> {
        let seam = self.writer.seam_records().await?;
        let found = self.writer.hot.with_dead_rows(&seam).await?;
        self.dead.retain(|partition, _| found.contains(partition));
        for partition in found {
            let Some(record) = seam.get(&partition) else { continue };
            let (since, known) = self
                .dead
                .entry(partition)
                .or_insert_with(|| (Instant::now(), record.clone()))
                .clone();
            // A claim that is lost stays lost, so the older records say nothing wrong.
            if since.elapsed() >= self.writer.options.query_limit + MARGIN {
                self.writer.hot.delete_dead_rows(partition, &known).await?;
                self.dead.remove(&partition);
                self.next_sweep = Instant::now() + SWEEP_EVERY;
                self.writer.counters.hot_sweeps.fetch_add(1, Ordering::Relaxed);
                tracing::info!(%partition, "rows of lost claims were deleted from hot");
            }
        }
        Ok(())
    }
}

fn is_below(day: &Day, seam: &BTreeMap<Partition, SeamRecord>) -> bool {
    day.highest.iter().all(|(partition, highest)| {
        let low = seam.get(partition).and_then(|record| record.low);
        low.is_some_and(|low| *highest <= low)
    })
}

/// In days since 1970, by the time that the cold writers believe: nothing leaves for its age by a clock that has jumped.
fn oldest_day(now_us: i64, keep: Duration) -> u64 {
    let now = Duration::from_micros(u64::try_from(now_us).unwrap_or(0));
    now.saturating_sub(keep).as_secs() / SECONDS_PER_DAY
}
