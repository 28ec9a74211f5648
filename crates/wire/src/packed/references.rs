//! Which columns a body repeats: an address, a status, a duration that is an attribute of the same row.

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef};

use super::referable;
use super::shape::{MAX_TEXT_BYTES, MIN_REFERENCE_BYTES, is_border};
use super::texts::References;
use crate::layout::cells::Cells;

/// Rows that are looked at.
const SAMPLE: usize = 128;
/// A column counts that occurs in at least one of so many bodies.
const RARE: usize = 16;
/// More cost time in every row and find little.
const MOST: usize = 8;
/// Longer texts are not parts of a body but documents of their own.
const MAX_BYTES: usize = 256;

/// The columns that were found, with their texts beside every body.
#[derive(Debug, Default)]
pub(super) struct Found {
    columns: Vec<(usize, Written)>,
}

/// Texts that were written out, one after the other.
#[derive(Debug, Default)]
struct Written {
    text: String,
    ends: Vec<usize>,
}

impl Found {
    pub(super) fn references(&self) -> References<'_> {
        let columns = self.columns.iter().map(|(place, written)| (*place, written.texts()));
        References {
            columns: columns.collect(),
        }
    }
}

impl Written {
    fn texts(&self) -> Vec<&str> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts
            .zip(&self.ends)
            .map(|(start, end)| &self.text[start..*end])
            .collect()
    }
}

/// Chooses among the columns that lie before the body. Only plain bodies refer to others: what repeats is a dictionary.
pub(super) fn choose(body: &ArrayRef, before: &[&ArrayRef]) -> Found {
    let Some(bodies) = body.as_string_opt::<i32>() else {
        return Found::default();
    };
    let rows: Vec<usize> = (0..bodies.len()).filter(|row| bodies.is_valid(*row)).collect();
    let step = rows.len().div_ceil(SAMPLE).max(1);
    let is_taken_apart = |row: &usize| bodies.value_length(*row) as usize <= MAX_TEXT_BYTES;
    let sample: Vec<usize> = rows.iter().copied().step_by(step).filter(is_taken_apart).collect();
    let mut scores: Vec<(usize, usize, Cells<'_>)> = Vec::new();
    let mut text = Vec::new();
    for (place, column) in before.iter().enumerate() {
        let Some(cells) = referable(column) else { continue };
        let (mut hits, mut bytes) = (0, 0);
        for &row in sample.iter().filter(|row| cells.is_valid(**row)) {
            text.clear();
            cells.write_text(row, &mut text);
            if occurs(bodies.value(row).as_bytes(), &text) {
                hits += 1;
                bytes += text.len();
            }
        }
        if hits * RARE >= sample.len() && hits > 0 {
            scores.push((bytes, place, cells));
        }
    }
    scores.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
    scores.truncate(MOST);
    let columns = scores
        .into_iter()
        .map(|(_, place, cells)| (place, write(&cells, &rows)));
    Found {
        columns: columns.collect(),
    }
}

fn occurs(body: &[u8], text: &[u8]) -> bool {
    if !(MIN_REFERENCE_BYTES..=MAX_BYTES).contains(&text.len()) {
        return false;
    }
    body.windows(text.len()).enumerate().any(|(at, window)| {
        window[0] == text[0] && window == text && is_border(body, at) && is_border(body, at + text.len())
    })
}

fn write(cells: &Cells<'_>, rows: &[usize]) -> Written {
    let (mut bytes, mut ends) = (Vec::new(), Vec::with_capacity(rows.len()));
    for &row in rows {
        if cells.is_valid(row) {
            let start = bytes.len();
            cells.write_text(row, &mut bytes);
            if bytes.len() - start > MAX_BYTES {
                bytes.truncate(start);
            }
        }
        ends.push(bytes.len());
    }
    // What was written are texts, so this takes them as they are.
    let text = String::from_utf8(bytes).unwrap_or_default();
    if text.len() < ends.last().copied().unwrap_or(0) {
        ends.iter_mut().for_each(|end| *end = 0);
    }
    Written { text, ends }
}
