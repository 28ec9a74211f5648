//! Texts: as they are, or as shapes with the values of their slots lying together.

use arrow_buffer::BooleanBuffer;
use hashbrown::{HashMap, HashSet};

use super::Budget;
use super::bytes::{ENDS_EARLY, Malformed, Reader, put_bytes, put_varint};
use super::numbers::{Numbers, put_numbers};
use super::shape::{MAX_DIGITS, Shape, UUID_CHARS, Value, mark};
use crate::layout::cells::Cells;

const PLAIN: u8 = 0;
const SHAPED: u8 = 1;
const SAME_WORD: u8 = 0;
const WORD_ENTRIES: u8 = 1;
const WORDS: u8 = 2;

/// What a reader allows: a slot takes about a hundred bytes of memory while it is read.
const MAX_SHAPES: usize = 4096;
const MAX_SLOTS: usize = 65_536;
const MAX_SLOTS_OF_SHAPE: usize = 256;
/// Entries of words, of one column together, four bytes each: the writer has 64 slots in a text, and makes entries of at most half of the
/// words of a slot, or 16 of them.
const ENTRIES_PER_TEXT: usize = 32;
const MORE_ENTRIES: usize = 16 * SLOTS_WRITTEN;
pub(super) const MAX_REFERENCES: usize = 32;
/// What the writer makes, well within: beyond it shapes cost more than they save.
const SHAPES_WRITTEN: usize = 512;
const SLOTS_WRITTEN: usize = 8192;
/// Fewer texts do not pay for the description of their shapes, or only where they become much smaller: zstd cannot make as much of a few
/// numbers as of their digits.
const MIN_TEXTS: usize = 4;
const FEW_TEXTS: usize = 32;
const SAMPLE: usize = 256;
/// With more shapes in the sample, words become slots.
const LITERAL_SHAPES: usize = 24;

const EMPTY: Malformed = Malformed("a word is empty");

/// Columns that a column of texts may refer to: their places in the payload, and what they have beside each text ("" for nothing).
#[derive(Debug, Default)]
pub(super) struct References<'a> {
    pub(super) columns: Vec<(usize, Vec<&'a str>)>,
}

impl<'a> References<'a> {
    fn of_text(&self, i: usize, out: &mut Vec<&'a str>) {
        out.clear();
        out.extend(self.columns.iter().map(|(_, texts)| texts[i]));
    }
}

pub(super) fn put_texts(out: &mut Vec<u8>, texts: &[&str], references: &References<'_>, shapes: bool) {
    let shaped = if shapes { Shaped::of(texts, references) } else { None };
    let start = out.len();
    if let Some(shaped) = shaped {
        out.push(SHAPED);
        shaped.write(out, references);
        let bytes: usize = texts.iter().map(|text| text.len()).sum();
        if texts.len() >= FEW_TEXTS || (out.len() - start) * 3 <= bytes * 2 {
            return;
        }
        out.truncate(start);
    }
    out.push(PLAIN);
    put_plain(out, texts);
}

fn put_plain(out: &mut Vec<u8>, texts: &[&str]) {
    let lengths: Vec<i64> = texts.iter().map(|text| text.len() as i64).collect();
    put_numbers(out, &lengths);
    texts.iter().for_each(|text| out.extend_from_slice(text.as_bytes()));
}

/// A column of texts taken apart.
struct Shaped<'a> {
    shapes: Vec<Column<'a>>,
    /// The shape of each text.
    keys: Vec<i64>,
}

/// What the texts of one shape hold.
struct Column<'a> {
    skeleton: Vec<u8>,
    slots: Vec<Slot<'a>>,
}

