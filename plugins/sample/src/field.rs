//! Fields by the names that operators know, and rules about their values.

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int32Type, Int64Type};
use arrow_array::{Array, ArrayRef};
use arrow_buffer::BooleanBuffer;
use arrow_schema::DataType;
use sluice_plugin::{Batch, Ints, Text, bits};

use crate::config::{Scalar, When};
use crate::pattern;
use crate::rows;

/// Types of attribute columns that are looked at.
const TYPES: [&str; 4] = ["s", "i", "d", "b"];
/// Core columns that can be named.
const CORE: [&str; 7] = ["name", "body", "status", "severity", "duration_ns", "time", "trace_id"];

/// A field: the columns that it may be in, one of each type.
#[derive(Clone, Debug)]
pub(crate) struct Field {
    columns: Vec<String>,
}

impl Field {
    pub(crate) fn parse(name: &str) -> Result<Field, String> {
        let attribute = |group: &str, key: &str| Field {
            columns: TYPES.iter().map(|kind| format!("{group}:{kind}:{key}")).collect(),
        };
        if let Some((group @ ("attrs" | "resource"), key)) = name.split_once('.').filter(|(_, key)| !key.is_empty()) {
            return Ok(attribute(group, key));
        }
        match name {
            "service" => Ok(attribute("resource", "service.name")),
            "host" => Ok(attribute("resource", "host.name")),
            core if CORE.contains(&core) => Ok(Field {
                columns: vec![core.to_owned()],
            }),
            _ => Err(format!(
                "there is no field `{name}`; there are attrs.<key>, resource.<key>, service, host, {}",
                CORE.join(", ")
            )),
        }
    }

    /// Names of the columns.
    pub(crate) fn names(&self) -> impl Iterator<Item = String> {
        self.columns.iter().cloned()
    }

    fn columns<'a>(&'a self, batch: &'a Batch) -> impl Iterator<Item = &'a ArrayRef> {
        self.columns.iter().filter_map(|name| batch.column(name))
    }

    /// Mixes the values of the rows into numbers, the same on every node whatever the form of the column.
    pub(crate) fn hash_into(&self, batch: &Batch, hashes: &mut [u64]) {
        for column in self.columns(batch) {
            let rows = hashes.len();
            let values: Vec<u64> = match Text::of(column.as_ref()) {
                Some(text) => rows::map_text(&text, rows, 0, |text| pattern::hash(text.as_bytes())),
                None => (0..rows).map(|row| number_bits(column, row)).collect(),
            };
            for (hash, value) in hashes.iter_mut().zip(values) {
                *hash = pattern::mix(*hash, value);
            }
        }
    }
}

fn number_bits(column: &ArrayRef, row: usize) -> u64 {
    if column.is_null(row) {
        return 0;
    }
    match column.data_type() {
        DataType::Int32 => column.as_primitive::<Int32Type>().value(row) as u64,
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row) as u64,
        DataType::Float64 => column.as_primitive::<Float64Type>().value(row).to_bits(),
        DataType::Boolean => u64::from(column.as_boolean().value(row)) + 1,
        DataType::FixedSizeBinary(_) => pattern::hash(column.as_fixed_size_binary().value(row)),
        _ => 0,
    }
}

/// A [`When`] that was checked.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    field: Field,
    test: Test,
}

#[derive(Clone, Debug)]
enum Test {
    Exists,
    AnyOf(Vec<Scalar>),
    StartsWith(String),
    Contains(String),
    AtLeast(f64),
}

impl Rule {
    pub(crate) fn new(when: &When) -> Result<Rule, String> {
        let mut tests = Vec::new();
        tests.extend(when.equals.clone().map(|value| Test::AnyOf(vec![value])));
        tests.extend(when.any_of.clone().map(Test::AnyOf));
        tests.extend(when.starts_with.clone().map(Test::StartsWith));
        tests.extend(when.contains.clone().map(Test::Contains));
        tests.extend(when.at_least.map(Test::AtLeast));
        if tests.len() > 1 {
            return Err(format!(
                "field `{}` has {} conditions; a rule has one of equals, any_of, starts_with, contains and at_least",
                when.field,
                tests.len()
            ));
        }
        Ok(Rule {
            field: Field::parse(&when.field)?,
            test: tests.pop().unwrap_or(Test::Exists),
        })
    }

    pub(crate) fn reads(&self) -> impl Iterator<Item = String> {
        self.field.names()
    }

    pub(crate) fn rows(&self, batch: &Batch) -> BooleanBuffer {
        let none = BooleanBuffer::new_unset(batch.rows());
        let columns = self.field.columns(batch);
        columns.fold(none, |found, column| rows::or(found, &self.rows_of(column)))
    }

    fn rows_of(&self, column: &ArrayRef) -> BooleanBuffer {
        let rows = column.len();
        let nothing = || BooleanBuffer::new_unset(rows);
        if let Test::Exists = self.test {
            return rows::present(column.as_ref());
        }
        if let Some(text) = Text::of(column.as_ref()) {
            return bits::where_text(&text, rows, |text| self.holds_for_text(text));
        }
        match column.data_type() {
            DataType::Int32 => rows::where_int(&Ints::Int32(column.as_primitive()), rows, |n| {
                self.holds_for_number(n as f64)
            }),
            DataType::Int64 => rows::where_int(&Ints::Int64(column.as_primitive()), rows, |n| {
                self.holds_for_number(n as f64)
            }),
            DataType::Float64 => {
                let doubles = column.as_primitive::<Float64Type>();
                let yes = bits::of(doubles.values(), |number| self.holds_for_number(number));
                bits::valid(yes, doubles.nulls())
            }
            DataType::Boolean => match &self.test {
                Test::AnyOf(values) => [true, false]
                    .into_iter()
                    .filter(|wanted| values.contains(&Scalar::Bool(*wanted)))
                    .fold(nothing(), |found, wanted| {
                        &found | &rows::where_bool(column.as_boolean(), wanted)
                    }),
                _ => nothing(),
            },
            _ => nothing(),
        }
    }

    /// Numbers and booleans that were sent as text count as what they look like.
    fn holds_for_text(&self, text: &str) -> bool {
        match &self.test {
            Test::Exists => true,
            Test::AnyOf(values) => values.iter().any(|value| match value {
                Scalar::Text(wanted) => wanted == text,
                Scalar::Number(wanted) => text.parse() == Ok(*wanted),
                Scalar::Bool(wanted) => text.parse() == Ok(*wanted),
            }),
            Test::StartsWith(wanted) => text.starts_with(wanted.as_str()),
            Test::Contains(wanted) => text.contains(wanted.as_str()),
            Test::AtLeast(least) => text.parse::<f64>().is_ok_and(|number| number >= *least),
        }
    }

    fn holds_for_number(&self, number: f64) -> bool {
        match &self.test {
            Test::AnyOf(values) => values.contains(&Scalar::Number(number)),
            Test::AtLeast(least) => number >= *least,
            _ => false,
        }
    }
}
