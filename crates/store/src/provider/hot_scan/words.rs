//! Expressions in the words of ClickHouse, exactly: what is said here has the same value there, nulls included. What has no such words
//! is left to the engine.
//!
//! Left out on purpose: comparing floats (here NaN equals itself and is the largest, there it is neither), integer arithmetic (here it
//! fails where it overflows), patterns with `_`, upper and lower case.

use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{
    BinaryExpr, CaseExpr, CastExpr, Column, InListExpr, IsNotNullExpr, IsNullExpr, LikeExpr, Literal, NotExpr,
};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use datafusion::scalar::ScalarValue;

use super::pattern;
use crate::hot::clickhouse::text_parameter;

const MAX_DEPTH: usize = 40;
const SECOND: i64 = 1_000_000_000;
const DAY: i64 = 86_400 * SECOND;

/// Something that the server computes.
#[derive(Clone, Debug)]
pub(super) struct Value {
    pub(super) text: String,
    pub(super) kind: DataType,
}

/// Puts expressions over some columns into words.
pub(super) struct Words<'a> {
    schema: &'a SchemaRef,
    /// How many parameters have names already.
    taken: usize,
    pub(super) parameters: Vec<(String, String)>,
}

impl<'a> Words<'a> {
    /// `schema` is what columns of the expressions count in.
    pub(super) fn new(schema: &'a SchemaRef, taken: usize) -> Self {
        Self {
            schema,
            taken,
            parameters: Vec::new(),
        }
    }

    /// True, false or null, as here.
    pub(super) fn condition(&mut self, expr: &Arc<dyn PhysicalExpr>) -> Option<String> {
        let said = self.value(expr, 0)?;
        (said.kind == DataType::Boolean).then_some(said.text)
    }

    /// A value that ranks and groups there as it does here.
    pub(super) fn key(&mut self, expr: &Arc<dyn PhysicalExpr>) -> Option<Value> {
        let said = self.value(expr, 0)?;
        compares(&said.kind).then_some(said)
    }

    pub(super) fn value(&mut self, expr: &Arc<dyn PhysicalExpr>, depth: usize) -> Option<Value> {
        if depth > MAX_DEPTH {
            return None;
        }
        let depth = depth + 1;
        if let Some(column) = expr.downcast_ref::<Column>() {
            let field = self.schema.fields().get(column.index())?;
            return known(field.data_type()).then(|| Value::new(format!("`{}`", field.name()), field.data_type()));
        }
        if let Some(literal) = expr.downcast_ref::<Literal>() {
            return self.literal(literal.value());
        }
        if let Some(binary) = expr.downcast_ref::<BinaryExpr>() {
            return self.binary(binary, depth);
        }
        if let Some(not) = expr.downcast_ref::<NotExpr>() {
            let inner = self.boolean(not.arg(), depth)?;
            return Some(Value::boolean(format!("(NOT {inner})")));
        }
        if let Some(is) = expr.downcast_ref::<IsNullExpr>() {
            return Some(Value::boolean(format!("isNull({})", self.nullable(is.arg(), depth)?)));
        }
        if let Some(is) = expr.downcast_ref::<IsNotNullExpr>() {
            return Some(Value::boolean(format!(
                "isNotNull({})",
                self.nullable(is.arg(), depth)?
            )));
        }
        if let Some(list) = expr.downcast_ref::<InListExpr>() {
            return self.in_list(list, depth);
        }
        if let Some(like) = expr.downcast_ref::<LikeExpr>() {
            return self.like(like, depth);
        }
        if let Some(cast) = expr.downcast_ref::<CastExpr>() {
            let inner = self.value(cast.expr(), depth)?;
            return widen(inner, cast.cast_type());
        }
        if let Some(case) = expr.downcast_ref::<CaseExpr>() {
            return self.case(case, depth);
        }
        self.function(expr.downcast_ref::<ScalarFunctionExpr>()?, depth)
    }

    fn boolean(&mut self, expr: &Arc<dyn PhysicalExpr>, depth: usize) -> Option<String> {
        let said = self.value(expr, depth)?;
        (said.kind == DataType::Boolean).then_some(said.text)
    }

