//! `sluice status`: what a running node says of itself, worst news first.

use std::fmt::Write;
use std::process::ExitCode;

use anyhow::{Context, Result};
use serde_json::{Map, Value};

use crate::http_client::{Connect, read_all};
use crate::sql::{plain, refusal, span};

const MOST: usize = 64 << 20;
/// Lists longer than this are cut in the text; `--json` has all of it.
const MOST_ROWS: usize = 20;

/// Show how a running node is doing.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Exit codes: 0 data moves, 1 it does not, or nothing answers.")]
pub(crate) struct Args {
    #[command(flatten)]
    connect: Connect,
    /// All of it, for scripts
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let client = args.connect.client()?;
    let response = client.get("/v1/status").await?;
    let code = response.status();
    let body = read_all(response, MOST).await?;
    if !code.is_success() {
        eprint!("{}", refusal("", code.as_u16(), &body));
        return Ok(ExitCode::FAILURE);
    }
    let status: Value = serde_json::from_slice(&body).context("the answer is not a status")?;
    if args.json {
        println!("{status:#}");
    } else {
        print!("{}", render(&status));
    }
    Ok(if status["ready"] == true {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Headline, completeness, streams, then every other part as it is.
fn render(status: &Value) -> String {
    let mut out = String::new();
    out.push_str(match status["ready"].as_bool() {
        Some(true) => "● ready: data moves\n",
        _ => "✗ NOT READY: data does not move\n",
    });
    completeness(&status["completeness"], &mut out);
    if let Value::Object(parts) = status {
        for (name, part) in parts {
            if !["ready", "completeness", "tenant"].contains(&name.as_str()) {
                section(name, part, 0, &mut out);
            }
        }
    }
    out
}

fn completeness(c: &Value, out: &mut String) {
    if c.is_null() {
        return;
    }
    if let Some(error) = c["error"].as_str() {
        let _ = writeln!(out, "✗ the stores cannot be read: {}", plain(error));
        return;
    }
    match (c["complete"].as_bool(), c["missing_records"].as_u64()) {
        (Some(true), _) => out.push_str("● stores hold all of the log\n"),
        (_, Some(missing)) => {
            let age = c["oldest_missing_age_ms"].as_u64().map(span).unwrap_or_default();
            let _ = writeln!(
                out,
                "! {missing} records of the log are not in the stores yet, the oldest for {age}"
            );
        }
        _ => out.push_str("! the end of the log is not known\n"),
    }
    let Some(streams) = c["streams"].as_array() else {
        return;
    };
    let silent: Vec<&Value> = streams.iter().filter(|s| s["silent"] == true).collect();
    let gaps = streams.iter().filter(|s| s["gaps"].as_u64().unwrap_or(0) > 0).count();
    let _ = writeln!(
        out,
        "{} {} edge stream{}, {} silent, {gaps} with gaps",
        if silent.is_empty() && gaps == 0 { "●" } else { "!" },
        streams.len(),
        if streams.len() == 1 { "" } else { "s" },
        silent.len(),
    );
    for stream in silent.iter().take(MOST_ROWS) {
        let _ = writeln!(
            out,
            "    silent: {} (last heard {})",
            text(&stream["stream"]),
            text(&stream["last_heard"])
        );
    }
}

fn section(name: &str, value: &Value, depth: usize, out: &mut String) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(fields) if fields.is_empty() => {}
        Value::Object(fields) => {
            let _ = writeln!(out, "{indent}{}", words(name));
            for (key, inner) in fields {
                section(key, inner, depth + 1, out);
            }
        }
        Value::Array(items) if items.is_empty() => {}
        Value::Array(items) => {
            let _ = writeln!(out, "{indent}{}", words(name));
            for item in items.iter().take(MOST_ROWS) {
                match item {
                    Value::Object(fields) => {
                        let _ = writeln!(out, "{indent}  - {}", in_line(fields));
                    }
                    other => {
                        let _ = writeln!(out, "{indent}  - {}", text(other));
                    }
                }
            }
            if items.len() > MOST_ROWS {
                let _ = writeln!(out, "{indent}  … and {} more (--json has all)", items.len() - MOST_ROWS);
            }
        }
        other => {
            let (label, shown) = scalar(name, other);
            let _ = writeln!(out, "{indent}{label:<24} {shown}");
        }
    }
}

/// `name mask, rows in 500, dropped {duplicate: 3}`
fn in_line(fields: &Map<String, Value>) -> String {
    let parts: Vec<String> = fields
        .iter()
        .filter(|(_, v)| !v.is_null() && !matches!(v, Value::Array(a) if a.is_empty()))
        .map(|(key, value)| {
            let (label, shown) = scalar(key, value);
            format!("{label} {shown}")
        })
        .collect();
    parts.join(", ")
}

/// A label without the unit, and the value with it.
fn scalar(name: &str, value: &Value) -> (String, String) {
    let number = value.as_u64();
    for (suffix, shown) in [
        ("_bytes", number.map(size)),
        ("_ms", number.map(span)),
        ("_us", number.map(|us| span(us / 1_000))),
        ("_ns", number.map(|ns| span(ns / 1_000_000))),
    ] {
        if let (Some(stem), Some(shown)) = (name.strip_suffix(suffix), shown) {
            // a point in time is no span: those count from 1970
            if suffix == "_bytes" || number.is_some_and(|n| n < 1_000_000_000_000_000) {
                return (words(stem), shown);
            }
        }
    }
    (words(name), text(value))
}

fn words(name: &str) -> String {
    plain(&name.replace('_', " "))
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => plain(text),
        Value::Null => "-".into(),
        other => plain(&other.to_string()),
    }
}

fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn bad_news_comes_first_and_units_are_readable() {
        let shown = render(&json!({
            "ready": false,
            "completeness": {"complete": false, "missing_records": 3, "oldest_missing_age_ms": 5000,
                "streams": [{"stream": "acme/site-1/00", "silent": true, "gaps": 0, "last_heard": "2026-11-21T00:00:00Z"}]},
            "edge": {"spool_bytes": 3145728, "plugins": [{"name": "mask", "rows_in": 5, "error": null}]},
        }));
        assert_eq!(
            shown,
            "✗ NOT READY: data does not move\n\
             ! 3 records of the log are not in the stores yet, the oldest for 5 s\n\
             ! 1 edge stream, 1 silent, 0 with gaps\n    silent: acme/site-1/00 (last heard 2026-11-21T00:00:00Z)\n\
             edge\n  plugins\n    - name mask, rows in 5\n  spool                    3.0 MiB\n"
        );
    }
}
