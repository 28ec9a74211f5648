//! Which rows hot serves of some ranges of time: how many, and from which offset to which.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, SchemaRef, TimestampNanosecondType};
use datafusion::logical_expr::Expr;
use sluice_wire::ids::Partition;

use super::{server, sql};
use crate::hot::clickhouse::{ClickHouseError, StatementLimits};
use crate::hot::{Chunk, ClickHouseHot, Part};
use crate::provider::ranges::{TimeRange, touched};
use crate::rows;
use crate::seam::SeamRecord;

/// Rows of memory that are gone through before others have their turn.
const ROWS_AT_ONCE: usize = 65_536;
/// Steps of time that a server is asked to tell apart.
const MAX_STEPS: i64 = 100_000;

/// What is looked at: rows that everyone sees.
#[derive(Clone, Copy)]
pub(in crate::provider) struct Window<'a> {
    /// They follow each other.
    pub(in crate::provider) ranges: &'a [TimeRange],
    pub(in crate::provider) tenant: Option<&'a str>,
    /// Of the table.
    pub(in crate::provider) schema: &'a SchemaRef,
    /// A server may leave out rows that do not pass them.
    pub(in crate::provider) filters: &'a [Expr],
}

/// Rows of one partition in one range.
#[derive(Clone, Copy, Debug)]
pub(in crate::provider) struct Held {
    pub(in crate::provider) partition: i64,
    first: i64,
    last: i64,
    rows: u64,
    /// The highest generation of a writer on a server: a replay has a higher one.
    generation: i64,
    /// When the first of them was taken in, in microseconds since 1970, at the earliest.
    pub(in crate::provider) oldest_us: i64,
}

impl Held {
    /// Tells which rows they are, however their store keeps them together: partition, first and last offset, how many, and whose.
    pub(in crate::provider) fn rows(&self) -> (i64, i64, i64, u64, i64) {
        (self.partition, self.first, self.last, self.rows, self.generation)
    }

    fn merge(&mut self, more: Held) {
        self.first = self.first.min(more.first);
        self.last = self.last.max(more.last);
        self.rows += more.rows;
        self.generation = self.generation.max(more.generation);
        self.oldest_us = self.oldest_us.min(more.oldest_us);
    }
}

/// Rows by the number of the range and their partition.
struct Counted<'a> {
    ranges: &'a [TimeRange],
    held: BTreeMap<(usize, i64), Held>,
}

impl<'a> Counted<'a> {
    fn new(ranges: &'a [TimeRange]) -> Self {
        Self {
            ranges,
            held: BTreeMap::new(),
        }
    }

    fn add(&mut self, range: usize, held: Held) {
        let known = self.held.entry((range, held.partition));
        known.and_modify(|known| known.merge(held)).or_insert(held);
    }

    /// The range of a time.
    fn range(&self, time: i64) -> Option<usize> {
        let is_within = |range: &TimeRange| range.0 <= time && time < range.1;
        let near = touched(self.ranges, (time, time)).start;
        self.ranges.get(near).is_some_and(is_within).then_some(near)
    }

    fn all(self) -> Vec<(usize, Held)> {
        self.held.into_iter().map(|((range, _), held)| (range, held)).collect()
    }
}

/// What chunks of memory hold of the ranges; `None`: a chunk is not as it should be.
pub(in crate::provider) async fn in_memory(
    chunks: &BTreeMap<Partition, Vec<Arc<Chunk>>>,
    served: &BTreeMap<Partition, (u64, u64)>,
    window: &Window<'_>,
) -> Option<Vec<(usize, Held)>> {
    let mut counted = Counted::new(window.ranges);
    let mut visited = 0;
    for (partition, chunks) in chunks {
        let Some((first, last)) = served.get(partition) else {
            continue;
        };
        let offsets = (rows::signed(*first), rows::signed(*last));
        for part in chunks.iter().flat_map(|chunk| &chunk.parts) {
            if part.hidden || window.tenant.is_some_and(|tenant| tenant != part.tenant) {
                continue;
            }
            visited += count(part, partition.as_i64(), offsets, &mut counted)?;
            if visited >= ROWS_AT_ONCE {
                visited = 0;
                tokio::task::yield_now().await;
            }
        }
    }
    Some(counted.all())
}

