//! A column of masked texts on its way out: all in one buffer, without a text of its own for each row.

use std::ops::Range;

use arrow_array::{Array, StringArray};
use arrow_buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};

/// Texts, one behind the other.
#[derive(Debug)]
pub(crate) struct Output {
    /// Written up to `at`; the rest is room.
    data: Vec<u8>,
    at: usize,
    ends: Vec<i32>,
}

impl Output {
    /// As large as these texts and a little more.
    pub(crate) fn like(texts: &StringArray) -> Self {
        let bytes = texts.value_offsets()[texts.len()] - texts.value_offsets()[0];
        let mut ends = Vec::with_capacity(texts.len() + 1);
        ends.push(0);
        Output {
            data: vec![0; bytes as usize + bytes as usize / 8],
            at: 0,
            ends,
        }
    }

    /// Appends a part of a text.
    pub(crate) fn piece(&mut self, piece: &[u8]) {
        let end = self.at + piece.len();
        if end > self.data.len() {
            self.data.resize(end + self.data.len() / 2, 0);
        }
        copy(&mut self.data[self.at..end], piece);
        self.at = end;
    }

    /// Ends the text at hand.
    pub(crate) fn end(&mut self) {
        self.ends.push(offset(self.at));
    }

    /// Appends texts as they are. What may stand where a text is missing is left out.
    pub(crate) fn copy(&mut self, texts: &StringArray, rows: Range<usize>) {
        if texts.null_count() > 0 {
            for row in rows {
                if texts.is_valid(row) {
                    self.piece(texts.value(row).as_bytes());
                }
                self.end();
            }
            return;
        }
        let offsets = &texts.value_offsets()[rows.start..=rows.end];
        let first = offsets[0] as usize;
        let begun = self.at;
        self.piece(&texts.value_data()[first..offsets[rows.len()] as usize]);
        let ends = offsets[1..].iter().map(|end| offset(begun + (*end as usize - first)));
        self.ends.extend(ends);
    }

    /// The column. `nulls` are those of the texts that it was made of.
    pub(crate) fn finish(mut self, nulls: Option<&NullBuffer>) -> Result<StringArray, String> {
        if i32::try_from(self.at).is_err() {
            return Err("masked texts of more than 2 GiB".to_owned());
        }
        self.data.truncate(self.at);
        let offsets = OffsetBuffer::new(ScalarBuffer::from(self.ends));
        StringArray::try_new(offsets, Buffer::from_vec(self.data), nulls.cloned()).map_err(|e| e.to_string())
    }
}

/// What is too long for one is an error at the end.
fn offset(at: usize) -> i32 {
    i32::try_from(at).unwrap_or(i32::MAX)
}

/// To copy bytes whose number is not known to the compiler is a call of the host's; few of them are copied here, in pieces that overlap.
fn copy(to: &mut [u8], from: &[u8]) {
    match from.len() {
        0 => {}
        length @ 1..4 => {
            to[0] = from[0];
            to[length / 2] = from[length / 2];
            to[length - 1] = from[length - 1];
        }
        4..8 => ends::<4>(to, from),
        8..16 => ends::<8>(to, from),
        16..=32 => ends::<16>(to, from),
        33..=64 => ends::<32>(to, from),
        _ => to.copy_from_slice(from),
    }
}

/// Copies the first and the last so many bytes.
fn ends<const N: usize>(to: &mut [u8], from: &[u8]) {
    if let (Some(to), Some(from)) = (to.first_chunk_mut::<N>(), from.first_chunk()) {
        *to = *from;
    }
    if let (Some(to), Some(from)) = (to.last_chunk_mut::<N>(), from.last_chunk()) {
        *to = *from;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_every_length_arrive_whole() {
        let source: Vec<u8> = (0..200).map(|at| b'a' + at % 26).collect();
        for length in 0..source.len() {
            let mut copied = vec![b'.'; length];
            copy(&mut copied, &source[..length]);
            assert_eq!(copied, source[..length]);
        }
    }

    #[test]
    fn texts_are_copied_with_their_gaps_and_without_what_stands_there() {
        let texts = StringArray::from(vec!["zero", "one", "two", "three", "four"]);
        let nulls = NullBuffer::from(vec![true, false, true, true, false]);
        let (offsets, values, _) = texts.into_parts();
        for nulls in [None, Some(nulls)] {
            let texts = StringArray::new(offsets.clone(), values.clone(), nulls).slice(1, 4);
            for cut in 0..=4 {
                let mut out = Output::like(&texts);
                out.copy(&texts, 0..cut);
                out.copy(&texts, cut..4);
                let copied = out.finish(texts.nulls()).unwrap();
                assert_eq!(copied, texts);
                let there: usize = texts.iter().flatten().map(str::len).sum();
                assert_eq!(copied.value_data().len(), there);
            }
        }
    }
}
