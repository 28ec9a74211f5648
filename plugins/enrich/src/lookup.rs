//! Fields from a table.

use sluice_plugin::field::NONE;
use sluice_plugin::lookup::Table;
use sluice_plugin::prelude::*;
use sluice_plugin::{Draft, Field};

use crate::config::{LookupConfig, Source, ValueKind, source, target};
use crate::missing;

/// Bytes of a key; longer texts are in no table, and handing them to the host is work for nothing.
const MAX_KEY: usize = 1024;

/// One lookup of the configuration.
#[derive(Debug)]
pub(crate) struct Lookup {
    table: Table,
    key: Field,
    /// Names in the table, in the order of `targets`.
    fields: Vec<String>,
    targets: Vec<(Field, ValueKind)>,
    overwrite: bool,
}

impl Lookup {
    pub(crate) fn new(config: &LookupConfig, overwrite: bool) -> Result<Lookup, String> {
        let table = Table::open(&config.table).map_err(|what| format!("table: {what}"))?;
        let key = source(&config.key).map_err(|what| format!("key: {what}"))?;
        if config.set.is_empty() {
            return Err("set: name at least one field".to_owned());
        }
        let known = table.fields().map_err(|what| format!("table: {what}"))?;
        let mut fields = Vec::new();
        let mut targets = Vec::new();
        for (name, source) in &config.set {
            let (field, kind) = match source {
                Source::Text(field) => (field, ValueKind::Text),
                Source::Typed { field, kind } => (field, *kind),
            };
            // A database has no list of its fields.
            if !known.is_empty() && !known.contains(field) {
                return Err(format!(
                    "set: table `{}` has no column `{field}`; there are: {}",
                    config.table,
                    known.join(", ")
                ));
            }
            fields.push(field.clone());
            targets.push((target(name).map_err(|what| format!("set: {what}"))?, kind));
        }
        Ok(Lookup {
            table,
            key,
            fields,
            targets,
            overwrite: config.overwrite.unwrap_or(overwrite),
        })
    }

    /// The fields that it reads and sets.
    pub(crate) fn fields(&self) -> impl Iterator<Item = &Field> {
        self.targets.iter().map(|(field, _)| field).chain([&self.key])
    }

    pub(crate) fn carry_out(&self, draft: &mut Draft) -> Result<(), String> {
        let before = draft.batch().clone();
        let keys = self.key.read(&before).distinct();
        // Values of a dictionary that no row has, and texts that cannot be keys, are not asked for.
        let mut asked: Vec<u32> = vec![NONE; keys.texts.len()];
        let mut texts: Vec<&str> = Vec::new();
        for place in keys.of_row.iter().filter(|place| **place != NONE) {
            let place = *place as usize;
            let text = keys.texts[place].as_ref();
            if asked[place] == NONE && !text.is_empty() && text.len() <= MAX_KEY {
                asked[place] = texts.len() as u32;
                texts.push(text);
            }
        }
        if texts.is_empty() {
            return Ok(());
        }
        let found = self.table.find(&texts, &self.fields)?;
        for (place, (target, kind)) in self.targets.iter().enumerate() {
            let values: Vec<Value<'_>> = (0..texts.len())
                .map(|key| found.get(key, place).map_or(Value::Absent, |text| typed(text, *kind)))
                .collect();
            // What the table does not have stays as it was.
            let place_of = |row: usize| match keys.of_row[row] {
                NONE => NONE,
                key => match asked[key as usize] {
                    NONE => NONE,
                    key if values[key as usize].is_absent() => NONE,
                    key => key,
                },
            };
            let places = missing(draft, target, self.overwrite, place_of);
            draft.assign(target, &values, &places)?;
        }
        Ok(())
    }
}

/// An empty cell is no value, as a cell of a CSV file cannot be missing.
fn typed(text: &str, kind: ValueKind) -> Value<'_> {
    let trimmed = text.trim();
    match kind {
        _ if text.is_empty() => Value::Absent,
        ValueKind::Text => Value::from(text),
        ValueKind::Int => trimmed.parse().map_or(Value::Absent, Value::Int),
        ValueKind::Double => match trimmed.parse::<f64>() {
            Ok(number) if number.is_finite() => Value::Double(number),
            _ => Value::Absent,
        },
        ValueKind::Bool => trimmed.parse().map_or(Value::Absent, Value::Bool),
    }
}
