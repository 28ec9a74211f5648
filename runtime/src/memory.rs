//! Memory of one instance, granted up to its limit.

use wasmtime::ResourceLimiter;

/// Grants memory and tables up to the limit of the whole instance, however many memories a component has.
#[derive(Debug)]
pub(crate) struct MemoryLimiter {
    limit: usize,
    used: usize,
    denied: bool,
}

/// Entries of all tables: function pointers, of which the largest known guest (an embedded Python) has 12,000.
const MAX_TABLE_ENTRIES: usize = 100_000;
/// Memories and tables of one component: adapters need a few.
const MAX_PARTS: usize = 32;
/// Core instances of one component: an embedded Python with its stubs has some forty.
const MAX_INSTANCES: usize = 256;

impl MemoryLimiter {
    pub(crate) fn new(limit: usize) -> Self {
        MemoryLimiter {
            limit,
            used: 0,
            denied: false,
        }
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// For the call that begins; memory that is used stays.
    pub(crate) fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
        self.denied = false;
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
        MAX_INSTANCES
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
