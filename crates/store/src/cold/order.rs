//! The order of the rows in a file: by tenant, service, time, partition, offset and row, so that equal values meet and bounds are narrow.
//! What is null comes first.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use arrow::array::{Array, Int32Array, Int64Array, PrimitiveArray, RecordBatch, StringArray};
use arrow::array::{TimestampMicrosecondArray, TimestampNanosecondArray};
use arrow::compute::interleave_record_batch;
use arrow::datatypes::{ArrowPrimitiveType, Int32Type, TimestampMicrosecondType, TimestampNanosecondType};
use arrow::error::ArrowError;

use crate::rows::{self, RowsError, numbers};

/// Days of one commit that get files of their own. Senders choose event times, and must not be able to make a file per row: the
/// rows of further days share files without a day.
const MAX_DAYS: usize = 32;
const NANOS_PER_DAY: i64 = 86_400_000_000_000;

/// Where rows of stored form stand in the order.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    tenant: StringArray,
    service: StringArray,
    time: TimestampMicrosecondArray,
    nanos: Int32Array,
    partition: Int64Array,
    offset: Int64Array,
    row: Int32Array,
}

impl Keys {
    pub(super) fn of(stored: &RecordBatch) -> Result<Self, RowsError> {
        Ok(Self {
            tenant: rows::texts(stored, "tenant")?.clone(),
            service: rows::texts(stored, "service")?.clone(),
            time: numbers::<TimestampMicrosecondType>(stored, "time")?.clone(),
            nanos: numbers::<Int32Type>(stored, "time_ns")?.clone(),
            partition: rows::ints(stored, "partition")?.clone(),
            offset: rows::ints(stored, "offset")?.clone(),
            row: numbers::<Int32Type>(stored, "row")?.clone(),
        })
    }

    /// How a row stands to a row of other ones.
    pub(super) fn compare(&self, at: usize, other: &Self, other_at: usize) -> Ordering {
        // A foreign writer may have left the nanoseconds out: they count as zero then.
        let nanos = |keys: &Self, at| value(&keys.nanos, at).unwrap_or(0);
        text(&self.tenant, at)
            .cmp(&text(&other.tenant, other_at))
            .then_with(|| text(&self.service, at).cmp(&text(&other.service, other_at)))
            .then_with(|| value(&self.time, at).cmp(&value(&other.time, other_at)))
            .then_with(|| nanos(self, at).cmp(&nanos(other, other_at)))
            .then_with(|| value(&self.partition, at).cmp(&value(&other.partition, other_at)))
            .then_with(|| value(&self.offset, at).cmp(&value(&other.offset, other_at)))
            .then_with(|| value(&self.row, at).cmp(&value(&other.row, other_at)))
    }

    /// Whether each row stands where it must after the one before it.
    pub(super) fn is_sorted(&self) -> bool {
        (1..self.tenant.len()).all(|at| self.compare(at - 1, self, at) != Ordering::Greater)
    }

    /// Whether the first row of others may follow the last one of these.
    pub(super) fn ends_before(&self, others: &Self) -> bool {
        let last = self.tenant.len().checked_sub(1);
        others.tenant.is_empty() || last.is_none_or(|last| self.compare(last, others, 0) != Ordering::Greater)
    }
}

fn value<T: ArrowPrimitiveType>(numbers: &PrimitiveArray<T>, at: usize) -> Option<T::Native> {
    numbers.is_valid(at).then(|| numbers.value(at))
}

fn text(texts: &StringArray, at: usize) -> Option<&str> {
    texts.is_valid(at).then(|| texts.value(at))
}

/// The day of rows that have one to themselves, and whether `events` hides them.
pub(super) type Group = (Option<i32>, bool);

/// One row among batches, and where it stands in the order: the fields in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// Of tenant and service, among all there are.
    rank: u32,
    time: i64,
    partition: i64,
    offset: i64,
    row: Option<i32>,
    batch: u32,
    at: u32,
}

/// Says which rows go into the same files, in the order of these.
pub(super) fn arrange(batches: &[RecordBatch]) -> Result<BTreeMap<Group, Vec<Place>>, RowsError> {
    let views = batches.iter().map(View::of).collect::<Result<Vec<_>, _>>()?;
    let own = days(&views);
    let mut ranks = Ranks::default();
    let mut groups: BTreeMap<Group, Vec<Place>> = BTreeMap::new();
    for (batch, view) in views.iter().enumerate() {
        for at in 0..view.times.len() {
            let day = Some(day_of(view.times.value(at))).filter(|day| own.contains(day));
            let is_hidden = rows::is_hidden(view.signals, view.quarantined, at);
            groups.entry((day, is_hidden)).or_default().push(Place {
                rank: ranks.number(view.tenants.value(at), text(view.services, at)),
                time: view.times.value(at),
                partition: view.partitions.value(at),
                offset: view.offsets.value(at),
                row: value(view.rows, at),
                batch: batch as u32,
                at: at as u32,
            });
        }
    }
    let ranks = ranks.sorted();
    for places in groups.values_mut() {
        for place in places.iter_mut() {
            place.rank = ranks[place.rank as usize];
        }
        places.sort_unstable();
    }
    Ok(groups)
}

