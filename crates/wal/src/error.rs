//! What can go wrong with a log, sorted by what the caller must do.

use std::io;
use std::sync::Arc;

/// Cloned to every waiter of a group commit, hence the shared source.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WalError {
    /// Refuse new records and try again later: the log itself is good.
    #[error("no space left on the device of the log")]
    Full,
    /// Stop: a sync failed, so nobody knows what is on disk. Only a new start, which reads again, may go on.
    #[error("a sync of the log failed earlier; it takes nothing more until it is opened again")]
    Poisoned,
    #[error("log: cannot {action}")]
    Io {
        action: &'static str,
        #[source]
        source: Arc<io::Error>,
    },
    /// The directory holds something that no damage explains, for example a newer format.
    #[error("log: {file}: {what}")]
    Corrupt { file: String, what: String },
    #[error("the log's directory is in use by another process")]
    Locked,
    #[error("record of {bytes} bytes, the log takes at most {max}")]
    TooLarge { bytes: u64, max: u64 },
    /// The index was deleted; the oldest one kept is `first`.
    #[error("index was trimmed, the log begins at {first}")]
    Trimmed { first: u64 },
    /// The thread that owns the log has ended.
    #[error("the log is closed")]
    Closed,
}

impl WalError {
    /// Whether the log can go on after this: if not, the process should end and read again at its next start.
    pub fn is_fatal(&self) -> bool {
        matches!(
            self,
            Self::Poisoned | Self::Io { .. } | Self::Corrupt { .. } | Self::Closed
        )
    }

    /// Whether a part of the disk could not be read: another attempt may help, else [`crate::Reader::salvage`] tells the rest.
    pub fn is_unreadable(&self) -> bool {
        matches!(self, Self::Io { source, .. } if crate::salvage::is_unreadable(source))
    }

    pub(crate) fn io(action: &'static str) -> impl FnOnce(io::Error) -> WalError {
        move |source| {
            if crate::storage::is_full(&source) {
                WalError::Full
            } else {
                WalError::Io {
                    action,
                    source: Arc::new(source),
                }
            }
        }
    }
}
