//! An expression over a batch: whole columns into bitmaps, dictionaries by their values, no allocation per row.

use sluice_plugin::arrow_array::cast::AsArray;
use sluice_plugin::arrow_array::types::{Float64Type, Int32Type, Int64Type, UInt32Type, UInt64Type};
use sluice_plugin::arrow_array::{Array, ArrayRef, StringArray};
use sluice_plugin::arrow_buffer::BooleanBuffer;
use sluice_plugin::arrow_schema::DataType;
use sluice_plugin::bits;
use sluice_plugin::prelude::*;

use crate::condition::{Check, Condition, RegexPlace, TextCheck};
use crate::field::Source;
use crate::parse::Expr;
use crate::regexes::Group;

/// One batch, and what the host has found in it so far.
pub(crate) struct Rows<'a> {
    batch: &'a Batch,
    groups: &'a [Group],
    /// By group: by pattern the rows in which it was found.
    found: Vec<Option<Vec<BooleanBuffer>>>,
    /// For texts in small letters.
    scratch: String,
}

impl<'a> Rows<'a> {
    pub(crate) fn new(batch: &'a Batch, groups: &'a [Group]) -> Rows<'a> {
        Rows {
            batch,
            groups,
            found: vec![None; groups.len()],
            scratch: String::new(),
        }
    }

    fn none(&self) -> BooleanBuffer {
        BooleanBuffer::new_unset(self.batch.rows())
    }

    /// The rows for which the expression holds. Depth is bounded by the parser.
    pub(crate) fn holds(&mut self, expr: &Expr) -> Result<BooleanBuffer, String> {
        match expr {
            Expr::Always(true) => Ok(BooleanBuffer::new_set(self.batch.rows())),
            Expr::Always(false) => Ok(self.none()),
            Expr::Not(inner) => Ok(!&self.holds(inner)?),
            Expr::All(parts) => {
                let mut bits = BooleanBuffer::new_set(self.batch.rows());
                for part in parts {
                    bits = &bits & &self.holds(part)?;
                    if bits.count_set_bits() == 0 {
                        break;
                    }
                }
                Ok(bits)
            }
            Expr::Any(parts) => {
                let mut bits = self.none();
                for part in parts {
                    bits = &bits | &self.holds(part)?;
                    if bits.count_set_bits() == bits.len() {
                        break;
                    }
                }
                Ok(bits)
            }
            Expr::Condition(condition) => self.condition(condition),
        }
    }

    fn condition(&mut self, condition: &Condition) -> Result<BooleanBuffer, String> {
        let mut bits: Option<BooleanBuffer> = None;
        for check in &condition.any_of {
            let more = match check {
                Check::Regex(place) => self.regex(*place)?,
                check => self.check(&condition.source, check)?,
            };
            bits = Some(bits.map_or_else(|| more.clone(), |bits| &bits | &more));
        }
        Ok(bits.unwrap_or_else(|| self.none()))
    }

    fn check(&mut self, source: &Source, check: &Check) -> Result<BooleanBuffer, String> {
        let mut bits: Option<BooleanBuffer> = None;
        for column in &source.columns {
            let Some(column) = self.batch.column(column) else {
                continue;
            };
            if let Some(more) = column_bits(column, check, &mut self.scratch) {
                bits = Some(bits.map_or_else(|| more.clone(), |bits| &bits | &more));
            }
        }
        // Rare attributes are looked at row by row; only batches that were sealed once have them.
        if let Some((column, field)) = &source.rare
            && self.batch.column(column).is_some()
        {
            let values = field.read(self.batch);
            let scratch = &mut self.scratch;
            let more = BooleanBuffer::collect_bool(self.batch.rows(), |row| holds(check, &values.get(row), scratch));
            bits = Some(bits.map_or_else(|| more.clone(), |bits| &bits | &more));
        }
        Ok(bits.unwrap_or_else(|| self.none()))
    }

    fn regex(&mut self, place: RegexPlace) -> Result<BooleanBuffer, String> {
        let (Some(found), Some(group)) = (self.found.get_mut(place.group), self.groups.get(place.group)) else {
            return Err("a regular expression was not compiled".to_owned());
        };
        let found = match found {
            Some(found) => found,
            none => none.insert(search(self.batch, group)?),
        };
        Ok(found
            .get(place.pattern)
            .cloned()
            .unwrap_or_else(|| BooleanBuffer::new_unset(self.batch.rows())))
    }
}

