//! The writer of a shared hot store: claims partitions, inserts one block for all of them at a time, and saves how far it got.
//!
//! Whatever goes wrong, it never asks what the server has of an insert: it claims again from the last acknowledged offset, and what
//! the lost insert left behind has a generation that does not count.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sluice_store::hot::clickhouse::{Audit, ClickHouseError};
use sluice_store::{HotError, Position, SeamError, SeamRecord};
use sluice_wal::crash_point;
use sluice_wire::ids::Partition;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::SharedHotWriter;
use super::gather::Block;
use super::keeper::Keeper;
use super::standby::Standby;
use super::start::{Start, start, usable};
use crate::log::LogError;
use crate::writer::resume::{Begin, begin, given_up, pass};
use crate::writer::turns::Turns;
use crate::writer::{Planner, WriterError};

const SAVE_EVERY: Duration = Duration::from_secs(5);
const AUDIT_EVERY: Duration = Duration::from_secs(60);
/// Pauses between attempts double from the first to the second.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A partition that this process writes.
#[derive(Debug)]
struct Own {
    generation: u64,
    /// The server has acknowledged everything below.
    next: u64,
    saved: u64,
    /// Cold was ahead when last looked at.
    is_behind: bool,
}

/// What is written at the moment.
struct Round {
    owned: BTreeMap<Partition, Own>,
    /// Ahead of `owned` by the block that is on its way.
    planners: BTreeMap<Partition, Planner>,
    standby: BTreeMap<Partition, Standby>,
    next_save: Instant,
    next_audit: Instant,
}

/// Why a round of claims ended.
#[derive(Debug)]
enum Ended {
    Stopped,
    /// Claim again from what is known.
    Doubt(String),
}