/// Returns how many rows were gone through.
fn count(part: &Part, partition: i64, (first, last): (i64, i64), counted: &mut Counted<'_>) -> Option<usize> {
    let near = touched(counted.ranges, part.times);
    let Some(range) = counted.ranges.get(near.start).filter(|_| !near.is_empty()) else {
        return Some(0);
    };
    let held = |(first, last): (i64, i64), rows: u64| Held {
        partition,
        first,
        last,
        rows,
        generation: 0,
        oldest_us: part.oldest_us,
    };
    let is_within = range.0 <= part.times.0 && part.times.1 < range.1;
    if is_within && first <= part.offsets.0 && part.offsets.1 <= last {
        counted.add(near.start, held(part.offsets, part.rows.num_rows() as u64));
        return Some(0);
    }
    let times = part.rows.column_by_name("time")?;
    let times = times.as_primitive_opt::<TimestampNanosecondType>()?;
    let offsets = rows::ints(&part.rows, "offset").ok()?;
    // Rows that follow each other are mostly of one range.
    let mut run: Option<(usize, Held)> = None;
    for (time, offset) in times.values().iter().zip(offsets.values()) {
        if !(first..=last).contains(offset) {
            continue;
        }
        let row = held((*offset, *offset), 1);
        if let Some((range, held)) = &mut run
            && counted.ranges[*range].0 <= *time
            && *time < counted.ranges[*range].1
        {
            held.merge(row);
            continue;
        }
        let next = counted.range(*time).map(|range| (range, row));
        if let Some((range, held)) = std::mem::replace(&mut run, next) {
            counted.add(range, held);
        }
    }
    if let Some((range, held)) = run {
        counted.add(range, held);
    }
    Some(part.rows.num_rows())
}

/// What a server holds of the ranges, of rows that pass what its words can say of the filters: one statement, which reads times, offsets and
/// what the filters look at.
pub(in crate::provider) async fn on_server(
    hot: &ClickHouseHot,
    seam: &BTreeMap<Partition, SeamRecord>,
    served: &BTreeMap<Partition, (u64, u64)>,
    window: &Window<'_>,
    limits: Option<&StatementLimits>,
) -> Result<Vec<(usize, Held)>, ClickHouseError> {
    let ends = (
        window.ranges.first(),
        window.ranges.last(),
        server::places(seam, served),
    );
    let (Some((from, _)), Some((_, to)), Some(places)) = ends else {
        return Ok(Vec::new());
    };
    let strange = |why: String| ClickHouseError::Answer(format!("the ranges of time: {why}"));
    let step = step(window.ranges, *from);
    if to.saturating_sub(*from) / step > MAX_STEPS {
        return Err(strange(format!("they have only steps of {step} ns in common")));
    }
    let nanos = |ns: i64| format!("fromUnixTimestamp64Nano(toInt64('{ns}'), 'UTC')");
    let mut asked = server::seen_in(places, window.tenant, false);
    asked.columns = vec![
        format!("intDiv(toUnixTimestamp64Nano(`time`) - toInt64('{from}'), toInt64('{step}')) AS `k 0`"),
        "`partition` AS `k 1`".to_owned(),
        "min(`offset`)".to_owned(),
        "max(`offset`)".to_owned(),
        "toInt64(count())".to_owned(),
        "toInt64(max(`gen`))".to_owned(),
        "min(toUnixTimestamp64Micro(`ingested_at`))".to_owned(),
    ];
    asked
        .conditions
        .push(format!("`time` >= {} AND `time` < {}", nanos(*from), nanos(*to)));
    asked.groups = vec!["`k 0`".to_owned(), "`k 1`".to_owned()];
    let said = sql::say(window.filters, window.schema);
    asked.conditions.extend(said.conditions);
    asked.parameters.extend(said.parameters);
    let mut answer = hot.select(asked, limits).await?;
    let mut counted = Counted::new(window.ranges);
    while let Some(batch) = answer.next().await? {
        let columns: Result<Vec<Int64Array>, _> = batch
            .columns()
            .iter()
            .map(|column| cast(column, &DataType::Int64).map(|column| column.as_primitive::<Int64Type>().clone()))
            .collect();
        let columns = columns.map_err(|error| strange(error.to_string()))?;
        let [steps, partitions, first, last, rows, generations, oldest] = columns.as_slice() else {
            return Err(strange(format!("{} columns", columns.len())));
        };
        for row in 0..batch.num_rows() {
            let begins = steps.value(row).saturating_mul(step).saturating_add(*from);
            let held = Held {
                partition: partitions.value(row),
                first: first.value(row),
                last: last.value(row),
                rows: u64::try_from(rows.value(row)).unwrap_or_default(),
                generation: generations.value(row),
                oldest_us: match oldest.is_valid(row) {
                    true => oldest.value(row),
                    false => i64::MIN,
                },
            };
            if let Some(range) = counted.range(begins) {
                counted.add(range, held);
            }
        }
    }
    Ok(counted.all())
}

/// The largest step from `from` on that meets every end of the ranges.
fn step(ranges: &[TimeRange], from: i64) -> i64 {
    let ends = ranges.iter().flat_map(|range| [range.0 - from, range.1 - from]);
    ends.fold(0, greatest_divisor).max(1)
}

fn greatest_divisor(mut a: i64, mut b: i64) -> i64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}
