//! Questions asked of whole columns: of a dictionary each value is asked once, however many rows have it.

use std::borrow::Cow;

use arrow_array::{Array, BooleanArray};
use arrow_buffer::BooleanBuffer;
use sluice_plugin::{Ints, Text, bits};

/// A number for each row, `absent` for null. The number of a text must not depend on where it stands.
pub(crate) fn map_text<'a, T: Copy>(
    text: &Text<'a>,
    rows: usize,
    absent: T,
    mut of: impl FnMut(&'a str) -> T,
) -> Vec<T> {
    let mut of_value = |values: &'a arrow_array::StringArray, at: usize| {
        if values.is_valid(at) {
            of(values.value(at))
        } else {
            absent
        }
    };
    match text {
        Text::Absent => vec![absent; rows],
        Text::Plain(values) => (0..rows).map(|row| of_value(values, row)).collect(),
        Text::Dict16(_, values) | Text::Dict32(_, values) => {
            let known: Vec<T> = (0..values.len()).map(|value| of_value(values, value)).collect();
            let lookup = |row| text.value_index(row).and_then(|value| known.get(value).copied());
            (0..rows).map(|row| lookup(row).unwrap_or(absent)).collect()
        }
    }
}

/// Rows for which the answer is yes; null is no.
pub(crate) fn where_int(ints: &Ints<'_>, rows: usize, test: impl Fn(i64) -> bool) -> BooleanBuffer {
    match ints {
        Ints::Absent => BooleanBuffer::new_unset(rows),
        Ints::Int32(array) => {
            let yes = bits::of(array.values(), |value| test(i64::from(value)));
            bits::valid(yes, array.nulls())
        }
        Ints::Int64(array) => bits::valid(bits::of(array.values(), test), array.nulls()),
        other => BooleanBuffer::collect_bool(rows, |row| other.get(row).is_some_and(&test)),
    }
}

pub(crate) fn where_bool(bools: &BooleanArray, wanted: bool) -> BooleanBuffer {
    let yes = if wanted {
        bools.values().clone()
    } else {
        !bools.values()
    };
    bits::valid(yes, bools.nulls())
}

/// Rows of an array that are not null.
pub(crate) fn present(array: &dyn Array) -> BooleanBuffer {
    match array.logical_nulls() {
        Some(nulls) => nulls.inner().clone(),
        None => BooleanBuffer::new_set(array.len()),
    }
}

/// Either of both, where most often one of them has nothing.
pub(crate) fn or(a: BooleanBuffer, b: &BooleanBuffer) -> BooleanBuffer {
    if b.count_set_bits() == 0 { a } else { &a | b }
}

/// Whether a text is what a pattern says, in which `*` stands for any text.
pub(crate) fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Where to go on when what follows the last star does not fit.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p + 1, t));
            p += 1;
        } else if pattern.get(p) == Some(&text[t]) {
            (p, t) = (p + 1, t + 1);
        } else if let Some((after, from)) = star {
            star = Some((after, from + 1));
            (p, t) = (after, from + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// ASCII letters in lower case, without a copy where there is none in upper case.
pub(crate) fn lower(text: &str) -> Cow<'_, str> {
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(text.to_ascii_lowercase())
    } else {
        Cow::Borrowed(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_any_text() {
        for (pattern, text) in [
            ("*", ""),
            ("", ""),
            ("a*c", "abbc"),
            ("a*c", "ac"),
            ("*b*", "abc"),
            ("a**", "a"),
            ("*aab", "aaaab"),
        ] {
            assert!(glob(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("", "a"), ("a*c", "acb"), ("a", ""), ("*b", "abc"), ("a*b*c", "acb")] {
            assert!(!glob(pattern, text), "{pattern} {text}");
        }
    }
}
