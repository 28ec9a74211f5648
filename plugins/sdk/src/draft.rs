//! A batch that is being changed, field by field; later changes see earlier ones.

use std::sync::Arc;

use arrow_array::builder::{BooleanBuilder, PrimitiveBuilder, StringBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::{ArrowPrimitiveType, Float64Type, Int32Type, Int64Type};
use arrow_array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_schema::{Field as ArrowField, Schema};

use crate::field::{Field, NONE, Place};
use crate::row::columns::{Group, Rare};
use crate::row::{Value, bytes_without, without};
use crate::{Batch, Outcome, Text, dictionary, names};

/// The batch as it is so far.
#[derive(Clone, Debug)]
pub struct Draft {
    batch: Batch,
    changed: Vec<String>,
}

impl Draft {
    /// Copies no column.
    pub fn new(batch: &Batch) -> Draft {
        Draft {
            batch: batch.clone(),
            changed: Vec::new(),
        }
    }

    pub fn batch(&self) -> &Batch {
        &self.batch
    }

    /// Gives each row the value at its place in `values`; where the place is [`NONE`] the row stays as it is, and
    /// [`Value::Absent`] takes the value away. An attribute has one value: what it had under another type goes.
    pub fn assign(&mut self, field: &Field, values: &[Value<'_>], of_row: &[u32]) -> Result<(), String> {
        if of_row.len() != self.batch.rows() {
            return Err(format!("{} places for {} rows", of_row.len(), self.batch.rows()));
        }
        if of_row.iter().all(|place| *place == NONE) {
            return Ok(());
        }
        let new = Assigned { values, of_row };
        match &field.place {
            Place::Core { column, number: false } => {
                let texts: Vec<Value<'_>> = values
                    .iter()
                    .map(|value| match value {
                        Value::Absent => Value::Absent,
                        value => Value::from(value.clone().text()),
                    })
                    .collect();
                let new = Assigned { values: &texts, of_row };
                self.put(column, new.texts(&self.batch.text(column)?)?)
            }
            Place::Core { column, .. } => {
                let old = typed::<Int32Type>(&self.batch, column)?;
                let column_values = new.numbers::<Int32Type>(old, |value| i32::try_from(value.as_i64()?).ok());
                self.put(column, column_values)
            }
            Place::Attribute { group, key } => self.assign_attribute(*group, key, &new),
        }
    }

    fn assign_attribute(&mut self, group: Group, key: &str, new: &Assigned<'_>) -> Result<(), String> {
        for kind in names::SCALARS {
            let column = format!("{}:{kind}:{key}", group.name());
            let given = new.values.iter().any(|value| kind_of(value) == Some(kind));
            let had = self
                .batch
                .column(&column)
                .is_some_and(|old| (0..old.len()).any(|row| new.of_row[row] != NONE && old.is_valid(row)));
            if !given && !had {
                continue;
            }
            let values = match kind {
                'i' => new.numbers::<Int64Type>(typed(&self.batch, &column)?, |value| match value {
                    Value::Int(number) => Some(*number),
                    _ => None,
                }),
                'd' => new.numbers::<Float64Type>(typed(&self.batch, &column)?, |value| match value {
                    Value::Double(number) => Some(*number),
                    _ => None,
                }),
                'b' => new.bools(self.batch.bools(&column)?),
                _ => new.texts(&self.batch.text(&column)?)?,
            };
            self.put(&column, values)?;
        }
        for kind in names::OTHERS {
            let column = format!("{}:{kind}:{key}", group.name());
            let gone = |row: usize| new.of_row[row] != NONE;
            let Some(old) = self.batch.column(&column) else {
                continue;
            };
            if !(0..old.len()).any(|row| gone(row) && old.is_valid(row)) {
                continue;
            }
            let none = Assigned {
                values: &[],
                of_row: new.of_row,
            };
            let values = match kind {
                'n' => none.bools(self.batch.bools(&column)?),
                'y' => bytes_without(Some(old), old.len(), gone)?,
                _ => none.texts(&self.batch.text(&column)?)?,
            };
            self.put(&column, values)?;
        }
        let rare: Vec<(usize, &str)> = match Rare::of(&self.batch, group) {
            None => Vec::new(),
            Some(rare) => (0..new.of_row.len())
                .filter(|row| new.of_row[*row] != NONE && rare.has(*row, key))
                .map(|row| (row, key))
                .collect(),
        };
        let column = format!("{}:*", group.name());
        match self.batch.column(&column).filter(|_| !rare.is_empty()) {
            Some(lists) => {
                let lists = without(lists, &rare)?;
                self.put(&column, lists)
            }
            None => Ok(()),
        }
    }

    /// Replaces or adds a column.
    pub fn put(&mut self, name: &str, values: ArrayRef) -> Result<(), String> {
        let records = self.batch.records();
        let schema = records.schema_ref();
        let mut fields: Vec<Arc<ArrowField>> = schema.fields().iter().cloned().collect();
        let mut columns = records.columns().to_vec();
        match schema.index_of(name) {
            Ok(place) => {
                fields[place] = Arc::new(
                    fields[place]
                        .as_ref()
                        .clone()
                        .with_data_type(values.data_type().clone()),
                );
                columns[place] = values;
            }
            Err(_) => {
                fields.push(Arc::new(ArrowField::new(name, values.data_type().clone(), true)));
                columns.push(values);
            }
        }
        let options = RecordBatchOptions::new().with_row_count(Some(records.num_rows()));
        let records = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options);
        self.batch = Batch::from(records.map_err(|e| e.to_string())?);
        if !self.changed.iter().any(|known| known == name) {
            self.changed.push(name.to_owned());
        }
        Ok(())
    }

    /// The columns that changed, as an outcome.
    pub fn finish(self) -> Outcome {
        let mut outcome = Outcome::unchanged();
        for name in self.changed {
            if let Some(column) = self.batch.column(&name) {
                outcome = outcome.column(name, column.clone());
            }
        }
        outcome
    }
}

/// The type letter of the attribute column that a value goes into.
fn kind_of(value: &Value<'_>) -> Option<char> {
    match value {
        Value::Absent => None,
        Value::Text(_) => Some('s'),
        Value::Int(_) => Some('i'),
        Value::Double(_) => Some('d'),
        Value::Bool(_) => Some('b'),
    }
}

fn typed<'a, T: ArrowPrimitiveType>(
    batch: &'a Batch,
    column: &str,
) -> Result<Option<&'a arrow_array::PrimitiveArray<T>>, String> {
    match batch.column(column) {
        None => Ok(None),
        Some(values) => match values.as_primitive_opt::<T>() {
            Some(values) => Ok(Some(values)),
            None => Err(format!("column {column} is not {}", T::DATA_TYPE)),
        },
    }
}

