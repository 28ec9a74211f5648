//! What is acknowledged, as it is saved beside the spool. Losing it is safe: what is sent again is recognised.

use std::io;
use std::path::Path;

use sluice_wal::cursor;
use sluice_wire::counts::Counts;
use sluice_wire::intervals::IntervalSet;

use crate::tally::{self, Cursor};

const VERSION: u8 = 1;

/// The content of the cursor file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Saved {
    pub(crate) acked: IntervalSet,
    /// Spool index after the last batch at the time of saving, and the running totals there, of which epoch.
    pub(crate) next: u64,
    pub(crate) epoch: u32,
    pub(crate) totals: Counts,
    /// Journal positions below it were in the spool.
    pub(crate) covered: u64,
}

impl Saved {
    /// A file that is missing, damaged or from the future reads as an empty cursor.
    pub(crate) fn load(path: &Path) -> io::Result<Self> {
        match cursor::load(path) {
            Ok(Some(bytes)) => Ok(Self::decode(&bytes).unwrap_or_default()),
            Ok(None) => Ok(Self::default()),
            Err(e) if e.kind() == io::ErrorKind::InvalidData => Ok(Self::default()),
            Err(e) => Err(e),
        }
    }

    pub(crate) fn save(&self, path: &Path) -> io::Result<()> {
        cursor::save(path, &self.encode())
    }

    fn encode(&self) -> Vec<u8> {
        let mut totals = Vec::new();
        tally::encode(&self.totals, &mut totals);
        let mut out = vec![VERSION, 0, 0, 0];
        out.extend_from_slice(&self.epoch.to_le_bytes());
        out.extend_from_slice(&self.next.to_le_bytes());
        out.extend_from_slice(&self.covered.to_le_bytes());
        out.extend_from_slice(&(totals.len() as u32).to_le_bytes());
        out.extend_from_slice(&totals);
        out.extend_from_slice(&self.acked.encode());
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut cursor = Cursor(bytes);
        if cursor.u8()? != VERSION {
            return None;
        }
        cursor.take(3)?;
        let epoch = cursor.u32()?;
        let next = cursor.u64()?;
        let covered = cursor.u64()?;
        let length = cursor.u32()? as usize;
        let totals = tally::decode(cursor.take(length)?)?;
        let acked = IntervalSet::decode(cursor.0).ok()?;
        Some(Self {
            acked,
            next,
            epoch,
            totals,
            covered,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn cursors_read_back(totals in tally::tests::counts(), epoch: u32, next: u64, covered: u64, list: Vec<u16>) {
            let mut acked = IntervalSet::new();
            for x in list {
                acked.insert(x.into());
            }
            let saved = Saved { acked, next, epoch, totals, covered };
            prop_assert_eq!(Saved::decode(&saved.encode()).unwrap(), saved);
        }
    }
}
