//! Which bytes of a text are digits, letters and signs: one bit for each, learnt in one pass, sixteen bytes at a time. What is looked for
//! begins where such bits stand, and most texts have none of them.

use std::ops::Range;

use super::sixteen::Sixteen;

/// Bits of 64 bytes of the text, the first one lowest.
#[derive(Clone, Copy, Debug, Default)]
struct Lane {
    digit: u64,
    letter: u64,
    /// Letters, digits, `_` and `-`.
    word: u64,
    /// Digits and what may stand between those of a number.
    run: u64,
    /// `=`, `:` or `>`, behind which a value may stand.
    assigns: u64,
}

/// The classes of the bytes of one text; read anew for each text, so that its memory is used again.
#[derive(Debug, Default)]
pub(crate) struct Classes {
    lanes: Vec<Lane>,
    digits: usize,
    seen: u16,
}

const ASSIGNS: u16 = 1 << 0;
const COLON: u16 = 1 << 1;
const AT: u16 = 1 << 2;
const QUOTE: u16 = 1 << 3;
const DASHES: u16 = 1 << 4;
const SPACE: u16 = 1 << 5;
const WIDE: u16 = 1 << 6;
const LETTER: u16 = 1 << 7;
const OPTION: u16 = 1 << 8;
const BACKSLASH: u16 = 1 << 9;
const OPENS: u16 = 1 << 10;
const UNDERSCORE: u16 = 1 << 11;
const BEARER: u16 = 1 << 12;
const IS: u16 = 1 << 13;
const DOCUMENT: u16 = 1 << 14;

/// Bytes of spaces and dashes beyond ASCII.
const FOREIGN: [u8; 10] = [0xc2, 0xa0, 0xe2, 0x80, 0x89, 0xaf, 0x90, 0x91, 0x92, 0x93];
/// The first byte of `：` and of its neighbours.
const FIRST_OF_WIDE: u8 = 0xef;

const LANE: usize = 64;
/// Lanes whose memory is kept for the next text: those of 64 KiB.
const MAX_SPARE: usize = 1024;

impl Classes {
    pub(crate) fn read(&mut self, text: &[u8]) {
        self.lanes.clear();
        // No more than is needed: a text of megabytes has lanes of megabytes.
        self.lanes.reserve_exact(text.len().div_ceil(LANE));
        (self.digits, self.seen) = (0, 0);
        // The bits of the lane before.
        let (mut dash_before, mut space_before, mut r_before, mut s_before) = (0, 0, 0, 0);
        for part in text.chunks(LANE) {
            let mut lane = Lane::default();
            let (mut dash, mut space, mut r, mut s) = (0, 0, 0, 0);
            let none = Sixteen::new([0; 16]);
            let (mut at, mut colon, mut quote, mut backslash) = (none, none, none, none);
            let (mut opens, mut underscore) = (none, none);
            for (place, bytes) in part.chunks(16).enumerate() {
                let shift = 16 * place;
                let sixteen = match bytes.first_chunk() {
                    Some(whole) => Sixteen::new(*whole),
                    None => padded(bytes),
                };
                let digits = sixteen.within(b'0', b'9');
                let letters = sixteen.small().within(b'a', b'z');
                let dashes = sixteen.is(b'-');
                let spaces = sixteen.is(b' ');
                let colons = sixteen.is(b':');
                let joins = dashes.or(digits);
                let between = sixteen.within(b'.', b'/').or(sixteen.within(b'(', b')')).or(spaces);
                lane.digit |= digits.bits() << shift;
                lane.letter |= letters.bits() << shift;
                let underscores = sixteen.is(b'_');
                lane.word |= joins.or(letters).or(underscores).bits() << shift;
                lane.run |= joins.or(between).bits() << shift;
                lane.assigns |= colons.or(sixteen.within(b'=', b'>')).bits() << shift;
                dash |= dashes.bits() << shift;
                space |= spaces.bits() << shift;
                r |= sixteen.is(b'r').bits() << shift;
                s |= sixteen.is(b's').bits() << shift;
                at = at.or(sixteen.is(b'@')).or(sixteen.is(b'%'));
                colon = colon.or(colons);
                quote = quote.or(sixteen.is(b'\''));
                backslash = backslash.or(sixteen.is(b'\\'));
                underscore = underscore.or(underscores);
                // `[` and `{` differ in one bit, which small letters have.
                opens = opens.or(sixteen.small().is(b'{'));
                let mut high = sixteen.bits();
                while high != 0 {
                    let place = high.trailing_zeros() as usize;
                    high &= high - 1;
                    self.see(bytes[place] == FIRST_OF_WIDE, WIDE);
                    lane.run |= u64::from(FOREIGN.contains(&bytes[place])) << (shift + place);
                }
            }
            self.digits += lane.digit.count_ones() as usize;
            self.see(lane.assigns != 0, ASSIGNS);
            self.see(lane.letter != 0, LETTER);
            self.see(space != 0, SPACE);
            let behind = |own: u64, before: u64, by: usize| own << by | before >> (LANE - by);
            self.see(dash & behind(dash, dash_before, 1) != 0, DASHES);
            self.see(dash & behind(space, space_before, 1) != 0, OPTION);
            let r_space = space & behind(r, r_before, 1);
            self.see(r_space & behind(r, r_before, 3) != 0, BEARER);
            let s_space = space & behind(s, s_before, 1);
            self.see(s_space & behind(space, space_before, 3) != 0, IS);
            self.see(s & (behind(s, s_before, 1) | behind(s, s_before, 4)) != 0, DOCUMENT);
            self.see(at.any(), AT);
            self.see(colon.any(), COLON);
            self.see(quote.any(), QUOTE);
            self.see(backslash.any(), BACKSLASH);
            self.see(underscore.any(), UNDERSCORE);
            self.see(opens.any(), OPENS);
            (dash_before, space_before, r_before, s_before) = (dash, space, r, s);
            self.lanes.push(lane);
        }
    }