    /// What may be null there exactly where it is here. A list is never null there.
    fn nullable(&mut self, expr: &Arc<dyn PhysicalExpr>, depth: usize) -> Option<String> {
        self.value(expr, depth).map(|said| said.text)
    }

    fn binary(&mut self, binary: &BinaryExpr, depth: usize) -> Option<Value> {
        let compared = match binary.op() {
            Operator::And | Operator::Or => {
                let (left, right) = (
                    self.boolean(binary.left(), depth)?,
                    self.boolean(binary.right(), depth)?,
                );
                let word = if *binary.op() == Operator::And { "AND" } else { "OR" };
                return Some(Value::boolean(format!("({left} {word} {right})")));
            }
            Operator::RegexMatch => return self.matches(binary.left(), binary.right(), "", false, depth),
            Operator::RegexIMatch => return self.matches(binary.left(), binary.right(), "", true, depth),
            Operator::RegexNotMatch => return self.matches(binary.left(), binary.right(), "NOT ", false, depth),
            Operator::RegexNotIMatch => return self.matches(binary.left(), binary.right(), "NOT ", true, depth),
            Operator::Eq => "=",
            Operator::NotEq => "!=",
            Operator::Lt => "<",
            Operator::LtEq => "<=",
            Operator::Gt => ">",
            Operator::GtEq => ">=",
            Operator::Plus | Operator::Minus | Operator::Multiply => {
                let (left, right) = (self.value(binary.left(), depth)?, self.value(binary.right(), depth)?);
                let floats = left.kind == DataType::Float64 && right.kind == DataType::Float64;
                let word = binary.op();
                return floats
                    .then(|| Value::new(format!("({} {word} {})", left.text, right.text), &DataType::Float64));
            }
            _ => return None,
        };
        let (left, right) = (self.value(binary.left(), depth)?, self.value(binary.right(), depth)?);
        let text = format!("({} {compared} {})", left.text, right.text);
        (compares(&left.kind) && alike(&left.kind, &right.kind)).then(|| Value::boolean(text))
    }

    fn in_list(&mut self, list: &InListExpr, depth: usize) -> Option<Value> {
        let asked = self.value(list.expr(), depth)?;
        if !compares(&asked.kind) || list.is_empty() {
            return None;
        }
        let mut each = Vec::with_capacity(list.len());
        for item in list.list() {
            let literal = item
                .downcast_ref::<Literal>()
                .filter(|literal| !literal.value().is_null())?;
            let item = self
                .literal(literal.value())
                .filter(|item| alike(&item.kind, &asked.kind))?;
            each.push(format!("{} = {}", asked.text, item.text));
        }
        let any = format!("({})", each.join(" OR "));
        Some(Value::boolean(if list.negated() {
            format!("(NOT {any})")
        } else {
            any
        }))
    }

    fn like(&mut self, like: &LikeExpr, depth: usize) -> Option<Value> {
        let asked = self.value(like.expr(), depth).filter(|asked| is_text(&asked.kind))?;
        let pattern = text_of(like.pattern().downcast_ref::<Literal>()?.value())?;
        if like.case_insensitive() || pattern.contains(['_', '\\']) {
            return None;
        }
        let (word, pattern) = (if like.negated() { "NOT LIKE" } else { "LIKE" }, self.text(&pattern));
        Some(Value::boolean(format!("({} {word} {pattern})", asked.text)))
    }

    fn matches(
        &mut self,
        text: &Arc<dyn PhysicalExpr>,
        pattern: &Arc<dyn PhysicalExpr>,
        not: &str,
        ignores_case: bool,
        depth: usize,
    ) -> Option<Value> {
        let asked = self.value(text, depth).filter(|asked| is_text(&asked.kind))?;
        let pattern = text_of(pattern.downcast_ref::<Literal>()?.value())?;
        let pattern = pattern::spelled(&pattern, ignores_case)?;
        let pattern = self.text(&pattern);
        Some(Value::boolean(format!("({not}match({}, {pattern}))", asked.text)))
    }

