//! The bookkeeping of a budget: what the wire took beside what was written to it, and what of the day is used, on disk.

use std::path::PathBuf;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::budget::Spent;

/// A kill forgets at most what was spent since.
const SAVE_EVERY: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Ledger {
    file: Option<PathBuf>,
    saved: Spent,
    saved_at: Instant,
    saving: Option<JoinHandle<()>>,
    /// Bytes on the wire when this connection, or the time without one, began. Since then: bytes given to the transport, and overhead
    /// that was told.
    wire: u64,
    written: u64,
    told: u64,
}

impl Ledger {
    /// Reads what was spent; a file that is missing or damaged says nothing. Blocks for a moment.
    pub(super) fn open(file: Option<PathBuf>) -> Self {
        let text = file.as_ref().and_then(|file| std::fs::read(file).ok());
        let saved = text.and_then(|text| serde_json::from_slice(&text).ok());
        Self {
            file,
            saved: saved.unwrap_or_default(),
            saved_at: Instant::now(),
            saving: None,
            wire: 0,
            written: 0,
            told: 0,
        }
    }

    /// What was spent when it was last saved.
    pub(super) fn spent(&self) -> Spent {
        self.saved
    }

    /// A connection begins or ends. What was given to the one before and did not get onto the wire never will.
    pub(super) fn handle_connection(&mut self, wire: u64) {
        (self.wire, self.written, self.told) = (wire, 0, 0);
    }

    pub(super) fn handle_written(&mut self, bytes: u64) {
        self.written += bytes;
    }

    /// Bytes on the wire, both ways, beside those that were written and those told before: acknowledgements, what was sent again, tries to
    /// reach a gateway. What waits in the transport makes it a little late.
    pub(super) fn overhead(&mut self, wire: u64) -> u64 {
        let wire = wire.saturating_sub(self.wire);
        let overhead = wire.saturating_sub(self.written).saturating_sub(self.told);
        self.told += overhead;
        overhead
    }

    /// Once in a while.
    pub(super) fn save_in_time(&mut self, spent: Spent) {
        let is_busy = self.saving.as_ref().is_some_and(|saving| !saving.is_finished());
        if spent != self.saved && self.saved_at.elapsed() >= SAVE_EVERY && !is_busy {
            self.save(spent);
        }
    }

    pub(super) async fn close(mut self, spent: Spent) {
        if spent != self.saved {
            self.finish().await;
            self.save(spent);
        }
        self.finish().await;
    }

    async fn finish(&mut self) {
        if let Some(saving) = self.saving.take() {
            // It says itself when it fails.
            let _ = saving.await;
        }
    }

    fn save(&mut self, spent: Spent) {
        (self.saved, self.saved_at) = (spent, Instant::now());
        let Some(file) = self.file.clone() else {
            return;
        };
        self.saving = Some(tokio::task::spawn_blocking(move || {
            let text = serde_json::to_vec(&spent).unwrap_or_default();
            if let Err(error) = sluice_wal::cursor::replace(&file, &text) {
                tracing::warn!(file = %file.display(), %error, "budget of the link is not saved");
            }
        }));
    }
}
