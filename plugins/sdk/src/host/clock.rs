//! A coarse clock. The time of a batch is in its `Context`; this one is for what happens between batches.

/// Milliseconds since 1970, as of the beginning of the call.
pub fn now() -> u64 {
    #[cfg(target_arch = "wasm32")]
    return crate::bindings::sluice::plugin::clock::now();
    #[cfg(not(target_arch = "wasm32"))]
    super::native::with(|host| host.now_ms)
}
