//! Taking out what is erased, beside the commits: of cold, then of hot, and of the batches that are set aside. A rule is done in a place only
//! when nothing of it is left there and nobody can bring it back.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sluice_store::cold::Cleaned;
use sluice_store::erase::Place;
use sluice_store::{ClickHouseHot, EmbeddedHot, Erasures, Rule};
use sluice_wire::ids::Partition;

use super::WriterError;
use super::age::{Now, wall_us};
use super::tidy::Tidy;
use crate::replay::{Progress, replay_tail};

/// Gateways' clocks agree to this, in microseconds.
const CLOCKS_US: i64 = 60_000_000;
/// For queries that hold rules for up to a second, and for a clock that ticks a little faster.
const MARGIN: Duration = Duration::from_secs(10);

/// Nobody watches.
struct Unseen;

impl Progress for Unseen {
    fn step(&self, _: u64, _: u64) {}
}

impl Tidy {
    /// Takes out what is erased, and notes the rules whose rows are gone for good.
    pub(super) async fn forget(&self, now: Now, cleaned: &mut Cleaned) -> Result<(), WriterError> {
        let erasures = self.stores.erased_for_good(now.us).await?;
        let report = self.stores.cold.erase(&erasures, cleaned).await?;
        self.counters.erased_rows.fetch_add(report.rows, Ordering::Relaxed);
        if report.rows > 0 {
            tracing::info!(
                rows = report.rows,
                files = report.files_before,
                "erased rows were taken out of cold"
            );
        }
        let (rules, done) = (self.stores.rules().await?, self.stores.rules_done(Place::Cold).await?);
        for (number, rule) in rules.iter().filter(|(number, _)| !done.contains_key(number)) {
            // Whoever takes something in before that time has done it by then.
            if wall_us().saturating_sub(rule.before_us) > CLOCKS_US && self.cold_has_passed(rule).await? {
                // Before this turn began, cold may not have had all of it.
                let only = Erasures(vec![rule.erasure()]);
                let again = self.stores.cold.erase(&only, &mut Cleaned::default()).await?;
                self.counters.erased_rows.fetch_add(again.rows, Ordering::Relaxed);
                self.stores.rule_is_done(Place::Cold, *number, "cold").await?;
            }
        }
        self.forget_aside(&erasures).await?;
        self.forget_in_hot(&rules).await
    }

    /// The first offset of a partition from which on nothing was taken in before the time of a rule.
    async fn end_of(&self, rule: &Rule, partition: Partition) -> Result<u64, WriterError> {
        let (first, end) = (self.log.first(partition), self.log.fresh_end(partition).await?);
        // Clocks of gateways differ a little.
        let cutoff = rule.before_us.saturating_add(CLOCKS_US);
        Ok(self.log.first_since(partition, first, end, cutoff).await?)
    }

