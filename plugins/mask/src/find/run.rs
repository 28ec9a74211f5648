//! Stretches of digits in groups: `+49 (0)30 901820`, `4111-1111-1111-1111`, `192.0.2.1`. What they are is decided elsewhere.

use std::ops::Range;

use super::classes::Classes;
use super::edge;

/// The fewest bytes that any number of interest has: `8.8.8.8` has seven, a NINO has six digits.
const MIN_RUN: usize = 6;
/// Of these, digits: those of `8.8.8.8`.
pub(crate) const MIN_DIGITS: usize = 4;

/// The next run from `from` on that could hold a number.
pub(crate) fn next_run(classes: &Classes, bytes: &[u8], from: usize) -> Option<Range<usize>> {
    classes.next_run(from, |run, digits| {
        let dots = || bytes[run.clone()].iter().filter(|byte| **byte == b'.').count();
        // Six digits, or an address such as `8.8.8.8`.
        digits >= MIN_RUN || digits >= MIN_DIGITS && dots() >= 3
    })
}

/// Digits that stand together, and what stands before them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub start: usize,
    pub end: usize,
    pub before: Separator,
}

impl Group {
    pub(crate) fn len(&self) -> usize {
        self.end - self.start
    }
}

/// Between two groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Separator {
    /// A space of whatever width.
    Space,
    /// A dash of whatever width.
    Dash,
    Dot,
    Slash,
    /// `(`, perhaps with a space before.
    Opens,
    /// `)`, perhaps with a space or dash behind.
    Closes,
    /// `)(`: closes and opens.
    Both,
    /// Anything longer; no number goes on over it. Also at the beginning.
    Far,
}

/// Splits a run into its groups, some at a time.
#[derive(Debug)]
pub(crate) struct Splitter {
    at: usize,
    end: usize,
    last_end: Option<usize>,
}

impl Splitter {
    pub(crate) fn new(run: Range<usize>) -> Self {
        Splitter {
            at: run.start,
            end: run.end,
            last_end: None,
        }
    }

    /// Appends the next groups until there are so many, or no more.
    pub(crate) fn split(&mut self, classes: &Classes, bytes: &[u8], count: usize, groups: &mut Vec<Group>) {
        while groups.len() < count {
            let start = classes.next_digit(self.at, self.end);
            self.at = start;
            if start >= self.end {
                return;
            }
            self.at = classes.digits_end(start).min(self.end);
            let escaped = match self.last_end {
                None => digits_of_escape(bytes, start),
                Some(_) => 0,
            };
            let first = (start + escaped).min(self.at);
            if first == self.at {
                continue;
            }
            let before = self
                .last_end
                .map_or(Separator::Far, |end| separator(&bytes[end..start]));
            groups.push(Group {
                start: first,
                end: self.at,
                before,
            });
            self.last_end = Some(self.at);
        }
    }
}

/// The digits of `\u0020` are no part of a number.
fn digits_of_escape(bytes: &[u8], start: usize) -> usize {
    if start >= 2 && bytes[start - 1] == b'u' && edge::escape_rest(bytes, start - 1) == 5 {
        4
    } else {
        0
    }
}

fn separator(bytes: &[u8]) -> Separator {
    match bytes {
        b" " | b"\xc2\xa0" | b"\xe2\x80\x89" | b"\xe2\x80\xaf" => Separator::Space,
        b"-" | b"\xe2\x80\x90" | b"\xe2\x80\x91" | b"\xe2\x80\x92" | b"\xe2\x80\x93" => Separator::Dash,
        b"." => Separator::Dot,
        b"/" => Separator::Slash,
        b"(" | b" (" => Separator::Opens,
        b")" | b") " | b")-" | b")\xc2\xa0" => Separator::Closes,
        b")(" => Separator::Both,
        _ => Separator::Far,
    }
}

/// The most digits that any number of interest has.
pub(crate) const MAX_DIGITS: usize = 19;

/// Digits as numbers, without their separators.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Digits {
    digits: [u8; MAX_DIGITS],
    count: usize,
}

impl Digits {
    /// `None` if there are more than any number has.
    pub(crate) fn of(bytes: &[u8], groups: &[Group]) -> Option<Digits> {
        let mut all = Digits {
            digits: [0; MAX_DIGITS],
            count: 0,
        };
        for byte in groups.iter().flat_map(|group| &bytes[group.start..group.end]) {
            *all.digits.get_mut(all.count)? = byte - b'0';
            all.count += 1;
        }
        Some(all)
    }

    pub(crate) fn get(&self) -> &[u8] {
        &self.digits[..self.count]
    }
}
