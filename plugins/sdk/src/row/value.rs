//! The value of an attribute.

use std::borrow::Cow;

/// A scalar, or nothing. Compares with texts and numbers: `row.attr("http.route") == "/login"`,
/// `row.attr("http.response.status_code") >= 500`. What is absent is neither equal to a text or number nor less nor greater; a number that
/// was sent as text is compared as a number only by way of [`Value::as_i64`] and [`Value::as_f64`].
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Value<'a> {
    #[default]
    Absent,
    Text(Cow<'a, str>),
    Int(i64),
    Double(f64),
    Bool(bool),
}

impl<'a> Value<'a> {
    pub fn is_absent(&self) -> bool {
        matches!(self, Value::Absent)
    }

    pub fn is_present(&self) -> bool {
        !self.is_absent()
    }

    /// The text of any scalar; empty if there is none.
    pub fn text(self) -> Cow<'a, str> {
        match self {
            Value::Absent => Cow::Borrowed(""),
            Value::Text(text) => text,
            Value::Int(number) => Cow::Owned(number.to_string()),
            Value::Double(number) => Cow::Owned(double_text(number)),
            Value::Bool(true) => Cow::Borrowed("true"),
            Value::Bool(false) => Cow::Borrowed("false"),
        }
    }

    /// A text as it was sent; nothing for other types.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// An int, a double without a fraction, or a text that is one.
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Value::Int(number) => Some(*number),
            Value::Double(number) if number.fract() == 0.0 && number.abs() < 9.2e18 => Some(*number as i64),
            Value::Text(text) => text.parse().ok(),
            _ => None,
        }
    }

    /// Any number, or a text that is one.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Value::Int(number) => Some(*number as f64),
            Value::Double(number) => Some(*number),
            Value::Text(text) => text.parse().ok(),
            _ => None,
        }
    }

    /// A boolean, or the text `true` or `false`.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(value) => Some(*value),
            Value::Text(text) => text.parse().ok(),
            _ => None,
        }
    }

    /// Whether the text of the value contains this one.
    pub fn contains(&self, part: &str) -> bool {
        match self {
            Value::Text(text) => text.contains(part),
            Value::Absent => false,
            other => other.clone().text().contains(part),
        }
    }
}

/// The text of a double in the tables: always with a point or an exponent.
pub(crate) fn double_text(number: f64) -> String {
    if number.is_nan() {
        "NaN".to_owned()
    } else if number.is_infinite() {
        if number > 0.0 { "Infinity" } else { "-Infinity" }.to_owned()
    } else {
        format!("{number:?}")
    }
}

impl PartialEq<str> for Value<'_> {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == Some(other)
    }
}

impl PartialEq<&str> for Value<'_> {
    fn eq(&self, other: &&str) -> bool {
        self == *other
    }
}

impl PartialEq<String> for Value<'_> {
    fn eq(&self, other: &String) -> bool {
        self == other.as_str()
    }
}

impl PartialEq<bool> for Value<'_> {
    fn eq(&self, other: &bool) -> bool {
        matches!(self, Value::Bool(value) if value == other)
    }
}

impl PartialEq<i64> for Value<'_> {
    fn eq(&self, other: &i64) -> bool {
        self.partial_cmp(other) == Some(std::cmp::Ordering::Equal)
    }
}

impl PartialOrd<i64> for Value<'_> {
    fn partial_cmp(&self, other: &i64) -> Option<std::cmp::Ordering> {
        match self {
            Value::Int(number) => Some(number.cmp(other)),
            Value::Double(number) => number.partial_cmp(&(*other as f64)),
            _ => None,
        }
    }
}

impl PartialEq<f64> for Value<'_> {
    fn eq(&self, other: &f64) -> bool {
        self.partial_cmp(other) == Some(std::cmp::Ordering::Equal)
    }
}

impl PartialOrd<f64> for Value<'_> {
    fn partial_cmp(&self, other: &f64) -> Option<std::cmp::Ordering> {
        match self {
            Value::Int(number) => (*number as f64).partial_cmp(other),
            Value::Double(number) => number.partial_cmp(other),
            _ => None,
        }
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Value::Text(Cow::Borrowed(text))
    }
}

impl<'a> From<&'a String> for Value<'a> {
    fn from(text: &'a String) -> Self {
        Value::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Value::Text(Cow::Owned(text))
    }
}

impl<'a> From<Cow<'a, str>> for Value<'a> {
    fn from(text: Cow<'a, str>) -> Self {
        Value::Text(text)
    }
}

impl From<i64> for Value<'_> {
    fn from(number: i64) -> Self {
        Value::Int(number)
    }
}

impl From<i32> for Value<'_> {
    fn from(number: i32) -> Self {
        Value::Int(number.into())
    }
}

impl From<f64> for Value<'_> {
    fn from(number: f64) -> Self {
        Value::Double(number)
    }
}

impl From<bool> for Value<'_> {
    fn from(value: bool) -> Self {
        Value::Bool(value)
    }
}
