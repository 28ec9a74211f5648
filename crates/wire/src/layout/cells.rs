//! Reading columns of a batch row by row, whether they are dictionaries or not.

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type, UInt16Type, UInt32Type};
use arrow_array::{
    Array, BinaryArray, BooleanArray, DictionaryArray, Float64Array, Int64Array, ListArray, RecordBatch, StringArray,
};

use super::{AttrColumn, AttrKind, Group, LayoutError, parse_column};
use crate::value::{self, type_name};

/// A text column.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Texts<'a> {
    Plain(&'a StringArray),
    Dict16(&'a DictionaryArray<UInt16Type>, &'a StringArray),
    Dict32(&'a DictionaryArray<UInt32Type>, &'a StringArray),
}

impl<'a> Texts<'a> {
    pub(crate) fn of(column: &'a dyn Array) -> Option<Self> {
        if let Some(plain) = column.as_string_opt::<i32>() {
            return Some(Self::Plain(plain));
        }
        if let Some(dict) = column.as_dictionary_opt::<UInt16Type>() {
            return Some(Self::Dict16(dict, dict.values().as_string_opt::<i32>()?));
        }
        let dict = column.as_dictionary_opt::<UInt32Type>()?;
        Some(Self::Dict32(dict, dict.values().as_string_opt::<i32>()?))
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Plain(plain) => plain.len(),
            Self::Dict16(dict, _) => dict.len(),
            Self::Dict32(dict, _) => dict.len(),
        }
    }

    #[inline]
    pub(crate) fn get(&self, row: usize) -> Option<&'a str> {
        match self {
            Self::Plain(plain) => plain.is_valid(row).then(|| plain.value(row)),
            Self::Dict16(dict, values) => dict
                .is_valid(row)
                .then(|| values.value(usize::from(dict.keys().value(row)))),
            Self::Dict32(dict, values) => dict
                .is_valid(row)
                .then(|| values.value(dict.keys().value(row) as usize)),
        }
    }

    /// Calls `visit(row, n, value)` for every run of rows that are known to hold the same value.
    pub(crate) fn each_run(&self, mut visit: impl FnMut(usize, usize, &'a str)) {
        let key = |row: usize| match self {
            Self::Plain(_) => None,
            Self::Dict16(dict, _) => Some(u32::from(dict.keys().value(row))),
            Self::Dict32(dict, _) => Some(dict.keys().value(row)),
        };
        let mut row = 0;
        while row < self.len() {
            let Some(text) = self.get(row) else {
                row += 1;
                continue;
            };
            let mut n = 1;
            while key(row).is_some() && row + n < self.len() && key(row) == key(row + n) && self.get(row + n).is_some()
            {
                n += 1;
            }
            visit(row, n, text);
            row += n;
        }
    }
}