/// Some of the rows as one batch.
pub(super) fn gather(batches: &[RecordBatch], places: &[Place]) -> Result<RecordBatch, ArrowError> {
    let mut sources: Vec<&RecordBatch> = Vec::new();
    let mut known: HashMap<u32, usize> = HashMap::new();
    let mut indices = Vec::with_capacity(places.len());
    for place in places {
        let source = *known.entry(place.batch).or_insert_with(|| {
            sources.push(&batches[place.batch as usize]);
            sources.len() - 1
        });
        indices.push((source, place.at as usize));
    }
    interleave_record_batch(&sources, &indices)
}

/// How many of the rows have a trace id.
pub(super) fn traced(batches: &[RecordBatch], places: &[Place]) -> usize {
    let ids: Vec<Option<&dyn Array>> = batches
        .iter()
        .map(|batch| batch.column_by_name("trace_id").map(AsRef::as_ref))
        .collect();
    let has = |place: &&Place| ids[place.batch as usize].is_some_and(|ids| ids.is_valid(place.at as usize));
    places.iter().filter(has).count()
}

/// The columns of a batch that decide.
struct View<'a> {
    tenants: &'a StringArray,
    services: &'a StringArray,
    signals: &'a StringArray,
    quarantined: &'a dyn Array,
    times: &'a TimestampNanosecondArray,
    partitions: &'a Int64Array,
    offsets: &'a Int64Array,
    rows: &'a Int32Array,
}

impl<'a> View<'a> {
    fn of(batch: &'a RecordBatch) -> Result<Self, RowsError> {
        let quarantined = batch.column_by_name("quarantined_by").ok_or(RowsError::Schema)?;
        Ok(Self {
            tenants: rows::texts(batch, "tenant")?,
            services: rows::texts(batch, "service")?,
            signals: rows::texts(batch, "signal")?,
            quarantined: quarantined.as_ref(),
            times: numbers::<TimestampNanosecondType>(batch, "time")?,
            partitions: rows::ints(batch, "partition")?,
            offsets: rows::ints(batch, "offset")?,
            rows: numbers::<Int32Type>(batch, "row")?,
        })
    }
}

fn day_of(time_ns: i64) -> i32 {
    time_ns.div_euclid(NANOS_PER_DAY) as i32
}

/// The days with most rows.
fn days(views: &[View<'_>]) -> BTreeSet<i32> {
    let mut sizes: BTreeMap<i32, usize> = BTreeMap::new();
    for time in views.iter().flat_map(|view| view.times.values()) {
        *sizes.entry(day_of(*time)).or_default() += 1;
    }
    let mut largest: Vec<(usize, i32)> = sizes.into_iter().map(|(day, rows)| (rows, day)).collect();
    largest.sort_unstable_by(|a, b| b.cmp(a));
    largest.into_iter().take(MAX_DAYS).map(|(_, day)| day).collect()
}

/// Tenants with their services, numbered as they are met. Texts are compared once for each pair, and not for each two rows.
#[derive(Default)]
struct Ranks<'a> {
    numbers: HashMap<(&'a str, Option<&'a str>), u32>,
    last: Option<((&'a str, Option<&'a str>), u32)>,
}

impl<'a> Ranks<'a> {
    fn number(&mut self, tenant: &'a str, service: Option<&'a str>) -> u32 {
        let pair = (tenant, service);
        if let Some((last, number)) = self.last
            && last == pair
        {
            return number;
        }
        let next = self.numbers.len() as u32;
        let number = *self.numbers.entry(pair).or_insert(next);
        self.last = Some((pair, number));
        number
    }

    /// The place of each number in the order.
    fn sorted(self) -> Vec<u32> {
        let mut pairs: Vec<_> = self.numbers.into_iter().collect();
        pairs.sort_unstable();
        let mut ranks = vec![0; pairs.len()];
        for (rank, (_, number)) in pairs.into_iter().enumerate() {
            ranks[number as usize] = rank as u32;
        }
        ranks
    }
}
