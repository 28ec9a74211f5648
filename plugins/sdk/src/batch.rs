//! The batch as a plugin sees it: the declared columns, by name.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowDictionaryKeyType, ArrowPrimitiveType, Float64Type, Int32Type, Int64Type, UInt16Type, UInt32Type,
};
use arrow_array::{
    Array, ArrayRef, BooleanArray, DictionaryArray, FixedSizeBinaryArray, Float64Array, PrimitiveArray, RecordBatch,
    StringArray,
};
use arrow_buffer::{NullBuffer, ScalarBuffer};
use arrow_schema::DataType;

use crate::bits;

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

    /// A column of integers. A missing column reads as null.
    pub fn ints(&self, name: &str) -> Result<Ints<'_>, String> {
        let Some(column) = self.column(name) else {
            return Ok(Ints::Absent);
        };
        match column.data_type() {
            DataType::Int32 => Ok(Ints::Int32(column.as_primitive())),
            DataType::Int64 => Ok(Ints::Int64(column.as_primitive())),
            DataType::UInt32 => Ok(Ints::UInt32(column.as_primitive())),
            DataType::UInt64 => Ok(Ints::UInt64(column.as_primitive())),
            _ => Err(format!("column {name} is not an integer")),
        }
    }

    /// A column of doubles. `None` if it is missing.
    pub fn floats(&self, name: &str) -> Result<Option<&Float64Array>, String> {
        self.typed(name, "a double", |column| column.as_primitive_opt::<Float64Type>())
    }

    /// A column of booleans. `None` if it is missing.
    pub fn bools(&self, name: &str) -> Result<Option<&BooleanArray>, String> {
        self.typed(name, "a boolean", |column| column.as_boolean_opt())
    }

    /// A column of ids of the same number of bytes each. `None` if it is missing.
    pub fn ids(&self, name: &str) -> Result<Option<&FixedSizeBinaryArray>, String> {
        self.typed(name, "an id", |column| column.as_fixed_size_binary_opt())
    }

    fn typed<'a, A>(
        &'a self,
        name: &str,
        what: &str,
        of: impl FnOnce(&'a ArrayRef) -> Option<&'a A>,
    ) -> Result<Option<&'a A>, String> {
        match self.column(name) {
            None => Ok(None),
            Some(column) => of(column)
                .map(Some)
                .ok_or_else(|| format!("column {name} is not {what}")),
        }
    }
}

impl From<RecordBatch> for Batch {
    fn from(records: RecordBatch) -> Self {
        Batch { records }
    }
}

/// A column of integers.
#[derive(Clone, Copy, Debug)]
pub enum Ints<'a> {
    Absent,
    Int32(&'a arrow_array::Int32Array),
    Int64(&'a arrow_array::Int64Array),
    UInt32(&'a arrow_array::UInt32Array),
    UInt64(&'a arrow_array::UInt64Array),
}

impl Ints<'_> {
    /// Unsigned values above the largest signed one read as that one.
    pub fn get(&self, row: usize) -> Option<i64> {
        fn value<T: ArrowPrimitiveType>(array: &PrimitiveArray<T>, row: usize) -> Option<i64>
        where
            T::Native: Into<i64>,
        {
            array.is_valid(row).then(|| array.value(row).into())
        }
        match self {
            Ints::Absent => None,
            Ints::Int32(array) => value::<Int32Type>(array, row),
            Ints::Int64(array) => value::<Int64Type>(array, row),
            Ints::UInt32(array) => value::<UInt32Type>(array, row),
            Ints::UInt64(array) => array
                .is_valid(row)
                .then(|| i64::try_from(array.value(row)).unwrap_or(i64::MAX)),
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

/// A text column: its values, and of each row the place of its text among them, `u32::MAX` where it has none. The keys take two
/// bytes where that is enough.
pub fn dictionary(values: StringArray, of_row: &[u32]) -> Result<ArrayRef, String> {
    fn build<K: ArrowDictionaryKeyType>(
        values: StringArray,
        of_row: &[u32],
        key: impl Fn(u32) -> K::Native,
    ) -> Result<ArrayRef, String> {
        let keys: ScalarBuffer<K::Native> = of_row.iter().map(|place| key(*place)).collect();
        let present = bits::of(of_row, |place| place != u32::MAX);
        let nulls = Some(NullBuffer::new(present)).filter(|nulls| nulls.null_count() > 0);
        let keys = PrimitiveArray::<K>::try_new(keys, nulls);
        let array = keys.and_then(|keys| DictionaryArray::<K>::try_new(keys, Arc::new(values)));
        array
            .map(|array| Arc::new(array) as ArrayRef)
            .map_err(|e| e.to_string())
    }
    // What stands under a null is a key, too, for those who look at keys alone.
    if values.len() <= usize::from(u16::MAX) {
        build::<UInt16Type>(values, of_row, |place| if place == u32::MAX { 0 } else { place as u16 })
    } else {
        build::<UInt32Type>(values, of_row, |place| if place == u32::MAX { 0 } else { place })
    }
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

    /// The texts themselves: the rows of a plain column, the values of a dictionary. `None` if the column is missing.
    pub fn values(&self) -> Option<&'a StringArray> {
        match self {
            Text::Absent => None,
            Text::Plain(values) | Text::Dict16(_, values) | Text::Dict32(_, values) => Some(values),
        }
    }

    /// Which of the [`Text::values`] a row has.
    pub fn value_index(&self, row: usize) -> Option<usize> {
        match self {
            Text::Absent => None,
            Text::Plain(array) => array.is_valid(row).then_some(row),
            Text::Dict16(array, _) => array.key(row),
            Text::Dict32(array, _) => array.key(row),
        }
    }
}
