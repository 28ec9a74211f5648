//! Which signs stand in one text, learnt in one pass over it: most searches look for one that a text does not have.

/// A set of signs, and how many digits there are.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Signs {
    set: u16,
    digits: usize,
}

const ASSIGNS: u16 = 1 << 0;
const COLON: u16 = 1 << 1;
const AT: u16 = 1 << 2;
const QUOTE: u16 = 1 << 3;
const DASH: u16 = 1 << 4;
const SPACE: u16 = 1 << 5;
const WIDE: u16 = 1 << 6;
const LETTER: u16 = 1 << 7;
const DIGIT: u16 = 1 << 8;

const OF_BYTE: [u16; 256] = {
    let mut table = [0; 256];
    let mut at = 0;
    while at < 256 {
        let byte = at as u8;
        table[at] = match byte {
            b'=' | b'>' => ASSIGNS,
            b':' => ASSIGNS | COLON,
            b'@' | b'%' => AT,
            b'\'' => QUOTE,
            b'-' => DASH,
            b' ' => SPACE,
            b'0'..=b'9' => DIGIT,
            b'a'..=b'z' | b'A'..=b'Z' => LETTER,
            // The first byte of `：` and of its neighbours.
            0xef => WIDE,
            _ => 0,
        };
        at += 1;
    }
    table
};

impl Signs {
    pub(crate) fn of(text: &[u8]) -> Self {
        let (mut set, mut digits) = (0, 0);
        for byte in text {
            let signs = OF_BYTE[usize::from(*byte)];
            set |= signs;
            digits += usize::from(signs / DIGIT);
        }
        Signs { set, digits }
    }

    fn has(self, signs: u16) -> bool {
        self.set & signs == signs
    }

    /// `=`, `:` or `>`, behind which a value may stand.
    pub(crate) fn assigns(self) -> bool {
        self.has(ASSIGNS)
    }

    pub(crate) fn colon(self) -> bool {
        self.has(COLON)
    }

    /// `@`, or the first of its form in a URL.
    pub(crate) fn at(self) -> bool {
        self.has(AT)
    }

    pub(crate) fn quoted_word(self) -> bool {
        self.has(QUOTE | SPACE)
    }

    pub(crate) fn dash(self) -> bool {
        self.has(DASH)
    }

    pub(crate) fn option(self) -> bool {
        self.has(DASH | SPACE)
    }

    /// Two words.
    pub(crate) fn words(self) -> bool {
        self.has(LETTER | SPACE)
    }

    pub(crate) fn wide(self) -> bool {
        self.has(WIDE)
    }

    pub(crate) fn letters(self) -> bool {
        self.has(LETTER)
    }

    pub(crate) fn digits(self) -> usize {
        self.digits
    }
}