/// By pattern of a group the rows in which it is found.
fn search(batch: &Batch, group: &Group) -> Result<Vec<BooleanBuffer>, String> {
    let rows = batch.rows();
    let mut found = vec![BooleanBuffer::new_unset(rows); group.patterns];
    for column in &group.source.columns {
        let Some(text) = batch.column(column).and_then(|column| Text::of(column.as_ref())) else {
            continue;
        };
        let hits = group.set.find_in_column(batch, column)?;
        let values = text.values().map_or(0, StringArray::len);
        for (pattern, rows_of_pattern) in found.iter_mut().enumerate() {
            let mut held = vec![false; values];
            for hit in hits.iter().filter(|hit| hit.pattern as usize == pattern) {
                if let Some(held) = held.get_mut(hit.text as usize) {
                    *held = true;
                }
            }
            *rows_of_pattern = &*rows_of_pattern | &bits::of_texts(&text, rows, &held);
        }
    }
    if let Some((column, field)) = &group.source.rare
        && batch.column(column).is_some()
    {
        let values = field.read(batch);
        let texts: StringArray = (0..rows)
            .map(|row| values.get(row).as_str().map(str::to_owned))
            .collect();
        let hits = group.set.find(&texts)?;
        for (pattern, rows_of_pattern) in found.iter_mut().enumerate() {
            let mut held = vec![false; rows];
            for hit in hits.iter().filter(|hit| hit.pattern as usize == pattern) {
                if let Some(held) = held.get_mut(hit.text as usize) {
                    *held = true;
                }
            }
            *rows_of_pattern = &*rows_of_pattern | &bits::valid(bits::of(&held, |held| held), texts.nulls());
        }
    }
    Ok(found)
}

/// The rows of a column that pass; none if its type never does.
fn column_bits(column: &ArrayRef, check: &Check, scratch: &mut String) -> Option<BooleanBuffer> {
    macro_rules! numbers {
        ($kind:ty, $holds:expr) => {{
            let array = column.as_primitive_opt::<$kind>()?;
            let values = array.values();
            bits::of(values, $holds)
        }};
    }
    let yes = match (check, column.data_type()) {
        (Check::Exists, _) => {
            return Some(match column.nulls() {
                Some(nulls) => nulls.inner().clone(),
                None => BooleanBuffer::new_set(column.len()),
            });
        }
        (Check::Text(check), _) => {
            let text = Text::of(column.as_ref())?;
            return Some(bits::where_text(&text, column.len(), |text| check.holds(text)));
        }
        (Check::LowerText(check), _) => {
            let text = Text::of(column.as_ref())?;
            return Some(bits::where_text(&text, column.len(), |text| {
                holds_lower(check, text, scratch)
            }));
        }
        (Check::Bool(value), DataType::Boolean) => {
            let values = column.as_boolean_opt()?.values();
            if *value { values.clone() } else { !values }
        }
        (Check::Number(check), DataType::Int32) => numbers!(Int32Type, |v: i32| check.holds_int(i64::from(v))),
        (Check::Number(check), DataType::Int64) => numbers!(Int64Type, |v: i64| check.holds_int(v)),
        (Check::Number(check), DataType::UInt32) => numbers!(UInt32Type, |v: u32| check.holds_int(i64::from(v))),
        (Check::Number(check), DataType::UInt64) => {
            numbers!(UInt64Type, |v: u64| check
                .holds_int(i64::try_from(v).unwrap_or(i64::MAX)))
        }
        (Check::Number(check), DataType::Float64) => numbers!(Float64Type, |v: f64| check.holds_double(v)),
        (Check::Ids(ids), DataType::FixedSizeBinary(_)) => {
            let array = column.as_fixed_size_binary_opt()?;
            BooleanBuffer::collect_bool(array.len(), |row| ids.iter().any(|id| id == array.value(row)))
        }
        _ => return None,
    };
    Some(bits::valid(yes, column.nulls()))
}

fn holds_lower(check: &TextCheck, text: &str, scratch: &mut String) -> bool {
    if !text.is_ascii() {
        return check.holds(&text.to_lowercase());
    }
    scratch.clear();
    scratch.push_str(text);
    scratch.make_ascii_lowercase();
    check.holds(scratch)
}

/// One value.
fn holds(check: &Check, value: &Value<'_>, scratch: &mut String) -> bool {
    match (check, value) {
        (Check::Exists, value) => value.is_present(),
        (Check::Bool(expected), Value::Bool(value)) => expected == value,
        (Check::Number(check), Value::Int(number)) => check.holds_int(*number),
        (Check::Number(check), Value::Double(number)) => check.holds_double(*number),
        (Check::Text(check), Value::Text(text)) => check.holds(text),
        (Check::LowerText(check), Value::Text(text)) => holds_lower(check, text, scratch),
        _ => false,
    }
}
