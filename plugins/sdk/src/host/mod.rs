//! What the host offers a plugin. Each module that a plugin uses becomes an import of its component, which is a capability
//! that its manifest names and the operator grants; what is not used is not imported.
//!
//! Without Wasm, in unit tests and benches, an in-process stand-in answers in the same way; `testing::Host` sets it up.

pub mod clock;
pub mod log;
pub mod lookup;
pub mod matching;
pub mod random;
pub mod state;

#[cfg(not(target_arch = "wasm32"))]
pub(crate) mod native;
