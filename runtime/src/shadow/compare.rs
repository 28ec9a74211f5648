//! Two answers to the same batch, row by row and column by column. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_buffer::BooleanBuffer;
use arrow_ord::ord::make_comparator;
use arrow_schema::{ArrowError, SortOptions};

use crate::answer::Answer;
use crate::columns::plain;

/// What one plugin made of the batch.
pub(super) struct Side<'a> {
    /// Rows that stay and are not set aside.
    keep: BooleanBuffer,
    quarantined: u64,
    /// All rows, as it would have them.
    batch: &'a RecordBatch,
    drops: &'a BTreeMap<String, u64>,
}

/// Numbers of rows.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Compared {
    pub(super) both: u64,
    pub(super) current_only: u64,
    pub(super) candidate_only: u64,
    pub(super) rows_different: u64,
    pub(super) columns: BTreeMap<String, u64>,
    pub(super) drops: (BTreeMap<String, u64>, BTreeMap<String, u64>),
    pub(super) quarantined: (u64, u64),
}

impl<'a> Side<'a> {
    pub(super) fn of(answer: &'a Answer, batch: &'a RecordBatch) -> Side<'a> {
        let all = || BooleanBuffer::new_set(batch.num_rows());
        let stay = answer.keep.clone().unwrap_or_else(all);
        let (keep, quarantined) = match &answer.quarantine {
            Some((aside, _)) => {
                let aside = &stay & aside;
                (&stay & &!&aside, aside.count_set_bits() as u64)
            }
            None => (stay, 0),
        };
        Side {
            keep,
            quarantined,
            batch: answer.changed.as_ref().unwrap_or(batch),
            drops: &answer.drops,
        }
    }
}

pub(super) fn compare(current: &Side<'_>, candidate: &Side<'_>) -> Result<Compared, ArrowError> {
    let both = &current.keep & &candidate.keep;
    let count = |bits: &BooleanBuffer| bits.count_set_bits() as u64;
    let mut compared = Compared {
        both: count(&both),
        current_only: count(&current.keep) - count(&both),
        candidate_only: count(&candidate.keep) - count(&both),
        drops: (current.drops.clone(), candidate.drops.clone()),
        quarantined: (current.quarantined, candidate.quarantined),
        ..Compared::default()
    };
    let (left, right) = (current.batch.schema_ref(), candidate.batch.schema_ref());
    let names: BTreeSet<&str> = left
        .fields()
        .iter()
        .chain(right.fields())
        .map(|field| field.name().as_str())
        .collect();
    let mut different = vec![false; both.len()];
    for name in names {
        let pair = (current.batch.column_by_name(name), candidate.batch.column_by_name(name));
        let rows = differing(pair, &both)?;
        if rows.is_empty() {
            continue;
        }
        rows.iter().for_each(|row| different[*row] = true);
        compared.columns.insert(name.to_owned(), rows.len() as u64);
    }
    compared.rows_different = different.iter().filter(|different| **different).count() as u64;
    Ok(compared)
}

/// The rows of `both` whose values differ. A column that one side lacks is null there.
fn differing(
    (left, right): (Option<&ArrayRef>, Option<&ArrayRef>),
    both: &BooleanBuffer,
) -> Result<Vec<usize>, ArrowError> {
    let (left, right) = match (left, right) {
        // What neither touched is the same array.
        (Some(left), Some(right)) if Arc::ptr_eq(left, right) => return Ok(Vec::new()),
        (Some(left), Some(right)) => (left, right),
        (Some(only), None) | (None, Some(only)) => {
            let nulls = only.logical_nulls();
            let has_value = |row: &usize| nulls.as_ref().is_none_or(|nulls| nulls.is_valid(*row));
            return Ok(both.set_indices().filter(has_value).collect());
        }
        (None, None) => return Ok(Vec::new()),
    };
    let (left, right) = (written_out(left)?, written_out(right)?);
    if left.data_type() != right.data_type() {
        return Ok(both.set_indices().collect());
    }
    let order = make_comparator(&left, &right, SortOptions::default())?;
    Ok(both.set_indices().filter(|row| order(*row, *row).is_ne()).collect())
}

