//! The plugins of an edge as a small table.

use serde_json::Value;
use sluice_settings::readable;

use super::paint::Paint;
use super::{number, words};

/// Characters of a cell of text; names can be longer, and the end of them is cut.
const WIDEST: usize = 24;
/// Rows of the table; `--json` has all.
const MOST_ROWS: usize = 30;

struct Column {
    title: &'static str,
    /// Numbers stand right.
    right: bool,
    cell: fn(&Value) -> String,
    /// Shown only where it says something.
    only_if: fn(&Value) -> bool,
}

const fn text(title: &'static str, cell: fn(&Value) -> String) -> Column {
    Column {
        title,
        right: false,
        cell,
        only_if: |_| true,
    }
}

const fn figure(title: &'static str, cell: fn(&Value) -> String, only_if: fn(&Value) -> bool) -> Column {
    Column {
        title,
        right: true,
        cell,
        only_if,
    }
}

const COLUMNS: [Column; 12] = [
    text("PLUGIN", |plugin| words(plugin, "/name").unwrap_or_default()),
    text("VERSION", |plugin| words(plugin, "/version").unwrap_or_default()),
    text("KIND", |plugin| words(plugin, "/kind").unwrap_or_default()),
    text("STATE", |plugin| words(plugin, "/state").unwrap_or_default()),
    figure("IN", |plugin| readable::count(number(plugin, "/rows_in")), |_| true),
    figure("OUT", |plugin| readable::count(number(plugin, "/rows_out")), |_| true),
    figure(
        "DROPPED",
        |plugin| readable::count(dropped(plugin)),
        |plugin| dropped(plugin) > 0,
    ),
    figure(
        "ASIDE",
        |plugin| readable::count(number(plugin, "/quarantined")),
        |plugin| number(plugin, "/quarantined") > 0,
    ),
    figure(
        "REFUSED",
        |plugin| readable::count(number(plugin, "/refused")),
        |plugin| number(plugin, "/refused") > 0,
    ),
    figure("FAULTS", |plugin| readable::count(number(plugin, "/faults")), |_| true),
    figure("µs/1000 ROWS", cost, |_| true),
    figure(
        "MEMORY",
        |plugin| readable::bytes(number(plugin, "/memory_bytes")),
        |_| true,
    ),
];

fn dropped(plugin: &Value) -> u64 {
    let reasons = plugin["dropped"].as_array();
    reasons.into_iter().flatten().map(|reason| number(reason, "/1")).sum()
}

fn cost(plugin: &Value) -> String {
    match number(plugin, "/rows_in") {
        0 => "-".to_owned(),
        // Nanoseconds of a row are microseconds of a thousand.
        rows => readable::count(number(plugin, "/cpu_ns") / rows),
    }
}

/// Lines that begin with `indent`; nothing if there is no plugin.
pub(super) fn table(plugins: &[Value], indent: &str, paint: Paint) -> String {
    if plugins.is_empty() {
        return String::new();
    }
    let shown = |column: &&Column| plugins.iter().any(column.only_if);
    let columns: Vec<&Column> = COLUMNS.iter().filter(shown).collect();
    let rows = plugins.iter().take(MOST_ROWS);
    let rows: Vec<Vec<String>> = rows
        .map(|plugin| columns.iter().map(|column| cut((column.cell)(plugin))).collect())
        .collect();
    let width = |place: usize| {
        let cells = rows.iter().map(|row| row[place].chars().count());
        cells.chain([columns[place].title.chars().count()]).max().unwrap_or(0)
    };
    let line = |cell: &dyn Fn(usize) -> String| {
        let cells = (0..columns.len()).map(|place| match columns[place].right {
            true => format!("{:>width$}", cell(place), width = width(place)),
            false => format!("{:<width$}", cell(place), width = width(place)),
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let mut out = format!(
        "{indent}{}\n",
        paint.quiet(&line(&|place| columns[place].title.to_owned()))
    );
    for row in &rows {
        out.push_str(&format!("{indent}{}\n", line(&|place| row[place].clone())));
    }
    if plugins.len() > MOST_ROWS {
        out.push_str(&format!(
            "{indent}… and {} more (--json has all)\n",
            plugins.len() - MOST_ROWS
        ));
    }
    out
}

fn cut(text: String) -> String {
    match text.chars().count() > WIDEST {
        true => text.chars().take(WIDEST - 1).chain(['…']).collect(),
        false => text,
    }
}
