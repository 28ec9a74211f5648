//! What the node would like of its plugins and its sealer, set by whoever knows, read with every request and every batch.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use sluice_runtime::Hints;

/// How much the last batch counts in the average bytes of a row: about the last ten batches.
const WEIGHT: f64 = 0.2;

/// Changes are seen by the next request.
#[derive(Debug)]
pub(crate) struct HintBoard {
    share: AtomicU64,
    row_bytes: AtomicU64,
    sealed_bytes: AtomicU64,
    is_tight: AtomicBool,
}

impl Default for HintBoard {
    fn default() -> Self {
        let Hints { share, row_bytes } = Hints::default();
        HintBoard {
            share: AtomicU64::new(share.to_bits()),
            row_bytes: AtomicU64::new(row_bytes.to_bits()),
            sealed_bytes: AtomicU64::new(0),
            is_tight: AtomicBool::new(false),
        }
    }
}

impl HintBoard {
    pub(crate) fn hints(&self) -> Hints {
        Hints {
            share: f64::from_bits(self.share.load(Ordering::Relaxed)),
            row_bytes: f64::from_bits(self.row_bytes.load(Ordering::Relaxed)),
        }
    }

    /// Of the rows, that the link's budget has room for; what is no share counts as the nearest one.
    pub(crate) fn set_share(&self, share: f64) {
        let share = if share.is_nan() { 1.0 } else { share.clamp(0.0, 1.0) };
        self.share.store(share.to_bits(), Ordering::Relaxed);
    }

    /// Whether batches shall be as small as they can be, at the cost of processor time.
    pub(crate) fn is_tight(&self) -> bool {
        self.is_tight.load(Ordering::Relaxed)
    }

    pub(crate) fn set_tight(&self, is_tight: bool) {
        self.is_tight.store(is_tight, Ordering::Relaxed);
    }

    /// Bytes of all batches until now, as they will be sent.
    pub(crate) fn sealed_bytes(&self) -> u64 {
        self.sealed_bytes.load(Ordering::Relaxed)
    }

    /// A batch as it will be sent. Called by one thread at a time.
    pub(crate) fn sealed(&self, bytes: usize, rows: usize) {
        self.sealed_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        if rows == 0 {
            return;
        }
        let now = bytes as f64 / rows as f64;
        let before = f64::from_bits(self.row_bytes.load(Ordering::Relaxed));
        let average = if before == 0.0 {
            now
        } else {
            before + (now - before) * WEIGHT
        };
        self.row_bytes.store(average.to_bits(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_average_follows_what_is_sealed_and_a_share_stays_one() {
        let board = HintBoard::default();
        assert_eq!(board.hints(), Hints::default());
        board.sealed(1000, 10);
        assert_eq!(board.hints().row_bytes, 100.0);
        board.sealed(0, 0);
        (0..50).for_each(|_| board.sealed(500, 10));
        assert!((board.hints().row_bytes - 50.0).abs() < 0.01);
        for (given, expected) in [(0.5, 0.5), (7.0, 1.0), (-1.0, 0.0), (f64::NAN, 1.0)] {
            board.set_share(given);
            assert_eq!(board.hints().share, expected);
        }
    }
}