/// An attribute column with a type.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cells<'a> {
    Text(Texts<'a>),
    Int(&'a Int64Array),
    Double(&'a Float64Array),
    Bool(&'a BooleanArray),
    Bytes(&'a BinaryArray),
    Json(&'a StringArray),
    Null(&'a BooleanArray),
}

impl<'a> Cells<'a> {
    pub(crate) fn of(kind: AttrKind, column: &'a dyn Array) -> Option<Self> {
        Some(match kind {
            AttrKind::String => Self::Text(Texts::of(column)?),
            AttrKind::Int => Self::Int(column.as_primitive_opt::<Int64Type>()?),
            AttrKind::Double => Self::Double(column.as_primitive_opt::<Float64Type>()?),
            AttrKind::Bool => Self::Bool(column.as_boolean_opt()?),
            AttrKind::Bytes => Self::Bytes(column.as_binary_opt::<i32>()?),
            AttrKind::Json => Self::Json(column.as_string_opt::<i32>()?),
            AttrKind::Null => Self::Null(column.as_boolean_opt()?),
        })
    }

    #[inline]
    pub(crate) fn is_valid(&self, row: usize) -> bool {
        match self {
            Self::Text(Texts::Plain(c)) => c.is_valid(row),
            Self::Text(Texts::Dict16(c, _)) => c.is_valid(row),
            Self::Text(Texts::Dict32(c, _)) => c.is_valid(row),
            Self::Int(c) => c.is_valid(row),
            Self::Double(c) => c.is_valid(row),
            Self::Bool(c) | Self::Null(c) => c.is_valid(row),
            Self::Bytes(c) => c.is_valid(row),
            Self::Json(c) => c.is_valid(row),
        }
    }

    /// Appends the text of a valid row and says its type.
    #[inline]
    pub(crate) fn write_text(&self, row: usize, out: &mut Vec<u8>) -> &'static str {
        match self {
            Self::Text(c) => {
                out.extend_from_slice(c.get(row).unwrap_or_default().as_bytes());
                type_name::STRING
            }
            Self::Int(c) => {
                value::write_int(out, c.value(row));
                type_name::INT
            }
            Self::Double(c) => {
                value::write_double(out, c.value(row));
                type_name::DOUBLE
            }
            Self::Bool(c) => {
                out.extend_from_slice(value::bool_text(c.value(row)).as_bytes());
                type_name::BOOL
            }
            Self::Bytes(c) => {
                value::write_base64(out, c.value(row));
                type_name::BYTES
            }
            Self::Json(c) => {
                out.extend_from_slice(c.value(row).as_bytes());
                value::json_type(c.value(row))
            }
            Self::Null(_) => type_name::NULL,
        }
    }
}

/// `<group>:*`
#[derive(Clone, Copy, Debug)]
pub(crate) struct RestCells<'a> {
    list: &'a ListArray,
    members: [&'a StringArray; 3],
}

impl<'a> RestCells<'a> {
    pub(crate) fn of(column: &'a dyn Array) -> Option<Self> {
        let list = column.as_list_opt::<i32>()?;
        let entries = list.values().as_struct_opt()?;
        let [key, kind, text] = entries.columns() else {
            return None;
        };
        Some(Self {
            list,
            members: [key.as_string_opt()?, kind.as_string_opt()?, text.as_string_opt()?],
        })
    }

    /// Key, type and text of the entries of a row.
    pub(crate) fn entries(&self, row: usize) -> impl Iterator<Item = [&'a str; 3]> + use<'a> {
        let offsets = self.list.value_offsets();
        let range = if self.list.is_valid(row) {
            offsets[row] as usize..offsets[row + 1] as usize
        } else {
            0..0
        };
        let members = self.members;
        range.map(move |i| members.map(|m| m.value(i)))
    }
}

/// The attribute columns of one group of a batch.
#[derive(Debug)]
pub(crate) struct GroupCells<'a> {
    pub(crate) columns: Vec<(&'a str, AttrKind, Cells<'a>)>,
    pub(crate) rest: Option<RestCells<'a>>,
}

impl<'a> GroupCells<'a> {
    pub(crate) fn of(batch: &'a RecordBatch, wanted: Group) -> Result<Self, LayoutError> {
        let mut cells = Self {
            columns: Vec::new(),
            rest: None,
        };
        for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
            let wrong = || LayoutError::Column {
                column: field.name().clone(),
                what: "has another type than its name demands",
            };
            // The name lives in the schema, which the batch holds.
            match parse_column(field.name()) {
                Some(AttrColumn::Typed { group, kind, key }) if group == wanted => {
                    cells
                        .columns
                        .push((key, kind, Cells::of(kind, column.as_ref()).ok_or_else(wrong)?));
                }
                Some(AttrColumn::Rest { group }) if group == wanted => {
                    cells.rest = Some(RestCells::of(column.as_ref()).ok_or_else(wrong)?);
                }
                _ => {}
            }
        }
        Ok(cells)
    }
}
