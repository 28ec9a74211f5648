//! A text column that finds out by itself whether a dictionary pays.

use std::hash::BuildHasher as _;
use std::sync::Arc;

use arrow_array::types::{UInt16Type, UInt32Type};
use arrow_array::{ArrayRef, DictionaryArray, PrimitiveArray, StringArray};
use arrow_buffer::{Buffer, NullBuffer, NullBufferBuilder, OffsetBuffer, ScalarBuffer};
use arrow_schema::ArrowError;
use hashbrown::{DefaultHashBuilder, HashTable};

/// Values are looked up in a dictionary at least this long before it can be found useless.
const TRIAL_ROWS: usize = 256;
/// A dictionary is kept while a value occurs at least this often on average.
const MIN_REPEATS: usize = 4;
/// Below this a dictionary message costs more than it saves.
const SMALL_ROWS: usize = 32;
const SMALL_BYTES: usize = 4096;

/// Values are put at rising rows; rows in between become null.
#[derive(Debug)]
pub(crate) struct TextColumn {
    nulls: NullBufferBuilder,
    rows: usize,
    valid: usize,
    repr: Repr,
}

#[derive(Debug)]
enum Repr {
    Plain { ends: Vec<i32>, data: Vec<u8> },
    Dict(Dict),
}

#[derive(Debug, Default)]
struct Dict {
    keys: Vec<u32>,
    ends: Vec<i32>,
    data: Vec<u8>,
    table: HashTable<u32>,
    hasher: DefaultHashBuilder,
    last: u32,
    /// Bytes of all rows if they were written out.
    expanded: usize,
    /// Valid rows at which to look again whether the dictionary pays.
    next_trial: usize,
}

impl Default for TextColumn {
    fn default() -> Self {
        Self {
            nulls: NullBufferBuilder::new(0),
            rows: 0,
            valid: 0,
            repr: Repr::Dict(Dict {
                next_trial: TRIAL_ROWS,
                ..Dict::default()
            }),
        }
    }
}

impl TextColumn {
    /// A column that never uses a dictionary.
    pub(crate) fn plain() -> Self {
        Self {
            repr: Repr::Plain {
                ends: vec![0],
                data: Vec::new(),
            },
            ..Self::default()
        }
    }

    /// As a run of one, which is what most values are.
    pub(crate) fn put(&mut self, row: usize, value: &str) {
        self.pad(row);
        self.nulls.append_non_null();
        self.rows += 1;
        self.valid += 1;
        match &mut self.repr {
            Repr::Plain { ends, data } => {
                data.extend_from_slice(value.as_bytes());
                ends.push(data.len() as i32);
            }
            Repr::Dict(dict) => {
                let key = dict.intern(value);
                dict.keys.push(key);
                dict.expanded += value.len();
                self.look_again();
            }
        }
    }

    /// Gives the dictionary up if it does not pay.
    fn look_again(&mut self) {
        if let Repr::Dict(dict) = &self.repr
            && self.valid >= dict.next_trial
            && dict.ends.len() * MIN_REPEATS > self.valid
        {
            self.try_plain();
        }
    }

    /// The same value for `n` rows from `row` on.
    pub(crate) fn put_run(&mut self, row: usize, n: usize, value: &str) {
        match n {
            0 => return,
            1 => return self.put(row, value),
            _ => {}
        }
        self.pad(row);
        self.nulls.append_n_non_nulls(n);
        self.rows += n;
        self.valid += n;
        match &mut self.repr {
            Repr::Plain { ends, data } => {
                for _ in 0..n {
                    data.extend_from_slice(value.as_bytes());
                    ends.push(data.len() as i32);
                }
            }
            Repr::Dict(dict) => {
                let key = dict.intern(value);
                dict.keys.resize(dict.keys.len() + n, key);
                dict.expanded += n * value.len();
                self.look_again();
            }
        }
    }

    #[inline]
    fn pad(&mut self, row: usize) {
        if row > self.rows {
            self.pad_to(row);
        }
    }

    fn pad_to(&mut self, row: usize) {
        let missing = row - self.rows;
        self.nulls.append_n_nulls(missing);
        self.rows = row;
        match &mut self.repr {
            Repr::Plain { ends, data } => ends.resize(ends.len() + missing, data.len() as i32),
            Repr::Dict(dict) => dict.keys.resize(row, 0),
        }
    }

    /// Writes the dictionary out unless that would blow the column up: one huge value on many rows stays one value.
    fn try_plain(&mut self) {
        let Repr::Dict(dict) = &mut self.repr else {
            return;
        };
        if dict.expanded > dict.data.len() * MIN_REPEATS * 2 + SMALL_BYTES {
            dict.next_trial = self.valid * 2;
            return;
        }
        let mut ends = Vec::with_capacity(self.rows + 1);
        let mut data = Vec::with_capacity(dict.expanded);
        ends.push(0);
        for (row, key) in dict.keys.iter().enumerate() {
            if self.nulls.is_valid(row) {
                data.extend_from_slice(dict.value(*key));
            }
            ends.push(data.len() as i32);
        }
        self.repr = Repr::Plain { ends, data };
    }

