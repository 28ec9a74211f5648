//! Sixteen bytes compared at once: by the vector instructions of Wasm where the plugin runs, byte by byte elsewhere.

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod vector {
    use core::arch::wasm32::{
        i64x2, u8x16_bitmask, u8x16_eq, u8x16_le, u8x16_splat, u8x16_sub, v128, v128_any_true, v128_or,
    };

    #[derive(Clone, Copy)]
    pub(crate) struct Sixteen(v128);

    impl Sixteen {
        pub(crate) fn new(bytes: [u8; 16]) -> Self {
            let whole = u128::from_le_bytes(bytes);
            Self(i64x2(whole as i64, (whole >> 64) as i64))
        }

        /// The first eight bytes and the last eight.
        pub(crate) fn of_halves(low: u64, high: u64) -> Self {
            Self(i64x2(low as i64, high as i64))
        }

        pub(crate) fn is(self, byte: u8) -> Self {
            Self(u8x16_eq(self.0, u8x16_splat(byte)))
        }

        pub(crate) fn within(self, first: u8, last: u8) -> Self {
            let above = u8x16_sub(self.0, u8x16_splat(first));
            Self(u8x16_le(above, u8x16_splat(last - first)))
        }

        /// Capitals as small letters; other bytes may become something else.
        pub(crate) fn small(self) -> Self {
            Self(v128_or(self.0, u8x16_splat(0x20)))
        }

        pub(crate) fn or(self, other: Self) -> Self {
            Self(v128_or(self.0, other.0))
        }

        pub(crate) fn any(self) -> bool {
            v128_any_true(self.0)
        }

        /// The highest bit of each byte.
        pub(crate) fn bits(self) -> u64 {
            u64::from(u8x16_bitmask(self.0))
        }
    }
}

#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
mod vector {
    #[derive(Clone, Copy)]
    pub(crate) struct Sixteen([u8; 16]);

    impl Sixteen {
        pub(crate) fn new(bytes: [u8; 16]) -> Self {
            Self(bytes)
        }

        /// The first eight bytes and the last eight.
        pub(crate) fn of_halves(low: u64, high: u64) -> Self {
            Self((u128::from(low) | u128::from(high) << 64).to_le_bytes())
        }

        pub(crate) fn is(self, byte: u8) -> Self {
            Self(self.0.map(|own| if own == byte { 0xff } else { 0 }))
        }

        pub(crate) fn within(self, first: u8, last: u8) -> Self {
            let length = last - first;
            Self(
                self.0
                    .map(|own| if own.wrapping_sub(first) <= length { 0xff } else { 0 }),
            )
        }

        /// Capitals as small letters; other bytes may become something else.
        pub(crate) fn small(self) -> Self {
            Self(self.0.map(|own| own | 0x20))
        }

        pub(crate) fn or(self, other: Self) -> Self {
            Self(std::array::from_fn(|at| self.0[at] | other.0[at]))
        }

        pub(crate) fn any(self) -> bool {
            u128::from_le_bytes(self.0) != 0
        }

        /// The highest bit of each byte: those of eight bytes gathered by one product.
        pub(crate) fn bits(self) -> u64 {
            let gather = |half: u64| ((half >> 7 & 0x0101_0101_0101_0101).wrapping_mul(0x0102_0408_1020_4080)) >> 56;
            let whole = u128::from_le_bytes(self.0);
            gather(whole as u64) | gather((whole >> 64) as u64) << 8
        }
    }
}

pub(crate) use vector::Sixteen;
