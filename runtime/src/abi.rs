//! The border to a guest: bindings made from `wit/plugin.wit`, and the host's side of it.

use std::sync::Arc;
use std::time::Duration;

use wasmtime::ResourceLimiter;

use crate::clock::{ThreadTime, WallTime};
use crate::log::LogSink;

#[allow(missing_debug_implementations, unreachable_pub, clippy::all)]
mod bindings {
    wasmtime::component::bindgen!({ path: "../wit/released/0.1.0", world: "transform" });
}

pub(crate) use bindings::sluice::plugin::log as host_log;
pub(crate) use bindings::sluice::plugin::types::{Context, Description, DropCount, Kind, Outcome, Signal};
pub(crate) use bindings::{Transform, TransformPre};

/// What one instance has of the host.
#[derive(Debug)]
pub(crate) struct HostState {
    pub(crate) memory: MemoryLimiter,
    pub(crate) deadline: Deadline,
    pub(crate) log: Arc<LogSink>,
}

impl host_log::Host for HostState {
    fn write(&mut self, level: host_log::Level, line: String) {
        self.log.write(level, &line);
    }
}

impl bindings::sluice::plugin::types::Host for HostState {}

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

/// Grants memory and tables up to the limit of the whole instance, however many memories a component has.
#[derive(Debug)]
pub(crate) struct MemoryLimiter {
    limit: usize,
    used: usize,
    denied: bool,
}

/// Entries of all tables: function pointers, of which the largest known guest (an embedded Python) has 12,000.
const MAX_TABLE_ENTRIES: usize = 100_000;
/// Core instances, memories and tables of one component: adapters need a few.
const MAX_PARTS: usize = 32;

impl MemoryLimiter {
    pub(crate) fn new(limit: usize) -> Self {
        MemoryLimiter {
            limit,
            used: 0,
            denied: false,
        }
    }

    /// Linear memory never shrinks, so this is the high-water mark.
    pub(crate) fn used(&self) -> usize {
        self.used
    }

    /// Whether the guest was denied memory.
    pub(crate) fn denied(&self) -> bool {
        self.denied
    }
}

impl ResourceLimiter for MemoryLimiter {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let used = self.used.saturating_add(desired.saturating_sub(current));
        if used > self.limit || maximum.is_some_and(|maximum| desired > maximum) {
            self.denied = true;
            return Ok(false);
        }
        self.used = used;
        Ok(true)
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= MAX_TABLE_ENTRIES)
    }

    fn instances(&self) -> usize {
        MAX_PARTS
    }

    fn tables(&self) -> usize {
        MAX_PARTS
    }

    fn memories(&self) -> usize {
        MAX_PARTS
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn memory_is_limited_over_all_memories() {
        let mut limiter = MemoryLimiter::new(1000);
        assert!(limiter.memory_growing(0, 600, None).unwrap());
        assert!(!limiter.memory_growing(0, 600, None).unwrap());
        assert!(limiter.denied());
        assert!(limiter.memory_growing(0, 400, None).unwrap());
        assert_eq!(limiter.used(), 1000);
        assert!(!limiter.memory_growing(400, usize::MAX, None).unwrap());
    }
}
