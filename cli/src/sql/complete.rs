//! What the Tab key offers at the prompt: words of SQL, tables, columns, functions, and the keys that attributes have.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustyline::completion::{Completer, Pair};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::Validator;
use rustyline::{Context, Helper};
use serde_json::Value;

use super::command;

/// Offered at once; more help nobody.
const MOST_OFFERED: usize = 200;
/// Rows that are looked at for keys of attributes.
const KEY_ROWS: usize = 2_000;
/// Those that people type most; the engine knows more.
const KEYWORDS: [&str; 60] = [
    "ALL",
    "AND",
    "AS",
    "ASC",
    "BETWEEN",
    "BY",
    "CASE",
    "CAST",
    "CROSS",
    "DESC",
    "DESCRIBE",
    "DISTINCT",
    "ELSE",
    "END",
    "EXCEPT",
    "EXISTS",
    "EXPLAIN",
    "EXPLAIN ANALYZE",
    "FALSE",
    "FILTER",
    "FIRST",
    "FROM",
    "FULL",
    "GROUP BY",
    "HAVING",
    "ILIKE",
    "IN",
    "INNER",
    "INTERSECT",
    "INTERVAL",
    "IS",
    "IS NOT NULL",
    "IS NULL",
    "JOIN",
    "LAST",
    "LEFT",
    "LIKE",
    "LIMIT",
    "NOT",
    "NULL",
    "NULLS",
    "OFFSET",
    "ON",
    "OR",
    "ORDER BY",
    "OUTER",
    "OVER",
    "PARTITION BY",
    "RIGHT",
    "SELECT",
    "SHOW",
    "TABLE",
    "THEN",
    "TRUE",
    "UNION",
    "VALUES",
    "USING",
    "WHEN",
    "WHERE",
    "WITH",
];
/// Maps whose keys are offered between `['` and `']`.
const MAPS: [&str; 3] = ["attrs", "resource", "scope"];

