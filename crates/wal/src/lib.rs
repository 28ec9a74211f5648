//! A durable segment log of opaque records: append, read, trim, recover.
//!
//! One directory is one log. It is the journal and the spool of an edge and the embedded log of the cloud. What is on
//! disk is described in FORMAT.md; [`segment`] turns it into bytes and back, [`recovery`] decides what a crash or damage
//! left behind, [`retention`] what may be deleted. These three do no input or output; [`wal`] and [`reader`] do, through
//! the [`storage`] trait, so that tests can run them on a disk that forgets whatever was not synced.

mod committer;
mod crash;
pub mod cursor;
mod error;
mod look;
mod open;
mod reader;
mod recovery;
mod retention;
mod salvage;
mod segment;
pub mod storage;
mod wal;

pub use committer::{Committer, CommitterOptions, Counted, Counting};
pub use crash::crash_point;
pub use error::WalError;
pub use look::{Look, is_in_use, look};
pub use reader::{Reader, SegmentInfo};
pub use wal::{Options, Recovery, VERIFY_AT_OPEN_BYTES, Wal};

use bytes::Bytes;

/// What a writer says of itself with its last record, kept in the marker behind it: see [`Wal::open_marked`].
pub type Mark = [u8; 16];

/// What stands at one index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// The record, equal to what was appended.
    Record(Bytes),
    /// A record stood here and cannot be read any more. `bytes` is the size of the unreadable part as far as it is known;
    /// of several records lost together the first carries all of it.
    Damaged { bytes: u64, what: String },
}
