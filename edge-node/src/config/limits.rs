//! What a plugin may use, as an operator writes it; whatever is left out is as in `sluice_runtime::Limits`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sluice_runtime::{DEFAULT_STATE_BYTES, Limits};
use sluice_settings::units;

/// What differs from the limits that every plugin has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PluginLimits {
    /// Starts from the limits for guests that carry an interpreter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interpreted: Option<bool>,
    /// Of one instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Size>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stack: Option<Size>,
    /// Of a call, whatever its size, and in addition for each row and for each KiB of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Span>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_per_row: Option<Span>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_per_kib: Option<Span>,
    /// Of one hand-over; larger batches are cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<Size>,
    /// Of one answer, and how many times its input it may have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Size>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_ratio: Option<usize>,
    /// Of one line of its log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_line: Option<Size>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_lines_per_second: Option<u32>,
    /// What it may remember in `state` for one tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<Size>,
    /// Batches after which an instance is replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recycle_after: Option<u32>,
    /// Instances at work at once, and those kept for the next batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instances: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_instances: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Size(#[serde(with = "units::size")] pub u64);

/// A duration that may be shorter than a millisecond: `"5 us"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

impl PluginLimits {
    /// Puts what is given here in the place of what was given before.
    pub(crate) fn over(&self, before: &PluginLimits) -> PluginLimits {
        PluginLimits {
            interpreted: self.interpreted.or(before.interpreted),
            memory: self.memory.or(before.memory),
            stack: self.stack.or(before.stack),
            deadline: self.deadline.or(before.deadline),
            deadline_per_row: self.deadline_per_row.or(before.deadline_per_row),
            deadline_per_kib: self.deadline_per_kib.or(before.deadline_per_kib),
            input: self.input.or(before.input),
            output: self.output.or(before.output),
            output_ratio: self.output_ratio.or(before.output_ratio),
            log_line: self.log_line.or(before.log_line),
            log_lines_per_second: self.log_lines_per_second.or(before.log_lines_per_second),
            state: self.state.or(before.state),
            recycle_after: self.recycle_after.or(before.recycle_after),
            instances: self.instances.or(before.instances),
            idle_instances: self.idle_instances.or(before.idle_instances),
        }
    }

    pub(crate) fn resolve(&self) -> Limits {
        let base = if self.interpreted == Some(true) {
            Limits::interpreted()
        } else {
            Limits::default()
        };
        let size = |wanted: Option<Size>, default: usize| wanted.map_or(default, Size::bytes);
        let span = |wanted: Option<Span>, default: Duration| wanted.map_or(default, |span| span.0);
        let memory_bytes = size(self.memory, base.memory_bytes);
        Limits {
            memory_bytes,
            stack_bytes: size(self.stack, base.stack_bytes),
            deadline: span(self.deadline, base.deadline),
            deadline_per_row: span(self.deadline_per_row, base.deadline_per_row),
            deadline_per_kib: span(self.deadline_per_kib, base.deadline_per_kib),
            // Who asks for little memory need not know that it has to hold a batch several times.
            max_input_bytes: size(self.input, base.max_input_bytes.min(memory_bytes / 4)),
            max_output_bytes: size(self.output, base.max_output_bytes),
            max_output_ratio: self.output_ratio.unwrap_or(base.max_output_ratio),
            log_bytes: size(self.log_line, base.log_bytes),
            log_lines_per_second: self.log_lines_per_second.unwrap_or(base.log_lines_per_second),
            recycle_after: self.recycle_after.unwrap_or(base.recycle_after),
            idle_instances: self.idle_instances.unwrap_or(base.idle_instances),
            max_instances: self.instances.unwrap_or(base.max_instances),
        }
    }

    pub(crate) fn state_bytes(&self) -> usize {
        self.state.map_or(DEFAULT_STATE_BYTES, Size::bytes)
    }
}

impl Size {
    fn bytes(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let micros = self.0.as_micros();
        let text = if micros.is_multiple_of(1000) {
            units::show_duration(self.0)
        } else {
            format!("{micros} us")
        };
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let micros = text.trim().strip_suffix("us").or(text.trim().strip_suffix("µs"));
        let span = match micros.map(|number| number.trim().parse::<u64>()) {
            Some(Ok(micros)) => Ok(Duration::from_micros(micros)),
            Some(Err(_)) => Err(format!("{text:?} is not a whole number of microseconds")),
            None => units::parse_duration(&text),
        };
        span.map(Span).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// What an operator writes is what the host gets, for every one of its limits.
    #[test]
    fn every_limit_of_the_host_can_be_set() {
        let text = r#"
            interpreted = true
            memory = "64 MiB"
            stack = "1 MiB"
            deadline = "30 ms"
            deadline_per_row = "7 us"
            deadline_per_kib = "90 us"
            input = "1 MiB"
            output = "4 MiB"
            output_ratio = 2
            log_line = "2 KiB"
            log_lines_per_second = 3
            state = "5 MiB"
            recycle_after = 9
            instances = 6
            idle_instances = 5
        "#;
        let limits: PluginLimits = toml::from_str(text).unwrap();
        let expected = Limits {
            memory_bytes: 64 << 20,
            stack_bytes: 1 << 20,
            deadline: Duration::from_millis(30),
            deadline_per_row: Duration::from_micros(7),
            deadline_per_kib: Duration::from_micros(90),
            max_input_bytes: 1 << 20,
            max_output_bytes: 4 << 20,
            max_output_ratio: 2,
            log_bytes: 2 << 10,
            log_lines_per_second: 3,
            recycle_after: 9,
            idle_instances: 5,
            max_instances: 6,
        };
        assert_eq!((limits.resolve(), limits.state_bytes()), (expected, 5 << 20));
        let written = toml::to_string(&limits).unwrap();
        assert_eq!(toml::from_str::<PluginLimits>(&written).unwrap(), limits);
        assert_eq!(PluginLimits::default().resolve(), Limits::default());
        assert_eq!(PluginLimits::default().over(&limits), limits);
        assert_eq!(limits.over(&PluginLimits::default()), limits);
    }

    #[test]
    fn a_package_says_what_it_needs_and_the_operator_has_the_last_word() {
        let package: PluginLimits = toml::from_str("memory = \"64 MiB\"\ndeadline = \"1 s\"").unwrap();
        let operator: PluginLimits = toml::from_str("deadline = \"50 ms\"").unwrap();
        let limits = operator.over(&package).resolve();
        assert_eq!(
            (limits.memory_bytes, limits.deadline),
            (64 << 20, Duration::from_millis(50))
        );
        let small: PluginLimits = toml::from_str("memory = \"4 MiB\"").unwrap();
        assert_eq!(small.resolve().max_input_bytes, 1 << 20);
        assert!(toml::from_str::<PluginLimits>("deadline = \"5 parsecs\"").is_err());
        assert!(toml::from_str::<PluginLimits>("deadline_per_row = \"x us\"").is_err());
    }
}
