//! Names and types of the columns of a batch.

use arrow_array::cast::AsArray;
use arrow_array::types::{ArrowPrimitiveType, UInt16Type, UInt32Type};
use arrow_array::{Array, PrimitiveArray, RecordBatch, StringArray};
use arrow_buffer::ArrowNativeType;
use arrow_schema::{DataType, Field, Fields};

use super::LayoutError;

/// Which set an attribute belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    Attrs,
    Resource,
    Scope,
}

impl Group {
    pub const ALL: [Self; 3] = [Self::Attrs, Self::Resource, Self::Scope];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Attrs => "attrs",
            Self::Resource => "resource",
            Self::Scope => "scope",
        }
    }
}

/// Type of an attribute column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AttrKind {
    String,
    Int,
    Double,
    Bool,
    Bytes,
    /// An array or a kvlist as JSON text.
    Json,
    /// A value with no kind set.
    Null,
}

impl AttrKind {
    pub const ALL: [Self; 7] = [
        Self::String,
        Self::Int,
        Self::Double,
        Self::Bool,
        Self::Bytes,
        Self::Json,
        Self::Null,
    ];

    fn letter(self) -> char {
        match self {
            Self::String => 's',
            Self::Int => 'i',
            Self::Double => 'd',
            Self::Bool => 'b',
            Self::Bytes => 'y',
            Self::Json => 'j',
            Self::Null => 'n',
        }
    }

    fn accepts(self, found: &DataType) -> bool {
        match self {
            Self::String => is_text(found),
            Self::Json => *found == DataType::Utf8,
            Self::Int => *found == DataType::Int64,
            Self::Double => *found == DataType::Float64,
            Self::Bool | Self::Null => *found == DataType::Boolean,
            Self::Bytes => *found == DataType::Binary,
        }
    }
}

/// What the name of an attribute column says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttrColumn<'a> {
    Typed {
        group: Group,
        kind: AttrKind,
        key: &'a str,
    },
    /// `<group>:*`: keys without a column of their own.
    Rest {
        group: Group,
    },
}

/// `<group>:<type>:<key>`
pub fn column_name(group: Group, kind: AttrKind, key: &str) -> String {
    format!("{}:{}:{key}", group.as_str(), kind.letter())
}

/// `<group>:*`
pub(crate) fn rest_name(group: Group) -> String {
    format!("{}:*", group.as_str())
}

/// The reverse of `column_name`; `None` for the name of a core column or of nothing at all.
pub fn parse_column(name: &str) -> Option<AttrColumn<'_>> {
    let (group, rest) = name.split_once(':')?;
    let group = Group::ALL.into_iter().find(|g| g.as_str() == group)?;
    if rest == "*" {
        return Some(AttrColumn::Rest { group });
    }
    let (letter, key) = rest.split_once(':')?;
    let kind = AttrKind::ALL
        .into_iter()
        .find(|k| letter.len() == 1 && letter.starts_with(k.letter()))?;
    Some(AttrColumn::Typed { group, kind, key })
}

/// Type of a core column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CoreType {
    /// utf8, or a dictionary of it
    Text,
    Bool,
    Int32,
    Int64,
    UInt32,
    UInt64,
    Float64,
    Fixed(i32),
    ListFloat64,
    ListUInt64,
}

impl CoreType {
    /// The Arrow type when no dictionary is used.
    pub(crate) fn plain(self) -> DataType {
        match self {
            Self::Text => DataType::Utf8,
            Self::Bool => DataType::Boolean,
            Self::Int32 => DataType::Int32,
            Self::Int64 => DataType::Int64,
            Self::UInt32 => DataType::UInt32,
            Self::UInt64 => DataType::UInt64,
            Self::Float64 => DataType::Float64,
            Self::Fixed(n) => DataType::FixedSizeBinary(n),
            Self::ListFloat64 => DataType::new_list(DataType::Float64, true),
            Self::ListUInt64 => DataType::new_list(DataType::UInt64, true),
        }
    }

    fn accepts(self, found: &DataType) -> bool {
        match (self, found) {
            (Self::Text, found) => is_text(found),
            // Other writers name the items of a list as they like.
            (Self::ListFloat64, DataType::List(item)) => *item.data_type() == DataType::Float64,
            (Self::ListUInt64, DataType::List(item)) => *item.data_type() == DataType::UInt64,
            (own, found) => own.plain() == *found,
        }
    }
}

