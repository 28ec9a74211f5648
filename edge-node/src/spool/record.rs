//! One record of the spool: running totals and an envelope. FORMAT.md describes the bytes.

use bytes::{BufMut, Bytes, BytesMut};
use sluice_wire::counts::Counts;

use crate::tally::{self, Cursor};

const VERSION: u8 = 1;
const FIXED_BYTES: usize = 8;

/// `totals` are the counts of all batches of the epoch up to this one.
pub(super) fn encode(totals: &Counts, envelope: &[u8]) -> Bytes {
    let mut list = Vec::with_capacity(64);
    tally::encode(totals, &mut list);
    let mut out = BytesMut::with_capacity(FIXED_BYTES + list.len() + envelope.len());
    out.put_slice(&[VERSION, 0, 0, 0]);
    out.put_u32_le(list.len() as u32);
    out.put_slice(&list);
    out.put_slice(envelope);
    out.freeze()
}

/// Totals and envelope; `None` if this is no such record.
pub(crate) fn decode(record: &Bytes) -> Option<(Counts, Bytes)> {
    let mut cursor = Cursor(record);
    if cursor.u8()? != VERSION {
        return None;
    }
    cursor.take(3)?;
    let length = cursor.u32()? as usize;
    let totals = tally::decode(cursor.take(length)?)?;
    Some((totals, record.slice(FIXED_BYTES + length..)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn records_read_back(totals in tally::tests::counts(), envelope in proptest::collection::vec(any::<u8>(), 0..50)) {
            let (read, rest) = decode(&encode(&totals, &envelope)).unwrap();
            prop_assert_eq!(read, totals);
            prop_assert_eq!(rest, envelope);
        }

        #[test]
        fn any_bytes_are_a_record_or_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = decode(&Bytes::from(bytes));
        }
    }
}
