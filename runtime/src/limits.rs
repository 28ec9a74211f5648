//! What a plugin may use. Every limit stands here, with its unit and where its default comes from.

use std::time::Duration;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// The limits of one plugin. All of them hold at any time; none can be switched off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of linear memory of one instance. A batch of two megabytes, its masked copy and an allocator fit in 16 MiB;
    /// an interpreter needs up to 256 MiB.
    pub memory_bytes: usize,
    /// Bytes of stack of one call. Compiled guests use a few KiB; a JSON parser at depth 64 stays under 100 KiB.
    pub stack_bytes: usize,
    /// Time that a call may take whatever its size: an instance starts in 0.3 ms, so this is mostly slack for a busy machine.
    pub deadline: Duration,
    /// Time added for each row: ten times what masking a row costs.
    pub deadline_per_row: Duration,
    /// Bytes of Arrow in one hand-over to the guest. A larger batch is handed over in slices.
    pub max_input_bytes: usize,
    /// Bytes that one call may give back, whatever it was given.
    pub max_output_bytes: usize,
    /// How many times its input a call may give back (small inputs count as `MIN_OUTPUT_BYTES / max_output_ratio`).
    pub max_output_ratio: usize,
    /// Bytes of one line of the plugin's log; the rest of the line is cut.
    pub log_bytes: usize,
    /// Lines of log per second; the rest is counted and not written.
    pub log_lines_per_second: u32,
    /// Batches after which an instance is replaced by a fresh one, so that a leak in a guest stays small.
    pub recycle_after: u32,
    /// Instances kept for reuse, each with its memory: as many as threads that accept at once on a small machine.
    pub idle_instances: usize,
    /// Instances at work at once; the next call waits.
    pub max_instances: usize,
}

/// An answer of this size is allowed for any input: the schema message alone of a wide batch takes some KiB.
pub(crate) const MIN_OUTPUT_BYTES: usize = 64 * KIB;
/// Ceiling of `memory_bytes`: what an interpreted guest may ask for.
pub const MAX_MEMORY_BYTES: usize = 256 * MIB;
/// Floor of `memory_bytes`: less than this and no Rust guest starts.
pub const MIN_MEMORY_BYTES: usize = 2 * MIB;
/// Ceiling of `stack_bytes`: calls run on threads of the host, whose own stacks are 2 MiB.
pub const MAX_STACK_BYTES: usize = MIB;
/// A component larger than this is not compiled; the largest known (an embedded Python) has 18 MB.
pub const MAX_COMPONENT_BYTES: usize = 64 * MIB;

impl Default for Limits {
    fn default() -> Self {
        Limits {
            memory_bytes: 16 * MIB,
            stack_bytes: 512 * KIB,
            deadline: Duration::from_millis(20),
            deadline_per_row: Duration::from_micros(5),
            max_input_bytes: 2 * MIB,
            max_output_bytes: 8 * MIB,
            max_output_ratio: 4,
            log_bytes: KIB,
            log_lines_per_second: 100,
            recycle_after: 10_000,
            idle_instances: 4,
            max_instances: 16,
        }
    }
}

impl Limits {
    /// For guests that carry an interpreter (JavaScript, Python).
    pub fn interpreted() -> Self {
        Limits {
            memory_bytes: 128 * MIB,
            deadline: Duration::from_millis(50),
            deadline_per_row: Duration::from_micros(50),
            idle_instances: 1,
            max_instances: 2,
            ..Limits::default()
        }
    }

    /// The time that a call with this many rows may take.
    pub fn deadline_for(&self, rows: usize) -> Duration {
        let rows = u32::try_from(rows).unwrap_or(u32::MAX);
        self.deadline.saturating_add(self.deadline_per_row.saturating_mul(rows))
    }

    /// The bytes that a call with an input of this size may give back.
    pub fn output_for(&self, input_bytes: usize) -> usize {
        input_bytes
            .saturating_mul(self.max_output_ratio)
            .max(MIN_OUTPUT_BYTES)
            .min(self.max_output_bytes)
    }

    /// What is wrong with these limits, if anything.
    pub(crate) fn fault(&self) -> Option<String> {
        let range = |name: &str, value: usize, min: usize, max: usize| {
            (value < min || value > max).then(|| format!("{name} = {value} is not between {min} and {max}"))
        };
        range("memory_bytes", self.memory_bytes, MIN_MEMORY_BYTES, MAX_MEMORY_BYTES)
            .or_else(|| range("stack_bytes", self.stack_bytes, 64 * KIB, MAX_STACK_BYTES))
            .or_else(|| range("max_input_bytes", self.max_input_bytes, 64 * KIB, self.memory_bytes / 4))
            .or_else(|| range("max_instances", self.max_instances, 1, 1024))
            .or_else(|| range("recycle_after", self.recycle_after as usize, 1, usize::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_output_follows_input() {
        for limits in [Limits::default(), Limits::interpreted()] {
            assert_eq!(limits.fault(), None);
        }
        let limits = Limits::default();
        assert_eq!(limits.output_for(0), MIN_OUTPUT_BYTES);
        assert_eq!(limits.output_for(MIB), 4 * MIB);
        assert_eq!(limits.output_for(usize::MAX), 8 * MIB);
        assert_eq!(limits.deadline_for(1000), Duration::from_millis(25));
        assert_eq!(
            limits.deadline_for(usize::MAX),
            limits.deadline + limits.deadline_per_row * u32::MAX
        );
    }

    #[test]
    fn limits_out_of_range_are_named() {
        let limits = Limits {
            memory_bytes: MAX_MEMORY_BYTES + 1,
            ..Limits::default()
        };
        assert!(limits.fault().is_some_and(|f| f.starts_with("memory_bytes")));
    }
}
