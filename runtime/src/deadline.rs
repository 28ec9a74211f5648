//! Time that a call may take.

use std::time::Duration;

use crate::clock::{ThreadTime, WallTime};

/// Time that the running call may still take. It counts the time of the thread, so that a busy machine does not make
/// an innocent guest fail; a guest cannot sleep. The time of the wall is bounded too, for what the host calls may wait.
#[derive(Debug)]
pub(crate) struct Deadline {
    budget: Duration,
    thread: ThreadTime,
    wall: WallTime,
}

/// How much longer than its own time a call may take on the wall, and what it may take at least: a guest cannot wait
/// for anything but a processor, and an overloaded machine must not cost anyone his events.
const WALL_FACTOR: u32 = 20;
const WALL_FLOOR: Duration = Duration::from_secs(5);

impl Deadline {
    pub(crate) fn start(budget: Duration) -> Self {
        Deadline {
            budget,
            thread: ThreadTime::now(),
            wall: WallTime::now(),
        }
    }

    pub(crate) fn passed(&self) -> bool {
        self.thread.elapsed() >= self.budget
            || self.wall.elapsed() >= self.budget.saturating_mul(WALL_FACTOR).max(WALL_FLOOR)
    }

    pub(crate) fn budget(&self) -> Duration {
        self.budget
    }
}
