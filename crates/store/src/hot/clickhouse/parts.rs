//! What each part of the table holds. A part never changes while it has its name, so where all rows of one count, a query of them need
//! not look at the offset of any; and where none counts, not at the part.
//!
//! A statement asks for the parts that count as a whole by their names, and for all others by what the seam says. A part that was merged
//! away since, or came since, is among the others: nothing depends on the names being the newest, but all pieces must see the same parts.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sluice_wire::ids::Partition;

use super::client::{ClickHouseError, Statement};
use super::schema::{ENDS, SET_ASIDE, TABLE};
use super::visible;
use super::{ClickHouseHot, Held, parse_held};
use crate::seam::SeamRecord;

/// All pieces of a statement read the table as it was at one moment.
const ONE_MOMENT: &str = "enable_shared_storage_snapshot_in_query";
/// What else a profile of somebody's could have set that gives each piece a moment of its own.
const MOMENTS_OF_THEIR_OWN: [(&str, u8); 2] = [("enable_parallel_replicas", 0), ("enable_analyzer", 1)];
/// Generations of partitions in all parts that a query's look takes; where there are more, parts are not told apart for a while.
const MAX_LINES: usize = 20_000;
/// Names in a statement, the largest parts first: small ones are looked at quickly.
const MAX_NAMES: usize = 512;
/// Whether all parts have the projection `held` is asked so often.
const LOOK_FOR_HELD_EVERY: Duration = Duration::from_secs(60);

/// What the parts of the table held at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parts(Vec<Part>);

#[derive(Clone, Debug)]
struct Part {
    name: String,
    held: Vec<Held>,
}

/// The parts of which no row need be looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Split {
    /// All their rows count, and some of them were set aside.
    pub(crate) whole: Vec<String>,
    /// All their rows count, and none was set aside.
    pub(crate) clean: Vec<String>,
    /// None of theirs does.
    pub(crate) without: Vec<String>,
}

impl Parts {
    /// `served`: the first and the last offset that hot serves of each partition.
    pub(crate) fn split(
        &self,
        seam: &BTreeMap<Partition, SeamRecord>,
        served: &BTreeMap<Partition, (u64, u64)>,
    ) -> Split {
        let counting: BTreeMap<Partition, Vec<visible::Counting>> = served
            .iter()
            .filter_map(|(partition, (first, last))| {
                let record = seam.get(partition)?;
                Some((*partition, visible::counting(record, *first, *last).collect()))
            })
            .collect();
        // A generation may count at several stretches.
        let any = |held: &Held, is: &dyn Fn(&visible::Counting) -> bool| {
            let theirs = counting.get(&held.partition).into_iter().flatten();
            theirs.filter(|one| one.generation == held.generation).any(is)
        };
        let is_whole = |held: &Held| any(held, &|one| one.low <= held.first && held.last <= one.high);
        let is_without = |held: &Held| !any(held, &|one| one.low <= held.last && held.first <= one.high);
        let mut split = Split::default();
        for part in self.0.iter().take(MAX_NAMES) {
            if part.held.iter().all(is_whole) {
                let is_clean = part.held.iter().all(|held| held.set_aside == Some(0));
                let whole = if is_clean { &mut split.clean } else { &mut split.whole };
                whole.push(part.name.clone());
            } else if part.held.iter().all(is_without) {
                split.without.push(part.name.clone());
            }
        }
        split
    }

    /// `None` stands for rows of no partition.
    fn of(parts: BTreeMap<&str, Vec<Option<Held>>>) -> Self {
        // A name that could end a text in a statement is none that the server gives.
        let is_plain = |name: &str| {
            name.bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
        };
        let known = parts
            .into_iter()
            .filter(|(name, _)| is_plain(name))
            .filter_map(|(name, held)| {
                let held = held.into_iter().collect::<Option<Vec<Held>>>()?;
                let name = name.to_owned();
                Some(Part { name, held })
            });
        let mut parts: Vec<Part> = known.collect();
        parts.sort_by_key(|part| std::cmp::Reverse(part.held.iter().map(|held| held.rows).sum::<u64>()));
        Self(parts)
    }
}

