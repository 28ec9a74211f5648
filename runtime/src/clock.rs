//! The clocks of this crate: time of the thread for budgets and costs, time of the wall for breakers and rates.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// A point in the processor time of the calling thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ThreadTime(Duration);

impl ThreadTime {
    pub(crate) fn now() -> Self {
        let now = clock_gettime(ClockId::ThreadCPUTime);
        ThreadTime(Duration::new(
            u64::try_from(now.tv_sec).unwrap_or(0),
            u32::try_from(now.tv_nsec).unwrap_or(0),
        ))
    }

    /// Processor time since then; meaningful on the same thread only.
    pub(crate) fn elapsed(self) -> Duration {
        Self::now().0.saturating_sub(self.0)
    }
}

/// A point in monotonic time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WallTime(Instant);

impl WallTime {
    pub(crate) fn now() -> Self {
        WallTime(Instant::now())
    }

    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }

    pub(crate) fn elapsed_ms(self) -> u64 {
        u64::try_from(self.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
