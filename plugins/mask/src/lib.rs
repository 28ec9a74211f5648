//! Masks personal data and secrets before an event touches a disk or a network.
//!
//! Looks into every column that holds what somebody wrote: bodies, attributes of all groups and types, nested values, names, and
//! the JSON of span events, links and exemplars. A column in which nothing was found is not given back, so a clean batch
//! costs one scan.

mod action;
mod assigned;
mod columns;
mod config;
mod custom;
mod escape;
mod find;
mod json;
mod keys;
mod kind;
mod number;
mod output;
mod rest;
mod text;
mod walk;

use std::collections::BTreeMap;

use arrow_array::{Array, ArrayRef, StringArray};
use sluice_plugin::matching::{Hit, PatternSet};
use sluice_plugin::{Batch, Context, Description, Kind as PluginKind, Outcome, Plugin, Text, export_plugin};

use crate::columns::Scratch;
use crate::find::Facts;
use crate::rest::Rare;
use crate::text::Masker;
use crate::walk::Shape;

pub use crate::action::Action;
pub use crate::config::{Config, Custom};
pub use crate::find::Scheme;
pub use crate::kind::Kind;

/// Everything that may hold what somebody wrote. Numbers are read because a card may be one.
const COLUMNS: [&str; 36] = [
    "body",
    "body_type",
    "status_message",
    "span_events",
    "links",
    "exemplars",
    "metadata",
    "duplicate_attrs",
    "entity_refs",
    "attrs:s:*",
    "attrs:j:*",
    "attrs:i:*",
    "attrs:d:*",
    "attrs:y:*",
    "attrs:*",
    "resource:s:*",
    "resource:j:*",
    "resource:i:*",
    "resource:d:*",
    "resource:y:*",
    "resource:*",
    "scope:s:*",
    "scope:j:*",
    "scope:i:*",
    "scope:d:*",
    "scope:y:*",
    "scope:*",
    "name",
    "description",
    "unit",
    "severity_text",
    "scope_name",
    "scope_version",
    "trace_state",
    "resource_schema_url",
    "scope_schema_url",
];

/// Those of which `names` decides.
const NAMES: [&str; 8] = [
    "name",
    "description",
    "unit",
    "severity_text",
    "scope_name",
    "scope_version",
    "resource_schema_url",
    "scope_schema_url",
];

#[derive(Debug)]
pub struct Mask {
    masker: Masker,
    scratch: Scratch,
    custom: Option<PatternSet>,
    /// What keys say, so that each is looked at once.
    facts: BTreeMap<String, Facts>,
}

/// Columns of text that masked numbers may get of their own; more go to `<group>:*`.
const MOST_NEW_COLUMNS: usize = 128;
/// Columns that it may be shown for it to make new ones: a batch may have 1,024, and the core columns that are not shown count too.
const MOST_COLUMNS: usize = 896;
/// Columns whose facts are remembered; more only cost time.
const MAX_FACTS: usize = 4096;

impl Plugin for Mask {
    type Config = Config;

    fn describe() -> Description {
        Description::new("mask", env!("CARGO_PKG_VERSION"), PluginKind::Mask)
            .reads(COLUMNS)
            .writes(COLUMNS)
    }

    fn init(config: Config) -> Result<Self, String> {
        let patterns: Vec<&str> = config.custom.iter().map(|custom| custom.pattern.as_str()).collect();
        let masker = Masker::new(config.clone())?;
        let custom = match patterns.is_empty() {
            true => None,
            false => Some(PatternSet::new(&patterns).map_err(|what| format!("custom: {what}"))?),
        };
        Ok(Mask {
            masker,
            scratch: Scratch::default(),
            custom,
            facts: BTreeMap::new(),
        })
    }

    fn process(&mut self, batch: &Batch, _: &Context) -> Result<Outcome, String> {
        let mut outcome = Outcome::unchanged();
        let mut moved: BTreeMap<String, Vec<(usize, String)>> = BTreeMap::new();
        let mut texts: Vec<(String, ArrayRef)> = Vec::new();
        let records = batch.records();
        for (field, column) in records.schema_ref().fields().iter().zip(records.columns()) {
            let name = field.name().as_str();
            if column.len() == column.null_count() || !self.masker.config().names && NAMES.contains(&name) {
                continue;
            }
            if name == "body_type" {
                continue;
            }
            let failed = |what: String| format!("column {name}: {what}");
            if name == "body"
                && let Some(types) = batch
                    .column("body_type")
                    .filter(|types| types.null_count() < types.len())
            {
                let types = Text::of(types.as_ref()).ok_or_else(|| failed("types that are no text".to_owned()))?;
                let hits = match &self.custom {
                    Some(set) => set.find_in_column(batch, name).map_err(failed)?,
                    None => Vec::new(),
                };
                let masked = columns::mask_bodies(&mut self.masker, &mut self.scratch, column, types, &hits);
                if let Some((bodies, types)) = masked.map_err(failed)? {
                    texts.push((name.to_owned(), bodies));
                    texts.extend(types.map(|types| ("body_type".to_owned(), types)));
                }
                continue;
            }
            match Column::of(name) {
                Column::Text(key, shape) => {
                    let facts = self.facts(key);
                    let hits = match &self.custom {
                        Some(set) => set.find_in_column(batch, name).map_err(failed)?,
                        None => Vec::new(),
                    };
                    let masked = columns::mask_text(&mut self.masker, &mut self.scratch, column, shape, facts, &hits);
                    texts.extend(masked.map_err(failed)?.map(|masked| (name.to_owned(), masked)));
                }
                Column::Rest => {
                    let set = &self.custom;
                    let mut custom = |texts: &StringArray| set.as_ref().map_or(Ok(Vec::new()), |set| set.find(texts));
                    let masked = rest::mask(&mut self.masker, &mut self.scratch, column, &mut custom);
                    texts.extend(masked.map_err(failed)?.map(|masked| (name.to_owned(), masked)));
                }
                Column::Scalars(group, key) => {
                    let facts = self.facts(key);
                    if let Some(masked) = columns::mask_scalars(&mut self.masker, column, facts) {
                        moved
                            .entry(format!("{group}:s:{key}"))
                            .or_default()
                            .extend(masked.texts);
                        outcome = outcome.column(name, masked.column);
                    }
                }
            }
        }
        self.add_moved(batch, moved, &mut texts)?;
        Ok(texts
            .into_iter()
            .fold(outcome, |outcome, (name, column)| outcome.column(name, column)))
    }
}

