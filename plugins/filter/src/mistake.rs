//! What is wrong with an expression, and where: for the operator who wrote it.

use std::ops::Range;

/// Characters of the line that are shown around a mistake.
const SHOWN: usize = 100;

/// A mistake at some bytes of the text of an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    pub at: Range<usize>,
    pub what: String,
}

impl Mistake {
    pub(crate) fn new(at: Range<usize>, what: impl Into<String>) -> Mistake {
        Mistake { at, what: what.into() }
    }

    /// The whole story: where (`name` is that of the expression), what, and the line with a mark below it.
    pub fn tell(&self, name: &str, text: &str) -> String {
        let start = text.floor_char_boundary(self.at.start);
        let end = text.floor_char_boundary(self.at.end).max(start);
        let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |newline| start + newline);
        let number = text[..line_start].matches('\n').count() + 1;
        let column = text[line_start..start].chars().count();
        let width = text[start..end.min(line_end).max(start)].chars().count().max(1);
        let skipped = column.saturating_sub(SHOWN / 2);
        let line: String = text[line_start..line_end]
            .chars()
            .skip(skipped)
            .take(SHOWN)
            .map(plain)
            .collect();
        let (dots, indent) = if skipped > 0 { ("…", 1) } else { ("", 0) };
        let mark = "^".repeat(width.min(SHOWN - (column - skipped)));
        format!(
            "{name}, line {number}, column {}: {}\n  {dots}{line}\n  {}{mark}",
            column + 1,
            self.what,
            " ".repeat(indent + column - skipped)
        )
    }
}

/// What would move the mark.
fn plain(c: char) -> char {
    if c.is_control() { ' ' } else { c }
}

/// The known name nearest to a wrong one, if it is near enough to have been meant.
pub(crate) fn nearest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let near = known.into_iter().map(|name| (distance(wrong, name), name));
    near.filter(|(distance, name)| *distance <= name.len().max(wrong.len()) / 3 && *distance < name.len())
        .min()
        .map(|(_, name)| name)
}

/// Edits (insert, delete, replace a letter) that make one word of the other, capitals or not. Words are short: longer
/// ones are not near anything.
fn distance(a: &str, b: &str) -> usize {
    let letters = |word: &str| word.chars().take(64).flat_map(char::to_lowercase).collect::<Vec<_>>();
    let (a, b) = (letters(a), letters(b));
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
