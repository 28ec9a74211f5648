//! What a text looks like once its numbers, ids and words are taken out: a shape with slots, and what stood in the slots.
//!
//! Logs of one statement of a program share a shape; what differs lies together by slot, numbers as numbers, hex digits as half bytes.

/// The bytes that stand for a slot; text that holds one of them, or any other byte below `LITERAL`, is kept whole.
pub(super) mod mark {
    pub(in crate::packed) const NUMBER: u8 = 1;
    pub(in crate::packed) const DIGITS: u8 = 2;
    pub(in crate::packed) const HEX_LOWER: u8 = 3;
    pub(in crate::packed) const HEX_UPPER: u8 = 4;
    pub(in crate::packed) const WORD: u8 = 5;
    pub(in crate::packed) const UUID: u8 = 6;
    pub(in crate::packed) const REFERENCE: u8 = 7;
    pub(in crate::packed) const WHOLE: u8 = 8;
    pub(in crate::packed) const LITERAL: u8 = 9;
}

/// Decimal digits that surely fit 63 bits.
pub(super) const MAX_DIGITS: usize = 18;
/// Fewer hex digits are as likely a word or a number.
const MIN_HEX: usize = 5;
const MAX_HEX: usize = 64;
const UUID: [usize; 5] = [8, 4, 4, 4, 12];
pub(super) const UUID_CHARS: usize = 36;
/// A longer text, or one with more slots, is a document and not the line of a statement.
pub(super) const MAX_TEXT_BYTES: usize = 4096;
const MAX_SLOTS: usize = 64;
/// Shorter values of other columns occur by chance.
pub(super) const MIN_REFERENCE_BYTES: usize = 3;

/// What stands in a slot; a reference has nothing of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Number(i64),
    /// Hex digits, or a UUID.
    Hex(&'a [u8]),
    Text(&'a str),
    Nothing,
}

/// A text taken apart. Used again for every text of a column.
#[derive(Debug, Default)]
pub(super) struct Shape<'a> {
    pub(super) skeleton: Vec<u8>,
    pub(super) values: Vec<Value<'a>>,
}

impl<'a> Shape<'a> {
    /// Takes `text` apart. `references` are texts of other columns in this row. Words become slots too where `words` says so.
    pub(super) fn split(&mut self, text: &'a str, words: bool, references: &[&str]) {
        self.skeleton.clear();
        self.values.clear();
        let bytes = text.as_bytes();
        if bytes.len() > MAX_TEXT_BYTES || bytes.iter().any(|byte| *byte < mark::LITERAL) {
            return self.whole(text);
        }
        let begins = FirstBytes::of(references);
        let mut at = 0;
        while at < bytes.len() {
            if self.values.len() >= MAX_SLOTS {
                return self.whole(text);
            }
            if begins.has(bytes[at])
                && let Some(k) = reference_at(bytes, at, references)
            {
                self.skeleton.extend([mark::REFERENCE, k as u8]);
                self.values.push(Value::Nothing);
                at += references[k].len();
            } else if !in_word(bytes[at]) {
                self.skeleton.push(bytes[at]);
                at += 1;
            } else {
                at = self.run(text, at, words);
            }
        }
        // One run of letters and digits alone may have hundreds of groups of digits.
        if self.values.len() > MAX_SLOTS {
            self.whole(text);
        }
    }

    pub(super) fn whole(&mut self, text: &'a str) {
        self.skeleton.clear();
        self.values.clear();
        self.skeleton.push(mark::WHOLE);
        self.values.push(Value::Text(text));
    }

