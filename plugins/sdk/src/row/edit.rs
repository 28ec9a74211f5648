//! Changes of rows, gathered per column and carried out once per batch.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Deref;
use std::sync::Arc;

use arrow_array::builder::{BooleanBuilder, PrimitiveBuilder, StringBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::{ArrowPrimitiveType, Float64Type, Int32Type, Int64Type};
use arrow_array::{Array, ArrayRef};

use super::columns::Group;
use super::without::{bytes_without, without};
use super::{Decision, Row, Value};
use crate::field::NONE;
use crate::{Batch, Outcome, Text, dictionary, names};

/// A row that can be changed. Reading shows the row as it came, whatever was set since.
#[derive(Debug)]
pub struct RowMut<'a> {
    row: Row<'a>,
    edits: &'a RefCell<Edits>,
    decision: Decision,
}

impl<'a> Deref for RowMut<'a> {
    type Target = Row<'a>;

    fn deref(&self) -> &Row<'a> {
        &self.row
    }
}

impl<'a> RowMut<'a> {
    pub(super) fn new(row: Row<'a>, edits: &'a RefCell<Edits>) -> Self {
        RowMut {
            row,
            edits,
            decision: Decision::Keep,
        }
    }

    pub(super) fn decision(&self) -> Decision {
        self.decision
    }

    /// Drops the row.
    pub fn drop(&mut self, reason: &'static str) {
        self.decision = Decision::Drop(reason);
    }

    /// Sets the row aside.
    pub fn quarantine(&mut self, reason: &'static str) {
        self.decision = Decision::Quarantine(reason);
    }

    /// The type of the body stays: give JSON where it is an array or object.
    pub fn set_body(&mut self, text: impl Into<String>) {
        self.set("body", Kind::Text, Cell::Text(text.into()));
    }

    pub fn set_name(&mut self, text: impl Into<String>) {
        self.set("name", Kind::Text, Cell::Text(text.into()));
    }

    pub fn set_severity(&mut self, severity: i32) {
        self.set("severity", Kind::Int32, Cell::Int(severity.into()));
    }

    pub fn set_severity_text(&mut self, text: impl Into<String>) {
        self.set("severity_text", Kind::Text, Cell::Text(text.into()));
    }

    pub fn set_status(&mut self, status: impl Into<String>) {
        self.set("status", Kind::Text, Cell::Text(status.into()));
    }

    pub fn set_status_message(&mut self, text: impl Into<String>) {
        self.set("status_message", Kind::Text, Cell::Text(text.into()));
    }

    /// How many events the row stands for.
    pub fn set_weight(&mut self, weight: f64) {
        self.set("weight", Kind::Double, Cell::Double(weight));
    }

    /// The resource's `service.name`.
    pub fn set_service(&mut self, name: impl Into<String>) {
        self.set_attribute(Group::Resource, "service.name", Value::from(name.into()));
    }

    /// The resource's `host.name`.
    pub fn set_host(&mut self, name: impl Into<String>) {
        self.set_attribute(Group::Resource, "host.name", Value::from(name.into()));
    }

