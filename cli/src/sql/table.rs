//! Rows as a table for people.

use std::io::{self, IsTerminal, Write};

use serde_json::Value;

use super::answer::{Answer, plain};

/// A column is never wider than this on a terminal; elsewhere nothing is cut.
const WIDEST_CELL: usize = 80;

#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    pub(super) widest: Option<usize>,
    pub(super) dim_rules: bool,
    /// Each row as a list of its columns.
    pub(super) expanded: bool,
}

impl Look {
    pub(super) fn of_terminal() -> Look {
        let terminal = io::stdout().is_terminal();
        let colour = std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        Look {
            widest: terminal.then_some(WIDEST_CELL),
            dim_rules: terminal && colour,
            expanded: false,
        }
    }
}

pub(super) fn write(answer: &Answer, look: Look, out: &mut impl Write) -> io::Result<()> {
    if answer.columns.is_empty() {
        return Ok(());
    }
    if answer.columns.iter().map(|c| c.name.as_str()).eq(["plan_type", "plan"]) {
        return plans(answer, out);
    }
    if look.expanded {
        return records(answer, look, out);
    }
    let right: Vec<bool> = answer.columns.iter().map(|c| is_number(&c.kind)).collect();
    let names: Vec<String> = answer.columns.iter().map(|c| plain(&c.name)).collect();
    let rows: Vec<Vec<String>> = answer
        .rows
        .iter()
        .map(|row| row.iter().map(|value| cell(value, look.widest)).collect())
        .collect();
    let widths = widths(&names, &rows);
    line(&names, &widths, &right, out)?;
    rule(&widths, look, out)?;
    for row in &rows {
        line(row, &widths, &right, out)?;
    }
    Ok(())
}

fn widths(names: &[String], rows: &[Vec<String>]) -> Vec<usize> {
    let mut widths: Vec<usize> = names.iter().map(|n| n.chars().count()).collect();
    for row in rows {
        for (width, text) in widths.iter_mut().zip(row) {
            *width = (*width).max(text.chars().count());
        }
    }
    widths
}

/// Characters of the widest line, were it not expanded.
pub(super) fn width(answer: &Answer, look: Look) -> usize {
    let names: Vec<String> = answer.columns.iter().map(|c| plain(&c.name)).collect();
    let rows = answer.rows.iter();
    let rows: Vec<Vec<String>> = rows
        .map(|row| row.iter().map(|value| cell(value, look.widest)).collect())
        .collect();
    widths(&names, &rows).iter().map(|width| width + 3).sum()
}

/// One column a line; nothing is cut.
fn records(answer: &Answer, look: Look, out: &mut impl Write) -> io::Result<()> {
    let names: Vec<String> = answer.columns.iter().map(|c| plain(&c.name)).collect();
    let widest = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    for (number, row) in answer.rows.iter().enumerate() {
        let head = format!("─[ record {} ]", number + 1);
        let (dim, plain) = if look.dim_rules {
            ("\x1b[2m", "\x1b[0m")
        } else {
            ("", "")
        };
        writeln!(
            out,
            "{dim}{head}{}{plain}",
            "─".repeat(widest.saturating_sub(head.chars().count()) + 1)
        )?;
        for (name, value) in names.iter().zip(row) {
            let pad = " ".repeat(widest - name.chars().count());
            writeln!(out, "{}", format!("{name}{pad} │ {}", cell(value, None)).trim_end())?;
        }
    }
    Ok(())
}

/// A plan is a tree over many lines, which no cell can hold.
fn plans(answer: &Answer, out: &mut impl Write) -> io::Result<()> {
    for row in &answer.rows {
        let mut texts = row.iter().map(|v| v.as_str().unwrap_or_default());
        writeln!(out, "{}:", plain(texts.next().unwrap_or_default()))?;
        for text in texts.flat_map(str::lines) {
            writeln!(out, "  {}", plain(text))?;
        }
    }
    Ok(())
}

fn line(cells: &[String], widths: &[usize], right: &[bool], out: &mut impl Write) -> io::Result<()> {
    let mut text = String::new();
    for (at, ((cell, width), right)) in cells.iter().zip(widths).zip(right).enumerate() {
        text.push_str(if at > 0 { " │ " } else { " " });
        let pad = " ".repeat(width - cell.chars().count());
        if *right {
            text.push_str(&pad);
            text.push_str(cell);
        } else {
            text.push_str(cell);
            text.push_str(&pad);
        }
    }
    writeln!(out, "{}", text.trim_end())
}

fn rule(widths: &[usize], look: Look, out: &mut impl Write) -> io::Result<()> {
    let text: Vec<String> = widths.iter().map(|w| "─".repeat(w + 2)).collect();
    let text = text.join("┼");
    if look.dim_rules {
        writeln!(out, "\x1b[2m{text}\x1b[0m")
    } else {
        writeln!(out, "{text}")
    }
}

fn cell(value: &Value, widest: Option<usize>) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) => one_line(text),
        other => one_line(&other.to_string()),
    };
    match widest {
        Some(most) if text.chars().count() > most => {
            let mut cut: String = text.chars().take(most - 1).collect();
            cut.push('…');
            cut
        }
        _ => text,
    }
}

/// Line ends are shown, other control characters cannot reach the terminal.
fn one_line(text: &str) -> String {
    plain(&text.replace("\r\n", "⏎").replace('\n', "⏎").replace('\t', " "))
}

fn is_number(kind: &str) -> bool {
    ["int", "uint", "float", "decimal"].iter().any(|n| kind.starts_with(n)) && !kind.starts_with("interval")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_stand_right_and_nothing_steers_the_terminal() {
        let answer: Answer = serde_json::from_value(json!({
            "columns": [{"name": "service", "type": "string"}, {"name": "n", "type": "int64"}],
            "rows": [["cart", 5], ["a\u{1b}[2Jb\nc", 12345], [null, 9007199254740993_i64]],
        }))
        .unwrap();
        let mut out = Vec::new();
        write(
            &answer,
            Look {
                widest: Some(8),
                dim_rules: false,
                expanded: false,
            },
            &mut out,
        )
        .unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            " service  │        n\n──────────┼──────────\n cart     │        5\n a\u{fffd}[2Jb⏎c │    12345\n          │ 9007199…\n"
        );

        let mut out = Vec::new();
        let look = Look {
            widest: Some(8),
            dim_rules: false,
            expanded: true,
        };
        write(&answer, look, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.starts_with("─[ record 1 ]─\nservice │ cart\nn       │ 5\n─[ record 2 ]─\n"),
            "{text}"
        );
        assert!(text.ends_with("service │\nn       │ 9007199254740993\n"), "{text}");
        assert_eq!(width(&answer, look), 8 + 8 + 6);
    }
}
