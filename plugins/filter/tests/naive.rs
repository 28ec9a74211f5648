//! The language against a second reading of it: expressions are made with their meaning, row by row.
#![allow(clippy::unwrap_used)]

use filter::Filter;
use proptest::prelude::*;
use sluice_plugin::serde_json::{Map, Value};
use sluice_plugin::testing::{Layout, Tester, json};

#[derive(Clone, Debug)]
enum Naive {
    Not(Box<Naive>),
    And(Vec<Naive>),
    Or(Vec<Naive>),
    Compare(&'static str, &'static str, Value),
    /// Severities by name, `<` and the like.
    Severity(&'static str, &'static str),
    Duration(&'static str, u32),
    In(&'static str, Vec<Value>, bool),
    Part(&'static str, &'static str, String, bool),
    Lower(&'static str, String),
    Regex(&'static str, &'static str, &'static str),
    Exists(&'static str),
    Bare(&'static str),
}

const SEVERITIES: [&str; 6] = ["trace", "debug", "info", "warn", "error", "fatal"];

impl Naive {
    fn text(&self) -> String {
        let join = |parts: &[Naive], word| {
            parts
                .iter()
                .map(|part| format!("({})", part.text()))
                .collect::<Vec<_>>()
                .join(word)
        };
        match self {
            Naive::Not(inner) => format!("not ({})", inner.text()),
            Naive::And(parts) => join(parts, " and "),
            Naive::Or(parts) => join(parts, " || "),
            Naive::Compare(field, sign, value) => format!("{field} {sign} {value}"),
            Naive::Severity(sign, name) => format!("severity {sign} {name}"),
            Naive::Duration(sign, ms) => format!("duration {sign} {ms}ms"),
            Naive::In(field, values, negated) => {
                let values = values.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                format!("{field} {}in ({values})", if *negated { "not " } else { "" })
            }
            Naive::Part(field, word, part, negated) => {
                format!("{field} {}{word} {}", if *negated { "not " } else { "" }, json!(part))
            }
            Naive::Lower(field, text) => format!("lower({field}) == {}", json!(text)),
            Naive::Regex(field, sign, pattern) => format!("{field} {sign} '{pattern}'"),
            Naive::Exists(field) => format!("exists({field})"),
            Naive::Bare(field) => (*field).to_owned(),
        }
    }

    fn holds(&self, row: &Map<String, Value>) -> bool {
        match self {
            Naive::Not(inner) => !inner.holds(row),
            Naive::And(parts) => parts.iter().all(|part| part.holds(row)),
            Naive::Or(parts) => parts.iter().any(|part| part.holds(row)),
            Naive::Compare(field, "!=", value) => !get(row, field).is_some_and(|own| ordered("==", &own, value)),
            Naive::Compare(field, sign, value) => get(row, field).is_some_and(|own| ordered(sign, &own, value)),
            Naive::Severity(sign, name) => {
                let of = |number: i64| (number - 1) / 4;
                let place = SEVERITIES.iter().position(|known| known == name).unwrap() as i64;
                let own = get(row, "severity").map(|own| of(own.as_i64().unwrap()));
                match *sign {
                    "!=" => own != Some(place),
                    sign => own.is_some_and(|own| ordered(sign, &json!(own), &json!(place))),
                }
            }
            Naive::Duration(sign, ms) => {
                let ns = json!(i64::from(*ms) * 1_000_000);
                let own = get(row, "duration_ns");
                match *sign {
                    "!=" => own != Some(ns),
                    sign => own.is_some_and(|own| ordered(sign, &own, &ns)),
                }
            }
            Naive::In(field, values, negated) => {
                let is = get(row, field).is_some_and(|own| values.iter().any(|value| ordered("==", &own, value)));
                is != *negated
            }
            Naive::Part(field, word, part, negated) => {
                let own = get(row, field);
                let own = own.as_ref().and_then(Value::as_str);
                let is = own.is_some_and(|own| match *word {
                    "contains" => own.contains(part),
                    "starts_with" => own.starts_with(part),
                    _ => own.ends_with(part),
                });
                is != *negated
            }
            Naive::Lower(field, text) => {
                get(row, field).is_some_and(|own| own.as_str().is_some_and(|own| own.to_lowercase() == *text))
            }
            Naive::Regex(field, sign, pattern) => {
                let mut pattern = regex::RegexBuilder::new(pattern);
                let regex = pattern.case_insensitive(sign.ends_with('*')).build().unwrap();
                let is = get(row, field).is_some_and(|own| own.as_str().is_some_and(|own| regex.is_match(own)));
                is != sign.starts_with('!')
            }
            Naive::Exists(field) => get(row, field).is_some(),
            Naive::Bare(field) => get(row, field) == Some(json!(true)),
        }
    }
}

fn get(row: &Map<String, Value>, field: &str) -> Option<Value> {
    let keyed = |group: &str, key: &str| {
        let groups = [group.to_owned(), format!("{group}:*")];
        groups.iter().find_map(|group| row.get(group)?.get(key)).cloned()
    };
    match field {
        "value" => row.get("value").or(row.get("value_int")).cloned(),
        "attrs.a" => keyed("attrs", "a"),
        "attrs[\"b c\"]" => keyed("attrs", "b c"),
        "resource.a" => keyed("resource", "a"),
        core => row.get(core).cloned(),
    }
}

fn ordered(sign: &str, own: &Value, other: &Value) -> bool {
    use std::cmp::Ordering;
    let order = match (own, other) {
        (Value::String(own), Value::String(other)) => Some(own.as_bytes().cmp(other.as_bytes())),
        (Value::Bool(own), Value::Bool(other)) => (own == other).then_some(Ordering::Equal),
        (Value::Number(own), Value::Number(other)) => match (own.as_i64(), other.as_i64()) {
            (Some(own), Some(other)) => Some(own.cmp(&other)),
            _ => own.as_f64().unwrap().partial_cmp(&other.as_f64().unwrap()),
        },
        _ => None,
    };
    order.is_some_and(|order| match sign {
        "==" => order == Ordering::Equal,
        "<" => order == Ordering::Less,
        "<=" => order != Ordering::Greater,
        ">" => order == Ordering::Greater,
        _ => order != Ordering::Less,
    })
}

const ATTRIBUTES: [&str; 3] = ["attrs.a", "attrs[\"b c\"]", "resource.a"];
const TEXTS: [&str; 3] = ["body", "status", "service"];

fn text() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["", "a", "ab", "A", "ba", "É", "é", "error", "\"q\"", "x\ny"]).prop_map(str::to_owned)
}

fn number() -> impl Strategy<Value = Value> {
    prop_oneof![
        (-3..4i64).prop_map(|n| json!(n)),
        Just(json!(i64::MAX)),
        Just(json!(i64::MIN)),
        (-3..4i32).prop_map(|n| json!(f64::from(n) / 2.0)),
    ]
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        text().prop_map(Value::from),
        number(),
        any::<bool>().prop_map(Value::from)
    ]
}

fn sign() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["==", "!=", "<", "<=", ">", ">="])
}

fn field(fields: &[&'static str]) -> impl Strategy<Value = &'static str> + use<> {
    prop::sample::select([&ATTRIBUTES, fields].concat())
}

fn naive() -> impl Strategy<Value = Naive> {
    let unordered = |value: &Value| value.is_boolean();
    let leaf = prop_oneof![
        2 => (prop::sample::select(ATTRIBUTES.to_vec()), sign(), scalar())
            .prop_map(move |(f, s, v)| Naive::Compare(f, if unordered(&v) { "==" } else { s }, v)),
        1 => (field(&TEXTS), sign(), text()).prop_map(|(f, s, t)| Naive::Compare(f, s, t.into())),
        1 => (field(&["value", "severity"]), sign(), number()).prop_map(|(f, s, n)| Naive::Compare(f, s, n)),
        1 => (sign(), prop::sample::select(SEVERITIES.to_vec())).prop_map(|(s, name)| Naive::Severity(s, name)),
        1 => (sign(), 0..3u32).prop_map(|(s, ms)| Naive::Duration(s, ms)),
        1 => (prop::sample::select(ATTRIBUTES.to_vec()), prop::collection::vec(scalar(), 1..5), any::<bool>())
            .prop_map(|(f, v, n)| Naive::In(f, v, n)),
        1 => (field(&TEXTS), prop::sample::select(vec!["contains", "starts_with", "ends_with"]), text(), any::<bool>())
            .prop_map(|(f, w, t, n)| Naive::Part(f, w, t, n)),
        1 => (field(&TEXTS), text()).prop_map(|(f, t)| Naive::Lower(f, t.to_lowercase())),
        2 => (field(&TEXTS), prop::sample::select(vec!["~", "!~", "~*", "!~*"]),
            prop::sample::select(vec!["a", "^a", "b$", "", "[é]", r"\bab?\b", "x.y", "(?s)x.y", "a|b", "q"]))
            .prop_map(|(f, s, p)| Naive::Regex(f, s, p)),
        1 => field(&["body", "severity", "value", "service", "status", "duration_ns"]).prop_map(Naive::Exists),
        1 => prop::sample::select(ATTRIBUTES.to_vec()).prop_map(Naive::Bare),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            inner.clone().prop_map(|inner| Naive::Not(Box::new(inner))),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Naive::And),
            prop::collection::vec(inner, 2..4).prop_map(Naive::Or),
        ]
    })
}

