//! Which rows of the server count, as conditions of its SQL. Numbers only: nothing in here comes from a sender.

use std::collections::BTreeMap;

use sluice_wire::ids::Partition;

use crate::rows::signed;
use crate::seam::SeamRecord;

/// Rows of a partition that count at offsets `first` to `last`; `None`: there are none.
pub(super) fn between(partition: Partition, record: &SeamRecord, first: u64, last: u64) -> Option<String> {
    let parts: Vec<String> = counting(record, first, last)
        .map(|one| {
            of_generation(
                one.generation,
                &format!("BETWEEN {} AND {}", signed(one.low), signed(one.high)),
            )
        })
        .collect();
    (!parts.is_empty()).then(|| of_partition(partition, &parts))
}

/// Offsets at which rows of one generation count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counting {
    pub(super) generation: u64,
    pub(super) low: u64,
    pub(super) high: u64,
}

/// What counts of a partition at offsets `first` to `last`.
pub(super) fn counting(record: &SeamRecord, first: u64, last: u64) -> impl Iterator<Item = Counting> {
    record.spans().into_iter().filter_map(move |span| {
        let (low, high) = (span.first.max(first), span.last.map_or(last, |end| end.min(last)));
        let generation = span.generation;
        (low <= high).then_some(Counting { generation, low, high })
    })
}

/// Rows of a partition that count, whatever comes.
fn all(partition: Partition, record: &SeamRecord) -> Option<String> {
    let parts: Vec<String> = record
        .spans()
        .iter()
        .map(|span| match span.last {
            Some(last) => of_generation(
                span.generation,
                &format!("BETWEEN {} AND {}", signed(span.first), signed(last)),
            ),
            None => of_generation(span.generation, &format!(">= {}", signed(span.first))),
        })
        .collect();
    (!parts.is_empty()).then(|| of_partition(partition, &parts))
}

/// Rows of all partitions that count.
pub(super) fn everywhere(seam: &BTreeMap<Partition, SeamRecord>) -> String {
    any(seam.iter().filter_map(|(partition, record)| all(*partition, record)))
}

/// Rows of a partition that no claim lets count any more, as far as these records know.
pub(super) fn dead(partition: Partition, record: &SeamRecord) -> String {
    let above = record.low.map_or(-1, signed);
    format!("`offset` > {above} AND {}", uncounted(partition, record))
}

/// The same, and rows at and below L.
pub(super) fn uncounted(partition: Partition, record: &SeamRecord) -> String {
    let known = record.highest_generation();
    let counts = all(partition, record).unwrap_or_else(|| "0".to_owned());
    format!(
        "`partition` = {} AND `gen` <= {known} AND NOT ({counts})",
        partition.as_i64()
    )
}

/// Either of some conditions.
pub(super) fn any(conditions: impl Iterator<Item = String>) -> String {
    let all: Vec<String> = conditions.collect();
    match all.is_empty() {
        true => "0".to_owned(),
        false => format!("({})", all.join(" OR ")),
    }
}

fn of_generation(generation: u64, offsets: &str) -> String {
    format!("`gen` = {generation} AND `offset` {offsets}")
}

fn of_partition(partition: Partition, parts: &[String]) -> String {
    format!("`partition` = {} AND ({})", partition.as_i64(), parts.join(" OR "))
}
