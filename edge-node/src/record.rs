//! One record of the journal: what became of one request, and its rows. FORMAT.md describes the bytes.

use sluice_wire::Signal;
use sluice_wire::counts::Counts;

use crate::positions::{self, Position};
use crate::tally::{self, Cursor};

const VERSION: u8 = 1;
/// With positions of sources behind the counts.
const VERSION_WITH_POSITIONS: u8 = 2;
/// Where the running total stands: it is known only when the record's turn comes.
pub(crate) const TOTAL_AT: usize = 16;
const FIXED_BYTES: usize = 32;

/// A record apart from its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) signal: Signal,
    /// Number of the start that wrote it.
    pub(crate) start: u32,
    pub(crate) received_ns: u64,
    /// Events accepted since that start, this record's included.
    pub(crate) total_accepted: u64,
    pub(crate) counts: Counts,
}

/// Why bytes are not a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RecordError {
    #[error("journal record has the newer format {0}")]
    Newer(u8),
    #[error("journal record is malformed")]
    Malformed,
}

/// The bytes of a record; `ipc` is empty when no rows remain.
pub(crate) fn encode(head: &Head, positions: &[Position], ipc: &[u8]) -> Vec<u8> {
    let mut counts = Vec::with_capacity(64);
    tally::encode(&head.counts, &mut counts);
    let mut read_upto = Vec::new();
    positions::write_list(positions, &mut read_upto);
    let mut out = Vec::with_capacity(FIXED_BYTES + counts.len() + read_upto.len() + ipc.len());
    out.push(if positions.is_empty() {
        VERSION
    } else {
        VERSION_WITH_POSITIONS
    });
    out.push(match head.signal {
        Signal::Log => 1,
        Signal::Span => 2,
        Signal::Metric => 3,
    });
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&head.start.to_le_bytes());
    out.extend_from_slice(&head.received_ns.to_le_bytes());
    out.extend_from_slice(&head.total_accepted.to_le_bytes());
    out.extend_from_slice(&(counts.len() as u32).to_le_bytes());
    out.extend_from_slice(&(read_upto.len() as u32).to_le_bytes());
    out.extend_from_slice(&counts);
    out.extend_from_slice(&read_upto);
    out.extend_from_slice(ipc);
    out
}

/// The head of a record and the bytes of its rows.
pub(crate) fn decode(record: &[u8]) -> Result<(Head, &[u8]), RecordError> {
    split(record).map(|(head, _, ipc)| (head, ipc))
}

/// The positions of a record; of one that cannot be read, none.
pub(crate) fn positions(record: &[u8]) -> Vec<Position> {
    split(record)
        .ok()
        .and_then(|(_, list, _)| positions::read_list(list))
        .unwrap_or_default()
}

fn split(record: &[u8]) -> Result<(Head, &[u8], &[u8]), RecordError> {
    match record.first() {
        Some(&(VERSION | VERSION_WITH_POSITIONS)) => {}
        Some(&newer) if newer > VERSION_WITH_POSITIONS => return Err(RecordError::Newer(newer)),
        _ => return Err(RecordError::Malformed),
    }
    read(record).ok_or(RecordError::Malformed)
}

fn read(record: &[u8]) -> Option<(Head, &[u8], &[u8])> {
    let mut cursor = Cursor(record);
    let version = cursor.u8()?;
    let signal = match cursor.u8()? {
        1 => Signal::Log,
        2 => Signal::Span,
        3 => Signal::Metric,
        _ => return None,
    };
    cursor.u16()?;
    let start = cursor.u32()?;
    let received_ns = cursor.u64()?;
    let total_accepted = cursor.u64()?;
    let counts_len = cursor.u32()? as usize;
    let list_len = cursor.u32()? as usize;
    let counts = tally::decode(cursor.take(counts_len)?)?;
    // In version 1 these bytes say nothing.
    let list = cursor.take(if version == VERSION { 0 } else { list_len })?;
    Some((
        Head {
            signal,
            start,
            received_ns,
            total_accepted,
            counts,
        },
        list,
        cursor.0,
    ))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn records_read_back(
            counts in tally::tests::counts(), list in positions::tests::list(), start: u32, received_ns: u64, total: u64,
            ipc in proptest::collection::vec(any::<u8>(), 0..50)
        ) {
            let mut head = Head { signal: Signal::Span, start, received_ns, total_accepted: 0, counts };
            let mut bytes = encode(&head, &list, &ipc);
            bytes[TOTAL_AT..TOTAL_AT + 8].copy_from_slice(&total.to_le_bytes());
            head.total_accepted = total;
            let (read, rest) = decode(&bytes).unwrap();
            prop_assert_eq!(read, head);
            prop_assert_eq!(rest, &ipc[..]);
            prop_assert_eq!(positions(&bytes), list);
        }

        #[test]
        fn any_bytes_are_a_record_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = (decode(&bytes), positions(&bytes));
        }
    }

    /// Written by the version that knew no positions.
    #[test]
    fn a_record_of_the_first_version_is_still_read_and_still_written() {
        let first = hex::decode(
            "01010000110000000807060504030201070000000000000024000000000000000700000000000000070000000000000000000000000000000000000000000000000000004950432e2e2e",
        )
        .unwrap();
        let (head, ipc) = decode(&first).unwrap();
        let counts = Counts {
            accepted: 7,
            stored: 7,
            ..Counts::default()
        };
        let expected = Head {
            signal: Signal::Log,
            start: 17,
            received_ns: 0x0102_0304_0506_0708,
            total_accepted: 7,
            counts,
        };
        assert_eq!((head, ipc), (expected.clone(), &b"IPC..."[..]));
        assert!(positions(&first).is_empty());
        let mut again = encode(&expected, &[], ipc);
        again[TOTAL_AT..TOTAL_AT + 8].copy_from_slice(&7u64.to_le_bytes());
        assert_eq!(again, first);
    }

    #[test]
    fn a_newer_format_is_named() {
        assert_eq!(decode(&[3, 1, 0]), Err(RecordError::Newer(3)));
    }
}
