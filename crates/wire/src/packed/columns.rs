//! One column of each type that batches have, packed and back.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowDictionaryKeyType, ArrowPrimitiveType, Float64Type, Int32Type, Int64Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, DictionaryArray, FixedSizeBinaryArray, Float64Array, ListArray,
    PrimitiveArray, StringArray, StructArray,
};
use arrow_buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{ArrowError, DataType, Field};

use super::bytes::{ENDS_EARLY, Malformed, Reader, put_bits, put_varint};
use super::numbers::{Numbers, put_doubles, put_numbers, read_doubles};
use super::texts::{References, Strings, put_texts, read_texts};
use super::{Budget, UnpackError};
use crate::layout::cells::Cells;
use crate::layout::rest_fields;

mod tag {
    pub(super) const UTF8: u8 = 1;
    pub(super) const DICT16: u8 = 2;
    pub(super) const DICT32: u8 = 3;
    pub(super) const BOOL: u8 = 4;
    pub(super) const INT32: u8 = 5;
    pub(super) const INT64: u8 = 6;
    pub(super) const UINT32: u8 = 7;
    pub(super) const UINT64: u8 = 8;
    pub(super) const FLOAT64: u8 = 9;
    pub(super) const FIXED: u8 = 10;
    pub(super) const BINARY: u8 = 11;
    pub(super) const LIST_FLOAT64: u8 = 12;
    pub(super) const LIST_UINT64: u8 = 13;
    pub(super) const REST: u8 = 14;
}

/// Appends type, presence and values. `false` if batches have no such type.
pub(super) fn put_column(out: &mut Vec<u8>, column: &dyn Array, references: &References<'_>, shapes: bool) -> bool {
    let mut head = |tag: u8| {
        out.push(tag);
        if let DataType::FixedSizeBinary(width) = column.data_type() {
            out.push(*width as u8);
        }
        match column.nulls().filter(|nulls| nulls.null_count() > 0) {
            None => out.push(0),
            Some(nulls) => {
                out.push(1);
                put_bits(out, nulls.iter());
            }
        }
    };
    match column.data_type() {
        DataType::Utf8 => {
            head(tag::UTF8);
            let texts: Vec<&str> = column.as_string::<i32>().iter().flatten().collect();
            put_texts(out, &texts, references, shapes);
        }
        DataType::Dictionary(key, value) if **value == DataType::Utf8 => match **key {
            DataType::UInt16 => {
                head(tag::DICT16);
                put_dictionary::<UInt16Type>(out, column.as_dictionary(), shapes);
            }
            DataType::UInt32 => {
                head(tag::DICT32);
                put_dictionary::<UInt32Type>(out, column.as_dictionary(), shapes);
            }
            _ => return false,
        },
        DataType::Boolean => {
            head(tag::BOOL);
            put_bits(out, column.as_boolean().iter().flatten());
        }
        DataType::Int32 => {
            head(tag::INT32);
            put_integers::<Int32Type>(out, column, i64::from);
        }
        DataType::Int64 => {
            head(tag::INT64);
            put_integers::<Int64Type>(out, column, |n| n);
        }
        DataType::UInt32 => {
            head(tag::UINT32);
            put_integers::<UInt32Type>(out, column, i64::from);
        }
        DataType::UInt64 => {
            head(tag::UINT64);
            put_integers::<UInt64Type>(out, column, |n| n as i64);
        }
        DataType::Float64 => {
            head(tag::FLOAT64);
            let doubles: Vec<f64> = column.as_primitive::<Float64Type>().iter().flatten().collect();
            put_doubles(out, &doubles);
        }
        DataType::FixedSizeBinary(width @ 1..=255) if *width > 0 => {
            head(tag::FIXED);
            for value in column.as_fixed_size_binary().iter().flatten() {
                out.extend_from_slice(value);
            }
        }
        DataType::Binary => {
            head(tag::BINARY);
            let values: Vec<&[u8]> = column.as_binary::<i32>().iter().flatten().collect();
            put_numbers(out, &values.iter().map(|value| value.len() as i64).collect::<Vec<_>>());
            values.iter().for_each(|value| out.extend_from_slice(value));
        }
        DataType::List(item) => {
            let list = column.as_list::<i32>();
            match item.data_type() {
                DataType::Float64 => {
                    head(tag::LIST_FLOAT64);
                    let items = put_lengths(out, list);
                    put_doubles(out, items_of::<Float64Type>(list, &items).as_slice());
                }
                DataType::UInt64 => {
                    head(tag::LIST_UINT64);
                    let items = put_lengths(out, list);
                    let items: Vec<i64> = items_of::<UInt64Type>(list, &items).iter().map(|n| *n as i64).collect();
                    put_numbers(out, &items);
                }
                DataType::Struct(_) => {
                    head(tag::REST);
                    let items = put_lengths(out, list);
                    for member in list.values().as_struct().columns() {
                        let Some(texts) = member.as_string_opt::<i32>() else {
                            return false;
                        };
                        let texts = items.iter().flat_map(|range| range.clone().map(|i| texts.value(i)));
                        put_texts(out, &texts.collect::<Vec<_>>(), &References::default(), shapes);
                    }
                }
                _ => return false,
            }
        }
        _ => return false,
    }
    true
}

