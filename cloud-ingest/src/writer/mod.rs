//! The two writers: independent readers of the log. `crew` runs those of one process, `plan` says what a log record becomes, `hot` and `cold` put it there,
//! `resume` says where a writer begins, `snapshots` where the state of duplicates is kept, `kept` how in a folder,
//! `trim` what the log may forget, `tidy` keeps the cold table small, `forget` takes out what is erased, `age` says by which time.

mod age;
mod cold;
mod crew;
mod forget;
mod hot;
mod kept;
mod plan;
mod resume;
mod shared;
mod snapshots;
mod tidy;
mod trim;
mod turns;

use sluice_store::erase::EraseError;
use sluice_store::hot::clickhouse::{ClickHouseError, MigrateError};
use sluice_store::{ColdError, CommitError, HotError, SeamError, StateError};

pub use cold::{ColdWriter, ColdWriterOptions};
pub(crate) use crew::{Crew, Mine};
pub use hot::HotWriter;
pub(crate) use hot::{Piece, plan_all};
pub use plan::{Planned, Planner};
pub(crate) use resume::{READ_BYTES, fold};
pub(crate) use resume::{check_log_is_the_one, check_log_reaches_cold, skips};
pub use shared::{SharedHotOptions, SharedHotWriter};
pub use snapshots::Snapshots;
pub use tidy::TidyOptions;
pub use trim::TrimOptions;
pub(crate) use trim::base;

use crate::log::LogError;

/// Why a writer stopped. Whatever it is, the log still holds everything that no store holds.
#[derive(Debug, thiserror::Error)]
pub enum WriterError {
    #[error("the log cannot be read")]
    Log(#[from] LogError),
    #[error("the hot store refused rows")]
    Hot(#[from] HotError),
    #[error("the hot store's server")]
    Server(#[source] ClickHouseError),
    #[error("the tables of the hot store")]
    Migrate(#[from] MigrateError),
    #[error("the cold table refused rows")]
    Commit(#[from] CommitError),
    #[error("the cold table cannot be read")]
    Cold(#[from] ColdError),
    #[error(
        "files of the cold table cannot be read: the rows of {ranges} ranges of offsets were not counted, which are named above; \
         whatever is gone for good, `sluice ingest replay` makes again"
    )]
    Uncounted { ranges: u64 },
    #[error("the seam record cannot be read or written")]
    Seam(#[from] SeamError),
    #[error("the state of duplicates {path}")]
    Snapshot {
        path: std::path::PathBuf,
        source: std::io::Error,
    },
    #[error("what is erased")]
    Erased(#[from] EraseError),
    #[error("the state of duplicates in the lake")]
    State(#[from] StateError),
    #[error(
        "partition {partition}: the state of duplicates is known up to offset {known}, but the log begins at {first}; \
         restore {place} and the log from a backup, or begin a new generation of the log{hint}",
        hint = way_out(*.partition, *.known, *.first, *.is_all_known)
    )]
    Forgotten {
        partition: sluice_wire::ids::Partition,
        known: u64,
        first: u64,
        place: String,
        is_all_known: bool,
    },
    #[error(
        "partition {partition}: the log ends at offset {end}, but cold holds everything below {held}; the log was lost or is an old copy. \
         Put the newest copy back, or begin a new generation of the log"
    )]
    LogBehind {
        partition: sluice_wire::ids::Partition,
        end: u64,
        held: u64,
    },
    #[error(
        "partition {partition}: the log ends at offset {end}, but hot holds everything below {held}; the log was lost or is an old copy. \
         Put the newest copy back, or begin a new generation of the log"
    )]
    LogBehindHot {
        partition: sluice_wire::ids::Partition,
        end: u64,
        held: u64,
    },
    #[error(
        "generation {generation} of the log was {noted}, and now it is {found}; the offsets in the lake are those of the first. \
         Put it back, or begin a new log.generation with the new one"
    )]
    AnotherLog {
        generation: u32,
        noted: String,
        found: String,
    },
    #[error("a task of the writer ended: {0}")]
    Task(String),
}

/// What to do about a log that has lost its beginning, if nothing else is lost with it.
fn way_out(partition: sluice_wire::ids::Partition, known: u64, first: u64, is_all_known: bool) -> String {
    if !is_all_known {
        return String::new();
    }
    let last = first.saturating_sub(1);
    format!(
        "; or, if what is between is lost for good, let the writers pass over it: `sluice log skip {partition}@{known}-{last} --reason TEXT \
         --config FILE`"
    )
}

impl WriterError {
    /// What is wrong may be over in a while: an engine is out of reach, and nothing that was read is wrong.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            WriterError::Server(_) | WriterError::Cold(_) => true,
            WriterError::Migrate(error) => matches!(error, MigrateError::Server(_)),
            WriterError::Seam(error) => matches!(error, SeamError::Store(_) | SeamError::Contended { .. }),
            WriterError::State(error) | WriterError::Erased(EraseError::State(error)) => {
                matches!(error, StateError::Store { .. })
            }
            WriterError::Log(error) => matches!(error, LogError::Retry { .. }),
            _ => false,
        }
    }
}
