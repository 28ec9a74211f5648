//! The head of a log record: whose batch it is and what its counts are, under a checksum of its own, so that damage further
//! behind leaves both. FORMAT.md describes the bytes.

use crc32c::crc32c;
use sluice_wire::counts::{Counts, Dropped};
use sluice_wire::envelope::{Header, Kind};
use sluice_wire::ids::{BatchId, Epoch};

/// No head is longer; entries that do not fit are summed up.
pub(super) const MAX_HEAD_BYTES: usize = 64 << 10;
const MAGIC: [u8; 6] = *b"SLLREC";
const VERSION: u8 = 2;
const FIXED_BYTES: usize = 80;
const CRC_BYTES: usize = 4;
const ENTRY_BYTES: usize = 12;
/// A stream is a tenant, a node and 32 digits: 226 bytes at most.
const MAX_STREAM_BYTES: usize = 256;
const KINDS: [(Kind, u8); 3] = [(Kind::Data, 1), (Kind::Tombstone, 2), (Kind::Report, 3)];

/// What the log says of a batch beside its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    pub id: BatchId,
    pub kind: Kind,
    pub counts: Counts,
}

impl From<&Header> for Head {
    fn from(header: &Header) -> Self {
        Self {
            id: header.id.clone(),
            kind: header.kind,
            counts: header.counts.clone(),
        }
    }
}

/// The beginning of a record of version 2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Opening {
    pub(super) head: Head,
    pub(super) ingested_at_us: i64,
    /// Where the envelope begins.
    pub(super) length: usize,
}

/// Whether a record begins as those of version 2 and later do: a record of version 1 begins with a time, whose byte 7 is zero.
pub(super) fn has_head(record: &[u8]) -> bool {
    record.starts_with(&MAGIC) && record.get(7).is_some_and(|kind| *kind != 0)
}

/// Appends the head of a record.
pub(super) fn put(out: &mut Vec<u8>, head: &Head, ingested_at_us: i64) {
    let start = out.len();
    let stream = head.id.stream.to_string();
    let room = MAX_HEAD_BYTES - FIXED_BYTES - MAX_STREAM_BYTES - CRC_BYTES;
    let (dropped, refused) = (
        fitting(&head.counts.dropped, room / 2),
        fitting(&head.counts.refused, room / 2),
    );

    let kind = KINDS
        .iter()
        .find(|(kind, _)| *kind == head.kind)
        .map_or(0, |(_, byte)| *byte);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[VERSION, kind]);
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&ingested_at_us.to_le_bytes());
    out.extend_from_slice(&head.id.epoch.number.to_le_bytes());
    out.extend_from_slice(&head.id.epoch.random.to_le_bytes());
    out.extend_from_slice(&head.id.seq.to_le_bytes());
    let counts = &head.counts;
    for sum in [counts.accepted, counts.stored, counts.quarantined, counts.damaged] {
        out.extend_from_slice(&sum.to_le_bytes());
    }
    for length in [stream.len(), dropped.len(), refused.len(), 0] {
        out.extend_from_slice(&(length as u16).to_le_bytes());
    }
    out.extend_from_slice(stream.as_bytes());
    for entry in dropped.iter().chain(&refused) {
        out.extend_from_slice(&(entry.plugin.len() as u16).to_le_bytes());
        out.extend_from_slice(&(entry.reason.len() as u16).to_le_bytes());
        out.extend_from_slice(&entry.rows.to_le_bytes());
        out.extend_from_slice(entry.plugin.as_bytes());
        out.extend_from_slice(entry.reason.as_bytes());
    }
    let length = (out.len() - start + CRC_BYTES) as u32;
    out[start + 8..start + 12].copy_from_slice(&length.to_le_bytes());
    let crc = crc32c(&out[start..]);
    out.extend_from_slice(&crc.to_le_bytes());
}

/// The entries that fit into `room` bytes; what does not is one entry without names.
fn fitting(entries: &[Dropped], room: usize) -> Vec<Dropped> {
    let mut left = room - ENTRY_BYTES;
    let mut kept = Vec::new();
    let mut rest = Dropped::default();
    for entry in entries {
        let size = ENTRY_BYTES + entry.plugin.len() + entry.reason.len();
        if size <= left {
            left -= size;
            kept.push(entry.clone());
        } else {
            rest.rows = rest.rows.saturating_add(entry.rows);
        }
    }
    if rest.rows > 0 {
        kept.push(rest);
    }
    kept
}