/// A statement in pieces that read the table at one moment.
pub(super) fn at_one_moment(statement: Statement) -> Statement {
    let own = MOMENTS_OF_THEIR_OWN.into_iter();
    own.fold(statement.with(ONE_MOMENT, 1), |statement, (name, value)| {
        statement.with(name, value)
    })
}

impl Split {
    /// How many parts count as a whole.
    pub(crate) fn counting(&self) -> usize {
        self.whole.len() + self.clean.len()
    }
}

impl ClickHouseHot {
    /// What the server holds of each generation, and in which parts; `None`: there are too many parts to tell them apart.
    pub(super) async fn held_in_parts(&self, within: Duration) -> Result<Option<(Vec<Held>, Parts)>, ClickHouseError> {
        // Without its projection, all rows would be looked at.
        let set_aside = match self.has_held(within).await? {
            true => format!(", {SET_ASIDE}"),
            false => String::new(),
        };
        let text = format!(
            "SELECT `partition`, `gen`, {ENDS}, `_part`{set_aside} FROM `{TABLE}` GROUP BY `partition`, `gen`, `_part` LIMIT {}",
            MAX_LINES + 1
        );
        let rows = self.shared.client.run(Statement::new(text), within).await?;
        if rows.len() > MAX_LINES {
            return Ok(None);
        }
        let mut parts: BTreeMap<&str, Vec<Option<Held>>> = BTreeMap::new();
        let mut sums: BTreeMap<(Partition, u64), Held> = BTreeMap::new();
        for row in &rows {
            let strange = || ClickHouseError::Answer(format!("{row:?} are no ends of a part"));
            let name = row.get(7).filter(|name| !name.is_empty()).ok_or_else(strange)?;
            let partition: i64 = row[0].parse().map_err(|_| strange())?;
            // Rows of no partition count nowhere, and their part is one whose rows are looked at.
            let held = match Partition::from_i64(partition) {
                Some(_) => Some(Held {
                    set_aside: row.get(8).and_then(|count| count.parse().ok()),
                    ..parse_held(row)?
                }),
                None => None,
            };
            if let Some(held) = held {
                let sum = sums.entry((held.partition, held.generation));
                sum.and_modify(|sum| sum.add(held)).or_insert(held);
            }
            parts.entry(name).or_default().push(held);
        }
        Ok(Some((sums.into_values().collect(), Parts::of(parts))))
    }

    /// Whether all parts have the projection `held`. Where that is not to be learnt, they have not.
    async fn has_held(&self, within: Duration) -> Result<bool, ClickHouseError> {
        let known = self.lock().has_held;
        if let Some((until, has)) = known
            && Instant::now() < until
        {
            return Ok(has);
        }
        let text = format!(
            "SELECT countIf(has(projections, 'held')), countIf(NOT has(projections, 'held')) FROM system.parts \
             WHERE database = currentDatabase() AND table = '{TABLE}' AND active"
        );
        let has = match self.shared.client.run(Statement::new(text), within).await {
            Ok(rows) => rows
                .first()
                .is_some_and(|row| row.len() == 2 && row[0] != "0" && row[1] == "0"),
            Err(ClickHouseError::Refused { .. }) => false,
            Err(error) => return Err(error),
        };
        self.lock().has_held = Some((Instant::now() + LOOK_FOR_HELD_EVERY, has));
        Ok(has)
    }

    /// Whether the server can show one moment to all of a statement. Asked once.
    pub(super) async fn shows_one_moment(&self, within: Duration) -> Result<bool, ClickHouseError> {
        let known = self.lock().shows_one_moment;
        if let Some(known) = known {
            return Ok(known);
        }
        let text = format!("SELECT count() FROM system.settings WHERE name = '{ONE_MOMENT}'");
        let rows = self.shared.client.run(Statement::new(text), within).await?;
        let known = rows
            .first()
            .and_then(|row| row.first())
            .is_some_and(|count| count == "1");
        self.lock().shows_one_moment = Some(known);
        Ok(known)
    }
}

