//! How much a counter rose, and how fast: cumulative ones with their resets, and deltas.

use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, FieldRef, Float64Type, TimeUnit, TimestampNanosecondType};
use datafusion::common::plan_err;
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::format_state_name;
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};
use datafusion::scalar::ScalarValue;

use super::points;

const NANOS_PER_SECOND: f64 = 1e9;

#[derive(Debug, PartialEq, Eq, Hash)]
struct Counter {
    name: &'static str,
    per_second: bool,
    signature: Signature,
}

pub(super) fn all() -> Vec<AggregateUDF> {
    [("increase", false), ("rate", true)]
        .map(|(name, per_second)| {
            AggregateUDF::new_from_impl(Counter {
                name,
                per_second,
                signature: Signature::user_defined(Volatility::Immutable),
            })
        })
        .into()
}

impl AggregateUDFImpl for Counter {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn coerce_types(&self, args: &[DataType]) -> Result<Vec<DataType>> {
        let wanted = [
            DataType::Float64,
            DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())),
            DataType::Utf8,
            DataType::Utf8,
        ];
        match args.len() {
            2..=4 => Ok(wanted[..args.len()].to_vec()),
            _ => plan_err!("{}(value, time [, temporality [, series]])", self.name),
        }
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let field = |part: &str, kind| points::field(format_state_name(args.name, part), kind);
        Ok(vec![
            field("series", DataType::Utf8),
            field("points", DataType::Int64),
            field("times", DataType::Int64),
            field("values", DataType::Float64),
            field("deltas", DataType::Boolean),
        ])
    }

    fn accumulator(&self, _: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Points {
            per_second: self.per_second,
            series: BTreeMap::new(),
            bytes: 0,
        }))
    }
}

/// What a counter said at a time.
#[derive(Clone, Copy, Debug)]
struct Point {
    ns: i64,
    value: f64,
    /// It is what was added since the point before.
    delta: bool,
}

#[derive(Debug)]
struct Points {
    per_second: bool,
    series: BTreeMap<String, Vec<Point>>,
    /// Of the names and points, with the room that is kept for more.
    bytes: usize,
}

/// What a tree keeps beside each series: a node is half full at least.
const SERIES_BYTES: usize = 2 * (size_of::<String>() + size_of::<Vec<Point>>());

impl Points {
    fn put(&mut self, series: &str, more: impl Iterator<Item = Point>) {
        if !self.series.contains_key(series) {
            self.bytes += series.len() + SERIES_BYTES;
            self.series.insert(series.to_owned(), Vec::new());
        }
        if let Some(points) = self.series.get_mut(series) {
            let before = points.capacity();
            points.extend(more);
            self.bytes += (points.capacity() - before) * size_of::<Point>();
        }
    }

    fn all(&self) -> impl Iterator<Item = &Point> {
        self.series.values().flatten()
    }
}

impl Accumulator for Points {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let [numbers, times, rest @ ..] = values else {
            return plan_err!("a counter has a value and a time");
        };
        let (numbers, times) = (
            numbers.as_primitive::<Float64Type>(),
            times.as_primitive::<TimestampNanosecondType>(),
        );
        let text = |column: usize, row: usize| {
            let column = rest.get(column)?.as_string_opt::<i32>()?;
            column.is_valid(row).then(|| column.value(row))
        };
        for row in 0..numbers.len() {
            if numbers.is_null(row) || times.is_null(row) || numbers.value(row).is_nan() {
                continue;
            }
            let point = Point {
                ns: times.value(row),
                value: numbers.value(row),
                delta: text(0, row) == Some("delta"),
            };
            self.put(text(1, row).unwrap_or_default(), std::iter::once(point));
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let mut total = None;
        for points in self.series.values_mut() {
            in_order(points);
            if let Some(risen) = risen(points, self.per_second) {
                *total.get_or_insert(0.0) += risen;
            }
        }
        Ok(ScalarValue::Float64(total))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.bytes
    }

    /// Each series is named once, however many points it has.
    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![
            points::texts(self.series.keys().map(String::as_str))?,
            points::ints(self.series.values().map(|points| points.len() as i64))?,
            points::ints(self.all().map(|point| point.ns))?,
            points::floats(self.all().map(|point| point.value))?,
            points::flags(self.all().map(|point| point.delta))?,
        ])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let series = points::flat_texts(states.first())?;
        let counts = points::flat_ints(states.get(1))?;
        let (times, values) = (points::flat_ints(states.get(2))?, points::flat_floats(states.get(3))?);
        let deltas = points::flat_flags(states.get(4))?;
        let mut first = 0;
        for (series, count) in series.iter().zip(counts.iter()) {
            let end = first + usize::try_from(count.unwrap_or_default()).unwrap_or_default();
            if end > times.len() || end > values.len() || end > deltas.len() {
                return Err(points::wrong());
            }
            let points = (first..end).map(|at| Point {
                ns: times.value(at),
                value: values.value(at),
                delta: deltas.value(at),
            });
            self.put(series.unwrap_or_default(), points);
            first = end;
        }
        Ok(())
    }
}

/// By time; of points at the same time, what was added first and then the lowest, so that the answer is the same however the rows came.
/// Several cumulative values at one time are one value that was told more than once: the highest of them counts.
fn in_order(points: &mut Vec<Point>) {
    points.sort_unstable_by(|a, b| {
        let (time, kind) = (a.ns.cmp(&b.ns), b.delta.cmp(&a.delta));
        time.then(kind).then(a.value.total_cmp(&b.value))
    });
    points.dedup_by(|next, kept| {
        let same = next.ns == kept.ns && !next.delta && !kept.delta;
        if same {
            kept.value = next.value;
        }
        same
    });
}

/// How much one series rose between its first and its last point, which are in order. A cumulative counter that fell began anew at zero.
/// What a first delta was added to is not known, so a rate leaves it out.
fn risen(points: &[Point], per_second: bool) -> Option<f64> {
    let (first, last) = (points.first()?, points.last()?);
    let mut total = if first.delta && !per_second { first.value } else { 0.0 };
    for pair in points.windows(2) {
        let [before, now] = pair else { continue };
        total += match now.delta {
            true => now.value,
            false if now.value >= before.value => now.value - before.value,
            false => now.value,
        };
    }
    if points.len() < 2 && (per_second || !first.delta) {
        return None;
    }
    let seconds = (last.ns - first.ns) as f64 / NANOS_PER_SECOND;
    match per_second {
        true => (seconds > 0.0).then(|| total / seconds),
        false => Some(total),
    }
}
