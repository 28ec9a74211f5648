//! What became of the events of a batch, so that nothing accepted ever vanishes without a name.

use std::collections::BTreeMap;

/// The balance of one batch: `accepted = stored + sum(dropped) + quarantined + damaged`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events that a sender was told are safe.
    pub accepted: u64,
    /// Rows in the payload that are not quarantined.
    pub stored: u64,
    /// Rows in the payload that a plugin failed on.
    pub quarantined: u64,
    /// Accepted events that were lost to damage of the disk.
    pub damaged: u64,
    /// Accepted events that a plugin dropped on purpose, by plugin and reason.
    pub dropped: Vec<Dropped>,
    /// Events that were refused at the door and so never accepted; for information.
    pub refused: Vec<Dropped>,
}

/// How many events one plugin dropped or refused for one reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    pub plugin: String,
    pub reason: String,
    pub rows: u64,
}

impl Counts {
    /// Adds another balance to this one; entries of the same plugin and reason become one. Sums stop at the largest number.
    pub fn merge(&mut self, other: &Counts) {
        self.accepted = self.accepted.saturating_add(other.accepted);
        self.stored = self.stored.saturating_add(other.stored);
        self.quarantined = self.quarantined.saturating_add(other.quarantined);
        self.damaged = self.damaged.saturating_add(other.damaged);
        merge_lists(&mut self.dropped, &other.dropped);
        merge_lists(&mut self.refused, &other.refused);
    }

    /// Whether every accepted event has a name.
    pub fn balances(&self) -> bool {
        let named = [self.stored, self.quarantined, self.damaged]
            .into_iter()
            .chain(self.dropped.iter().map(|d| d.rows))
            .try_fold(0u64, u64::checked_add);
        named == Some(self.accepted)
    }

    /// What was added since an earlier reading of the same running totals. Never below zero.
    pub fn minus(&self, earlier: &Counts) -> Counts {
        Counts {
            accepted: self.accepted.saturating_sub(earlier.accepted),
            stored: self.stored.saturating_sub(earlier.stored),
            quarantined: self.quarantined.saturating_sub(earlier.quarantined),
            damaged: self.damaged.saturating_sub(earlier.damaged),
            dropped: minus_lists(&self.dropped, &earlier.dropped),
            refused: minus_lists(&self.refused, &earlier.refused),
        }
    }

    /// The sum over all plugins and reasons.
    pub fn dropped_rows(&self) -> u64 {
        self.dropped.iter().fold(0, |sum, d| sum.saturating_add(d.rows))
    }
}

type Totals<'a> = BTreeMap<(&'a str, &'a str), u64>;

fn totals(list: &[Dropped]) -> Totals<'_> {
    let mut map = Totals::new();
    for d in list {
        let rows = map.entry((&d.plugin, &d.reason)).or_default();
        *rows = rows.saturating_add(d.rows);
    }
    map
}

fn into_list(map: Totals<'_>) -> Vec<Dropped> {
    map.into_iter()
        .filter(|(_, rows)| *rows > 0)
        .map(|((plugin, reason), rows)| Dropped {
            plugin: plugin.to_owned(),
            reason: reason.to_owned(),
            rows,
        })
        .collect()
}

fn merge_lists(into: &mut Vec<Dropped>, from: &[Dropped]) {
    if from.is_empty() {
        return;
    }
    let mut map = totals(into);
    for (key, rows) in totals(from) {
        let sum = map.entry(key).or_default();
        *sum = sum.saturating_add(rows);
    }
    *into = into_list(map);
}

fn minus_lists(now: &[Dropped], earlier: &[Dropped]) -> Vec<Dropped> {
    let mut map = totals(now);
    for (key, rows) in totals(earlier) {
        if let Some(left) = map.get_mut(&key) {
            *left = left.saturating_sub(rows);
        }
    }
    into_list(map)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn dropped() -> impl Strategy<Value = Vec<Dropped>> {
        let one = ("[ab]", "[xy]", 0u64..1 << 40).prop_map(|(plugin, reason, rows)| Dropped { plugin, reason, rows });
        proptest::collection::vec(one, 0..6)
    }

    fn balanced() -> impl Strategy<Value = Counts> {
        (0u64..1 << 40, 0u64..1 << 40, 0u64..1 << 40, dropped(), dropped()).prop_map(
            |(stored, quarantined, damaged, dropped, refused)| {
                let accepted = stored + quarantined + damaged + dropped.iter().map(|d| d.rows).sum::<u64>();
                Counts {
                    accepted,
                    stored,
                    quarantined,
                    damaged,
                    dropped,
                    refused,
                }
            },
        )
    }

    proptest! {
        #[test]
        fn p3_sums_and_differences_of_balanced_counts_balance(a in balanced(), b in balanced()) {
            let mut sum = a.clone();
            sum.merge(&b);
            prop_assert!(sum.balances());
            let back = sum.minus(&a);
            prop_assert!(back.balances());
            let mut normal = Counts::default();
            normal.merge(&b);
            prop_assert_eq!(back, normal);
        }

        #[test]
        fn p3_one_event_without_a_name_is_noticed(mut a in balanced()) {
            a.accepted += 1;
            prop_assert!(!a.balances());
        }
    }

    #[test]
    fn sums_beyond_the_largest_number_do_not_balance() {
        let counts = Counts {
            accepted: 0,
            stored: u64::MAX,
            quarantined: 1,
            ..Counts::default()
        };
        assert!(!counts.balances());
    }
}
