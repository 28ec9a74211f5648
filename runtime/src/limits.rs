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
    /// Time added for each KiB that is handed over, for rows that are long: four times what a KiB costs the mask
    /// if all of it are candidates (signs, quotes, digits, escapes): 30 to 130 µs on one of two busy cores; text of logs costs 5 to 10.
    /// [`DEADLINE_PER_VALUE`] comes on top.
    pub deadline_per_kib: Duration,
    /// Bytes of Arrow in one hand-over to the guest. A larger batch is handed over in slices.
    pub max_input_bytes: usize,
    /// Bytes that one call may give back, whatever it was given.
    pub max_output_bytes: usize,
    /// How many times its input a call may give back, beside what [`Limits::output_for`] allows for small inputs and short values.
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
/// What each value that is handed over may become however short it is: a keyed hash with the name of its kind has 50 bytes.
pub(crate) const OUTPUT_BYTES_PER_VALUE: usize = 64;
/// Time added for each value that is handed over, however short it is: twice what a keyed hash takes on a slow core.
pub(crate) const DEADLINE_PER_VALUE: Duration = Duration::from_micros(6);
/// Columns of an answer: as many as a batch may have, since a plugin may touch all that it was shown and add some.
pub(crate) const MAX_ANSWER_COLUMNS: usize = 1024;
/// How many times a hand-over that is larger than `max_input_bytes` (one long row cannot be cut) fits into the memory that its call
/// may have: the input, its masked copy in three stages, and what was found in it.
pub(crate) const MEMORY_PER_INPUT: usize = 8;
/// Ceiling of `memory_bytes`: what an interpreted guest may ask for.
pub const MAX_MEMORY_BYTES: usize = 256 * MIB;
/// Floor of `memory_bytes`: less than this and no Rust guest starts.
pub const MIN_MEMORY_BYTES: usize = 2 * MIB;
/// Ceiling of `stack_bytes`: calls run on threads of the host, whose own stacks are 2 MiB.
pub const MAX_STACK_BYTES: usize = MIB;
/// Ceiling of `max_output_bytes`: what the largest batch of an edge (4 MiB) may become with some columns added, many times over.
pub(crate) const MAX_OUTPUT_BYTES: usize = 64 * MIB;
/// Bounds of what `state` may hold for one plugin and tenant: one value, and what a sampler needs that remembers a million keys.
pub(crate) const MIN_STATE_BYTES: usize = KIB;
pub(crate) const MAX_STATE_BYTES: usize = 256 * MIB;
/// Ceiling of `deadline`: what a sender can be made to wait for an answer, whoever is to blame.
pub(crate) const MAX_DEADLINE: Duration = Duration::from_secs(10);
/// Ceiling of `deadline_per_row`: twenty times what an interpreted guest is given.
pub(crate) const MAX_DEADLINE_PER_ROW: Duration = Duration::from_millis(1);
/// Ceiling of `deadline_per_kib`: ten times what an interpreted guest is given.
pub(crate) const MAX_DEADLINE_PER_KIB: Duration = Duration::from_millis(20);
/// A component larger than this is not compiled; the largest known (an embedded Python) has 18 MB.
pub const MAX_COMPONENT_BYTES: usize = 64 * MIB;
/// Machine code of one component: some four times the component.
pub(crate) const MAX_IMAGE_BYTES: u64 = 256 * MIB as u64;
/// Machine code that the cache of a node keeps: a dozen embedded interpreters, or hundreds of compiled guests.
pub(crate) const MAX_CACHE_BYTES: u64 = 1024 * MIB as u64;

impl Default for Limits {
    fn default() -> Self {
        Limits {
            memory_bytes: 16 * MIB,
            stack_bytes: 512 * KIB,
            deadline: Duration::from_millis(20),
            deadline_per_row: Duration::from_micros(5),
            deadline_per_kib: Duration::from_micros(400),
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
            deadline_per_kib: Duration::from_millis(4),
            idle_instances: 1,
            max_instances: 2,
            ..Limits::default()
        }
    }

