//! Where the log ends, for the read side, and how far it is read, for the gateway.

use std::sync::Arc;

use sluice_store::{LogEnds, Stores};
use sluice_wire::ids::Partition;

use crate::gateway::ReadPosition;
use crate::log::Log;

/// Asks the log of this process.
#[derive(Clone)]
pub(crate) struct EndsOf(pub(crate) Arc<dyn Log>);

/// What is fresh is seen in hot.
#[derive(Clone, Debug)]
pub(crate) struct HotPosition(pub(crate) Stores);

impl ReadPosition for HotPosition {
    fn next(&self, partition: Partition) -> Option<u64> {
        self.0.hot.claimed(partition).map(|(_, next)| next)
    }
}

impl LogEnds for EndsOf {
    fn end(&self, partition: Partition) -> Option<u64> {
        let is_known = self.0.is_end_known() && self.0.partitions().contains(&partition);
        is_known.then(|| self.0.end(partition))
    }

    fn oldest_unread_us(&self, partition: Partition, offset: u64) -> Option<i64> {
        self.0.taken_in_us(partition, offset)
    }
}
