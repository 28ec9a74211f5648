//! Where a window of time can be cut so that no group of an aggregate lies on both sides.
//!
//! Of an expression that never falls as the time rises, a moment at which its value differs from that of the nanosecond before parts the
//! groups: all earlier rows have lower values, all later ones that value or higher ones. Which moments those are is found by computing the very expression,
//! whatever its width, origin or calendar, at the steps of a clock and shortly before: floats round times up, so that a group may begin before its step.

use arrow::array::{Array, ArrayRef, BooleanArray, UInt32Array};
use arrow::compute::kernels::cmp::distinct;
use arrow::compute::take;
use arrow::datatypes::{DataType, TimeUnit};
use arrow::row::{RowConverter, SortField};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};
use sluice_store::TimeRange;

/// Moments that are tried in a window.
const MAX_TRIED: i64 = 4096;
/// Ranges that a window is cut into; groups of smaller pieces of time share one.
const MAX_RANGES: i64 = 200;
/// A group begins at a step of the clock, or so many nanoseconds before: times as floats of seconds are apart by a quarter of that.
const NEAR: i64 = 1_000;

const SECOND: i64 = 1_000_000_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
/// Steps of the clock, since 1970.
const STEPS: [i64; 20] = [
    SECOND,
    5 * SECOND,
    10 * SECOND,
    15 * SECOND,
    30 * SECOND,
    MINUTE,
    2 * MINUTE,
    5 * MINUTE,
    10 * MINUTE,
    15 * MINUTE,
    30 * MINUTE,
    HOUR,
    2 * HOUR,
    3 * HOUR,
    6 * HOUR,
    12 * HOUR,
    DAY,
    4 * DAY,
    16 * DAY,
    64 * DAY,
];

/// Cuts a window into ranges that follow each other. They lie within it, and are the same for each window of this length that holds them.
/// `value` computes the expression at some times.
pub(super) fn cut((from, to): TimeRange, value: impl Fn(Vec<i64>) -> Result<ArrayRef>) -> Result<Vec<TimeRange>> {
    let Some(length) = to.checked_sub(from).filter(|length| *length > 0) else {
        return Ok(Vec::new());
    };
    let step = |most: i64| STEPS.into_iter().find(|step| length / step <= most);
    let (Some(fine), Some(coarse)) = (step(MAX_TRIED), step(MAX_RANGES)) else {
        return Ok(Vec::new());
    };
    let Some(first) = from.checked_add(fine).map(|above| (above - 1).div_euclid(fine) * fine) else {
        return Ok(Vec::new());
    };
    let mut tried: Vec<i64> = (0..=length / fine)
        .map_while(|at| first.checked_add(at * fine))
        .take_while(|at| *at <= to)
        .collect();
    // What is shortly before the first one is computed too.
    tried.retain(|at| *at >= i64::MIN + NEAR);
    if tried.is_empty() {
        return Ok(Vec::new());
    }
    let before = value(tried.iter().map(|at| at - NEAR).collect())?;
    let after = value(tried.clone())?;
    let parts: BooleanArray = distinct(&before.as_ref(), &after.as_ref())?;
    let (mut moments, mut places) = (Vec::new(), Vec::new());
    let mut cell = None;
    for (at, moment) in (0u32..).zip(tried) {
        let (row, of) = (at as usize, moment.div_euclid(coarse));
        // The first of each step of a clock; of one that began before the window it is not known which is the first.
        let is_first = cell != Some(of) && of.saturating_mul(coarse) >= from;
        if is_first && parts.value(row) && before.is_valid(row) && after.is_valid(row) {
            moments.push(moment);
            places.push(at);
            cell = Some(of);
        }
    }
    let wanted = take(&after, &UInt32Array::from(places), None)?;
    let mut cuts = begins(&moments, &wanted, &value)?;
    cuts.retain(|cut| from <= *cut);
    if !rises(&cuts, &value)? {
        return Ok(Vec::new());
    }
    Ok(cuts.windows(2).map(|pair| (pair[0], pair[1])).collect())
}

