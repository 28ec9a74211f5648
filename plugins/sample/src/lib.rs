//! Keeps a share of the logs and spans, the same traces on every node, and gives each kept row its weight.
//!
//! What must not be missed stays whatever the rate: errors, slow spans, matters of security, the first event of a pattern, and
//! what the operator names. Rates may differ by service and name, and follow a budget. See README.md.

mod budget;
mod config;
mod consistent;
mod draw;
mod field;
mod keep;
mod memory;
mod pattern;
mod rates;
mod rows;
mod sampler;
mod units;

use sluice_plugin::{Batch, Context, Description, Kind, Outcome, Plugin, export_plugin, random};

pub use budget::{Budget, Limit, Offer};
pub use config::Config;
pub use consistent::{Arrived, Chance, randomness};
pub use memory::Memory;
pub use sampler::{BUDGET, Entropy, LINK, SAMPLED, Sample};

/// All that a configuration can make the sampler look at: the core columns that decide, and the attributes that a rule may name.
const READS: [&str; 17] = [
    "trace_id",
    "trace_state",
    "weight",
    "severity",
    "status",
    "duration_ns",
    "time",
    "name",
    "body",
    "resource:s:*",
    "attrs:s:*",
    "attrs:i:*",
    "attrs:d:*",
    "attrs:b:*",
    "resource:i:*",
    "resource:d:*",
    "resource:b:*",
];

impl Plugin for Sample {
    type Config = Config;

    fn describe() -> Description {
        Description::new("sample", env!("CARGO_PKG_VERSION"), Kind::Sample)
            .reads(READS)
            .writes(["weight", "trace_state"])
    }

    fn init(config: Config) -> Result<Self, String> {
        Sample::new(config, host_memory(), Box::new(random::number))
    }

    fn needs(&self) -> Option<Vec<String>> {
        Some(self.reads())
    }

    fn process(&mut self, batch: &Batch, context: &Context) -> Result<Outcome, String> {
        self.sample(batch, context)
    }
}

export_plugin!(Sample);

/// The host's `state`. A build without the feature `state` does not import it and runs where it is not granted.
#[cfg(feature = "state")]
fn host_memory() -> Option<Box<dyn Memory>> {
    Some(Box::new(memory::Host))
}

#[cfg(not(feature = "state"))]
fn host_memory() -> Option<Box<dyn Memory>> {
    None
}
