//! Turns what the planner says of a query into a code, a place in the query's text and a hint.

use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use crate::error::{Kind, Position, QueryError, first_line, resource};

/// The names that a hint can suggest.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) tables: Vec<String>,
    pub(crate) columns: Vec<String>,
    pub(crate) functions: Vec<String>,
}

/// Names what the planner could not make a plan of.
pub(crate) fn explain(sql: &str, error: DataFusionError, known: &Known) -> QueryError {
    if let Some(limit) = resource(&error) {
        return limit.because(error);
    }
    let span = error.diagnostic().and_then(|d| d.span).map(|span| Position {
        line: span.start.line,
        column: span.start.column,
    });
    let explained = classify(sql, error.find_root(), known);
    let position = explained.position.or(span);
    explained.at(position).because(error)
}

fn classify(sql: &str, root: &DataFusionError, known: &Known) -> QueryError {
    match root {
        DataFusionError::SQL(error, _) => syntax(sql, &error.to_string()),
        DataFusionError::SchemaError(error, _) => match error.as_ref() {
            SchemaError::FieldNotFound { field, valid_fields } => {
                let mut near: Vec<String> = valid_fields.iter().map(|c| c.name.clone()).collect();
                if near.is_empty() {
                    near.clone_from(&known.columns);
                }
                let error = QueryError::new(
                    Kind::UnknownColumn,
                    format!("there is no column `{}`", field.flat_name()),
                )
                .at(find_word(sql, &field.name));
                column_hint(error, &field.name, &near)
            }
            SchemaError::AmbiguousReference { field } => QueryError::new(
                Kind::Invalid,
                format!("`{}` is in more than one of the tables", field.name),
            )
            .at(find_word(sql, &field.name))
            .hint("write the table's name or alias before it"),
            other => QueryError::new(Kind::Invalid, first_line(&other.to_string())),
        },
        DataFusionError::NotImplemented(text) => QueryError::new(Kind::Unsupported, first_line(text)),
        DataFusionError::Plan(text) => plan(sql, text, known),
        DataFusionError::Internal(text) => QueryError::new(Kind::Internal, first_line(text)),
        DataFusionError::ObjectStore(error) => QueryError::new(Kind::Unavailable, first_line(&error.to_string())),
        other => QueryError::new(Kind::Invalid, first_line(&other.message())),
    }
}

/// The planner says most things in sentences; those that people meet daily are taken apart here.
fn plan(sql: &str, text: &str, known: &Known) -> QueryError {
    if let Some(name) = between(text, "table '", "' not found") {
        let bare = name.rsplit('.').next().unwrap_or(name);
        let error = QueryError::new(Kind::UnknownTable, format!("there is no table `{bare}`")).at(find_word(sql, bare));
        return match nearest(bare, &known.tables) {
            Some(near) => error.hint(format!("did you mean `{near}`?")),
            None => error.hint(format!("there are {}", known.tables.join(", "))),
        };
    }
    if let Some(name) = between(text, "table function '", "' not found") {
        return QueryError::new(Kind::UnknownFunction, format!("there is no table function `{name}`"))
            .at(find_word(sql, name))
            .hint("files and addresses cannot be read from a query");
    }
    if let Some(name) = between(text, "Invalid function '", "'") {
        let error =
            QueryError::new(Kind::UnknownFunction, format!("there is no function `{name}`")).at(find_word(sql, name));
        return match nearest(name, &known.functions) {
            Some(near) => error.hint(format!("did you mean `{near}`?")),
            None => error,
        };
    }
    if text.starts_with("DDL not") || text.starts_with("DML not") || text.starts_with("Statement not") {
        return read_only();
    }
    if text.contains("No value found for placeholder") || text.contains("laceholder type could not be") {
        return QueryError::new(Kind::BadRequest, first_line(text))
            .hint("give one entry of `params` for each of $1, $2, …");
    }
    QueryError::new(Kind::Invalid, first_line(text))
}

/// What is said to everything that would write.
pub(crate) fn read_only() -> QueryError {
    QueryError::new(
        Kind::ReadOnly,
        "only SELECT, EXPLAIN, DESCRIBE and SHOW are answered here",
    )
}

/// The parser puts the place at the end of its sentence.
pub(crate) fn syntax(sql: &str, text: &str) -> QueryError {
    let text = text
        .trim_start_matches("SQL error: ")
        .trim_start_matches("sql parser error: ");
    let (message, position) = match text.rsplit_once(" at Line: ") {
        Some((before, place)) => (before, place_of(place)),
        None => (text, None),
    };
    let error = QueryError::new(Kind::Syntax, message.trim());
    match position {
        Some(position) => error.at(Some(position)),
        None if message.contains("EOF") => error.at(end_of(sql)),
        None => error,
    }
}

fn place_of(text: &str) -> Option<Position> {
    let (line, column) = text.split_once(", Column: ")?;
    let digits = |t: &str| {
        let end = t.find(|c: char| !c.is_ascii_digit()).unwrap_or(t.len());
        t[..end].parse().ok()
    };
    Some(Position {
        line: digits(line)?,
        column: digits(column)?,
    })
}

fn end_of(sql: &str) -> Option<Position> {
    let text = sql.trim_end();
    let last = text.rsplit('\n').next().unwrap_or("");
    Some(Position {
        line: 1 + text.matches('\n').count() as u64,
        column: 1 + last.chars().count() as u64,
    })
}

/// Where a name stands as a word of its own, not inside a string or a comment.
fn find_word(sql: &str, name: &str) -> Option<Position> {
    let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize_with_location().ok()?;
    tokens.into_iter().find_map(|token| match token.token {
        Token::Word(word) if word.value.eq_ignore_ascii_case(name) => Some(Position {
            line: token.span.start.line,
            column: token.span.start.column,
        }),
        _ => None,
    })
}

fn column_hint(error: QueryError, name: &str, near: &[String]) -> QueryError {
    if let Some(best) = nearest(name, near) {
        return error.hint(format!("did you mean `{best}`?"));
    }
    let has_attrs = near.iter().any(|n| n == "attrs");
    if has_attrs && (name.contains('.') || name.contains('_')) {
        let key = name.replace('_', ".");
        return error.hint(format!("attributes are read as attrs['{key}']"));
    }
    if has_attrs {
        return error.hint(format!(
            "attributes are read as attrs['{name}'], text is written in single quotes"
        ));
    }
    error
}

/// The closest known name, if it is close enough to be a slip.
fn nearest<'a>(name: &str, known: &'a [String]) -> Option<&'a str> {
    let name = name.to_ascii_lowercase();
    known
        .iter()
        .map(|k| (strsim::damerau_levenshtein(&name, k), k.as_str()))
        .filter(|(distance, k)| *distance > 0 && *distance <= 1 + name.len().min(k.len()) / 4)
        .min()
        .map(|(_, k)| k)
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let start = text.find(before)? + before.len();
    let end = text[start..].find(after)? + start;
    Some(&text[start..end])
}