    /// Takes letters and digits from `start` on and says where they end.
    fn run(&mut self, text: &'a str, start: usize, words: bool) -> usize {
        let bytes = text.as_bytes();
        let (mut end, mut found) = (start, 0);
        while let Some(class) = bytes
            .get(end)
            .map(|byte| CLASS[usize::from(*byte)])
            .filter(|class| *class != 0)
        {
            found |= class;
            end += 1;
        }
        let length = end - start;
        if found == class::DIGIT {
            if length == UUID[0] && is_uuid(&bytes[start..]) {
                return self.uuid(bytes, start);
            }
            self.number(text, start, end, is_fixed(bytes, start, end), words);
            return end;
        }
        let case = match found {
            class::HEX_LOWER if length == UUID[0] => mark::HEX_LOWER,
            found if found == class::DIGIT | class::HEX_LOWER => mark::HEX_LOWER,
            found if found == class::DIGIT | class::HEX_UPPER => mark::HEX_UPPER,
            _ => 0,
        };
        if case == mark::HEX_LOWER && length == UUID[0] && is_uuid(&bytes[start..]) {
            return self.uuid(bytes, start);
        }
        if case != 0 && found & class::DIGIT != 0 && (MIN_HEX..=MAX_HEX).contains(&length) {
            self.put(&[case, length as u8], Value::Hex(&bytes[start..end]));
            return end;
        }
        if found & class::DIGIT == 0 {
            self.word(&text[start..end], words);
            return end;
        }
        let mut at = start;
        while at < end {
            let digits = bytes[at].is_ascii_digit();
            let part = bytes[at..end]
                .iter()
                .take_while(|byte| byte.is_ascii_digit() == digits)
                .count();
            if digits {
                self.number(text, at, at + part, part > 1 && bytes[at] == b'0', words);
            } else {
                self.word(&text[at..at + part], words);
            }
            at += part;
        }
        end
    }

    fn uuid(&mut self, bytes: &'a [u8], start: usize) -> usize {
        let end = start + UUID_CHARS;
        self.put(&[mark::UUID], Value::Hex(&bytes[start..end]));
        end
    }

    fn number(&mut self, text: &'a str, start: usize, end: usize, fixed: bool, words: bool) {
        let digits = &text[start..end];
        match digits.parse::<i64>() {
            Ok(number) if digits.len() <= MAX_DIGITS && fixed => {
                self.put(&[mark::DIGITS, digits.len() as u8], Value::Number(number));
            }
            Ok(number) if digits.len() <= MAX_DIGITS => self.put(&[mark::NUMBER], Value::Number(number)),
            _ => self.word(digits, words),
        }
    }

    fn word(&mut self, word: &'a str, words: bool) {
        if words {
            self.put(&[mark::WORD], Value::Text(word));
        } else {
            self.skeleton.extend_from_slice(word.as_bytes());
        }
    }

    fn put(&mut self, mark: &[u8], value: Value<'a>) {
        self.skeleton.extend_from_slice(mark);
        self.values.push(value);
    }
}

/// What a byte can be part of; 0 where a run of letters and digits ends.
mod class {
    pub(super) const DIGIT: u8 = 1;
    pub(super) const HEX_LOWER: u8 = 2;
    pub(super) const HEX_UPPER: u8 = 4;
    pub(super) const LETTER: u8 = 8;
}

static CLASS: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = match byte as u8 {
            b'0'..=b'9' => class::DIGIT,
            b'a'..=b'f' => class::HEX_LOWER,
            b'A'..=b'F' => class::HEX_UPPER,
            b'g'..=b'z' | b'G'..=b'Z' | 0x80.. => class::LETTER,
            _ => 0,
        };
        byte += 1;
    }
    table
};

/// The bytes with which references begin.
struct FirstBytes([u64; 4]);

impl FirstBytes {
    fn of(references: &[&str]) -> Self {
        let mut bits = [0; 4];
        for first in references.iter().filter_map(|reference| reference.as_bytes().first()) {
            bits[usize::from(first >> 6)] |= 1 << (first & 63);
        }
        Self(bits)
    }

    fn has(&self, byte: u8) -> bool {
        self.0[usize::from(byte >> 6)] >> (byte & 63) & 1 == 1
    }
}

/// Letters of other alphabets are bytes of 128 and more; a text is never cut within one of them.
pub(super) fn in_word(byte: u8) -> bool {
    CLASS[usize::from(byte)] != 0
}

