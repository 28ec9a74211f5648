//! One condition on one column or attribute: what it is compared with, checked against what the column holds.

use std::collections::BTreeSet;
use std::ops::Range;

use memchr::memmem::Finder;

use crate::field::{Kind, Source};
use crate::mistake::{Mistake, nearest};

/// What a column is tested for. A row without a value passes none of it.
#[derive(Clone, Debug)]
pub enum Check {
    /// There is a value.
    Exists,
    Bool(bool),
    Number(NumberCheck),
    Text(TextCheck),
    /// The text in small letters.
    LowerText(TextCheck),
    Ids(Vec<Vec<u8>>),
    /// A regular expression is found, by the host.
    Regex(RegexPlace),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Debug)]
pub enum TextCheck {
    Is(Order, String),
    OneOf(BTreeSet<String>),
    Contains(Box<Finder<'static>>),
    StartsWith(String),
    EndsWith(String),
}

/// A comparison with a number. Whole numbers are compared with whole numbers exactly, anything else as doubles.
#[derive(Clone, Copy, Debug)]
pub struct NumberCheck {
    /// The whole numbers that pass; none if they are to be compared as doubles.
    pub whole: Option<(i64, i64)>,
    pub order: Order,
    pub double: f64,
}

/// Where the finds of a regular expression are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegexPlace {
    pub group: usize,
    pub pattern: usize,
}

/// A column and what a value of it has to be: one of the checks.
#[derive(Clone, Debug)]
pub struct Condition {
    pub source: Source,
    pub any_of: Vec<Check>,
}

/// What stands on the right side.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Literal {
    Text(String),
    Int(i64),
    Double(f64),
    Bool(bool),
    Duration(i64),
    Name(String),
}

/// First numbers of the severities; each has four.
const SEVERITIES: [(&str, i64); 6] = [
    ("trace", 1),
    ("debug", 5),
    ("info", 9),
    ("warn", 13),
    ("error", 17),
    ("fatal", 21),
];
const ALSO_SEVERITIES: [(&str, i64); 4] = [("warning", 13), ("err", 17), ("information", 9), ("critical", 21)];

impl Order {
    pub fn holds<T: PartialOrd + ?Sized>(self, left: &T, right: &T) -> bool {
        match self {
            Order::Equal => left == right,
            Order::Less => left < right,
            Order::LessOrEqual => left <= right,
            Order::Greater => left > right,
            Order::GreaterOrEqual => left >= right,
        }
    }
}

impl NumberCheck {
    fn whole(order: Order, (first, last): (i64, i64), double: f64) -> NumberCheck {
        // An empty range where nothing is below or above.
        let empty = (1, 0);
        let whole = match order {
            Order::Equal => (first, last),
            Order::Less => first.checked_sub(1).map_or(empty, |below| (i64::MIN, below)),
            Order::LessOrEqual => (i64::MIN, last),
            Order::Greater => last.checked_add(1).map_or(empty, |above| (above, i64::MAX)),
            Order::GreaterOrEqual => (first, i64::MAX),
        };
        NumberCheck {
            whole: Some(whole),
            order,
            double,
        }
    }

    pub fn holds_int(&self, number: i64) -> bool {
        match self.whole {
            Some((first, last)) => (first..=last).contains(&number),
            None => self.order.holds(&(number as f64), &self.double),
        }
    }

    pub fn holds_double(&self, number: f64) -> bool {
        self.order.holds(&number, &self.double)
    }
}

impl TextCheck {
    pub fn holds(&self, text: &str) -> bool {
        match self {
            TextCheck::Is(Order::Equal, other) => text == other,
            TextCheck::Is(order, other) => order.holds(text, other.as_str()),
            TextCheck::OneOf(texts) => texts.contains(text),
            TextCheck::Contains(part) => part.find(text.as_bytes()).is_some(),
            TextCheck::StartsWith(part) => text.starts_with(part.as_str()),
            TextCheck::EndsWith(part) => text.ends_with(part.as_str()),
        }
    }

    fn texts(&self) -> Vec<&str> {
        match self {
            TextCheck::Is(_, text) | TextCheck::StartsWith(text) | TextCheck::EndsWith(text) => vec![text],
            TextCheck::OneOf(texts) => texts.iter().map(String::as_str).collect(),
            TextCheck::Contains(part) => vec![std::str::from_utf8(part.needle()).unwrap_or_default()],
        }
    }
}

/// Any other text than this would have to be in small letters for the check to pass ever.
pub(crate) fn check_lower(check: &TextCheck, at: &Range<usize>) -> Result<(), Mistake> {
    match check.texts().into_iter().find(|text| text.to_lowercase() != *text) {
        Some(text) => Err(Mistake::new(
            at.clone(),
            format!(
                "lower(…) has no capitals, so this never holds; write \"{}\"",
                text.to_lowercase()
            ),
        )),
        None => Ok(()),
    }
}