enum Slot<'a> {
    Numbers(Vec<i64>),
    Hex { bytes: Vec<u8> },
    Words(Vec<&'a str>),
    Whole(Vec<&'a str>),
    Reference,
}

impl<'a> Shaped<'a> {
    /// `None` where shapes would not pay.
    fn of(texts: &[&'a str], references: &References<'_>) -> Option<Self> {
        if texts.len() < MIN_TEXTS {
            return None;
        }
        let words = words_are_slots(texts, references)?;
        let mut index: HashMap<Box<[u8]>, usize> = HashMap::new();
        let mut shaped = Self {
            shapes: Vec::new(),
            keys: Vec::with_capacity(texts.len()),
        };
        let (mut slots, mut whole) = (0, 0);
        let (mut shape, mut beside) = (Shape::default(), Vec::new());
        for (i, text) in texts.iter().enumerate() {
            references.of_text(i, &mut beside);
            shape.split(text, words, &beside);
            let known = index.get(&shape.skeleton[..]).copied();
            let key = known.unwrap_or_else(|| {
                let full = index.len() >= SHAPES_WRITTEN || slots + shape.values.len() > SLOTS_WRITTEN;
                if full {
                    shape.whole(text);
                }
                if let Some(key) = index.get(&shape.skeleton[..]) {
                    return *key;
                }
                slots += shape.values.len();
                index.insert(shape.skeleton[..].into(), shaped.shapes.len());
                shaped.shapes.push(Column::new(&shape));
                shaped.shapes.len() - 1
            });
            whole += usize::from(shape.skeleton.first() == Some(&mark::WHOLE));
            shaped.shapes[key].push(&shape);
            shaped.keys.push(key as i64);
        }
        (whole * 2 <= texts.len()).then_some(shaped)
    }

    fn write(mut self, out: &mut Vec<u8>, references: &References<'_>) {
        put_varint(out, references.columns.len() as u64);
        for (place, _) in &references.columns {
            put_varint(out, *place as u64);
        }
        put_varint(out, self.shapes.len() as u64);
        for shape in &mut self.shapes {
            shape.settle_words();
            put_bytes(out, &shape.skeleton);
        }
        put_numbers(out, &self.keys);
        for slot in self.shapes.iter().flat_map(|shape| &shape.slots) {
            match slot {
                Slot::Numbers(numbers) => put_numbers(out, numbers),
                Slot::Hex { bytes } => out.extend_from_slice(bytes),
                Slot::Words(words) => put_words(out, words),
                Slot::Whole(texts) => put_plain(out, texts),
                Slot::Reference => {}
            }
        }
    }
}

/// Looks at some of the texts: `None` if they have too little in common, else whether words must become slots for it.
fn words_are_slots(texts: &[&str], references: &References<'_>) -> Option<bool> {
    let step = texts.len().div_ceil(SAMPLE);
    let (mut shape, mut beside) = (Shape::default(), Vec::new());
    let mut shapes = |words| {
        let mut seen: HashSet<Box<[u8]>> = HashSet::new();
        let mut looked_at = 0;
        for i in (0..texts.len()).step_by(step) {
            references.of_text(i, &mut beside);
            shape.split(texts[i], words, &beside);
            seen.insert(shape.skeleton[..].into());
            looked_at += 1;
        }
        (seen.len(), looked_at)
    };
    if shapes(false).0 <= LITERAL_SHAPES {
        return Some(false);
    }
    let (seen, looked_at) = shapes(true);
    (seen * 2 <= looked_at).then_some(true)
}

impl<'a> Column<'a> {
    fn new(shape: &Shape<'a>) -> Self {
        let slots = Parts::of(&shape.skeleton).flatten().filter_map(|part| match part {
            Part::Literal(_) => None,
            Part::Number | Part::Digits(_) => Some(Slot::Numbers(Vec::new())),
            Part::Hex { .. } | Part::Uuid => Some(Slot::Hex { bytes: Vec::new() }),
            Part::Word => Some(Slot::Words(Vec::new())),
            Part::Reference(_) => Some(Slot::Reference),
            Part::Whole => Some(Slot::Whole(Vec::new())),
        });
        Self {
            slots: slots.collect(),
            skeleton: shape.skeleton.clone(),
        }
    }

    fn push(&mut self, shape: &Shape<'a>) {
        for (slot, value) in self.slots.iter_mut().zip(&shape.values) {
            match (slot, value) {
                (Slot::Numbers(numbers), Value::Number(number)) => numbers.push(*number),
                (Slot::Hex { bytes }, Value::Hex(digits)) => put_hex(bytes, digits),
                (Slot::Words(texts) | Slot::Whole(texts), Value::Text(text)) => texts.push(text),
                _ => {}
            }
        }
    }

    /// A word that is the same in all texts belongs to the shape.
    fn settle_words(&mut self) {
        let mut skeleton = Vec::with_capacity(self.skeleton.len());
        let mut slots = std::mem::take(&mut self.slots).into_iter();
        let mut kept = Vec::new();
        let mut at = 0;
        for part in Parts::of(&self.skeleton).flatten() {
            let length = part.bytes();
            if !matches!(part, Part::Literal(_))
                && let Some(slot) = slots.next()
            {
                if let Slot::Words(words) = &slot
                    && words.windows(2).all(|pair| pair[0] == pair[1])
                {
                    skeleton.extend_from_slice(words.first().map_or(&[][..], |word| word.as_bytes()));
                    at += length;
                    continue;
                }
                kept.push(slot);
            }
            skeleton.extend_from_slice(&self.skeleton[at..at + length]);
            at += length;
        }
        self.skeleton = skeleton;
        self.slots = kept;
    }
}

fn put_words(out: &mut Vec<u8>, words: &[&str]) {
    let mut index: HashMap<&str, usize> = HashMap::new();
    let mut entries = Vec::new();
    let mut keys = Vec::with_capacity(words.len());
    for word in words {
        let key = *index.entry(word).or_insert_with(|| {
            entries.push(*word);
            entries.len() - 1
        });
        keys.push(key as i64);
        if entries.len() * 2 > words.len() && entries.len() > 16 {
            out.push(WORDS);
            return put_plain(out, words);
        }
    }
    match &entries[..] {
        [word] => {
            out.push(SAME_WORD);
            put_bytes(out, word.as_bytes());
        }
        _ => {
            out.push(WORD_ENTRIES);
            put_varint(out, entries.len() as u64);
            put_plain(out, &entries);
            put_numbers(out, &keys);
        }
    }
}

/// Half bytes, high half first; hyphens of a UUID are left out.
fn put_hex(out: &mut Vec<u8>, digits: &[u8]) {
    let half = |digit: u8| match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit.wrapping_sub(b'A').wrapping_add(10) & 15,
    };
    let mut high = None;
    for digit in digits.iter().filter(|digit| **digit != b'-') {
        match high.take() {
            None => high = Some(half(*digit) << 4),
            Some(first) => out.push(first | half(*digit)),
        }
    }
    out.extend(high);
}

/// A piece of a shape.
#[derive(Clone, Copy, Debug)]
enum Part<'a> {
    Literal(&'a [u8]),
    Number,
    Digits(usize),
    Hex { digits: usize, upper: bool },
    Word,
    Uuid,
    Reference(usize),
    Whole,
}

impl Part<'_> {
    /// Bytes that it takes in the shape.
    fn bytes(&self) -> usize {
        match self {
            Self::Literal(bytes) => bytes.len(),
            Self::Number | Self::Word | Self::Uuid | Self::Whole => 1,
            Self::Digits(_) | Self::Hex { .. } | Self::Reference(_) => 2,
        }
    }
}

