//! What leaves the server: whole days that nobody reads any more, and rows of writers that lost their partition.

use std::collections::BTreeMap;

use sluice_wire::ids::Partition;

use super::client::{ClickHouseError, Statement};
use super::schema::TABLE;
use super::{ClickHouseHot, Held, META_WITHIN, MIGRATE_WITHIN, visible};
use crate::seam::SeamRecord;

/// All rows that are dropped together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Day {
    /// `2026-11-21`.
    pub name: String,
    /// Days since 1970.
    pub number: u64,
    pub bytes: u64,
    /// The highest offset of each partition that is in it.
    pub highest: BTreeMap<Partition, u64>,
}

impl ClickHouseHot {
    /// The days that the server holds, the oldest first.
    pub async fn days(&self) -> Result<Vec<Day>, ClickHouseError> {
        let client = &self.shared.client;
        let sizes = format!(
            "SELECT `partition`, sum(`bytes_on_disk`) FROM system.parts WHERE `database` = '{}' AND `table` = '{TABLE}' AND `active` \
             GROUP BY `partition`",
            client.database()
        );
        let sizes = client.run(Statement::new(sizes), META_WITHIN).await?;
        let sizes: BTreeMap<&str, u64> = sizes
            .iter()
            .filter_map(|row| Some((row.first()?.as_str(), row.get(1)?.parse().ok()?)))
            .collect();
        self.lock().bytes = sizes.values().sum();
        let text = format!(
            "SELECT toString(`drop_day`), `partition`, max(`offset`), toUInt16(`drop_day`) FROM `{TABLE}` GROUP BY `drop_day`, `partition` ORDER BY `drop_day`"
        );
        let rows = client.run(Statement::new(text), META_WITHIN).await?;
        let mut days: Vec<Day> = Vec::new();
        for row in &rows {
            let number = |at: usize| row.get(at).and_then(|cell| cell.parse::<u64>().ok());
            let partition = row.get(1).and_then(|cell| Partition::from_i64(cell.parse().ok()?));
            let (Some(name), Some(partition), Some(offset), Some(number)) =
                (row.first(), partition, number(2), number(3))
            else {
                return Err(ClickHouseError::Answer(format!("{row:?} is no day")));
            };
            if days.last().is_none_or(|day| day.name != *name) {
                days.push(Day {
                    name: name.clone(),
                    number,
                    bytes: sizes.get(name.as_str()).copied().unwrap_or(0),
                    highest: BTreeMap::new(),
                });
            }
            if let Some(day) = days.last_mut() {
                day.highest.insert(partition, offset);
            }
        }
        Ok(days)
    }

    /// Drops a day. Everything in it that counts lies at and below L, and no query is left that began before L was there.
    pub async fn drop_day(&self, day: &Day) -> Result<(), ClickHouseError> {
        let text = format!("ALTER TABLE `{TABLE}` DROP PARTITION '{}'", day.name);
        self.shared
            .client
            .run(Statement::new(text), MIGRATE_WITHIN)
            .await
            .map(drop)
    }

    /// The partitions that have rows of lost claims above L.
    pub async fn with_dead_rows(
        &self,
        seam: &BTreeMap<Partition, SeamRecord>,
    ) -> Result<Vec<Partition>, ClickHouseError> {
        let held = self.held_where("1", META_WITHIN).await?;
        let dead = seam.iter().filter(|(partition, record)| {
            held.iter()
                .filter(|held| held.partition == **partition)
                .any(|held| has_dead_rows(record, held))
        });
        Ok(dead.map(|(partition, _)| *partition).collect())
    }

    /// Deletes rows of lost claims, as these records say. No query is left that began before those claims were lost.
    pub async fn delete_dead_rows(&self, partition: Partition, record: &SeamRecord) -> Result<(), ClickHouseError> {
        let text = format!(
            "ALTER TABLE `{TABLE}` DELETE WHERE {}",
            visible::dead(partition, record)
        );
        let statement = Statement::new(text).with("mutations_sync", 1);
        self.shared.client.run(statement, MIGRATE_WITHIN).await.map(drop)
    }
}

/// Rows above L that do not count and never will. Those of a claim that these records do not know yet are not among them.
fn has_dead_rows(record: &SeamRecord, held: &Held) -> bool {
    if held.generation > record.highest_generation() || record.low.is_some_and(|low| held.last <= low) {
        return false;
    }
    // Each offset has one ledger row. Beside a replay a generation decides in two places, and its rows between them are dead.
    let between = |first: u64, last: u64| last.checked_sub(first).map_or(0, |more| more + 1);
    let spans = record.spans();
    let alive: u64 = spans
        .iter()
        .filter(|span| span.generation == held.generation)
        .map(|span| {
            between(
                span.first.max(held.first),
                span.last.unwrap_or(held.last).min(held.last),
            )
        })
        .sum();
    let below = record.low.map_or(0, |low| between(held.first, low.min(held.last)));
    held.ledger_rows > alive + below
}
