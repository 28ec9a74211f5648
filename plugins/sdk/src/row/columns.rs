//! The columns of a batch as rows read them: each found once per batch, when the first row asks for it.

use std::cell::{OnceCell, RefCell};

use arrow_array::cast::AsArray;
use arrow_array::types::Float64Type;
use arrow_array::{Array, ArrayRef, BooleanArray, FixedSizeBinaryArray, Float64Array, ListArray, StringArray};
use arrow_schema::DataType;

use super::Value;
use crate::{Batch, Ints, Text, names};

/// Core columns that rows have accessors for; the number is the place in [`Columns`].
#[derive(Clone, Copy, Debug)]
pub(crate) enum Core {
    Signal,
    Time,
    ObservedTime,
    StartTime,
    Duration,
    Name,
    Body,
    BodyType,
    Severity,
    SeverityText,
    Kind,
    Status,
    StatusMessage,
    TraceId,
    SpanId,
    ParentSpanId,
    TraceState,
    ScopeName,
    ScopeVersion,
    MetricType,
    Unit,
    Value,
    ValueInt,
    Count,
    Sum,
    Weight,
}

const CORE: [&str; Core::Weight as usize + 1] = [
    "signal",
    "time",
    "observed_time",
    "start_time",
    "duration_ns",
    "name",
    "body",
    "body_type",
    "severity",
    "severity_text",
    "kind",
    "status",
    "status_message",
    "trace_id",
    "span_id",
    "parent_span_id",
    "trace_state",
    "scope_name",
    "scope_version",
    "metric_type",
    "unit",
    "value",
    "value_int",
    "count",
    "sum",
    "weight",
];

/// Groups of attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Group {
    Attrs,
    Resource,
    Scope,
}

impl Group {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Group::Attrs => "attrs",
            Group::Resource => "resource",
            Group::Scope => "scope",
        }
    }
}

/// One column, by how rows read it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Column<'a> {
    Absent,
    Text(Text<'a>),
    Ints(Ints<'a>),
    Doubles(&'a Float64Array),
    Bools(&'a BooleanArray),
    Ids(&'a FixedSizeBinaryArray),
}

impl<'a> Column<'a> {
    pub(crate) fn of(batch: &'a Batch, name: &str) -> Column<'a> {
        let Some(column) = batch.column(name) else {
            return Column::Absent;
        };
        match column.data_type() {
            DataType::Int32 | DataType::Int64 | DataType::UInt32 | DataType::UInt64 => {
                batch.ints(name).map_or(Column::Absent, Column::Ints)
            }
            DataType::Float64 => column
                .as_primitive_opt::<Float64Type>()
                .map_or(Column::Absent, Column::Doubles),
            DataType::Boolean => column.as_boolean_opt().map_or(Column::Absent, Column::Bools),
            DataType::FixedSizeBinary(_) => column.as_fixed_size_binary_opt().map_or(Column::Absent, Column::Ids),
            _ => Text::of(column.as_ref()).map_or(Column::Absent, Column::Text),
        }
    }

    pub(crate) fn text(&self, row: usize) -> Option<&'a str> {
        match self {
            Column::Text(text) => text.get(row),
            _ => None,
        }
    }

    pub(crate) fn int(&self, row: usize) -> Option<i64> {
        match self {
            Column::Ints(ints) => ints.get(row),
            _ => None,
        }
    }

    pub(crate) fn double(&self, row: usize) -> Option<f64> {
        match self {
            Column::Doubles(doubles) => doubles.is_valid(row).then(|| doubles.value(row)),
            _ => None,
        }
    }

    pub(crate) fn id(&self, row: usize) -> Option<&'a [u8]> {
        match self {
            Column::Ids(ids) => ids.is_valid(row).then(|| ids.value(row)),
            _ => None,
        }
    }

    pub(crate) fn value(&self, row: usize) -> Value<'a> {
        match self {
            Column::Absent => Value::Absent,
            Column::Text(text) => text.get(row).map_or(Value::Absent, Value::from),
            Column::Ints(ints) => ints.get(row).map_or(Value::Absent, Value::Int),
            Column::Doubles(_) => self.double(row).map_or(Value::Absent, Value::Double),
            Column::Bools(bools) if bools.is_valid(row) => Value::Bool(bools.value(row)),
            Column::Bools(_) => Value::Absent,
            Column::Ids(_) => self.id(row).map_or(Value::Absent, |id| Value::from(hex(id))),
        }
    }
}

/// Lower-case hexadecimal text.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble & 15)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect()
}

/// The rare attributes of a group: lists of entries with key, type and text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rare<'a> {
    lists: &'a ListArray,
    keys: &'a StringArray,
    types: &'a StringArray,
    texts: &'a StringArray,
}

impl<'a> Rare<'a> {
    pub(crate) fn of(batch: &'a Batch, group: Group) -> Option<Rare<'a>> {
        let lists = batch.column(&format!("{}:*", group.name()))?.as_list_opt::<i32>()?;
        let entries = lists.values().as_struct_opt()?;
        let texts = |name: &str| entries.column_by_name(name)?.as_string_opt::<i32>();
        Some(Rare {
            lists,
            keys: texts("key")?,
            types: texts("type")?,
            texts: texts("text")?,
        })
    }

    /// The entries of a row with this key.
    fn entries(&self, row: usize, key: &str) -> impl Iterator<Item = usize> {
        let offsets = self.lists.value_offsets();
        let entries = match self.lists.is_valid(row) {
            true => offsets[row] as usize..offsets[row + 1] as usize,
            false => 0..0,
        };
        entries.filter(move |entry| self.keys.value(*entry) == key)
    }

    pub(crate) fn has(&self, row: usize, key: &str) -> bool {
        self.entries(row, key).next().is_some()
    }

    pub(crate) fn value(&self, row: usize, key: &str) -> Value<'a> {
        for entry in self.entries(row, key) {
            let text = self.texts.value(entry);
            return match self.types.value(entry) {
                "string" => Value::from(text),
                "int" => text.parse().map_or(Value::Absent, Value::Int),
                "double" => text.parse().map_or(Value::Absent, Value::Double),
                "bool" => text.parse().map_or(Value::Absent, Value::Bool),
                _ => continue,
            };
        }
        Value::Absent
    }
}