/// The pieces of a shape in order.
struct Parts<'a> {
    left: &'a [u8],
}

impl<'a> Parts<'a> {
    fn of(skeleton: &'a [u8]) -> Self {
        Self { left: skeleton }
    }

    fn slot(&mut self, mark: u8) -> Result<Part<'a>, Malformed> {
        const ODD: Malformed = Malformed("a shape of texts cannot be read");
        let mut argument = || {
            let (&byte, left) = self.left.split_first().ok_or(ODD)?;
            self.left = left;
            Ok(usize::from(byte))
        };
        match mark {
            mark::NUMBER => Ok(Part::Number),
            mark::DIGITS => {
                argument().and_then(|n| (1..=MAX_DIGITS).contains(&n).then_some(Part::Digits(n)).ok_or(ODD))
            }
            mark::HEX_LOWER | mark::HEX_UPPER => {
                let (digits, upper) = (argument()?, mark == mark::HEX_UPPER);
                if digits == 0 {
                    Err(ODD)
                } else {
                    Ok(Part::Hex { digits, upper })
                }
            }
            mark::WORD => Ok(Part::Word),
            mark::UUID => Ok(Part::Uuid),
            mark::REFERENCE => Ok(Part::Reference(argument()?)),
            mark::WHOLE => Ok(Part::Whole),
            _ => Err(ODD),
        }
    }
}

