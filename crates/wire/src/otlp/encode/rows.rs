//! The columns of stored rows, whatever subset of them there is.

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Float64Type, Int32Type, Int64Type, TimestampNanosecondType, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, BooleanArray, ListArray, PrimitiveArray, RecordBatch, StringArray, new_null_array};
use arrow_schema::{DataType, Field};

use super::EncodeError;
use super::values::{Bad, Pair, parser, write_any, write_json, write_pair, write_pairs};
use crate::events;
use crate::layout::Group;
use crate::otlp::writer;
use crate::value::type_name;

/// A text column.
pub(super) struct Text {
    pub(super) name: &'static str,
    array: StringArray,
}

impl Text {
    pub(super) fn get(&self, row: usize) -> Option<&str> {
        self.array.is_valid(row).then(|| self.array.value(row))
    }

    /// An id in hex.
    pub(super) fn hex(&self, row: usize) -> Result<Vec<u8>, EncodeError> {
        hex::decode(self.get(row).unwrap_or_default()).map_err(|_| self.bad(row, Bad("is not hex")))
    }

    pub(super) fn bad(&self, row: usize, bad: Bad) -> EncodeError {
        EncodeError::Value {
            row,
            column: self.name,
            what: bad.0.into(),
        }
    }

    /// The number that a text of an enum stands for.
    pub(super) fn number(&self, row: usize, names: &[&str]) -> Result<i32, EncodeError> {
        let Some(text) = self.get(row) else {
            return Ok(0);
        };
        match names.iter().position(|name| *name == text) {
            Some(index) => Ok(index as i32 + 1),
            None => text
                .parse()
                .map_err(|_| self.bad(row, Bad("is neither a name nor a number"))),
        }
    }
}

/// A column of numbers.
pub(super) struct Numbers<T: ArrowPrimitiveType>(PrimitiveArray<T>);

impl<T: ArrowPrimitiveType> Numbers<T> {
    pub(super) fn get(&self, row: usize) -> Option<T::Native> {
        self.0.is_valid(row).then(|| self.0.value(row))
    }

    /// The value, or zero.
    pub(super) fn or_zero(&self, row: usize) -> T::Native {
        self.get(row).unwrap_or_default()
    }
}

/// A column of truth values.
pub(super) struct Bools(BooleanArray);

impl Bools {
    pub(super) fn is_true(&self, row: usize) -> bool {
        self.0.is_valid(row) && self.0.value(row)
    }
}

/// A column of lists of numbers.
pub(super) struct Lists(ListArray);

impl Lists {
    pub(super) fn get<T: ArrowPrimitiveType>(&self, row: usize) -> Vec<T::Native> {
        if !self.0.is_valid(row) {
            return Vec::new();
        }
        self.0
            .value(row)
            .as_primitive_opt::<T>()
            .map(|items| items.values().to_vec())
            .unwrap_or_default()
    }
}

/// A map and the map of its types.
pub(super) struct Attrs {
    name: &'static str,
    texts: Option<Map>,
    types: Option<Map>,
}

struct Map {
    offsets: Vec<i32>,
    nulls: Option<arrow_buffer::NullBuffer>,
    keys: StringArray,
    values: StringArray,
}

impl Map {
    fn range(&self, row: usize) -> std::ops::Range<usize> {
        if self.nulls.as_ref().is_some_and(|n| n.is_null(row)) {
            return 0..0;
        }
        self.offsets[row] as usize..self.offsets[row + 1] as usize
    }
}

impl Attrs {
    /// Writes the attributes of a row into a field, those of repeated keys last.
    pub(super) fn write(
        &self,
        out: &mut Vec<u8>,
        field: u32,
        row: usize,
        repeated: &[Pair<'_>],
    ) -> Result<(), EncodeError> {
        if let Some(texts) = &self.texts {
            let types = self.types.as_ref().map(|types| (types, types.range(row)));
            let mut any = Vec::new();
            for entry in texts.range(row) {
                let key = texts.keys.value(entry);
                let kind = types.as_ref().and_then(|(types, range)| {
                    range
                        .clone()
                        .find(|i| types.keys.value(*i) == key)
                        .map(|i| types.values.value(i))
                });
                any.clear();
                write_any(&mut any, kind.unwrap_or(type_name::STRING), texts.values.value(entry)).map_err(|bad| {
                    EncodeError::Value {
                        row,
                        column: self.name,
                        what: format!("{key}: {}", bad.0),
                    }
                })?;
                write_pair(out, field, key, &any);
            }
        }
        write_pairs(out, field, repeated);
        Ok(())
    }
}

/// Second and later values of keys that a set repeats, by group.
pub(super) type Duplicates<'a> = [Vec<Pair<'a>>; 3];

