//! What the log may forget: what cold holds, what a durable state of duplicates covers, and what is older than the
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
    let mut below = log.first_since(partition, first, safe, cutoff).await?;
    if log.bytes(partition) > options.max_bytes {
        // Half of what may go, each time: the log has whole segments, and the next look will find it smaller.
        below = below.max(first + (safe - first).div_ceil(2));
    }
    if below > first {
        log.trim(partition, below).await?;
    }
    Ok(())
}