/// When the value first was what it is at each of some moments; shortly before them it was less.
fn begins(moments: &[i64], wanted: &ArrayRef, value: impl Fn(Vec<i64>) -> Result<ArrayRef>) -> Result<Vec<i64>> {
    let (mut less, mut same): (Vec<i64>, Vec<i64>) = moments.iter().map(|moment| (moment - NEAR, *moment)).unzip();
    while less.iter().zip(&same).any(|(less, same)| same - less > 1) {
        let between: Vec<i64> = less
            .iter()
            .zip(&same)
            .map(|(less, same)| less + (same - less) / 2)
            .collect();
        let differs = distinct(&value(between.clone())?.as_ref(), &wanted.as_ref())?;
        for (at, moment) in between.into_iter().enumerate() {
            match differs.value(at) {
                true => less[at] = moment,
                false => same[at] = moment,
            }
        }
    }
    Ok(same)
}

/// Whether the value really rises at each cut, and is never less at the end of a range than at its beginning.
fn rises(cuts: &[i64], value: impl Fn(Vec<i64>) -> Result<ArrayRef>) -> Result<bool> {
    let sides = value(cuts.iter().flat_map(|cut| [cut - 1, *cut]).collect())?;
    if sides.null_count() > 0 {
        return Ok(false);
    }
    // Bytes that compare as the values do, whatever their type is.
    let converter = RowConverter::new(vec![SortField::new(sides.data_type().clone())])?;
    let sides = converter.convert_columns(&[sides])?;
    let is_apart = |at: usize| sides.row(at) < sides.row(at + 1);
    let is_whole = |at: usize| sides.row(at) <= sides.row(at + 1);
    Ok((0..sides.num_rows().saturating_sub(1)).all(|at| match at % 2 {
        0 => is_apart(at),
        _ => is_whole(at),
    }))
}

/// Whether an expression over `time` never falls as that rises, and is never null.
pub(super) fn never_falls(expr: &Expr) -> bool {
    match expr {
        Expr::Column(column) => column.name == "time",
        Expr::Alias(alias) => never_falls(&alias.expr),
        Expr::Cast(cast) => keeps_order(cast.field.data_type()) && never_falls(&cast.expr),
        Expr::ScalarFunction(ScalarFunction { func, args }) => match (func.name(), args.as_slice()) {
            ("date_bin", [stride, time]) => is_positive(stride) && never_falls(time),
            ("date_bin", [stride, time, Expr::Literal(..)]) => is_positive(stride) && never_falls(time),
            ("date_trunc", [Expr::Literal(..), time]) => never_falls(time),
            ("date_part", [part, time]) => text(part).is_some_and(|part| part == "epoch") && never_falls(time),
            ("floor" | "ceil", [of]) => never_falls(of),
            _ => false,
        },
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => never_falls(left) && keeps_order_by(*op, right),
        _ => false,
    }
}

/// A cast to it fails or keeps the order of times and of what is made of them. Local time goes back each autumn.
fn keeps_order(kind: &DataType) -> bool {
    match kind {
        DataType::Timestamp(
            TimeUnit::Nanosecond | TimeUnit::Microsecond | TimeUnit::Millisecond | TimeUnit::Second,
            zone,
        ) => zone
            .as_deref()
            .is_none_or(|zone| matches!(zone, "UTC" | "+00:00" | "Z")),
        DataType::Int64 | DataType::Float64 | DataType::Date32 => true,
        _ => false,
    }
}

/// Floats never wrap; of whole numbers only division does not.
fn keeps_order_by(op: Operator, by: &Expr) -> bool {
    let Expr::Literal(by, _) = by else { return false };
    match (op, by) {
        (Operator::Multiply | Operator::Divide, ScalarValue::Float64(Some(by))) => by.is_finite() && *by > 0.0,
        (Operator::Plus | Operator::Minus, ScalarValue::Float64(Some(by))) => by.is_finite(),
        (Operator::Divide, ScalarValue::Int64(Some(by))) => *by > 0,
        _ => false,
    }
}

/// Bins of a negative width of months do not follow each other.
fn is_positive(stride: &Expr) -> bool {
    let Expr::Literal(stride, _) = stride else { return false };
    match stride {
        ScalarValue::IntervalYearMonth(Some(months)) => *months > 0,
        ScalarValue::IntervalDayTime(Some(of)) => {
            of.days >= 0 && of.milliseconds >= 0 && (of.days, of.milliseconds) != (0, 0)
        }
        ScalarValue::IntervalMonthDayNano(Some(of)) => match of.months {
            0 => of.days >= 0 && of.nanoseconds >= 0 && (of.days, of.nanoseconds) != (0, 0),
            months => months > 0 && (of.days, of.nanoseconds) == (0, 0),
        },
        _ => false,
    }
}

