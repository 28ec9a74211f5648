//! What is read of the spool: the next batch of a lane, and what a tombstone is made of.

use std::time::Duration;

use bytes::Bytes;
use sluice_wire::envelope::{self, Compression, Envelope};
use sluice_wire::session::client::Offer;
use sluice_wire::session::frame::Lane;

use super::{BatchSource, SourceError};

/// A batch to be offered.
#[derive(Debug)]
pub(super) struct ReadBatch {
    pub(super) offer: Offer,
    pub(super) bytes: Bytes,
    pub(super) sealed_at_ns: u64,
}

/// What a look at the spool found.
#[derive(Debug)]
pub(super) enum Read {
    Batch(ReadBatch),
    /// Nothing below this index.
    Nothing(u64),
    /// The record at this index is no envelope; it stays where it is.
    Strange(u64, String),
    Failed(SourceError),
}

/// The first batch at or after `from`, where the spool ends at `end`.
pub(super) fn next(source: &dyn BatchSource, lane: Lane, from: u64, end: u64) -> Read {
    let (index, bytes) = match source.next_from(from) {
        Ok(Some(found)) => found,
        Ok(None) => return Read::Nothing(end),
        Err(error) => return Read::Failed(error),
    };
    match Envelope::parse(bytes) {
        Ok(batch) => {
            let bytes = batch.bytes().clone();
            let offer = Offer {
                key: index,
                epoch: batch.header.id.epoch,
                seq: batch.header.id.seq,
                hash: batch.hash,
                // No envelope is larger than its own limit, which is far below 4 GiB.
                bytes: bytes.len() as u32,
                lane,
            };
            Read::Batch(ReadBatch {
                offer,
                bytes,
                sealed_at_ns: batch.header.sealed_at_ns,
            })
        }
        Err(error) => Read::Strange(index, error.to_string()),
    }
}

/// Batches that are looked at for what was sealed last, at most.
const FRESH_BATCHES: u64 = 64;

/// Where what was sealed last begins: the newest batch before `end`, and those that were sealed no longer than `live_for` before it.
/// Records that are gone or damaged do not say when they were sealed.
pub(super) fn first_fresh(source: &dyn BatchSource, end: u64, live_for: Duration) -> u64 {
    let live_for = u64::try_from(live_for.as_nanos()).unwrap_or(u64::MAX);
    let sealed_at = |index: u64| {
        let batch = Envelope::parse(source.read(index).ok()?).ok()?;
        Some(batch.header.sealed_at_ns).filter(|at| *at > 0)
    };
    let (mut first, mut newest) = (end, None);
    for index in (end.saturating_sub(FRESH_BATCHES)..end).rev() {
        let Some(at) = sealed_at(index) else { continue };
        if at.saturating_add(live_for) < *newest.get_or_insert(at) {
            break;
        }
        first = index;
    }
    first
}

/// What takes the place of a batch that can never be stored, and its hash.
pub(super) fn tombstone(source: &dyn BatchSource, key: u64, reason: &str) -> Result<(Bytes, [u8; 32]), String> {
    let bytes = source.read(key).map_err(|e| e.to_string())?;
    let batch = Envelope::parse(bytes).map_err(|e| e.to_string())?;
    // Equal every time it is made: after a restart the same batch is refused for the same reason.
    let sealed = envelope::seal(&batch.header.tombstone(reason), None, Compression::default());
    let sealed = sealed.map_err(|e| e.to_string())?;
    let hash = Envelope::parse(sealed.clone()).map_err(|e| e.to_string())?.hash;
    Ok((sealed, hash))
}
