//! What of a client's text is a query, and what is talk about the session: SET, SHOW, BEGIN and the like.

use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::tokenizer::{Location, Token, Tokenizer};

/// One statement of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Query,
    Set {
        name: String,
        value: String,
    },
    Reset {
        name: String,
    },
    Show {
        name: String,
    },
    Begin,
    Commit,
    Rollback,
    /// To a savepoint: what failed since is forgiven, and the transaction goes on.
    RollbackTo,
    /// Nothing happens; the tag says that it did.
    Accepted(&'static str),
}

/// The statements of a text with what stands before each of them. Text that cannot be cut into words is one statement: the parser
/// says what is wrong with it.
pub(super) fn split(text: &str) -> Vec<(&str, &str)> {
    let Ok(tokens) = Tokenizer::new(&PostgreSqlDialect {}, text).tokenize_with_location() else {
        return vec![("", text)];
    };
    let mut parts = Vec::new();
    let (mut from, mut speaks) = (0, false);
    for token in &tokens {
        match &token.token {
            Token::SemiColon => {
                let at = offset(text, token.span.start);
                if speaks {
                    parts.push((&text[..from], &text[from..at]));
                }
                (from, speaks) = ((at + 1).min(text.len()), false);
            }
            Token::Whitespace(_) | Token::EOF => {}
            _ => speaks = true,
        }
    }
    if speaks {
        parts.push((&text[..from], &text[from..]));
    }
    parts
}

/// Where a line and column are in the bytes of a text.
fn offset(text: &str, place: Location) -> usize {
    let lines = usize::try_from(place.line.saturating_sub(1)).unwrap_or(usize::MAX);
    let columns = usize::try_from(place.column.saturating_sub(1)).unwrap_or(usize::MAX);
    let start: usize = text.split_inclusive('\n').take(lines).map(str::len).sum();
    let line = &text[start..];
    start + line.char_indices().nth(columns).map_or(line.len(), |(at, _)| at)
}

/// What one statement is.
pub(super) fn of(sql: &str) -> Command {
    let Ok(tokens) = Tokenizer::new(&PostgreSqlDialect {}, sql).tokenize() else {
        return Command::Query;
    };
    let words: Vec<String> = tokens.iter().filter_map(word).collect();
    let lower: Vec<String> = words.iter().map(|word| word.to_ascii_lowercase()).collect();
    let lower: Vec<&str> = lower.iter().map(String::as_str).collect();
    match lower.as_slice() {
        ["begin", ..] | ["start", "transaction", ..] => Command::Begin,
        ["commit" | "end", ..] => Command::Commit,
        ["rollback", "to", ..] | ["rollback", _, "to", ..] => Command::RollbackTo,
        ["rollback" | "abort", ..] => Command::Rollback,
        ["savepoint", _] => Command::Accepted("SAVEPOINT"),
        ["release", ..] => Command::Accepted("RELEASE"),
        ["discard", ..] => Command::Accepted("DISCARD ALL"),
        ["deallocate", ..] => Command::Accepted("DEALLOCATE"),
        ["unlisten", ..] => Command::Accepted("UNLISTEN"),
        ["close", ..] => Command::Accepted("CLOSE CURSOR"),
        ["reset", name] => Command::Reset {
            name: (*name).to_owned(),
        },
        ["set", "session", "characteristics", ..] | ["set", "transaction", ..] => Command::Accepted("SET"),
        ["set", rest @ ..] => {
            let local = usize::from(matches!(rest.first(), Some(&("session" | "local"))));
            set(&words[1 + local..], &rest[local..])
        }
        ["show", "transaction", "isolation", "level"] => Command::Show {
            name: "transaction_isolation".into(),
        },
        ["show", "time", "zone"] => Command::Show {
            name: "timezone".into(),
        },
        // ours, answered by the engine
        ["show", "tables" | "columns" | "functions" | "all", ..] => Command::Query,
        ["show", name] => Command::Show {
            name: (*name).to_owned(),
        },
        _ => Command::Query,
    }
}

fn set(words: &[String], lower: &[&str]) -> Command {
    match lower {
        ["time", "zone", ..] => Command::Set {
            name: "timezone".into(),
            value: words[2..].join(" "),
        },
        ["names", ..] => Command::Set {
            name: "client_encoding".into(),
            value: words[1..].join(" "),
        },
        [name, "to" | "=", ..] => Command::Set {
            name: (*name).to_owned(),
            value: words[2..].join(" "),
        },
        // the engine says that this is not offered
        _ => Command::Query,
    }
}

fn word(token: &Token) -> Option<String> {
    match token {
        Token::Whitespace(_) | Token::SemiColon | Token::EOF => None,
        Token::Word(word) => Some(word.value.clone()),
        Token::SingleQuotedString(text) | Token::EscapedStringLiteral(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_cut_where_a_semicolon_stands_by_itself() {
        let text = "SELECT ';' AS \"a;b\";; -- x;y\n SELECT 'ß;' /* ; */ ;\n";
        let parts = split(text);
        assert_eq!(parts.len(), 2, "{parts:?}");
        assert_eq!(parts[0], ("", "SELECT ';' AS \"a;b\""));
        assert!(parts[1].1.ends_with("SELECT 'ß;' /* ; */ "), "{parts:?}");
        assert_eq!(format!("{}{}", parts[1].0, parts[1].1), text[..text.len() - 2]);
        assert!(split(" ; -- nothing\n;").is_empty());
        assert_eq!(split("SELECT 'open"), [("", "SELECT 'open")]);
    }

    #[test]
    fn talk_about_the_session_is_told_from_queries() {
        let set = |name: &str, value: &str| Command::Set {
            name: name.into(),
            value: value.into(),
        };
        for (sql, command) in [
            ("SET application_name = 'My App'", set("application_name", "My App")),
            ("set session DateStyle to ISO", set("datestyle", "ISO")),
            ("SET TIME ZONE 'UTC'", set("timezone", "UTC")),
            ("SET extra_float_digits TO 3", set("extra_float_digits", "3")),
            (
                "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
                Command::Accepted("SET"),
            ),
            ("begin isolation level serializable", Command::Begin),
            ("START TRANSACTION READ ONLY", Command::Begin),
            ("END", Command::Commit),
            ("ROLLBACK TO SAVEPOINT a", Command::RollbackTo),
            ("abort", Command::Rollback),
            (
                "SHOW standard_conforming_strings",
                Command::Show {
                    name: "standard_conforming_strings".into(),
                },
            ),
            ("SHOW TABLES", Command::Query),
            ("SELECT 'begin'", Command::Query),
            ("SET", Command::Query),
            ("INSERT INTO a VALUES (1)", Command::Query),
        ] {
            assert_eq!(of(sql), command, "{sql}");
        }
    }
}