/// Where the values of one attribute are.
#[derive(Debug)]
pub(crate) struct Attribute<'a> {
    group: Group,
    key: String,
    columns: Vec<(char, Column<'a>)>,
    /// Columns of other types than scalars.
    others: Vec<(char, &'a ArrayRef)>,
    rare: Option<Rare<'a>>,
}

impl<'a> Attribute<'a> {
    fn value(&self, row: usize) -> Value<'a> {
        for (_, column) in &self.columns {
            let value = column.value(row);
            if value.is_present() {
                return value;
            }
        }
        self.rare.map_or(Value::Absent, |rare| rare.value(row, &self.key))
    }
}

/// The columns of an attribute that hold no scalars.
pub(crate) fn others<'a>(batch: &'a Batch, group: Group, key: &str) -> Vec<(char, &'a ArrayRef)> {
    let column = |kind| Some((kind, batch.column(&format!("{}:{kind}:{key}", group.name()))?));
    names::OTHERS.into_iter().filter_map(column).collect()
}

/// What the rows of one batch share.
#[derive(Debug)]
pub(super) struct Columns<'a> {
    batch: &'a Batch,
    reads: &'a [String],
    core: [OnceCell<Column<'a>>; CORE.len()],
    attributes: RefCell<Vec<Attribute<'a>>>,
    others: RefCell<Vec<(String, Column<'a>)>>,
    mistake: RefCell<Option<String>>,
}

impl<'a> Columns<'a> {
    pub(crate) fn new(batch: &'a Batch, reads: &'a [String]) -> Self {
        Columns {
            batch,
            reads,
            core: [const { OnceCell::new() }; CORE.len()],
            attributes: RefCell::default(),
            others: RefCell::default(),
            mistake: RefCell::default(),
        }
    }

    /// What the function asked for although it is not declared. It would read as null for ever.
    pub(crate) fn mistake(&self) -> Option<String> {
        self.mistake.borrow().clone()
    }

    #[inline]
    pub(crate) fn core(&self, core: Core) -> &Column<'a> {
        self.core[core as usize].get_or_init(|| self.find(CORE[core as usize]))
    }

    pub(crate) fn other(&self, name: &str) -> Column<'a> {
        if let Some((_, column)) = self.others.borrow().iter().find(|(known, _)| known == name) {
            return *column;
        }
        let column = self.find(name);
        self.others.borrow_mut().push((name.to_owned(), column));
        column
    }

    pub(crate) fn attribute(&self, group: Group, key: &str, row: usize) -> Value<'a> {
        let found = |attribute: &&Attribute<'a>| attribute.group == group && attribute.key == key;
        if let Some(attribute) = self.attributes.borrow().iter().find(found) {
            return attribute.value(row);
        }
        let attribute = self.find_attribute(group, key);
        let value = attribute.value(row);
        self.attributes.borrow_mut().push(attribute);
        value
    }

    /// Under which types an attribute of a row has a value, and whether it is among the rare ones.
    pub(crate) fn places(&self, group: Group, key: &str, row: usize) -> ([Option<char>; 7], bool) {
        // Finds the columns, if no row has asked for them yet.
        self.attribute(group, key, row);
        let attributes = self.attributes.borrow();
        let found = attributes.iter().find(|a| a.group == group && a.key == key);
        let mut present = [None; 7];
        let Some(attribute) = found else {
            return (present, false);
        };
        let scalars = attribute
            .columns
            .iter()
            .filter(|(_, column)| column.value(row).is_present());
        let others = attribute.others.iter().filter(|(_, column)| column.is_valid(row));
        let kinds = scalars.map(|(kind, _)| *kind).chain(others.map(|(kind, _)| *kind));
        for (place, kind) in present.iter_mut().zip(kinds) {
            *place = Some(kind);
        }
        let rare = attribute.rare.is_some_and(|rare| rare.has(row, key));
        (present, rare)
    }

    fn find_attribute(&self, group: Group, key: &str) -> Attribute<'a> {
        let name = group.name();
        let mut columns = Vec::new();
        let mut declared = false;
        for kind in names::SCALARS {
            let column = format!("{name}:{kind}:{key}");
            declared |= names::declared(self.reads, &column);
            match Column::of(self.batch, &column) {
                Column::Absent => {}
                present => columns.push((kind, present)),
            }
        }
        if !declared {
            self.undeclared(&format!("{name}.{key}"));
        }
        Attribute {
            group,
            key: key.to_owned(),
            columns,
            others: others(self.batch, group, key),
            rare: Rare::of(self.batch, group),
        }
    }

    fn find(&self, name: &str) -> Column<'a> {
        if !names::declared(self.reads, name) {
            self.undeclared(name);
        }
        Column::of(self.batch, name)
    }

    fn undeclared(&self, name: &str) {
        let name = match name {
            "resource.service.name" => "service",
            "resource.host.name" => "host",
            "duration_ns" => "duration",
            name => name,
        };
        let mistake = || format!("reads `{name}`, which is not declared: add \"{name}\" to `reads`");
        self.mistake.borrow_mut().get_or_insert_with(mistake);
    }
}
