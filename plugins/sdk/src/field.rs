//! Fields named by configuration: a core column, `service`, `host` or an attribute, read over a whole batch.

use std::borrow::Cow;
use std::collections::HashMap;

use arrow_array::{Array, ArrayRef};

use crate::row::Value;
use crate::row::columns::{Column, Group, Rare, others};
use crate::{Batch, Text, names};

/// Core columns that a field can be, and whether they hold numbers.
const CORE: [(&str, bool); 14] = [
    ("signal", false),
    ("name", false),
    ("body", false),
    ("severity", true),
    ("severity_text", false),
    ("kind", false),
    ("status", false),
    ("status_message", false),
    ("scope_name", false),
    ("scope_version", false),
    ("trace_state", false),
    ("metric_type", false),
    ("unit", false),
    ("description", false),
];

/// A place in an event: `severity`, `service`, `attrs.http.route`, `resource.k8s.pod.name`, `scope.…`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Field {
    name: String,
    pub(crate) place: Place,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    Core { column: &'static str, number: bool },
    Attribute { group: Group, key: String },
}

impl Field {
    /// The error says what a field is called like.
    pub fn parse(name: &str) -> Result<Field, String> {
        let attribute = |group, key: &str| Place::Attribute {
            group,
            key: key.to_owned(),
        };
        let place = match name {
            "service" => attribute(Group::Resource, "service.name"),
            "host" => attribute(Group::Resource, "host.name"),
            _ => match name.split_once('.') {
                Some((_, "")) => return Err(format!("`{name}`: the key is missing")),
                Some(("attrs", key)) => attribute(Group::Attrs, key),
                Some(("resource", key)) => attribute(Group::Resource, key),
                Some(("scope", key)) => attribute(Group::Scope, key),
                _ => match CORE.iter().find(|(column, _)| *column == name) {
                    Some((column, number)) => Place::Core {
                        column,
                        number: *number,
                    },
                    None => {
                        let core: Vec<&str> = CORE.iter().map(|(column, _)| *column).collect();
                        return Err(format!(
                            "`{name}` is no field; there are attrs.KEY, resource.KEY, scope.KEY, service, host, {}",
                            core.join(", ")
                        ));
                    }
                },
            },
        };
        Ok(Field {
            name: name.to_owned(),
            place,
        })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is an attribute of any group.
    pub fn is_attribute(&self) -> bool {
        matches!(self.place, Place::Attribute { .. })
    }

    /// The columns in which it may be, as patterns: what a plugin needs that reads or sets it. For an attribute these are the columns
    /// of its key of whatever type, and the rare ones: setting it takes away what it was before.
    pub fn columns(&self) -> Vec<String> {
        match &self.place {
            Place::Core { column, .. } => vec![(*column).to_owned()],
            Place::Attribute { group, key } => vec![format!("{}:*:{key}", group.name()), format!("{}:*", group.name())],
        }
    }

    /// The values of all rows. What the batch does not have reads as absent.
    pub fn read<'a>(&self, batch: &'a Batch) -> FieldValues<'a> {
        match &self.place {
            Place::Core { column, .. } => FieldValues {
                rows: batch.rows(),
                columns: vec![Column::of(batch, column)],
                others: Vec::new(),
                rare: None,
            },
            Place::Attribute { group, key } => {
                let column = |kind| Column::of(batch, &format!("{}:{kind}:{key}", group.name()));
                let present = |column: &Column<'_>| !matches!(column, Column::Absent);
                FieldValues {
                    rows: batch.rows(),
                    columns: names::SCALARS.into_iter().map(column).filter(present).collect(),
                    others: others(batch, *group, key)
                        .into_iter()
                        .map(|(_, column)| column)
                        .collect(),
                    rare: Rare::of(batch, *group).map(|rare| (rare, key.clone())),
                }
            }
        }
    }
}

/// The values of a field, row by row.
#[derive(Debug)]
pub struct FieldValues<'a> {
    rows: usize,
    columns: Vec<Column<'a>>,
    /// Columns of other types than scalars.
    others: Vec<&'a ArrayRef>,
    rare: Option<(Rare<'a>, String)>,
}

