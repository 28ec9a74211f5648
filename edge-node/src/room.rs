//! Who gets the room that is left, under the cap and on the disk.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use crate::config::OnFull;
use crate::spool::SpoolError;
use crate::spool::given_up::Cause;
use crate::status::{Counters, StatusShared};

/// Left free beside what sealing the journal takes: headers, a new segment, cursor and identity while they are replaced.
const DISK_RESERVE_BYTES: u64 = 1 << 20;

/// Room on the disk that nobody else is given.
#[derive(Debug)]
pub(crate) struct Reservation {
    counters: Arc<Counters>,
    bytes: u64,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.counters.reserved_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl StatusShared {
    /// Room on the disk for records of so many bytes, and for sealing them, as long as the answer lives. `None`: there is none.
    pub(crate) fn reserve(&self, bytes: u64) -> Option<Reservation> {
        let _one_at_a_time = self.deciding.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.has_room(bytes) {
            return None;
        }
        if !self.disk_has_room(bytes) {
            self.counters.note_full();
            return None;
        }
        self.counters.reserved_bytes.fetch_add(bytes, Ordering::Relaxed);
        Some(Reservation {
            counters: self.counters.clone(),
            bytes,
        })
    }

    /// Whether `bytes` more fit under the disk cap.
    pub(crate) fn has_room(&self, bytes: u64) -> bool {
        self.bytes_over_the_cap(bytes) == 0
    }

    /// What is not sealed counts twice: sealing writes it once more before the journal lets go of it.
    fn bytes_over_the_cap(&self, bytes: u64) -> u64 {
        let journal = self.state().journal.as_ref().map_or(0, |j| j.bytes_on_disk());
        let used = self
            .spool
            .bytes_on_disk()
            .saturating_add(journal)
            .saturating_add(self.unsealed());
        let more = bytes.saturating_add(self.reserved()).saturating_mul(2);
        used.saturating_add(more).saturating_sub(self.max_bytes)
    }

    /// The same for the disk as it is, of which others may take their share: a journal that cannot be sealed any more, for
    /// want of room, would never let go of anything.
    pub(crate) fn disk_has_room(&self, bytes: u64) -> bool {
        self.bytes_over_the_disk(bytes) == 0
    }

    fn bytes_over_the_disk(&self, bytes: u64) -> u64 {
        // Where nobody knows, the first write that fails tells.
        let Ok(disk) = rustix::fs::statvfs(&self.data_dir) else {
            return 0;
        };
        let more = bytes.saturating_add(self.reserved()).saturating_mul(2);
        let needed = self.unsealed().saturating_add(more).saturating_add(DISK_RESERVE_BYTES);
        needed.saturating_sub(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    /// Drops the oldest batches, if that was asked for, until so many bytes more fit. Tells whether something was dropped. Blocks.
    pub(crate) fn drop_oldest(&self, bytes: u64) -> Result<bool, SpoolError> {
        if self.on_full != OnFull::DropOldest {
            return Ok(false);
        }
        // Who waits here finds the room that the one before has made.
        let _one_at_a_time = self.dropping.lock().unwrap_or_else(PoisonError::into_inner);
        let missing = self.bytes_over_the_cap(bytes).max(self.bytes_over_the_disk(bytes));
        if missing == 0 {
            return Ok(false);
        }
        let gone = self.spool.drop_oldest(missing)?;
        self.counters.given_up(Cause::Full.reason(), gone.rows);
        Ok(gone.bytes > 0)
    }

    fn reserved(&self) -> u64 {
        self.counters.reserved_bytes.load(Ordering::Relaxed)
    }

    fn unsealed(&self) -> u64 {
        self.counters.unsealed_bytes.load(Ordering::Relaxed)
    }
}
