//! Which texts of a column must be looked at. What each byte is, is learnt sixteen bytes at a time; only where something may begin
//! is more asked.

use std::ops::Range;

use arrow_array::StringArray;
use memchr::memmem;

use super::classes::Classes;
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

/// After so many texts, those of a column in which most hold something are no longer asked first: each would be looked at twice.
const TRIED: usize = 32;
/// To learn what all bytes of a longer text are takes memory beside what looking takes: it is neither asked first nor searched for brackets so.
pub(crate) const LONG: usize = 64 << 10;

impl Finder {
    /// Marks the texts in which something stands, and perhaps a few more.
    pub(crate) fn scan(&mut self, texts: Texts<'_>, facts: Facts, keys: &Keys, open: &mut Open) {
        if texts.rows() == 0 {
            return;
        }
        if facts.always || facts.class.is_some() {
            (0..texts.rows()).for_each(|row| open.set(row));
            return;
        }
        let mut classes = std::mem::take(&mut self.classes);
        let (mut hits, mut asked) = (0, 0);
        let (mut has_letters, mut has_words) = (false, false);
        while asked < texts.rows() && (asked < TRIED || hits * 2 < asked) {
            let text = texts.text(asked);
            asked += 1;
            if text.len() > LONG {
                open.set(asked - 1);
                continue;
            }
            classes.read(text.as_bytes());
            has_letters |= classes.letters();
            has_words |= classes.words();
            if self.is_suspicious(text, &classes, facts, keys) {
                open.set(asked - 1);
                hits += 1;
            }
        }
        (asked..texts.rows()).for_each(|row| open.set(row));
        classes.let_go();
        self.classes = classes;
        let stretch = texts.offsets[0] as usize..texts.offsets[asked] as usize;
        let finders = &self.finders;
        for (finder, kind, may_be) in [
            (&finders.bearer, Kind::Secret, has_words),
            (&finders.is, Kind::Secret, has_words),
            (&finders.passport, Kind::NationalId, has_letters),
            (&finders.ausweis, Kind::NationalId, has_letters),
        ] {
            if may_be && self.has(kind) {
                open_where(finder, texts, stretch.clone(), open);
            }
        }
    }

    /// Whether something stands in this text, but for what a word alone announces.
    fn is_suspicious(&mut self, text: &str, classes: &Classes, facts: Facts, keys: &Keys) -> bool {
        let bytes = text.as_bytes();
        let has = |kinds: &[Kind]| kinds.iter().any(|kind| self.has(*kind));
        let (email, secret) = (has(&[Kind::Email]), has(&[Kind::Secret]));
        let tokens = has(&[Kind::Jwt, Kind::Key, Kind::Iban, Kind::NationalId]);
        let numbers = has(&[Kind::Phone, Kind::Card, Kind::NationalId, Kind::Ip, Kind::Iban]);
        let finders = &self.finders;
        // Keys of values that are always masked stand before a sign, so signs are looked at whatever is on.
        email && classes.at() && email::next_at(bytes, 0).is_some()
            || classes.assigns() && classes.signs().any(|at| sign(text, at, keys))
            || classes.dashes()
                && finders
                    .dashes
                    .find_iter(bytes)
                    .any(|at| bytes[at..].starts_with(b"-----BEGIN ") || secret::option(text, at).is_some())
            || classes.quoted_word()
                && memchr::memchr_iter(b'\'', bytes)
                    .any(|at| at > 0 && bytes[at - 1] == b' ' && secret::literal(text, at - 1).is_some())
            || classes.option()
                && finders
                    .option
                    .find_iter(bytes)
                    .any(|at| command::secret(text, at).is_some())
            || secret && classes.wide() && finders.wide_colon.find(bytes).is_some()
            || classes.backslash() && finders.escape.find(bytes).is_some() && is_json(text)
            || tokens && self.has_token(bytes, classes)
            || numbers && classes.digits() >= run::MIN_DIGITS && self.has_number(text, classes, facts.hint)
    }

    fn has_token(&self, bytes: &[u8], classes: &Classes) -> bool {
        let mut from = 0;
        while let Some(word) = token::next_word(classes, from) {
            from = word.end;
            if token::identify(bytes, word, self.schemes).is_some() {
                return true;
            }
        }
        false
    }

    fn has_number(&mut self, text: &str, classes: &Classes, key: Hint) -> bool {
        let (on, schemes) = (self.on, self.schemes);
        let mut from = 0;
        while let Some(run) = run::next_run(classes, text.as_bytes(), from) {
            from = run.end;
            let mut hit = false;
            self.numbers.find(classes, text, run.clone(), key, schemes, |found| {
                hit = on & 1 << found.kind.rank() != 0;
                !hit
            });
            if hit
                || numbers::scientific(text, run.clone()).is_some()
                || iban::before_run(classes, text.as_bytes(), run.start)
                || under_key(text, run.start)
            {
                return true;
            }
        }
        false
    }
}

/// Opens the texts in which a word stands, searched for in all of them at once: it is rare, so nobody stops on the way.
fn open_where(word: &memmem::Finder<'_>, texts: Texts<'_>, stretch: Range<usize>, open: &mut Open) {
    let mut cursor = Cursor { texts, row: 0 };
    let mut from = stretch.start;
    while let Some(at) = texts.data.get(from..stretch.end).and_then(|rest| word.find(rest)) {
        let row = cursor.row_of(from + at);
        open.set(row);
        from = texts.end(row);
    }
}

fn is_json(text: &str) -> bool {
    text.as_bytes().iter().any(|byte| matches!(byte, b'{' | b'['))
}

/// What a `=`, `:` or `>` announces.
fn sign(text: &str, at: usize, keys: &Keys) -> bool {
    let bytes = text.as_bytes();
    let colon = bytes[at] == b':';
    if colon && bytes[at + 1..].starts_with(b"//") {
        return secret::in_url(text, at).is_some() || token::slack_hook(bytes, at).is_some();
    }
    let v6 = || colon && ip::may_be_v6(bytes, at) && ip::v6_around(bytes, at).0.is_some();
    // Times and addresses have a digit or colon before.
    let before = bytes[..at]
        .iter()
        .rev()
        .find(|byte| !matches!(byte, b'"' | b' ' | b'\'' | b'\\' | b'`'));
    let Some(before) = before else { return v6() };
    v6() || keys.may_end(*before) && secret::key_before(text, at).is_some_and(|key| keys.is_always(key))
        || !before.is_ascii_digit() && secret::suspicious_key(text, at).is_some()
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
