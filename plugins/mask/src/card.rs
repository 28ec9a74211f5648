//! Finds payment card numbers: 13 to 19 digits, with or without separators, a prefix that issuers use, and a right
//! Luhn digit. A chance number of that length passes Luhn one time in ten; the prefix spares time stamps, which begin
//! with 1.

use std::ops::Range;

const MIN_DIGITS: usize = 13;
const MAX_DIGITS: usize = 19;

/// The next stretch of digits and separators from `from` on with at least 13 digits.
pub(crate) fn next_run(bytes: &[u8], from: usize) -> Option<Range<usize>> {
    let start = next_start(bytes, from)?;
    let length = bytes[start..].iter().take_while(|byte| in_card(**byte)).count();
    Some(start..start + length)
}

/// Where that stretch begins. Looks at one byte in 13 where there is none, and no further than its thirteenth digit: in a column of
/// numbers, the texts of all rows are one stretch, which must not be measured anew for every row.
pub(crate) fn next_start(bytes: &[u8], from: usize) -> Option<usize> {
    let mut floor = from;
    let mut probe = from + MIN_DIGITS - 1;
    while let Some(byte) = bytes.get(probe) {
        if !in_card(*byte) {
            floor = probe + 1;
            probe += MIN_DIGITS;
            continue;
        }
        let before = bytes[floor..probe]
            .iter()
            .rev()
            .take_while(|byte| in_card(**byte))
            .count();
        let start = probe - before;
        let mut digits = 0;
        let mut end = start;
        while let Some(byte) = bytes.get(end).filter(|byte| in_card(**byte)) {
            digits += usize::from(byte.is_ascii_digit());
            end += 1;
            if digits == MIN_DIGITS {
                return Some(start);
            }
        }
        floor = end;
        probe = end + MIN_DIGITS;
    }
    None
}

fn in_card(byte: u8) -> bool {
    byte.is_ascii_digit() || byte == b' ' || byte == b'-'
}

/// Digits that stand together.
type Group = Range<usize>;

/// Finds cards; keeps its scratch between texts.
#[derive(Debug, Default)]
pub(crate) struct Cards {
    groups: Vec<Group>,
}

impl Cards {
    /// Appends the card numbers in `text`, in order and not overlapping.
    pub(crate) fn find(&mut self, text: &str, spans: &mut Vec<Range<usize>>) {
        let bytes = text.as_bytes();
        let mut from = 0;
        while let Some(run) = next_run(bytes, from) {
            from = run.end;
            self.split(bytes, run);
            let mut first = 0;
            while first < self.groups.len() {
                match self.longest(bytes, first) {
                    Some(last) => {
                        spans.push(self.groups[first].start..self.groups[last].end);
                        first = last + 1;
                    }
                    None => first += 1,
                }
            }
        }
    }

    fn split(&mut self, bytes: &[u8], run: Range<usize>) {
        self.groups.clear();
        let mut start = None;
        for index in run.clone() {
            match (bytes[index].is_ascii_digit(), start) {
                (true, None) => start = Some(index),
                (false, Some(from)) => {
                    self.groups.push(from..index);
                    start = None;
                }
                _ => {}
            }
        }
        if let Some(from) = start {
            self.groups.push(from..run.end);
        }
        if let Some(group) = self.groups.first_mut() {
            *group = after_escape(bytes, group.clone());
        }
    }

    /// The last group of the longest card that begins with this group.
    fn longest(&self, bytes: &[u8], first: usize) -> Option<usize> {
        let start = self.groups[first].start;
        if !starts_free(bytes, start) {
            return None;
        }
        let mut count = 0;
        let mut best = None;
        for (last, group) in self.groups.iter().enumerate().skip(first) {
            count += group.len();
            if count > MAX_DIGITS || !self.joined(bytes, first, last) {
                break;
            }
            if count >= MIN_DIGITS
                && self.shaped(first, last)
                && self.bounded(bytes, first, last)
                && is_card(&bytes[start..group.end])
            {
                best = Some(last);
            }
        }
        best
    }

    /// Whether one separator, the same everywhere, stands before `last` as before the groups from `first` on.
    fn joined(&self, bytes: &[u8], first: usize, last: usize) -> bool {
        if last == first {
            return true;
        }
        let before = self.groups[last - 1].end;
        self.groups[last].start == before + 1 && bytes[before] == bytes[self.groups[first].end]
    }

    /// Groups as they are printed on cards, 4-4-4-4 or 4-6-5 and the like; a list of small numbers is none.
    fn shaped(&self, first: usize, last: usize) -> bool {
        let groups = &self.groups[first..=last];
        groups.len() == 1
            || groups[0].len() == 4
                && groups[1..groups.len() - 1]
                    .iter()
                    .all(|group| (4..=7).contains(&group.len()))
                && groups[groups.len() - 1].len() <= 7
    }

