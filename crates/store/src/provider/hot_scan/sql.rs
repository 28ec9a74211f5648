//! Filters in the words of ClickHouse. Only what means the same there is said: the engine decides in the end, so a filter may be left
//! out, but none may drop a row that passes it here.
//!
//! Floats are left out: here NaN is the largest number and equals itself, there it is neither.

use arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use datafusion::logical_expr::expr::{InList, Like};
use datafusion::logical_expr::{Between, BinaryExpr, Expr, Operator};
use datafusion::scalar::ScalarValue;

use crate::hot::clickhouse::{WORDS_OF_BODY, text_parameter};
use crate::search::{MAX_ASKED_BYTES, Search, known_of_pattern};

/// Parameters travel in the address of a request, which servers limit.
const MAX_PARAMETER_BYTES: usize = 16 << 10;
/// Of all conditions; ClickHouse parses statements of up to 256 KiB.
const MAX_CONDITION_BYTES: usize = 64 << 10;
const MAX_DEPTH: usize = 40;

/// What of some filters the server applies.
#[derive(Debug, Default)]
pub(super) struct Said {
    pub(super) conditions: Vec<String>,
    pub(super) parameters: Vec<(String, String)>,
    /// The conditions are all of the filters, so that a limit may be applied behind them.
    pub(super) whole: bool,
}

pub(super) fn say(filters: &[Expr], schema: &SchemaRef) -> Said {
    let mut said = Said {
        whole: true,
        ..Said::default()
    };
    let (mut condition_bytes, mut parameter_bytes) = (0, 0);
    for filter in filters {
        let say = |asks_index| {
            let mut speaker = Speaker {
                schema,
                parameters: Vec::new(),
                first: said.parameters.len(),
                whole: true,
                asks_index,
            };
            let text = speaker.filter(filter, 0)?;
            let size: usize = speaker.parameters.iter().map(|(_, value)| value.len()).sum();
            let fits =
                condition_bytes + text.len() <= MAX_CONDITION_BYTES && parameter_bytes + size <= MAX_PARAMETER_BYTES;
            fits.then_some((text, size, speaker))
        };
        // Rather without the index than not at all.
        let Some((text, size, speaker)) = say(true).or_else(|| say(false)) else {
            said.whole = false;
            continue;
        };
        condition_bytes += text.len();
        parameter_bytes += size;
        said.whole &= speaker.whole;
        said.conditions.push(text);
        said.parameters.extend(speaker.parameters);
    }
    said
}

struct Speaker<'a> {
    schema: &'a SchemaRef,
    parameters: Vec<(String, String)>,
    /// How many parameters have names already.
    first: usize,
    whole: bool,
    /// Words of bodies are asked of the server's index besides.
    asks_index: bool,
}

