//! The journal: a small log that is synced before anyone is told success. What the spool covers is trimmed.

use std::sync::Arc;

use sluice_wal::{Committer, CommitterOptions, Counted, Counting, Mark, Options, Reader, Wal, WalError};

use crate::positions::Positions;
use crate::record;
use crate::sealer::blocking;

/// The running journal. Appends come from many tasks at once and share syncs.
#[derive(Debug)]
pub(crate) struct Journal {
    committer: Committer,
    positions: Arc<Positions>,
}

/// Sizes of the journal's files under a disk cap: small, so that what is sealed is soon deleted.
pub(crate) fn options(max_bytes: u64, ballast: u64) -> Options {
    Options {
        segment_bytes: (max_bytes / 32).clamp(1 << 20, 8 << 20),
        max_record_bytes: 64 << 20,
        ballast_bytes: ballast,
    }
}

impl Journal {
    /// Takes the log over and starts its writer, for the start of this number.
    pub(crate) fn start(wal: Wal, start: u32, positions: Arc<Positions>) -> Self {
        let options = CommitterOptions {
            queue_bytes: 32 << 20,
            ..CommitterOptions::default()
        };
        let counting = Counting {
            at: record::TOTAL_AT,
            mark: Box::new(move |total| mark(start, total)),
        };
        Self {
            committer: Committer::start_counting(wal, options, counting),
            positions,
        }
    }

    /// Appends records of `record::encode` with the events that each accepts, all of them or none; durable when it returns
    /// the index of the first. Not to be cancelled: a record that is on disk and never handed to the sealer would hold up
    /// everything behind it.
    pub(crate) async fn append(&self, records: Vec<(Vec<u8>, u64)>) -> Result<u64, WalError> {
        self.positions
            .journal_grew(records.iter().map(|(record, _)| record.len() as u64).sum());
        let counted = records.into_iter().map(|(record, adds)| Counted { record, adds });
        self.committer.append_counted(counted.collect()).await
    }

    pub(crate) fn reader(&self) -> Reader {
        self.committer.reader()
    }

    pub(crate) fn bytes_on_disk(&self) -> u64 {
        self.committer.bytes_on_disk()
    }

    /// Everything below `upto` is durable in the spool.
    pub(crate) async fn covered(&self, upto: u64) -> Result<u64, WalError> {
        self.committer.set_note(upto.to_le_bytes().to_vec()).await?;
        let upto = self.keep_positions(upto, false).await;
        self.committer.trim_below(upto).await
    }

    /// On a full disk: lets go of everything below `upto`, and tells whether records are taken again.
    pub(crate) async fn relieve(&self, upto: u64) -> Result<bool, WalError> {
        self.committer.set_note(upto.to_le_bytes().to_vec()).await?;
        let upto = self.keep_positions(upto, true).await;
        self.committer.relieve(upto).await
    }

    /// How far the positions of sources allow to trim.
    async fn keep_positions(&self, upto: u64, now: bool) -> u64 {
        if self.positions.is_saved(upto) {
            return upto;
        }
        let positions = self.positions.clone();
        blocking(move || positions.keep(upto, now)).await
    }

    pub(crate) fn positions(&self) -> &Arc<Positions> {
        &self.positions
    }

    /// Finishes what waits; the folder's lock is free when it returns.
    pub(crate) async fn close(&self) {
        self.committer.clone().close().await;
    }
}

/// What a marker of the journal says: the start, and the events accepted since.
fn mark(start: u32, total: u64) -> Mark {
    let mut mark = Mark::default();
    mark[..4].copy_from_slice(&start.to_le_bytes());
    mark[8..].copy_from_slice(&total.to_le_bytes());
    mark
}

/// The reverse. A journal without any record says start 0, which there never was.
pub(crate) fn marked(mark: Mark) -> (u32, u64) {
    let start = u32::from_le_bytes([mark[0], mark[1], mark[2], mark[3]]);
    let total = mark[8..].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    (start, total)
}

/// The position that a journal's note names; 0 for a fresh one.
pub(crate) fn noted(note: &[u8]) -> u64 {
    note.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}