fn row() -> impl Strategy<Value = Map<String, Value>> {
    let optional = |values: Vec<Value>| prop_oneof![Just(None), prop::sample::select(values).prop_map(Some)];
    let scalars = || prop_oneof![Just(None), scalar().prop_map(Some)];
    (
        prop_oneof![Just(None), text().prop_map(|t| Some(Value::from(t)))],
        prop_oneof![Just(None), (1..25i64).prop_map(|n| Some(json!(n)))],
        optional(vec![json!("ok"), json!("error")]),
        optional(vec![json!("a"), json!("ab"), json!("É")]),
        optional(vec![json!(0), json!(1_000_000), json!(1_000_001), json!(-5)]),
        optional(vec![json!(0.5), json!(1.0), json!(-1.5)]),
        (scalars(), scalars(), scalars(), any::<bool>(), any::<bool>()),
    )
        .prop_map(
            |(body, severity, status, service, duration, value, (a, b, resource, rare, whole))| {
                let mut row = Map::new();
                let mut put = |key: &str, value: Option<Value>| value.map(|value| row.insert(key.to_owned(), value));
                put("body", body);
                put("severity", severity);
                put("status", status);
                put("service", service);
                put("duration_ns", duration);
                match value {
                    Some(value) if whole => put("value_int", Some(json!(value.as_f64().unwrap() as i64))),
                    value => put("value", value),
                };
                let object = |key: &str, value: Option<Value>| {
                    value.map(|value| Value::Object(Map::from_iter([(key.to_owned(), value)])))
                };
                put(if rare { "attrs:*" } else { "attrs" }, object("a", a));
                put(if rare { "attrs" } else { "attrs:*" }, object("b c", b));
                put("resource", object("a", resource));
                row
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn rows_stay_for_which_the_expression_holds(expression in naive(), rows in prop::collection::vec(row(), 0..10)) {
        let text = expression.text();
        let config = json!({"keep": text});
        let mut filter = Tester::<Filter>::new(config).map_err(|error| TestCaseError::fail(format!("{text}\n{error}")))?;
        let named: Vec<Value> = rows.iter().enumerate().map(|(number, row)| {
            let mut row = row.clone();
            row.insert("name".to_owned(), json!(number.to_string()));
            Value::Object(row)
        }).collect();
        let expected: Vec<String> = (0..rows.len()).filter(|number| expression.holds(&rows[*number])).map(|n| n.to_string()).collect();
        for layout in [Layout::Plain, Layout::Dictionary] {
            filter.layout = layout;
            let after = filter.run(Value::Array(named.clone()));
            prop_assert_eq!(&after.error, &None);
            let kept: Vec<String> = after.rows.iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect();
            prop_assert_eq!(&kept, &expected, "{}\n{:?}", text, rows);
            prop_assert_eq!(after.drops.values().sum::<u64>() as usize, rows.len() - expected.len());
        }
    }
}
