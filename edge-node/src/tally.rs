//! Counts as bytes, for the records of journal and spool. FORMAT.md describes them.

use sluice_wire::counts::{Counts, Dropped};

/// Entries of one list; more than any chain of plugins names.
const MAX_ENTRIES: usize = 4096;

pub(crate) fn encode(counts: &Counts, out: &mut Vec<u8>) {
    for number in [counts.accepted, counts.stored, counts.quarantined, counts.damaged] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    for list in [&counts.dropped, &counts.refused] {
        let list = &list[..list.len().min(MAX_ENTRIES)];
        out.extend_from_slice(&(list.len() as u16).to_le_bytes());
        for entry in list {
            text(out, &entry.plugin);
            text(out, &entry.reason);
            out.extend_from_slice(&entry.rows.to_le_bytes());
        }
    }
}

/// Reads what `encode` wrote; `None` if it is anything else.
pub(crate) fn decode(bytes: &[u8]) -> Option<Counts> {
    let mut cursor = Cursor(bytes);
    let mut counts = Counts {
        accepted: cursor.u64()?,
        stored: cursor.u64()?,
        quarantined: cursor.u64()?,
        damaged: cursor.u64()?,
        ..Counts::default()
    };
    counts.dropped = cursor.list()?;
    counts.refused = cursor.list()?;
    cursor.0.is_empty().then_some(counts)
}

/// Takes little-endian numbers off the front of bytes.
pub(crate) struct Cursor<'a>(pub(crate) &'a [u8]);

impl<'a> Cursor<'a> {
    pub(crate) fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(head)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|b| b[0])
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.take(2)?.try_into().ok().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Option<String> {
        let length = self.u16()?;
        String::from_utf8(self.take(usize::from(length))?.to_vec()).ok()
    }

    fn list(&mut self) -> Option<Vec<Dropped>> {
        let length = usize::from(self.u16()?);
        if length > MAX_ENTRIES {
            return None;
        }
        (0..length)
            .map(|_| {
                Some(Dropped {
                    plugin: self.text()?,
                    reason: self.text()?,
                    rows: self.u64()?,
                })
            })
            .collect()
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    let mut end = text.len().min(usize::from(u16::MAX));
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    out.extend_from_slice(&(end as u16).to_le_bytes());
    out.extend_from_slice(&text.as_bytes()[..end]);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn counts() -> impl Strategy<Value = Counts> {
        let entry = (".{0,8}", ".{0,8}", any::<u32>()).prop_map(|(plugin, reason, rows)| Dropped {
            plugin,
            reason,
            rows: rows.into(),
        });
        let list = || proptest::collection::vec(entry.clone(), 0..4);
        (any::<u32>(), any::<u32>(), any::<u32>(), list(), list()).prop_map(|(s, q, d, dropped, refused)| {
            let sum: u64 = dropped.iter().map(|e| e.rows).sum();
            let (stored, quarantined, damaged) = (s.into(), q.into(), d.into());
            Counts {
                accepted: stored + quarantined + damaged + sum,
                stored,
                quarantined,
                damaged,
                dropped,
                refused,
            }
        })
    }

    proptest! {
        #[test]
        fn counts_read_back(counts in counts()) {
            let mut bytes = Vec::new();
            encode(&counts, &mut bytes);
            prop_assert_eq!(decode(&bytes).unwrap(), counts);
        }

        #[test]
        fn any_bytes_are_counts_or_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = decode(&bytes);
        }
    }
}
