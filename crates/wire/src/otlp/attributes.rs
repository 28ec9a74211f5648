//! Attribute columns while a request is read: which key has which column, and what has none.

use std::hash::BuildHasher as _;

use arrow_array::ArrayRef;
use arrow_array::types::{Float64Type, Int64Type};
use arrow_schema::ArrowError;
use hashbrown::{DefaultHashBuilder, HashTable};

use super::any::{Any, Depth, read_raw_pair};
use super::proto::Reader;
use super::{DecodeError, DecodeLimits, SHARED_BYTES};
use crate::layout::build::{Blobs, Bools, Numbers, Rest};
use crate::layout::text::TextColumn;
use crate::layout::{AttrKind, Group, column_name, rest_name};
use crate::limits::{MAX_COLUMN_KEY_BYTES, MAX_VALUE_DEPTH};
use crate::value;

const NONE: u32 = u32::MAX;

/// All attribute columns of a batch.
pub(super) struct Attributes<'a> {
    keys: Vec<Key<'a>>,
    table: HashTable<u32>,
    hasher: DefaultHashBuilder,
    columns: Vec<Column>,
    rest: [Rest; 3],
    /// Which key began the last set of a group: sets of one sender look alike, so the next key is guessed before it is looked up.
    first: [u32; 3],
    /// Number of the set that is being read; tells a repeated key from a new set.
    set: u64,
    /// Keys without a column of this set.
    strangers: HashTable<&'a str>,
    max_columns: usize,
    max_attributes: usize,
    pub(super) depth: Depth,
    /// Bytes that shared values may still take once they are counted for every row.
    budget: usize,
    max_expanded: usize,
    scratch: Vec<u8>,
}

struct Key<'a> {
    group: Group,
    text: &'a str,
    columns: [u32; AttrKind::ALL.len()],
    last_set: u64,
    /// The key that came after this one the last time.
    next: u32,
}

struct Column {
    key: u32,
    kind: AttrKind,
    values: Values,
}

enum Values {
    Text(TextColumn),
    Int(Numbers<Int64Type>),
    Double(Numbers<Float64Type>),
    Bool(Bools),
    Bytes(Blobs),
}

/// Where an attribute goes.
#[derive(Clone, Copy)]
enum Place {
    Column(u32),
    Rest,
    Duplicate,
}

/// The attributes of a resource or a scope: read before its rows, written for all of them afterwards.
#[derive(Default)]
pub(super) struct SharedSet<'a> {
    group: Option<Group>,
    columns: Vec<(u32, Any<'a>)>,
    rest: Vec<(&'a str, Any<'a>)>,
    /// `["key",value],…` for `duplicate_attrs`.
    pub(super) duplicates: Vec<u8>,
}

impl<'a> Attributes<'a> {
    pub(super) fn new(limits: &DecodeLimits, rows: usize) -> Self {
        let max_columns = limits.max_columns.min(limits.max_cells / rows.max(1));
        Self {
            keys: Vec::new(),
            table: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            columns: Vec::new(),
            rest: Default::default(),
            first: [NONE; 3],
            set: 0,
            strangers: HashTable::new(),
            max_columns,
            max_attributes: limits.max_attributes,
            depth: Depth::new(limits.max_depth.min(MAX_VALUE_DEPTH)),
            budget: limits.max_expanded_bytes,
            max_expanded: limits.max_expanded_bytes,
            scratch: Vec::new(),
        }
    }