macro_rules! rows {
    ($($kind:ident: $($name:ident)*;)*) => {
        /// Columns of `events::schema()` by name.
        pub(super) struct Rows {
            len: usize,
            pub(super) attrs: Attrs,
            pub(super) resource: Attrs,
            pub(super) scope: Attrs,
            $($(pub(super) $name: rows!(@type $kind),)*)*
        }

        impl Rows {
            pub(super) fn new(batch: &RecordBatch) -> Result<Self, EncodeError> {
                Ok(Self {
                    len: batch.num_rows(),
                    attrs: attrs(batch, "attrs", "attr_types")?,
                    resource: attrs(batch, "resource", "resource_types")?,
                    scope: attrs(batch, "scope", "scope_types")?,
                    $($($name: rows!(@read $kind, batch, stringify!($name)),)*)*
                })
            }
        }
    };
    (@type text) => { Text };
    (@type bool) => { Bools };
    (@type list) => { Lists };
    (@type time) => { Numbers<TimestampNanosecondType> };
    (@type i32) => { Numbers<Int32Type> };
    (@type i64) => { Numbers<Int64Type> };
    (@type u32) => { Numbers<UInt32Type> };
    (@type u64) => { Numbers<UInt64Type> };
    (@type f64) => { Numbers<Float64Type> };
    (@read text, $batch:expr, $name:expr) => { Text { name: $name, array: column($batch, $name)?.as_string::<i32>().clone() } };
    (@read bool, $batch:expr, $name:expr) => { Bools(column($batch, $name)?.as_boolean().clone()) };
    (@read list, $batch:expr, $name:expr) => { Lists(column($batch, $name)?.as_list::<i32>().clone()) };
    (@read $kind:ident, $batch:expr, $name:expr) => { Numbers(column($batch, $name)?.as_primitive().clone()) };
}

rows! {
    text: signal resource_schema_url entity_refs scope_name scope_version scope_schema_url name body body_type severity_text kind
        status status_message trace_id span_id parent_span_id trace_state span_events links unit description metadata
        metric_type temporality quantiles exemplars duplicate_attrs;
    bool: time_unset monotonic;
    list: bounds buckets positive_buckets negative_buckets;
    time: time observed_time start_time;
    i32: severity scale positive_offset negative_offset;
    i64: duration_ns value_int;
    u32: resource_dropped_attributes scope_dropped_attributes flags dropped_attributes dropped_events dropped_links;
    u64: count zero_count;
    f64: value sum min max zero_threshold;
}

impl Rows {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The time that the sender gave; 0 if none.
    pub(super) fn sent_time(&self, row: usize) -> u64 {
        if self.time_unset.is_true(row) {
            0
        } else {
            self.time.or_zero(row) as u64
        }
    }

    pub(super) fn duplicates(&self, row: usize) -> Result<Duplicates<'_>, EncodeError> {
        let mut duplicates = Duplicates::default();
        if let Some(text) = self.duplicate_attrs.get(row) {
            read_duplicates(text, &mut duplicates).map_err(|bad| self.duplicate_attrs.bad(row, bad))?;
        }
        Ok(duplicates)
    }

    /// `Resource` and schema URL, as the fields of the message that holds both.
    pub(super) fn resource(&self, row: usize, duplicates: &Duplicates<'_>) -> Result<Vec<u8>, EncodeError> {
        let mut resource = Vec::new();
        self.resource
            .write(&mut resource, 1, row, &duplicates[Group::Resource as usize])?;
        writer::uint(
            &mut resource,
            2,
            u64::from(self.resource_dropped_attributes.or_zero(row)),
        );
        if let Some(text) = self.entity_refs.get(row) {
            write_entity_refs(&mut resource, text).map_err(|bad| self.entity_refs.bad(row, bad))?;
        }
        let mut out = Vec::new();
        writer::bytes(&mut out, 1, &resource);
        writer::text(&mut out, 3, self.resource_schema_url.get(row));
        Ok(out)
    }

    /// `InstrumentationScope` and schema URL, likewise.
    pub(super) fn scope(&self, row: usize, duplicates: &Duplicates<'_>) -> Result<Vec<u8>, EncodeError> {
        let mut scope = Vec::new();
        writer::text(&mut scope, 1, self.scope_name.get(row));
        writer::text(&mut scope, 2, self.scope_version.get(row));
        self.scope
            .write(&mut scope, 3, row, &duplicates[Group::Scope as usize])?;
        writer::uint(&mut scope, 4, u64::from(self.scope_dropped_attributes.or_zero(row)));
        let mut out = Vec::new();
        writer::bytes(&mut out, 1, &scope);
        writer::text(&mut out, 3, self.scope_schema_url.get(row));
        Ok(out)
    }
}