impl Held {
    /// Another part of the same generation.
    fn add(&mut self, other: Self) {
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
        self.rows += other.rows;
        self.ledger_rows += other.ledger_rows;
        self.batch_rows += other.batch_rows;
        self.set_aside = self.set_aside.zip(other.set_aside).map(|(one, other)| one + other);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::seam::Claim;

    const ONE: Partition = Partition {
        generation: 1,
        index: 0,
    };

    fn held(generation: u64, first: u64, last: u64) -> Held {
        Held {
            partition: ONE,
            generation,
            first,
            last,
            rows: last - first + 1,
            ledger_rows: 0,
            batch_rows: 0,
            set_aside: Some(0),
        }
    }

    proptest! {
        /// Row by row: a part is whole if each of its rows counts, and without if none does.
        #[test]
        fn a_part_is_told_apart_as_its_rows_are(
            claims in proptest::collection::vec((0u64..30, 1u64..5), 0..4),
            low in proptest::option::of(0u64..20),
            served in (0u64..30, 0u64..30),
            groups in proptest::collection::vec((1u64..5, 0u64..30, 0u64..10), 1..4),
        ) {
            let claims = claims.into_iter().map(|(from, generation)| Claim { from, generation }).collect();
            let mut record = SeamRecord::default();
            (record.claims, record.low) = (claims, low);
            let held: Vec<Held> = groups.iter().map(|(g, first, more)| held(*g, *first, first + more)).collect();
            let counts = |generation: u64, offset: u64| {
                served.0 <= offset
                    && offset <= served.1
                    && record.spans().iter().any(|span| {
                        span.generation == generation && span.first <= offset && span.last.is_none_or(|last| offset <= last)
                    })
            };
            let rows: Vec<bool> =
                held.iter().flat_map(|one| (one.first..=one.last).map(|offset| counts(one.generation, offset))).collect();
            let parts = Parts::of(BTreeMap::from([("all_1_1_0", held.iter().copied().map(Some).collect())]));
            let split = parts.split(&BTreeMap::from([(ONE, record.clone())]), &BTreeMap::from([(ONE, served)]));
            if split.counting() > 0 {
                prop_assert!(rows.iter().all(|counts| *counts));
            }
            if !split.without.is_empty() {
                prop_assert!(rows.iter().all(|counts| !counts));
            }
            // One generation that lies within one claim is never looked at for nothing.
            if held.len() == 1 && rows.iter().all(|counts| !counts) {
                prop_assert!(!split.without.is_empty());
            }
        }
    }

    #[test]
    fn one_row_that_was_set_aside_is_enough() {
        let aside = Held {
            set_aside: Some(1),
            ..held(1, 5, 9)
        };
        let parts = Parts::of(BTreeMap::from([
            ("all_1_1_0", vec![Some(held(1, 0, 4))]),
            ("all_2_3_1", vec![Some(held(1, 0, 4)), Some(aside)]),
        ]));
        let mut record = SeamRecord::default();
        record.claims = vec![Claim { from: 0, generation: 1 }];
        let split = parts.split(&BTreeMap::from([(ONE, record)]), &BTreeMap::from([(ONE, (0, 9))]));
        assert_eq!(
            (split.clean, split.whole),
            (vec!["all_1_1_0".to_owned()], vec!["all_2_3_1".to_owned()])
        );
    }

    #[test]
    fn rows_of_no_partition_are_looked_at() {
        let foreign = ("x') OR 1 --", vec![Some(held(1, 0, 1))]);
        let strange = ("all_1_1_0", vec![Some(held(1, 0, 1)), None]);
        let parts = Parts::of(BTreeMap::from([foreign, strange]));
        assert!(parts.0.is_empty());
    }
}
