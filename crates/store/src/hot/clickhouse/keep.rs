//! What leaves the server: whole days that nobody reads any more, rows of writers that lost their partition, and rows that are erased.

use std::collections::BTreeMap;

use sluice_wire::ids::Partition;

use super::client::{ClickHouseError, Statement};
use super::schema::TABLE;
use super::{ClickHouseHot, Held, META_WITHIN, MIGRATE_WITHIN, visible};
use crate::erase::{Erasure, Whose};
use crate::seam::SeamRecord;

/// All rows that are dropped together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Day {
    /// `2026-11-21`.
    pub name: String,
    /// Days since 1970.
    pub number: u64,
    pub bytes: u64,
    /// The highest offset of each partition that is in it and counts.
    pub highest: BTreeMap<Partition, u64>,
}

/// What the server holds of one generation of a partition in one day.
#[derive(Clone, Debug)]
struct InDay {
    name: String,
    number: u64,
    partition: Partition,
    generation: u64,
    first: u64,
    last: u64,
}

impl ClickHouseHot {
    /// The days that the server holds, the oldest first, and what of them counts as these records say: rows that a replay has made anew
    /// elsewhere do not.
    pub async fn days(&self, seam: &BTreeMap<Partition, SeamRecord>) -> Result<Vec<Day>, ClickHouseError> {
        let client = &self.shared.client;
        let sizes = format!(
            "SELECT `partition`, sum(`bytes_on_disk`) FROM system.parts WHERE `database` = '{}' AND `table` = '{TABLE}' AND `active` \
             GROUP BY `partition`",
            client.database()
        );
        let sizes = client.run(Statement::new(sizes), META_WITHIN).await?;
        let sizes: BTreeMap<String, u64> = sizes
            .iter()
            .filter_map(|row| Some((row.first()?.clone(), row.get(1)?.parse().ok()?)))
            .collect();
        self.lock().bytes = sizes.values().sum();
        let text = format!(
            "SELECT toString(`drop_day`), `partition`, `gen`, min(`offset`), max(`offset`), toUInt16(`drop_day`) FROM `{TABLE}` \
             GROUP BY `drop_day`, `partition`, `gen` ORDER BY `drop_day`"
        );
        let rows = client.run(Statement::new(text), META_WITHIN).await?;
        let held = rows.iter().map(|row| in_day(row)).collect::<Result<Vec<_>, _>>()?;
        Ok(days_of(&held, &sizes, seam))
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

impl ClickHouseHot {
    /// Deletes the rows of an erasure that do not count, as these records say, whether above L or below; those of a claim that the records
    /// do not know yet stay. Queries that are left began after the erasure was there, so they pass over such rows anyway.
    pub async fn delete_erased(
        &self,
        erasure: &Erasure,
        seam: &BTreeMap<Partition, SeamRecord>,
    ) -> Result<(), ClickHouseError> {
        let dead = seam
            .iter()
            .map(|(partition, record)| format!("({})", visible::uncounted(*partition, record)));
        let text = format!(
            "ALTER TABLE `{TABLE}` DELETE WHERE {} AND {}",
            of_erasure(erasure),
            visible::any(dead)
        );
        // On every replica.
        let statement = Statement::new(text).with("mutations_sync", 2);
        self.shared.client.run(statement, MIGRATE_WITHIN).await.map(drop)
    }

    /// How many rows of an erasure the server has, whether they count or not.
    pub async fn count_erased(&self, erasure: &Erasure) -> Result<u64, ClickHouseError> {
        let text = format!("SELECT count() FROM `{TABLE}` WHERE {}", of_erasure(erasure));
        let rows = self.shared.client.run(Statement::new(text), MIGRATE_WITHIN).await?;
        let count = rows.first().and_then(|row| row.first()?.parse().ok());
        count.ok_or_else(|| ClickHouseError::Answer("counting erased rows gave no number".to_owned()))
    }
}

/// The rows of an erasure, in the words of the server. The only texts are names of tenants, in hexadecimal.
fn of_erasure(erasure: &Erasure) -> String {
    let name = |tenant: &str| {
        let hex: String = tenant.bytes().map(|byte| format!("{byte:02x}")).collect();
        format!("unhex('{hex}')")
    };
    let mut conditions = vec![
        "`signal` != '_batch'".to_owned(),
        format!("toUnixTimestamp64Micro(`ingested_at`) < {}", erasure.before_us),
    ];
    match &erasure.whose {
        Whose::Tenant(tenant) => conditions.push(format!("`tenant` = {}", name(tenant))),
        Whose::AllBut(others) => {
            conditions.extend(others.iter().map(|other| format!("`tenant` != {}", name(other))));
        }
    }
    conditions.extend(
        erasure
            .from_ns
            .map(|from| format!("toUnixTimestamp64Nano(`time`) >= {from}")),
    );
    conditions.extend(erasure.to_ns.map(|to| format!("toUnixTimestamp64Nano(`time`) < {to}")));
    conditions.join(" AND ")
}

fn in_day(row: &[String]) -> Result<InDay, ClickHouseError> {
    let number = |at: usize| row.get(at).and_then(|cell| cell.parse::<u64>().ok());
    let read = || {
        Some(InDay {
            name: row.first()?.clone(),
            partition: Partition::from_i64(row.get(1)?.parse().ok()?)?,
            generation: number(2)?,
            first: number(3)?,
            last: number(4)?,
            number: number(5)?,
        })
    };
    read().ok_or_else(|| ClickHouseError::Answer(format!("{row:?} is no day")))
}

/// Days in their order, with the highest offset that counts of each partition.
fn days_of(held: &[InDay], sizes: &BTreeMap<String, u64>, seam: &BTreeMap<Partition, SeamRecord>) -> Vec<Day> {
    let mut days: Vec<Day> = Vec::new();
    for held in held {
        if days.last().is_none_or(|day| day.name != held.name) {
            days.push(Day {
                name: held.name.clone(),
                number: held.number,
                bytes: sizes.get(&held.name).copied().unwrap_or(0),
                highest: BTreeMap::new(),
            });
        }
        let spans = seam.get(&held.partition).map(SeamRecord::spans).unwrap_or_default();
        let counts = spans
            .iter()
            .filter(|span| span.generation == held.generation)
            .filter_map(|span| {
                let last = span.last.unwrap_or(held.last).min(held.last);
                (span.first.max(held.first) <= last).then_some(last)
            });
        if let (Some(day), Some(last)) = (days.last_mut(), counts.max()) {
            let highest = day.highest.entry(held.partition).or_insert(last);
            *highest = last.max(*highest);
        }
    }
    days
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const P: Partition = Partition {
        generation: 0,
        index: 0,
    };

    fn days(record: &str, held: &[(u64, u64, u64, u64)]) -> Vec<(u64, Option<u64>)> {
        let record: SeamRecord = serde_json::from_str(record).unwrap();
        let held: Vec<InDay> = held
            .iter()
            .map(|(number, generation, first, last)| InDay {
                name: format!("day {number}"),
                number: *number,
                partition: P,
                generation: *generation,
                first: *first,
                last: *last,
            })
            .collect();
        let days = days_of(&held, &BTreeMap::new(), &BTreeMap::from([(P, record)]));
        days.iter()
            .map(|day| (day.number, day.highest.get(&P).copied()))
            .collect()
    }

    /// A day that a replay has made anew holds nothing that counts: that it leaves must not move L over what the replay brought back.
    #[test]
    fn only_rows_that_count_say_how_far_l_must_be_before_a_day_leaves() {
        let before = r#"{"version":1,"begin":0,"claims":[{"from":0,"generation":1}],"low":99}"#;
        let held = [(1, 1, 0, 499), (2, 1, 500, 900), (3, 1, 901, 999)];
        assert_eq!(days(before, &held), [(1, Some(499)), (2, Some(900)), (3, Some(999))]);
        // 50 to 700 were made again, in the newest day.
        let after = r#"{"version":1,"begin":0,"claims":[{"from":0,"generation":1},{"from":50,"generation":5},{"from":701,"generation":1}],"low":49}"#;
        let held = [(1, 1, 0, 499), (2, 1, 500, 900), (3, 1, 901, 999), (3, 5, 50, 700)];
        assert_eq!(days(after, &held), [(1, None), (2, Some(900)), (3, Some(999))]);
        // Rows below L count no more.
        let below = r#"{"version":1,"begin":0,"claims":[{"from":0,"generation":1}],"low":600}"#;
        assert_eq!(
            days(below, &[(1, 1, 0, 499), (2, 1, 500, 900)]),
            [(1, None), (2, Some(900))]
        );
    }

    #[test]
    fn an_erasure_in_the_words_of_the_server_has_no_text_of_anybody() {
        let erasure = Erasure {
            whose: Whose::Tenant("a' OR 1 --".to_owned()),
            before_us: 5,
            from_ns: Some(-7),
            to_ns: None,
        };
        assert_eq!(
            of_erasure(&erasure),
            "`signal` != '_batch' AND toUnixTimestamp64Micro(`ingested_at`) < 5 AND `tenant` = unhex('6127204f522031202d2d') AND \
             toUnixTimestamp64Nano(`time`) >= -7"
        );
    }
}