/// Reads the head at the beginning of some bytes, which may be damaged or cut behind it.
pub(super) fn take(bytes: &[u8]) -> Option<Opening> {
    let fixed = bytes.get(..FIXED_BYTES)?;
    if !has_head(fixed) || fixed[6] != VERSION {
        return None;
    }
    let kind = KINDS.iter().find(|(_, byte)| *byte == fixed[7])?.0;
    let length = usize::try_from(u32_at(fixed, 8)).ok()?;
    if !(FIXED_BYTES + CRC_BYTES..=MAX_HEAD_BYTES).contains(&length) {
        return None;
    }
    let (covered, crc) = bytes.get(..length)?.split_at(length - CRC_BYTES);
    if crc32c(covered) != u32_at(crc, 0) {
        return None;
    }
    let mut rest = &covered[FIXED_BYTES..];
    let mut text = |length: usize| {
        let (text, behind) = rest.split_at_checked(length)?;
        rest = behind;
        Some(text)
    };
    let stream = std::str::from_utf8(text(usize::from(u16_at(fixed, 72)))?).ok()?;
    let mut entry = || {
        let sizes = text(ENTRY_BYTES)?;
        let (plugin, reason) = (usize::from(u16_at(sizes, 0)), usize::from(u16_at(sizes, 2)));
        Some(Dropped {
            plugin: String::from_utf8(text(plugin)?.to_vec()).ok()?,
            reason: String::from_utf8(text(reason)?.to_vec()).ok()?,
            rows: u64_at(sizes, 4),
        })
    };
    let mut entries = |count: u16| (0..count).map(|_| entry()).collect::<Option<Vec<_>>>();
    let (dropped, refused) = (entries(u16_at(fixed, 74))?, entries(u16_at(fixed, 76))?);
    let id = BatchId {
        stream: stream.parse().ok()?,
        epoch: Epoch {
            number: u32_at(fixed, 20),
            random: u64_at(fixed, 24),
        },
        seq: u64_at(fixed, 32),
    };
    let counts = Counts {
        accepted: u64_at(fixed, 40),
        stored: u64_at(fixed, 48),
        quarantined: u64_at(fixed, 56),
        damaged: u64_at(fixed, 64),
        dropped,
        refused,
    };
    Some(Opening {
        head: Head { id, kind, counts },
        ingested_at_us: u64_at(fixed, 12) as i64,
        length,
    })
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u64_of(bytes, at, 2) as u16
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u64_of(bytes, at, 4) as u32
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64_of(bytes, at, 8)
}

/// Up to eight bytes as a number; bytes that are not there count as zero.
fn u64_of(bytes: &[u8], at: usize, width: usize) -> u64 {
    let mut word = [0u8; 8];
    for (to, from) in word.iter_mut().zip(bytes.iter().skip(at).take(width)) {
        *to = *from;
    }
    u64::from_le_bytes(word)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;
    use sluice_wire::ids::{NodeId, StreamId, TenantId};

    use super::*;

    fn dropped() -> impl Strategy<Value = Vec<Dropped>> {
        let one = ("[a-z]{0,9}", "[a-z/]{0,20}", any::<u64>());
        let one = one.prop_map(|(plugin, reason, rows)| Dropped { plugin, reason, rows });
        prop::collection::vec(one, 0..5)
    }

    prop_compose! {
        fn head()(
            kind in 0usize..3, number in any::<u32>(), random in any::<u64>(), seq in any::<u64>(), spool in any::<[u8; 16]>(),
            sums in any::<[u64; 4]>(), dropped in dropped(), refused in dropped(),
        ) -> Head {
            let stream = StreamId { tenant: TenantId::new("acme").unwrap(), node: NodeId::new("site-1").unwrap(), spool };
            let [accepted, stored, quarantined, damaged] = sums;
            Head {
                id: BatchId { stream, epoch: Epoch { number, random }, seq },
                kind: KINDS[kind].0,
                counts: Counts { accepted, stored, quarantined, damaged, dropped, refused },
            }
        }
    }

    proptest! {
        #[test]
        fn a_head_reads_back_whatever_stands_behind_it(head in head(), at in any::<i64>(), behind in prop::collection::vec(any::<u8>(), 0..40)) {
            let mut bytes = Vec::new();
            put(&mut bytes, &head, at);
            let length = bytes.len();
            bytes.extend_from_slice(&behind);
            prop_assert_eq!(take(&bytes), Some(Opening { head, ingested_at_us: at, length }));
        }

        #[test]
        fn p6_a_flipped_bit_of_a_head_is_noticed(head in head(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let mut bytes = Vec::new();
            put(&mut bytes, &head, 7);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(take(&bytes), None);
        }

        #[test]
        fn any_bytes_are_a_head_or_none(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            let _ = take(&bytes);
            let _ = take(&[&b"SLLREC\x02\x01"[..], &bytes].concat());
        }
    }

    /// P3: whatever is left out of the list of reasons stays in the sum.
    #[test]
    fn p3_more_reasons_than_fit_are_summed_up() {
        let entry = |n: usize| Dropped {
            plugin: "p".repeat(1000),
            reason: n.to_string(),
            rows: 3,
        };
        let counts = Counts {
            accepted: 300,
            dropped: (0..100).map(entry).collect(),
            ..Counts::default()
        };
        let stream = StreamId {
            tenant: TenantId::new(&"t".repeat(64)).unwrap(),
            node: NodeId::new(&"n".repeat(128)).unwrap(),
            spool: [1; 16],
        };
        let id = BatchId {
            stream,
            epoch: Epoch { number: 1, random: 1 },
            seq: 1,
        };
        let mut bytes = Vec::new();
        let kind = Kind::Data;
        put(&mut bytes, &Head { id, kind, counts }, 0);
        let read = take(&bytes).unwrap().head.counts;
        assert!(bytes.len() <= MAX_HEAD_BYTES && read.balances() && read.dropped.len() < 100);
    }
}
