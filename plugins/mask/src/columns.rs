//! Masks columns: texts in one buffer, dictionaries by their values, the lists of rare attributes.

use std::sync::Arc;

use arrow_array::builder::StringBuilder;
use arrow_array::cast::AsArray;
use arrow_array::types::{ArrowDictionaryKeyType, UInt16Type, UInt32Type};
use arrow_array::{Array, ArrayRef, DictionaryArray, ListArray, StringArray, StructArray};

use crate::text::{Masker, Shape};

/// The masked column, or `None` if it is clean.
pub(crate) fn mask_text(masker: &mut Masker, column: &ArrayRef, shape: Shape) -> Result<Option<ArrayRef>, String> {
    if let Some(texts) = column.as_string_opt::<i32>() {
        let masked = mask_strings(masker, texts, shape, |_| true);
        Ok(masked.map(|texts| Arc::new(texts) as ArrayRef))
    } else if let Some(dictionary) = column.as_dictionary_opt::<UInt16Type>() {
        mask_dictionary(masker, dictionary, shape)
    } else if let Some(dictionary) = column.as_dictionary_opt::<UInt32Type>() {
        mask_dictionary(masker, dictionary, shape)
    } else {
        Err(format!("no text: {}", column.data_type()))
    }
}

fn mask_dictionary<K: ArrowDictionaryKeyType>(
    masker: &mut Masker,
    dictionary: &DictionaryArray<K>,
    shape: Shape,
) -> Result<Option<ArrayRef>, String> {
    let values = dictionary
        .values()
        .as_string_opt::<i32>()
        .ok_or("a dictionary of something else than text")?;
    let Some(masked) = mask_strings(masker, values, shape, |_| true) else {
        return Ok(None);
    };
    let masked = DictionaryArray::try_new(dictionary.keys().clone(), Arc::new(masked)).map_err(|e| e.to_string())?;
    Ok(Some(Arc::new(masked)))
}

/// Entries of `<group>:*`, of which only texts and JSON are masked: the text of an int must stay an int.
pub(crate) fn mask_rest(masker: &mut Masker, column: &ArrayRef) -> Result<Option<ArrayRef>, String> {
    let wrong = || format!("no list of attributes: {}", column.data_type());
    let lists = column.as_list_opt::<i32>().ok_or_else(wrong)?;
    let entries = lists.values().as_struct_opt().ok_or_else(wrong)?;
    let place = |name: &str| entries.column_names().iter().position(|n| *n == name);
    let (Some(types), Some(texts)) = (place("type"), place("text")) else {
        return Err(wrong());
    };
    let types = entries.column(types).as_string_opt::<i32>().ok_or_else(wrong)?;
    let text = entries.column(texts).as_string_opt::<i32>().ok_or_else(wrong)?;
    let maskable = |entry: usize| matches!(types.value(entry), "string" | "array" | "kvlist");
    let Some(masked) = mask_strings(masker, text, Shape::Value, maskable) else {
        return Ok(None);
    };
    let (fields, mut columns, nulls) = entries.clone().into_parts();
    columns[texts] = Arc::new(masked);
    let entries = StructArray::try_new(fields, columns, nulls).map_err(|e| e.to_string())?;
    let (field, offsets, _, nulls) = lists.clone().into_parts();
    let lists = ListArray::try_new(field, offsets, Arc::new(entries), nulls).map_err(|e| e.to_string())?;
    Ok(Some(Arc::new(lists)))
}

/// Scans all texts as one stretch of bytes and opens only those in which something may be.
fn mask_strings(
    masker: &mut Masker,
    texts: &StringArray,
    shape: Shape,
    maskable: impl Fn(usize) -> bool,
) -> Option<StringArray> {
    let offsets = texts.value_offsets();
    let (first, last) = (*offsets.first()? as usize, *offsets.last()? as usize);
    let bytes = texts.value_data().get(first..last)?;
    let mut candidates = masker.candidates(bytes);
    let mut out: Option<StringBuilder> = None;
    let mut masked = String::new();
    let mut done = 0;
    let mut from = 0;
    while let Some(at) = masker.next_candidate(bytes, from, &mut candidates) {
        // A run of digits may begin at the end of one text and go on in the next; it is looked at in both.
        let row = done + offsets[done + 1..].partition_point(|end| *end as usize - first <= at);
        let end = offsets[row + 1] as usize - first;
        if maskable(row) && masker.mask(texts.value(row), shape, &mut masked) {
            let out =
                out.get_or_insert_with(|| StringBuilder::with_capacity(texts.len(), bytes.len() + bytes.len() / 8));
            copy(texts, done..row, out);
            append(texts, row, &masked, out);
            done = row + 1;
        } else if let Some(out) = &mut out {
            copy(texts, done..row + 1, out);
            done = row + 1;
        }
        from = end;
        if from >= bytes.len() {
            break;
        }
    }
    let mut out = out?;
    copy(texts, done..texts.len(), &mut out);
    Some(out.finish())
}

fn copy(texts: &StringArray, rows: std::ops::Range<usize>, out: &mut StringBuilder) {
    for row in rows {
        append(texts, row, texts.value(row), out);
    }
}

fn append(texts: &StringArray, row: usize, text: &str, out: &mut StringBuilder) {
    if texts.is_valid(row) {
        out.append_value(text);
    } else {
        out.append_null();
    }
}