    /// Gives back the memory of a long text, which what was found in it may need.
    pub(crate) fn let_go(&mut self) {
        if self.lanes.capacity() > MAX_SPARE {
            self.lanes = Vec::new();
        }
    }

    fn see(&mut self, is: bool, what: u16) {
        self.seen |= if is { what } else { 0 };
    }

    fn has(&self, all: u16) -> bool {
        self.seen & all == all
    }

    pub(crate) fn assigns(&self) -> bool {
        self.has(ASSIGNS)
    }

    pub(crate) fn colon(&self) -> bool {
        self.has(COLON)
    }

    /// `@`, or the first of its form in a URL.
    pub(crate) fn at(&self) -> bool {
        self.has(AT)
    }

    pub(crate) fn quoted_word(&self) -> bool {
        self.has(QUOTE | SPACE)
    }

    /// `--`
    pub(crate) fn dashes(&self) -> bool {
        self.has(DASHES)
    }

    /// A dash behind a space.
    pub(crate) fn option(&self) -> bool {
        self.has(OPTION)
    }

    /// Two words.
    pub(crate) fn words(&self) -> bool {
        self.has(LETTER | SPACE)
    }

    /// What `earer ` has.
    pub(crate) fn bearer(&self) -> bool {
        self.has(BEARER)
    }

    /// What `word is ` has.
    pub(crate) fn is(&self) -> bool {
        self.has(IS)
    }

    /// What `assport` or `usweis` has.
    pub(crate) fn document(&self) -> bool {
        self.has(DOCUMENT)
    }

    pub(crate) fn backslash(&self) -> bool {
        self.has(BACKSLASH)
    }

    /// `[` or `{`, with which JSON begins.
    pub(crate) fn opens(&self) -> bool {
        self.has(OPENS)
    }

    /// What the mask writes has one or the other.
    pub(crate) fn may_be_masked(&self) -> bool {
        self.seen & (OPENS | UNDERSCORE) != 0
    }

    pub(crate) fn wide(&self) -> bool {
        self.has(WIDE)
    }

    pub(crate) fn letters(&self) -> bool {
        self.has(LETTER)
    }

