//! Hot on a server, from the log or from cold: one seam record for each partition.

use std::time::Duration;

use sluice_store::hot::clickhouse::Audit;
use sluice_store::{ClickHouseHot, HotError, HotRows, OffsetRange, Seam, Stores};
use sluice_wire::ids::Partition;

use super::source::Rows;
use super::{LeftOut, Progress, RULE_ATTEMPTS, ReplayError, Report, When, check, log_of};
use crate::offline::Offline;

/// A server that takes nothing for the moment is asked again so often, with this pause.
const ATTEMPTS: u32 = 60;
const PAUSE: Duration = Duration::from_secs(1);

/// Makes what hot holds of a time again. From cold it needs no log: `offline` is then absent.
pub async fn replay_hot(
    offline: Option<&Offline>,
    stores: &Stores,
    when: When,
    progress: &dyn Progress,
) -> Result<Report, ReplayError> {
    let hot = stores.hot.clickhouse().ok_or(ReplayError::EmbeddedHot)?;
    if let Some(offline) = offline {
        check(offline, stores).await?;
    }
    hot.prepare().await?;
    let mut ranges = Vec::new();
    for partition in stores.seam.partitions().await? {
        if let Some(range) = range(offline, stores, partition, when).await? {
            ranges.push(range);
        }
    }
    all(offline, stores, hot, ranges, progress).await
}

/// Makes all that hot holds again from cold, as far as that has it: without what was erased there.
pub(crate) async fn replay_tail(stores: &Stores, progress: &dyn Progress) -> Result<Report, ReplayError> {
    let hot = stores.hot.clickhouse().ok_or(ReplayError::EmbeddedHot)?;
    hot.prepare().await?;
    let committed = stores.cold.committed().await?;
    let mut ranges = Vec::new();
    for partition in stores.seam.partitions().await? {
        let record = stores.seam.load(partition).await?;
        let position = stores.seam.position(partition).await?;
        let Some(position) = position.filter(|position| position.generation == record.generation()) else {
            // Its writer is about to begin above cold.
            continue;
        };
        let first = record.low.map_or(record.begin, |low| low + 1);
        let next = committed.get(&partition).map_or(0, |held| held + 1).min(position.next);
        if first < next {
            let last = next - 1;
            ranges.push(OffsetRange { partition, first, last });
        }
    }
    all(None, stores, hot, ranges, progress).await
}

async fn all(
    offline: Option<&Offline>,
    stores: &Stores,
    hot: &ClickHouseHot,
    ranges: Vec<OffsetRange>,
    progress: &dyn Progress,
) -> Result<Report, ReplayError> {
    let all: u64 = ranges.iter().map(|range| range.last - range.first + 1).sum();
    let (mut rows, mut done) = (0, 0);
    for (at, range) in ranges.iter().enumerate() {
        let before = done;
        let told = |more: u64| progress.step(before + more, all);
        rows += match one(offline, stores, hot, *range, &told).await {
            Err(source) if at > 0 => {
                return Err(ReplayError::Partly {
                    done: ranges[..at].to_vec(),
                    of: ranges.len(),
                    source: Box::new(source),
                });
            }
            made => made?,
        };
        done += range.last - range.first + 1;
    }
    Ok(Report {
        ranges,
        rows,
        files: None,
    })
}

