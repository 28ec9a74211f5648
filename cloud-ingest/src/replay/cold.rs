//! Cold from the log: one commit.

use sluice_store::cold::Replacement;
use sluice_store::{OffsetRange, Stores};

use super::source::Rows;
use super::{Progress, ReplayError, Report, When, check, erased, log_of};
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
    let snapshots = offline.snapshots(stores);
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
    let all: u64 = ranges.iter().map(|range| range.last - range.first + 1).sum();
    let mut replacement = Replacement::new(ranges.clone());
    let (mut gathered, mut rows, mut bytes, mut done) = (Vec::new(), 0, 0, 0);
    for range in ranges {
        let left_out = erased(stores).await?;
        let mut source = Rows::of_log(&log, &snapshots, left_out, range, false).await?;
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
    sluice_wal::crash_point("replay.cold.before_swap");
    let files = stores.cold.replace_with(replacement).await?;
    report.rows = files.rows;
    report.files = Some(files);
    Ok(report)
}
