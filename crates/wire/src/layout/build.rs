//! Column builders that are filled at rising rows and leave null what nobody filled.

use std::sync::Arc;

use arrow_array::types::ArrowPrimitiveType;
use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, FixedSizeBinaryArray, ListArray, PrimitiveArray, StructArray,
};
use arrow_buffer::{BooleanBufferBuilder, Buffer, NullBufferBuilder, OffsetBuffer, ScalarBuffer};
use arrow_schema::{ArrowError, DataType, Field};

use super::columns::{rest_fields, rest_type};
use super::text::strings;

/// Numbers.
#[derive(Debug)]
pub(crate) struct Numbers<T: ArrowPrimitiveType> {
    values: Vec<T::Native>,
    nulls: NullBufferBuilder,
}

impl<T: ArrowPrimitiveType> Default for Numbers<T> {
    fn default() -> Self {
        Self {
            values: Vec::new(),
            nulls: NullBufferBuilder::new(0),
        }
    }
}

impl<T: ArrowPrimitiveType> Numbers<T> {
    pub(crate) fn put(&mut self, row: usize, value: T::Native) {
        self.pad(row);
        self.values.push(value);
        self.nulls.append_non_null();
    }

    pub(crate) fn put_run(&mut self, row: usize, n: usize, value: T::Native) {
        if n == 0 {
            return;
        }
        self.pad(row);
        self.values.resize(row + n, value);
        self.nulls.append_n_non_nulls(n);
    }

    fn pad(&mut self, row: usize) {
        if row > self.values.len() {
            self.nulls.append_n_nulls(row - self.values.len());
            self.values.resize(row, T::default_value());
        }
    }

    pub(crate) fn finish(mut self, rows: usize) -> Option<ArrayRef> {
        if self.values.is_empty() {
            return None;
        }
        self.pad(rows);
        Some(Arc::new(PrimitiveArray::<T>::new(
            ScalarBuffer::from(self.values),
            self.nulls.finish(),
        )))
    }
}

/// Truth values.
#[derive(Debug)]
pub(crate) struct Bools {
    values: BooleanBufferBuilder,
    nulls: NullBufferBuilder,
}

impl Default for Bools {
    fn default() -> Self {
        Self {
            values: BooleanBufferBuilder::new(0),
            nulls: NullBufferBuilder::new(0),
        }
    }
}

impl Bools {
    pub(crate) fn put(&mut self, row: usize, value: bool) {
        self.put_run(row, 1, value);
    }

    pub(crate) fn put_run(&mut self, row: usize, n: usize, value: bool) {
        if n == 0 {
            return;
        }
        self.pad(row);
        self.values.append_n(n, value);
        self.nulls.append_n_non_nulls(n);
    }

    fn pad(&mut self, row: usize) {
        let missing = row.saturating_sub(self.values.len());
        if missing > 0 {
            self.values.append_n(missing, false);
            self.nulls.append_n_nulls(missing);
        }
    }

    pub(crate) fn finish(mut self, rows: usize) -> Option<ArrayRef> {
        if self.values.is_empty() {
            return None;
        }
        self.pad(rows);
        Some(Arc::new(BooleanArray::new(self.values.finish(), self.nulls.finish())))
    }
}

/// Ids of `N` bytes.
#[derive(Debug)]
pub(crate) struct Ids<const N: usize> {
    bytes: Vec<u8>,
    nulls: NullBufferBuilder,
}

impl<const N: usize> Default for Ids<N> {
    fn default() -> Self {
        Self {
            bytes: Vec::new(),
            nulls: NullBufferBuilder::new(0),
        }
    }
}

impl<const N: usize> Ids<N> {
    pub(crate) fn put(&mut self, row: usize, id: &[u8; N]) {
        self.pad(row);
        self.bytes.extend_from_slice(id);
        self.nulls.append_non_null();
    }

    fn pad(&mut self, row: usize) {
        let have = self.bytes.len() / N;
        if row > have {
            self.nulls.append_n_nulls(row - have);
            self.bytes.resize(row * N, 0);
        }
    }

    pub(crate) fn finish(mut self, rows: usize) -> Result<Option<ArrayRef>, ArrowError> {
        if self.bytes.is_empty() {
            return Ok(None);
        }
        self.pad(rows);
        let array = FixedSizeBinaryArray::try_new(N as i32, Buffer::from_vec(self.bytes), self.nulls.finish())?;
        Ok(Some(Arc::new(array)))
    }
}

/// Bytes of any length.
#[derive(Debug)]
pub(crate) struct Blobs {
    offsets: Vec<i32>,
    data: Vec<u8>,
    nulls: NullBufferBuilder,
}

impl Default for Blobs {
    fn default() -> Self {
        Self {
            offsets: vec![0],
            data: Vec::new(),
            nulls: NullBufferBuilder::new(0),
        }
    }
}

impl Blobs {
    pub(crate) fn put_run(&mut self, row: usize, n: usize, value: &[u8]) {
        if n == 0 {
            return;
        }
        self.pad(row);
        for _ in 0..n {
            self.data.extend_from_slice(value);
            self.offsets.push(self.data.len() as i32);
        }
        self.nulls.append_n_non_nulls(n);
    }

