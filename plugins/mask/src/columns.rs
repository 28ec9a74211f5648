//! Masks columns: texts in one buffer, dictionaries by their values, lists of rare attributes, and numbers, which become text.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use arrow_array::builder::StringBuilder;
use arrow_array::cast::AsArray;
use arrow_array::types::{ArrowDictionaryKeyType, Float64Type, Int64Type, UInt16Type, UInt32Type};
use arrow_array::{
    Array, ArrayRef, ArrowPrimitiveType, DictionaryArray, ListArray, PrimitiveArray, StringArray, StructArray,
};
use arrow_buffer::{BooleanBuffer, NullBuffer};
use sluice_plugin::matching::Hit;

use crate::find::{Facts, Open, Texts};
use crate::kind::Kind;
use crate::text::{CustomHit, Masker};
use crate::walk::Shape;

/// Numbers without a word are at least 11 digits long (a Steuer-ID), those under `phone` seven.
const LEAST: u64 = 10_000_000_000;
const LEAST_NAMED: u64 = 1_000_000;
/// Whole numbers up to here are exact as doubles.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// Scratch that lives between columns.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    open: Open,
    hits: Vec<CustomHit>,
    masked: String,
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
        let masked = mask_strings(masker, scratch, texts, shape, facts, hits);
        Ok(masked.map(|texts| Arc::new(texts) as ArrayRef))
    } else if let Some(dictionary) = column.as_dictionary_opt::<UInt16Type>() {
        mask_dictionary(masker, scratch, dictionary, shape, facts, hits)
    } else if let Some(dictionary) = column.as_dictionary_opt::<UInt32Type>() {
        mask_dictionary(masker, scratch, dictionary, shape, facts, hits)
    } else {
        Err(format!("no text: {}", column.data_type()))
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
    let Some(masked) = mask_strings(masker, scratch, values, shape, facts, hits) else {
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
) -> Option<StringArray> {
    if facts.never {
        return None;
    }
    scratch.open.reset(texts.len());
    masker.scan(Texts::of(texts), facts, &mut scratch.open);
    for hit in hits.iter().filter(|hit| (hit.text as usize) < texts.len()) {
        scratch.open.set(hit.text as usize);
    }
    let mut out: Option<StringBuilder> = None;
    let mut done = 0;
    for row in scratch.open.rows().filter(|row| texts.is_valid(*row)) {
        hits_of(hits, row, &mut scratch.hits);
        if masker.mask(texts.value(row), shape, facts, &scratch.hits, &mut scratch.masked) {
            let bytes = texts.value_data().len();
            let out = out.get_or_insert_with(|| StringBuilder::with_capacity(texts.len(), bytes + bytes / 8));
            copy(texts, done..row, out);
            out.append_value(&scratch.masked);
            done = row + 1;
        }
    }
    let mut out = out?;
    copy(texts, done..texts.len(), &mut out);
    Some(out.finish())
}

/// Hits are ordered by text.
fn hits_of(hits: &[Hit], row: usize, out: &mut Vec<CustomHit>) {
    out.clear();
    let first = hits.partition_point(|hit| (hit.text as usize) < row);
    let here = hits[first..].iter().take_while(|hit| hit.text as usize == row);
    out.extend(here.map(|hit| CustomHit {
        start: hit.start as usize,
        end: hit.end as usize,
        pattern: hit.pattern as u16,
    }));
}

fn copy(texts: &StringArray, rows: Range<usize>, out: &mut StringBuilder) {
    for row in rows {
        if texts.is_valid(row) {
            out.append_value(texts.value(row));
        } else {
            out.append_null();
        }
    }
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
        let number = |value: f64| (value.fract() == 0.0 && value.abs() <= EXACT).then_some(value.abs() as u64);
        return mask_numbers(masker, doubles, facts, number, |value| value.to_string());
    }
    let bytes = column.as_binary_opt::<i32>().filter(|_| facts.always)?;
    let texts = (0..bytes.len())
        .filter(|row| bytes.is_valid(*row))
        .map(|row| (row, masker.render_always(&String::from_utf8_lossy(bytes.value(row)))))
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
            texts.push((row, masker.render_always(&text(value))));
        } else if let Some(value) = number(value).filter(|value| *value >= least && !is_time(*value, facts))
            && let Some((_, masked)) = mask_number(masker, &value.to_string(), facts)
        {
            texts.push((row, masked));
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

fn mask_number(masker: &mut Masker, digits: &str, facts: Facts) -> Option<(Kind, String)> {
    let facts = Facts { class: None, ..facts };
    let edit = masker.edits(digits, Shape::Free, facts, &[]).pop()?;
    (edit.start == 0 && edit.end == digits.len()).then_some((edit.kind, edit.text))
}

/// Puts texts into the rows of a column that may already exist.
pub(crate) fn add_texts(column: Option<&ArrayRef>, texts: &[(usize, String)], rows: usize) -> Result<ArrayRef, String> {
    let existing = column
        .map(|column| sluice_plugin::Text::of(column.as_ref()).ok_or("no text"))
        .transpose()?;
    let mut out = StringBuilder::new();
    let mut texts = texts.iter().peekable();
    for row in 0..rows {
        match texts.next_if(|(place, _)| *place == row) {
            Some((_, text)) => out.append_value(text),
            None => out.append_option(existing.and_then(|existing| existing.get(row))),
        }
    }
    Ok(Arc::new(out.finish()))
}

/// Entries of `<group>:*`. Texts and JSON are masked as they are; a number that is masked becomes a text.
pub(crate) fn mask_rest(
    masker: &mut Masker,
    scratch: &mut Scratch,
    column: &ArrayRef,
    custom: &mut dyn FnMut(&StringArray) -> Result<Vec<Hit>, String>,
) -> Result<Option<ArrayRef>, String> {
    let wrong = || format!("no list of attributes: {}", column.data_type());
    let lists = column.as_list_opt::<i32>().ok_or_else(wrong)?;
    let entries = lists.values().as_struct_opt().ok_or_else(wrong)?;
    let names = entries.column_names();
    let place = |name: &str| names.iter().position(|known| *known == name).ok_or_else(wrong);
    let (key_at, type_at, text_at) = (place("key")?, place("type")?, place("text")?);
    let strings = |at: usize| entries.column(at).as_string_opt::<i32>().ok_or_else(wrong);
    let (keys, types, texts) = (strings(key_at)?, strings(type_at)?, strings(text_at)?);

    let hits = custom(texts)?;
    scratch.open.reset(texts.len());
    masker.scan(Texts::of(texts), Facts::default(), &mut scratch.open);
    hits.iter().for_each(|hit| scratch.open.set(hit.text as usize));
    let mut known: HashMap<&str, Facts> = HashMap::new();
    for entry in 0..texts.len() {
        let key = keys.value(entry);
        let facts = *known.entry(key).or_insert_with(|| masker.facts(key));
        if facts.always || facts.class.is_some() || facts.hint.about_person() {
            scratch.open.set(entry);
        }
    }
    let mut masked: Vec<(usize, String, bool)> = Vec::new();
    for entry in scratch.open.rows() {
        let facts = known.get(keys.value(entry)).copied().unwrap_or_default();
        let text = texts.value(entry);
        match types.value(entry) {
            "string" | "array" | "kvlist" => {
                hits_of(&hits, entry, &mut scratch.hits);
                let shape = if types.value(entry) == "string" {
                    Shape::Free
                } else {
                    Shape::Value
                };
                if masker.mask(text, shape, facts, &scratch.hits, &mut scratch.masked) {
                    masked.push((entry, scratch.masked.clone(), false));
                }
            }
            "int" | "double" | "bytes" if facts.always => masked.push((entry, masker.render_always(text), true)),
            "int" => {
                let digits = text.trim_start_matches('-');
                if let Some((_, text)) = mask_number(masker, digits, facts).filter(|_| !facts.never) {
                    masked.push((entry, text, true));
                }
            }
            _ => {}
        }
    }
    if masked.is_empty() {
        return Ok(None);
    }
    let mut new_texts = StringBuilder::new();
    let mut new_types = StringBuilder::new();
    let mut changes = masked.iter().peekable();
    for entry in 0..texts.len() {
        let change = changes.next_if(|(place, ..)| *place == entry);
        new_texts.append_value(change.map_or(texts.value(entry), |(_, text, _)| text));
        new_types.append_value(if change.is_some_and(|(.., moved)| *moved) {
            "string"
        } else {
            types.value(entry)
        });
    }
    let (fields, mut columns, nulls) = entries.clone().into_parts();
    columns[text_at] = Arc::new(new_texts.finish());
    columns[type_at] = Arc::new(new_types.finish());
    let entries = StructArray::try_new(fields, columns, nulls).map_err(|e| e.to_string())?;
    let (field, offsets, _, nulls) = lists.clone().into_parts();
    let lists = ListArray::try_new(field, offsets, Arc::new(entries), nulls).map_err(|e| e.to_string())?;
    Ok(Some(Arc::new(lists)))
}