fn text(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Literal(value, _) => value.try_as_str().flatten().map(str::to_ascii_lowercase),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use arrow::array::Int64Array;
    use datafusion::common::DFSchema;
    use datafusion::prelude::SessionContext;
    use proptest::prelude::*;

    use super::*;

    fn bins(width: i64, origin: i64) -> impl Fn(Vec<i64>) -> Result<ArrayRef> {
        move |times| {
            let bin = times.into_iter().map(|time| (time - origin).div_euclid(width));
            Ok(Arc::new(bin.collect::<Int64Array>()))
        }
    }

    proptest! {
        /// Ranges follow each other within the window and cut no bin; a window of this length that is moved has those that lie in both.
        #[test]
        fn ranges_hold_whole_bins_and_stay_when_the_window_moves(
            width in prop_oneof![1i64..40, Just(60), Just(300), Just(3_600), Just(86_400)],
            origin in -5_000i64..5_000,
            from in -1_000_000_000i64..1_000_000_000,
            nanos in 0i64..SECOND,
            length in prop_oneof![1i64..4_000, Just(86_400), 1i64..100_000_000],
            moved in 0i64..5_000,
        ) {
            let (width, origin, length) = (width * SECOND, origin * SECOND, length * SECOND);
            let window = |from: i64| (from * SECOND + nanos, from * SECOND + nanos + length);
            let bin = |time: i64| (time - origin).div_euclid(width);
            let before = cut(window(from), bins(width, origin)).unwrap();
            let after = cut(window(from + moved), bins(width, origin)).unwrap();
            prop_assert!(before.len() as i64 <= MAX_RANGES + 1);
            for (ranges, window) in [(&before, window(from)), (&after, window(from + moved))] {
                prop_assert!(ranges.iter().all(|(from, to)| window.0 <= *from && from < to && *to <= window.1));
                prop_assert!(ranges.windows(2).all(|pair| pair[0].1 == pair[1].0));
                for (from, to) in ranges {
                    prop_assert!(bin(from - 1) != bin(*from) && bin(to - 1) != bin(*to));
                }
            }
            if let (Some(first), Some(last)) = (after.first(), before.last()) {
                let shared = |ranges: &[TimeRange]| -> Vec<TimeRange> {
                    ranges.iter().copied().filter(|range| first.0 <= range.0 && range.1 <= last.1).collect()
                };
                prop_assert_eq!(shared(&before), shared(&after));
            }
        }
    }

    #[test]
    fn a_panel_has_a_range_for_each_of_its_minutes_and_a_long_one_no_more_than_it_may() {
        let hour = cut((7, HOUR + 7), bins(MINUTE, 0)).unwrap();
        assert_eq!((hour.len(), hour[0]), (59, (MINUTE, 2 * MINUTE)));
        let month = cut((0, 30 * DAY), bins(MINUTE, 0)).unwrap();
        assert_eq!((month.len(), month[0]), (120, (0, 6 * HOUR)));
        assert_eq!(cut((0, HOUR), bins(DAY, 0)).unwrap(), []);
        assert_eq!(cut((5, 5), bins(SECOND, 0)).unwrap(), []);
        assert_eq!(cut((i64::MIN, i64::MAX), bins(DAY, 0)).unwrap(), []);
        let never = |times: Vec<i64>| Ok(Arc::new(Int64Array::from(vec![None; times.len()])) as ArrayRef);
        assert_eq!(cut((0, HOUR), never).unwrap(), []);
        // As bins of a negative month are: back again in the middle of each.
        let falls = |times: Vec<i64>| {
            let value = |time: i64| (time + HOUR / 2).div_euclid(HOUR) - 2 * time.div_euclid(HOUR);
            Ok(Arc::new(times.into_iter().map(value).collect::<Int64Array>()) as ArrayRef)
        };
        assert_eq!(cut((0, DAY), falls).unwrap(), []);
    }

    /// What dashboards write, beside bins of whole numbers.
    #[tokio::test]
    async fn groups_of_floats_are_cut_where_they_begin() {
        let ctx = SessionContext::new();
        let field = arrow::datatypes::Field::new("time", DataType::Timestamp(TimeUnit::Nanosecond, None), false);
        let schema = Arc::new(arrow::datatypes::Schema::new(vec![field]));
        let named = DFSchema::try_from(Arc::clone(&schema)).unwrap();
        for (sql, width) in [
            ("floor(extract(epoch from time)/60)*60", MINUTE),
            ("floor(extract(epoch from time)/7)*7", 30 * SECOND),
            ("CAST(extract(epoch from time) AS BIGINT)/60", MINUTE),
            ("date_trunc('minute', time)", MINUTE),
            ("date_bin(INTERVAL '1 minute', time)", MINUTE),
        ] {
            let expr = ctx.parse_sql_expr(sql, &named).unwrap();
            let expr = ctx.create_physical_expr(expr, &named).unwrap();
            let value = |times: Vec<i64>| {
                let rows = times.len();
                let times = arrow::array::TimestampNanosecondArray::from(times);
                let batch = arrow::array::RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(times)]).unwrap();
                expr.evaluate(&batch)?.into_array(rows)
            };
            let from = 1_795_341_600 * SECOND + 7;
            let ranges = cut((from, from + HOUR), value).unwrap();
            assert!(
                ranges.len() as i64 >= HOUR / width - 2,
                "{sql}: {} ranges",
                ranges.len()
            );
            for (from, to) in &ranges {
                let at = value(vec![from - 1, *from, to - 1, *to]).unwrap();
                let apart = distinct(&at.slice(0, 3), &at.slice(1, 3)).unwrap();
                assert!(apart.value(0) && apart.value(2), "{sql}: {from} to {to}");
                assert!(
                    width != MINUTE || !apart.value(1),
                    "{sql}: one group from {from} to {to}"
                );
            }
            let moved = cut((from + 17 * SECOND, from + 17 * SECOND + HOUR), value).unwrap();
            assert_eq!(
                moved[..10],
                ranges[ranges.iter().position(|range| *range == moved[0]).unwrap()..][..10]
            );
        }
    }

    #[tokio::test]
    async fn what_may_fall_or_jump_is_no_bin() {
        let ctx = SessionContext::new();
        let kind = DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()));
        let schema = arrow::datatypes::Schema::new(vec![
            arrow::datatypes::Field::new("time", kind.clone(), false),
            arrow::datatypes::Field::new("other", kind, true),
        ]);
        let schema = DFSchema::try_from(schema).unwrap();
        for (sql, rises) in [
            ("time", true),
            ("date_bin(INTERVAL '1 minute', time)", true),
            ("date_bin(INTERVAL '1 month', time)", true),
            ("date_bin(INTERVAL '-1 month', time, TIMESTAMP '2026-01-15')", false),
            ("date_bin(INTERVAL '-1 minute', time)", false),
            ("date_bin(INTERVAL '1 hour -1 minute', time)", true),
            ("date_bin(INTERVAL '-1 hour 1 minute', time)", false),
            ("date_trunc('week', time)", true),
            ("floor(date_part('epoch', time))", true),
            ("date_bin(INTERVAL '1 minute', other)", false),
            ("date_bin(INTERVAL '1 minute', time, other)", false),
            ("date_part('minute', time)", false),
            (
                "date_trunc('hour', arrow_cast(time, 'Timestamp(Nanosecond, Some(\"Europe/Berlin\"))'))",
                false,
            ),
            ("abs(date_part('epoch', time))", false),
        ] {
            let expr = ctx.parse_sql_expr(sql, &schema).unwrap();
            assert_eq!(never_falls(&expr), rises, "{sql}: {expr}");
        }
        let float = |value: f64| Expr::Literal(ScalarValue::Float64(Some(value)), None);
        let int = |value: i64| Expr::Literal(ScalarValue::Int64(Some(value)), None);
        for (op, by, rises) in [
            (Operator::Divide, float(300.0), true),
            (Operator::Multiply, float(300.0), true),
            (Operator::Multiply, float(-1.0), false),
            (Operator::Multiply, float(f64::INFINITY), false),
            (Operator::Minus, float(7.0), true),
            (Operator::Divide, int(60), true),
            (Operator::Divide, int(-60), false),
            (Operator::Multiply, int(60), false),
            (Operator::Plus, int(1), false),
            (Operator::Modulo, int(60), false),
        ] {
            let expr = BinaryExpr::new(Box::new(datafusion::prelude::col("time")), op, Box::new(by.clone()));
            assert_eq!(never_falls(&Expr::BinaryExpr(expr)), rises, "{op} {by}");
        }
    }
}
