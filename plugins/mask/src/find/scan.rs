//! Which texts of a column must be looked at. The column is searched as one stretch of bytes, a few times, each time at the
//! speed of `memchr` or by looking at every sixth byte; only where something may begin is a text looked at.

use arrow_array::StringArray;

use super::{Facts, Finder, Hint, command, email, iban, ip, numbers, run, secret, token};
use crate::keys::Keys;
use crate::kind::Kind;

/// The texts of a column: text i is `data[offsets[i]..offsets[i + 1]]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Texts<'a> {
    array: &'a StringArray,
    offsets: &'a [i32],
    data: &'a [u8],
}

impl<'a> Texts<'a> {
    pub(crate) fn of(array: &'a StringArray) -> Self {
        Texts {
            array,
            offsets: array.value_offsets(),
            data: array.value_data(),
        }
    }

    fn start(&self, row: usize) -> usize {
        self.offsets[row] as usize
    }

    fn end(&self, row: usize) -> usize {
        self.offsets[row + 1] as usize
    }

    fn text(&self, row: usize) -> &'a str {
        self.array.value(row)
    }

    pub(crate) fn rows(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }
}

/// One bit for each text.
#[derive(Clone, Debug, Default)]
pub(crate) struct Open {
    bits: Vec<u64>,
}

impl Open {
    pub(crate) fn reset(&mut self, rows: usize) {
        self.bits.clear();
        self.bits.resize(rows.div_ceil(64), 0);
    }

    pub(crate) fn set(&mut self, row: usize) {
        self.bits[row / 64] |= 1 << (row % 64);
    }

    fn has(&self, row: usize) -> bool {
        self.bits[row / 64] & 1 << (row % 64) != 0
    }

    pub(crate) fn rows(&self) -> impl Iterator<Item = usize> + '_ {
        self.bits.iter().enumerate().flat_map(|(word, bits)| {
            let mut bits = *bits;
            std::iter::from_fn(move || {
                let bit = (bits != 0).then(|| bits.trailing_zeros() as usize)?;
                bits &= bits - 1;
                Some(word * 64 + bit)
            })
        })
    }
}

/// Finds the row of ever larger places.
struct Cursor<'a> {
    texts: Texts<'a>,
    row: usize,
}

impl Cursor<'_> {
    /// Empty texts have no places, so the row is the only one.
    fn row_of(&mut self, at: usize) -> usize {
        let mut step = 1;
        while self.row + step < self.texts.rows() && self.texts.end(self.row + step) <= at {
            step *= 2;
        }
        let low = self.row;
        let high = (self.row + step + 1).min(self.texts.rows());
        self.row = low + self.texts.offsets[low + 1..high + 1].partition_point(|end| *end as usize <= at);
        self.row
    }
}

