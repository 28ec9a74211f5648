//! What the host knows about one batch besides its rows.

use sluice_wire::Signal;

/// The circumstances of a batch on its way through the chain. The same for all plugins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Call<'a> {
    pub signal: Signal,
    /// Time of acceptance, nanoseconds since 1970.
    pub now_ns: u64,
    /// Whose rows these are. Instances and state are never shared between tenants.
    pub tenant: &'a str,
    pub hints: Hints,
}

impl<'a> Call<'a> {
    /// A call without wishes of the node.
    pub fn new(signal: Signal, now_ns: u64, tenant: &'a str) -> Call<'a> {
        Call {
            signal,
            now_ns,
            tenant,
            hints: Hints::default(),
        }
    }
}

/// What the node would like. Nobody has to obey; a sampler does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hints {
    /// Share of the rows, 0 to 1, that the link's budget has room for; 1 without a wish.
    pub share: f64,
    /// Bytes that one row takes on the link, on average of late; 0 if not known.
    pub row_bytes: f64,
}

impl Default for Hints {
    fn default() -> Self {
        Hints {
            share: 1.0,
            row_bytes: 0.0,
        }
    }
}