/// The core columns in the order in which they are written.
pub(crate) const CORE: &[(&str, CoreType)] = {
    use CoreType::*;
    &[
        ("signal", Text),
        ("time", Int64),
        ("time_unset", Bool),
        ("observed_time", Int64),
        ("start_time", Int64),
        ("duration_ns", Int64),
        ("resource_schema_url", Text),
        ("resource_dropped_attributes", UInt32),
        ("entity_refs", Text),
        ("scope_name", Text),
        ("scope_version", Text),
        ("scope_schema_url", Text),
        ("scope_dropped_attributes", UInt32),
        ("name", Text),
        ("body", Text),
        ("body_type", Text),
        ("severity", Int32),
        ("severity_text", Text),
        ("kind", Text),
        ("status", Text),
        ("status_message", Text),
        ("trace_id", Fixed(16)),
        ("span_id", Fixed(8)),
        ("parent_span_id", Fixed(8)),
        ("trace_state", Text),
        ("flags", UInt32),
        ("span_events", Text),
        ("links", Text),
        ("dropped_attributes", UInt32),
        ("dropped_events", UInt32),
        ("dropped_links", UInt32),
        ("unit", Text),
        ("description", Text),
        ("metadata", Text),
        ("metric_type", Text),
        ("temporality", Text),
        ("monotonic", Bool),
        ("value", Float64),
        ("value_int", Int64),
        ("count", UInt64),
        ("sum", Float64),
        ("min", Float64),
        ("max", Float64),
        ("bounds", ListFloat64),
        ("buckets", ListUInt64),
        ("scale", Int32),
        ("zero_count", UInt64),
        ("zero_threshold", Float64),
        ("positive_offset", Int32),
        ("positive_buckets", ListUInt64),
        ("negative_offset", Int32),
        ("negative_buckets", ListUInt64),
        ("quantiles", Text),
        ("exemplars", Text),
        ("duplicate_attrs", Text),
        ("weight", Float64),
        ("quarantined_by", Text),
        ("quarantine_reason", Text),
    ]
};

/// Name and type (without dictionaries) of every core column, in the order in which they are written.
pub fn core_columns() -> impl Iterator<Item = (&'static str, DataType)> {
    CORE.iter().map(|(name, kind)| (*name, kind.plain()))
}

/// The members of an entry of `<group>:*`.
pub fn rest_fields() -> Fields {
    ["key", "type", "text"]
        .into_iter()
        .map(|name| Field::new(name, DataType::Utf8, false))
        .collect()
}

pub(crate) fn rest_type() -> DataType {
    DataType::new_list(DataType::Struct(rest_fields()), false)
}

fn is_text(found: &DataType) -> bool {
    match found {
        DataType::Utf8 => true,
        DataType::Dictionary(key, value) => {
            matches!(**key, DataType::UInt16 | DataType::UInt32) && **value == DataType::Utf8
        }
        _ => false,
    }
}

/// Whether a batch may have a column of this name and type.
pub(crate) fn check_column(name: &str, found: &DataType) -> Result<(), LayoutError> {
    let right = match parse_column(name) {
        Some(AttrColumn::Typed { kind, .. }) => kind.accepts(found),
        Some(AttrColumn::Rest { .. }) => is_rest(found),
        None => match CORE.iter().find(|(core, _)| *core == name) {
            Some((_, kind)) => kind.accepts(found),
            None => {
                return Err(LayoutError::Column {
                    column: shown(name),
                    what: "is not a column of a batch",
                });
            }
        },
    };
    if right {
        Ok(())
    } else {
        Err(LayoutError::Column {
            column: shown(name),
            what: "has another type than its name demands",
        })
    }
}

fn is_rest(found: &DataType) -> bool {
    let DataType::List(item) = found else {
        return false;
    };
    let DataType::Struct(members) = item.data_type() else {
        return false;
    };
    members.len() == 3
        && members
            .iter()
            .zip(["key", "type", "text"])
            .all(|(m, name)| m.name() == name && *m.data_type() == DataType::Utf8)
}

/// A name of the sender's making, cut to what fits an error message.
fn shown(name: &str) -> String {
    name.chars().take(80).collect()
}

/// Bytes that an attribute takes in a map beside its key and text: offsets, its type, its text when it is a number.
const ENTRY_BYTES: usize = 32;

/// What the rows cost outside of a batch: all text with dictionaries written out row by row, and the key of every attribute. A batch
/// that is small as a stream can be huge as rows, so this has a limit of its own (`IpcLimits::max_expanded_bytes`).
pub fn expanded_bytes(batch: &RecordBatch) -> usize {
    expanded(batch, expanded_dictionary)
}

/// At least as much, without a look at each row: every row of a dictionary counts as its longest value.
pub(super) fn expanded_bytes_at_most(batch: &RecordBatch) -> usize {
    expanded(batch, |keys, values| {
        let longest = values.offsets().lengths().max().unwrap_or(0);
        keys.len().saturating_mul(longest)
    })
}