/// The offsets of a partition that are made again: those of the time, and up to L where they begin below it. Nothing that its
/// writer has not saved as whole.
async fn range(
    offline: Option<&Offline>,
    stores: &Stores,
    partition: Partition,
    when: When,
) -> Result<Option<OffsetRange>, ReplayError> {
    let record = stores.seam.load(partition).await?;
    let position = stores.seam.position(partition).await?;
    let position = position.filter(|position| position.generation == record.generation());
    let Some(position) = position.filter(|_| !record.claims.is_empty()) else {
        return Err(ReplayError::Unwritten { partition });
    };
    let (mut high, mut low) = (position.next, 0);
    let (first, next) = match offline {
        Some(offline) => {
            let log = offline.log();
            low = log.first(partition).max(low);
            let first = log.first_since(partition, low, high, when.from_us).await?;
            (first, log.first_since(partition, first, high, when.to_us).await?)
        }
        None => {
            // Cold has no more.
            let held = stores
                .cold
                .committed()
                .await?
                .get(&partition)
                .map_or(0, |held| held + 1);
            high = high.min(held);
            let since = |cutoff| stores.first_in_cold_since(partition, cutoff);
            let first = since(when.from_us).await?.unwrap_or(high).max(low);
            (first.min(high), since(when.to_us).await?.unwrap_or(high).min(high))
        }
    };
    if next <= first {
        return Ok(None);
    }
    // Up to L, and up to where the first claim begins: no offset between may be nobody's.
    let begin = record.claims.iter().map(|claim| claim.from).min();
    let before_begin = begin.filter(|begin| first < *begin).map(|begin| begin - 1);
    let at_least = [record.low.filter(|low| first <= *low), before_begin];
    let last = at_least.into_iter().flatten().fold(next - 1, u64::max);
    Ok(Some(OffsetRange { partition, first, last }))
}

/// Makes a range again, and anew if something is erased meanwhile. Returns how many rows there are.
async fn one(
    offline: Option<&Offline>,
    stores: &Stores,
    hot: &ClickHouseHot,
    range: OffsetRange,
    told: &(dyn Fn(u64) + Sync),
) -> Result<u64, ReplayError> {
    for _ in 0..RULE_ATTEMPTS {
        let left_out = LeftOut::read(stores).await?;
        if let Some(rows) = attempt(offline, stores, hot, range, &left_out, told).await? {
            return Ok(rows);
        }
        tracing::info!(partition = %range.partition, "something was erased meanwhile; its rows are left out, too");
    }
    Err(ReplayError::RulesChange)
}

/// Inserts the rows of a range, counts them, and lets them count. `None`: something was erased since, and nothing of it counts.
async fn attempt(
    offline: Option<&Offline>,
    stores: &Stores,
    hot: &ClickHouseHot,
    range: OffsetRange,
    left_out: &LeftOut,
    told: &(dyn Fn(u64) + Sync),
) -> Result<Option<u64>, ReplayError> {
    let OffsetRange { partition, first, last } = range;
    let erasures = left_out.erasures.clone();
    let mut source = match offline {
        Some(offline) => {
            let log = log_of(offline, stores).await?;
            Rows::of_log(&log, &offline.snapshots(stores), erasures, range, true).await?
        }
        None => Rows::of_cold(stores, erasures, range).await?,
    };
    let generation = stores.seam.reserve(partition).await?;
    let mut rows = 0;
    while let Some((piece, batches)) = source.next().await? {
        rows += batches.iter().map(|batch| batch.num_rows() as u64).sum::<u64>();
        insert(
            hot,
            generation,
            HotRows {
                range: piece,
                rows: batches,
            },
        )
        .await?;
        told(piece.last + 1 - first);
    }
    sluice_wal::crash_point("replay.hot.before_audit");
    let record = stores.seam.load(partition).await?;
    let after = Seam::with_replay(&record, partition, (first, last), generation)?;
    if let Audit::Lost { what } = hot.audit(partition, &after, last + 1).await? {
        return Err(ReplayError::NotWhole { partition, what });
    }
    sluice_wal::crash_point("replay.hot.before_swap");
    // Whoever takes erased rows out of hot waits for longer than the next step takes.
    if !left_out.is_all(stores).await? {
        return Ok(None);
    }
    stores.seam.replay(partition, (first, last), generation).await?;
    tracing::info!(%partition, first, last, generation, rows, "hot was made again");
    Ok(Some(rows))
}

/// Nothing of the generation counts yet, but a row must not be there twice: an unknown outcome ends the replay.
async fn insert(hot: &ClickHouseHot, generation: u64, slice: HotRows) -> Result<(), HotError> {
    for _ in 1..ATTEMPTS {
        match hot.insert_replayed(generation, slice.clone()).await {
            Err(HotError::Busy { reason }) => {
                tracing::warn!(reason, "hot takes nothing at the moment; trying again");
                tokio::time::sleep(PAUSE).await;
            }
            other => return other,
        }
    }
    hot.insert_replayed(generation, slice).await
}