impl Finder {
    /// Marks the texts in which something stands, and perhaps a few more.
    pub(crate) fn scan(&mut self, texts: Texts<'_>, facts: Facts, keys: &Keys, open: &mut Open) {
        let (Some(first), Some(last)) = (texts.offsets.first(), texts.offsets.last()) else {
            return;
        };
        let (first, last) = (*first as usize, *last as usize);
        if facts.always || facts.class.is_some() {
            (0..texts.rows()).for_each(|row| open.set(row));
            return;
        }
        let data = &texts.data[..last];
        let visit = |open: &mut Open,
                     next: &mut dyn FnMut(usize) -> Option<usize>,
                     inspect: &mut dyn FnMut(usize, &Texts<'_>, usize) -> (bool, usize)| {
            let mut cursor = Cursor { texts, row: 0 };
            let mut from = first;
            while let Some(at) = next(from) {
                let row = cursor.row_of(at);
                if open.has(row) {
                    from = texts.end(row);
                    continue;
                }
                let (hit, next_from) = inspect(at, &texts, row);
                if hit {
                    open.set(row);
                    from = texts.end(row);
                } else {
                    from = next_from;
                }
            }
        };
        // Signs: rows that have one are few, and what follows is short.
        if self.has(Kind::Email) {
            visit(open, &mut |from| email::next_at(data, from), &mut |at, _, _| {
                (true, at + 1)
            });
        }
        let finders = &self.finders;
        visit(
            open,
            &mut |from| finders.escape.find(data.get(from..)?).map(|at| at + from),
            // What is no JSON is not asked about again for each of its escapes.
            &mut |_, texts, row| (is_json(texts.text(row)), texts.end(row)),
        );
        visit(
            open,
            &mut |from| finders.dashes.find(data.get(from..)?).map(|at| at + from),
            &mut |at, texts, row| {
                let text = texts.text(row);
                let local = at - texts.start(row);
                let key = data[at..].starts_with(b"-----BEGIN ");
                (key || secret::option(text, local).is_some(), at + 1)
            },
        );
        visit(
            open,
            &mut |from| memchr::memchr(b'\'', data.get(from..)?).map(|at| at + from),
            &mut |at, texts, row| {
                let local = at - texts.start(row);
                let literal =
                    local > 0 && data[at - 1] == b' ' && secret::literal(texts.text(row), local - 1).is_some();
                (literal, at + 1)
            },
        );
        visit(
            open,
            &mut |from| finders.option.find(data.get(from..)?).map(|at| at + from),
            &mut |at, texts, row| {
                let local = at.checked_sub(texts.start(row));
                (
                    local.is_some_and(|local| command::secret(texts.text(row), local).is_some()),
                    at + 1,
                )
            },
        );
        for (finder, kind) in [
            (&finders.bearer, Kind::Secret),
            (&finders.wide_colon, Kind::Secret),
            (&finders.is, Kind::Secret),
            (&finders.passport, Kind::NationalId),
            (&finders.ausweis, Kind::NationalId),
        ] {
            if self.on & 1 << kind.rank() != 0 {
                visit(
                    open,
                    &mut |from| finder.find(data.get(from..)?).map(|at| at + from),
                    &mut |at, _, _| (true, at + 1),
                );
            }
        }
        let on = self.on;
        let has = |kinds: &[Kind]| kinds.iter().any(|kind| on & 1 << kind.rank() != 0);
        // Keys of values that are always masked stand before a sign, so signs are looked at whatever is on.
        let mut next_sign = |from: usize| memchr::memchr3(b'=', b':', b'>', data.get(from..)?).map(|at| at + from);
        visit(open, &mut next_sign, &mut |at, texts, row| {
            (sign(texts, row, at, keys), at + 1)
        });
        let schemes = self.schemes;
        if has(&[Kind::Jwt, Kind::Key, Kind::Iban, Kind::NationalId]) {
            visit(
                open,
                &mut |from| token::next_start(data, from),
                &mut |at, texts, row| {
                    // A word may go over the border of two texts.
                    let bytes = &data[..texts.end(row)];
                    let end = at.max(texts.start(row));
                    match token::next_word(bytes, end) {
                        Some(word) if word.start > end => (false, word.start),
                        Some(word) => {
                            let text = texts.text(row).as_bytes();
                            let start = texts.start(row);
                            let found = token::identify(text, word.start - start..word.end - start, schemes);
                            (found.is_some(), word.end)
                        }
                        None => (false, texts.end(row)),
                    }
                },
            );
        }
        if !has(&[Kind::Phone, Kind::Card, Kind::NationalId, Kind::Ip, Kind::Iban]) {
            return;
        }
        let finder = &mut self.numbers;
        let key = facts.hint;
        visit(open, &mut |from| run::next_start(data, from), &mut |at, texts, row| {
            let (start, end) = (texts.start(row), texts.end(row));
            let Some(run) = run::next_run(&data[..end], at).filter(|run| run.start < end) else {
                return (false, end);
            };
            let text = texts.text(row);
            let local = run.start - start..run.end - start;
            let mut hit = false;
            finder.find(text, local.clone(), key, schemes, |found| {
                hit = on & 1 << found.kind.rank() != 0;
                !hit
            });
            hit = hit || numbers::scientific(text, local.clone()).is_some();
            hit = hit || iban::before_run(text.as_bytes(), local.start) || under_key(text, local.start);
            (hit, run.end)
        });
    }
}

fn is_json(text: &str) -> bool {
    text.as_bytes().iter().any(|byte| matches!(byte, b'{' | b'['))
}

/// What a `=`, `:` or `>` announces.
fn sign(texts: &Texts<'_>, row: usize, at: usize, keys: &Keys) -> bool {
    let start = texts.start(row);
    let bytes = texts.data;
    let colon = bytes[at] == b':';
    if colon && bytes.get(at + 1) == Some(&b'/') && bytes.get(at + 2) == Some(&b'/') {
        let (text, local) = (texts.text(row), at - start);
        return secret::in_url(text, local).is_some() || token::slack_hook(text.as_bytes(), local).is_some();
    }
    // Times and addresses have a digit or colon before.
    let Some(before) = bytes[start..at]
        .iter()
        .rev()
        .find(|byte| !matches!(byte, b'"' | b' ' | b'\'' | b'\\' | b'`'))
    else {
        return colon && v6(texts, row, at);
    };
    if colon && v6(texts, row, at) {
        return true;
    }
    let (text, local) = (texts.text(row), at - start);
    keys.may_end(*before) && secret::key_before(text, local).is_some_and(|key| keys.is_always(key))
        || !before.is_ascii_digit() && secret::suspicious_key(text, local).is_some()
}

fn v6(texts: &Texts<'_>, row: usize, at: usize) -> bool {
    let text = texts.text(row).as_bytes();
    let local = at - texts.start(row);
    ip::may_be_v6(text, local) && ip::v6_around(text, local).0.is_some()
}

/// In JSON the key of a number may stand far before it: before a list, or before other words of the same text.
fn under_key(text: &str, at: usize) -> bool {
    const REACH: usize = 256;
    let bytes = text.as_bytes();
    let floor = at.saturating_sub(REACH);
    let Some(colon) = memchr::memmem::rfind(&bytes[floor..at], b"\":").map(|colon| colon + floor) else {
        return false;
    };
    let mut end = colon;
    while end > floor && bytes[end - 1] == b'\\' {
        end -= 1;
    }
    text.get(..end)
        .is_some_and(|before| Hint::before(before, end, Hint::NONE).about_person())
}
