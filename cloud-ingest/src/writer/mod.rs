//! The two writers: independent readers of the log. `crew` runs those of one process, `plan` says what a log record becomes, `hot` and `cold` put it there,
//! `resume` says where a writer begins, `snapshots` where the state of duplicates is kept, `kept` how in a folder,
//! `trim` what the log may forget, `tidy` keeps the cold table small.

mod cold;
mod crew;
mod hot;
mod kept;
mod plan;
mod resume;
mod shared;
mod snapshots;
mod tidy;
mod trim;

use sluice_store::erase::EraseError;
use sluice_store::hot::clickhouse::{ClickHouseError, MigrateError};
use sluice_store::{ColdError, CommitError, HotError, SeamError, StateError};

pub use cold::{ColdWriter, ColdWriterOptions};
pub(crate) use crew::{Crew, Mine};
pub use hot::HotWriter;
pub(crate) use hot::plan_all;
pub use plan::{Planned, Planner};
pub(crate) use resume::READ_BYTES;
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
         restore {place} from a backup, or begin a new generation of the log"
    )]
    Forgotten {
        partition: sluice_wire::ids::Partition,
        known: u64,
        first: u64,
        place: String,
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
