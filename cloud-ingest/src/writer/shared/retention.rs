//! Which days may leave a shared hot store. Pure.
//!
//! Rows carry the day of their insert. The two newest days always stay: a writer may still add to them.

use std::collections::BTreeMap;

use sluice_store::hot::clickhouse::Day;
use sluice_wire::ids::Partition;

const NEWEST_THAT_STAY: usize = 2;

/// What is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keep {
    /// The oldest day that is kept for its age, in days since 1970.
    pub(super) oldest: u64,
    /// 0: no limit.
    pub(super) bytes: u64,
}

/// The days that may go, the oldest first: too old or too many, and cold holds everything in them.
pub(super) fn leaving(days: &[Day], keep: Keep, cold: &BTreeMap<Partition, u64>) -> Vec<Day> {
    let mut bytes: u64 = days.iter().map(|day| day.bytes).sum();
    let mut leaving = Vec::new();
    let candidates = days.len().saturating_sub(NEWEST_THAT_STAY);
    for day in &days[..candidates] {
        let is_old = day.number < keep.oldest;
        let are_many = keep.bytes > 0 && bytes > keep.bytes;
        // Days leave in their order, so one that must stay keeps those after it.
        if !(is_old || are_many) || !is_in_cold(day, cold) {
            break;
        }
        bytes -= day.bytes;
        leaving.push(day.clone());
    }
    leaving
}

fn is_in_cold(day: &Day, cold: &BTreeMap<Partition, u64>) -> bool {
    day.highest
        .iter()
        .all(|(partition, highest)| cold.get(partition).is_some_and(|held| highest <= held))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_leave_in_order_when_old_or_many_and_never_before_cold_has_them() {
        let p = Partition::default();
        let days: Vec<Day> = (1u64..=5)
            .map(|n| Day {
                name: format!("1970-01-0{}", n + 1),
                number: n,
                bytes: 10,
                highest: BTreeMap::from([(p, n * 100)]),
            })
            .collect();
        let names = |oldest: u64, bytes, cold: u64| {
            let keep = Keep { oldest, bytes };
            let leaving = leaving(&days, keep, &BTreeMap::from([(p, cold)]));
            leaving.iter().map(|day| day.number).collect::<Vec<u64>>()
        };
        assert_eq!(names(3, 0, 1000), [1, 2]);
        assert_eq!(names(3, 0, 199), [1]);
        assert!(names(3, 0, 99).is_empty());
        // The clock is a year ahead: the newest two stay.
        assert_eq!(names(500, 0, 1000), [1, 2, 3]);
        assert_eq!(names(0, 35, 1000), [1, 2]);
        assert!(names(0, 0, 1000).is_empty());
        assert!(super::leaving(&days, Keep { oldest: 500, bytes: 0 }, &BTreeMap::new()).is_empty());
    }
}
