//! What a planned query reads, as one value: as long as it is the same, so is the answer.
//!
//! A scan is told apart by the filters it was given, the files and pieces of memory that its pinned point leaves it, which of their rows
//! count, and the erasures that can take rows out of them. New rows elsewhere, a hand-off of other rows, or a version of the table that
//! holds the same files for this scan change nothing. Files and pieces of memory never change, and their names are never used again.

use std::collections::BTreeSet;
use std::fmt::{self, Write};
use std::sync::Arc;

use datafusion::physical_plan::ExecutionPlan;

use super::hot_scan::{ChunksExec, ServerExec};
use super::part_exec::PartExec;
use crate::erase::{Erasure, Erasures};

/// Operators whose rows follow from the rows they are given.
const PLAIN: [&str; 32] = [
    "AggregateExec",
    "BoundedWindowAggExec",
    "BufferExec",
    "CoalesceBatchesExec",
    "CoalescePartitionsExec",
    "ColdOnWorkers",
    "CooperativeExec",
    "CrossJoinExec",
    "EmptyExec",
    "FilterExec",
    "GlobalLimitExec",
    "HashJoinExec",
    "InterleaveExec",
    "LocalLimitExec",
    "MeteredExec",
    "NestedLoopJoinExec",
    "PartialSortExec",
    "PartitionedTopKExec",
    "PiecewiseMergeJoinExec",
    "PlaceholderRowExec",
    "ProjectionExec",
    "RepartitionExec",
    "SortExec",
    "SortExec(TopK)",
    "SortMergeJoinExec",
    "SortPreservingMergeExec",
    "SymmetricHashJoinExec",
    "UnionExec",
    "UnnestExec",
    "WindowAggExec",
    // Parts of a table without rows.
    "ColdScan",
    "HotScan",
];

/// What a plan reads.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Inputs(blake3::Hash);

impl fmt::Debug for Inputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Inputs({})", self.0.to_hex())
    }
}

impl Inputs {
    /// Of parts that are told apart by their lengths.
    pub(super) fn of_parts<'a>(parts: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        Self(hasher.finalize())
    }
}

/// `None`: it reads nothing of the stores, or something that cannot be told apart.
pub fn inputs(plan: &Arc<dyn ExecutionPlan>) -> Option<Inputs> {
    let mut scans = BTreeSet::new();
    add_scans(plan, &mut scans)?;
    (!scans.is_empty()).then(|| Inputs::of_parts(scans.into_iter().map(str::as_bytes)))
}

/// Each once: a scan that several machines divide among themselves is there for each of them, and reads the same whoever they are.
fn add_scans<'a>(node: &'a Arc<dyn ExecutionPlan>, scans: &mut BTreeSet<&'a str>) -> Option<()> {
    let scan = if let Some(part) = node.downcast_ref::<PartExec>() {
        part.reads().map(AsRef::as_ref)
    } else if let Some(chunks) = node.downcast_ref::<ChunksExec>() {
        Some(chunks.reads())
    } else {
        node.downcast_ref::<ServerExec>().map(ServerExec::reads)
    };
    if let Some(scan) = scan {
        scans.insert(scan);
        return Some(());
    }
    if !PLAIN.contains(&node.name()) {
        return None;
    }
    node.children()
        .into_iter()
        .try_for_each(|child| add_scans(child, scans))
}

/// The erasures that may take rows out of some pieces; `oldest` is when the first row of each was taken in, as far as that is known.
pub(super) fn erasures<'a>(
    hidden: &Erasures,
    tenant: Option<&str>,
    oldest: impl Iterator<Item = Option<i64>> + Clone + 'a,
) -> String {
    let mut text = String::new();
    let touches = |erasure: &&Erasure| oldest.clone().any(|oldest| !erasure.spares(oldest));
    for erasure in hidden.of(tenant).filter(touches) {
        // writing to a String cannot fail
        let _ = write!(text, "{erasure:?};");
    }
    text
}
