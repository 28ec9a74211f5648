//! Adds what events do not say themselves: renamed and copied fields, fields looked up in tables, static fields, defaults.
//!
//! Every step works on whole columns, and a table is asked once for the different keys of a batch.

mod config;
mod lookup;

use std::collections::BTreeSet;

use sluice_plugin::field::NONE;
use sluice_plugin::prelude::*;
use sluice_plugin::{Draft, Field};

pub use crate::config::Config;
use crate::config::{Constant, Move};
use crate::lookup::Lookup;

/// What a configuration may name. `describe` comes before the configuration, so this is all that any could.
const COLUMNS: [&str; 31] = [
    "name",
    "severity",
    "severity_text",
    "status_message",
    "scope_name",
    "scope_version",
    "unit",
    "attrs:s:*",
    "attrs:i:*",
    "attrs:d:*",
    "attrs:b:*",
    "attrs:j:*",
    "attrs:y:*",
    "attrs:n:*",
    "attrs:*",
    "resource:s:*",
    "resource:i:*",
    "resource:d:*",
    "resource:b:*",
    "resource:j:*",
    "resource:y:*",
    "resource:n:*",
    "resource:*",
    "scope:s:*",
    "scope:i:*",
    "scope:d:*",
    "scope:b:*",
    "scope:j:*",
    "scope:y:*",
    "scope:n:*",
    "scope:*",
];
/// Core columns that can be read but not set: they are what the event was, not what is known about it.
const ONLY_READ: [&str; 4] = ["signal", "kind", "status", "metric_type"];

/// The plugin.
#[derive(Debug)]
pub struct Enrich {
    renames: Vec<Move>,
    copies: Vec<Move>,
    lookups: Vec<Lookup>,
    constants: Vec<Constant>,
}

impl Plugin for Enrich {
    type Config = Config;

    fn describe() -> Description {
        Description::new("enrich", env!("CARGO_PKG_VERSION"), Kind::Enrich)
            .reads(COLUMNS)
            .reads(ONLY_READ)
            .writes(COLUMNS)
    }

    fn init(config: Config) -> Result<Self, String> {
        if config.is_empty() {
            return Err(
                "nothing to do: give at least one of `rename`, `copy`, `lookup`, `set` and `default`".to_owned(),
            );
        }
        Ok(Enrich {
            renames: config.moves("rename", &config.rename)?,
            copies: config.moves("copy", &config.copy)?,
            lookups: config
                .lookup
                .iter()
                .enumerate()
                .map(|(place, lookup)| {
                    Lookup::new(lookup, config.overwrite).map_err(|what| format!("lookup[{place}].{what}"))
                })
                .collect::<Result<_, _>>()?,
            constants: config.constants()?,
        })
    }

    /// What the steps read and what they set: to fill in a field is to see where it is missing.
    fn needs(&self) -> Option<Vec<String>> {
        let moves = self.renames.iter().chain(&self.copies);
        let fields = moves.flat_map(|step| [&step.from, &step.to]);
        let fields = fields.chain(self.lookups.iter().flat_map(Lookup::fields));
        let fields = fields.chain(self.constants.iter().map(|constant| &constant.field));
        let columns: BTreeSet<String> = fields.flat_map(Field::columns).collect();
        Some(columns.into_iter().collect())
    }

    fn process(&mut self, batch: &Batch, _: &Context) -> Result<Outcome, String> {
        let mut draft = Draft::new(batch);
        for step in &self.renames {
            carry(&mut draft, step, true)?;
        }
        for step in &self.copies {
            carry(&mut draft, step, false)?;
        }
        for lookup in &self.lookups {
            lookup.carry_out(&mut draft)?;
        }
        for constant in &self.constants {
            let places = missing(&draft, &constant.field, constant.overwrite, |_| 0);
            draft.assign(&constant.field, std::slice::from_ref(&constant.value), &places)?;
        }
        Ok(draft.finish())
    }
}

/// For each row the place of its new value, or `NONE` where the field has a value that stays.
fn missing(draft: &Draft, field: &Field, overwrite: bool, place: impl Fn(usize) -> u32) -> Vec<u32> {
    let rows = draft.batch().rows();
    let present = field.read(draft.batch());
    if overwrite || present.is_empty() {
        return (0..rows).map(place).collect();
    }
    (0..rows)
        .map(|row| if present.is_present(row) { NONE } else { place(row) })
        .collect()
}

/// Copies a field to another one; with `remove` it goes where it was, unless the other one kept its own value.
fn carry(draft: &mut Draft, step: &Move, remove: bool) -> Result<(), String> {
    let before = draft.batch().clone();
    let source = step.from.read(&before);
    if source.is_empty() {
        return Ok(());
    }
    let (values, of_row) = source.values();
    let places = missing(draft, &step.to, step.overwrite, |row| of_row[row]);
    draft.assign(&step.to, &values, &places)?;
    if remove {
        let gone: Vec<u32> = places
            .iter()
            .map(|place| if *place == NONE { NONE } else { 0 })
            .collect();
        draft.assign(&step.from, &[Value::Absent], &gone)?;
    }
    Ok(())
}

export_plugin!(Enrich);
