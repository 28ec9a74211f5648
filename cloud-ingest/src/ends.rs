//! Where the log ends, for the read side, and how far it is read, for the gateway.

use std::sync::Arc;

use sluice_store::{LogEnds, Stores};
use sluice_wire::ids::Partition;

use crate::gateway::ReadPosition;
use crate::log::{EmbeddedLog, Log};

/// Asks the embedded log beside it.
#[derive(Clone, Debug)]
pub(crate) struct EmbeddedEnds(pub(crate) Arc<EmbeddedLog>);

/// What is fresh is seen in hot.
#[derive(Clone, Debug)]
pub(crate) struct HotPosition(pub(crate) Stores);

impl ReadPosition for HotPosition {
    fn next(&self, partition: Partition) -> Option<u64> {
        self.0.hot.claimed(partition).map(|(_, next)| next)
    }
}

impl LogEnds for EmbeddedEnds {
    fn end(&self, partition: Partition) -> Option<u64> {
        self.0.partitions().contains(&partition).then(|| self.0.end(partition))
    }

    fn oldest_unread_us(&self, partition: Partition, offset: u64) -> Option<i64> {
        self.0.ingested_at_us(partition, offset)
    }
}
