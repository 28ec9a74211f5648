//! Quantiles of histograms: those with bounds and exponential ones, merged over rows.
//!
//! Every bucket is an interval with a count, so histograms of other bounds or scales merge by putting their intervals together.

use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type, Int64Type};
use datafusion::common::plan_err;
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::format_state_name;
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};
use datafusion::scalar::ScalarValue;

use super::points;

/// Arguments behind the quantile: bounds and buckets, then those of an exponential histogram.
const EXPLICIT: usize = 2;
const ALL: usize = 8;
/// OpenTelemetry's range of scales is wider than any base that a float can hold.
const SCALES: std::ops::RangeInclusive<i64> = -11..=20;

#[derive(Debug, PartialEq, Eq, Hash)]
struct Quantile {
    signature: Signature,
}

pub(super) fn quantile() -> AggregateUDF {
    AggregateUDF::new_from_impl(Quantile {
        signature: Signature::user_defined(Volatility::Immutable),
    })
}

impl AggregateUDFImpl for Quantile {
    fn name(&self) -> &str {
        "histogram_quantile"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn coerce_types(&self, args: &[DataType]) -> Result<Vec<DataType>> {
        let floats = DataType::List(std::sync::Arc::new(Field::new_list_field(DataType::Float64, true)));
        let whole = DataType::Int64;
        let wanted = [
            DataType::Float64,
            floats.clone(),
            floats.clone(),
            whole.clone(),
            DataType::Float64,
            whole.clone(),
            floats.clone(),
            whole,
            floats,
        ];
        match args.len() {
            n if n == EXPLICIT + 1 || n == ALL + 1 => Ok(wanted[..n].to_vec()),
            _ => plan_err!(
                "histogram_quantile(q), histogram_quantile(q, bounds, buckets), or all of (q, bounds, buckets, scale, zero_count, \
                 positive_offset, positive_buckets, negative_offset, negative_buckets)"
            ),
        }
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let field = |part: &str| points::field(format_state_name(args.name, part), DataType::Float64);
        Ok(vec![
            field("lows"),
            field("highs"),
            field("curves"),
            field("counts"),
            field("q"),
        ])
    }

    fn accumulator(&self, _: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::<Buckets>::default())
    }
}

/// One interval of values; ordered by its upper end.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Interval {
    high: f64,
    low: f64,
    /// Its values are thought to be spread by their logarithm.
    curved: bool,
}

impl Eq for Interval {}

impl PartialOrd for Interval {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Interval {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let (high, low) = (self.high.total_cmp(&other.high), self.low.total_cmp(&other.low));
        high.then(low).then(self.curved.cmp(&other.curved))
    }
}

#[derive(Debug, Default)]
struct Buckets {
    counts: BTreeMap<Interval, f64>,
    q: Option<f64>,
}

impl Buckets {
    fn put(&mut self, low: f64, high: f64, curved: bool, count: f64) {
        if count > 0.0 {
            *self.counts.entry(Interval { high, low, curved }).or_default() += count;
        }
    }

    fn explicit(&mut self, bounds: &[f64], counts: &[f64]) {
        let highest = bounds.last().copied().unwrap_or(f64::NEG_INFINITY);
        for (at, count) in counts.iter().enumerate() {
            let low = match at.checked_sub(1) {
                Some(before) => bounds.get(before).copied().unwrap_or(highest),
                None => f64::NEG_INFINITY,
            };
            self.put(low, bounds.get(at).copied().unwrap_or(f64::INFINITY), false, *count);
        }
    }

    fn exponential(&mut self, scale: i64, offset: i64, counts: &[f64], sign: f64) {
        if !SCALES.contains(&scale) {
            return;
        }
        let bound = |at: i64| (at as f64 * (-scale as f64).exp2()).exp2();
        for (at, count) in counts.iter().enumerate() {
            let first = offset.saturating_add(at as i64);
            let (near, far) = (sign * bound(first), sign * bound(first.saturating_add(1)));
            self.put(near.min(far), near.max(far), true, *count);
        }
    }

