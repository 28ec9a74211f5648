//! What the markers of the spool's log say: how many events the batches of an epoch hold until there.

use sluice_wal::Mark;

pub(super) fn of(epoch: u32, accepted: u64) -> Mark {
    let mut mark = Mark::default();
    mark[..4].copy_from_slice(&epoch.to_le_bytes());
    mark[8..].copy_from_slice(&accepted.to_le_bytes());
    mark
}

/// The events, if the mark speaks of this epoch.
pub(super) fn accepted(mark: Mark, epoch: u32) -> Option<u64> {
    let (of, rest) = mark.split_first_chunk()?;
    let accepted = rest.last_chunk()?;
    (u32::from_le_bytes(*of) == epoch).then(|| u64::from_le_bytes(*accepted))
}
