//! Randomness of the operating system, stretched by the host.

/// Bytes that one call answers at most.
pub const MAX_BYTES: u32 = 64 * 1024;

pub fn number() -> u64 {
    #[cfg(target_arch = "wasm32")]
    return crate::bindings::sluice::plugin::random::number();
    #[cfg(not(target_arch = "wasm32"))]
    super::native::with(|host| host.random())
}

/// At most [`MAX_BYTES`].
pub fn bytes(count: u32) -> Vec<u8> {
    let count = count.min(MAX_BYTES);
    #[cfg(target_arch = "wasm32")]
    return crate::bindings::sluice::plugin::random::bytes(count);
    #[cfg(not(target_arch = "wasm32"))]
    super::native::with(|host| (0..count).map(|_| host.random() as u8).collect())
}
