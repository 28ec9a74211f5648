//! Where a writer of a shared hot store begins. Pure.

use sluice_store::{Position, SeamRecord};

/// From which offset on it writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// Hot holds everything between L and here.
    Resume { from: u64 },
    /// What hot holds does not count any more: cold holds everything up to here.
    AboveCold { low: u64 },
    /// Neither store holds anything: from the log's first offset.
    Begin { from: u64 },
}

/// The saved position, if it says anything: that of the last claim, and not behind what cold holds.
pub(super) fn usable(record: &SeamRecord, position: Option<Position>, cold_next: u64) -> Option<u64> {
    let position = position.filter(|position| position.generation == record.generation())?;
    let claimed_below = record.last_claim().is_some_and(|claim| claim.from <= position.next);
    (claimed_below && position.next >= cold_next).then_some(position.next)
}

/// `intact`: the position up to which hot was found to hold what it must. `cold_next`: the first offset that cold does not hold.
pub(super) fn start(intact: Option<u64>, cold: Option<u64>, log_first: u64) -> Start {
    match (intact, cold) {
        (Some(from), _) => Start::Resume { from },
        (None, Some(low)) => Start::AboveCold { low },
        (None, None) => Start::Begin { from: log_first },
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_position_counts_only_for_the_last_claim_and_above_cold() {
        let text = r#"{"version":1,"begin":0,"claims":[{"from":0,"generation":1},{"from":40,"generation":2}]}"#;
        let record: SeamRecord = serde_json::from_str(text).unwrap();
        let check = |generation, next, cold_next, expected: Option<u64>| {
            let position = Some(Position::new(generation, next));
            assert_eq!(usable(&record, position, cold_next), expected, "{position:?}");
        };
        check(2, 50, 45, Some(50));
        check(2, 40, 0, Some(40));
        // A writer that lost the partition, one that hot has fallen behind of, one of a seam that was put back.
        check(1, 50, 45, None);
        check(2, 50, 51, None);
        check(2, 39, 0, None);
        assert_eq!(usable(&record, None, 0), None);
    }

    #[test]
    fn without_an_intact_tail_hot_begins_above_cold() {
        assert_eq!(start(Some(7), Some(3), 0), Start::Resume { from: 7 });
        assert_eq!(start(None, Some(3), 0), Start::AboveCold { low: 3 });
        assert_eq!(start(None, None, 5), Start::Begin { from: 5 });
    }
}
