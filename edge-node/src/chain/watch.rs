//! Follows the store and the places of the chain for as long as the node runs.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::Keeper;
use crate::sealer::blocking;

/// Between two looks at the store.
const STORE_INTERVAL: Duration = Duration::from_secs(1);

/// Ends with the token.
pub(crate) async fn run(keeper: Arc<Keeper>, stop: CancellationToken) {
    let happened = Arc::new(Notify::new());
    let waker = happened.clone();
    keeper.chain().watch(move || waker.notify_one());
    // What happened before somebody watched.
    happened.notify_one();
    let mut look = tokio::time::interval(STORE_INTERVAL);
    // A compiler may take longer than the interval; what was missed meanwhile is one look.
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let keeper = keeper.clone();
        tokio::select! {
            () = happened.notified() => blocking(move || keeper.follow_events()).await,
            _ = look.tick() => blocking(move || keeper.follow_store()).await,
            // A version that failed just now must not be loaded by the next start.
            () = stop.cancelled() => return blocking(move || keeper.follow_events()).await,
        }
    }
}
