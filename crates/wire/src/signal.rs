//! The three kinds of telemetry.

use std::fmt;

/// What a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signal {
    Log,
    Span,
    Metric,
}

impl Signal {
    pub const ALL: [Self; 3] = [Self::Log, Self::Span, Self::Metric];

    /// The text of the column `signal`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Span => "span",
            Self::Metric => "metric",
        }
    }

    /// The reverse of `as_str`.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == text)
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