    pub(crate) fn digits(&self) -> usize {
        self.digits
    }

    /// Where `=`, `:` and `>` stand.
    pub(crate) fn signs(&self) -> impl Iterator<Item = usize> + '_ {
        self.lanes
            .iter()
            .enumerate()
            .flat_map(|(place, lane)| places(place, lane.assigns))
    }

    /// Where two letters stand and two digits behind them, from `from` on.
    pub(crate) fn letters_and_digits(&self, from: usize) -> impl Iterator<Item = usize> + '_ {
        let mut lane = from / LANE;
        let mut bits = self.pairs(lane) & u64::MAX << (from % LANE);
        std::iter::from_fn(move || {
            while bits == 0 {
                lane += 1;
                if lane >= self.lanes.len() {
                    return None;
                }
                bits = self.pairs(lane);
            }
            let bit = bits.trailing_zeros() as usize;
            bits &= bits - 1;
            Some(lane * LANE + bit)
        })
    }

    /// The same of a lane.
    fn pairs(&self, lane: usize) -> u64 {
        let Some(own) = self.lanes.get(lane) else { return 0 };
        let next = self.lanes.get(lane + 1).copied().unwrap_or_default();
        let later = |own: u64, next: u64, by: usize| own >> by | next << (LANE - by);
        let letters = own.letter & later(own.letter, next.letter, 1);
        letters & later(own.digit, next.digit, 2) & later(own.digit, next.digit, 3)
    }

    /// Where the next digit stands from `at` on, or `end`.
    pub(crate) fn next_digit(&self, at: usize, end: usize) -> usize {
        let mut lane = at / LANE;
        let mut mask = u64::MAX << (at % LANE);
        while lane * LANE < end {
            let bits = self.lanes.get(lane).map_or(0, |lane| lane.digit) & mask;
            if bits != 0 {
                return (lane * LANE + bits.trailing_zeros() as usize).min(end);
            }
            lane += 1;
            mask = u64::MAX;
        }
        end
    }

    /// Where the digits end that stand at this place.
    pub(crate) fn digits_end(&self, at: usize) -> usize {
        self.end(at, &|lane: &Lane| lane.digit)
    }

    /// The next stretch of letters, digits, `_` and `-` that has so many bytes from `from` on; `least` is 15 or more.
    pub(crate) fn next_word(&self, from: usize, least: usize) -> Option<Range<usize>> {
        // Of fifteen bits in a row, eight stand in one lane.
        let in_a_row = |bits: u64| {
            let bits = bits & bits >> 1;
            let bits = bits & bits >> 2;
            bits & bits >> 4
        };
        self.next_stretch(from, |lane| lane.word, in_a_row, |range| range.len() >= least)
    }

    /// The next stretch of digits and what stands between them, of at least six bytes, from `from` on, that passes.
    pub(crate) fn next_run(&self, from: usize, passes: impl Fn(&Range<usize>, usize) -> bool) -> Option<Range<usize>> {
        // Of six bits in a row, three stand in one lane.
        let in_a_row = |bits: u64| bits & bits >> 1 & bits >> 2;
        self.next_stretch(
            from,
            |lane| lane.run,
            in_a_row,
            |range| range.len() >= 6 && passes(range, self.digits_in(range)),
        )
    }

    fn next_stretch(
        &self,
        from: usize,
        of: impl Fn(&Lane) -> u64,
        in_a_row: impl Fn(u64) -> u64,
        passes: impl Fn(&Range<usize>) -> bool,
    ) -> Option<Range<usize>> {
        let mut floor = from;
        let mut place = from / LANE;
        while let Some(lane) = self.lanes.get(place) {
            let first = place * LANE;
            let rest = of(lane) & u64::MAX << floor.saturating_sub(first).min(LANE - 1);
            let rest = if floor >= first + LANE { 0 } else { rest };
            match places(place, in_a_row(rest)).next() {
                None => place += 1,
                Some(inside) => {
                    // The first of them is where it begins, unless it may have begun in the lane before.
                    let start = match inside % LANE {
                        0 => self.start(inside, from, &of),
                        _ => inside,
                    };
                    let range = start..self.end(inside, &of);
                    if passes(&range) {
                        return Some(range);
                    }
                    floor = range.end;
                    place = floor / LANE;
                }
            }
        }
        None
    }

    /// Where the stretch begins that goes on at this place, but not before `floor`.
    fn start(&self, inside: usize, floor: usize, of: &impl Fn(&Lane) -> u64) -> usize {
        let mut at = inside;
        while at > floor {
            let (place, bit) = ((at - 1) / LANE, (at - 1) % LANE);
            let ones = (of(&self.lanes[place]) << (LANE - 1 - bit)).leading_ones() as usize;
            at -= ones.min(bit + 1);
            if ones <= bit {
                break;
            }
        }
        at.max(floor)
    }

    /// Where it ends.
    fn end(&self, inside: usize, of: &impl Fn(&Lane) -> u64) -> usize {
        let mut at = inside;
        while let Some(lane) = self.lanes.get(at / LANE) {
            let bit = at % LANE;
            let ones = (of(lane) >> bit).trailing_ones() as usize;
            at += ones.min(LANE - bit);
            if bit + ones < LANE {
                break;
            }
        }
        at
    }

    fn digits_in(&self, range: &Range<usize>) -> usize {
        let (first, last) = (range.start / LANE, (range.end - 1) / LANE);
        (first..=last)
            .map(|place| {
                let mut bits = self.lanes[place].digit;
                if place == first {
                    bits &= u64::MAX << (range.start % LANE);
                }
                if place == last {
                    bits &= u64::MAX >> (LANE - 1 - (range.end - 1) % LANE);
                }
                bits.count_ones() as usize
            })
            .sum()
    }
}

