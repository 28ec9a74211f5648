//! Masks e-mail addresses and card numbers before an event touches a disk or a network.
//!
//! Looks into the body, string attributes of all groups, nested values and the JSON of span events, links and exemplars.
//! A column in which nothing was found is not given back, so a clean batch costs one scan.

mod card;
mod columns;
mod email;
mod text;

use arrow_array::Array;
use sluice_plugin::schemars;
use sluice_plugin::{Batch, Context, Description, Kind, Outcome, Plugin, export_plugin};

use crate::text::{Masker, Shape};

pub use crate::text::mask_str;

#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// E-mail addresses become [email].
    email: bool,
    /// Card numbers become [card].
    card: bool,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            email: true,
            card: true,
        }
    }
}

/// Everything that may hold text that a person wrote.
const COLUMNS: [&str; 16] = [
    "body",
    "status_message",
    "span_events",
    "links",
    "exemplars",
    "metadata",
    "duplicate_attrs",
    "attrs:s:*",
    "attrs:j:*",
    "attrs:*",
    "resource:s:*",
    "resource:j:*",
    "resource:*",
    "scope:s:*",
    "scope:j:*",
    "scope:*",
];

#[derive(Debug)]
pub struct Mask {
    masker: Masker,
}

impl Plugin for Mask {
    type Config = Config;

    fn describe() -> Description {
        Description::new("mask", env!("CARGO_PKG_VERSION"), Kind::Mask)
            .reads(&COLUMNS)
            .writes(&COLUMNS)
    }

    fn init(config: Config) -> Result<Self, String> {
        Ok(Mask {
            masker: Masker::new(config.email, config.card),
        })
    }

    fn process(&mut self, batch: &Batch, _: &Context) -> Result<Outcome, String> {
        let mut outcome = Outcome::unchanged();
        let records = batch.records();
        for (field, column) in records.schema_ref().fields().iter().zip(records.columns()) {
            let name = field.name();
            if column.len() == column.null_count() {
                continue;
            }
            let masked = if matches!(name.as_str(), "attrs:*" | "resource:*" | "scope:*") {
                columns::mask_rest(&mut self.masker, column)
            } else {
                columns::mask_text(&mut self.masker, column, shape(name))
            };
            match masked {
                Ok(None) => {}
                Ok(Some(masked)) => outcome = outcome.column(name, masked),
                Err(what) => return Err(format!("column {name}: {what}")),
            }
        }
        Ok(outcome)
    }
}

fn shape(column: &str) -> Shape {
    match column {
        "span_events" | "links" | "exemplars" => Shape::Records,
        _ => Shape::Value,
    }
}

export_plugin!(Mask);
