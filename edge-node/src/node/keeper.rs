//! Keeps the cursor: saves what is acknowledged and lets go of it; on a full disk until there is room again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::sealer::blocking;
use crate::spool::given_up::Cause;
use crate::spool::{Spool, SpoolError};
use crate::status::{StatusShared, now_ns};

/// Acknowledgements are saved this long after the first of a group.
const CURSOR_DELAY: Duration = Duration::from_millis(200);
/// Between two looks for room on a full disk: others may have made it, so nothing tells when to look.
const FULL_PAUSE: Duration = Duration::from_secs(1);

pub(super) struct Keeper {
    pub(super) spool: Arc<Spool>,
    pub(super) status: Arc<StatusShared>,
    /// How long a batch may wait for the cloud; zero: for ever.
    pub(super) max_age: Duration,
    pub(super) clock: Clock,
    pub(super) stop: CancellationToken,
}

/// Between two looks for batches that are too old.
const AGE_PAUSE: Duration = Duration::from_secs(10);

/// The time of day as it was at the start, going on evenly: a clock that is set in between makes no batch old.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    started: Instant,
    started_ns: u64,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self {
            started: Instant::now(),
            started_ns: now_ns(),
        }
    }

    fn now_ns(&self) -> u64 {
        let elapsed = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.started_ns.saturating_add(elapsed)
    }
}

/// Why the keeper wakes.
enum Woken {
    Acknowledged,
    /// Time to look for room.
    Full,
    /// Time to look for batches that are too old.
    Age,
    /// The disk has just become full, or is no more.
    Changed,
    Stop,
}

impl Keeper {
    /// Ends after a last save when it is told to stop.
    pub(super) async fn run(self) -> Result<(), SpoolError> {
        let (mut acks, mut full) = (self.spool.acks(), self.status.counters.full());
        // The first look is at the start.
        let mut age = tokio::time::interval(AGE_PAUSE);
        age.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            match self.wait(&mut acks, &mut full, &mut age).await {
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
                Woken::Age => self.drop_old().await?,
                Woken::Changed => {}
                Woken::Stop => return self.save().await,
            }
        }
    }

    async fn wait(
        &self,
        acks: &mut watch::Receiver<u64>,
        full: &mut watch::Receiver<bool>,
        age: &mut Interval,
    ) -> Woken {
        let is_full = *full.borrow_and_update();
        let woken = tokio::select! {
            Ok(()) = acks.changed() => Woken::Acknowledged,
            () = tokio::time::sleep(FULL_PAUSE), if is_full => Woken::Full,
            _ = age.tick(), if !self.max_age.is_zero() => Woken::Age,
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
        let journal = self.status.state().journal.clone();
        let journal_has_room = match journal {
            Some(journal) => match journal.relieve(self.spool.covered()).await {
                Ok(room) => room,
                Err(sluice_wal::WalError::Full) => false,
                Err(error) => return Err(SpoolError::Log(error)),
            },
            // While it is being recovered, recovery sees to it, and waits for room in the spool.
            None => false,
        };
        if spool_has_room && journal_has_room && self.status.disk_has_room(0) {
            self.status.counters.note_room();
            return Ok(());
        }
        let status = self.status.clone();
        unless_full(blocking(move || status.drop_oldest(0)).await)
    }

    async fn drop_old(&self) -> Result<(), SpoolError> {
        let max_age = u64::try_from(self.max_age.as_nanos()).unwrap_or(u64::MAX);
        let before = self.clock.now_ns().saturating_sub(max_age);
        let spool = self.spool.clone();
        let gone = blocking(move || spool.drop_older_than(before)).await;
        if let Ok(gone) = &gone {
            self.status.counters.given_up(Cause::Age.reason(), gone.rows);
        }
        unless_full(gone)
    }
}

/// On a full disk it is tried again.
fn unless_full<T>(result: Result<T, SpoolError>) -> Result<(), SpoolError> {
    match result {
        Err(error) if !error.is_full() => Err(error),
        _ => Ok(()),
    }
}
