//! Attributes with a type: the maps hold text, these read it as what it was.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, StringArray};
use arrow::datatypes::DataType;
use datafusion::common::exec_err;
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use super::texts;

/// What an attribute is read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Read {
    Text,
    Int,
    Float,
    Bool,
    Present,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Attribute {
    name: &'static str,
    read: Read,
    signature: Signature,
}

pub(super) fn all() -> Vec<ScalarUDF> {
    let named = [
        ("attr", Read::Text),
        ("attr_int", Read::Int),
        ("attr_float", Read::Float),
        ("attr_bool", Read::Bool),
        ("has_attr", Read::Present),
    ];
    named
        .map(|(name, read)| {
            ScalarUDF::new_from_impl(Attribute {
                name,
                read,
                signature: Signature::any(2, Volatility::Immutable),
            })
        })
        .into()
}

impl ScalarUDFImpl for Attribute {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        if !matches!(args, [DataType::Map(..) | DataType::Null, _]) {
            return exec_err!("{} takes a map, such as attrs, and a key", self.name);
        }
        Ok(match self.read {
            Read::Text => DataType::Utf8,
            Read::Int => DataType::Int64,
            Read::Float => DataType::Float64,
            Read::Bool | Read::Present => DataType::Boolean,
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [maps, keys] = arrays.as_slice() else {
            return exec_err!("{} takes a map and a key", self.name);
        };
        let found = entries(maps, keys)?;
        let array: ArrayRef = match self.read {
            Read::Text => Arc::new(StringArray::from_iter(found.iter().map(Option::as_deref))),
            Read::Int => Arc::new(Int64Array::from_iter(
                found.iter().map(|text| text.as_ref()?.trim().parse().ok()),
            )),
            Read::Float => Arc::new(Float64Array::from_iter(
                found.iter().map(|text| text.as_ref()?.trim().parse().ok()),
            )),
            Read::Bool => Arc::new(BooleanArray::from_iter(
                found.iter().map(|text| boolean(text.as_ref()?)),
            )),
            Read::Present => Arc::new(BooleanArray::from_iter(found.iter().map(|text| Some(text.is_some())))),
        };
        Ok(ColumnarValue::Array(array))
    }
}

fn boolean(text: &str) -> Option<bool> {
    match text.trim() {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

/// The value of each row's key in its map; of equal keys the first counts.
fn entries(maps: &ArrayRef, keys: &ArrayRef) -> Result<Vec<Option<String>>> {
    let Some(maps) = maps.as_map_opt() else {
        return Ok(vec![None; maps.len()]);
    };
    let keys = texts(keys)?;
    let (names, values) = (texts(maps.keys())?, texts(maps.values())?);
    let find = |row: usize| {
        if maps.is_null(row) || keys.is_null(row) {
            return None;
        }
        let offsets = maps.value_offsets();
        let (first, last) = (offsets[row] as usize, offsets[row + 1] as usize);
        let at = (first..last).find(|at| names.value(*at) == keys.value(row))?;
        values.is_valid(at).then(|| values.value(at).to_owned())
    };
    Ok((0..maps.len()).map(find).collect())
}