/// The names that a server has, as far as they have come.
#[derive(Clone, Debug, Default)]
pub(super) struct Names(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    tables: Vec<String>,
    /// Columns with their table.
    columns: Vec<(String, String)>,
    functions: Vec<String>,
    keys: Vec<(&'static str, Vec<String>)>,
}

/// How the rows of an answer become names.
type Take = fn(&Names, &[Vec<Value>]);

/// What is asked for the names, and how an answer is taken.
pub(super) fn questions() -> Vec<(String, Take)> {
    let mut all: Vec<(String, Take)> = vec![
        (
            "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public' \
             ORDER BY table_name, ordinal_position"
                .to_owned(),
            Names::take_columns,
        ),
        (
            "SELECT DISTINCT routine_name FROM information_schema.routines ORDER BY 1".to_owned(),
            Names::take_functions,
        ),
    ];
    let take: [Take; 3] = [
        |names, rows| names.take_keys(MAPS[0], rows),
        |names, rows| names.take_keys(MAPS[1], rows),
        |names, rows| names.take_keys(MAPS[2], rows),
    ];
    for (map, take) in MAPS.into_iter().zip(take) {
        let rows = format!("SELECT {map} FROM events WHERE \"time\" > now() - INTERVAL '1 hour' LIMIT {KEY_ROWS}");
        all.push((
            format!("SELECT DISTINCT unnest(map_keys({map})) AS k FROM ({rows}) ORDER BY 1"),
            take,
        ));
    }
    all
}

impl Names {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_columns(&self, rows: &[Vec<Value>]) {
        let mut known = self.known();
        let pair = |row: &Vec<Value>| Some((row.first()?.as_str()?.to_owned(), row.get(1)?.as_str()?.to_owned()));
        known.columns = rows.iter().filter_map(pair).collect();
        known.tables = known.columns.iter().map(|(table, _)| table.clone()).collect();
        known.tables.dedup();
    }

    fn take_functions(&self, rows: &[Vec<Value>]) {
        self.known().functions = texts(rows);
    }

    fn take_keys(&self, map: &'static str, rows: &[Vec<Value>]) {
        self.known().keys.push((map, texts(rows)));
    }

    /// Where the word begins that is being typed, and what it may become.
    pub(super) fn offers(&self, line: &str, cursor: usize) -> (usize, Vec<Pair>) {
        let typed = line.get(..cursor).unwrap_or(line);
        let known = self.known();
        if let Some((start, map)) = open_key(typed) {
            let keys = known
                .keys
                .iter()
                .filter(|(of, _)| *of == map)
                .flat_map(|(_, keys)| keys);
            let begun = &typed[start..];
            let fits = keys.filter(|key| key.starts_with(begun) && !key.contains(char::is_control));
            let closed = |key: &String| Pair {
                display: key.clone(),
                replacement: format!("{}']", key.replace('\'', "''")),
            };
            return (start, fits.take(MOST_OFFERED).map(closed).collect());
        }
        let start = typed
            .char_indices()
            .rev()
            .take_while(|(_, c)| c.is_alphanumeric() || *c == '_' || *c == '\\')
            .last()
            .map_or(typed.len(), |(at, _)| at);
        let begun = &typed[start..];
        if in_quotes(&typed[..start]) {
            return (start, Vec::new());
        }
        if begun.starts_with('\\') {
            let names = command::NAMES.iter().map(|name| (*name).to_owned());
            return (start, pairs(names.filter(|name| name.starts_with(begun))));
        }
        // Behind `table.` its columns alone; behind FROM and the like tables alone.
        let before = typed[..start].trim_end();
        if let Some(owner) = before.strip_suffix('.') {
            let owner = owner
                .rsplit(|c: char| !c.is_alphanumeric() && c != '_')
                .next()
                .unwrap_or_default();
            let of = known
                .columns
                .iter()
                .filter(|(table, _)| table.eq_ignore_ascii_case(owner));
            let columns = of.map(|(_, column)| column.clone());
            return (start, pairs(columns.filter(|column| begins(column, begun))));
        }
        let last = before.rsplit(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
        let wants_table = ["FROM", "JOIN", "DESCRIBE"]
            .iter()
            .any(|word| last.eq_ignore_ascii_case(word))
            || before.starts_with("\\d");
        if wants_table {
            let tables = known.tables.iter().filter(|table| begins(table, begun)).cloned();
            return (start, pairs(tables));
        }
        if begun.is_empty() {
            return (start, Vec::new());
        }
        let lower = begun.chars().all(|c| !c.is_uppercase());
        let keywords = KEYWORDS.iter().filter(|word| begins(word, begun));
        let keywords = keywords.map(|word| {
            if lower {
                word.to_ascii_lowercase()
            } else {
                (*word).to_owned()
            }
        });
        let mut columns: Vec<String> = known.columns.iter().map(|(_, column)| column.clone()).collect();
        columns.sort();
        columns.dedup();
        let functions = known.functions.iter().map(|name| format!("{name}("));
        let names = columns.into_iter().chain(known.tables.iter().cloned()).chain(functions);
        (start, pairs(keywords.chain(names.filter(|name| begins(name, begun)))))
    }
}

fn texts(rows: &[Vec<Value>]) -> Vec<String> {
    let text = |row: &Vec<Value>| row.first()?.as_str().map(str::to_owned);
    rows.iter().filter_map(text).collect()
}

fn begins(name: &str, begun: &str) -> bool {
    name.get(..begun.len())
        .is_some_and(|head| head.eq_ignore_ascii_case(begun))
}

fn pairs(names: impl Iterator<Item = String>) -> Vec<Pair> {
    let pair = |name: String| Pair {
        display: name.clone(),
        replacement: name,
    };
    names.take(MOST_OFFERED).map(pair).collect()
}

/// An open `attrs['` and where its key begins.
fn open_key(typed: &str) -> Option<(usize, &'static str)> {
    let start = typed.rfind("['")? + 2;
    if typed[start..].contains('\'') {
        return None;
    }
    let name = typed[..start - 2]
        .rsplit(|c: char| !c.is_alphanumeric() && c != '_')
        .next()?;
    let map = MAPS.into_iter().find(|map| map.eq_ignore_ascii_case(name))?;
    Some((start, map))
}

/// Whether a text in quotes is open.
fn in_quotes(typed: &str) -> bool {
    typed.matches('\'').count() % 2 == 1
}

impl Completer for Names {
    type Candidate = Pair;

    fn complete(&self, line: &str, cursor: usize, _: &Context<'_>) -> Result<(usize, Vec<Pair>), ReadlineError> {
        Ok(self.offers(line, cursor))
    }
}

impl Hinter for Names {
    type Hint = String;
}

impl Highlighter for Names {}
impl Validator for Names {}
impl Helper for Names {}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn names() -> Names {
        let names = Names::default();
        let rows = |value: Value| -> Vec<Vec<Value>> { serde_json::from_value(value).unwrap() };
        names.take_columns(&rows(json!([
            ["events", "service"],
            ["events", "severity"],
            ["logs", "body"],
            ["logs", "service"]
        ])));
        names.take_functions(&rows(json!([["json_get"], ["json_length"], ["sum"]])));
        names.take_keys(
            "attrs",
            &rows(json!([["http.route"], ["http.method"], ["it's"], ["odd\u{1b}"]])),
        );
        names
    }

    fn offered(line: &str) -> (usize, Vec<String>) {
        let (start, pairs) = names().offers(line, line.len());
        (start, pairs.into_iter().map(|pair| pair.replacement).collect())
    }

    #[test]
    fn what_may_follow_is_offered_by_what_stands_before_it() {
        let check = |line: &str, start: usize, wanted: &[&str]| {
            assert_eq!(
                offered(line),
                (start, wanted.iter().map(|w| (*w).to_owned()).collect()),
                "{line}"
            );
        };
        check("sel", 0, &["select"]);
        check("SELECT * FR", 9, &["FROM"]);
        check("SELECT * FROM ", 14, &["events", "logs"]);
        check("SELECT * FROM LO", 14, &["logs"]);
        check("SELECT se", 7, &["select", "service", "severity"]);
        check("SELECT json_", 7, &["json_get(", "json_length("]);
        check("SELECT logs.", 12, &["body", "service"]);
        check("SELECT attrs['http.r", 14, &["http.route']"]);
        check("SELECT attrs['i", 14, &["it''s']"]);
        check("SELECT attrs['o", 14, &[]);
        check("SELECT resource['http", 17, &[]);
        check("SELECT 'se", 8, &[]);
        check("\\d l", 3, &["logs"]);
        check("\\ti", 0, &["\\timing"]);
        check("SELECT é", 7, &[]);
    }
}
