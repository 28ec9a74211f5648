//! The configuration, and what it resolves to.

use std::collections::BTreeMap;

use sluice_plugin::Field;
use sluice_plugin::prelude::*;

use crate::ONLY_READ;

/// The steps are carried out in this order: `rename`, `copy`, `lookup`, `set`, `default`; each sees what the one before did.
#[plugin_config]
#[derive(Default)]
pub struct Config {
    /// Fields that get another name.
    #[serde(default)]
    pub(crate) rename: Vec<MoveConfig>,
    /// Fields that are also put elsewhere.
    #[serde(default)]
    pub(crate) copy: Vec<MoveConfig>,
    /// Fields from the operator's tables (CSV files or MaxMind databases).
    #[serde(default)]
    pub(crate) lookup: Vec<LookupConfig>,
    /// Static fields: a name such as `attrs.site` or `service`, and its value.
    #[serde(default)]
    pub(crate) set: BTreeMap<String, Scalar>,
    /// Values for fields that no step before has filled. They never replace one.
    #[serde(default)]
    pub(crate) default: BTreeMap<String, Scalar>,
    /// Whether steps replace values that are there; each step may say otherwise.
    #[serde(default)]
    pub(crate) overwrite: bool,
}

#[plugin_config]
pub(crate) struct MoveConfig {
    /// Field that is read.
    pub(crate) from: String,
    /// Field that is set.
    pub(crate) to: String,
    /// Whether a value that is there is replaced; that of the whole configuration otherwise.
    #[serde(default)]
    pub(crate) overwrite: Option<bool>,
}

#[plugin_config]
pub(crate) struct LookupConfig {
    /// Name of the table.
    pub(crate) table: String,
    /// Field whose text is the key; for a MaxMind database an IP address.
    pub(crate) key: String,
    /// Fields to set, and where in the table their values are: a column, or a path such as `country.iso_code`.
    pub(crate) set: BTreeMap<String, Source>,
    /// Whether values that are there are replaced; that of the whole configuration otherwise.
    #[serde(default)]
    pub(crate) overwrite: Option<bool>,
}

/// A column of a table, with the type of its values if they are no texts.
#[plugin_config]
#[serde(
    untagged,
    expecting = "write the name of a column, or { field = \"…\", as = \"text|int|double|bool\" }"
)]
pub(crate) enum Source {
    /// Name of the column or path.
    Text(String),
    /// The same with a type.
    Typed {
        /// Name of the column or path.
        field: String,
        /// Type of the value; a text that is no such value is left out.
        #[serde(rename = "as")]
        kind: ValueKind,
    },
}

/// Types of values.
#[plugin_config]
#[derive(Copy, PartialEq, Eq)]
pub(crate) enum ValueKind {
    Text,
    Int,
    Double,
    Bool,
}

/// A static value.
#[plugin_config]
#[serde(untagged, expecting = "write text, a number, true or false")]
pub(crate) enum Scalar {
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(String),
}

/// From a field to a field.
#[derive(Debug)]
pub(crate) struct Move {
    pub(crate) from: Field,
    pub(crate) to: Field,
    pub(crate) overwrite: bool,
}

/// A field with one value.
#[derive(Debug)]
pub(crate) struct Constant {
    pub(crate) field: Field,
    pub(crate) value: Value<'static>,
    pub(crate) overwrite: bool,
}

impl Config {
    pub(crate) fn is_empty(&self) -> bool {
        self.rename.is_empty()
            && self.copy.is_empty()
            && self.lookup.is_empty()
            && self.set.is_empty()
            && self.default.is_empty()
    }

    pub(crate) fn moves(&self, step: &str, moves: &[MoveConfig]) -> Result<Vec<Move>, String> {
        let resolve = |config: &MoveConfig| {
            let from = source(&config.from).map_err(|what| format!("from: {what}"))?;
            let to = target(&config.to).map_err(|what| format!("to: {what}"))?;
            if from == to {
                return Err(format!("`{}` is moved to itself", config.from));
            }
            if step == "rename" {
                // What a rename leaves behind is nothing, so it has to be allowed to write there.
                target(&config.from).map_err(|what| format!("from: {what}"))?;
            }
            Ok(Move {
                from,
                to,
                overwrite: config.overwrite.unwrap_or(self.overwrite),
            })
        };
        moves
            .iter()
            .enumerate()
            .map(|(place, config)| resolve(config).map_err(|what| format!("{step}[{place}].{what}")))
            .collect()
    }

    pub(crate) fn constants(&self) -> Result<Vec<Constant>, String> {
        let set = self
            .set
            .iter()
            .map(|(name, value)| ("set", name, value, self.overwrite));
        let default = self.default.iter().map(|(name, value)| ("default", name, value, false));
        set.chain(default)
            .map(|(step, name, value, overwrite)| {
                let field = target(name).map_err(|what| format!("{step}: {what}"))?;
                let value = value.resolve();
                if name == "severity" && value.as_i64().is_none_or(|number| !(1..=24).contains(&number)) {
                    return Err(format!("{step}: `severity` is a number from 1 to 24"));
                }
                Ok(Constant {
                    field,
                    value,
                    overwrite,
                })
            })
            .collect()
    }
}

impl Scalar {
    fn resolve(&self) -> Value<'static> {
        match self {
            Scalar::Bool(value) => Value::Bool(*value),
            Scalar::Int(number) => Value::Int(*number),
            Scalar::Double(number) => Value::Double(*number),
            Scalar::Text(text) => Value::from(text.clone()),
        }
    }
}

/// Columns that other plugins, or no plugin, deal with.
const NOT_HERE: [&str; 3] = ["body", "trace_state", "description"];

pub(crate) fn source(name: &str) -> Result<Field, String> {
    if NOT_HERE.contains(&name) {
        return Err(format!("`{name}` is not handed to this plugin"));
    }
    Field::parse(name)
}

pub(crate) fn target(name: &str) -> Result<Field, String> {
    if ONLY_READ.contains(&name) {
        return Err(format!("`{name}` can be read, not set"));
    }
    source(name)
}
