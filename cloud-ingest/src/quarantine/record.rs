//! What stands in the log of batches that are set aside. FORMAT.md describes the bytes.

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

const MAGIC: [u8; 4] = *b"SLQR";
const VERSION: u8 = 1;
const FIXED_BYTES: usize = 12;
/// Reasons come with names of peers and columns in them.
pub(super) const MAX_NOTE_BYTES: usize = 64 << 10;
const MAX_REASON_BYTES: usize = 4 << 10;

/// What is said of a batch, or of a batch that was kept before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Note {
    Mark {
        resubmitted: u64,
        #[serde(rename = "as")]
        new_id: String,
    },
    Kept {
        reason: String,
        hash: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        place: Option<String>,
    },
}

impl Note {
    pub(super) fn kept(reason: &str, hash: String, place: Option<String>) -> Self {
        let mut end = reason.len().min(MAX_REASON_BYTES);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        Self::Kept {
            reason: reason[..end].to_owned(),
            hash,
            place,
        }
    }
}

pub(super) fn put(note: &Note, batch: &[u8]) -> Result<Bytes, serde_json::Error> {
    let note = serde_json::to_vec(note)?;
    let mut out = BytesMut::with_capacity(FIXED_BYTES + note.len() + batch.len());
    out.put_slice(&MAGIC);
    out.put_slice(&[VERSION, 0, 0, 0]);
    out.put_u32_le(note.len() as u32);
    out.put_slice(&note);
    out.put_slice(batch);
    Ok(out.freeze())
}

/// The note and the bytes of the batch; why they cannot be read.
pub(super) fn take(record: &Bytes) -> Result<(Note, Bytes), String> {
    let fixed = record.get(..FIXED_BYTES).ok_or("it is cut")?;
    if !fixed.starts_with(&MAGIC) {
        return Err("it is another kind of record".to_owned());
    }
    if fixed[4] != VERSION {
        return Err(format!(
            "it has version {}, this program reads {VERSION}: upgrade it",
            fixed[4]
        ));
    }
    let length = u32::from_le_bytes([fixed[8], fixed[9], fixed[10], fixed[11]]) as usize;
    if length > MAX_NOTE_BYTES || record.len() < FIXED_BYTES + length {
        return Err("its note is cut".to_owned());
    }
    let note = &record[FIXED_BYTES..FIXED_BYTES + length];
    let note = serde_json::from_slice(note).map_err(|error| format!("its note: {error}"))?;
    Ok((note, record.slice(FIXED_BYTES + length..)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_put_is_taken_and_nothing_else_is(
            reason in ".{0,40}", hash in "[0-9a-f]{64}", place in proptest::option::of("[0-9]@[0-9]{1,5}"),
            batch in proptest::collection::vec(any::<u8>(), 0..64), cut in 0usize..80, flip in any::<u8>(),
        ) {
            let note = Note::kept(&reason, hash, place);
            let record = put(&note, &batch).unwrap();
            prop_assert_eq!(take(&record).unwrap(), (note, Bytes::from(batch)));
            let mark = Note::Mark { resubmitted: 7, new_id: "a/b/c/1-2/0".to_owned() };
            prop_assert_eq!(take(&put(&mark, b"").unwrap()).unwrap().0, mark);
            // Whatever it is, it is told, without a panic.
            let _ = take(&record.slice(..cut.min(record.len())));
            let mut damaged = record.to_vec();
            let at = cut % damaged.len();
            damaged[at] ^= flip;
            let _ = take(&Bytes::from(damaged));
        }
    }

    #[test]
    fn a_long_reason_is_cut_between_letters() {
        let Note::Kept { reason, .. } = Note::kept(&"ü".repeat(9000), String::new(), None) else {
            panic!("a batch")
        };
        assert_eq!(reason.len(), MAX_REASON_BYTES);
    }
}
