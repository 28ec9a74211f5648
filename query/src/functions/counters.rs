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
            field("times", DataType::Int64),
            field("values", DataType::Float64),
            field("deltas", DataType::Int64),
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
    bytes: usize,
}

impl Points {
    fn put(&mut self, series: &str, point: Point) {
        self.bytes += size_of::<Point>();
        match self.series.get_mut(series) {
            Some(points) => points.push(point),
            None => {
                self.bytes += series.len() + size_of::<Vec<Point>>();
                self.series.insert(series.to_owned(), vec![point]);
            }
        }
    }

    fn all(&self) -> impl Iterator<Item = (&String, &Point)> {
        self.series
            .iter()
            .flat_map(|(series, points)| points.iter().map(move |point| (series, point)))
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
            self.put(text(1, row).unwrap_or_default(), point);
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let mut total = None;
        for points in self.series.values_mut() {
            points.sort_by_key(|point| point.ns);
            if let Some(risen) = risen(points, self.per_second) {
                *total.get_or_insert(0.0) += risen;
            }
        }
        Ok(ScalarValue::Float64(total))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.bytes
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![
            points::texts(self.all().map(|(series, _)| series.clone())),
            points::ints(self.all().map(|(_, point)| point.ns)),
            points::floats(self.all().map(|(_, point)| point.value)),
            points::ints(self.all().map(|(_, point)| i64::from(point.delta))),
        ])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let series = points::flat_texts(states.first())?;
        let (times, deltas) = (points::flat_ints(states.get(1))?, points::flat_ints(states.get(3))?);
        let values = points::flat_floats(states.get(2))?;
        for at in 0..series.len() {
            let point = Point {
                ns: times.value(at),
                value: values.value(at),
                delta: deltas.value(at) != 0,
            };
            self.put(series.value(at), point);
        }
        Ok(())
    }
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