/// In [`Distinct::of_row`]: the row has no value.
pub const NONE: u32 = u32::MAX;

/// The different texts of a field, and which of them each row has.
#[derive(Clone, Debug, Default)]
pub struct Distinct<'a> {
    pub texts: Vec<Cow<'a, str>>,
    /// Places in `texts`, or [`NONE`].
    pub of_row: Vec<u32>,
}

impl<'a> FieldValues<'a> {
    /// Arrays, objects and bytes read as absent; [`FieldValues::is_present`] sees them.
    pub fn get(&self, row: usize) -> Value<'a> {
        for column in &self.columns {
            let value = column.value(row);
            if value.is_present() {
                return value;
            }
        }
        match &self.rare {
            Some((rare, key)) => rare.value(row, key),
            None => Value::Absent,
        }
    }

    /// Whether the row has a value of whatever type, also of one that is no scalar.
    pub fn is_present(&self, row: usize) -> bool {
        self.others.iter().any(|column| column.is_valid(row))
            || self.columns.iter().any(|column| column.value(row).is_present())
            || self.rare.as_ref().is_some_and(|(rare, key)| rare.has(row, key))
    }

    /// Whether no row can have a value.
    pub fn is_empty(&self) -> bool {
        self.rare.is_none()
            && self.others.is_empty()
            && self.columns.iter().all(|column| matches!(column, Column::Absent))
    }

    /// Values and the place of each row's among them, or [`NONE`]: what [`Draft::assign`](crate::Draft::assign) takes. A dictionary is
    /// taken as it is.
    pub fn values(&self) -> (Vec<Value<'a>>, Vec<u32>) {
        if let ([Column::Text(Text::Dict16(..) | Text::Dict32(..))], None) = (&self.columns[..], &self.rare) {
            let Distinct { texts, of_row } = self.distinct();
            return (texts.into_iter().map(Value::from).collect(), of_row);
        }
        let values: Vec<Value<'a>> = (0..self.rows).map(|row| self.get(row)).collect();
        let place = |(row, value): (usize, &Value<'_>)| if value.is_present() { row as u32 } else { NONE };
        let of_row = values.iter().enumerate().map(place).collect();
        (values, of_row)
    }

    /// The different texts. A dictionary is taken as it is, without a look at the rows' texts.
    pub fn distinct(&self) -> Distinct<'a> {
        if self.is_empty() {
            return Distinct {
                texts: Vec::new(),
                of_row: vec![NONE; self.rows],
            };
        }
        match (&self.columns[..], &self.rare) {
            ([Column::Text(text @ (Text::Dict16(_, values) | Text::Dict32(_, values)))], None) => Distinct {
                texts: (0..values.len())
                    .map(|value| Cow::Borrowed(values.value(value)))
                    .collect(),
                of_row: (0..self.rows)
                    .map(|row| text.value_index(row).map_or(NONE, |value| value as u32))
                    .collect(),
            },
            ([Column::Text(text)], None) => distinct(self.rows, |row| text.get(row).map(Cow::Borrowed)),
            _ => distinct(self.rows, |row| {
                let value = self.get(row);
                value.is_present().then(|| value.text())
            }),
        }
    }
}

fn distinct<'a>(rows: usize, text: impl Fn(usize) -> Option<Cow<'a, str>>) -> Distinct<'a> {
    let mut places: HashMap<Cow<'a, str>, u32> = HashMap::new();
    let mut texts = Vec::new();
    let mut of_row = Vec::with_capacity(rows);
    for row in 0..rows {
        of_row.push(match text(row) {
            None => NONE,
            Some(text) => match places.get(&text) {
                Some(place) => *place,
                None => {
                    let place = texts.len() as u32;
                    texts.push(text.clone());
                    places.insert(text, place);
                    place
                }
            },
        });
    }
    Distinct { texts, of_row }
}
