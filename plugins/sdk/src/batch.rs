//! The batch as a plugin sees it: the declared columns, by name.

use arrow_array::cast::AsArray;
use arrow_array::types::{ArrowDictionaryKeyType, Int32Type, Int64Type, UInt16Type, UInt32Type};
use arrow_array::{Array, ArrayRef, DictionaryArray, RecordBatch, StringArray};
use arrow_schema::DataType;

/// The rows of one call with the columns that the plugin declared and that the batch has.
#[derive(Clone, Debug)]
pub struct Batch {
    records: RecordBatch,
}

impl Batch {
    /// Decodes without copying: the columns point into `bytes`.
    pub fn decode(bytes: Vec<u8>) -> Result<Batch, String> {
        crate::ipc::read(bytes).map(|records| Batch { records })
    }

    pub fn rows(&self) -> usize {
        self.records.num_rows()
    }

    pub fn records(&self) -> &RecordBatch {
        &self.records
    }

    /// A column; `None` if no row of this batch has a value for it.
    pub fn column(&self, name: &str) -> Option<&ArrayRef> {
        self.records.column_by_name(name)
    }

    /// A text column, whether it has a dictionary or not. A missing column reads as null.
    pub fn text(&self, name: &str) -> Result<Text<'_>, String> {
        let Some(column) = self.column(name) else {
            return Ok(Text::Absent);
        };
        Text::of(column.as_ref()).ok_or_else(|| format!("column {name} is not text"))
    }

    /// A column of 32- or 64-bit integers. A missing column reads as null.
    pub fn ints(&self, name: &str) -> Result<Ints<'_>, String> {
        let Some(column) = self.column(name) else {
            return Ok(Ints::Absent);
        };
        match column.data_type() {
            DataType::Int32 => Ok(Ints::Int32(column.as_primitive())),
            DataType::Int64 => Ok(Ints::Int64(column.as_primitive())),
            _ => Err(format!("column {name} is not an integer")),
        }
    }
}

/// A column of integers.
#[derive(Clone, Copy, Debug)]
pub enum Ints<'a> {
    Absent,
    Int32(&'a arrow_array::Int32Array),
    Int64(&'a arrow_array::Int64Array),
}

impl Ints<'_> {
    pub fn get(&self, row: usize) -> Option<i64> {
        fn value<T: arrow_array::ArrowPrimitiveType>(array: &arrow_array::PrimitiveArray<T>, row: usize) -> Option<i64>
        where
            T::Native: Into<i64>,
        {
            array.is_valid(row).then(|| array.value(row).into())
        }
        match self {
            Ints::Absent => None,
            Ints::Int32(array) => value::<Int32Type>(array, row),
            Ints::Int64(array) => value::<Int64Type>(array, row),
        }
    }
}

/// A column of text.
#[derive(Clone, Copy, Debug)]
pub enum Text<'a> {
    Absent,
    Plain(&'a StringArray),
    Dict16(&'a DictionaryArray<UInt16Type>, &'a StringArray),
    Dict32(&'a DictionaryArray<UInt32Type>, &'a StringArray),
}

impl<'a> Text<'a> {
    pub fn of(column: &'a dyn Array) -> Option<Text<'a>> {
        fn values<K: ArrowDictionaryKeyType>(array: &DictionaryArray<K>) -> Option<&StringArray> {
            array.values().as_string_opt()
        }
        if let Some(plain) = column.as_string_opt::<i32>() {
            Some(Text::Plain(plain))
        } else if let Some(array) = column.as_dictionary_opt::<UInt16Type>() {
            Some(Text::Dict16(array, values(array)?))
        } else {
            let array = column.as_dictionary_opt::<UInt32Type>()?;
            Some(Text::Dict32(array, values(array)?))
        }
    }

    pub fn get(&self, row: usize) -> Option<&'a str> {
        fn value<'a, K: ArrowDictionaryKeyType>(
            array: &DictionaryArray<K>,
            values: &'a StringArray,
            row: usize,
        ) -> Option<&'a str> {
            let key = array.key(row)?;
            values.is_valid(key).then(|| values.value(key))
        }
        match self {
            Text::Absent => None,
            Text::Plain(array) => array.is_valid(row).then(|| array.value(row)),
            Text::Dict16(array, values) => value(array, values, row),
            Text::Dict32(array, values) => value(array, values, row),
        }
    }
}
