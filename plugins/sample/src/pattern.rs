//! The template of a text as a number: what varies from line to line is left out, so lines of one statement agree.
//!
//! A text is cut into words at blanks, quotes, brackets and the like, but not at `.`, `:`, `-` and `_`. A word with a digit
//! in it, one of at least eight hex letters only, or a very long one is a variable: an address, an id, a time, a number.
//! A row of variables between blanks and commas counts as one, so lists of different lengths agree.

/// Bytes looked at: a template shows early, and a long body must not cost more than others.
const MAX_BYTES: usize = 1024;
/// Words from which on a text is taken to be encoded data.
const LONG_WORD: usize = 40;
/// Hex letters without a digit that are taken to be an id.
const HEX_WORD: usize = 8;

const SEPARATOR: u8 = 1;
const SOFT: u8 = 2;
const DIGIT: u8 = 4;
/// Letters that are no hex digit.
const LETTER: u8 = 8;

static CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [LETTER; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = match byte as u8 {
            b' ' | b',' => SEPARATOR | SOFT,
            0..=31 | b'"' | b'\'' | b'(' | b')' | b'[' | b']' | b'{' | b'}' | b'<' | b'>' => SEPARATOR,
            b'=' | b'/' | b';' | b'|' | b'&' | b'?' | b'#' | b'!' | b'*' | b'\\' | b'`' => SEPARATOR,
            b'0'..=b'9' => DIGIT,
            b'a'..=b'f' | b'A'..=b'F' | b'-' | b'.' | b':' | b'_' => 0,
            _ => LETTER,
        };
        byte += 1;
    }
    table
}

/// The number of a text's template.
pub(crate) fn fingerprint(text: &str) -> u64 {
    let bytes = text.as_bytes();
    let bytes = &bytes[..bytes.len().min(MAX_BYTES)];
    let mut template = Template::default();
    // Eight at a time: the sandbox looks at the clock once a round of a loop.
    let (eights, rest) = bytes.as_chunks::<8>();
    for eight in eights {
        eight.iter().for_each(|byte| template.byte(*byte));
    }
    rest.iter().for_each(|byte| template.byte(*byte));
    template.end_of_word();
    template.hash
}

#[derive(Default)]
struct Template {
    hash: u64,
    /// The word so far: its number, the classes of its bytes, how many these are.
    word: u64,
    seen: u8,
    length: usize,
    /// Separators since the last word.
    between: u64,
    hard: bool,
    /// The last word was a variable.
    variable: bool,
}

impl Template {
    #[inline(always)]
    fn byte(&mut self, byte: u8) {
        let class = CLASSES[usize::from(byte)];
        if class & SEPARATOR != 0 {
            self.end_of_word();
            self.between = self.between.rotate_left(7) ^ u64::from(byte);
            self.hard |= class & SOFT == 0;
        } else {
            // Seven bits a letter: words of up to nine letters differ for sure, and it takes two cycles a byte.
            self.word = self.word.rotate_left(7) ^ u64::from(byte);
            self.seen |= class;
            self.length += 1;
        }
    }

    fn end_of_word(&mut self) {
        let (word, seen, length) = (self.word, self.seen, self.length);
        if length == 0 {
            return;
        }
        (self.word, self.seen, self.length) = (0, 0, 0);
        let hex = seen & LETTER == 0 && length >= HEX_WORD;
        let variable = seen & DIGIT != 0 || hex || length >= LONG_WORD;
        if !(variable && self.variable && !self.hard) {
            let word = if variable { u64::MAX } else { word };
            self.hash = mix(self.hash ^ mix(self.between, 1), word);
        }
        self.variable = variable;
        self.between = 0;
        self.hard = false;
    }
}

/// Two numbers in one, as splitmix64 stirs; not for texts that someone chooses in order to collide, who gains nothing by it.
/// The sandbox has no product of 128 bits, so hashes that need one are slow there.
pub(crate) fn mix(a: u64, b: u64) -> u64 {
    let mut x = a.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ b;
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A whole text as a number.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut hash = mix(bytes.len() as u64, 0);
    for word in words {
        hash = mix(hash, u64::from_le_bytes(*word));
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    mix(hash, u64::from_le_bytes(last))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn lines_of_one_statement_agree() {
        let check = |a: &str, b: &str| assert_eq!(fingerprint(a), fingerprint(b), "{a:?} and {b:?}");
        check("GET /api/users/17 took 3 ms", "GET /api/users/400913 took 12.5 ms");
        check(
            "session 9f86d081-884c-4d65-9a2f-eaa0c55ad015 from 10.1.2.3:80",
            "session deadbeef-cafe-4d65-abcd-effedcbaabcd from fe80::1:443",
        );
        check("at 2026-11-21T10:00:00.123Z", "at 2026-11-22T23:59:59+01:00");
        check("commit deadbeefdeadbeef", "commit 0123456789abcdef");
        check("ids [1, 2, 3]", "ids [4]");
        check(
            &format!("blob {}", "QUJD".repeat(20)),
            &format!("blob {}", "eHl6".repeat(30)),
        );
        let long = "word ".repeat(1000);
        check(&format!("{long}a"), &format!("{long}b"));
    }

    #[test]
    fn different_statements_differ() {
        let lines = [
            "",
            " ",
            "a",
            "a a",
            "a  a",
            "a,a",
            "user logged in",
            "user logged out",
            "logged in user",
            "user 17 logged in",
            "user: logged in",
            "connection to db refused",
            "connection to cache refused",
            "GET /api/users/17 took 3 ms",
            "GET /api/orders/17 took 3 ms",
            "GET /api/users/17/orders took 3 ms",
            "PUT /api/users/17 took 3 ms",
            "facade",
            "decade",
            "ids [1, 2]",
            "ids {1, 2}",
            "ключ найден",
            "ключ потерян",
        ];
        let mut all: HashSet<u64> = lines.iter().map(|line| fingerprint(line)).collect();
        // Nothing but blanks is no word, so it is the empty template.
        assert_eq!(all.len(), lines.len() - 1);
        // Many words, each pair of them one pattern.
        let letters = |n: u64| {
            (0..5)
                .map(|k| (b'g' + (n >> (k * 4) & 15) as u8) as char)
                .collect::<String>()
        };
        let before = all.len();
        all.extend((0..50_000).map(|n| fingerprint(&format!("{} then {}", letters(n), letters(n * 7 + 1)))));
        assert_eq!(all.len(), before + 50_000);
    }

    #[test]
    fn hashes_spread() {
        let all: HashSet<u64> = (0..100_000u32).map(|n| hash(n.to_string().as_bytes())).collect();
        assert_eq!(all.len(), 100_000);
        let low = all.iter().filter(|hash| *hash & ((1 << 56) - 1) < 1 << 55).count();
        assert!((49_000..51_000).contains(&low), "{low}");
    }
}