    /// Puts the attributes of one row. What repeats a key is appended to `duplicates`.
    pub(super) fn put_row(
        &mut self,
        row: usize,
        pairs: &[Reader<'a>],
        duplicates: &mut Vec<u8>,
    ) -> Result<(), DecodeError> {
        let mut previous = self.begin(pairs.len())?;
        for pair in pairs {
            let (key, any) = read_raw_pair(*pair)?;
            match self.place(Group::Attrs, key, any.kind(), &mut previous)? {
                Place::Column(column) => self.put(column, row, 1, &any)?,
                Place::Rest => {
                    self.scratch.clear();
                    any.write_text(&mut self.scratch, self.depth)?;
                    self.rest[0].put(row, [stranger(key)?, any.type_name(), utf8(&self.scratch)?]);
                }
                Place::Duplicate => write_duplicate(duplicates, stranger(key)?, &any, self.depth)?,
            }
        }
        Ok(())
    }

    /// Reads the attributes of a resource or scope.
    pub(super) fn read_shared(&mut self, group: Group, pairs: &[Reader<'a>]) -> Result<SharedSet<'a>, DecodeError> {
        let mut set = SharedSet {
            group: Some(group),
            ..SharedSet::default()
        };
        let mut previous = self.begin(pairs.len())?;
        for pair in pairs {
            let (key, any) = read_raw_pair(*pair)?;
            match self.place(group, key, any.kind(), &mut previous)? {
                Place::Column(column) => set.columns.push((column, any)),
                Place::Rest => set.rest.push((stranger(key)?, any)),
                Place::Duplicate => write_duplicate(&mut set.duplicates, stranger(key)?, &any, self.depth)?,
            }
        }
        Ok(set)
    }

    /// Writes a shared set for the `n` rows from `row` on.
    pub(super) fn put_shared(&mut self, set: &SharedSet<'a>, row: usize, n: usize) -> Result<(), DecodeError> {
        for (column, any) in &set.columns {
            self.put(*column, row, n, any)?;
        }
        let Some(group) = set.group else {
            return Ok(());
        };
        for row in row..row + n {
            for (key, any) in &set.rest {
                self.scratch.clear();
                any.write_text(&mut self.scratch, self.depth)?;
                self.charge(1, key.len() + self.scratch.len())?;
                self.rest[group as usize].put(row, [key, any.type_name(), utf8(&self.scratch)?]);
            }
        }
        Ok(())
    }

    /// Counts `bytes` for each of `n` rows that share them.
    pub(super) fn charge(&mut self, n: usize, bytes: usize) -> Result<(), DecodeError> {
        match self.budget.checked_sub(n.saturating_mul(bytes)) {
            Some(left) => {
                self.budget = left;
                Ok(())
            }
            None => Err(DecodeError::Limit {
                limit: SHARED_BYTES,
                max: self.max_expanded,
            }),
        }
    }

    fn begin(&mut self, attributes: usize) -> Result<u32, DecodeError> {
        if attributes > self.max_attributes {
            return Err(DecodeError::Limit {
                limit: "attributes of one set",
                max: self.max_attributes,
            });
        }
        self.set += 1;
        if !self.strangers.is_empty() {
            self.strangers.clear();
        }
        Ok(NONE)
    }

    fn place(
        &mut self,
        group: Group,
        key: Reader<'a>,
        kind: AttrKind,
        previous: &mut u32,
    ) -> Result<Place, DecodeError> {
        let Some(index) = self.find(group, key, *previous)? else {
            let text = stranger(key)?;
            let hash = self.hasher.hash_one(text.as_bytes());
            if self.strangers.find(hash, |k| *k == text).is_some() {
                return Ok(Place::Duplicate);
            }
            let hasher = &self.hasher;
            self.strangers
                .insert_unique(hash, text, |k| hasher.hash_one(k.as_bytes()));
            return Ok(Place::Rest);
        };
        match *previous {
            NONE => self.first[group as usize] = index,
            previous => self.keys[previous as usize].next = index,
        }
        *previous = index;
        let key = &mut self.keys[index as usize];
        if key.last_set == self.set {
            return Ok(Place::Duplicate);
        }
        key.last_set = self.set;
        let column = &mut key.columns[kind as usize];
        if *column == NONE {
            if self.columns.len() >= self.max_columns {
                return Ok(Place::Rest);
            }
            *column = self.columns.len() as u32;
            self.columns.push(Column {
                key: index,
                kind,
                values: Values::new(kind),
            });
        }
        Ok(Place::Column(*column))
    }

    /// The key's number; `None` if it has none and gets none.
    fn find(&mut self, group: Group, key: Reader<'a>, previous: u32) -> Result<Option<u32>, DecodeError> {
        let bytes = key.rest();
        let guess = if previous == NONE {
            self.first[group as usize]
        } else {
            self.keys[previous as usize].next
        };
        if let Some(guessed) = self.keys.get(guess as usize)
            && guessed.text.as_bytes() == bytes
            && guessed.group == group
        {
            return Ok(Some(guess));
        }
        let Self {
            table, keys, hasher, ..
        } = self;
        let hash = hasher.hash_one((group as u8, bytes));
        let same = |index: &u32| {
            let key = &keys[*index as usize];
            key.group == group && key.text.as_bytes() == bytes
        };
        if let Some(index) = table.find(hash, same) {
            return Ok(Some(*index));
        }
        if self.columns.len() >= self.max_columns || bytes.len() > MAX_COLUMN_KEY_BYTES {
            return Ok(None);
        }
        let index = keys.len() as u32;
        keys.push(Key {
            group,
            text: stranger(key)?,
            columns: [NONE; AttrKind::ALL.len()],
            last_set: 0,
            next: NONE,
        });
        table.insert_unique(hash, index, |index| {
            let key = &keys[*index as usize];
            hasher.hash_one((key.group as u8, key.text.as_bytes()))
        });
        Ok(Some(index))
    }

    fn put(&mut self, column: u32, row: usize, n: usize, any: &Any<'a>) -> Result<(), DecodeError> {
        if n > 1 {
            self.charge_value(n, any)?;
            let key = self.columns[column as usize].key;
            self.charge(n, self.keys[key as usize].text.len())?;
        }
        match (&mut self.columns[column as usize].values, any) {
            (Values::Text(column), Any::Text(text)) => column.put_run(row, n, text),
            (Values::Int(column), Any::Int(int)) => column.put_run(row, n, *int),
            (Values::Double(column), Any::Double(double)) => column.put_run(row, n, *double),
            (Values::Bool(column), Any::Bool(truth)) => column.put_run(row, n, *truth),
            (Values::Bool(column), Any::Null) => column.put_run(row, n, true),
            (Values::Bytes(column), Any::Bytes(bytes)) => column.put_run(row, n, bytes),
            (Values::Text(column), any) => {
                self.scratch.clear();
                any.write_json(&mut self.scratch, self.depth)?;
                column.put_run(row, n, utf8(&self.scratch)?);
            }
            // A column is chosen by the kind of the value.
            _ => {
                return Err(DecodeError::Build("attribute in a column of another kind".into()));
            }
        }
        Ok(())
    }

    fn charge_value(&mut self, n: usize, any: &Any<'a>) -> Result<(), DecodeError> {
        match any {
            Any::Text(text) => self.charge(n, text.len()),
            Any::Bytes(bytes) => self.charge(n, bytes.len()),
            Any::Array(_) | Any::Kvlist(_) => {
                self.scratch.clear();
                any.write_json(&mut self.scratch, self.depth)?;
                self.charge(n, self.scratch.len())
            }
            Any::Int(_) | Any::Double(_) | Any::Bool(_) | Any::Null => Ok(()),
        }
    }

    /// The columns by group, each group in the order in which its keys first came.
    pub(super) fn finish(self, rows: usize) -> Result<Vec<(String, ArrayRef)>, ArrowError> {
        let mut columns: Vec<_> = self
            .columns
            .into_iter()
            .map(|c| (&self.keys[c.key as usize], c))
            .collect();
        columns.sort_by_key(|(key, _)| key.group);
        let mut rest = self.rest.into_iter().zip(Group::ALL);
        let mut out = Vec::with_capacity(columns.len());
        let mut columns = columns.into_iter().peekable();
        for group in Group::ALL {
            while let Some((key, column)) = columns.next_if(|(key, _)| key.group == group) {
                if let Some(array) = column.values.finish(rows)? {
                    out.push((column_name(group, column.kind, key.text), array));
                }
            }
            if let Some((entries, _)) = rest.next()
                && let Some(array) = entries.finish(rows)?
            {
                out.push((rest_name(group), array));
            }
        }
        Ok(out)
    }
}

impl Values {
    fn new(kind: AttrKind) -> Self {
        match kind {
            AttrKind::String => Self::Text(TextColumn::default()),
            AttrKind::Json => Self::Text(TextColumn::plain()),
            AttrKind::Int => Self::Int(Numbers::default()),
            AttrKind::Double => Self::Double(Numbers::default()),
            AttrKind::Bool | AttrKind::Null => Self::Bool(Bools::default()),
            AttrKind::Bytes => Self::Bytes(Blobs::default()),
        }
    }

    fn finish(self, rows: usize) -> Result<Option<ArrayRef>, ArrowError> {
        match self {
            Self::Text(column) => column.finish(rows),
            Self::Int(column) => Ok(column.finish(rows)),
            Self::Double(column) => Ok(column.finish(rows)),
            Self::Bool(column) => Ok(column.finish(rows)),
            Self::Bytes(column) => column.finish(rows),
        }
    }
}

fn write_duplicate(out: &mut Vec<u8>, key: &str, any: &Any<'_>, depth: Depth) -> Result<(), DecodeError> {
    if !out.is_empty() {
        out.push(b',');
    }
    out.push(b'[');
    value::write_json_string(out, key);
    out.push(b',');
    any.write_json(out, depth)?;
    out.push(b']');
    Ok(())
}

/// The text of a key that is not known yet, so it was not checked yet either.
fn stranger<'a>(key: Reader<'a>) -> Result<&'a str, DecodeError> {
    key.whole_text()
}

/// Our own writers write text only; checked all the same, because the type system does not know.
pub(super) fn utf8(bytes: &[u8]) -> Result<&str, DecodeError> {
    std::str::from_utf8(bytes).map_err(|_| DecodeError::Build("text of a value is not UTF-8".into()))
}
