//! Bitmaps of whole columns: one question asked of every value, sixty-four at a time.
//!
//! The compiler makes vector instructions of it where the question is a comparison, which it does not where each bit is asked for by
//! the number of its row.

use arrow_array::{Array, StringArray};
use arrow_buffer::{ArrowNativeType, BooleanBuffer, MutableBuffer, NullBuffer};

use crate::Text;

/// Values whose bits make one word.
const WORD: usize = 64;

/// The values for which the answer is yes, whether they are null or not: see [`valid`].
pub fn of<T: Copy>(values: &[T], yes: impl Fn(T) -> bool) -> BooleanBuffer {
    let mut words = MutableBuffer::with_capacity(values.len().div_ceil(WORD) * size_of::<u64>());
    let (chunks, rest) = values.as_chunks::<WORD>();
    for chunk in chunks {
        words.push(word(&chunk.map(|value| u8::from(yes(value)))));
    }
    if !rest.is_empty() {
        let mut answers = [0; WORD];
        for (answer, value) in answers.iter_mut().zip(rest) {
            *answer = u8::from(yes(*value));
        }
        words.push(word(&answers));
    }
    BooleanBuffer::new(words.into(), 0, values.len())
}

/// The rows whose value is among those that `known` says yes to; a key beyond them is no. What most often is yes for all or none
/// of the values takes no look at the rows.
pub fn of_keys<K: ArrowNativeType>(keys: &[K], known: &[bool]) -> BooleanBuffer {
    match (known.contains(&true), known.contains(&false)) {
        (false, _) => BooleanBuffer::new_unset(keys.len()),
        (true, false) if keys.iter().all(|key| key.as_usize() < known.len()) => BooleanBuffer::new_set(keys.len()),
        _ => of(keys, |key| known.get(key.as_usize()).copied().unwrap_or(false)),
    }
}

/// The rows of a text column whose text is one of those of which `known` says yes, by their place among [`Text::values`].
pub fn of_texts(text: &Text<'_>, rows: usize, known: &[bool]) -> BooleanBuffer {
    match text {
        Text::Absent => BooleanBuffer::new_unset(rows),
        Text::Plain(array) if known.contains(&true) => {
            let mut all = known.to_vec();
            all.resize(array.len(), false);
            valid(of(&all, |yes| yes), array.nulls())
        }
        Text::Plain(_) => BooleanBuffer::new_unset(rows),
        Text::Dict16(array, _) => valid(of_keys(array.keys().values(), known), array.nulls()),
        Text::Dict32(array, _) => valid(of_keys(array.keys().values(), known), array.nulls()),
    }
}

/// The rows of a text column for whose text the answer is yes; null is no. Of a dictionary each value is asked once.
pub fn where_text(text: &Text<'_>, rows: usize, mut yes: impl FnMut(&str) -> bool) -> BooleanBuffer {
    let mut each = |values: &StringArray| -> Vec<bool> {
        (0..values.len())
            .map(|value| values.is_valid(value) && yes(values.value(value)))
            .collect()
    };
    match text {
        Text::Absent => BooleanBuffer::new_unset(rows),
        Text::Plain(values) | Text::Dict16(_, values) | Text::Dict32(_, values) => {
            let known = each(values);
            of_texts(text, rows, &known)
        }
    }
}

/// Only those that are not null.
pub fn valid(yes: BooleanBuffer, nulls: Option<&NullBuffer>) -> BooleanBuffer {
    match nulls {
        Some(nulls) if nulls.null_count() > 0 => &yes & nulls.inner(),
        _ => yes,
    }
}

/// One bit for each byte, which is 0 or 1, the first one lowest.
fn word(answers: &[u8; WORD]) -> u64 {
    /// Moves the lowest bit of each byte to its place in the highest one.
    const GATHER: u64 = 0x0102_0408_1020_4080;
    let (bytes, _) = answers.as_chunks::<8>();
    let mut word = 0;
    for (place, eight) in bytes.iter().enumerate() {
        word |= (u64::from_le_bytes(*eight).wrapping_mul(GATHER) >> 56) << (8 * place);
    }
    word.to_le()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use arrow_array::types::{UInt16Type, UInt32Type};
    use arrow_array::{DictionaryArray, PrimitiveArray};

    use super::*;

    #[test]
    fn each_bit_is_the_answer_for_its_value() {
        let mut state = 7u64;
        let mut random = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            state >> 33
        };
        for length in [0, 1, 7, 8, 63, 64, 65, 127, 128, 1000, 8192] {
            let values: Vec<i32> = (0..length).map(|_| random() as i32 % 40 - 20).collect();
            let expected: Vec<bool> = values.iter().map(|value| *value >= 3).collect();
            assert_eq!(
                of(&values, |value| value >= 3).iter().collect::<Vec<_>>(),
                expected,
                "{length}"
            );
            let keys: Vec<u16> = values.iter().map(|value| (value + 20) as u16).collect();
            for known in [
                vec![],
                vec![false; 40],
                vec![true; 40],
                vec![true; 20],
                (0..40).map(|n| n % 3 == 0).collect(),
            ] {
                let expected: Vec<bool> = keys
                    .iter()
                    .map(|key| known.get(usize::from(*key)) == Some(&true))
                    .collect();
                assert_eq!(
                    of_keys(&keys, &known).iter().collect::<Vec<_>>(),
                    expected,
                    "{length} {known:?}"
                );
            }
        }
    }

    #[test]
    fn texts_are_asked_for_in_whatever_form_they_come() {
        let rows: Vec<Option<&str>> = (0..200)
            .map(|row| [Some("a"), None, Some("bc"), Some("")][row % 4])
            .collect();
        let plain = StringArray::from(rows.clone());
        let small: DictionaryArray<UInt16Type> = rows.iter().copied().collect();
        let keys: PrimitiveArray<UInt32Type> = small.keys().iter().map(|key| key.map(u32::from)).collect();
        let large = DictionaryArray::try_new(keys, Arc::clone(small.values())).unwrap();
        for (length, expected) in [(9, None), (2, Some("bc")), (1, Some("a")), (0, Some(""))] {
            let expected: Vec<bool> = rows.iter().map(|row| expected.is_some() && *row == expected).collect();
            let columns: [&dyn Array; 3] = [&plain, &small, &large];
            for column in columns {
                let text = Text::of(column).unwrap();
                let found = where_text(&text, 200, |text| text.len() == length);
                assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{length}");
                assert_eq!(where_text(&text, 200, |_| true).count_set_bits(), 150);
            }
        }
        assert_eq!(where_text(&Text::Absent, 5, |_| true), BooleanBuffer::new_unset(5));
    }
}
