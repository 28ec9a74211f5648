//! Aggregates that the server computes up to the state that the engine merges with those of the other tier.

use arrow::datatypes::DataType;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::expressions::Literal;
use std::sync::Arc;

use super::words::{Value, Words};

/// The columns of one aggregate's state, in the order in which the engine takes them; `None`: the server cannot make it.
pub(super) fn state(
    words: &mut Words<'_>,
    aggregate: &AggregateFunctionExpr,
    filter: Option<&Arc<dyn PhysicalExpr>>,
) -> Option<Vec<String>> {
    let args = aggregate.expressions();
    let [arg] = args.as_slice() else {
        return None;
    };
    if !aggregate.order_bys().is_empty() || aggregate.ignore_nulls() {
        return None;
    }
    // A filter that is null is one that is not met.
    let only = match filter {
        Some(filter) => Some(format!("ifNull({}, 0)", words.condition(filter)?)),
        None => None,
    };
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
