//! What the node says of its chain beside the figures of each plugin.

use std::collections::BTreeMap;

use serde::Serialize;
use sluice_runtime::ChainEvent;

/// How the chain came to be what it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ChainStatus {
    /// Of the store of plugins, as far as it is followed.
    pub store_generation: u64,
    /// Milliseconds since 1970: when the chain was last put together.
    pub set_at_ms: u64,
    /// What was asked for last and could not be done; the chain from before goes on.
    pub refused: Option<RefusedChain>,
    /// What an operator should know: a mask that is switched off, a list of revocations that is too old.
    pub warnings: Vec<String>,
    /// Where each plugin comes from.
    pub sources: BTreeMap<String, String>,
    /// The last changes, the oldest first.
    pub events: Vec<ChainEvent>,
}

/// A chain that could not be put together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RefusedChain {
    pub at_ms: u64,
    pub why: String,
}
