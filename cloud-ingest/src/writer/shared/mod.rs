//! The writer of a hot store on a server: one inserts for all partitions of a process, one block at a time.
//!
//! `start` says where it begins, `gather` what goes into one insert, `standby` when it takes over what another one let lie, `keeper`
//! and `retention` what leaves the server; `driver` does it.

mod driver;
mod gather;
mod keeper;
mod retention;
mod standby;
mod start;

use std::sync::Arc;
use std::time::Duration;

use sluice_store::{ClickHouseHot, Stores};
use sluice_wire::ids::Partition;
use sluice_wire::layout::IpcLimits;

use crate::log::Log;
use crate::quota::Quota;
use crate::status::WriterCounters;
use crate::writer::Snapshots;

/// Owns partitions of a hot store on a server.
#[derive(Clone)]
pub struct SharedHotWriter {
    pub log: Arc<dyn Log>,
    pub stores: Stores,
    /// The hot store of `stores`.
    pub hot: ClickHouseHot,
    pub partitions: Vec<Partition>,
    pub limits: IpcLimits,
    /// Hold the state of duplicates that the cold writer saves.
    pub snapshots: Snapshots,
    /// Takes in all that the log has before it ends; else only what it has read. A log that others append to has no end.
    pub drains: bool,
    pub counters: Arc<WriterCounters>,
    /// Is told what each edge's batches cost in the state of duplicates.
    pub quota: Option<Arc<Quota>>,
    pub options: SharedHotOptions,
}

/// How a server is written, and what it keeps.
#[derive(Clone, Debug)]
pub struct SharedHotOptions {
    /// Create and change the tables when they are not those of this program.
    pub migrate: bool,
    /// No row waits longer for its insert, unless the one before takes longer.
    pub insert_every: Duration,
    /// An insert has about as many rows and bytes at most.
    pub insert_rows: usize,
    pub insert_bytes: usize,
    /// Days that lie back further are dropped, once cold has them.
    pub keep: Duration,
    /// So many bytes are kept at most, as far as cold has the rest; 0: as many as there are.
    pub keep_bytes: u64,
    /// No query runs longer.
    pub query_limit: Duration,
    /// A partition whose owner has not moved for so long, though there is something to do, is taken over.
    pub takeover_after: Duration,
}

impl std::fmt::Debug for SharedHotWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedHotWriter")
            .field("partitions", &self.partitions)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