/// What the rows of a dictionary with these keys and values cost.
type OfDictionary = fn(&dyn Array, &StringArray) -> usize;

fn expanded(batch: &RecordBatch, of_dictionary: OfDictionary) -> usize {
    let columns = batch.schema_ref().fields().iter().zip(batch.columns());
    columns
        .map(|(field, column)| {
            let entry = match parse_column(field.name()) {
                Some(AttrColumn::Typed { key, .. }) => key.len() + ENTRY_BYTES,
                _ => 0,
            };
            let entries = (column.len() - column.null_count()).saturating_mul(entry);
            expanded_column(column.as_ref(), of_dictionary).saturating_add(entries)
        })
        .fold(0, usize::saturating_add)
}

fn expanded_column(column: &dyn Array, of_dictionary: OfDictionary) -> usize {
    if let Some(text) = column.as_string_opt::<i32>() {
        return span(text.value_offsets());
    }
    if let Some(bytes) = column.as_binary_opt::<i32>() {
        return span(bytes.value_offsets());
    }
    if let Some(dictionary) = column.as_any_dictionary_opt() {
        let values = dictionary.values().as_string_opt::<i32>();
        return values.map_or(0, |values| of_dictionary(dictionary.keys(), values));
    }
    if let Some(list) = column.as_list_opt::<i32>() {
        let members = list.values().as_struct_opt().map(|s| s.columns()).unwrap_or_default();
        let text: usize = members.iter().map(|m| expanded_column(m.as_ref(), of_dictionary)).sum();
        return text
            + if members.is_empty() {
                0
            } else {
                list.values().len() * ENTRY_BYTES
            };
    }
    0
}

fn span(offsets: &[i32]) -> usize {
    match (offsets.first(), offsets.last()) {
        (Some(first), Some(last)) => (last - first) as usize,
        _ => 0,
    }
}

fn expanded_dictionary(keys: &dyn Array, values: &StringArray) -> usize {
    fn sum<K: ArrowPrimitiveType<Native: ArrowNativeType>>(keys: &PrimitiveArray<K>, values: &StringArray) -> usize {
        let lengths = keys.iter().flatten().map(|key| key.as_usize());
        lengths
            .filter(|key| *key < values.len())
            .map(|key| values.value_length(key) as usize)
            .fold(0, usize::saturating_add)
    }
    if let Some(keys) = keys.as_primitive_opt::<UInt16Type>() {
        sum(keys, values)
    } else if let Some(keys) = keys.as_primitive_opt::<UInt32Type>() {
        sum(keys, values)
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use arrow_array::{ArrayRef, DictionaryArray};
    use proptest::prelude::*;
    use std::sync::Arc;

    fn with_dictionary<K: arrow_array::types::ArrowDictionaryKeyType>(rows: &[Option<String>]) -> RecordBatch {
        let texts: Vec<Option<&str>> = rows.iter().map(Option::as_deref).collect();
        let array: ArrayRef = Arc::new(texts.into_iter().collect::<DictionaryArray<K>>());
        RecordBatch::try_from_iter([("attrs:s:key", array)]).unwrap()
    }

    proptest! {
        #[test]
        fn text_written_out_is_reckoned_exactly_and_never_below(rows in proptest::collection::vec(proptest::option::of(".{0,9}"), 1..40)) {
            let text: usize = rows.iter().flatten().map(|text| text.len() + "key".len() + ENTRY_BYTES).sum();
            for batch in [with_dictionary::<UInt16Type>(&rows), with_dictionary::<UInt32Type>(&rows)] {
                prop_assert_eq!(expanded_bytes(&batch), text);
                prop_assert!(expanded_bytes_at_most(&batch) >= text);
            }
        }

        #[test]
        fn names_of_attribute_columns_read_back(group in 0usize..3, kind in 0usize..7, key: String) {
            let (group, kind) = (Group::ALL[group], AttrKind::ALL[kind]);
            let name = column_name(group, kind, &key);
            prop_assert_eq!(parse_column(&name), Some(AttrColumn::Typed { group, kind, key: &key }));
        }
    }

    #[test]
    fn other_names_are_not_attribute_columns() {
        for name in [
            "time",
            "attrs",
            "attrs:",
            "attrs:s",
            "attrs:x:k",
            "attrs:ss:k",
            "other:s:k",
            "attrs:**",
        ] {
            assert_eq!(parse_column(name), None, "{name}");
        }
        assert_eq!(parse_column("scope:*"), Some(AttrColumn::Rest { group: Group::Scope }));
    }
}
