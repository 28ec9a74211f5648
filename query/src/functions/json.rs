//! Reading JSON in texts: one value by its path, without building the rest.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Float64Array, Int64Array, StringArray};
use arrow::datatypes::DataType;
use datafusion::common::plan_err;
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::texts;

/// What is made of the value that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Read {
    /// Text as it is, anything else as JSON.
    Any,
    Text,
    Int,
    Float,
    Bool,
    Json,
    Length,
    Present,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Json {
    name: &'static str,
    read: Read,
    signature: Signature,
}

pub(super) fn all() -> Vec<ScalarUDF> {
    let named = [
        ("json_get", Read::Any),
        ("json_get_str", Read::Text),
        ("json_get_int", Read::Int),
        ("json_get_float", Read::Float),
        ("json_get_bool", Read::Bool),
        ("json_get_json", Read::Json),
        ("json_length", Read::Length),
        ("json_contains", Read::Present),
    ];
    named
        .map(|(name, read)| {
            ScalarUDF::new_from_impl(Json {
                name,
                read,
                signature: Signature::variadic_any(Volatility::Immutable),
            })
        })
        .into()
}

impl ScalarUDFImpl for Json {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        if args.len() < 2 && self.read != Read::Length {
            return plan_err!("{} takes a text and a path: keys and places in lists", self.name);
        }
        if args.iter().any(DataType::is_nested) {
            return plan_err!("{} takes texts; of a map take an entry first", self.name);
        }
        Ok(match self.read {
            Read::Any | Read::Text | Read::Json => DataType::Utf8,
            Read::Int | Read::Length => DataType::Int64,
            Read::Float => DataType::Float64,
            Read::Bool | Read::Present => DataType::Boolean,
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let arrays = arrays.iter().map(texts).collect::<Result<Vec<_>>>()?;
        let Some((documents, path)) = arrays.split_first() else {
            return plan_err!("{} takes a text", self.name);
        };
        let found = |row: usize| -> Option<&RawValue> {
            if documents.is_null(row) || path.iter().any(|step| step.is_null(row)) {
                return None;
            }
            walk(documents.value(row), path.iter().map(|step| step.value(row)))
        };
        let rows = 0..documents.len();
        let array: ArrayRef = match self.read {
            Read::Any => Arc::new(rows.map(|row| any(found(row)?)).collect::<StringArray>()),
            Read::Text => Arc::new(rows.map(|row| text(found(row)?)).collect::<StringArray>()),
            Read::Json => Arc::new(
                rows.map(|row| Some(found(row)?.get().to_owned()))
                    .collect::<StringArray>(),
            ),
            Read::Int => Arc::new(rows.map(|row| found(row)?.get().parse().ok()).collect::<Int64Array>()),
            Read::Float => Arc::new(rows.map(|row| found(row)?.get().parse().ok()).collect::<Float64Array>()),
            Read::Length => Arc::new(rows.map(|row| length(found(row)?)).collect::<Int64Array>()),
            Read::Bool => {
                let read = |row| serde_json::from_str::<bool>(found(row)?.get()).ok();
                Arc::new(rows.map(read).collect::<BooleanArray>())
            }
            Read::Present => {
                let read = |row| documents.is_valid(row).then(|| found(row).is_some());
                Arc::new(rows.map(read).collect::<BooleanArray>())
            }
        };
        Ok(ColumnarValue::Array(array))
    }
}

fn any(value: &RawValue) -> Option<String> {
    match value.get() {
        "null" => None,
        raw => text(value).or_else(|| Some(raw.to_owned())),
    }
}

fn text(value: &RawValue) -> Option<String> {
    serde_json::from_str(value.get()).ok()
}

/// Members of an object, items of a list.
fn length(value: &RawValue) -> Option<i64> {
    struct Counted(i64);
    impl<'de> serde::Deserialize<'de> for Counted {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_any(Count).map(Counted)
        }
    }
    serde_json::from_str::<Counted>(value.get())
        .ok()
        .map(|counted| counted.0)
}

struct Count;

impl<'de> Visitor<'de> for Count {
    type Value = i64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or a list")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<i64, A::Error> {
        let mut count = 0;
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
            count += 1;
        }
        Ok(count)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<i64, A::Error> {
        let mut count = 0;
        while list.next_element::<IgnoredAny>()?.is_some() {
            count += 1;
        }
        Ok(count)
    }
}

fn walk<'a, 's>(document: &'a str, path: impl Iterator<Item = &'s str>) -> Option<&'a RawValue> {
    let mut at: &'a RawValue = serde_json::from_str(document).ok()?;
    for step in path {
        let mut reader = serde_json::Deserializer::from_str(at.get());
        at = Step(step).deserialize(&mut reader).ok()??;
    }
    Some(at)
}

/// One step of a path: a key, or a place counted from 0, or from the end where it is negative.
struct Step<'s>(&'s str);

impl<'de> DeserializeSeed<'de> for Step<'_> {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Step<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or a list")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            if found.is_none() && key == self.0 {
                found = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element::<&'de RawValue>()? {
            items.push(item);
        }
        let place = self.0.parse::<i64>().ok();
        let place =
            place.and_then(|place| usize::try_from(if place < 0 { place + items.len() as i64 } else { place }).ok());
        Ok(place.and_then(|place| items.get(place).copied()))
    }
}
