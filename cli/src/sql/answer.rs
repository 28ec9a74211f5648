//! What the server answered, and what a person is told about it.

use std::fmt::Write;

use serde::Deserialize;
use serde_json::Value;

/// A JSON answer of `/v1/sql`.
#[derive(Debug, Deserialize)]
pub(super) struct Answer {
    pub(super) columns: Vec<Column>,
    pub(super) rows: Vec<Vec<Value>>,
    #[serde(default)]
    pub(super) completeness: Value,
    #[serde(default)]
    pub(super) stats: Value,
}

#[derive(Debug, Deserialize)]
pub(super) struct Column {
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) kind: String,
}

#[derive(Deserialize)]
struct Problem {
    code: String,
    detail: String,
    position: Option<Position>,
    hint: Option<String>,
}

#[derive(Deserialize)]
struct Position {
    line: usize,
    column: usize,
}

/// The line below a table: rows, time, and whether that is all.
pub(super) fn summary(answer: &Answer) -> String {
    let rows = answer.rows.len();
    let mut text = format!("{rows} row{}", if rows == 1 { "" } else { "s" });
    if let Some(ms) = answer.stats["elapsed_ms"].as_u64() {
        let _ = write!(text, ", {ms} ms");
    }
    if answer.stats["truncated"] == true {
        text.push_str(", cut here: there are more");
    }
    text.push('\n');
    text.push_str(&note(&answer.completeness));
    text
}

/// Nothing if the answer is complete; else what is missing.
pub(super) fn note(completeness: &Value) -> String {
    if completeness.is_null() {
        return String::new();
    }
    let mut text = String::new();
    if completeness["complete"] != true {
        match completeness["missing_records"].as_u64() {
            Some(missing) => {
                let _ = write!(
                    text,
                    "note: not complete: {missing} records of the log are not in the stores yet"
                );
                if let Some(age) = completeness["oldest_missing_age_ms"].as_u64() {
                    let _ = write!(text, ", the oldest for {}", sluice_settings::readable::span(age));
                }
                text.push('\n');
            }
            None => text.push_str("note: how complete this is is not known: the end of the log is not known\n"),
        }
    }
    if completeness["hot_unreachable"] == true {
        text.push_str("note: the hot store did not answer: this is what the cold table holds\n");
    }
    let streams = completeness["streams"].as_array().map_or(&[][..], Vec::as_slice);
    let silent = streams.iter().filter(|s| s["silent"] == true).count();
    if silent > 0 {
        let _ = writeln!(
            text,
            "note: {silent} of {} edge streams have been silent for 90 s or more",
            streams.len()
        );
    }
    text
}

/// A refused query: the sentence, the place with a caret under it, the hint.
pub(crate) fn refusal(query: &str, status: u16, body: &[u8]) -> String {
    let Ok(problem) = serde_json::from_slice::<Problem>(body) else {
        return format!(
            "error: the server answered {status}: {}\n",
            plain(&String::from_utf8_lossy(body))
        );
    };
    let mut text = format!("error ({}): {}\n", problem.code, plain(&problem.detail));
    if let Some(at) = problem.position
        && let Some(line) = at.line.checked_sub(1).and_then(|n| query.lines().nth(n))
    {
        // a tab before the caret stays a tab, so that the caret stands where the eye expects it
        let before: String = line
            .chars()
            .take(at.column.saturating_sub(1))
            .map(|c| if c == '\t' { '\t' } else { ' ' })
            .collect();
        let _ = writeln!(text, "  {}\n  {before}^", plain(line));
    }
    if let Some(hint) = problem.hint {
        let _ = writeln!(text, "hint: {}", plain(&hint));
    }
    if status == 401 {
        text.push_str("hint: --token-file FILE or the variable SLUICE_TOKEN say who asks\n");
    }
    text
}

/// Text from elsewhere must not steer the terminal.
pub(crate) fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_refusal_points_at_the_place() {
        let body = json!({"code": "unknown_column", "detail": "there is no column `bdy`",
            "position": {"line": 2, "column": 8}, "hint": "did you mean `body`?"});
        assert_eq!(
            refusal("SELECT time,\n       bdy FROM logs", 400, body.to_string().as_bytes()),
            "error (unknown_column): there is no column `bdy`\n         bdy FROM logs\n         ^\nhint: did you mean `body`?\n"
        );
        assert!(refusal("SELECT 1", 502, b"<html>\x1b[31m").starts_with("error: the server answered 502"));
        assert!(!refusal("SELECT 1", 502, b"\x1b[31m").contains('\x1b'));
    }

    #[test]
    fn only_what_is_missing_is_mentioned() {
        assert_eq!(
            note(&json!({"complete": true, "missing_records": 0, "streams": []})),
            ""
        );
        let text = note(
            &json!({"complete": false, "missing_records": 12, "oldest_missing_age_ms": 3500,
            "streams": [{"silent": true}, {"silent": false}]}),
        );
        assert!(
            text.contains("12 records") && text.contains("3 s") && text.contains("1 of 2"),
            "{text}"
        );
        let text = note(&json!({"complete": true, "hot_unreachable": true, "streams": []}));
        assert!(text.contains("hot store did not answer"), "{text}");
    }
}
