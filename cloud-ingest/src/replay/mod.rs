//! `sluice ingest replay`: what hot or cold holds of a time is made again, from the log or, for hot, from cold, beside running writers.
//! `crates/store/TABLES.md` says how it changes hands.

mod cold;
mod hot;
mod source;

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use sluice_store::cold::{ReplaceReport, ScanError};
use sluice_store::erase::EraseError;
use sluice_store::hot::clickhouse::{ClickHouseError, MigrateError};
use sluice_store::{ColdError, CommitError, Erasures, HotError, OffsetRange, RowsError, Rule, SeamError, Stores};
use sluice_wire::ids::Partition;

use crate::log::LogError;
use crate::offline::Offline;
use crate::writer::{WriterError, check_log_is_the_one, skips};

pub use self::cold::replay_cold;
pub use self::hot::replay_hot;
pub(crate) use self::hot::replay_tail;
pub use self::source::Source;

/// Which records, by when they were taken in: microseconds since 1970. The first is in it, the second is not.
#[derive(Clone, Copy, Debug)]
pub struct When {
    pub from_us: i64,
    pub to_us: i64,
}

/// Is told what is going on.
pub trait Progress: Send + Sync {
    /// So many of so many log records are done.
    fn step(&self, done: u64, of: u64);
}

/// What was made again.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub ranges: Vec<OffsetRange>,
    pub rows: u64,
    /// Of cold.
    pub files: Option<ReplaceReport>,
}

/// Why something was not made again; what is visible is what was visible before, but for what `Partly` names.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error("{} of {of} partitions were made again before this, and stay so: {}; the others hold what they held", .done.len(), listed(.done))]
    Partly {
        done: Vec<OffsetRange>,
        of: usize,
        source: Box<ReplayError>,
    },
    #[error("rules of erasure were made again and again while rows were made; replay again")]
    RulesChange,
    #[error("hot.store is \"embedded\": it is in the memory of ingest, which makes it from the log at every start")]
    EmbeddedHot,
    #[error(
        "partition {partition}: the log can be replayed from offset {possible} on, and {wanted} is wanted; begin later{hint}",
        hint = if *.to_hot { ", or take the rows from cold (--source cold)" } else { "" }
    )]
    TooOld {
        partition: Partition,
        wanted: u64,
        possible: u64,
        to_hot: bool,
    },
    #[error(
        "partition {partition}: this log was trimmed before the state of duplicates at its beginning was kept, so it cannot be replayed"
    )]
    NoBase { partition: Partition },
    #[error(
        "partition {partition}: the log is damaged at offset {offset} ({why}); what the stores hold of it stays. Replay a time before or behind it, or \
         take the rows of hot from cold (--source cold)"
    )]
    Damaged {
        partition: Partition,
        offset: u64,
        why: String,
    },
    #[error("partition {partition}: no writer has written hot yet, so there is nothing to make again; start ingest")]
    Unwritten { partition: Partition },
    #[error("partition {partition}: the rows that were made again are not whole in hot, and count nowhere: {what}")]
    NotWhole { partition: Partition, what: String },
    #[error("the log cannot be read")]
    Log(#[from] LogError),
    #[error(transparent)]
    Writer(#[from] WriterError),
    #[error("cold")]
    Commit(#[from] CommitError),
    #[error("cold cannot be read")]
    Cold(#[from] ColdError),
    #[error(transparent)]
    Scan(#[from] ScanError),
    #[error("hot took nothing")]
    Hot(#[from] HotError),
    #[error("hot")]
    Server(#[from] ClickHouseError),
    #[error("the tables of hot")]
    Migrate(#[from] MigrateError),
    #[error("what is erased")]
    Erased(#[from] EraseError),
    #[error("rows were not left out")]
    Rows(#[from] RowsError),
    #[error("the seam")]
    Seam(#[from] SeamError),
}

fn listed(ranges: &[OffsetRange]) -> String {
    let text = |range: &OffsetRange| format!("{} offsets {} to {}", range.partition, range.first, range.last);
    ranges.iter().map(text).collect::<Vec<_>>().join(", ")
}

/// Rules that are made while rows are made again: so often it begins anew.
const RULE_ATTEMPTS: u32 = 3;

/// What a replay leaves out, as of when it began.
struct LeftOut {
    rules: BTreeMap<u64, Rule>,
    erasures: Erasures,
}

impl LeftOut {
    async fn read(stores: &Stores) -> Result<Self, ReplayError> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_us = i64::try_from(since.as_micros()).unwrap_or(i64::MAX);
        // The clock of this machine alone deletes nothing.
        let now_us = stores.believed_us(now_us).await?;
        // In this order: a rule that comes between is in the second, and found by `is_all`.
        let rules = stores.rules().await?;
        let erasures = stores.erased_for_good(now_us).await?;
        Ok(Self { rules, erasures })
    }

    /// Whether nothing was erased since. To be asked right before rows change hands: the stores may be rid of them already, and whoever
    /// took them out does not look again.
    async fn is_all(&self, stores: &Stores) -> Result<bool, ReplayError> {
        Ok(stores.rules().await? == self.rules)
    }
}

/// Refuses a log that is not the one of the lake.
async fn check(offline: &Offline, stores: &Stores) -> Result<(), ReplayError> {
    Ok(check_log_is_the_one(&offline.log(), stores).await?)
}

/// The log as the writers see it.
async fn log_of(offline: &Offline, stores: &Stores) -> Result<std::sync::Arc<dyn crate::log::Log>, ReplayError> {
    let log = offline.log();
    let skips = skips(&log, stores).await?;
    Ok(match skips.is_empty() {
        true => log,
        false => std::sync::Arc::new(crate::log::SkippedLog { inner: log, skips }),
    })
}