    fn quantile(&self) -> Option<f64> {
        let q = self.q.filter(|q| (0.0..=1.0).contains(q))?;
        let total: f64 = self.counts.values().sum();
        let wanted = q * total;
        let mut below = 0.0;
        let mut last = None;
        for (interval, count) in &self.counts {
            last = Some(interval.value((wanted - below).max(0.0) / count));
            below += count;
            if below >= wanted {
                break;
            }
        }
        last
    }
}

impl Interval {
    /// A value within, by the share of its counts that lie below it. What has no end is taken to lie at the end that it has.
    fn value(&self, share: f64) -> f64 {
        let share = share.clamp(0.0, 1.0);
        match (self.low.is_finite(), self.high.is_finite()) {
            (true, true) if self.curved && self.low > 0.0 => self.low * (self.high / self.low).powf(share),
            (true, true) if self.curved && self.high < 0.0 => self.low * (self.high / self.low).powf(share),
            (true, true) => self.low + (self.high - self.low) * share,
            // Of the lowest bucket, values from 0 on where its bound allows that.
            (false, true) if self.high > 0.0 => self.high * share,
            (false, true) => self.high,
            (true, false) => self.low,
            (false, false) => f64::NAN,
        }
    }
}

impl Accumulator for Buckets {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let Some((q, columns)) = values.split_first() else {
            return Ok(());
        };
        let q = q.as_primitive::<Float64Type>();
        let list = |column: usize, row: usize| -> Result<Vec<f64>> {
            let Some(lists) = columns
                .get(column)
                .and_then(|c| c.as_list_opt::<i32>())
                .filter(|l| l.is_valid(row))
            else {
                return Ok(Vec::new());
            };
            let items = cast(&lists.value(row), &DataType::Float64)?;
            Ok(items
                .as_primitive::<Float64Type>()
                .iter()
                .map(Option::unwrap_or_default)
                .collect())
        };
        let int = |column: usize, row: usize| {
            let column = columns.get(column)?.as_primitive_opt::<Int64Type>()?;
            column.is_valid(row).then(|| column.value(row))
        };
        for row in 0..q.len() {
            if q.is_valid(row) {
                self.q = Some(q.value(row));
            }
            self.explicit(&list(0, row)?, &list(1, row)?);
            let Some(scale) = int(2, row) else { continue };
            if let Some(zeros) = columns
                .get(3)
                .and_then(|c| c.as_primitive_opt::<Float64Type>())
                .filter(|c| c.is_valid(row))
            {
                self.put(0.0, 0.0, false, zeros.value(row));
            }
            self.exponential(scale, int(4, row).unwrap_or_default(), &list(5, row)?, 1.0);
            self.exponential(scale, int(6, row).unwrap_or_default(), &list(7, row)?, -1.0);
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Float64(self.quantile().filter(|value| !value.is_nan())))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.counts.len() * 2 * size_of::<(Interval, f64)>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let keys = || self.counts.keys();
        Ok(vec![
            points::floats(keys().map(|interval| interval.low))?,
            points::floats(keys().map(|interval| interval.high))?,
            points::floats(keys().map(|interval| f64::from(u8::from(interval.curved))))?,
            points::floats(self.counts.values().copied())?,
            points::floats(self.q.into_iter())?,
        ])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let part = |at: usize| points::flat_floats(states.get(at));
        let (lows, highs, curves, counts, q) = (part(0)?, part(1)?, part(2)?, part(3)?, part(4)?);
        for at in 0..lows.len() {
            self.put(
                lows.value(at),
                highs.value(at),
                curves.value(at) > 0.0,
                counts.value(at),
            );
        }
        if !q.is_empty() {
            self.q = Some(q.value(0));
        }
        Ok(())
    }
}
