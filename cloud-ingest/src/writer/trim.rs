//! What the embedded log may forget: what cold holds, what a durable state of duplicates covers, and what is older than the
//! replay window.

use std::sync::Arc;
use std::time::Duration;

use sluice_wire::ids::Partition;

use crate::log::{Log, LogError};

/// How long and how much of what is safe elsewhere stays for replays.
#[derive(Clone, Debug)]
pub struct TrimOptions {
    pub replay_window: Duration,
    /// Of one partition; a larger log forgets earlier than the window says.
    pub max_bytes: u64,
}

/// Forgets what it may. Everything below `safe` is in cold and covered by a durable state of duplicates.
pub(super) async fn trim(
    log: &Arc<dyn Log>,
    partition: Partition,
    safe: u64,
    now_us: i64,
    options: &TrimOptions,
) -> Result<(), LogError> {
    let first = log.first(partition);
    if safe <= first {
        return Ok(());
    }
    let window = i64::try_from(options.replay_window.as_micros()).unwrap_or(i64::MAX);
    let cutoff = now_us.saturating_sub(window);
    let mut below = first_since(log, partition, first, safe, cutoff).await?;
    if log.bytes(partition) > options.max_bytes {
        // Half of what may go, each time: the log has whole segments, and the next look will find it smaller.
        below = below.max(first + (safe - first).div_ceil(2));
    }
    if below > first {
        log.trim(partition, below).await?;
    }
    Ok(())
}

/// The first offset in `low..high` whose record arrived at or after `cutoff`; arrival times grow with the offset but for the
/// clock's small steps, which a window of days does not feel.
async fn first_since(
    log: &Arc<dyn Log>,
    partition: Partition,
    mut low: u64,
    mut high: u64,
    cutoff: i64,
) -> Result<u64, LogError> {
    while low < high {
        let middle = low + (high - low) / 2;
        let arrived = log
            .read(partition, middle, 1)
            .await?
            .first()
            .map_or(0, |record| record.ingested_at_us);
        if arrived < cutoff {
            low = middle + 1
        } else {
            high = middle
        }
    }
    Ok(low)
}