impl Mask {
    /// Puts numbers that became text where texts of their key stand; beyond some new columns, into the rare attributes.
    fn add_moved(
        &self,
        batch: &Batch,
        moved: BTreeMap<String, Vec<(usize, String)>>,
        texts: &mut Vec<(String, ArrayRef)>,
    ) -> Result<(), String> {
        let mut room = MOST_COLUMNS
            .saturating_sub(batch.records().num_columns())
            .min(MOST_NEW_COLUMNS);
        let mut rare: BTreeMap<String, Vec<Rare>> = BTreeMap::new();
        for (name, mut values) in moved {
            let place = texts.iter().position(|(text, _)| *text == name);
            let existing = place.map(|place| &texts[place].1).or_else(|| batch.column(&name));
            if existing.is_none() && room == 0 {
                let (group, key) = name.split_once(":s:").unwrap_or(("attrs", &name));
                let new = values.into_iter().map(|(row, text)| Rare {
                    row,
                    key: key.to_owned(),
                    text,
                });
                rare.entry(format!("{group}:*")).or_default().extend(new);
                continue;
            }
            room -= usize::from(existing.is_none());
            values.sort();
            let column = rest::add_texts(existing, &values, batch.rows())?;
            match place {
                Some(place) => texts[place].1 = column,
                None => texts.push((name, column)),
            }
        }
        for (name, mut values) in rare {
            values.sort_by_key(|rare| rare.row);
            let place = texts.iter().position(|(text, _)| *text == name);
            let existing = place.map(|place| &texts[place].1).or_else(|| batch.column(&name));
            let column = rest::add_rare(existing, &values, batch.rows())?;
            match place {
                Some(place) => texts[place].1 = column,
                None => texts.push((name, column)),
            }
        }
        Ok(())
    }

    fn facts(&mut self, key: &str) -> Facts {
        if let Some(facts) = self.facts.get(key) {
            return *facts;
        }
        let facts = self.masker.facts(key);
        if self.facts.len() < MAX_FACTS {
            self.facts.insert(key.to_owned(), facts);
        }
        facts
    }

    /// What is found in one text that is the value of this key, as bytes and kind. For tests and tools.
    pub fn find(&mut self, key: &str, text: &str) -> Result<Vec<(std::ops::Range<usize>, Kind)>, String> {
        let facts = self.facts(key);
        let hits = self.custom_hits(text)?;
        let edits = self.masker.edits(text, Shape::Free, facts, &hits);
        Ok(edits
            .into_iter()
            .map(|edit| (edit.start..edit.end, edit.kind))
            .collect())
    }

    /// One text masked, as it stands under this key. For tests and tools.
    pub fn mask(&mut self, key: &str, text: &str) -> Result<String, String> {
        let facts = self.facts(key);
        let hits = self.custom_hits(text)?;
        let mut out = String::new();
        let changed = self.masker.mask(text, Shape::Free, facts, &hits, &mut out);
        Ok(if changed { out } else { text.to_owned() })
    }

    fn custom_hits(&self, text: &str) -> Result<Vec<custom::CustomHit>, String> {
        let Some(set) = &self.custom else { return Ok(Vec::new()) };
        let hit = |hit: Hit| custom::CustomHit {
            start: hit.start as usize,
            end: hit.end as usize,
            pattern: hit.pattern as u16,
        };
        Ok(set.find(&StringArray::from(vec![text]))?.into_iter().map(hit).collect())
    }
}

/// What a column of the batch is.
enum Column<'a> {
    /// Texts, the key they stand under, and their shape.
    Text(&'a str, Shape),
    /// Numbers or bytes of a group and key.
    Scalars(&'a str, &'a str),
    /// Rare attributes.
    Rest,
}

impl<'a> Column<'a> {
    fn of(name: &'a str) -> Self {
        let mut parts = name.splitn(3, ':');
        let (group, kind, key) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
        match (kind, key) {
            (Some("*"), None) => Column::Rest,
            (Some("s"), Some(key)) => Column::Text(key, Shape::Free),
            (Some("j"), Some(key)) => Column::Text(key, Shape::Value),
            (Some(_), Some(key)) => Column::Scalars(group, key),
            _ => match name {
                "span_events" | "links" | "exemplars" => Column::Text("", Shape::Records),
                "duplicate_attrs" => Column::Text("", Shape::Pairs),
                "metadata" => Column::Text("", Shape::Value),
                // The name of a core column says nothing about its value.
                _ => Column::Text("", Shape::Free),
            },
        }
    }
}

export_plugin!(Mask);
