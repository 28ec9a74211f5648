//! The entries of the plugin chain.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sluice_runtime::{Limits, OnFault};
use sluice_settings::units;
use sluice_wire::Signal;

use super::ConfigError;

/// One `[[plugin]]` table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PluginEntry {
    /// Its name in counts and messages.
    pub name: String,
    /// The component.
    pub path: PathBuf,
    /// Handed to the plugin as it is.
    #[serde(default)]
    pub config: toml::Table,
    #[serde(default)]
    pub limits: PluginLimits,
    /// `quarantine` or `bypass`; a mask always refuses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_fault: Option<OnFault>,
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Empty: all.
    #[serde(default)]
    pub signals: Vec<SignalName>,
}

/// `log`, `span` or `metric`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SignalName {
    Log,
    Span,
    Metric,
}

/// What differs from the limits that every plugin has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PluginLimits {
    /// Starts from the limits for guests that carry an interpreter.
    pub interpreted: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Size>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Span>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Size(#[serde(with = "units::size")] pub u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Span(#[serde(with = "units::duration")] pub Duration);

fn yes() -> bool {
    true
}

impl PluginEntry {
    pub(crate) fn signals(&self) -> Vec<Signal> {
        let signal = |name: &SignalName| match name {
            SignalName::Log => Signal::Log,
            SignalName::Span => Signal::Span,
            SignalName::Metric => Signal::Metric,
        };
        self.signals.iter().map(signal).collect()
    }

    pub(crate) fn limits(&self) -> Limits {
        let mut limits = if self.limits.interpreted {
            Limits::interpreted()
        } else {
            Limits::default()
        };
        if let Some(Size(bytes)) = self.limits.memory {
            limits.memory_bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        }
        if let Some(Span(deadline)) = self.limits.deadline {
            limits.deadline = deadline;
        }
        limits
    }
}

pub(super) fn check(chain: &[PluginEntry], text: &str) -> Result<(), ConfigError> {
    for (place, entry) in chain.iter().enumerate() {
        if chain[..place].iter().any(|earlier| earlier.name == entry.name) {
            return Err(
                ConfigError::value(text, "plugin.name", format!("{:?} occurs twice", entry.name))
                    .with_hint("counts are kept by name: give each entry its own"),
            );
        }
    }
    Ok(())
}