fn read_duplicates<'a>(text: &'a str, duplicates: &mut Duplicates<'a>) -> Result<(), Bad> {
    let mut json = parser(text);
    json.object(|json, group| {
        let group = Group::ALL
            .into_iter()
            .find(|g| g.as_str() == group)
            .ok_or(Bad("names a group that is none"))?;
        json.array(|json, _| {
            let mut pair: Pair<'a> = Default::default();
            json.array(|json, n| {
                match n {
                    0 => pair.0 = json.string()?,
                    1 => write_json(&mut pair.1, json)?,
                    _ => return Err(Bad("holds more than a key and a value")),
                }
                Ok(())
            })?;
            duplicates[group as usize].push(pair);
            Ok::<_, Bad>(())
        })
    })?;
    Ok(json.end()?)
}

fn write_entity_refs(out: &mut Vec<u8>, text: &str) -> Result<(), Bad> {
    let mut json = parser(text);
    json.array(|json, _| {
        let mut entity = Vec::new();
        json.object(|json, name| {
            match name.as_ref() {
                "schema_url" => writer::text(&mut entity, 1, Some(&json.string()?)),
                "type" => writer::text(&mut entity, 2, Some(&json.string()?)),
                "id_keys" | "description_keys" => {
                    let field = if name == "id_keys" { 3 } else { 4 };
                    json.array(|json, _| {
                        writer::bytes_always(&mut entity, field, json.string()?.as_bytes());
                        Ok::<_, Bad>(())
                    })?;
                }
                _ => json.skip()?,
            }
            Ok::<_, Bad>(())
        })?;
        writer::bytes_always(out, 3, &entity);
        Ok::<_, Bad>(())
    })?;
    Ok(json.end()?)
}

/// A column with the type that the table gives it, whatever the reader of a store made of it; nulls if there is none.
fn column(batch: &RecordBatch, name: &'static str) -> Result<ArrayRef, EncodeError> {
    let wrong = |source| EncodeError::Column { column: name, source };
    let schema = events::schema();
    let wanted = schema.field_with_name(name).map_err(wrong)?.data_type();
    match batch.column_by_name(name) {
        None => Ok(new_null_array(wanted, batch.num_rows())),
        Some(column) if column.data_type() == wanted => Ok(column.clone()),
        Some(column) => arrow_cast::cast(column, wanted).map_err(wrong),
    }
}

fn attrs(batch: &RecordBatch, texts: &'static str, types: &'static str) -> Result<Attrs, EncodeError> {
    Ok(Attrs {
        name: texts,
        texts: map(batch, texts)?,
        types: map(batch, types)?,
    })
}

fn map(batch: &RecordBatch, name: &'static str) -> Result<Option<Map>, EncodeError> {
    let Some(column) = batch.column_by_name(name) else {
        return Ok(None);
    };
    let wrong = |source| EncodeError::Column { column: name, source };
    let Some(map) = column.as_map_opt() else {
        let what = format!(
            "expected a map, found {}",
            Field::new(name, column.data_type().clone(), true)
        );
        return Err(wrong(arrow_schema::ArrowError::SchemaError(what)));
    };
    let text = |array: &ArrayRef| arrow_cast::cast(array, &DataType::Utf8).map(|a| a.as_string::<i32>().clone());
    Ok(Some(Map {
        offsets: map.value_offsets().to_vec(),
        nulls: map.nulls().cloned(),
        keys: text(map.keys()).map_err(wrong)?,
        values: text(map.values()).map_err(wrong)?,
    }))
}