/// Fewer than sixteen bytes, and zeros. Put together in registers, of two pieces that overlap: to copy so few bytes is a call of the
/// host's.
fn padded(bytes: &[u8]) -> Sixteen {
    let (low, high) = match bytes.len() {
        0 => (0, 0),
        length @ 1..4 => {
            let byte = |at: usize| u64::from(bytes[at]) << (8 * at);
            (byte(0) | byte(length / 2) | byte(length - 1), 0)
        }
        length @ 4..8 => {
            let four = |four: Option<&[u8; 4]>| u64::from(u32::from_le_bytes(*four.unwrap_or(&[0; 4])));
            let (first, last) = (four(bytes.first_chunk()), four(bytes.last_chunk()));
            (first | last >> (8 * (8 - length)) << 32, 0)
        }
        length => {
            let eight = |eight: Option<&[u8; 8]>| u64::from_le_bytes(*eight.unwrap_or(&[0; 8]));
            let (first, last) = (eight(bytes.first_chunk()), eight(bytes.last_chunk()));
            // Of eight bytes there is nothing left, and nobody can shift by all bits.
            (first, last.checked_shr(8 * (16 - length as u32)).unwrap_or(0))
        }
    };
    Sixteen::of_halves(low, high)
}

/// The bits that are set, as places in the text.
fn places(lane: usize, mut bits: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = (bits != 0).then(|| bits.trailing_zeros() as usize)?;
        bits &= bits - 1;
        Some(lane * LANE + bit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_word(byte: u8) -> bool {
        byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
    }

    fn in_run(byte: u8) -> bool {
        b"0123456789 -./()".contains(&byte) || FOREIGN.contains(&byte)
    }

    /// Byte by byte, as it is defined.
    fn slow(bytes: &[u8], from: usize, in_it: fn(u8) -> bool, passes: impl Fn(&[u8]) -> bool) -> Option<Range<usize>> {
        let mut start = from;
        while start < bytes.len() {
            let length = bytes[start..].iter().take_while(|byte| in_it(**byte)).count();
            if passes(&bytes[start..start + length]) {
                return Some(start..start + length);
            }
            start += length.max(1);
        }
        None
    }

    #[test]
    fn bits_say_the_same_as_looking_at_every_byte() {
        let mut random = 1u64;
        let mut roll = move |sides: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) as usize % sides
        };
        let (mut words, mut runs, mut ibans) = (0, 0, 0);
        let mut classes = Classes::default();
        for case in 0..40_000 {
            // From mostly one kind to all mixed.
            let mut bytes: Vec<u8> = (0..roll(210))
                .map(|_| match roll(100) {
                    side if side < case % 60 => b"0123456789 -./"[roll(14)],
                    side if side < 97 => b"abcdefxyzABZ019_-"[roll(17)],
                    _ => b"=:>@%'\\() -[{\xc2\xa0\xef\x91\x00"[roll(18)],
                })
                .collect();
            if case % 4 == 0 {
                let word: &[u8] = [&b"Bearer "[..], b"word is ", b"Passport", b"Ausweis"][roll(4)];
                let at = roll(bytes.len() + 1);
                bytes.splice(at..at, word.iter().copied());
            }
            classes.read(&bytes);
            let from = roll(80).min(bytes.len());
            let word = slow(&bytes, from, in_word, |word| word.len() >= 15);
            assert_eq!(classes.next_word(from, 15), word, "{bytes:?} from {from}");
            let digits = |bytes: &[u8]| bytes.iter().filter(|byte| byte.is_ascii_digit()).count();
            let run = slow(&bytes, from, in_run, |run| run.len() >= 6 && digits(run) >= 5);
            assert_eq!(
                classes.next_run(from, |_, digits| digits >= 5),
                run,
                "{bytes:?} from {from}"
            );
            let pairs: Vec<usize> = (0..bytes.len().saturating_sub(3))
                .filter(|at| {
                    let [a, b, c, d] = bytes[*at..at + 4] else { return false };
                    a.is_ascii_alphabetic() && b.is_ascii_alphabetic() && c.is_ascii_digit() && d.is_ascii_digit()
                })
                .collect();
            assert!(classes.letters_and_digits(0).eq(pairs.iter().copied()), "{bytes:?}");
            let signs = (0..bytes.len()).filter(|at| matches!(bytes[*at], b'=' | b':' | b'>'));
            assert!(classes.signs().eq(signs), "{bytes:?}");
            let has = |byte: u8| bytes.contains(&byte);
            let pair = |pair: &[u8]| bytes.windows(2).any(|two| two == pair);
            assert_eq!(classes.digits(), digits(&bytes));
            assert_eq!(
                [
                    classes.at(),
                    classes.colon(),
                    classes.quoted_word(),
                    classes.dashes(),
                    classes.option(),
                    classes.wide(),
                    classes.words(),
                    classes.backslash(),
                    classes.opens(),
                    classes.may_be_masked(),
                ],
                [
                    has(b'@') || has(b'%'),
                    has(b':'),
                    has(b'\'') && has(b' '),
                    pair(b"--"),
                    pair(b" -"),
                    has(FIRST_OF_WIDE),
                    has(b' ') && bytes.iter().any(u8::is_ascii_alphabetic),
                    has(b'\\'),
                    has(b'[') || has(b'{'),
                    has(b'[') || has(b'{') || has(b'_'),
                ],
                "{bytes:?}"
            );
            let part = |part: &[u8]| bytes.windows(part.len()).any(|stretch| stretch == part);
            assert!(classes.bearer() || !part(b"earer "), "{bytes:?}");
            assert!(classes.is() || !part(b"word is "), "{bytes:?}");
            assert!(classes.document() || !part(b"assport") && !part(b"usweis"), "{bytes:?}");
            let digit = bytes[from..].iter().position(u8::is_ascii_digit);
            let digit = digit.map_or(bytes.len(), |digit| from + digit);
            assert_eq!(classes.next_digit(from, bytes.len()), digit);
            let digits = bytes[digit..].iter().take_while(|byte| byte.is_ascii_digit()).count();
            assert_eq!(classes.digits_end(digit), digit + digits);
            words += usize::from(word.is_some());
            runs += usize::from(run.is_some());
            ibans += usize::from(!pairs.is_empty());
        }
        assert!(
            [words, runs, ibans].iter().all(|count| (4_000..39_000).contains(count)),
            "{words} {runs} {ibans}"
        );
    }
}