fn put_integers<T: ArrowPrimitiveType>(out: &mut Vec<u8>, column: &dyn Array, widen: impl Fn(T::Native) -> i64) {
    let column = column.as_primitive::<T>();
    let numbers: Vec<i64> = if column.null_count() == 0 {
        column.values().iter().map(|n| widen(*n)).collect()
    } else {
        column.iter().flatten().map(widen).collect()
    };
    put_numbers(out, &numbers);
}

fn put_dictionary<K: ArrowDictionaryKeyType>(out: &mut Vec<u8>, column: &DictionaryArray<K>, shapes: bool)
where
    K::Native: Into<u32>,
{
    let values = column.values().as_string::<i32>();
    put_varint(out, values.len() as u64);
    let texts: Vec<&str> = (0..values.len()).map(|i| values.value(i)).collect();
    put_texts(out, &texts, &References::default(), shapes);
    let keys = column.keys().iter().flatten().map(|key| i64::from(key.into()));
    put_numbers(out, &keys.collect::<Vec<_>>());
}

/// The items of every row that has a list, and how many they are.
fn put_lengths(out: &mut Vec<u8>, list: &ListArray) -> Vec<std::ops::Range<usize>> {
    let offsets = list.value_offsets();
    let ranges: Vec<_> = (0..list.len())
        .filter(|row| list.is_valid(*row))
        .map(|row| offsets[row] as usize..offsets[row + 1] as usize)
        .collect();
    let lengths: Vec<i64> = ranges.iter().map(|range| range.len() as i64).collect();
    put_numbers(out, &lengths);
    ranges
}

fn items_of<T: ArrowPrimitiveType>(list: &ListArray, ranges: &[std::ops::Range<usize>]) -> Vec<T::Native> {
    let items = list.values().as_primitive::<T>().values();
    ranges
        .iter()
        .flat_map(|range| items[range.clone()].iter().copied())
        .collect()
}

/// The memory that `read_column` will charge for a column.
pub(super) fn unpacked_bytes(column: &dyn Array) -> usize {
    let rows = column.len();
    let offsets = 4 * (rows + 1);
    let bits = rows.div_ceil(8);
    let texts = |array: &StringArray| array.iter().flatten().map(str::len).sum::<usize>();
    let dictionary = |values: &ArrayRef| {
        let values = values.as_string::<i32>();
        4 * (values.len() + 1) + texts(values)
    };
    bits + match column.data_type() {
        DataType::Utf8 => offsets + texts(column.as_string()),
        DataType::Dictionary(key, _) if **key == DataType::UInt16 => {
            2 * rows + dictionary(column.as_dictionary::<UInt16Type>().values())
        }
        DataType::Dictionary(..) => 4 * rows + dictionary(column.as_dictionary::<UInt32Type>().values()),
        DataType::Boolean => bits,
        DataType::Int32 | DataType::UInt32 => 4 * rows,
        DataType::Int64 | DataType::UInt64 | DataType::Float64 => 8 * rows,
        DataType::FixedSizeBinary(width) => *width as usize * rows,
        DataType::Binary => {
            offsets
                + column
                    .as_binary::<i32>()
                    .iter()
                    .flatten()
                    .map(<[u8]>::len)
                    .sum::<usize>()
        }
        DataType::List(item) => {
            let list = column.as_list::<i32>();
            let values = list.values();
            offsets
                + match item.data_type() {
                    DataType::Struct(_) => {
                        let members = values.as_struct().columns().iter();
                        members.map(|m| 4 * (m.len() + 1) + texts(m.as_string())).sum::<usize>()
                    }
                    _ => 8 * values.len(),
                }
        }
        _ => 0,
    }
}

