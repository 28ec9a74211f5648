//! What a log does on a full disk: it gives up its ballast, refuses records, and makes room of what nobody needs.

use super::{BALLAST, Health, Wal};
use crate::WalError;
use crate::segment::commit_len;

/// Allocated for a moment to see whether there is room beside the ballast.
const PROBE: &str = "ballast.probe";

impl Wal {
    /// Whether records are taken: not while the ballast is given up and cannot be had again.
    pub fn has_room(&mut self) -> bool {
        self.leave_full();
        self.health == Health::Good
    }

    /// Gives up the ballast for something beside the log that has to be written. Until it can be had again no records are
    /// taken.
    pub fn give_up_ballast(&mut self) {
        if self.health == Health::Good {
            self.enter_full();
        }
    }

    /// For a full disk: deletes everything below `below`, and if that is all there is the newest segment, too, which an empty
    /// one replaces. Tells whether records are taken again.
    pub fn relieve(&mut self, below: u64) -> Result<bool, WalError> {
        if self.health == Health::Poisoned {
            return Err(WalError::Poisoned);
        }
        if below >= self.next && !self.is_open_group() && self.next > self.newest.first {
            let mut begun = self.begin_on_ballast(self.next);
            if matches!(begun, Err(WalError::Full)) && self.hollow() {
                begun = self.begin_segment(self.next);
            }
            match begun {
                Ok(()) | Err(WalError::Full) => {}
                Err(other) => return Err(other),
            }
        }
        self.trim(below, true)?;
        Ok(self.has_room())
    }

    /// Where others took even the room of the ballast: gives back the room of the newest segment's records, which nobody needs.
    /// Its last marker stays, and with it the index that comes next.
    fn hollow(&mut self) -> bool {
        let end = self.newest.synced_len - commit_len(self.newest.marked).min(self.newest.synced_len);
        let punched = end > self.newest.start && self.newest.file.punch(self.newest.start, end).is_ok();
        if punched {
            tracing::warn!(
                "disk is full to the last byte; records that are not needed any more made room for a new file"
            );
        }
        punched
    }

    /// A segment's header is so small that the ballast has room for it.
    pub(super) fn begin_on_ballast(&mut self, first: u64) -> Result<(), WalError> {
        match self.begin_segment(first) {
            // The attempt gave up the ballast.
            Err(WalError::Full) => self.begin_segment(first),
            other => other,
        }
    }

    pub(super) fn enter_full(&mut self) {
        self.health = Health::Full;
        if self.options.ballast_bytes > 0 {
            // If even this fails there is nothing more to give.
            let _ = self.storage.remove(BALLAST);
        }
    }

    /// The ballast is had again where it was given up, even if nothing else fits: so as much again must be free.
    pub(super) fn leave_full(&mut self) {
        if self.health != Health::Full {
            return;
        }
        let bytes = self.options.ballast_bytes;
        let fits = |name| bytes == 0 || self.storage.allocate(name, bytes).is_ok();
        let room = fits(BALLAST) && fits(PROBE);
        if bytes > 0 {
            let _ = self.storage.remove(PROBE);
        }
        if room && self.unmade.is_some() && self.begin_segment(self.next).is_err() {
            // Full again, or poisoned.
            return;
        }
        if room {
            self.health = Health::Good;
        }
    }
}