    fn case(&mut self, case: &CaseExpr, depth: usize) -> Option<Value> {
        let mut parts = Vec::new();
        let mut kind: Option<DataType> = None;
        let agree = |value: &Value, kind: &mut Option<DataType>| match kind {
            Some(kind) => alike(kind, &value.kind),
            None => {
                *kind = Some(value.kind.clone());
                true
            }
        };
        let compared = case
            .expr()
            .map(|expr| self.value(expr, depth))
            .map_or(Some(None), |v| v.map(Some))?;
        for (when, then) in case.when_then_expr() {
            let condition = match &compared {
                None => self.boolean(when, depth)?,
                Some(left) => {
                    let right = self.value(when, depth)?;
                    if !compares(&left.kind) || !alike(&left.kind, &right.kind) {
                        return None;
                    }
                    format!("{} = {}", left.text, right.text)
                }
            };
            let then = self.value(then, depth).filter(|then| agree(then, &mut kind))?;
            parts.push(format!("{condition}, {}", then.text));
        }
        let otherwise = match case.else_expr() {
            Some(expr) => self.value(expr, depth).filter(|value| agree(value, &mut kind))?.text,
            None => "NULL".to_owned(),
        };
        Some(Value::new(
            format!("multiIf({}, {otherwise})", parts.join(", ")),
            &kind?,
        ))
    }

    fn function(&mut self, function: &ScalarFunctionExpr, depth: usize) -> Option<Value> {
        match (function.name(), function.args()) {
            ("get_field", [map, key]) => {
                let column = map.downcast_ref::<Column>()?;
                let field = Arc::clone(self.schema.fields().get(column.index())?);
                let is_map = matches!(field.data_type(), DataType::Map(..));
                let key = text_of(key.downcast_ref::<Literal>()?.value()).filter(|_| is_map)?;
                let (key, map) = (self.text(&key), field.name());
                // The first of equal keys counts, there as here.
                let text = format!("if(has(mapKeys(`{map}`), {key}), toNullable(`{map}`[{key}]), NULL)");
                Some(Value::new(text, &DataType::Utf8))
            }
            ("date_trunc", [unit, time]) => {
                let width = match text_of(unit.downcast_ref::<Literal>()?.value())?
                    .to_ascii_lowercase()
                    .as_str()
                {
                    "second" => SECOND,
                    "minute" => 60 * SECOND,
                    "hour" => 3_600 * SECOND,
                    "day" => DAY,
                    _ => return None,
                };
                self.floor(time, width, 0, depth)
            }
            ("date_bin", [width, time, rest @ ..]) => {
                let origin = match rest {
                    [] => 0,
                    [origin] => match origin.downcast_ref::<Literal>()?.value() {
                        ScalarValue::TimestampNanosecond(Some(ns), _) => *ns,
                        _ => return None,
                    },
                    _ => return None,
                };
                self.floor(time, nanos(width.downcast_ref::<Literal>()?.value())?, origin, depth)
            }
            ("coalesce", args) if !args.is_empty() => {
                let values: Option<Vec<Value>> = args.iter().map(|arg| self.value(arg, depth)).collect();
                let values = values?;
                let kind = values.first()?.kind.clone();
                let texts: Vec<&str> = values.iter().map(|value| value.text.as_str()).collect();
                let text = format!("coalesce({})", texts.join(", "));
                values
                    .iter()
                    .all(|value| alike(&kind, &value.kind))
                    .then(|| Value::new(text, &kind))
            }
            ("starts_with", [text, prefix]) => {
                let asked = self.value(text, depth).filter(|asked| is_text(&asked.kind))?;
                let prefix = text_of(prefix.downcast_ref::<Literal>()?.value())?;
                let prefix = self.text(&prefix);
                Some(Value::boolean(format!("startsWith({}, {prefix})", asked.text)))
            }
            ("regexp_like", [text, pattern]) => self.matches(text, pattern, "", false, depth),
            _ => None,
        }
    }

    /// The beginning of the piece of time that a moment lies in, rounded down before the origin too.
    fn floor(&mut self, time: &Arc<dyn PhysicalExpr>, width: i64, origin: i64, depth: usize) -> Option<Value> {
        let time = self
            .value(time, depth)
            .filter(|time| is_utc_nanos(&time.kind) && width > 0)?;
        let ns = format!("toUnixTimestamp64Nano({})", time.text);
        let rest = format!("toInt64(positiveModulo(toInt64({ns} - toInt64({origin})), toInt64({width})))");
        let text = format!("fromUnixTimestamp64Nano(toInt64({ns} - {rest}), 'UTC')");
        Some(Value::new(text, &time.kind))
    }

