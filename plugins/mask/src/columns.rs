//! Masks columns: texts in one buffer, dictionaries by their values, bodies by their types, and numbers, which become text.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::builder::StringBuilder;
use arrow_array::cast::AsArray;
use arrow_array::types::{ArrowDictionaryKeyType, Float64Type, Int64Type, UInt16Type, UInt32Type};
use arrow_array::{Array, ArrayRef, ArrowPrimitiveType, DictionaryArray, PrimitiveArray, StringArray};
use arrow_buffer::{BooleanBuffer, NullBuffer};
use sluice_plugin::matching::Hit;
use sluice_plugin::{Text, dictionary};

use crate::custom::CustomHit;
use crate::find::{Facts, Open, Texts};
use crate::number;
use crate::output::Output;
use crate::text::Masker;
use crate::walk::Shape;

/// Numbers without a word are at least 11 digits long (a Steuer-ID), those under `phone` seven.
const LEAST: u64 = 10_000_000_000;
const LEAST_NAMED: u64 = 1_000_000;

/// Scratch that lives between columns.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub(crate) open: Open,
    pub(crate) hits: Vec<CustomHit>,
    pub(crate) masked: String,
}

/// The masked column, or `None` if it is clean. `hits` are finds of custom patterns, by text.
pub(crate) fn mask_text(
    masker: &mut Masker,
    scratch: &mut Scratch,
    column: &ArrayRef,
    shape: Shape,
    facts: Facts,
    hits: &[Hit],
) -> Result<Option<ArrayRef>, String> {
    if let Some(texts) = column.as_string_opt::<i32>() {
        let masked = mask_strings(masker, scratch, texts, shape, facts, hits)?;
        Ok(masked.map(|texts| Arc::new(texts) as ArrayRef))
    } else if let Some(dictionary) = column.as_dictionary_opt::<UInt16Type>() {
        mask_dictionary(masker, scratch, dictionary, shape, facts, hits)
    } else if let Some(dictionary) = column.as_dictionary_opt::<UInt32Type>() {
        mask_dictionary(masker, scratch, dictionary, shape, facts, hits)
    } else {
        Err(format!("no text: {}", column.data_type()))
    }
}

/// Bodies that are not all text. Bytes stay, and what is masked of a number is text from then on: the masked bodies, and their types if
/// these changed.
pub(crate) fn mask_bodies(
    masker: &mut Masker,
    scratch: &mut Scratch,
    column: &ArrayRef,
    types: Text<'_>,
    hits: &[Hit],
) -> Result<Option<(ArrayRef, Option<ArrayRef>)>, String> {
    let bodies = Text::of(column.as_ref()).ok_or("no text")?;
    let mut out = Bodies::default();
    let mut kinds = StringBuilder::new();
    let (mut changed, mut moved) = (false, false);
    // Hits are those of the column's texts: of its rows, or of its dictionary's values.
    let place = |row: usize| match bodies {
        Text::Dict16(array, _) => array.key(row),
        Text::Dict32(array, _) => array.key(row),
        Text::Plain(_) | Text::Absent => Some(row),
    };
    let shared = matches!(bodies, Text::Dict16(..) | Text::Dict32(..));
    for row in 0..column.len() {
        let (text, kind) = (bodies.get(row), types.get(row));
        let Some(text) = text else {
            kinds.append_option(kind);
            out.of_row.push(u32::MAX);
            continue;
        };
        let treated = Treated::of(kind);
        let place = place(row).unwrap_or(row);
        let known = out.known.get(&(place, treated)).copied();
        let (at, masked) = known.unwrap_or_else(|| {
            hits_of(hits, place, &mut scratch.hits);
            let masked = treated.mask(masker, text, &scratch.hits, &mut scratch.masked);
            out.put(
                place,
                treated,
                if masked { &scratch.masked } else { text },
                masked,
                shared,
            )
        });
        out.of_row.push(at);
        changed |= masked;
        let becomes_text = masked && treated == Treated::Number;
        moved |= becomes_text;
        kinds.append_option(kind.filter(|_| !becomes_text));
    }
    if !changed {
        return Ok(None);
    }
    let kinds = moved.then(|| Arc::new(kinds.finish()) as ArrayRef);
    out.finish(shared).map(|column| Some((column, kinds)))
}