impl Speaker<'_> {
    /// A condition that every row meets which passes the filter.
    fn filter(&mut self, filter: &Expr, depth: usize) -> Option<String> {
        if depth > MAX_DEPTH {
            return None;
        }
        match filter {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => match op {
                Operator::And => match (self.filter(left, depth + 1), self.filter(right, depth + 1)) {
                    (Some(left), Some(right)) => Some(format!("({left} AND {right})")),
                    (one, other) => {
                        self.whole = false;
                        one.or(other)
                    }
                },
                Operator::Or => {
                    let (left, right) = (self.filter(left, depth + 1)?, self.filter(right, depth + 1)?);
                    Some(format!("({left} OR {right})"))
                }
                _ => self
                    .comparison(left, *op, right)
                    .or_else(|| self.comparison(right, op.swap()?, left)),
            },
            Expr::Between(Between {
                expr,
                negated: false,
                low,
                high,
            }) => {
                let (name, kind) = self.column(expr)?;
                let (low, high) = (self.constant(low, &kind)?, self.constant(high, &kind)?);
                Some(format!("({name} >= {low} AND {name} <= {high})"))
            }
            Expr::InList(InList {
                expr,
                list,
                negated: false,
            }) => {
                let (name, kind) = self.column(expr)?;
                let list: Option<Vec<String>> = list.iter().map(|item| self.constant(item, &kind)).collect();
                let list = list.filter(|list| !list.is_empty())?;
                let each: Vec<String> = list.iter().map(|item| format!("{name} = {item}")).collect();
                Some(format!("({})", each.join(" OR ")))
            }
            Expr::IsNull(expr) => self.nullable(expr).map(|name| format!("{name} IS NULL")),
            Expr::IsNotNull(expr) => self.nullable(expr).map(|name| format!("{name} IS NOT NULL")),
            Expr::Like(like) => self.like(like),
            Expr::ScalarFunction(function) => match (function.name(), function.args.as_slice()) {
                ("match", [text, asked]) if is_body(text) => self.search(&text_of(asked)?),
                _ => None,
            },
            _ => None,
        }
    }

    fn comparison(&mut self, left: &Expr, op: Operator, right: &Expr) -> Option<String> {
        let op = match op {
            Operator::Eq => "=",
            Operator::NotEq => "!=",
            Operator::Lt => "<",
            Operator::LtEq => "<=",
            Operator::Gt => ">",
            Operator::GtEq => ">=",
            _ => return None,
        };
        if op == "="
            && let Some((map, key)) = map_entry(left)
        {
            return self.entry(&map, &key, right);
        }
        let (name, kind) = self.column(left)?;
        let value = self.constant(right, &kind)?;
        Some(format!("{name} {op} {value}"))
    }

    /// A key may stand in a map more than once, so this lets more rows pass.
    fn entry(&mut self, map: &str, key: &str, value: &Expr) -> Option<String> {
        let field = self.schema.field_with_name(map).ok()?;
        if !matches!(field.data_type(), DataType::Map(..)) {
            return None;
        }
        let value = self.constant(value, &DataType::Utf8)?;
        let key = self.text(key);
        self.whole = false;
        Some(format!(
            "(has(mapKeys(`{map}`), {key}) AND has(mapValues(`{map}`), {value}))"
        ))
    }

    /// The fixed pieces of a pattern must all occur.
    fn like(&mut self, like: &Like) -> Option<String> {
        if like.negated || like.escape_char.is_some() {
            return None;
        }
        let (name, kind) = self.column(&like.expr)?;
        let pattern = text_of(&like.pattern).filter(|_| kind == DataType::Utf8)?;
        if pattern.contains(['_', '\\']) {
            return None;
        }
        self.whole = false;
        let mut all = Vec::new();
        if !like.case_insensitive {
            for piece in pattern.split('%').filter(|piece| !piece.is_empty()) {
                let piece = self.text(piece);
                all.push(format!("position({name}, {piece}) > 0"));
            }
        }
        if is_body(&like.expr) {
            all.extend(self.words_of_body(known_of_pattern(&pattern, like.case_insensitive)));
        }
        (!all.is_empty()).then(|| format!("({})", all.join(" AND ")))
    }

    /// Of rows whose body is refused as too long no error comes if they cannot be found.
    fn search(&mut self, asked: &str) -> Option<String> {
        self.whole = false;
        if asked.len() > MAX_ASKED_BYTES {
            return None;
        }
        let words = Search::new(asked).known();
        let word = words.first()?;
        // Where a part has no index, this is known much faster of most rows.
        let there = format!("position(lower(ifNull(`body`, '')), {}) > 0", self.text(word));
        match self.words_of_body(words) {
            Some(words) => Some(format!("({there} AND {words})")),
            None => Some(there),
        }
    }

    /// The server has an index for these.
    fn words_of_body(&mut self, words: Vec<String>) -> Option<String> {
        if words.is_empty() || !self.asks_index {
            return None;
        }
        let words: Vec<String> = words.iter().map(|word| self.text(word)).collect();
        Some(format!("hasAllTokens({WORDS_OF_BODY}, [{}])", words.join(", ")))
    }

    /// A column whose values compare there as they do here.
    fn column(&self, expr: &Expr) -> Option<(String, DataType)> {
        let Expr::Column(column) = expr else {
            return None;
        };
        let field = self.schema.field_with_name(&column.name).ok()?;
        let kind = field.data_type();
        let compares = matches!(
            kind,
            DataType::Utf8
                | DataType::Boolean
                | DataType::Int32
                | DataType::Int64
                | DataType::UInt32
                | DataType::UInt64
                | DataType::Timestamp(TimeUnit::Nanosecond | TimeUnit::Microsecond, _)
        );
        compares.then(|| (format!("`{}`", field.name()), kind.clone()))
    }

    fn nullable(&self, expr: &Expr) -> Option<String> {
        let Expr::Column(column) = expr else {
            return None;
        };
        let field = self.schema.field_with_name(&column.name).ok()?;
        (!field.data_type().is_nested()).then(|| format!("`{}`", field.name()))
    }

    /// A constant of exactly this type.
    fn constant(&mut self, expr: &Expr, kind: &DataType) -> Option<String> {
        let Expr::Literal(value, _) = expr else {
            return None;
        };
        match (value, kind) {
            (_, DataType::Utf8) => text_of(expr).map(|text| self.text(&text)),
            (ScalarValue::Boolean(Some(value)), DataType::Boolean) => Some(value.to_string()),
            (ScalarValue::TimestampNanosecond(Some(ns), _), DataType::Timestamp(TimeUnit::Nanosecond, _)) => {
                Some(format!("fromUnixTimestamp64Nano(toInt64({ns}), 'UTC')"))
            }
            (ScalarValue::TimestampMicrosecond(Some(us), _), DataType::Timestamp(TimeUnit::Microsecond, _)) => {
                Some(format!("fromUnixTimestamp64Micro(toInt64({us}), 'UTC')"))
            }
            (ScalarValue::Int32(Some(value)), DataType::Int32) => Some(value.to_string()),
            (ScalarValue::Int64(Some(value)), DataType::Int64) => Some(value.to_string()),
            (ScalarValue::UInt32(Some(value)), DataType::UInt32) => Some(value.to_string()),
            (ScalarValue::UInt64(Some(value)), DataType::UInt64) => Some(value.to_string()),
            _ => None,
        }
    }

    fn text(&mut self, text: &str) -> String {
        let name = format!("p{}", self.first + self.parameters.len());
        let (shown, parameter) = text_parameter(&name, text);
        self.parameters.push(parameter);
        shown
    }
}

