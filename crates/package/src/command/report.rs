//! Tables for people, JSON for scripts.

use std::fmt::Display;

use super::{CommandError, Output};

pub(super) fn json(output: &mut Output<'_>, value: &serde_json::Value) -> Result<(), CommandError> {
    writeln!(output.out, "{value:#}")?;
    Ok(())
}

/// Columns as wide as their widest cell; the last one has no end.
pub(super) fn table(
    output: &mut Output<'_>,
    head: &[&str],
    rows: impl Iterator<Item = Vec<String>>,
) -> Result<(), CommandError> {
    let head: Vec<String> = head.iter().map(|word| (*word).to_owned()).collect();
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(rows).collect();
    let mut widths = vec![0; rows[0].len()];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        writeln!(output.out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

pub(super) fn joined<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    if items.is_empty() {
        "none".into()
    } else {
        items.join(",")
    }
}
