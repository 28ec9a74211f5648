//! Every figure of a status, as it is named there.

use std::fmt::Write;

use serde_json::{Map, Value};
use sluice_settings::readable;

use super::ago;
use crate::sql::plain;

/// Lists longer than this are cut in the text; `--json` has all of it.
const MOST_ROWS: usize = 20;
/// Milliseconds: what is more is a point in time, not a span. In 2001 a clock passed it, and no span is as long.
const TIMES_FROM_MS: u64 = 1_000_000_000_000;

pub(super) fn render(status: &Value, now_ms: u64) -> String {
    let mut out = String::new();
    for (name, part) in status.as_object().into_iter().flatten() {
        if !["ready", "tenant"].contains(&name.as_str()) {
            section(name, part, 0, now_ms, &mut out);
        }
    }
    out
}

fn section(name: &str, value: &Value, depth: usize, now_ms: u64, out: &mut String) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(fields) if fields.is_empty() => {}
        Value::Object(fields) => {
            let _ = writeln!(out, "{indent}{}", words(name));
            for (key, inner) in fields {
                section(key, inner, depth + 1, now_ms, out);
            }
        }
        Value::Array(items) if items.is_empty() => {}
        Value::Array(items) => {
            let _ = writeln!(out, "{indent}{}", words(name));
            for item in items.iter().take(MOST_ROWS) {
                match item {
                    Value::Object(fields) => {
                        let _ = writeln!(out, "{indent}  - {}", in_line(fields, now_ms));
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
            let (label, shown) = scalar(name, other, now_ms);
            let _ = writeln!(out, "{indent}{label:<24} {shown}");
        }
    }
}

/// `name mask, rows in 500, dropped {duplicate: 3}`
fn in_line(fields: &Map<String, Value>, now_ms: u64) -> String {
    let parts: Vec<String> = fields
        .iter()
        .filter(|(_, v)| !v.is_null() && !matches!(v, Value::Array(a) if a.is_empty()))
        .map(|(key, value)| {
            let (label, shown) = scalar(key, value, now_ms);
            format!("{label} {shown}")
        })
        .collect();
    parts.join(", ")
}

/// A label without the unit, and the value with it.
fn scalar(name: &str, value: &Value, now_ms: u64) -> (String, String) {
    let span = |ms: u64| match ms >= TIMES_FROM_MS {
        true => ago(ms, now_ms),
        false => readable::span(ms),
    };
    let of_number = |number: u64| {
        let stem = |suffix: &str| name.strip_suffix(suffix).map(words);
        if name == "bytes" {
            Some((words(name), readable::bytes(number)))
        } else if let Some(stem) = stem("_bytes") {
            Some((stem, readable::bytes(number)))
        } else if let Some(stem) = stem("_unix_ms").or_else(|| stem("_ms")) {
            Some((stem, span(number)))
        } else if let Some(stem) = stem("_us") {
            Some((stem, span(number / 1_000)))
        } else {
            stem("_ns").map(|stem| (stem, span(number / 1_000_000)))
        }
    };
    let known = value.as_u64().and_then(of_number);
    known.unwrap_or_else(|| (words(name), text(value)))
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_figure_has_its_unit_and_a_time_is_how_long_ago_it_was() {
        let shown = render(
            &json!({
                "edge": {"spool_bytes": 3145728, "set_at_ms": 1_795_284_673_000_u64, "last_ack_unix_ms": null, "uptime_ms": 80_358,
                    "plugins": [{"name": "mask", "rows_in": 5, "cpu_ns": 346_000_000, "error": null}]},
            }),
            1_795_284_754_000,
        );
        assert_eq!(
            shown,
            "edge\n  last ack unix ms         -\n  plugins\n    - cpu 346 ms, name mask, rows in 5\n  set at                   1 min 21 s ago\n\
             \x20 spool                    3.0 MiB\n  uptime                   1 min 20 s\n"
        );
    }
}
