//! The corpus's own source of numbers. It is written out here, and not taken from a library, because the same seed must
//! give the same bytes in every later version.

/// A counter run through a 64-bit mixer (the SplitMix64 construction).
#[derive(Clone, Debug)]
pub(crate) struct Random {
    state: u64,
}

impl Random {
    /// An independent sequence for each pair.
    pub(crate) fn new(seed: u64, stream: u64) -> Random {
        Random {
            state: mix(mix(seed) ^ mix(stream.wrapping_add(0x5851_F42D_4C95_7F2D))),
        }
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.state)
    }

    /// Uniform in `0..n`; `n` is not zero.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }

    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len() as u64) as usize]
    }

    /// Near `middle` mostly, with a long tail above: `middle` times two to the power of a bell-shaped number.
    ///
    /// Only basic floating point is used, so every machine computes the same bits.
    pub(crate) fn long_tail(&mut self, middle: f64) -> f64 {
        let bell: f64 = (0..6).map(|_| self.unit()).sum::<f64>() - 3.0;
        let power = bell * 2.2;
        let whole = power.floor();
        let scale = if whole < 0.0 {
            1.0 / f64::from(1u32 << (-whole) as u32)
        } else {
            f64::from(1u32 << whole as u32)
        };
        middle * scale * (1.0 + power - whole)
    }

    /// One of `0..n`, small numbers far more often: each doubling of the rank gets about the same share, as in Zipf's law.
    pub(crate) fn skewed(&mut self, n: u64) -> u64 {
        let doublings = u64::from(64 - n.leading_zeros());
        loop {
            let base = 1u64 << self.below(doublings);
            let rank = base - 1 + self.below(base);
            if rank < n {
                return rank;
            }
        }
    }
}

pub(crate) fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}