impl SharedHotWriter {
    /// Follows the log until told to stop.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), WriterError> {
        let ended = self.write(&shutdown).await;
        for partition in &self.partitions {
            self.hot.release(*partition);
        }
        ended
    }

    async fn write(&self, shutdown: &CancellationToken) -> Result<(), WriterError> {
        // Ends with this writer.
        let mut keeping = JoinSet::new();
        keeping.spawn(Keeper::new(self.clone()).run(shutdown.clone()));
        let mut pause = FIRST_PAUSE;
        loop {
            let begun = Instant::now();
            let why = match self.round(shutdown).await {
                Ok(Ended::Stopped) => return Ok(()),
                Ok(Ended::Doubt(why)) => why,
                Err(error) if error.is_passing() => with_source(&error),
                Err(error) => return Err(error),
            };
            if begun.elapsed() > LONGEST_PAUSE {
                pause = FIRST_PAUSE;
            }
            self.counters.hot_doubts.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(why, "hot is claimed again");
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// From new claims until they are in doubt.
    async fn round(&self, shutdown: &CancellationToken) -> Result<Ended, WriterError> {
        if self.options.migrate {
            self.hot.migrate(false).await?;
        }
        self.hot.prepare().await?;
        let now = Instant::now();
        let mut round = Round {
            owned: BTreeMap::new(),
            planners: BTreeMap::new(),
            standby: BTreeMap::new(),
            next_save: now + SAVE_EVERY,
            next_audit: now + AUDIT_EVERY,
        };
        for partition in self.partitions.iter().copied() {
            tokio::select! {
                taken = self.take(partition, &mut round) => taken?,
                () = given_up(shutdown) => return Ok(Ended::Stopped),
            }
        }
        self.show().await;
        let ended = self.follow(&mut round, shutdown).await;
        // What is known to be there need not be inserted again.
        if let Err(error) = self.save(&mut round).await {
            tracing::warn!(error = with_source(&error), "the position in hot was not saved");
        }
        ended
    }

    /// Claims a partition from where hot is known to be whole.
    async fn take(&self, partition: Partition, round: &mut Round) -> Result<(), WriterError> {
        let seam = &self.stores.seam;
        let record = seam.load(partition).await?;
        let position = seam.position(partition).await?;
        let Begin { mut planner, cold, .. } = self.begin(partition).await?;
        let cold_next = planner.next();
        let mut intact = None;
        if let Some(next) = usable(&record, position, cold_next) {
            match self.hot.audit(partition, &record, next).await? {
                Audit::Whole => intact = Some(next),
                Audit::Lost { what } => self.lost(&what),
            }
        }
        let endpoint = self.hot.endpoint();
        let generation = record.generation();
        let claimed = match start(intact, cold, cold_next) {
            Start::Resume { from } => {
                if !pass(&self.log, &mut planner, partition, from).await? {
                    return Err(WriterError::LogBehindHot {
                        partition,
                        end: planner.next(),
                        held: from,
                    });
                }
                match (seam.claim_after(partition, generation, from, &endpoint).await, cold) {
                    // So many doubts in a row leave no choice but to begin anew.
                    (Err(SeamError::TooManyClaims { .. }), Some(low)) => {
                        planner = self.begin(partition).await?.planner;
                        seam.claim_above(partition, planner.next().saturating_sub(1).max(low), &endpoint)
                            .await?
                    }
                    (claimed, _) => claimed?,
                }
            }
            Start::AboveCold { low } => seam.claim_above(partition, low, &endpoint).await?,
            Start::Begin { from } => seam.claim_after(partition, generation, from, &endpoint).await?,
        };
        crash_point("writer.hot.after_claim");
        let Some(claim) = claimed.last_claim() else {
            return Err(WriterError::Task("a claim left no claim in the seam record".to_owned()));
        };
        // Everything below the claim was there under the claims before it, or is served by cold.
        seam.save_position(partition, Position::new(claim.generation, claim.from))
            .await?;
        self.stores.hot.claim(partition, claim);
        tracing::info!(%partition, from = claim.from, generation = claim.generation, "hot store claimed");
        self.counters.hot_claims.fetch_add(1, Ordering::Relaxed);
        let own = Own {
            generation: claim.generation,
            next: claim.from,
            saved: claim.from,
            is_behind: false,
        };
        round.owned.insert(partition, own);
        round.planners.insert(partition, planner);
        round.standby.remove(&partition);
        Ok(())
    }

    async fn begin(&self, partition: Partition) -> Result<Begin, WriterError> {
        let quota = self.quota.as_ref();
        begin(&self.log, &self.stores, &self.snapshots, partition, &self.limits, quota).await
    }

    /// Inserts one block while the next one is gathered.
    async fn follow(&self, round: &mut Round, shutdown: &CancellationToken) -> Result<Ended, WriterError> {
        let mut block = Block::default();
        let mut turns = Turns::default();
        loop {
            let is_last = shutdown.is_cancelled() && block.is_empty();
            let gathering = self.gather(&mut round.planners, &mut turns, shutdown);
            let (inserted, gathered) = tokio::join!(self.insert(&block, shutdown), gathering);
            match inserted? {
                Inserted::Done { after_refusal } => {
                    if after_refusal {
                        // A server that was away may have come back with less.
                        round.next_audit = Instant::now();
                    }
                    for (partition, next) in block.ends() {
                        if let Some(own) = round.owned.get_mut(&partition) {
                            own.next = next;
                        }
                    }
                    let rows = block.rows() as u64;
                    self.counters.hot_rows.fetch_add(rows, Ordering::Relaxed);
                }
                Inserted::Stopped => return Ok(Ended::Stopped),
                Inserted::Unknown(why) => return Ok(Ended::Doubt(why)),
            }
            block = match gathered {
                Ok(block) => block,
                // Hot has fallen so far behind that the log has forgotten what it wants: cold holds that.
                Err(WriterError::Log(error @ LogError::Trimmed { .. })) => return Ok(Ended::Doubt(error.to_string())),
                Err(error) => return Err(error),
            };
            if is_last && block.is_empty() {
                return Ok(Ended::Stopped);
            }
            if let Some(why) = self.look_after(round, &mut block, shutdown).await? {
                return Ok(Ended::Doubt(why));
            }
        }
    }

    /// Waits and inserts again for as long as the server surely stored nothing.
    async fn insert(&self, block: &Block, shutdown: &CancellationToken) -> Result<Inserted, WriterError> {
        if block.is_empty() {
            return Ok(Inserted::Done { after_refusal: false });
        }
        crash_point("writer.hot.before_insert");
        let mut pause = FIRST_PAUSE;
        let mut after_refusal = false;
        loop {
            match self.stores.hot.insert(&block.slices).await {
                Ok(()) => {
                    crash_point("writer.hot.after_insert");
                    return Ok(Inserted::Done { after_refusal });
                }
                Err(HotError::Busy { reason }) => {
                    after_refusal = true;
                    self.counters.hot_busy.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(reason, "hot takes nothing at the moment; trying again");
                }
                Err(HotError::Unknown { reason }) => return Ok(Inserted::Unknown(reason)),
                Err(error) => return Err(error.into()),
            }
            tokio::select! {
                () = shutdown.cancelled() => return Ok(Inserted::Stopped),
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Saves positions, sees which partitions are somebody else's by now, counts. Returns why to claim again, if so.
    async fn look_after(
        &self,
        round: &mut Round,
        block: &mut Block,
        shutdown: &CancellationToken,
    ) -> Result<Option<String>, WriterError> {
        let now = Instant::now();
        if now >= round.next_save {
            round.next_save = now + SAVE_EVERY;
            match self.save(round).await {
                Ok(lost) => block.slices.retain(|slice| !lost.contains(&slice.range.partition)),
                // The position of a moment ago does as well.
                Err(error) => tracing::warn!(error = with_source(&error), "the position in hot was not saved"),
            }
            match self.take_over(round, now, shutdown).await {
                Err(error) if error.is_passing() => {
                    tracing::warn!(error = with_source(&error), "partitions of others were not looked at");
                }
                other => other?,
            }
        }
        if now >= round.next_audit {
            round.next_audit = now + AUDIT_EVERY;
            match self.audit(round).await {
                Ok(found) => return Ok(found),
                Err(error) => tracing::warn!(error = with_source(&error), "hot was not counted"),
            }
        }
        Ok(None)
    }

    /// Saves how far each partition is, and gives up those that have a newer claim. Returns the latter.
    async fn save(&self, round: &mut Round) -> Result<Vec<Partition>, WriterError> {
        let seam = &self.stores.seam;
        let mut lost = Vec::new();
        for (partition, own) in &mut round.owned {
            if own.saved == own.next {
                continue;
            }
            if seam.load(*partition).await?.generation() != own.generation {
                lost.push(*partition);
                continue;
            }
            crash_point("writer.hot.before_position");
            seam.save_position(*partition, Position::new(own.generation, own.next))
                .await?;
            crash_point("writer.hot.after_position");
            own.saved = own.next;
        }
        for partition in &lost {
            tracing::warn!(%partition, "another writer has claimed the partition; standing by");
            round.owned.remove(partition);
            round.planners.remove(partition);
            round.standby.insert(*partition, Standby::new(Instant::now()));
            self.hot.release(*partition);
        }
        Ok(lost)
    }

    async fn take_over(
        &self,
        round: &mut Round,
        now: Instant,
        shutdown: &CancellationToken,
    ) -> Result<(), WriterError> {
        let mut idle = Vec::new();
        for (partition, standby) in &mut round.standby {
            let position = self.stores.seam.position(*partition).await?;
            let end = self.log.end(*partition);
            if standby.takes_over(now, position, end, self.options.takeover_after) {
                idle.push(*partition);
            }
        }
        for partition in idle {
            if shutdown.is_cancelled() {
                return Ok(());
            }
            tracing::warn!(%partition, "its owner stands still; taking the partition over");
            tokio::select! {
                taken = self.take(partition, round) => taken?,
                () = given_up(shutdown) => return Ok(()),
            }
            self.show().await;
        }
        Ok(())
    }

    /// Why hot must begin anew, if rows are missing or cold has overtaken it.
    async fn audit(&self, round: &mut Round) -> Result<Option<String>, WriterError> {
        let cold = self.stores.cold.committed().await?;
        for (partition, own) in &mut round.owned {
            let record = self.stores.seam.load(*partition).await?;
            if record.generation() != own.generation {
                continue;
            }
            if let Audit::Lost { what } = self.hot.audit(*partition, &record, own.next).await? {
                self.lost(&what);
                // Said by the last position that counts no more, so that the next claim begins above cold.
                return Ok(Some(what));
            }
            let was_behind = std::mem::replace(&mut own.is_behind, cold.get(partition).is_some_and(|c| *c >= own.next));
            if was_behind && own.is_behind {
                return Ok(Some(format!("partition {partition}: hot is behind cold")));
            }
        }
        Ok(None)
    }

    fn lost(&self, what: &str) {
        self.counters.hot_losses.fetch_add(1, Ordering::Relaxed);
        tracing::error!(
            what,
            "hot has lost rows that it had acknowledged; it is built again above cold"
        );
    }

    async fn show(&self) {
        let shown = async {
            let seam = self.seam_records().await?;
            self.hot.show(&seam).await.map_err(WriterError::from)
        };
        if let Err(error) = shown.await {
            tracing::warn!(
                error = with_source(&error),
                "the view of the rows that count was not replaced"
            );
        }
    }
}

#[derive(Debug)]
enum Inserted {
    Done { after_refusal: bool },
    Stopped,
    Unknown(String),
}

impl SharedHotWriter {
    pub(super) async fn seam_records(&self) -> Result<BTreeMap<Partition, SeamRecord>, WriterError> {
        let seam = &self.stores.seam;
        let mut records = BTreeMap::new();
        for partition in seam.partitions().await? {
            records.insert(partition, seam.load(partition).await?);
        }
        Ok(records)
    }
}

fn with_source(error: &WriterError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

impl From<ClickHouseError> for WriterError {
    fn from(error: ClickHouseError) -> Self {
        Self::Server(error)
    }
}