    fn pad(&mut self, row: usize) {
        let missing = row.saturating_sub(self.offsets.len() - 1);
        if missing > 0 {
            self.offsets.resize(row + 1, self.data.len() as i32);
            self.nulls.append_n_nulls(missing);
        }
    }

    pub(crate) fn finish(mut self, rows: usize) -> Result<Option<ArrayRef>, ArrowError> {
        if self.offsets.len() == 1 {
            return Ok(None);
        }
        self.pad(rows);
        let data = Buffer::from_vec(self.data);
        if i32::try_from(data.len()).is_err() {
            return Err(ArrowError::OffsetOverflowError(data.len()));
        }
        let offsets = OffsetBuffer::new(ScalarBuffer::from(self.offsets));
        Ok(Some(Arc::new(BinaryArray::try_new(
            offsets,
            data,
            self.nulls.finish(),
        )?)))
    }
}

/// Lists of numbers; an empty list is null.
#[derive(Debug)]
pub(crate) struct Lists<T: ArrowPrimitiveType> {
    offsets: Vec<i32>,
    values: Vec<T::Native>,
    nulls: NullBufferBuilder,
}

impl<T: ArrowPrimitiveType> Default for Lists<T> {
    fn default() -> Self {
        Self {
            offsets: vec![0],
            values: Vec::new(),
            nulls: NullBufferBuilder::new(0),
        }
    }
}

impl<T: ArrowPrimitiveType> Lists<T> {
    pub(crate) fn put(&mut self, row: usize, items: &[T::Native]) {
        if items.is_empty() {
            return;
        }
        self.pad(row);
        self.values.extend_from_slice(items);
        self.offsets.push(self.values.len() as i32);
        self.nulls.append_non_null();
    }

    fn pad(&mut self, row: usize) {
        let missing = row.saturating_sub(self.offsets.len() - 1);
        if missing > 0 {
            self.offsets.resize(row + 1, self.values.len() as i32);
            self.nulls.append_n_nulls(missing);
        }
    }

    pub(crate) fn finish(mut self, rows: usize) -> Result<Option<ArrayRef>, ArrowError> {
        if self.offsets.len() == 1 {
            return Ok(None);
        }
        self.pad(rows);
        let items = Arc::new(PrimitiveArray::<T>::new(ScalarBuffer::from(self.values), None));
        let field = Arc::new(Field::new_list_field(T::DATA_TYPE, true));
        let offsets = OffsetBuffer::new(ScalarBuffer::from(self.offsets));
        Ok(Some(Arc::new(ListArray::try_new(
            field,
            offsets,
            items,
            self.nulls.finish(),
        )?)))
    }
}

/// `<group>:*`: entries of key, type and text.
#[derive(Debug, Default)]
pub(crate) struct Rest {
    /// One more than rows once there is a first entry.
    offsets: Vec<i32>,
    valid: Vec<bool>,
    members: [RestMember; 3],
}

#[derive(Debug)]
struct RestMember {
    offsets: Vec<i32>,
    data: Vec<u8>,
}

impl Default for RestMember {
    fn default() -> Self {
        Self {
            offsets: vec![0],
            data: Vec::new(),
        }
    }
}

impl Rest {
    /// One more entry for a row; rows rise, entries of one row come one after the other.
    pub(crate) fn put(&mut self, row: usize, entry: [&str; 3]) {
        if self.offsets.is_empty() {
            self.offsets.push(0);
        }
        while self.valid.len() <= row {
            self.valid.push(false);
            self.offsets.push(self.entries());
        }
        for (member, text) in self.members.iter_mut().zip(entry) {
            member.data.extend_from_slice(text.as_bytes());
            member.offsets.push(member.data.len() as i32);
        }
        self.valid[row] = true;
        self.offsets[row + 1] = self.entries();
    }

    fn entries(&self) -> i32 {
        (self.members[0].offsets.len() - 1) as i32
    }

    pub(crate) fn finish(mut self, rows: usize) -> Result<Option<ArrayRef>, ArrowError> {
        if self.offsets.is_empty() {
            return Ok(None);
        }
        self.valid.resize(rows, false);
        self.offsets.resize(rows + 1, self.entries());
        let members = self
            .members
            .into_iter()
            .map(|m| Ok(Arc::new(strings(m.offsets, m.data, None)?) as ArrayRef))
            .collect::<Result<Vec<_>, ArrowError>>()?;
        let entries = StructArray::try_new(rest_fields(), members, None)?;
        let DataType::List(field) = rest_type() else {
            return Err(ArrowError::SchemaError("not a list".into()));
        };
        let offsets = OffsetBuffer::new(ScalarBuffer::from(self.offsets));
        let nulls = arrow_buffer::NullBuffer::from(self.valid);
        let list = ListArray::try_new(field, offsets, Arc::new(entries), Some(nulls))?;
        Ok(Some(Arc::new(list)))
    }
}

/// Whether any row of a column is not null.
pub(crate) fn has_values(column: &dyn Array) -> bool {
    column.null_count() < column.len()
}
