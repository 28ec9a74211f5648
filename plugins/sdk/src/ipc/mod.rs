//! Arrow IPC streams of the few types that batches have.
//!
//! The general reader and writer know every Arrow type and make a component six times as large, which costs the host
//! seconds of compilation and megabytes of memory for each plugin.

mod read;
mod write;

pub use read::read;
pub use write::write;

const CONTINUATION: [u8; 4] = [0xff; 4];
const ALIGNMENT: usize = 8;

fn invalid<T>(what: impl Into<String>) -> Result<T, String> {
    Err(format!("batch: {}", what.into()))
}
