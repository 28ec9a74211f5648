//! The time of day, which certificates are judged by: durations of the link are monotonic. It is asked for here alone.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

/// Tells the time of day.
pub type WallClock = Arc<dyn TimeProvider>;

/// The clock of this machine.
#[derive(Debug)]
pub struct SystemClock;

impl TimeProvider for SystemClock {
    fn current_time(&self) -> Option<UnixTime> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.ok().map(UnixTime::since_unix_epoch)
    }
}

/// Seconds since 1970; 0 on a clock that stands before that.
pub(super) fn unix_s(clock: &WallClock) -> i64 {
    let now = clock.current_time().map_or(0, |now| now.as_secs());
    i64::try_from(now).unwrap_or(i64::MAX)
}