/// Reads what `put_column` wrote. `earlier` are the columns before this one that texts may refer to.
pub(super) fn read_column(
    reader: &mut Reader<'_>,
    rows: usize,
    earlier: &[Option<Cells<'_>>],
    budget: &mut Budget,
) -> Result<ArrayRef, UnpackError> {
    let tag = reader.byte()?;
    let width = if tag == tag::FIXED {
        usize::from(reader.byte()?)
    } else {
        0
    };
    budget.charge(rows.div_ceil(8))?;
    let present = match reader.byte()? {
        0 => None,
        1 => Some(reader.bits(rows)?),
        _ => return Err(Malformed("presence of a column is unknown").into()),
    };
    let mut slots = Slots {
        rows,
        n: present.as_ref().map_or(rows, BooleanBuffer::count_set_bits),
        present,
    };
    Ok(match tag {
        tag::UTF8 => {
            let strings = read_texts(reader, rows, slots.present.as_ref(), earlier, budget)?;
            Arc::new(string_array(strings, slots.nulls())?)
        }
        tag::DICT16 => {
            let entries = dictionary_entries(reader, usize::from(u16::MAX) + 1, budget)?;
            let keys = slots.numbers(reader, 2, budget, |n| u16::try_from(n).ok())?;
            let keys = PrimitiveArray::<UInt16Type>::try_new(keys, slots.nulls())?;
            Arc::new(DictionaryArray::try_new(keys, Arc::new(entries))?)
        }
        tag::DICT32 => {
            let entries = dictionary_entries(reader, i32::MAX as usize, budget)?;
            let keys = slots.numbers(reader, 4, budget, |n| u32::try_from(n).ok())?;
            let keys = PrimitiveArray::<UInt32Type>::try_new(keys, slots.nulls())?;
            Arc::new(DictionaryArray::try_new(keys, Arc::new(entries))?)
        }
        tag::BOOL => {
            budget.charge(rows.div_ceil(8))?;
            let bits = reader.bits(slots.n)?;
            let mut bits = bits.iter();
            let spread = slots.spread(|| bits.next().ok_or(ENDS_EARLY))?;
            Arc::new(BooleanArray::new(BooleanBuffer::from(spread), slots.nulls()))
        }
        tag::INT32 => {
            let values = slots.numbers(reader, 4, budget, |n| i32::try_from(n).ok())?;
            Arc::new(PrimitiveArray::<Int32Type>::try_new(values, slots.nulls())?)
        }
        tag::INT64 => {
            let values = slots.numbers(reader, 8, budget, Some)?;
            Arc::new(PrimitiveArray::<Int64Type>::try_new(values, slots.nulls())?)
        }
        tag::UINT32 => {
            let values = slots.numbers(reader, 4, budget, |n| u32::try_from(n).ok())?;
            Arc::new(PrimitiveArray::<UInt32Type>::try_new(values, slots.nulls())?)
        }
        tag::UINT64 => {
            let values = slots.numbers(reader, 8, budget, |n| Some(n as u64))?;
            Arc::new(PrimitiveArray::<UInt64Type>::try_new(values, slots.nulls())?)
        }
        tag::FLOAT64 => {
            budget.charge(8 * rows)?;
            let mut doubles = read_doubles(reader, slots.n)?.into_iter();
            let spread = match slots.present {
                None => doubles.collect(),
                Some(_) => slots.spread(|| doubles.next().ok_or(ENDS_EARLY))?,
            };
            Arc::new(Float64Array::try_new(spread.into(), slots.nulls())?)
        }
        tag::FIXED => read_fixed(reader, width, &mut slots, budget)?,
        tag::BINARY => {
            budget.charge(4 * (rows + 1))?;
            let offsets = slots.offsets(reader)?;
            let bytes = reader.take(offsets.last().map_or(0, |end| *end as usize))?;
            budget.charge(bytes.len())?;
            Arc::new(BinaryArray::try_new(offsets, Buffer::from(bytes), slots.nulls())?)
        }
        tag::LIST_FLOAT64 | tag::LIST_UINT64 | tag::REST => read_list(reader, tag, &mut slots, budget)?,
        _ => return Err(Malformed("a column has an unknown type").into()),
    })
}

fn read_fixed(
    reader: &mut Reader<'_>,
    width: usize,
    slots: &mut Slots,
    budget: &mut Budget,
) -> Result<ArrayRef, UnpackError> {
    if width == 0 {
        return Err(Malformed("a column of fixed width has none").into());
    }
    budget.charge(width.checked_mul(slots.rows).ok_or(ENDS_EARLY)?)?;
    let bytes = reader.take(width.checked_mul(slots.n).ok_or(ENDS_EARLY)?)?;
    let values = match &slots.present {
        None => Buffer::from(bytes),
        Some(present) => {
            let mut spread = vec![0u8; width * slots.rows];
            for (row, value) in present.set_indices().zip(bytes.chunks_exact(width)) {
                spread[row * width..(row + 1) * width].copy_from_slice(value);
            }
            Buffer::from(spread)
        }
    };
    Ok(Arc::new(FixedSizeBinaryArray::try_new(
        width as i32,
        values,
        slots.nulls(),
    )?))
}

fn read_list(
    reader: &mut Reader<'_>,
    tag: u8,
    slots: &mut Slots,
    budget: &mut Budget,
) -> Result<ArrayRef, UnpackError> {
    budget.charge(4 * (slots.rows + 1))?;
    let offsets = slots.offsets(reader)?;
    let n = offsets.last().map_or(0, |end| *end as usize);
    let (item, items): (Field, ArrayRef) = match tag {
        tag::LIST_FLOAT64 => {
            budget.charge(n.checked_mul(8).ok_or(ENDS_EARLY)?)?;
            let doubles = read_doubles(reader, n)?;
            (
                Field::new_list_field(DataType::Float64, true),
                Arc::new(Float64Array::from(doubles)),
            )
        }
        tag::LIST_UINT64 => {
            budget.charge(n.checked_mul(8).ok_or(ENDS_EARLY)?)?;
            let numbers: Vec<u64> = Numbers::read(reader, n)?.map(|n| n as u64).collect();
            let items = PrimitiveArray::<UInt64Type>::from(numbers);
            (Field::new_list_field(DataType::UInt64, true), Arc::new(items))
        }
        _ => {
            let mut members = Vec::new();
            for _ in 0..3 {
                let strings = read_texts(reader, n, None, &[], budget)?;
                members.push(Arc::new(string_array(strings, None)?) as ArrayRef);
            }
            let entries = StructArray::try_new(rest_fields(), members, None)?;
            let item = Field::new_list_field(entries.data_type().clone(), false);
            (item, Arc::new(entries))
        }
    };
    Ok(Arc::new(ListArray::try_new(
        Arc::new(item),
        offsets,
        items,
        slots.nulls(),
    )?))
}

/// Which rows of a column have values.
struct Slots {
    rows: usize,
    n: usize,
    present: Option<BooleanBuffer>,
}

impl Slots {
    fn nulls(&mut self) -> Option<NullBuffer> {
        self.present.take().map(NullBuffer::new)
    }

    /// A value for every row: the default where there is none.
    fn spread<T: Default>(&self, mut next: impl FnMut() -> Result<T, Malformed>) -> Result<Vec<T>, Malformed> {
        match &self.present {
            None => (0..self.rows).map(|_| next()).collect(),
            Some(present) => {
                let value = |has| if has { next() } else { Ok(T::default()) };
                present.iter().map(value).collect()
            }
        }
    }

    fn numbers<T: Default + arrow_buffer::ArrowNativeType>(
        &self,
        reader: &mut Reader<'_>,
        width: usize,
        budget: &mut Budget,
        narrow: impl Fn(i64) -> Option<T>,
    ) -> Result<ScalarBuffer<T>, Malformed> {
        budget.charge(width * self.rows)?;
        let mut numbers = Numbers::read(reader, self.n)?;
        let spread = self.spread(|| {
            let number = numbers.next().ok_or(ENDS_EARLY)?;
            narrow(number).ok_or(Malformed("a number does not fit the type of its column"))
        })?;
        Ok(spread.into())
    }

    fn offsets(&self, reader: &mut Reader<'_>) -> Result<OffsetBuffer<i32>, Malformed> {
        let mut lengths = Numbers::read(reader, self.n)?;
        let mut end = 0i32;
        let ends = self.spread(|| {
            let length = lengths.next().and_then(|length| i32::try_from(length).ok());
            end = length
                .filter(|length| *length >= 0)
                .and_then(|length| end.checked_add(length))
                .ok_or(Malformed("lengths of a column are beyond 2 GiB"))?;
            Ok(end)
        })?;
        // A row without a value ends where the one before it ends.
        let mut offsets = Vec::with_capacity(self.rows + 1);
        offsets.push(0);
        for end in ends {
            let before = offsets.last().copied().unwrap_or(0);
            offsets.push(end.max(before));
        }
        Ok(OffsetBuffer::new(offsets.into()))
    }
}

fn dictionary_entries(reader: &mut Reader<'_>, most: usize, budget: &mut Budget) -> Result<StringArray, UnpackError> {
    let n = reader.count(most)?;
    let strings = read_texts(reader, n, None, &[], budget)?;
    Ok(string_array(strings, None)?)
}

fn string_array(strings: Strings, nulls: Option<NullBuffer>) -> Result<StringArray, ArrowError> {
    let offsets = OffsetBuffer::new(strings.ends.into());
    StringArray::try_new(offsets, Buffer::from(strings.data), nulls)
}
