//! Cold from the log: one commit. It may bring back what was erased after it began to read, so it looks before the commit and after it.

use sluice_store::cold::{Cleaned, Replacement};
use sluice_store::{OffsetRange, Stores};

use super::source::Rows;
use super::{LeftOut, Progress, RULE_ATTEMPTS, ReplayError, Report, When, check, log_of};
use crate::offline::Offline;

/// Rows of one piece of writing, about: what a commit of the cold writer has.
const MAX_ROWS: usize = 200_000;
const MAX_BYTES: usize = 192 << 20;

/// Makes what cold holds of a time again from the log.
pub async fn replay_cold(
    offline: &Offline,
    stores: &Stores,
    when: When,
    progress: &dyn Progress,
) -> Result<Report, ReplayError> {
    check(offline, stores).await?;
    let log = log_of(offline, stores).await?;
    let committed = stores.cold.committed().await?;
    let mut ranges = Vec::new();
    for partition in log.partitions() {
        let Some(held) = committed.get(&partition) else {
            continue;
        };
        let (low, high) = (log.first(partition), held + 1);
        let first = log.first_since(partition, low, high, when.from_us).await?;
        let next = log.first_since(partition, first, high, when.to_us).await?;
        if first < next {
            let last = next - 1;
            ranges.push(OffsetRange { partition, first, last });
        }
    }
    let mut report = Report {
        ranges: ranges.clone(),
        ..Report::default()
    };
    if ranges.is_empty() {
        return Ok(report);
    }
    for _ in 0..RULE_ATTEMPTS {
        let left_out = LeftOut::read(stores).await?;
        let made = make(offline, stores, &ranges, &left_out, progress).await?;
        sluice_wal::crash_point("replay.cold.before_swap");
        if !left_out.is_all(stores).await? {
            tracing::info!("something was erased meanwhile; its rows are left out, too");
            stores.cold.abandon(made).await;
            continue;
        }
        let files = stores.cold.replace_with(made).await?;
        if !left_out.is_all(stores).await? {
            let since = LeftOut::read(stores).await?;
            stores.cold.erase(&since.erasures, &mut Cleaned::default()).await?;
        }
        report.rows = files.rows;
        report.files = Some(files);
        return Ok(report);
    }
    Err(ReplayError::RulesChange)
}

/// Writes the rows of the ranges, invisibly.
async fn make(
    offline: &Offline,
    stores: &Stores,
    ranges: &[OffsetRange],
    left_out: &LeftOut,
    progress: &dyn Progress,
) -> Result<Replacement, ReplayError> {
    let log = log_of(offline, stores).await?;
    let snapshots = offline.snapshots(stores);
    let all: u64 = ranges.iter().map(|range| range.last - range.first + 1).sum();
    let mut replacement = Replacement::new(ranges.to_vec());
    let (mut gathered, mut rows, mut bytes, mut done) = (Vec::new(), 0, 0, 0);
    for range in ranges {
        let mut source = Rows::of_log(&log, &snapshots, left_out.erasures.clone(), *range, false).await?;
        while let Some((piece, batches)) = source.next().await? {
            for batch in &batches {
                rows += batch.num_rows();
                bytes += batch.get_array_memory_size();
            }
            gathered.extend(batches);
            done += piece.last - piece.first + 1;
            progress.step(done, all);
            if rows >= MAX_ROWS || bytes >= MAX_BYTES {
                stores
                    .cold
                    .add_to(&mut replacement, std::mem::take(&mut gathered))
                    .await?;
                (rows, bytes) = (0, 0);
            }
        }
    }
    stores.cold.add_to(&mut replacement, gathered).await?;
    Ok(replacement)
}
