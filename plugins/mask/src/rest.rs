//! Where masked values go that no longer fit their column: rare attributes, and the text columns that numbers move to.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::builder::StringBuilder;
use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, ListArray, StringArray, StructArray};
use arrow_buffer::OffsetBuffer;
use sluice_plugin::arrow_schema::{DataType, Field, Fields};
use sluice_plugin::matching::Hit;

use crate::columns::{Scratch, hits_of};
use crate::find::{Facts, Texts};
use crate::number;
use crate::text::Masker;
use crate::walk::Shape;

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

/// A text that is added to the rare attributes of a row.
#[derive(Debug)]
pub(crate) struct Rare {
    pub row: usize,
    pub key: String,
    pub text: String,
}

/// Puts texts, in order of their rows, behind the entries of `<group>:*`, which may already exist.
pub(crate) fn add_rare(column: Option<&ArrayRef>, texts: &[Rare], rows: usize) -> Result<ArrayRef, String> {
    let wrong = || "no list of attributes".to_owned();
    let members: Fields = ["key", "type", "text"]
        .map(|name| Field::new(name, DataType::Utf8, false))
        .to_vec()
        .into();
    let known = column
        .map(|column| column.as_list_opt::<i32>().ok_or_else(wrong))
        .transpose()?;
    let mut known_parts: Vec<&StringArray> = Vec::new();
    if let Some(lists) = known {
        let entries = lists.values().as_struct_opt().ok_or_else(wrong)?;
        for field in &members {
            let part = entries
                .column_by_name(field.name())
                .and_then(|part| part.as_string_opt());
            known_parts.push(part.ok_or_else(wrong)?);
        }
    }
    let mut parts: [StringBuilder; 3] = Default::default();
    let mut offsets = vec![0i32];
    let mut new = texts.iter().peekable();
    let mut count = 0;
    for row in 0..rows {
        if let Some(lists) = known.filter(|lists| lists.is_valid(row)) {
            let entries = lists.value_offsets()[row] as usize..lists.value_offsets()[row + 1] as usize;
            count += entries.len();
            for entry in entries {
                for (part, known) in parts.iter_mut().zip(&known_parts) {
                    part.append_value(known.value(entry));
                }
            }
        }
        while let Some(rare) = new.next_if(|rare| rare.row == row) {
            count += 1;
            for (part, text) in parts.iter_mut().zip([rare.key.as_str(), "string", &rare.text]) {
                part.append_value(text);
            }
        }
        offsets.push(i32::try_from(count).map_err(|e| e.to_string())?);
    }
    let parts = parts
        .iter_mut()
        .map(|part| Arc::new(part.finish()) as ArrayRef)
        .collect();
    let entries = StructArray::try_new(members.clone(), parts, None).map_err(|e| e.to_string())?;
    let item = match known.map(Array::data_type) {
        Some(DataType::List(item)) => item.clone(),
        _ => Arc::new(Field::new_list_field(DataType::Struct(members), false)),
    };
    let offsets = OffsetBuffer::new(offsets.into());
    let lists = ListArray::try_new(item, offsets, Arc::new(entries), None).map_err(|e| e.to_string())?;
    Ok(Arc::new(lists))
}

/// Entries of `<group>:*`. Texts and JSON are masked as they are; a number that is masked becomes a text.
pub(crate) fn mask(
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
        // A double may be written in a way that no scan takes for a number.
        if facts.always || facts.class.is_some() || facts.hint.about_person() || types.value(entry) == "double" {
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
            "int" | "double" | "bytes" if facts.always => {
                masked.push((entry, masker.render_always(text).into_owned(), true))
            }
            "int" | "double" if !facts.never => {
                let whole = number::whole(text).and_then(|digits| masker.whole_number(&digits, facts));
                masked.extend(whole.map(|(_, text)| (entry, text.into_owned(), true)));
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
