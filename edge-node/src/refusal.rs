//! Why a request is turned away. Each door has one mapping of it to its status codes.

use std::time::Duration;

use sluice_wire::otlp::DecodeError;

/// The reasons, sorted by what the sender must do.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// The request can never be accepted: do not send it again.
    #[error("{0}")]
    Malformed(String),
    #[error("request is larger than the {max} bytes that are taken")]
    TooLarge { max: u64 },
    #[error("{0}")]
    Unsupported(String),
    #[error("request did not arrive completely within {0:?}")]
    Slow(Duration),
    /// A mask failed on these events, so they must not go anywhere.
    #[error("{0}")]
    Masked(String),
    /// Something here is broken in a way that this request shows and another try does not heal.
    #[error("{0}")]
    Internal(String),
    /// Send the same again later.
    #[error("too many requests at once")]
    Busy,
    #[error("a plugin is switched off for a moment: {0}")]
    PluginDown(String),
    #[error("disk is full, nothing new is taken until there is room")]
    Full,
    #[error("node is stopping")]
    Stopping,
}

impl Refusal {
    /// Its name in metrics.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::TooLarge { .. } => "too_large",
            Self::Unsupported(_) => "unsupported",
            Self::Slow(_) => "slow",
            Self::Masked(_) => "mask_failed",
            Self::Internal(_) => "internal",
            Self::Busy => "busy",
            Self::PluginDown(_) => "plugin_down",
            Self::Full => "disk_full",
            Self::Stopping => "stopping",
        }
    }

    /// Whether the same request may be accepted later.
    pub(crate) fn is_retryable(&self) -> bool {
        matches!(self, Self::Busy | Self::PluginDown(_) | Self::Full | Self::Stopping)
    }
}

impl From<DecodeError> for Refusal {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::Build(_) => Self::Internal(error.to_string()),
            _ => Self::Malformed(error.to_string()),
        }
    }
}
