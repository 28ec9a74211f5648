//! Randomness for guests: a seed of the operating system, stretched, so that a guest cannot drain or slow the system's.

use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng, TryRngCore};

/// Bytes of one answer, as the contract has it.
pub const MAX_RANDOM_BYTES: u32 = 64 * 1024;

/// The generator of one instance. Its state is never shared, so no instance can foresee another's numbers.
pub struct Random(StdRng);

impl Random {
    /// Seeded by the operating system; fails if that has no randomness.
    pub fn from_system() -> Result<Random, String> {
        let mut seed = <StdRng as SeedableRng>::Seed::default();
        rand::rngs::OsRng
            .try_fill_bytes(&mut seed)
            .map_err(|error| format!("the operating system gives no randomness: {error}"))?;
        Ok(Random(StdRng::from_seed(seed)))
    }

    pub fn number(&mut self) -> u64 {
        self.0.random()
    }

    /// At most [`MAX_RANDOM_BYTES`]; more is an error, never a shorter answer that somebody takes for a key.
    pub fn bytes(&mut self, count: u32) -> Result<Vec<u8>, String> {
        if count > MAX_RANDOM_BYTES {
            return Err(format!("{count} random bytes at once; at most {MAX_RANDOM_BYTES}"));
        }
        let mut bytes = vec![0; count as usize];
        self.0.fill_bytes(&mut bytes);
        Ok(bytes)
    }
}

impl std::fmt::Debug for Random {
    /// Without the state: whoever reads a log must not know the next number.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Random").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn two_generators_differ_and_answers_are_bounded() {
        let (mut one, mut two) = (Random::from_system().unwrap(), Random::from_system().unwrap());
        assert_ne!(one.number(), two.number());
        let bytes = one.bytes(MAX_RANDOM_BYTES).unwrap();
        assert_eq!(bytes.len(), MAX_RANDOM_BYTES as usize);
        // Each of 256 values is expected 256 times; one that is missing has a chance of e^-256.
        assert!((0..=255u8).all(|value| bytes.contains(&value)));
        assert_eq!(one.bytes(0).unwrap(), Vec::<u8>::new());
        assert!(one.bytes(MAX_RANDOM_BYTES + 1).unwrap_err().contains("65537"));
        assert_eq!(format!("{one:?}"), "Random { .. }");
    }
}
