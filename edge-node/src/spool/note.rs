//! The note of a spool segment: what came before its first record, so that this is known when that is deleted.

use sluice_wire::counts::Counts;

use crate::tally::{self, Cursor};

/// The log takes notes up to 64 KiB and each stands there twice; beyond this the totals are left out.
const MAX_BYTES: usize = 16 << 10;

/// `totals` are those of the epoch.
pub(super) fn encode(covered: u64, epoch: u32, totals: &Counts) -> Vec<u8> {
    let mut out = covered.to_le_bytes().to_vec();
    out.extend_from_slice(&epoch.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    tally::encode(totals, &mut out);
    if out.len() > MAX_BYTES {
        out.truncate(8);
    }
    out
}

/// Number of the epoch and its totals, where the note tells them.
pub(super) fn totals(note: &[u8]) -> Option<(u32, Counts)> {
    let mut cursor = Cursor(note);
    cursor.u64()?;
    let epoch = cursor.u32()?;
    cursor.u32()?;
    Some((epoch, tally::decode(cursor.0)?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn notes_read_back(covered: u64, epoch: u32, counts in tally::tests::counts()) {
            let note = encode(covered, epoch, &counts);
            prop_assert_eq!(crate::journal::noted(&note), covered);
            prop_assert_eq!(totals(&note).unwrap(), (epoch, counts));
        }
    }

    #[test]
    fn a_note_of_the_first_kind_tells_the_position_and_one_with_too_much_to_tell_no_more_than_that() {
        assert_eq!(crate::journal::noted(&7u64.to_le_bytes()), 7);
        assert_eq!(totals(&7u64.to_le_bytes()), None);
        let dropped = (0..3000).map(|n| sluice_wire::counts::Dropped {
            plugin: format!("plugin-{n}"),
            reason: "r".to_owned(),
            rows: 1,
        });
        let counts = Counts {
            accepted: 3000,
            dropped: dropped.collect(),
            ..Counts::default()
        };
        let note = encode(9, 1, &counts);
        assert_eq!((crate::journal::noted(&note), totals(&note)), (9, None));
    }
}
