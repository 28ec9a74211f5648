//! The wide table of events: FORMAT.md, section 2.

mod columns;
mod derived;
mod fold;
mod ledger;
mod maps;

pub use columns::schema;
pub use fold::{FoldError, fold};
pub use ledger::{Outcome, ledger_row};

use crate::ids::{BatchId, Partition};

/// The `signal` of ledger rows.
pub const LEDGER_SIGNAL: &str = "_batch";

/// Where a batch lies in the log.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    pub id: &'a BatchId,
    pub partition: Partition,
    pub offset: u64,
    /// Microseconds since 1970, stamped by the gateway.
    pub ingested_at_us: i64,
}