    fn literal(&mut self, value: &ScalarValue) -> Option<Value> {
        let kind = value.data_type();
        let text = match value {
            _ if value.is_null() => "NULL".to_owned(),
            ScalarValue::Boolean(Some(value)) => value.to_string(),
            ScalarValue::Int32(Some(value)) => format!("toInt32({value})"),
            ScalarValue::Int64(Some(value)) => format!("toInt64('{value}')"),
            ScalarValue::UInt32(Some(value)) => format!("toUInt32({value})"),
            ScalarValue::UInt64(Some(value)) => format!("toUInt64('{value}')"),
            ScalarValue::Float64(Some(value)) => format!("reinterpretAsFloat64(toUInt64('{}'))", value.to_bits()),
            ScalarValue::TimestampNanosecond(Some(ns), Some(_)) => {
                format!("fromUnixTimestamp64Nano(toInt64('{ns}'), 'UTC')")
            }
            ScalarValue::TimestampMicrosecond(Some(us), Some(_)) => {
                format!("fromUnixTimestamp64Micro(toInt64('{us}'), 'UTC')")
            }
            other => self.text(&text_of(other)?),
        };
        known(&kind).then(|| Value::new(text, &kind))
    }

    fn text(&mut self, text: &str) -> String {
        let name = format!("w{}", self.taken + self.parameters.len());
        let (shown, parameter) = text_parameter(&name, text);
        self.parameters.push(parameter);
        shown
    }
}

impl Value {
    fn new(text: String, kind: &DataType) -> Self {
        Self {
            text,
            kind: kind.clone(),
        }
    }

    fn boolean(text: String) -> Self {
        Self::new(text, &DataType::Boolean)
    }
}

/// Types whose values are the same there.
fn known(kind: &DataType) -> bool {
    compares(kind) || kind == &DataType::Float64
}

/// Types whose values compare there as they do here.
fn compares(kind: &DataType) -> bool {
    matches!(
        kind,
        DataType::Boolean
            | DataType::Int32
            | DataType::Int64
            | DataType::UInt32
            | DataType::UInt64
            | DataType::Timestamp(TimeUnit::Nanosecond | TimeUnit::Microsecond, Some(_))
    ) || is_text(kind)
}

fn is_text(kind: &DataType) -> bool {
    matches!(kind, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// Zones say how a moment is shown, not which it is.
fn alike(left: &DataType, right: &DataType) -> bool {
    match (left, right) {
        (DataType::Timestamp(left, _), DataType::Timestamp(right, _)) => left == right,
        _ => left == right || is_text(left) && is_text(right),
    }
}

fn is_utc_nanos(kind: &DataType) -> bool {
    matches!(kind, DataType::Timestamp(TimeUnit::Nanosecond, Some(zone)) if matches!(zone.as_ref(), "UTC" | "+00:00"))
}

/// Casts that change no value, or change it in the same way there.
fn widen(value: Value, to: &DataType) -> Option<Value> {
    use DataType::{Float64, Int32, Int64, Timestamp, UInt32, UInt64};
    let text = match (&value.kind, to) {
        (from, to) if from == to || is_text(from) && is_text(to) => value.text,
        (Int32 | UInt32, Int64) => format!("toInt64({})", value.text),
        (UInt32, UInt64) => format!("toUInt64({})", value.text),
        (Int32 | Int64 | UInt32, Float64) => format!("toFloat64({})", value.text),
        (Timestamp(from, Some(_)), Timestamp(to, Some(_))) if from == to => value.text,
        _ => return None,
    };
    Some(Value::new(text, to))
}

fn text_of(value: &ScalarValue) -> Option<String> {
    value.try_as_str().flatten().map(str::to_owned)
}

/// An interval without months, whose lengths differ.
fn nanos(interval: &ScalarValue) -> Option<i64> {
    match interval {
        ScalarValue::IntervalMonthDayNano(Some(part)) if part.months == 0 => {
            i64::from(part.days).checked_mul(DAY)?.checked_add(part.nanoseconds)
        }
        ScalarValue::IntervalDayTime(Some(part)) => i64::from(part.days)
            .checked_mul(DAY)?
            .checked_add(i64::from(part.milliseconds) * 1_000_000),
        _ => None,
    }
}