/// The check that a value is in this order with a literal.
pub(crate) fn compare(source: &Source, order: Order, literal: &Literal, at: &Range<usize>) -> Result<Check, Mistake> {
    let wrong = |what: String| Err(Mistake::new(at.clone(), what));
    let ordered = order != Order::Equal;
    match (source.kind, literal) {
        (Kind::Severity, Literal::Name(name) | Literal::Text(name)) => match severity(name) {
            Some(first) => Ok(Check::Number(NumberCheck::whole(
                order,
                (first, first + 3),
                first as f64,
            ))),
            None => wrong(match nearest(name, SEVERITIES.map(|(name, _)| name)) {
                Some(meant) => format!("`{name}` is no severity; did you mean `{meant}`?"),
                None => format!("`{name}` is no severity; there are trace, debug, info, warn, error and fatal"),
            }),
        },
        (Kind::Severity | Kind::Int | Kind::Double | Kind::Any, Literal::Int(number)) => Ok(Check::Number(
            NumberCheck::whole(order, (*number, *number), *number as f64),
        )),
        (Kind::Severity | Kind::Int | Kind::Double | Kind::Any, Literal::Double(number)) => {
            Ok(Check::Number(NumberCheck {
                whole: None,
                order,
                double: *number,
            }))
        }
        (Kind::Duration, Literal::Duration(ns)) => Ok(Check::Number(NumberCheck::whole(order, (*ns, *ns), *ns as f64))),
        (Kind::Duration, Literal::Int(0)) => Ok(Check::Number(NumberCheck::whole(order, (0, 0), 0.0))),
        (Kind::Duration, _) => wrong(format!("`{source}` is compared with a duration, such as 250ms or 1.5s")),
        (_, Literal::Duration(ns)) => wrong(format!(
            "a duration is compared with `duration` only; the nanoseconds as a number are {ns}"
        )),
        (Kind::Text | Kind::Any, Literal::Text(text)) => Ok(Check::Text(TextCheck::Is(order, text.clone()))),
        (_, Literal::Name(name)) => wrong(match Source::of_name(name) {
            Ok(_) => format!(
                "`{name}` is a column; columns are compared with texts and numbers. For a text write \"{name}\""
            ),
            Err(_) => format!("write a text in quotes: \"{name}\""),
        }),
        (Kind::Text, _) => wrong(format!("`{source}` is compared with a text, such as \"checkout\"")),
        (Kind::Bool | Kind::Any, Literal::Bool(_)) if ordered => {
            wrong("true and false are compared by == and != only".to_owned())
        }
        (Kind::Bool | Kind::Any, Literal::Bool(value)) => Ok(Check::Bool(*value)),
        (Kind::Bool, _) => wrong(format!("`{source}` is compared with true or false")),
        (Kind::Id(_), _) if ordered => wrong(format!("`{source}` is compared by ==, != and in only")),
        (Kind::Id(bytes), Literal::Text(text)) => match id(text).filter(|id| id.len() == bytes) {
            Some(id) => Ok(Check::Ids(vec![id])),
            None => wrong(format!("`{source}` has {} hexadecimal digits", bytes * 2)),
        },
        (Kind::Id(bytes), _) => wrong(format!(
            "`{source}` is compared with a text of {} hexadecimal digits",
            bytes * 2
        )),
        (Kind::Int | Kind::Double | Kind::Severity, _) => wrong(format!("`{source}` is compared with a number")),
    }
}

/// The checks that a value is one of these.
pub(crate) fn one_of(source: &Source, literals: &[(Literal, Range<usize>)]) -> Result<Vec<Check>, Mistake> {
    let mut checks = Vec::new();
    let (mut texts, mut ids) = (BTreeSet::new(), Vec::new());
    for (literal, at) in literals {
        match compare(source, Order::Equal, literal, at)? {
            Check::Text(TextCheck::Is(_, text)) => {
                texts.insert(text);
            }
            Check::Ids(id) => ids.extend(id),
            other => checks.push(other),
        }
    }
    if !texts.is_empty() {
        checks.push(Check::Text(TextCheck::OneOf(texts)));
    }
    if !ids.is_empty() {
        checks.push(Check::Ids(ids));
    }
    Ok(checks)
}

fn severity(name: &str) -> Option<i64> {
    let mut known = SEVERITIES.into_iter().chain(ALSO_SEVERITIES);
    known
        .find(|(known, _)| name.eq_ignore_ascii_case(known))
        .map(|(_, first)| first)
}

fn id(text: &str) -> Option<Vec<u8>> {
    let digits = text
        .chars()
        .map(|c| c.to_digit(16).map(|digit| digit as u8))
        .collect::<Option<Vec<u8>>>()?;
    let pairs = digits.chunks(2).map(|pair| match pair {
        [high, low] => Some(high << 4 | low),
        _ => None,
    });
    pairs.collect()
}
