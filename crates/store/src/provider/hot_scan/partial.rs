//! Aggregates that the server computes up to the state that the engine merges with those of the other tier.

use arrow::array::{Array, Float64Array, Float64Builder, ListArray, ListBuilder, StringArray};
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
        "min" | "max" if kind == DataType::Float64 => vec![extreme_of_floats(name, &text, only.as_deref())],
        "min" if ranks => vec![apply("minOrNull", &text)],
        "max" if ranks => vec![apply("maxOrNull", &text)],
        "bool_or" if kind == DataType::Boolean => vec![apply("maxOrNull", &format!("toUInt8({text})"))],
        "bool_and" if kind == DataType::Boolean => vec![apply("minOrNull", &format!("toUInt8({text})"))],
        _ => return None,
    };
    Some(states)
}

/// What is no number is larger than every number. Here, its place depends on the order in which rows come.
fn extreme_of_floats(name: &str, value: &str, only: Option<&str>) -> String {
    let all = |condition: String| match only {
        Some(only) => format!("{condition} AND {only}"),
        None => condition,
    };
    let numbers = format!("{name}OrNullIf({value}, {})", all(format!("NOT isNaN({value})")));
    let is_any_none = format!("countIf({}) > 0", all(format!("isNaN({value})")));
    match name {
        "max" => format!("if({is_any_none}, nan, {numbers})"),
        _ => format!("coalesce({numbers}, if({is_any_none}, nan, NULL))"),
    }
}

/// How many centroids the engine keeps, unless it is told.
const CENTROIDS: u64 = 100;

/// A t-digest, as the server makes it: see [`centroids`].
///
/// Of whole numbers alone: among them are none that the two would rank differently. Means have seven digits.
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
    // Of what cannot be null: a state of what can has a mark before it.
    let filled = format!("isNotNull({text})");
    let filled = only.map_or_else(|| filled.clone(), |only| format!("{filled} AND {only}"));
    let state = format!("hex(toString(quantileTDigestStateIf(toFloat64(assumeNotNull({text})), {filled})))");
    let or_nan = |function: &str| format!("ifNull({}, nan)", apply(function, "OrNull"));
    Some(vec![
        format!("toUInt64({kept})"),
        format!("ifNull({}, 0)", apply("sum", "OrNull")),
        format!("toFloat64({})", apply("count", "")),
        or_nan("max"),
        or_nan("min"),
        state,
    ])
}

/// The centroids of digests, as the engine has them: mean and weight by turns, in the order of the means.
///
/// The server writes how many there are, and then two numbers of four bytes for each, its mean and how many values it stands for. Both
/// engines estimate from such centroids; the server keeps more of them than are kept after merging. No mean lies beyond the values themselves.
pub(super) fn centroids(states: &StringArray, least: &Float64Array, most: &Float64Array) -> Option<ListArray> {
    let mut lists = ListBuilder::new(Float64Builder::new());
    for row in 0..states.len() {
        let state = bytes_of(states.value(row))?;
        let (declared, pairs) = state.split_at(state.len() % 8);
        if length(declared)? != pairs.len() / 8 {
            return None;
        }
        let number = |bytes: &[u8]| bytes.try_into().ok().map(|bytes| f64::from(f32::from_le_bytes(bytes)));
        let pairs = pairs
            .chunks_exact(8)
            .map(|pair| Some((number(&pair[..4])?, number(&pair[4..])?)));
        let mut pairs = pairs.collect::<Option<Vec<(f64, f64)>>>()?;
        let (least, most) = (least.value(row), most.value(row));
        let is_ranked = least <= most || pairs.is_empty();
        if !is_ranked
            || pairs
                .iter()
                .any(|(mean, weight)| !mean.is_finite() || !weight.is_finite() || *weight <= 0.0)
        {
            return None;
        }
        pairs.sort_by(|one, other| one.0.total_cmp(&other.0));
        for (mean, weight) in pairs {
            lists.values().append_value(mean.clamp(least, most));
            lists.values().append_value(weight);
        }
        lists.append(true);
    }
    Some(lists.finish())
}

/// Seven bits in a byte, the lowest first; nothing stands for none.
fn length(bytes: &[u8]) -> Option<usize> {
    let mut length = 0;
    for (at, byte) in bytes.iter().enumerate() {
        if (byte & 0x80 != 0) == (at + 1 == bytes.len()) || at > 3 {
            return None;
        }
        length |= usize::from(byte & 0x7f) << (7 * at);
    }
    Some(length)
}

fn bytes_of(hexadecimal: &str) -> Option<Vec<u8>> {
    let digit = |digit: u8| char::from(digit).to_digit(16);
    let pairs = hexadecimal.as_bytes().chunks_exact(2);
    let bytes = pairs.map(|pair| u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok());
    bytes.collect()
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use arrow::array::AsArray;
    use arrow::datatypes::Float64Type;

    use super::*;

    fn read(state: &str, least: f64, most: f64) -> Option<Vec<f64>> {
        let ends = |end: f64| Float64Array::from(vec![end]);
        let lists = centroids(&StringArray::from(vec![state]), &ends(least), &ends(most))?;
        Some(lists.value(0).as_primitive::<Float64Type>().values().to_vec())
    }

    #[test]
    fn a_digest_is_read_in_order_and_within_its_ends() {
        // Two centroids: 2.0 for three values, and 1.0 for one.
        let state = "02 00000040 00004040 0000803F 0000803F".replace(' ', "");
        assert_eq!(read(&state, 1.0, 1.5), Some(vec![1.0, 1.0, 1.5, 3.0]));
        assert_eq!(read("00", f64::NAN, f64::NAN), Some(vec![]));
        assert_eq!(read("", f64::NAN, f64::NAN), Some(vec![]));
    }

    #[test]
    fn what_is_no_digest_is_refused() {
        for (state, least, most) in [
            ("01zz00004000004040", 0.0, 9.0),
            ("010000C07F00004040", 0.0, 9.0),
            ("010000004000000000", 0.0, 9.0),
            ("010000004000004040", f64::NAN, f64::NAN),
            ("010000004000004040", 9.0, 0.0),
            ("020000004000004040", 0.0, 9.0),
            ("810000004000004040", 0.0, 9.0),
        ] {
            assert_eq!(read(state, least, most), None, "{state}");
        }
    }
}
