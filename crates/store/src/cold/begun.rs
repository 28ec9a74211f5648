//! How long ago files were begun that no version names yet. The janitor removes such files after days: whoever slept meanwhile, as a machine
//! that is switched off or a process that is stopped, must not name files that may be gone.

use std::time::{Duration, Instant};

use super::commit::now_ms;

/// When the first of some files was begun.
#[derive(Clone, Copy, Debug)]
pub(super) struct Begun {
    at: Instant,
    at_ms: i64,
    /// The files are not named after so long.
    most: Duration,
}

impl Begun {
    pub(super) fn now(most: Duration) -> Self {
        Self {
            at: Instant::now(),
            at_ms: now_ms(),
            most,
        }
    }

    /// Neither clock alone sees everything: one stands still while the machine sleeps, the other may be set.
    pub(super) fn is_old(&self) -> bool {
        let by_date = u64::try_from(now_ms().saturating_sub(self.at_ms)).unwrap_or(0);
        self.at.elapsed().max(Duration::from_millis(by_date)) > self.most
    }
}