impl<'a> Iterator for Parts<'a> {
    type Item = Result<Part<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let (&first, rest) = self.left.split_first()?;
        if first < mark::LITERAL {
            self.left = rest;
            return Some(self.slot(first));
        }
        let length = self.left.iter().take_while(|byte| **byte >= mark::LITERAL).count();
        let (literal, rest) = self.left.split_at(length);
        self.left = rest;
        Some(Ok(Part::Literal(literal)))
    }
}

/// Where texts go: offsets and bytes as Arrow has them.
#[derive(Debug)]
pub(super) struct Strings {
    pub(super) ends: Vec<i32>,
    pub(super) data: Vec<u8>,
}

impl Strings {
    fn new(rows: usize, budget: &mut Budget) -> Result<Self, Malformed> {
        budget.charge(4 * (rows + 1))?;
        let mut ends = Vec::with_capacity(rows + 1);
        ends.push(0);
        Ok(Self { ends, data: Vec::new() })
    }

    fn close(&mut self) -> Result<(), Malformed> {
        let end = i32::try_from(self.data.len()).map_err(|_| Malformed("texts of one column are beyond 2 GiB"))?;
        self.ends.push(end);
        Ok(())
    }
}

/// Reads the texts of `rows` rows, of those that `present` names.
pub(super) fn read_texts<'a>(
    reader: &mut Reader<'a>,
    rows: usize,
    present: Option<&BooleanBuffer>,
    earlier: &[Option<Cells<'_>>],
    budget: &mut Budget,
) -> Result<Strings, Malformed> {
    let n = present.map_or(rows, BooleanBuffer::count_set_bits);
    let mut strings = Strings::new(rows, budget)?;
    let mut source = match reader.byte()? {
        PLAIN => Source::Plain(Plain::read(reader, n)?),
        SHAPED => Source::Shaped(Shapes::read(reader, n, earlier)?),
        _ => return Err(Malformed("texts are packed in an unknown way")),
    };
    for row in 0..rows {
        if present.is_none_or(|present| present.value(row)) {
            match &mut source {
                Source::Plain(plain) => {
                    let text = plain.next_text()?;
                    budget.charge(text.len())?;
                    strings.data.extend_from_slice(text);
                }
                Source::Shaped(shapes) => shapes.next_text(row, &mut strings.data, budget)?,
            }
        }
        strings.close()?;
    }
    Ok(strings)
}

enum Source<'a, 'b> {
    Plain(Plain<'a>),
    Shaped(Shapes<'a, 'b>),
}

/// Lengths and bytes.
struct Plain<'a> {
    lengths: Numbers<'a>,
    bytes: Reader<'a>,
}

impl<'a> Plain<'a> {
    fn read(reader: &mut Reader<'a>, n: usize) -> Result<Self, Malformed> {
        let lengths = Numbers::read(reader, n)?;
        let total = lengths.clone().try_fold(0usize, |sum, length| {
            usize::try_from(length).ok().and_then(|length| sum.checked_add(length))
        });
        let bytes = reader.take(total.ok_or(ENDS_EARLY)?)?;
        Ok(Self {
            lengths,
            bytes: Reader::new(bytes),
        })
    }

    fn next_text(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.lengths.next().and_then(|length| usize::try_from(length).ok());
        self.bytes.take(length.ok_or(ENDS_EARLY)?)
    }
}

/// Shapes with what is left in their slots.
struct Shapes<'a, 'b> {
    shapes: Vec<Vec<Filled<'a>>>,
    keys: Numbers<'a>,
    references: Vec<Cells<'b>>,
}

