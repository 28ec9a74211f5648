//! Keeps the cursor: saves what is acknowledged and lets go of it; on a full disk until there is room again.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::sealer::blocking;
use crate::spool::{Spool, SpoolError};
use crate::status::StatusShared;

/// Acknowledgements are saved this long after the first of a group.
const CURSOR_DELAY: Duration = Duration::from_millis(200);
/// Between two looks for room on a full disk: others may have made it, so nothing tells when to look.
const FULL_PAUSE: Duration = Duration::from_secs(1);

pub(super) struct Keeper {
    pub(super) spool: Arc<Spool>,
    pub(super) status: Arc<StatusShared>,
    pub(super) stop: CancellationToken,
}

/// Why the keeper wakes.
enum Woken {
    Acknowledged,
    /// Time to look for room.
    Full,
    /// The disk has just become full, or is no more.
    Changed,
    Stop,
}

impl Keeper {
    /// Ends after a last save when it is told to stop.
    pub(super) async fn run(self) -> Result<(), SpoolError> {
        let (mut acks, mut full) = (self.spool.acks(), self.status.counters.full());
        loop {
            match self.wait(&mut acks, &mut full).await {
                Woken::Acknowledged => {
                    acks.borrow_and_update();
                    // Acknowledgements may come so fast that there is never a pause to look in.
                    if self.status.counters.is_full() {
                        self.make_room().await?;
                    } else {
                        self.save().await?;
                    }
                }
                Woken::Full => self.make_room().await?,
                Woken::Changed => {}
                Woken::Stop => return self.save().await,
            }
        }
    }

    async fn wait(&self, acks: &mut watch::Receiver<u64>, full: &mut watch::Receiver<bool>) -> Woken {
        let is_full = *full.borrow_and_update();
        let woken = tokio::select! {
            Ok(()) = acks.changed() => Woken::Acknowledged,
            () = tokio::time::sleep(FULL_PAUSE), if is_full => Woken::Full,
            Ok(()) = full.changed() => Woken::Changed,
            () = self.stop.cancelled() => Woken::Stop,
        };
        if matches!(woken, Woken::Acknowledged) {
            tokio::select! {
                () = tokio::time::sleep(CURSOR_DELAY) => {}
                () = self.stop.cancelled() => {}
            }
        }
        woken
    }

    /// A cursor that does not fit on the disk makes it count as full, so that it is tried again.
    async fn save(&self) -> Result<(), SpoolError> {
        let spool = self.spool.clone();
        match blocking(move || spool.save_cursor()).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_full() => {
                self.status.counters.note_full();
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Lets go of all that is not needed, in the spool and in the journal.
    async fn make_room(&self) -> Result<(), SpoolError> {
        let spool = self.spool.clone();
        let spool_has_room = match blocking(move || spool.relieve()).await {
            Ok(room) => room,
            Err(error) if error.is_full() => false,
            Err(error) => return Err(error),
        };
        // While it is being recovered, recovery sees to it.
        let Some(journal) = self.status.state().journal.clone() else {
            return Ok(());
        };
        let journal_has_room = match journal.relieve(self.spool.covered()).await {
            Ok(room) => room,
            Err(sluice_wal::WalError::Full) => false,
            Err(error) => return Err(SpoolError::Log(error)),
        };
        if spool_has_room && journal_has_room && self.status.disk_has_room(0) {
            self.status.counters.note_room();
        }
        Ok(())
    }
}
