//! International bank account numbers: a country, two check digits, and as many characters as that country has.

use std::ops::Range;

use super::classes::Classes;
use super::edge;

/// Length by country, of the registry of SWIFT.
const LENGTHS: &[(&[u8; 2], usize)] = &[
    (b"AD", 24),
    (b"AE", 23),
    (b"AL", 28),
    (b"AT", 20),
    (b"AZ", 28),
    (b"BA", 20),
    (b"BE", 16),
    (b"BG", 22),
    (b"BH", 22),
    (b"BI", 27),
    (b"BR", 29),
    (b"BY", 28),
    (b"CH", 21),
    (b"CR", 22),
    (b"CY", 28),
    (b"CZ", 24),
    (b"DE", 22),
    (b"DJ", 27),
    (b"DK", 18),
    (b"DO", 28),
    (b"EE", 20),
    (b"EG", 29),
    (b"ES", 24),
    (b"FI", 18),
    (b"FK", 18),
    (b"FO", 18),
    (b"FR", 27),
    (b"GB", 22),
    (b"GE", 22),
    (b"GI", 23),
    (b"GL", 18),
    (b"GR", 27),
    (b"GT", 28),
    (b"HN", 28),
    (b"HR", 21),
    (b"HU", 28),
    (b"IE", 22),
    (b"IL", 23),
    (b"IQ", 23),
    (b"IS", 26),
    (b"IT", 27),
    (b"JO", 30),
    (b"KW", 30),
    (b"KZ", 20),
    (b"LB", 28),
    (b"LC", 32),
    (b"LI", 21),
    (b"LT", 20),
    (b"LU", 20),
    (b"LV", 21),
    (b"LY", 25),
    (b"MC", 27),
    (b"MD", 24),
    (b"ME", 22),
    (b"MK", 19),
    (b"MN", 20),
    (b"MR", 27),
    (b"MT", 31),
    (b"MU", 30),
    (b"NI", 28),
    (b"NL", 18),
    (b"NO", 15),
    (b"OM", 23),
    (b"PK", 24),
    (b"PL", 28),
    (b"PS", 29),
    (b"PT", 25),
    (b"QA", 29),
    (b"RO", 24),
    (b"RS", 22),
    (b"RU", 33),
    (b"SA", 24),
    (b"SC", 31),
    (b"SD", 18),
    (b"SE", 24),
    (b"SI", 19),
    (b"SK", 24),
    (b"SM", 27),
    (b"SO", 23),
    (b"ST", 25),
    (b"SV", 28),
    (b"TL", 23),
    (b"TN", 24),
    (b"TR", 26),
    (b"UA", 29),
    (b"VA", 22),
    (b"VG", 24),
    (b"XK", 20),
    (b"YE", 30),
];

const LETTERS: usize = 26;

/// Length by the places of both letters in the alphabet; 0 where there is no such country.
const BY_COUNTRY: [u8; LETTERS * LETTERS] = {
    let mut table = [0; LETTERS * LETTERS];
    let mut at = 0;
    while at < LENGTHS.len() {
        let (country, length) = LENGTHS[at];
        table[(country[0] - b'A') as usize * LETTERS + (country[1] - b'A') as usize] = length as u8;
        at += 1;
    }
    table
};

/// How long the number is that begins with these letters, if it is one. Without case.
fn length_of(first: u8, second: u8) -> Option<usize> {
    let place = |letter: u8| usize::from((letter | 0x20).wrapping_sub(b'a'));
    let (first, second) = (place(first), place(second));
    if first >= LETTERS || second >= LETTERS {
        return None;
    }
    let length = usize::from(BY_COUNTRY[first * LETTERS + second]);
    (length > 0).then_some(length)
}

/// Hands over the account numbers in `bytes`.
pub(crate) fn find(classes: &Classes, bytes: &[u8], mut found: impl FnMut(Range<usize>)) {
    let mut from = 0;
    for at in classes.letters_and_digits(0) {
        if at >= from
            && let Some(end) = at_word(bytes, at)
        {
            found(at..end);
            from = end;
        }
    }
}

/// Whether one begins in the bytes before a run of digits: `DE|89 3704 …`, `GB29 NWBK |6016 …`.
pub(crate) fn before_run(classes: &Classes, bytes: &[u8], run_start: usize) -> bool {
    classes
        .letters_and_digits(run_start.saturating_sub(12))
        .take_while(|at| *at < run_start + 3)
        .any(|at| at_word(bytes, at).is_some())
}

/// End of the number that begins here.
#[inline]
pub(crate) fn at_word(bytes: &[u8], at: usize) -> Option<usize> {
    let [a, b, c, d] = *bytes.get(at..at + 4)?.first_chunk()?;
    if !(c.is_ascii_digit() && d.is_ascii_digit()) {
        return None;
    }
    let length = length_of(a, b)?;
    ends_at(bytes, at, length)
}

/// End of the number that begins here, if it has this length and the right check digits.
fn ends_at(bytes: &[u8], at: usize, length: usize) -> Option<usize> {
    if !edge::begins(bytes, at) {
        return None;
    }
    let upper = bytes[at].is_ascii_uppercase();
    let separator = *bytes
        .get(at + 4)
        .filter(|byte| matches!(byte, b' ' | b'-' | b'.'))
        .unwrap_or(&b'\0');
    let mut end = at;
    let mut taken = 0;
    // Country and check digits count last, so the remainder is put together from both.
    let (mut rest, mut front) = (0u64, 0u64);
    let mut front_factor = 1;
    while taken < length {
        let byte = *bytes.get(end)?;
        end += 1;
        if byte == separator && taken > 0 && taken % 4 == 0 && bytes[end - 2] != separator {
            continue;
        }
        let (value, factor) = match byte {
            b'0'..=b'9' => (u64::from(byte - b'0'), 10),
            b'A'..=b'Z' if upper => (u64::from(byte - b'A') + 10, 100),
            b'a'..=b'z' if !upper => (u64::from(byte - b'a') + 10, 100),
            _ => return None,
        };
        if taken < 4 {
            front = (front * factor + value) % 97;
            front_factor *= factor;
        } else {
            rest = (rest * factor + value) % 97;
        }
        taken += 1;
    }
    ((rest * (front_factor % 97) + front) % 97 == 1 && edge::ends(bytes, end)).then_some(end)
}