    /// The time that a call with so many rows, bytes of input and values may take.
    pub fn deadline_for(&self, rows: usize, input_bytes: usize, values: usize) -> Duration {
        let times = |each: Duration, count: usize| each.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX));
        self.deadline
            .saturating_add(times(self.deadline_per_row, rows))
            .saturating_add(times(self.deadline_per_kib, input_bytes / KIB))
            .saturating_add(times(DEADLINE_PER_VALUE, values))
    }

    /// The bytes that a call may give back whose input has this size and so many values.
    pub fn output_for(&self, input_bytes: usize, values: usize) -> usize {
        let wanted = input_bytes
            .saturating_mul(self.max_output_ratio)
            .saturating_add(values.saturating_mul(OUTPUT_BYTES_PER_VALUE))
            .saturating_add(MIN_OUTPUT_BYTES);
        // One long row cannot be cut, so what it becomes cannot either.
        wanted.min(self.max_output_bytes.max(input_bytes.saturating_mul(2)))
    }

    /// In how many hand-overs a batch goes to the guest: so that neither the input nor what short values may become is too much
    /// for its memory, where an answer stands twice, as arrays and as the stream that is given back.
    pub(crate) fn slices(&self, input_bytes: usize, values: usize) -> usize {
        let outputs = values.saturating_mul(OUTPUT_BYTES_PER_VALUE);
        let room = self.max_output_bytes.min(self.memory_bytes / 4);
        input_bytes.div_ceil(self.max_input_bytes).max(outputs.div_ceil(room))
    }

    /// The memory that an instance may have during a call with an input of this size.
    pub(crate) fn memory_for(&self, input_bytes: usize) -> usize {
        if input_bytes <= self.max_input_bytes {
            return self.memory_bytes;
        }
        let wanted = input_bytes.saturating_mul(MEMORY_PER_INPUT).min(MAX_MEMORY_BYTES);
        wanted.max(self.memory_bytes)
    }

    /// Says what is wrong with these limits.
    pub fn checked(&self) -> Result<(), LimitError> {
        let memory = self.memory_bytes;
        let range = |name, value: usize, min: usize, max: usize| match value {
            value if value < min || value > max => Err(LimitError {
                name,
                value: value as u64,
                min: min as u64,
                max: max as u64,
            }),
            _ => Ok(()),
        };
        let micros = |time: Duration| usize::try_from(time.as_micros()).unwrap_or(usize::MAX);
        range("memory_bytes", memory, MIN_MEMORY_BYTES, MAX_MEMORY_BYTES)?;
        range("stack_bytes", self.stack_bytes, 64 * KIB, MAX_STACK_BYTES)?;
        range("deadline_us", micros(self.deadline), 1000, micros(MAX_DEADLINE))?;
        range(
            "deadline_per_row_us",
            micros(self.deadline_per_row),
            0,
            micros(MAX_DEADLINE_PER_ROW),
        )?;
        range(
            "deadline_per_kib_us",
            micros(self.deadline_per_kib),
            0,
            micros(MAX_DEADLINE_PER_KIB),
        )?;
        range("max_input_bytes", self.max_input_bytes, 64 * KIB, memory / 4)?;
        range(
            "max_output_bytes",
            self.max_output_bytes,
            MIN_OUTPUT_BYTES,
            MAX_OUTPUT_BYTES,
        )?;
        range("max_output_ratio", self.max_output_ratio, 1, 64)?;
        range("log_bytes", self.log_bytes, 0, 64 * KIB)?;
        range("log_lines_per_second", self.log_lines_per_second as usize, 0, 10_000)?;
        range("recycle_after", self.recycle_after as usize, 1, u32::MAX as usize)?;
        range("max_instances", self.max_instances, 1, 1024)?;
        range("idle_instances", self.idle_instances, 0, self.max_instances)
    }
}

/// A limit that is out of its range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} = {value} is not between {min} and {max}")]
pub struct LimitError {
    pub name: &'static str,
    pub value: u64,
    pub min: u64,
    pub max: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_output_follows_input() {
        for limits in [Limits::default(), Limits::interpreted()] {
            assert_eq!(limits.checked(), Ok(()));
        }
        let limits = Limits::default();
        assert_eq!(limits.output_for(0, 0), MIN_OUTPUT_BYTES);
        assert_eq!(limits.output_for(MIB, 0), 4 * MIB + MIN_OUTPUT_BYTES);
        assert_eq!(limits.output_for(2 * MIB, usize::MAX), 8 * MIB);
        assert_eq!(limits.output_for(8 * MIB, 1), 16 * MIB, "one long row");
        // 8,192 values of three digits each, every one of which becomes a hash of 50 bytes.
        assert!(limits.output_for(7 * 8192, 8192) >= 54 * 8192);
        assert_eq!(limits.deadline_for(1000, 0, 0), Duration::from_millis(25));
        assert_eq!(
            limits.deadline_for(1, 8 * MIB, 0),
            limits.deadline + limits.deadline_per_row + limits.deadline_per_kib * 8192
        );
        // The same values in 24 columns, hashed by a core that takes 6 µs for each.
        assert!(limits.deadline_for(8192, 7 * 8192 * 24, 8192 * 24) >= Duration::from_micros(6) * 8192 * 24);
        assert_eq!(
            limits.deadline_for(usize::MAX, usize::MAX, usize::MAX),
            limits.deadline + (limits.deadline_per_row + limits.deadline_per_kib + DEADLINE_PER_VALUE) * u32::MAX
        );
    }

    #[test]
    fn what_cannot_be_cut_gets_the_room_that_it_needs() {
        let limits = Limits::default();
        assert_eq!(limits.slices(4 * MIB, 0), 2);
        assert_eq!(limits.slices(MIB, 8192 * 40), 5, "many short values");
        assert_eq!(limits.slices(0, 0), 0);
        assert_eq!(limits.memory_for(2 * MIB), 16 * MIB);
        assert_eq!(limits.memory_for(8 * MIB), 64 * MIB);
        assert_eq!(limits.memory_for(usize::MAX), MAX_MEMORY_BYTES);
        assert_eq!(Limits::interpreted().memory_for(3 * MIB), 128 * MIB);
    }

    #[test]
    fn limits_out_of_range_are_named() {
        let check = |change: fn(&mut Limits), text: &str| {
            let mut limits = Limits::default();
            change(&mut limits);
            assert_eq!(limits.checked().map_err(|e| e.to_string()), Err(text.to_owned()));
        };
        check(
            |l| l.memory_bytes = MAX_MEMORY_BYTES + 1,
            "memory_bytes = 268435457 is not between 2097152 and 268435456",
        );
        check(
            |l| l.deadline = Duration::ZERO,
            "deadline_us = 0 is not between 1000 and 10000000",
        );
        check(
            |l| l.max_output_bytes = 65 * MIB,
            "max_output_bytes = 68157440 is not between 65536 and 67108864",
        );
        check(
            |l| l.max_output_ratio = 0,
            "max_output_ratio = 0 is not between 1 and 64",
        );
        check(
            |l| l.recycle_after = 0,
            "recycle_after = 0 is not between 1 and 4294967295",
        );
        check(|l| l.idle_instances = 17, "idle_instances = 17 is not between 0 and 16");
    }
}