/// The longest text of another column that stands at `at` and is not part of a longer word or number.
fn reference_at(bytes: &[u8], at: usize, references: &[&str]) -> Option<usize> {
    let mut found: Option<usize> = None;
    for (k, reference) in references.iter().enumerate() {
        let reference = reference.as_bytes();
        if reference.first() != Some(&bytes[at]) || reference.len() < MIN_REFERENCE_BYTES {
            continue;
        }
        let fits = bytes[at..].starts_with(reference) && is_border(bytes, at + reference.len());
        if fits && found.is_none_or(|other| references[other].len() < reference.len()) {
            found = Some(k);
        }
    }
    found
}

pub(super) fn is_border(bytes: &[u8], at: usize) -> bool {
    bytes.get(at).is_none_or(|next| !in_word(*next)) || at == 0 || !in_word(bytes[at - 1])
}

fn is_uuid(bytes: &[u8]) -> bool {
    let Some(bytes) = bytes.get(..UUID_CHARS + 1).or(bytes.get(..UUID_CHARS)) else {
        return false;
    };
    let mut at = 0;
    for (place, length) in UUID.into_iter().enumerate() {
        let hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if !bytes[at..at + length].iter().all(hex) {
            return false;
        }
        at += length;
        if place < 4 && bytes[at] != b'-' {
            return false;
        }
        at += 1;
    }
    is_border(bytes, UUID_CHARS)
}

/// Whether a number has a set count of digits: with leading zeros, behind a decimal point, or as a part of a time or a date. Otherwise
/// each count of digits would make a shape of its own.
fn is_fixed(bytes: &[u8], start: usize, end: usize) -> bool {
    let length = end - start;
    if length > 1 && bytes[start] == b'0' {
        return true;
    }
    let byte = |at: Option<usize>| at.and_then(|at| bytes.get(at)).copied().unwrap_or(b' ');
    let before = byte(start.checked_sub(1));
    if length == 2 && (before == b':' || before == b'-' || byte(Some(end)) == b':') {
        return true;
    }
    // `12.50` has a fraction, `10.0.0.1` and `1.2.3` have not.
    let point_before = before == b'.' && byte(start.checked_sub(2)).is_ascii_digit();
    let point_after = byte(Some(end)) == b'.' && byte(Some(end + 1)).is_ascii_digit();
    if !point_before || point_after {
        return false;
    }
    let whole = bytes[..start - 1]
        .iter()
        .rev()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    byte((start - 1).checked_sub(whole + 1)) != b'.'
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn check(text: &str, words: bool, references: &[&str], skeleton: &str) {
        let mut shape = Shape::default();
        shape.split(text, words, references);
        let (mut shown, mut bytes) = (Vec::new(), shape.skeleton.iter().copied());
        while let Some(byte) = bytes.next() {
            let (sign, has_argument) = match byte {
                mark::NUMBER => (b'N', false),
                mark::DIGITS => (b'F', true),
                mark::HEX_LOWER => (b'H', true),
                mark::HEX_UPPER => (b'X', true),
                mark::WORD => (b'W', false),
                mark::UUID => (b'U', false),
                mark::REFERENCE => (b'R', true),
                mark::WHOLE => (b'*', false),
                byte => (byte, false),
            };
            shown.push(sign);
            if has_argument {
                bytes.next();
            }
        }
        let shown = String::from_utf8(shown).unwrap();
        assert_eq!(shown, skeleton, "{text}");
    }

    #[test]
    fn texts_of_one_statement_share_a_shape() {
        check("took 12.345 ms", false, &[], "took N.F ms");
        check("peer 10.1.2.3:443", false, &[], "peer N.N.N.N:N");
        check("at 09:05:59", false, &[], "at F:F:F");
        check("at 19:15:07", false, &[], "at F:F:F");
        check("job 00deadbeef1 done", false, &[], "job H done");
        check("id 550e8400-e29b-41d4-a716-446655440000.", false, &[], "id U.");
        check("ana.brown12@example.com", true, &[], "W.WN@W.W");
        check("user ana@x.y gone", false, &["ana@x.y"], "user R gone");
        check("user ana@x.yz gone", false, &["ana@x.y"], "user ana@x.yz gone");
        check("line\u{1}feed", false, &[], "*");
        check("Größe 7", true, &[], "W N");
        check("99999999999999999999", false, &[], "99999999999999999999");
        check(&"a1".repeat(65), false, &[], "*");
    }
}