    /// Whether cold holds everything that was taken in before the time of a rule.
    async fn cold_has_passed(&self, rule: &Rule) -> Result<bool, WriterError> {
        let committed = self.stores.cold.committed().await?;
        for partition in self.log.partitions() {
            let next = committed
                .get(&partition)
                .map_or_else(|| self.log.first(partition), |last| last + 1);
            if next < self.end_of(rule, partition).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What cold is rid of leaves hot, too.
    async fn forget_in_hot(&self, rules: &BTreeMap<u64, Rule>) -> Result<(), WriterError> {
        let (cold, hot) = (
            self.stores.rules_done(Place::Cold).await?,
            self.stores.rules_done(Place::Hot).await?,
        );
        let left: Vec<(u64, &Rule)> = rules
            .iter()
            .filter(|(number, _)| cold.contains_key(number) && !hot.contains_key(number))
            .map(|(number, rule)| (*number, rule))
            .collect();
        if left.is_empty() {
            return Ok(());
        }
        let gone = if let Some(hot) = self.stores.hot.embedded() {
            match self.gone_from_memory(hot).await? {
                true => left.iter().map(|(number, _)| *number).collect(),
                false => Vec::new(),
            }
        } else if let Some(hot) = self.stores.hot.clickhouse() {
            self.gone_from_server(hot, &left).await?
        } else {
            Vec::new()
        };
        for number in gone {
            self.stores.rule_is_done(Place::Hot, number, "hot").await?;
        }
        Ok(())
    }

    /// Drops everything that cold has. False: a writer is still about to bring some of it.
    async fn gone_from_memory(&self, hot: &EmbeddedHot) -> Result<bool, WriterError> {
        let committed = self.stores.cold.committed().await?;
        let mut is_gone = true;
        // Another process may have it, and drops it with what cold has.
        for partition in hot.partitions() {
            let Some(low) = committed.get(&partition).copied() else {
                continue;
            };
            let seam = &self.stores.seam;
            if seam.load(partition).await?.low.is_none_or(|held| held < low) {
                seam.advance(partition, low).await?;
            }
            let cut = hot.cut_to(partition, low);
            is_gone &= cut.map_err(|error| WriterError::Task(format!("hot was not cut: {error}")))?;
        }
        Ok(is_gone)
    }

    /// Makes hot again from cold without what is erased, once its writers are behind it, and deletes the old rows. Returns the rules of
    /// which the server has no row any more.
    async fn gone_from_server(&self, hot: &ClickHouseHot, left: &[(u64, &Rule)]) -> Result<Vec<u64>, WriterError> {
        let mut ready = Vec::new();
        for (number, rule) in left {
            let age = Duration::from_micros(u64::try_from(wall_us().saturating_sub(rule.before_us)).unwrap_or(0));
            // No query is left that does not know the rule.
            if age > self.options.query_limit + MARGIN && self.hot_has_passed(rule).await? {
                ready.push((*number, *rule));
            }
        }
        if ready.is_empty() {
            return Ok(Vec::new());
        }
        // Most often there is nothing left: hot keeps days, and cold is read first.
        let mut gone = Vec::new();
        let mut there = Vec::new();
        for (number, rule) in ready {
            match hot.count_erased(&rule.erasure()).await? {
                0 => gone.push(number),
                _ => there.push((number, rule)),
            }
        }
        if there.is_empty() {
            return Ok(gone);
        }
        let made = replay_tail(&self.stores, &Unseen).await;
        made.map_err(|error| WriterError::Task(format!("hot was not made again without what is erased: {error}")))?;
        let mut seam = BTreeMap::new();
        for partition in self.stores.seam.partitions().await? {
            seam.insert(partition, self.stores.seam.load(partition).await?);
        }
        for (number, rule) in there {
            let erasure = rule.erasure();
            hot.delete_erased(&erasure, &seam).await?;
            match hot.count_erased(&erasure).await? {
                0 => gone.push(number),
                rows => tracing::warn!(
                    rule = number,
                    rows,
                    "erased rows are still in hot; they are looked for again"
                ),
            }
        }
        Ok(gone)
    }

    /// Whether no writer of hot will insert anything again that was taken in before the time of a rule.
    async fn hot_has_passed(&self, rule: &Rule) -> Result<bool, WriterError> {
        let seam = &self.stores.seam;
        // Nobody writes partitions of earlier generations of the log.
        for partition in self.log.partitions() {
            let record = seam.load(partition).await?;
            let Some(claim) = record.last_claim() else {
                continue;
            };
            let position = seam.position(partition).await?;
            let position = position.filter(|position| position.generation == claim.generation);
            let next = position.map_or(0, |position| position.next);
            if next < self.end_of(rule, partition).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn forget_aside(&self, erasures: &Erasures) -> Result<(), WriterError> {
        let Some(quarantine) = &self.quarantine else {
            return Ok(());
        };
        let erased = quarantine
            .erase(erasures)
            .await
            .map_err(|error| WriterError::Task(format!("batches that are set aside were not erased: {error}")))?;
        if erased > 0 {
            tracing::info!(
                batches = erased,
                "erased batches were taken out of those that are set aside"
            );
        }
        Ok(())
    }
}
