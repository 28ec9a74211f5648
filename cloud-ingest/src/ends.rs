//! Where the log ends, for the read side.

use std::sync::Arc;

use sluice_store::LogEnds;
use sluice_wire::ids::Partition;

use crate::log::{EmbeddedLog, Log};

/// Asks the embedded log beside it.
#[derive(Clone, Debug)]
pub(crate) struct EmbeddedEnds(pub(crate) Arc<EmbeddedLog>);

impl LogEnds for EmbeddedEnds {
    fn end(&self, partition: Partition) -> Option<u64> {
        self.0.partitions().contains(&partition).then(|| self.0.end(partition))
    }

    fn oldest_unread_us(&self, partition: Partition, offset: u64) -> Option<i64> {
        self.0.ingested_at_us(partition, offset)
    }
}
