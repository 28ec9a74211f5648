//! Keeps or drops events by an expression over their columns and attributes, such as
//! `severity >= warn and not (body contains "health")`.
//!
//! The expression is read and checked once, in `init`; a batch is then evaluated column by column into bitmaps.

mod columns;
mod condition;
mod field;
mod mistake;
mod parse;
mod regexes;
mod token;

use std::collections::BTreeSet;

use sluice_plugin::arrow_buffer::BooleanBuffer;
use sluice_plugin::prelude::*;

pub use condition::{Check, Condition, NumberCheck, Order, TextCheck};
pub use field::{Kind as FieldKind, Source};
pub use mistake::Mistake;
pub use parse::{Expr, MAX_CONDITIONS, MAX_DEPTH, MAX_LIST, parse};
pub use regexes::Regexes;
pub use token::MAX_TEXT_BYTES;

use columns::Rows;
use regexes::Group;

/// What dropped rows are counted under if no rule says otherwise.
const REASON: &str = "filtered";
/// Bytes of a reason, as the host takes it.
const MAX_REASON_BYTES: usize = 64;
/// Rules of one configuration; the host counts sixteen reasons of a plugin apart.
const MAX_RULES: usize = 16;

/// Exactly one of `keep`, `drop` and `rules`.
#[plugin_config]
#[derive(Default)]
pub struct Config {
    /// Rows for which this expression holds stay, the others are dropped.
    #[serde(default)]
    keep: Option<String>,
    /// Rows for which this expression holds are dropped, the others stay.
    #[serde(default)]
    drop: Option<String>,
    /// What the dropped rows of `keep` or `drop` are counted under in the ledger; `filtered` otherwise.
    #[serde(default)]
    reason: Option<String>,
    /// Rules with a reason each, one after the other: a row is counted under the first that drops it.
    #[serde(default)]
    rules: Vec<RuleConfig>,
}

/// One rule: a reason, and exactly one of `keep` and `drop`.
#[plugin_config]
pub struct RuleConfig {
    /// What the dropped rows are counted under in the ledger.
    reason: String,
    /// Rows for which this expression does not hold are dropped.
    #[serde(default)]
    keep: Option<String>,
    /// Rows for which this expression holds are dropped.
    #[serde(default)]
    drop: Option<String>,
}

/// The plugin.
#[derive(Debug)]
pub struct Filter {
    rules: Vec<Rule>,
    groups: Vec<Group>,
}

#[derive(Debug)]
struct Rule {
    reason: String,
    expr: Expr,
    /// Whether the rows for which it holds stay.
    keeps: bool,
}

impl Plugin for Filter {
    type Config = Config;

    fn describe() -> Description {
        Description::new("filter", env!("CARGO_PKG_VERSION"), Kind::Filter).reads(field::declared())
    }

    fn init(config: Config) -> Result<Self, String> {
        let mut regexes = Regexes::default();
        let mut rules = Vec::new();
        if config.rules.is_empty() {
            let reason = config.reason.as_deref().unwrap_or(REASON);
            rules.push(Rule::read(
                "",
                reason,
                config.keep.as_deref(),
                config.drop.as_deref(),
                &mut regexes,
            )?);
        } else if config.keep.is_some() || config.drop.is_some() || config.reason.is_some() {
            return Err("`rules` stand alone; put `keep`, `drop` and `reason` into a rule".to_owned());
        } else if config.rules.len() > MAX_RULES {
            return Err(format!("{} rules; at most {MAX_RULES}", config.rules.len()));
        }
        for (place, rule) in config.rules.iter().enumerate() {
            let path = format!("rules[{place}].");
            rules.push(Rule::read(
                &path,
                &rule.reason,
                rule.keep.as_deref(),
                rule.drop.as_deref(),
                &mut regexes,
            )?);
        }
        Ok(Filter {
            rules,
            groups: regexes.compile()?,
        })
    }

    /// Only what the expressions name: most name three columns, and all that could be named is nearly the whole batch.
    fn needs(&self) -> Option<Vec<String>> {
        let mut columns: BTreeSet<String> = BTreeSet::new();
        for rule in &self.rules {
            rule.expr.each_source(&mut |source| {
                columns.extend(source.columns.iter().cloned());
                columns.extend(source.rare.iter().map(|(column, _)| column.clone()));
            });
        }
        // A batch has to have a column to be handed over.
        columns.insert("signal".to_owned());
        Some(columns.into_iter().collect())
    }

    fn process(&mut self, batch: &Batch, _: &Context) -> Result<Outcome, String> {
        let mut rows = Rows::new(batch, &self.groups);
        let mut outcome = Outcome::unchanged();
        for rule in &self.rules {
            let holds = rows.holds(&rule.expr)?;
            let stays: BooleanBuffer = if rule.keeps { holds } else { !&holds };
            outcome = outcome.select(stays, &rule.reason);
        }
        Ok(outcome)
    }
}

impl Rule {
    fn read(
        path: &str,
        reason: &str,
        keep: Option<&str>,
        drop: Option<&str>,
        regexes: &mut Regexes,
    ) -> Result<Rule, String> {
        // The rule of the host: a batch with another reason would be a fault.
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.- ".contains(&byte);
        if reason.is_empty() || reason.len() > MAX_REASON_BYTES || !reason.bytes().all(allowed) {
            return Err(format!(
                "{path}reason: {reason:?} has to be 1 to {MAX_REASON_BYTES} letters, digits, `_`, `.`, `-` or spaces"
            ));
        }
        let (keeps, key, text) = match (keep, drop) {
            (Some(text), None) => (true, "keep", text),
            (None, Some(text)) => (false, "drop", text),
            (Some(_), Some(_)) => return Err(format!("{path}keep and {path}drop: give only one of them")),
            (None, None) if path.is_empty() => {
                return Err("nothing to do: give `keep` or `drop` with an expression, or `rules`".to_owned());
            }
            (None, None) => return Err(format!("{path}keep or {path}drop is missing")),
        };
        let expr = parse(text, regexes).map_err(|mistake| mistake.tell(&format!("{path}{key}"), text))?;
        Ok(Rule {
            reason: reason.to_owned(),
            expr,
            keeps,
        })
    }
}

export_plugin!(Filter);
