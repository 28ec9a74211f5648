//! Limits how many different values a field may have in a window of time, for all services together or for each.
//!
//! The values that came first are let through for the rest of the window; what becomes of the others is configured.

mod budget;
mod config;

use std::borrow::Cow;
use std::collections::BTreeSet;

use sluice_plugin::arrow_buffer::BooleanBuffer;
use sluice_plugin::field::{Distinct, NONE};
use sluice_plugin::prelude::*;
use sluice_plugin::{Draft, Field, log};

use crate::budget::{Budget, Scope};
pub use crate::config::Config;
use crate::config::{Action, Limit, Target};

/// What a limit may name. `describe` comes before the configuration, so this is all that any could.
const COLUMNS: [&str; 16] = [
    "name",
    "attrs:s:*",
    "attrs:i:*",
    "attrs:d:*",
    "attrs:b:*",
    "attrs:*",
    "resource:s:*",
    "resource:i:*",
    "resource:d:*",
    "resource:b:*",
    "resource:*",
    "scope:s:*",
    "scope:i:*",
    "scope:d:*",
    "scope:b:*",
    "scope:*",
];

/// The plugin.
#[derive(Debug)]
pub struct Cardinality {
    limits: Vec<Limit>,
    /// Asked for where a limit is one of each service.
    service: Field,
    window: u64,
    budget: Budget,
}

impl Plugin for Cardinality {
    type Config = Config;

    fn describe() -> Description {
        Description::new("cardinality", env!("CARGO_PKG_VERSION"), Kind::Filter)
            .reads(COLUMNS)
            .writes(COLUMNS)
    }

    fn init(config: Config) -> Result<Self, String> {
        let (limits, window) = config.resolve()?;
        Ok(Cardinality {
            limits,
            service: Field::parse("service")?,
            window,
            budget: Budget::default(),
        })
    }

    /// The fields that are limited, and the service where it has limits of its own.
    fn needs(&self) -> Option<Vec<String>> {
        let mut columns: BTreeSet<String> = BTreeSet::new();
        for limit in &self.limits {
            columns.extend(limit.target.columns());
            if limit.per_service {
                columns.extend(self.service.columns());
            }
        }
        Some(columns.into_iter().collect())
    }

    fn process(&mut self, batch: &Batch, context: &Context) -> Result<Outcome, String> {
        let mut draft = Draft::new(batch);
        let mut keep: Option<BooleanBuffer> = None;
        self.budget.begin(context.now / 1_000_000_000, self.window);
        let services = if self.limits.iter().any(|limit| limit.per_service) {
            self.service.read(batch).distinct()
        } else {
            Distinct::default()
        };
        for limit in &self.limits {
            for field in fields(&limit.target, batch)? {
                let values = field.read(batch).distinct();
                let over = self.budget.over(limit, &field, &values, &services)?;
                let Some(over) = over else {
                    continue;
                };
                let place = |row: usize| if over[row] { 0 } else { NONE };
                let places: Vec<u32> = (0..batch.rows()).map(place).collect();
                match limit.action {
                    Action::Replace => {
                        draft.assign(&field, &[Value::from(limit.replacement.as_str())], &places)?;
                    }
                    Action::Remove => draft.assign(&field, &[Value::Absent], &places)?,
                    Action::Drop => {
                        let stay = BooleanBuffer::collect_bool(batch.rows(), |row| !over[row]);
                        keep = Some(keep.map_or(stay.clone(), |keep| &keep & &stay));
                    }
                }
            }
        }
        if let Some(full) = self.budget.take_full() {
            log::warn(full);
        }
        let outcome = draft.finish();
        Ok(match keep {
            Some(keep) => outcome.select(keep, "cardinality"),
            None => outcome,
        })
    }
}

/// The fields of a batch that a limit is about.
fn fields(target: &Target, batch: &Batch) -> Result<Vec<Field>, String> {
    let (group, prefix) = match target {
        Target::One(field) => return Ok(vec![field.clone()]),
        Target::Prefix { group, prefix } => (group, prefix),
    };
    let mut names: BTreeSet<String> = BTreeSet::new();
    for column in batch.records().schema_ref().fields() {
        let mut parts = column.name().splitn(3, ':');
        if let (Some(other), Some(_), Some(key)) = (parts.next(), parts.next(), parts.next())
            && other == group
            && key.starts_with(prefix.as_str())
        {
            names.insert(format!("{group}.{key}"));
        }
    }
    names.iter().map(|name| Field::parse(name)).collect()
}

impl Budget {
    /// The rows whose value is over the limit; `None` if none is.
    fn over(
        &mut self,
        limit: &Limit,
        field: &Field,
        values: &Distinct<'_>,
        services: &Distinct<'_>,
    ) -> Result<Option<Vec<bool>>, String> {
        if !limit.per_service {
            let texts: Vec<&str> = used(values).map(|place| values.texts[place].as_ref()).collect();
            let places: Vec<usize> = used(values).collect();
            let scope = Scope::new(field.name(), None, limit.max);
            let refused = self.refused(&scope, &texts)?;
            if refused.is_empty() {
                return Ok(None);
            }
            let mut over = vec![false; values.texts.len()];
            refused.into_iter().for_each(|text| over[places[text]] = true);
            let is_over = |place: &u32| *place != NONE && over[*place as usize];
            return Ok(Some(values.of_row.iter().map(is_over).collect()));
        }
        // The pairs of service and value, by service.
        let mut pairs: Vec<(u32, u32)> = services
            .of_row
            .iter()
            .zip(&values.of_row)
            .filter(|(_, value)| **value != NONE)
            .map(|(service, value)| (*service, *value))
            .collect();
        pairs.sort_unstable();
        pairs.dedup();
        let mut refused_pairs: Vec<(u32, u32)> = Vec::new();
        for pairs in pairs.chunk_by(|a, b| a.0 == b.0) {
            let service = match pairs[0].0 {
                NONE => Cow::Borrowed(""),
                service => services.texts[service as usize].clone(),
            };
            let texts: Vec<&str> = pairs
                .iter()
                .map(|(_, value)| values.texts[*value as usize].as_ref())
                .collect();
            let scope = Scope::new(field.name(), Some(&service), limit.max);
            let refused = self.refused(&scope, &texts)?;
            refused_pairs.extend(refused.into_iter().map(|text| pairs[text]));
        }
        if refused_pairs.is_empty() {
            return Ok(None);
        }
        refused_pairs.sort_unstable();
        let is_over = |(service, value): (&u32, &u32)| refused_pairs.binary_search(&(*service, *value)).is_ok();
        Ok(Some(services.of_row.iter().zip(&values.of_row).map(is_over).collect()))
    }
}

/// The texts that any row has, in the order in which rows have them first.
fn used(values: &Distinct<'_>) -> impl Iterator<Item = usize> {
    let mut seen = vec![false; values.texts.len()];
    values
        .of_row
        .iter()
        .filter(|place| **place != NONE)
        .map(|place| *place as usize)
        .filter(move |place| !std::mem::replace(&mut seen[*place], true))
}

export_plugin!(Cardinality);
