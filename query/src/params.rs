//! The values that stand for `$1`, `$2`, … in a query.

use datafusion::common::ScalarValue;
use serde_json::Value;

use crate::error::{Kind, QueryError};

/// A JSON array as typed values. Lists and objects have no one SQL type, so they are refused.
pub(crate) fn scalars(params: &[Value]) -> Result<Vec<ScalarValue>, QueryError> {
    params
        .iter()
        .enumerate()
        .map(|(at, value)| scalar(value).ok_or_else(|| refused(at)))
        .collect()
}

fn scalar(value: &Value) -> Option<ScalarValue> {
    match value {
        Value::Null => Some(ScalarValue::Null),
        Value::Bool(b) => Some(ScalarValue::Boolean(Some(*b))),
        Value::String(s) => Some(ScalarValue::Utf8(Some(s.clone()))),
        Value::Number(n) => n
            .as_i64()
            .map(|i| ScalarValue::Int64(Some(i)))
            .or_else(|| n.as_u64().map(|u| ScalarValue::UInt64(Some(u))))
            .or_else(|| n.as_f64().map(|f| ScalarValue::Float64(Some(f)))),
        Value::Array(_) | Value::Object(_) => None,
    }
}

fn refused(at: usize) -> QueryError {
    QueryError::new(Kind::BadRequest, format!("`params[{at}]` is a list or an object"))
        .hint("a parameter is text, a number, true, false or null")
}