/// A piece of a shape, with its values.
enum Filled<'a> {
    Literal(&'a [u8]),
    Number(Numbers<'a>),
    Digits(usize, Numbers<'a>),
    Hex {
        digits: usize,
        upper: bool,
        bytes: Reader<'a>,
    },
    Uuid(Reader<'a>),
    Word(Words<'a>),
    Reference(usize),
    Whole(Plain<'a>),
}

enum Words<'a> {
    Same(&'a [u8]),
    Entries {
        ends: Vec<u32>,
        bytes: &'a [u8],
        keys: Numbers<'a>,
    },
    Each(Plain<'a>),
}

impl<'a, 'b> Shapes<'a, 'b> {
    fn read(reader: &mut Reader<'a>, n: usize, earlier: &[Option<Cells<'b>>]) -> Result<Self, Malformed> {
        let mut references = Vec::new();
        for _ in 0..reader.count(MAX_REFERENCES)? {
            let place = reader.varint()?;
            let cells = usize::try_from(place).ok().and_then(|place| earlier.get(place));
            let cells = cells.copied().flatten();
            references.push(cells.ok_or(Malformed("texts refer to a column that they cannot refer to"))?);
        }
        let count = reader.count(MAX_SHAPES)?;
        let mut skeletons = Vec::with_capacity(count);
        let mut slots = 0;
        for _ in 0..count {
            let length = reader.count(usize::MAX)?;
            let skeleton = reader.take(length)?;
            let before = slots;
            for part in Parts::of(skeleton) {
                let part = part?;
                if matches!(part, Part::Whole) && skeleton.len() > 1 {
                    return Err(Malformed("a whole text does not stand alone in its shape"));
                }
                slots += usize::from(!matches!(part, Part::Literal(_)));
                if slots > MAX_SLOTS || slots - before > MAX_SLOTS_OF_SHAPE {
                    return Err(Malformed("shapes of texts have too many slots"));
                }
            }
            skeletons.push(skeleton);
        }
        let keys = Numbers::read(reader, n)?;
        let mut uses = vec![0usize; count];
        for key in keys.clone() {
            let uses = usize::try_from(key).ok().and_then(|key| uses.get_mut(key));
            *uses.ok_or(Malformed("a text is of a shape that is not there"))? += 1;
        }
        let mut shapes = Vec::with_capacity(count);
        let mut entries = ENTRIES_PER_TEXT.saturating_mul(keys.len()).saturating_add(MORE_ENTRIES);
        for (skeleton, n) in skeletons.into_iter().zip(uses) {
            let filled = Parts::of(skeleton).map(|part| Filled::read(part?, reader, n, references.len(), &mut entries));
            shapes.push(filled.collect::<Result<Vec<_>, _>>()?);
        }
        Ok(Self {
            shapes,
            keys,
            references,
        })
    }

    fn next_text(&mut self, row: usize, out: &mut Vec<u8>, budget: &mut Budget) -> Result<(), Malformed> {
        let key = self.keys.next().ok_or(ENDS_EARLY)?;
        let shape = self.shapes.get_mut(key as usize).ok_or(ENDS_EARLY)?;
        for part in shape {
            // After every piece: references could repeat a large value very often.
            let before = out.len();
            part.write(row, &self.references, out)?;
            budget.charge(out.len() - before)?;
        }
        Ok(())
    }
}

impl<'a> Filled<'a> {
    fn read(
        part: Part<'a>,
        reader: &mut Reader<'a>,
        n: usize,
        references: usize,
        entries: &mut usize,
    ) -> Result<Self, Malformed> {
        let mut bytes = |each: usize| {
            let bytes = reader.take(n.checked_mul(each).ok_or(ENDS_EARLY)?)?;
            Ok(Reader::new(bytes))
        };
        Ok(match part {
            Part::Literal(literal) => Self::Literal(literal),
            Part::Hex { digits, upper } => Self::Hex {
                digits,
                upper,
                bytes: bytes(digits.div_ceil(2))?,
            },
            Part::Uuid => Self::Uuid(bytes(16)?),
            Part::Number => Self::Number(Numbers::read(reader, n)?),
            Part::Digits(digits) => Self::Digits(digits, Numbers::read(reader, n)?),
            Part::Word => Self::Word(Words::read(reader, n, entries)?),
            Part::Reference(k) if k < references => Self::Reference(k),
            Part::Reference(_) => return Err(Malformed("texts refer to a column that they cannot refer to")),
            Part::Whole => Self::Whole(Plain::read(reader, n)?),
        })
    }

    #[inline]
    fn write(&mut self, row: usize, references: &[Cells<'_>], out: &mut Vec<u8>) -> Result<(), Malformed> {
        match self {
            Self::Literal(bytes) => out.extend_from_slice(bytes),
            Self::Number(numbers) => {
                let number = numbers.next().ok_or(ENDS_EARLY)?;
                let mut text = itoa::Buffer::new();
                out.extend_from_slice(text.format(number).as_bytes());
            }
            Self::Digits(digits, numbers) => {
                let number = numbers.next().ok_or(ENDS_EARLY)?;
                let mut text = itoa::Buffer::new();
                let text = text.format(number).as_bytes();
                if text.len() > *digits || number < 0 {
                    return Err(Malformed("a number has more digits than its place"));
                }
                out.resize(out.len() + *digits - text.len(), b'0');
                out.extend_from_slice(text);
            }
            Self::Hex { digits, upper, bytes } => {
                let bytes = bytes.take(digits.div_ceil(2))?;
                let start = out.len();
                write_hex(out, bytes, *upper);
                out.truncate(start + *digits);
            }
            Self::Uuid(bytes) => {
                let bytes = bytes.take(16)?;
                let mut at = 0;
                for (place, length) in [4, 2, 2, 2, 6].into_iter().enumerate() {
                    if place > 0 {
                        out.push(b'-');
                    }
                    write_hex(out, &bytes[at..at + length], false);
                    at += length;
                }
                debug_assert_eq!(at * 2 + 4, UUID_CHARS);
            }
            Self::Word(words) => out.extend_from_slice(words.next_word()?),
            Self::Reference(k) => match &references[*k] {
                cells if cells.is_valid(row) => {
                    let before = out.len();
                    cells.write_text(row, out);
                    // Every slot gives at least one byte, so that what was announced bounds the work, too.
                    if out.len() == before {
                        return Err(Malformed("a text refers to an empty value"));
                    }
                }
                _ => return Err(Malformed("a text refers to a value that is not there")),
            },
            Self::Whole(plain) => out.extend_from_slice(plain.next_text()?),
        }
        Ok(())
    }
}

impl<'a> Words<'a> {
    fn read(reader: &mut Reader<'a>, n: usize, entries: &mut usize) -> Result<Self, Malformed> {
        match reader.byte()? {
            SAME_WORD => {
                let length = reader.count(usize::MAX)?;
                if length == 0 {
                    return Err(EMPTY);
                }
                Ok(Self::Same(reader.take(length)?))
            }
            WORD_ENTRIES => {
                // More entries than texts would be memory for nothing; so would entries without bytes.
                let count = reader.count(n.min(*entries))?;
                *entries -= count;
                let lengths = Numbers::read(reader, count)?;
                let (mut ends, mut end) = (Vec::new(), 0u32);
                for length in lengths {
                    let length = u32::try_from(length).ok().filter(|length| *length > 0).ok_or(EMPTY)?;
                    end = end.checked_add(length).ok_or(ENDS_EARLY)?;
                    if end as usize > reader.len() {
                        return Err(ENDS_EARLY);
                    }
                    ends.push(end);
                }
                let bytes = reader.take(end as usize)?;
                let keys = Numbers::read(reader, n)?;
                Ok(Self::Entries { ends, bytes, keys })
            }
            WORDS => Ok(Self::Each(Plain::read(reader, n)?)),
            _ => Err(Malformed("words are packed in an unknown way")),
        }
    }

    fn next_word(&mut self) -> Result<&'a [u8], Malformed> {
        match self {
            Self::Same(word) => Ok(word),
            Self::Each(plain) => plain
                .next_text()
                .and_then(|word| if word.is_empty() { Err(EMPTY) } else { Ok(word) }),
            Self::Entries { ends, bytes, keys } => {
                let key = keys.next().and_then(|key| usize::try_from(key).ok());
                let key = key.filter(|key| *key < ends.len());
                let key = key.ok_or(Malformed("a word is not among the entries"))?;
                let start = key.checked_sub(1).map_or(0, |before| ends[before]);
                Ok(&bytes[start as usize..ends[key] as usize])
            }
        }
    }
}

fn write_hex(out: &mut Vec<u8>, bytes: &[u8], upper: bool) {
    let digits = if upper {
        b"0123456789ABCDEF"
    } else {
        b"0123456789abcdef"
    };
    for byte in bytes {
        out.push(digits[usize::from(byte >> 4)]);
        out.push(digits[usize::from(byte & 15)]);
    }
}