    /// Whether the number ends here, and is no part of a longer one written with dashes, such as a UUID.
    fn bounded(&self, bytes: &[u8], first: usize, last: usize) -> bool {
        let (start, end) = (self.groups[first].start, self.groups[last].end);
        let dashed = last > first && bytes[self.groups[first].end] == b'-';
        let glued = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
        if dashed
            && (bytes.get(end) == Some(&b'-') && glued(bytes.get(end + 1))
                || start >= 2 && bytes[start - 1] == b'-' && glued(bytes.get(start - 2)))
        {
            return false;
        }
        ends_free(bytes, end)
    }
}

/// The digits of `\u0020` are no part of a number.
fn after_escape(bytes: &[u8], group: Group) -> Group {
    let escaped =
        group.start >= 2 && bytes[group.start - 1] == b'u' && backslashes_before(bytes, group.start - 1) % 2 == 1;
    if escaped {
        (group.start + 4).min(group.end)..group.end
    } else {
        group
    }
}

fn backslashes_before(bytes: &[u8], at: usize) -> usize {
    bytes[..at].iter().rev().take_while(|byte| **byte == b'\\').count()
}

/// Not the rest of a word, a fraction or a telephone number.
fn starts_free(bytes: &[u8], start: usize) -> bool {
    let Some(before) = start.checked_sub(1).map(|at| bytes[at]) else {
        return true;
    };
    match before {
        b'n' | b'r' | b't' | b'b' | b'f' => backslashes_before(bytes, start - 1) % 2 == 1,
        // Behind an escape whose digits were left out.
        byte if byte.is_ascii_hexdigit() => {
            start >= 6 && bytes[start - 5] == b'u' && backslashes_before(bytes, start - 5) % 2 == 1
        }
        b'.' => start < 2 || !bytes[start - 2].is_ascii_digit(),
        b'_' | b'+' => false,
        byte => !byte.is_ascii_alphabetic(),
    }
}

fn ends_free(bytes: &[u8], end: usize) -> bool {
    match bytes.get(end) {
        None => true,
        Some(b'_') => false,
        Some(b'.') => !bytes.get(end + 1).is_some_and(u8::is_ascii_digit),
        Some(byte) => !byte.is_ascii_alphanumeric(),
    }
}

fn is_card(number: &[u8]) -> bool {
    let mut digits = [0u8; MAX_DIGITS];
    let mut count = 0;
    for byte in number.iter().filter(|byte| byte.is_ascii_digit()) {
        digits[count] = byte - b'0';
        count += 1;
    }
    let digits = &digits[..count];
    issued(digits) && luhn(digits)
}

/// Prefixes that issuers use: Mastercard and Mir in 2, American Express, Diners and JCB in 3, Visa in 4, Mastercard and
/// Maestro in 5, Discover, UnionPay and Maestro in 6.
fn issued(digits: &[u8]) -> bool {
    let prefix = digits
        .iter()
        .take(4)
        .fold(0, |number, digit| number * 10 + u16::from(*digit));
    matches!(prefix, 2200..=2204 | 2221..=2720 | 3000..=3099 | 3400..=6999)
}

fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, digit)| {
            let digit = u32::from(*digit);
            match (place % 2, digit * 2) {
                (0, _) => digit,
                (_, doubled @ 0..=9) => doubled,
                (_, doubled) => doubled - 9,
            }
        })
        .sum();
    sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Byte by byte, as it is defined.
    fn slow(bytes: &[u8]) -> Option<Range<usize>> {
        let mut start = 0;
        while start < bytes.len() {
            let length = bytes[start..].iter().take_while(|byte| in_card(**byte)).count();
            let run = start..start + length;
            if bytes[run.clone()].iter().filter(|byte| byte.is_ascii_digit()).count() >= MIN_DIGITS {
                return Some(run);
            }
            start += length.max(1);
        }
        None
    }

    #[test]
    fn looking_at_few_bytes_finds_the_same_as_looking_at_all() {
        let mut random = 1u64;
        let mut found = 0;
        for case in 0..20_000 {
            let mut bytes = Vec::new();
            for _ in 0..60 {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let roll = (random >> 33) as usize;
                // From mostly letters to hardly any.
                let letter = roll % 100 < case % 25;
                bytes.push(if letter { b'x' } else { b"0123456789 -"[roll / 128 % 12] });
            }
            let expected = slow(&bytes);
            found += usize::from(expected.is_some());
            assert_eq!(next_run(&bytes, 0), expected, "{}", String::from_utf8_lossy(&bytes));
        }
        assert!((2_000..18_000).contains(&found), "{found}");
    }
}