/// The same values without a dictionary: which text has which number is no difference.
fn written_out(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    arrow_cast::cast(column, &plain(column.data_type()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use arrow_array::types::UInt16Type;
    use arrow_array::{DictionaryArray, Float64Array, StringArray};

    fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        RecordBatch::try_from_iter(columns).unwrap()
    }

    fn text(values: &[Option<&str>]) -> ArrayRef {
        Arc::new(StringArray::from(values.to_vec()))
    }

    fn dictionary(values: &[Option<&str>]) -> ArrayRef {
        Arc::new(values.iter().copied().collect::<DictionaryArray<UInt16Type>>())
    }

    fn bits(text: &str) -> BooleanBuffer {
        text.chars().map(|c| c == '1').collect::<Vec<bool>>().into()
    }

    #[test]
    fn rows_and_columns_that_differ_are_counted_and_forms_of_the_same_are_not() {
        let whole = batch(vec![
            ("body", text(&[Some("a"), Some("b"), None, Some("d")])),
            ("same", text(&[Some("x"); 4])),
        ]);
        let current = Answer {
            keep: Some(bits("1101")),
            drops: BTreeMap::from([("sampled".to_owned(), 1)]),
            ..Answer::default()
        };
        let candidate = Answer {
            keep: Some(bits("1111")),
            changed: Some(batch(vec![
                // Row 2 differs too, but the current version drops it.
                ("body", dictionary(&[Some("a"), Some("B"), Some("c"), Some("d")])),
                ("same", whole.column(1).clone()),
                (
                    "attrs:d:w",
                    Arc::new(Float64Array::from(vec![None, Some(f64::NAN), None, Some(1.0)])),
                ),
            ])),
            quarantine: Some((bits("1000"), "odd".to_owned())),
            ..Answer::default()
        };
        let (current, candidate) = (Side::of(&current, &whole), Side::of(&candidate, &whole));
        let expected = Compared {
            both: 2,
            current_only: 1,
            candidate_only: 1,
            rows_different: 2,
            columns: BTreeMap::from([("body".to_owned(), 1), ("attrs:d:w".to_owned(), 2)]),
            drops: (BTreeMap::from([("sampled".to_owned(), 1)]), BTreeMap::new()),
            quarantined: (0, 1),
        };
        assert_eq!(compare(&current, &candidate).unwrap(), expected);
        let same = compare(&candidate, &candidate).unwrap();
        assert_eq!((same.both, same.rows_different), (3, 0));
    }

    #[test]
    fn every_type_of_a_batch_can_be_compared() {
        use arrow_array::types::UInt64Type;
        use arrow_array::{FixedSizeBinaryArray, ListArray, new_null_array};
        let list: ArrayRef = Arc::new(ListArray::from_iter_primitive::<UInt64Type, _, _>([
            Some(vec![Some(1), Some(2)]),
            None,
        ]));
        let ids = FixedSizeBinaryArray::try_from_iter([[1u8; 16], [2u8; 16]].into_iter()).unwrap();
        let both = bits("11");
        for column in [list, Arc::new(ids)] {
            let nulls = new_null_array(column.data_type(), 2);
            let expected = 2 - column.null_count();
            let same = column.slice(0, 2);
            assert!(differing((Some(&column), Some(&same)), &both).unwrap().is_empty());
            assert_eq!(differing((Some(&column), Some(&nulls)), &both).unwrap().len(), expected);
        }
        let rest = sluice_wire::layout::rest_fields();
        let map = arrow_schema::DataType::List(Arc::new(arrow_schema::Field::new_list_field(
            arrow_schema::DataType::Struct(rest),
            true,
        )));
        let (one, other) = (new_null_array(&map, 2), new_null_array(&map, 2));
        assert!(differing((Some(&one), Some(&other)), &both).unwrap().is_empty());
    }
}