/// New values for some rows.
struct Assigned<'a> {
    values: &'a [Value<'a>],
    of_row: &'a [u32],
}

impl Assigned<'_> {
    /// `None`: the row stays; else its new value, if this place has one.
    fn value(&self, row: usize) -> Option<&Value<'_>> {
        match self.of_row[row] {
            NONE => None,
            place => Some(self.values.get(place as usize).unwrap_or(&Value::Absent)),
        }
    }

    fn numbers<T: ArrowPrimitiveType>(
        &self,
        old: Option<&arrow_array::PrimitiveArray<T>>,
        number: impl Fn(&Value<'_>) -> Option<T::Native>,
    ) -> ArrayRef {
        let numbers: Vec<Option<T::Native>> = self.values.iter().map(number).collect();
        let mut new = PrimitiveBuilder::<T>::with_capacity(self.of_row.len());
        for (row, place) in self.of_row.iter().enumerate() {
            new.append_option(match *place {
                NONE => old.filter(|old| old.is_valid(row)).map(|old| old.value(row)),
                place => numbers.get(place as usize).copied().flatten(),
            });
        }
        Arc::new(new.finish())
    }

    fn bools(&self, old: Option<&arrow_array::BooleanArray>) -> ArrayRef {
        let mut new = BooleanBuilder::with_capacity(self.of_row.len());
        for row in 0..self.of_row.len() {
            new.append_option(match self.value(row) {
                None => old.filter(|old| old.is_valid(row)).map(|old| old.value(row)),
                Some(Value::Bool(value)) => Some(*value),
                Some(_) => None,
            });
        }
        Arc::new(new.finish())
    }

    /// A plain column stays plain; everything else becomes a dictionary of the values that are used, so nothing of what was
    /// replaced stays in it.
    fn texts(&self, old: &Text<'_>) -> Result<ArrayRef, String> {
        if let Text::Plain(plain) = old {
            let mut new = StringBuilder::with_capacity(self.of_row.len(), plain.value_data().len());
            for row in 0..self.of_row.len() {
                new.append_option(match self.value(row) {
                    None => old.get(row),
                    Some(value) => value.as_str(),
                });
            }
            return Ok(Arc::new(new.finish()));
        }
        let mut used = StringBuilder::new();
        let mut count = 0u32;
        let mut place_of = |text: &str| {
            used.append_value(text);
            count += 1;
            count - 1
        };
        let mut moved: Vec<u32> = vec![NONE; old.values().map_or(0, |values| values.len())];
        let mut added: Vec<u32> = vec![NONE; self.values.len()];
        let of_row: Vec<u32> = (self.of_row.iter().enumerate())
            .map(|(row, place)| match *place {
                NONE => match (old.value_index(row), old.get(row)) {
                    (Some(index), Some(text)) => {
                        if moved[index] == NONE {
                            moved[index] = place_of(text);
                        }
                        moved[index]
                    }
                    _ => NONE,
                },
                place => {
                    let place = place as usize;
                    if added.get(place) == Some(&NONE)
                        && let Some(text) = self.values[place].as_str()
                    {
                        added[place] = place_of(text);
                    }
                    added.get(place).copied().unwrap_or(NONE)
                }
            })
            .collect();
        dictionary(used.finish(), &of_row)
    }
}
