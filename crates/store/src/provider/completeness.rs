//! How much of what the log held when a query began is in its answer.

use std::collections::BTreeMap;

use sluice_wire::ids::Partition;

use super::PinnedPartition;

/// "Complete" means: all that the log held at the start. It never speaks of event times.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Completeness {
    /// `None`: unknown, because the end of at least one partition is unknown.
    pub complete: Option<bool>,
    /// Log records that are in neither store yet; of the partitions whose end is known.
    pub missing: u64,
    /// Microseconds since 1970 at which the oldest missing record entered the log.
    pub oldest_missing_us: Option<i64>,
    /// Hot did not answer: the answer is from cold alone.
    pub hot_unreachable: bool,
    pub partitions: Vec<PartitionState>,
}

#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct PartitionState {
    /// The number that stands in the column `partition`.
    pub partition: i64,
    /// E: the next offset of the log.
    pub end: Option<u64>,
    /// H: the last offset that hot holds.
    pub hot: Option<u64>,
    /// C: the last offset that cold holds.
    pub cold: Option<u64>,
    /// V: the answer holds everything up to here.
    pub visible: Option<u64>,
    /// `None` while the end is unknown.
    pub missing: Option<u64>,
}

pub(super) fn of(partitions: &BTreeMap<Partition, PinnedPartition>, hot_unreachable: bool) -> Completeness {
    let state = |(partition, pinned): (&Partition, &PinnedPartition)| {
        let next = pinned.share.visible.map_or(0, |visible| visible + 1);
        PartitionState {
            partition: partition.as_i64(),
            end: pinned.end,
            hot: pinned.ends.high,
            cold: pinned.ends.cold,
            visible: pinned.share.visible,
            missing: pinned.end.map(|end| end.saturating_sub(next)),
        }
    };
    let states: Vec<PartitionState> = partitions.iter().map(state).collect();
    let missing = states.iter().filter_map(|state| state.missing).sum();
    let all_known = states.iter().all(|state| state.missing.is_some());
    Completeness {
        complete: match (missing, all_known) {
            (0, true) => Some(true),
            (0, false) => None,
            _ => Some(false),
        },
        missing,
        oldest_missing_us: partitions.values().filter_map(|pinned| pinned.oldest_missing_us).min(),
        hot_unreachable,
        partitions: states,
    }
}
