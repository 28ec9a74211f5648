//! Aggregates that the server computes up to the state that the engine merges with those of the other tier.

use arrow::datatypes::DataType;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::expressions::{CastExpr, Literal};
use datafusion::scalar::ScalarValue;
use std::sync::Arc;

use super::words::{Value, Words};

/// The columns of one aggregate's state, in the order in which the engine takes them; `None`: the server cannot make it.
pub(super) fn state(
    words: &mut Words<'_>,
    aggregate: &AggregateFunctionExpr,
    filter: Option<&Arc<dyn PhysicalExpr>>,
) -> Option<Vec<String>> {
    let args = aggregate.expressions();
    // A filter that is null is one that is not met.
    let only = match filter {
        Some(filter) => Some(format!("ifNull({}, 0)", words.condition(filter)?)),
        None => None,
    };
    if aggregate.fun().name() == "approx_percentile_cont" && !aggregate.is_distinct() {
        return digest(words, &args, only.as_deref());
    }
    let [arg] = args.as_slice() else {
        return None;
    };
    if !aggregate.order_bys().is_empty() || aggregate.ignore_nulls() {
        return None;
    }
    let apply = |function: &str, value: &str| match &only {
        Some(only) => format!("{function}If({value}, {only})"),
        None => format!("{function}({value})"),
    };
    let count = |value: Option<&str>| {
        let filled = value.map(|value| format!("isNotNull({value})"));
        let all: Vec<String> = filled.into_iter().chain(only.clone()).collect();
        match all.is_empty() {
            true => "count()".to_owned(),
            false => format!("countIf({})", all.join(" AND ")),
        }
    };
    let name = aggregate.fun().name();
    if name == "count"
        && !aggregate.is_distinct()
        && arg.downcast_ref::<Literal>().is_some_and(|l| !l.value().is_null())
    {
        return Some(vec![format!("toInt64({})", count(None))]);
    }
    let Value { text, kind } = words.value(arg, 0)?;
    let ranks = !matches!(kind, DataType::Float64 | DataType::Boolean);
    let states = match name {
        "count" if aggregate.is_distinct() => ranks.then(|| vec![apply("groupUniqArray", &text)])?,
        _ if aggregate.is_distinct() => return None,
        "count" => vec![format!("toInt64({})", count(Some(&text)))],
        "sum" if matches!(kind, DataType::Int64 | DataType::UInt64 | DataType::Float64) => {
            vec![apply("sumOrNull", &text)]
        }
        "avg" if kind == DataType::Float64 => {
            // The engine takes a group for averaged as soon as its count is there.
            let counted = format!("nullIf(toUInt64({}), 0)", count(Some(&text)));
            vec![counted, apply("sumOrNull", &text)]
        }
        "min" if ranks => vec![apply("minOrNull", &text)],
        "max" if ranks => vec![apply("maxOrNull", &text)],
        "bool_or" if kind == DataType::Boolean => vec![apply("maxOrNull", &format!("toUInt8({text})"))],
        "bool_and" if kind == DataType::Boolean => vec![apply("minOrNull", &format!("toUInt8({text})"))],
        _ => return None,
    };
    Some(states)
}

/// How many centroids the engine keeps, unless it is told.
const CENTROIDS: u64 = 100;

/// A t-digest, as the server makes it: a length, and two numbers of four bytes for each centroid, its mean and how many values it stands for.
/// Both engines estimate from such centroids; the server keeps more of them than are kept after merging.
///
/// Of whole numbers alone: there is no number among them that the two would rank differently.
fn digest(words: &mut Words<'_>, args: &[Arc<dyn PhysicalExpr>], only: Option<&str>) -> Option<Vec<String>> {
    let (asked, kept) = match args {
        [asked, _] => (asked, CENTROIDS),
        [asked, _, kept] => (asked, whole_number(kept)?),
        _ => return None,
    };
    let whole = asked
        .downcast_ref::<CastExpr>()
        .filter(|cast| cast.cast_type() == &DataType::Float64)?;
    let Value { text, kind } = words.value(whole.expr(), 0)?;
    if !matches!(
        kind,
        DataType::Int32 | DataType::Int64 | DataType::UInt32 | DataType::UInt64
    ) {
        return None;
    }
    let value = format!("toFloat64({text})");
    let apply = |function: &str, end: &str| match only {
        Some(only) => format!("{function}If{end}({value}, {only})"),
        None => format!("{function}{end}({value})"),
    };
    let state = format!("ifNull(toString({}), '')", apply("quantileTDigest", "State"));
    let number = |at: &str| format!("toFloat64(reinterpretAsFloat32(substring(s, {at}, 4)))");
    let begin = "length(s) % 8 + 8 * i + 1";
    let pairs = format!(
        "arrayMap(i -> ({}, {}), range(intDiv(length(s), 8)))",
        number(begin),
        number(&format!("4 + {begin}"))
    );
    let centroids = format!("arrayFlatten(arrayMap(c -> [c.1, c.2], arraySort({pairs})))");
    let or_nan = |function: &str| format!("ifNull({}, nan)", apply(function, "OrNull"));
    Some(vec![
        format!("toUInt64({kept})"),
        format!("ifNull({}, 0)", apply("sum", "OrNull")),
        format!("toFloat64({})", apply("count", "")),
        or_nan("max"),
        or_nan("min"),
        format!("arrayFlatten(arrayMap(s -> {centroids}, [{state}]))"),
    ])
}

fn whole_number(expr: &Arc<dyn PhysicalExpr>) -> Option<u64> {
    match expr.downcast_ref::<Literal>()?.value() {
        ScalarValue::Int32(Some(number)) => u64::try_from(*number).ok(),
        ScalarValue::Int64(Some(number)) => u64::try_from(*number).ok(),
        ScalarValue::UInt32(Some(number)) => Some(u64::from(*number)),
        ScalarValue::UInt64(Some(number)) => Some(*number),
        _ => None,
    }
    .filter(|number| (1..=10_000).contains(number))
}
