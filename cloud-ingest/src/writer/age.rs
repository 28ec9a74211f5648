//! The time by which this process deletes for age, remembered over restarts: `sluice_store::erase::AgeClock` says when a wall clock is
//! believed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sluice_store::Stores;
use sluice_store::erase::AgeClock;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::WriterError;
use crate::status::WriterCounters;

/// What a process that dies forgets of it counts as a step of the clock at the next start.
const SAVE_EVERY: Duration = Duration::from_secs(3600);
/// An alarm that nobody hears is said again.
const WARN_EVERY: Duration = Duration::from_secs(3600);

/// The wall clock, in microseconds since 1970.
pub(super) type Wall = fn() -> i64;

pub(super) fn wall_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// The time of one process.
pub(super) struct Age {
    stores: Stores,
    counters: Arc<WriterCounters>,
    wall: Wall,
    state: Mutex<Option<State>>,
}

struct State {
    clock: AgeClock,
    looked: Instant,
    saved: Option<Instant>,
    warned: Option<Instant>,
}

/// What the time is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Now {
    /// What may be deleted by, in microseconds since 1970; never ahead of the wall clock.
    pub(super) us: i64,
    /// The wall clock is not believed.
    pub(super) is_held: bool,
}

impl Age {
    pub(super) fn new(stores: Stores, counters: Arc<WriterCounters>, wall: Wall) -> Self {
        Self {
            stores,
            counters,
            wall,
            state: Mutex::default(),
        }
    }

    /// The time now. Nothing is deleted for its age while the lake cannot say what the time was.
    pub(super) async fn now(&self) -> Result<Now, WriterError> {
        let mut held = self.state.lock().await;
        let saved = self.stores.age_clock().await?;
        let (wall, looked) = ((self.wall)(), Instant::now());
        let mut state = match (held.take(), saved) {
            (Some(state), _) => state,
            (None, saved) => State {
                clock: match saved {
                    Some(clock) => clock,
                    None => AgeClock::begin(wall, self.stores.cold.newest_file_us().await?),
                },
                looked,
                saved: None,
                warned: None,
            },
        };
        let elapsed = i64::try_from(looked.duration_since(state.looked).as_micros()).unwrap_or(i64::MAX);
        state.looked = looked;
        let before = state.clock.at_us;
        let mut ahead = state.clock.look(wall, elapsed);
        if state.clock.at_us < before {
            // What was believed too far must not be found again.
            state.saved = None;
        } else if saved.is_some_and(|saved| state.clock.adopt(saved, wall)) {
            ahead = wall.saturating_sub(state.clock.at_us);
            state.saved = None;
        }
        self.tell(&mut state, ahead, looked);
        let now = Now {
            us: state.clock.at_us,
            is_held: ahead > 0,
        };
        let is_due = state
            .saved
            .is_none_or(|saved| looked.duration_since(saved) >= SAVE_EVERY);
        let mut done = Ok(());
        if is_due {
            done = self.stores.save_age_clock(&state.clock).await;
            state.saved = done.is_ok().then_some(looked);
        }
        *held = Some(state);
        done?;
        Ok(now)
    }

    fn tell(&self, state: &mut State, ahead: i64, looked: Instant) {
        let seconds = u64::try_from(ahead / 1_000_000).unwrap_or(0);
        self.counters.clock_ahead_s.store(seconds, Ordering::Relaxed);
        if ahead == 0 {
            state.warned = None;
            return;
        }
        if state
            .warned
            .is_none_or(|warned| looked.duration_since(warned) >= WARN_EVERY)
        {
            state.warned = Some(looked);
            tracing::error!(
                ahead_seconds = seconds,
                "the clock of this machine stepped further to the front than a rest explains: what is deleted for its age is deleted by the time \
                 that was believed before. Set the clock right; or, if it is right because ingest rested for so long, say so with \
                 `sluice ingest retention --config FILE --trust-clock`"
            );
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::AtomicI64;

    use super::*;

    const DAY: i64 = 86_400_000_000;
    const NOW: i64 = 20_000 * DAY;

    static WALL: AtomicI64 = AtomicI64::new(NOW);

    /// A process that starts with a clock a year ahead believes what the one before it believed, until somebody says otherwise.
    #[tokio::test]
    async fn the_time_is_remembered_over_restarts() {
        let folder = tempfile::tempdir().unwrap();
        let stores = Stores::open(folder.path().to_str().unwrap(), 0).await.unwrap();
        let counters: Arc<WriterCounters> = Arc::default();
        let start = || Age::new(stores.clone(), Arc::clone(&counters), || WALL.load(Ordering::Relaxed));
        let set = |us| WALL.store(us, Ordering::Relaxed);
        let ahead = || counters.clock_ahead_s.load(Ordering::Relaxed);
        assert_eq!(
            start().now().await.unwrap(),
            Now {
                us: NOW,
                is_held: false
            }
        );
        set(NOW + 365 * DAY);
        for _ in 0..3 {
            let now = start().now().await.unwrap();
            assert!(now.is_held && now.us < NOW + DAY / 2, "{now:?}");
            assert!(ahead() > 364 * 86_400);
        }
        let running = start();
        assert!(running.now().await.unwrap().is_held);
        stores
            .save_age_clock(&AgeClock::trusted(NOW + 365 * DAY))
            .await
            .unwrap();
        assert_eq!(
            running.now().await.unwrap(),
            Now {
                us: NOW + 365 * DAY,
                is_held: false
            }
        );
        assert_eq!(ahead(), 0);
        // It was wrong all the same: once it is set right, it is not believed again.
        set(NOW + DAY);
        assert_eq!(running.now().await.unwrap().us, NOW + DAY);
        set(NOW + 365 * DAY);
        assert!(running.now().await.unwrap().is_held && start().now().await.unwrap().is_held);
    }
}