/// What is done to a body, by the type of its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Treated {
    Text,
    Json,
    /// One only as a whole.
    Number,
    Left,
}

impl Treated {
    fn of(kind: Option<&str>) -> Self {
        match kind {
            Some("bytes" | "bool" | "null") => Self::Left,
            Some("int" | "double") => Self::Number,
            Some("array" | "kvlist") => Self::Json,
            _ => Self::Text,
        }
    }

    /// Whether there is anything to mask; `out` holds the text then.
    fn mask(self, masker: &mut Masker, text: &str, hits: &[CustomHit], out: &mut String) -> bool {
        let facts = Facts::default();
        let shape = match self {
            Self::Left => return false,
            Self::Number => {
                let whole = number::whole(text).and_then(|digits| masker.whole_number(&digits, facts));
                let Some((_, masked)) = whole else { return false };
                *out = masked.into_owned();
                return true;
            }
            Self::Json => Shape::Value,
            Self::Text => Shape::Free,
        };
        masker.mask(text, shape, facts, hits, out)
    }
}

/// Bodies on their way out. What came as a dictionary is masked once and goes back as one: written out row by row it could be many
/// times what an answer may hold.
#[derive(Debug, Default)]
struct Bodies {
    values: StringBuilder,
    count: u32,
    known: HashMap<(usize, Treated), (u32, bool)>,
    /// Place among the values; `u32::MAX` for none.
    of_row: Vec<u32>,
}

impl Bodies {
    fn put(&mut self, place: usize, treated: Treated, text: &str, masked: bool, shared: bool) -> (u32, bool) {
        self.values.append_value(text);
        let entry = (self.count, masked);
        self.count += 1;
        if shared {
            self.known.insert((place, treated), entry);
        }
        entry
    }

    fn finish(mut self, shared: bool) -> Result<ArrayRef, String> {
        let values = self.values.finish();
        if shared {
            return dictionary(values, &self.of_row);
        }
        let text = |at: &u32| (*at != u32::MAX).then(|| values.value(*at as usize));
        Ok(Arc::new(self.of_row.iter().map(text).collect::<StringArray>()))
    }
}

fn mask_dictionary<K: ArrowDictionaryKeyType>(
    masker: &mut Masker,
    scratch: &mut Scratch,
    dictionary: &DictionaryArray<K>,
    shape: Shape,
    facts: Facts,
    hits: &[Hit],
) -> Result<Option<ArrayRef>, String> {
    let values = dictionary
        .values()
        .as_string_opt::<i32>()
        .ok_or("a dictionary of something else than text")?;
    let Some(masked) = mask_strings(masker, scratch, values, shape, facts, hits)? else {
        return Ok(None);
    };
    let masked = DictionaryArray::try_new(dictionary.keys().clone(), Arc::new(masked)).map_err(|e| e.to_string())?;
    Ok(Some(Arc::new(masked)))
}

/// Looks at the texts that the scan marked, and copies the others.
fn mask_strings(
    masker: &mut Masker,
    scratch: &mut Scratch,
    texts: &StringArray,
    shape: Shape,
    facts: Facts,
    hits: &[Hit],
) -> Result<Option<StringArray>, String> {
    if facts.never {
        return Ok(None);
    }
    scratch.open.reset(texts.len());
    masker.scan(Texts::of(texts), facts, &mut scratch.open);
    for hit in hits.iter().filter(|hit| (hit.text as usize) < texts.len()) {
        scratch.open.set(hit.text as usize);
    }
    let mut out: Option<Output> = None;
    let mut done = 0;
    for row in scratch.open.rows().filter(|row| texts.is_valid(*row)) {
        hits_of(hits, row, &mut scratch.hits);
        let text = texts.value(row);
        let masked = masker.mask_into(text, shape, facts, &scratch.hits, |piece, _| {
            let out = out.get_or_insert_with(|| Output::like(texts));
            if done <= row {
                out.copy(texts, done..row);
                done = row + 1;
            }
            out.piece(piece.as_bytes());
        });
        if masked && let Some(out) = &mut out {
            out.end();
        }
    }
    let Some(mut out) = out else { return Ok(None) };
    out.copy(texts, done..texts.len());
    out.finish(texts.nulls()).map(Some)
}