    /// Sets an attribute, whatever scalar type it had before.
    pub fn set_attr<'v>(&mut self, key: &str, value: impl Into<Value<'v>>) {
        self.set_attribute(Group::Attrs, key, value.into());
    }

    pub fn set_resource<'v>(&mut self, key: &str, value: impl Into<Value<'v>>) {
        self.set_attribute(Group::Resource, key, value.into());
    }

    pub fn set_scope<'v>(&mut self, key: &str, value: impl Into<Value<'v>>) {
        self.set_attribute(Group::Scope, key, value.into());
    }

    pub fn remove_attr(&mut self, key: &str) {
        self.set_attribute(Group::Attrs, key, Value::Absent);
    }

    pub fn remove_resource(&mut self, key: &str) {
        self.set_attribute(Group::Resource, key, Value::Absent);
    }

    pub fn remove_scope(&mut self, key: &str) {
        self.set_attribute(Group::Scope, key, Value::Absent);
    }

    fn set(&mut self, column: &str, kind: Kind, cell: Cell) {
        self.edits.borrow_mut().set(column, kind, self.row.index, cell);
    }

    fn set_attribute(&mut self, group: Group, key: &str, value: Value<'_>) {
        let column = |letter: char| format!("{}:{letter}:{key}", group.name());
        let target = match value {
            Value::Absent => None,
            Value::Text(text) => Some(('s', Cell::Text(text.into_owned()))),
            Value::Int(number) => Some(('i', Cell::Int(number))),
            Value::Double(number) => Some(('d', Cell::Double(number))),
            Value::Bool(value) => Some(('b', Cell::Bool(value))),
        };
        // One key has one value: what it had under another type goes.
        let (present, rare) = self.row.columns.places(group, key, self.row.index);
        let new = target.as_ref().map(|(letter, _)| *letter);
        for letter in present.into_iter().flatten().filter(|letter| Some(*letter) != new) {
            self.set(&column(letter), Kind::of(letter), Cell::Null);
        }
        if rare {
            self.edits.borrow_mut().remove_rare(group, key, self.row.index);
        }
        if let Some((letter, cell)) = target {
            self.set(&column(letter), Kind::of(letter), cell);
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Text,
    Int32,
    Int64,
    Double,
    Bool,
    /// Only ever taken away.
    Bytes,
}

impl Kind {
    /// Of an attribute column of this type letter.
    fn of(letter: char) -> Kind {
        match letter {
            'i' => Kind::Int64,
            'd' => Kind::Double,
            'b' | 'n' => Kind::Bool,
            'y' => Kind::Bytes,
            _ => Kind::Text,
        }
    }
}

#[derive(Clone, Debug)]
enum Cell {
    Null,
    Text(String),
    Int(i64),
    Double(f64),
    Bool(bool),
}

/// The new cells of one column, by row.
#[derive(Debug)]
struct Edit {
    column: String,
    kind: Kind,
    cells: Vec<(usize, Cell)>,
}

/// All changes of one batch.
#[derive(Debug, Default)]
pub(super) struct Edits {
    reads: Vec<String>,
    writes: Vec<String>,
    edits: Vec<Edit>,
    /// Entries of rare attributes that go: group, row, key.
    rare: Vec<(Group, usize, String)>,
    mistake: Option<String>,
}

impl Edits {
    pub(super) fn new(reads: &[String], writes: &[String]) -> Self {
        Edits {
            reads: reads.to_vec(),
            writes: writes.to_vec(),
            edits: Vec::new(),
            rare: Vec::new(),
            mistake: None,
        }
    }

    fn set(&mut self, column: &str, kind: Kind, row: usize, cell: Cell) {
        let place = match self.edits.iter().position(|edit| edit.column == column) {
            Some(place) => place,
            None => {
                self.check(column);
                self.edits.push(Edit {
                    column: column.to_owned(),
                    kind,
                    cells: Vec::new(),
                });
                self.edits.len() - 1
            }
        };
        let cells = &mut self.edits[place].cells;
        match cells.last_mut() {
            Some((last, old)) if *last == row => *old = cell,
            _ => cells.push((row, cell)),
        }
    }

    fn remove_rare(&mut self, group: Group, key: &str, row: usize) {
        self.check(&format!("{}:*", group.name()));
        self.rare.push((group, row, key.to_owned()));
    }

    /// The rows that keep their value can only be given back by who was given them.
    fn check(&mut self, column: &str) {
        let mistake = if !names::declared(&self.writes, column) {
            format!("changes `{column}`, which is not declared: add it, or the name that stands for it, to `writes`")
        } else if !names::declared(&self.reads, column) {
            format!(
                "changes `{column}` without reading it, so the rows that keep theirs would lose it: add it, or the name that stands \
                 for it, to `reads`"
            )
        } else {
            return;
        };
        self.mistake.get_or_insert(mistake);
    }

    /// The outcome with the changed columns.
    pub(super) fn finish(self, batch: &Batch, mut outcome: Outcome) -> Result<Outcome, String> {
        if let Some(mistake) = self.mistake {
            return Err(mistake);
        }
        for edit in self.edits {
            let values = edit.carry_out(batch)?;
            outcome = outcome.column(edit.column, values);
        }
        for group in [Group::Attrs, Group::Resource, Group::Scope] {
            let gone: Vec<(usize, &str)> = self
                .rare
                .iter()
                .filter(|(other, _, _)| *other == group)
                .map(|(_, row, key)| (*row, key.as_str()))
                .collect();
            let column = format!("{}:*", group.name());
            if let Some(lists) = batch.column(&column).filter(|_| !gone.is_empty()) {
                outcome = outcome.column(column, without(lists, &gone)?);
            }
        }
        Ok(outcome)
    }
}

impl Edit {
    fn carry_out(&self, batch: &Batch) -> Result<ArrayRef, String> {
        match self.kind {
            Kind::Text => self.texts(&batch.text(&self.column)?, batch.rows()),
            Kind::Int32 => self.numbers::<Int32Type>(batch, |cell| match cell {
                Cell::Int(number) => i32::try_from(*number).ok(),
                _ => None,
            }),
            Kind::Int64 => self.numbers::<Int64Type>(batch, |cell| match cell {
                Cell::Int(number) => Some(*number),
                _ => None,
            }),
            Kind::Double => self.numbers::<Float64Type>(batch, |cell| match cell {
                Cell::Double(number) => Some(*number),
                _ => None,
            }),
            Kind::Bytes => {
                let gone = |row: usize| self.cells.binary_search_by_key(&row, |(at, _)| *at).is_ok();
                bytes_without(batch.column(&self.column), batch.rows(), gone)
            }
            Kind::Bool => {
                let old = batch.bools(&self.column)?;
                let mut new = BooleanBuilder::with_capacity(batch.rows());
                let mut cells = self.cells.iter().peekable();
                for row in 0..batch.rows() {
                    new.append_option(match cells.next_if(|(at, _)| *at == row) {
                        Some((_, Cell::Bool(value))) => Some(*value),
                        Some(_) => None,
                        None => old.filter(|old| old.is_valid(row)).map(|old| old.value(row)),
                    });
                }
                Ok(Arc::new(new.finish()))
            }
        }
    }

    fn numbers<T: ArrowPrimitiveType>(
        &self,
        batch: &Batch,
        number: impl Fn(&Cell) -> Option<T::Native>,
    ) -> Result<ArrayRef, String> {
        let old = match batch.column(&self.column) {
            None => None,
            Some(column) => Some(
                column
                    .as_primitive_opt::<T>()
                    .ok_or_else(|| format!("column {} is not {:?}", self.column, T::DATA_TYPE))?,
            ),
        };
        let mut new = PrimitiveBuilder::<T>::with_capacity(batch.rows());
        let mut cells = self.cells.iter().peekable();
        for row in 0..batch.rows() {
            new.append_option(match cells.next_if(|(at, _)| *at == row) {
                Some((_, cell)) => number(cell),
                None => old.filter(|old| old.is_valid(row)).map(|old| old.value(row)),
            });
        }
        Ok(Arc::new(new.finish()))
    }

    /// A plain column stays plain; a dictionary is made anew of the values that are still used, so that nothing of what was
    /// replaced stays in it.
    fn texts(&self, old: &Text<'_>, rows: usize) -> Result<ArrayRef, String> {
        let mut cells = self.cells.iter().peekable();
        let mut changed = |row: usize| cells.next_if(|(at, _)| *at == row).map(|(_, cell)| cell.text());
        if let Text::Plain(plain) = old {
            let mut new = StringBuilder::with_capacity(rows, plain.value_data().len());
            for row in 0..rows {
                new.append_option(changed(row).unwrap_or_else(|| old.get(row)));
            }
            return Ok(Arc::new(new.finish()));
        }
        let mut used = Used::default();
        let mut moved = vec![NONE; old.values().map_or(0, |values| values.len())];
        let mut of_row: Vec<u32> = Vec::with_capacity(rows);
        for row in 0..rows {
            of_row.push(match changed(row) {
                Some(text) => text.map_or(NONE, |text| used.place(text)),
                None => match (old.value_index(row), old.get(row)) {
                    (Some(index), Some(text)) => {
                        if moved[index] == NONE {
                            moved[index] = used.place(text);
                        }
                        moved[index]
                    }
                    _ => NONE,
                },
            });
        }
        dictionary(used.values.finish(), &of_row)
    }
}

impl Cell {
    fn text(&self) -> Option<&str> {
        match self {
            Cell::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// The different values of a text column.
#[derive(Debug, Default)]
struct Used {
    places: HashMap<String, u32>,
    values: StringBuilder,
}

impl Used {
    fn place(&mut self, text: &str) -> u32 {
        if let Some(place) = self.places.get(text) {
            return *place;
        }
        let place = self.places.len() as u32;
        self.places.insert(text.to_owned(), place);
        self.values.append_value(text);
        place
    }
}