fn is_body(expr: &Expr) -> bool {
    matches!(expr, Expr::Column(column) if column.name == "body")
}

fn text_of(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Literal(
            ScalarValue::Utf8(Some(text)) | ScalarValue::LargeUtf8(Some(text)) | ScalarValue::Utf8View(Some(text)),
            _,
        ) => Some(text.clone()),
        _ => None,
    }
}

/// `attrs['key']`.
fn map_entry(expr: &Expr) -> Option<(String, String)> {
    let Expr::ScalarFunction(function) = expr else {
        return None;
    };
    let ("get_field", [Expr::Column(column), key]) = (function.name(), function.args.as_slice()) else {
        return None;
    };
    Some((column.name.clone(), text_of(key)?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use datafusion::logical_expr::{col, lit};

    use super::*;

    fn said(filter: Expr) -> Said {
        say(&[filter], &sluice_wire::events::schema())
    }

    #[test]
    fn texts_never_stand_in_a_statement() {
        let evil = "x' OR 1=1 -- {p0:String} \\ `";
        let filters = [
            col("service").eq(lit(evil)),
            col("body").like(lit(format!("%{}%", evil.replace('\\', "")))),
            col("service").in_list(vec![lit(evil), lit("b")], false),
            lit(evil).lt(col("host")),
            col("service").between(lit(evil), lit("z")),
        ];
        for filter in filters {
            let said = said(filter);
            assert_eq!(said.conditions.len(), 1);
            assert!(
                !said.conditions[0].contains("OR 1=1") && said.conditions[0].contains("unhex({p0:String})"),
                "{said:?}"
            );
            assert!(
                said.parameters
                    .iter()
                    .all(|(_, v)| v.bytes().all(|b| b.is_ascii_hexdigit())),
                "{said:?}"
            );
        }
    }

    #[test]
    fn what_means_something_else_there_is_left_out() {
        for filter in [
            col("value").gt(lit(1.5)),
            col("attrs").is_null(),
            col("body").like(lit("a_c")),
            col("severity").eq(lit(5i64)),
            col("service").in_list(vec![lit("b")], true),
            Expr::Not(Box::new(col("monotonic"))),
            col("value").gt(lit(1.5)).or(col("severity").eq(lit(5i32))),
        ] {
            let said = said(filter.clone());
            assert!(said.conditions.is_empty() && !said.whole, "{filter} {said:?}");
        }
        let half = said(col("value").gt(lit(1.5)).and(col("severity").eq(lit(5i32))));
        assert_eq!(
            (half.conditions, half.whole),
            (vec!["`severity` = 5".to_owned()], false)
        );
    }

    #[test]
    fn many_patterns_are_said_without_their_words_where_those_do_not_fit() {
        let patterns = |count: usize| {
            let words = (0..7).map(|n| format!(" {n:028}")).collect::<String>();
            let each = (0..count).map(|n| col("body").like(lit(format!("%{words} {n} %"))));
            said(each.reduce(Expr::or).unwrap())
        };
        let (few, many) = (patterns(3), patterns(30));
        assert!(few.conditions[0].contains("hasAllTokens"), "{few:?}");
        assert!(many.conditions.len() == 1 && !many.conditions[0].contains("hasAllTokens"));
        assert_eq!(many.parameters.len(), 30);
        assert!(!few.whole && !many.whole);
    }

    #[test]
    fn what_grows_too_long_for_an_address_is_left_out() {
        let many = (0..2000).map(|n| lit(format!("service number {n}"))).collect();
        let said = say(
            &[col("service").in_list(many, false), col("host").eq(lit("a"))],
            &sluice_wire::events::schema(),
        );
        assert_eq!(
            (said.conditions.len(), said.parameters.len(), said.whole),
            (1, 1, false)
        );
    }
}