/// Hits are ordered by text.
pub(crate) fn hits_of(hits: &[Hit], row: usize, out: &mut Vec<CustomHit>) {
    out.clear();
    let first = hits.partition_point(|hit| (hit.text as usize) < row);
    let here = hits[first..].iter().take_while(|hit| hit.text as usize == row);
    out.extend(here.map(|hit| CustomHit {
        start: hit.start as usize,
        end: hit.end as usize,
        pattern: hit.pattern as u16,
    }));
}

/// Numbers that are masked leave their column and become text: the column without them, and the text by row.
#[derive(Debug)]
pub(crate) struct Moved {
    pub column: ArrayRef,
    pub texts: Vec<(usize, String)>,
}

/// Masks a column of integers, doubles or bytes. Bytes are masked only where the key says so, booleans never.
pub(crate) fn mask_scalars(masker: &mut Masker, column: &ArrayRef, facts: Facts) -> Option<Moved> {
    if facts.never {
        return None;
    }
    if let Some(ints) = column.as_primitive_opt::<Int64Type>() {
        let number = |value: i64| Some(value.unsigned_abs());
        return mask_numbers(masker, ints, facts, number, |value| value.to_string());
    }
    if let Some(doubles) = column.as_primitive_opt::<Float64Type>() {
        return mask_numbers(masker, doubles, facts, number::of_double, |value| value.to_string());
    }
    let bytes = column.as_binary_opt::<i32>().filter(|_| facts.always)?;
    let texts = (0..bytes.len())
        .filter(|row| bytes.is_valid(*row))
        .map(|row| {
            let text = String::from_utf8_lossy(bytes.value(row));
            (row, masker.render_always(&text).into_owned())
        })
        .collect();
    let column = arrow_array::new_null_array(column.data_type(), column.len());
    Some(Moved { column, texts })
}

fn mask_numbers<T: ArrowPrimitiveType>(
    masker: &mut Masker,
    column: &PrimitiveArray<T>,
    facts: Facts,
    number: impl Fn(T::Native) -> Option<u64>,
    text: impl Fn(T::Native) -> String,
) -> Option<Moved> {
    let least = if facts.hint.about_person() { LEAST_NAMED } else { LEAST };
    if !facts.always
        && !column
            .values()
            .iter()
            .any(|value| number(*value).is_some_and(|value| value >= least))
    {
        return None;
    }
    let mut texts = Vec::new();
    for row in (0..column.len()).filter(|row| column.is_valid(*row)) {
        let value = column.value(row);
        if facts.always {
            texts.push((row, masker.render_always(&text(value)).into_owned()));
        } else if let Some(value) = number(value).filter(|value| *value >= least && !is_time(*value, facts))
            && let Some((_, masked)) = masker.whole_number(&value.to_string(), facts)
        {
            texts.push((row, masked.into_owned()));
        }
    }
    if texts.is_empty() {
        return None;
    }
    let mut moved = vec![false; column.len()];
    texts.iter().for_each(|(row, _)| moved[*row] = true);
    let stays = NullBuffer::new(BooleanBuffer::collect_bool(column.len(), |row| !moved[row]));
    let nulls = NullBuffer::union(column.nulls(), Some(&stays));
    // The masked values must not stay behind the nulls.
    let values = column
        .values()
        .iter()
        .zip(&moved)
        .map(|(value, moved)| if *moved { T::Native::default() } else { *value })
        .collect();
    let column = PrimitiveArray::<T>::try_new(values, nulls).ok()?;
    Some(Moved {
        column: Arc::new(column),
        texts,
    })
}

/// Seconds have ten digits; with thousandths, millionths and billionths they begin with 1 until 2033.
fn is_time(value: u64, facts: Facts) -> bool {
    !facts.hint.about_person()
        && [1_000_000_000_000, 1_000_000_000_000_000, 1_000_000_000_000_000_000]
            .iter()
            .any(|unit| value / unit == 1)
}