    /// The column for `rows` rows; `None` if every one is null.
    pub(crate) fn finish(mut self, rows: usize) -> Result<Option<ArrayRef>, ArrowError> {
        if self.valid == 0 {
            return Ok(None);
        }
        self.pad(rows);
        if let Repr::Dict(dict) = &self.repr
            && (dict.ends.len() * 2 > self.valid || (self.rows < SMALL_ROWS && dict.expanded < SMALL_BYTES))
        {
            self.try_plain();
        }
        let nulls = self.nulls.finish();
        Ok(Some(match self.repr {
            Repr::Plain { ends, data } => Arc::new(strings(ends, data, nulls)?),
            Repr::Dict(dict) => dict.finish(nulls)?,
        }))
    }
}

impl Dict {
    fn value(&self, key: u32) -> &[u8] {
        value_of(&self.ends, &self.data, key)
    }

    fn intern(&mut self, value: &str) -> u32 {
        let bytes = value.as_bytes();
        if !self.ends.is_empty() && self.value(self.last) == bytes {
            return self.last;
        }
        let hash = self.hasher.hash_one(bytes);
        let Self {
            ends,
            data,
            table,
            hasher,
            ..
        } = self;
        if let Some(key) = table.find(hash, |key| value_of(ends, data, *key) == bytes) {
            self.last = *key;
            return self.last;
        }
        let key = ends.len() as u32;
        data.extend_from_slice(bytes);
        ends.push(data.len() as i32);
        table.insert_unique(hash, key, |key| hasher.hash_one(value_of(ends, data, *key)));
        self.last = key;
        key
    }

    fn finish(self, nulls: Option<NullBuffer>) -> Result<ArrayRef, ArrowError> {
        let narrow = self.ends.len() <= usize::from(u16::MAX) + 1;
        let mut ends = self.ends;
        ends.insert(0, 0);
        let values = Arc::new(strings(ends, self.data, None)?);
        Ok(if narrow {
            let keys: Vec<u16> = self.keys.iter().map(|k| *k as u16).collect();
            Arc::new(DictionaryArray::<UInt16Type>::try_new(
                PrimitiveArray::new(ScalarBuffer::from(keys), nulls),
                values,
            )?)
        } else {
            let keys = PrimitiveArray::new(ScalarBuffer::from(self.keys), nulls);
            Arc::new(DictionaryArray::<UInt32Type>::try_new(keys, values)?)
        })
    }
}

fn value_of<'a>(ends: &[i32], data: &'a [u8], key: u32) -> &'a [u8] {
    let key = key as usize;
    let start = if key == 0 { 0 } else { ends[key - 1] as usize };
    &data[start..ends[key] as usize]
}

/// `offsets` begin with 0. Fails if the text passed 2 GiB, or is not UTF-8.
pub(crate) fn strings(offsets: Vec<i32>, data: Vec<u8>, nulls: Option<NullBuffer>) -> Result<StringArray, ArrowError> {
    if i32::try_from(data.len()).is_err() {
        return Err(ArrowError::OffsetOverflowError(data.len()));
    }
    StringArray::try_new(
        OffsetBuffer::new(ScalarBuffer::from(offsets)),
        Buffer::from_vec(data),
        nulls,
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::layout::cells::Texts;
    use proptest::prelude::*;

    fn build(runs: &[(usize, usize, String)]) -> (Vec<Option<&str>>, Option<ArrayRef>) {
        let mut column = TextColumn::default();
        let mut model = Vec::new();
        for (gap, n, value) in runs {
            model.resize(model.len() + gap, None);
            column.put_run(model.len(), *n, value);
            model.resize(model.len() + n, Some(value.as_str()));
        }
        model.push(None);
        let array = column.finish(model.len()).unwrap();
        (model, array)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn holds_what_was_put_with_or_without_a_dictionary(
            runs in prop::collection::vec((0usize..3, 0usize..4, "[a-c]{0,3}|[a-z]{8}"), 0..600)
        ) {
            let (model, array) = build(&runs);
            match array {
                None => prop_assert!(model.iter().all(Option::is_none)),
                Some(array) => {
                    let texts = Texts::of(array.as_ref()).unwrap();
                    prop_assert_eq!((0..texts.len()).map(|row| texts.get(row)).collect::<Vec<_>>(), model.clone());
                    let mut seen = vec![None; model.len()];
                    texts.each_run(|row, n, text| seen[row..row + n].fill(Some(text)));
                    prop_assert_eq!(seen, model);
                }
            }
        }
    }

    #[test]
    fn values_that_do_not_repeat_get_no_dictionary_and_those_that_do_get_one() {
        let distinct: Vec<_> = (0..1000).map(|i| (0, 1, format!("value-{i}"))).collect();
        assert!(matches!(
            Texts::of(build(&distinct).1.unwrap().as_ref()),
            Some(Texts::Plain(_))
        ));
        let repeating: Vec<_> = (0..1000).map(|i| (0, 1, format!("value-{}", i % 9))).collect();
        assert!(matches!(
            Texts::of(build(&repeating).1.unwrap().as_ref()),
            Some(Texts::Dict16(..))
        ));
    }

    #[test]
    fn p15_one_huge_value_on_many_rows_stays_one_value() {
        let mut runs = vec![(0, 2000, "x".repeat(100_000))];
        runs.extend((0..2000).map(|i| (0, 1, format!("value-{i}"))));
        let array = build(&runs).1.unwrap();
        assert!(array.get_array_memory_size() < 1_000_000);
    }
}
