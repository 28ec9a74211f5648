//! The cold store: a Delta table that any engine reads.
//!
//! One commit adds the files of some ranges of offsets and says, by one transaction action per partition, up to where the table
//! now holds that partition. A range is only accepted where the last one ended, on the very version that the commit is based on;
//! so no number of writers, retries or lost answers makes a row appear twice or leaves one out.

mod balance;
mod begun;
mod commit;
mod door;
mod erase;
mod files;
mod format;
mod maintain;
mod merge;
mod order;
mod ranges;
mod replace;
mod round;
mod scan;
mod stats;
mod stream;
mod swap;
mod version;
mod weight;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use arrow::error::ArrowError;
use datafusion::execution::object_store::ObjectStoreUrl;
use deltalake::kernel::StructType;
use deltalake::kernel::engine::arrow_conversion::TryIntoKernel;
use deltalake::logstore::LogStoreRef;
use deltalake::operations::create::CreateBuilder;
use deltalake::table::state::DeltaTableState;
use deltalake::{DeltaTable, DeltaTableError, TableProperty};
use object_store::ObjectStore;
use object_store::path::Path;
use sluice_wire::ids::Partition;
use tokio::sync::Mutex;

pub use self::balance::{Balance, Hole, Known, MAX_HOLES, Wrong};
pub use self::commit::CommitError;
use self::commit::Unnamed;
pub use self::erase::{Cleaned, EraseReport};
pub use self::files::EncodeError;
use self::files::Making;
pub use self::format::Sizes;
pub use self::maintain::{CompactOptions, CompactReport, VacuumReport};
pub use self::replace::{ReplaceReport, Replacement};
pub use self::scan::ScanError;
pub(crate) use self::version::{ColdFile, ColdVersion};
use crate::lake::Lake;
use crate::physical::{DAY, Mapping};

/// The table of cold rows. Clones share what was read of it.
#[derive(Clone)]
pub struct ColdTable {
    shared: Arc<Shared>,
}

struct Shared {
    log_store: LogStoreRef,
    making: Making,
    /// Names the table's files to the query engine.
    url: ObjectStoreUrl,
    /// Where the table is.
    place: String,
    /// What tells the table apart from all others, wherever it is reached from.
    identity: String,
    /// Its files are not on a disk of this machine.
    is_remote: bool,
    newest: Mutex<Arc<ColdVersion>>,
    /// One commit at a time in this process; others are met at the version number. Holds what a failed one left.
    writer: Mutex<Option<Unnamed>>,
    /// Files whose rows another program left in another order: they are not merged.
    unsorted: std::sync::Mutex<HashSet<Path>>,
}

/// One version of the table: how far it is, and what it takes in the lake, but for files that no version needs any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ColdExtent {
    /// C, by partition.
    pub committed: BTreeMap<Partition, u64>,
    pub files: u64,
    pub bytes: u64,
    /// As far as the files say it.
    pub rows: u64,
}

/// Why the table could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ColdError {
    #[error("the cold table")]
    Delta(#[source] Box<DeltaTableError>),
    #[error("the files of the cold table")]
    Store(#[from] object_store::Error),
    #[error("the schema of the cold table")]
    Schema(#[from] ArrowError),
    #[error(
        "column {column} of the cold table is not what this program writes; it is the table of another program or version"
    )]
    Foreign { column: String },
}

impl From<DeltaTableError> for ColdError {
    fn from(error: DeltaTableError) -> Self {
        Self::Delta(Box::new(error))
    }
}

impl std::fmt::Debug for ColdTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ColdTable")
            .field("root", self.shared.log_store.root_url())
            .finish_non_exhaustive()
    }
}

impl ColdTable {
    /// Opens the table at a folder or URL; makes it, and adds columns that it lacks.
    pub async fn open(location: &str) -> Result<Self, ColdError> {
        Self::open_in(&Lake::at(location)?, "").await
    }

    /// Opens the table in a part of a lake.
    pub async fn open_in(lake: &Lake, name: &str) -> Result<Self, ColdError> {
        Self::open_sized(lake, name, Sizes::default()).await
    }

    /// The same, and what it writes are files of other sizes than usual.
    pub async fn open_sized(lake: &Lake, name: &str, sizes: Sizes) -> Result<Self, ColdError> {
        let log_store = lake.part(name)?;
        let mapping = Mapping::events();
        let schema: StructType = mapping.physical().as_ref().try_into_kernel()?;
        if !log_store.is_delta_table_location().await? {
            create(&log_store, &schema).await?;
        }
        let mut table = DeltaTable::new(Arc::clone(&log_store));
        table.load().await?;
        let missing = missing_columns(table.snapshot()?, &schema)?;
        if !missing.is_empty() {
            table = table.add_columns().with_fields(missing).await?;
        }
        let state = table.snapshot()?.clone();
        let identity = state.metadata().id().to_owned();
        let version = ColdVersion::load(state, log_store.as_ref(), mapping.physical()).await?;
        let name = format!("cold-{}://", uuid::Uuid::new_v4().simple());
        let url = ObjectStoreUrl::parse(name).map_err(|error| DeltaTableError::Generic(error.to_string()))?;
        let newest = Mutex::new(Arc::new(version));
        Ok(Self {
            shared: Arc::new(Shared {
                place: log_store.root_url().to_string(),
                identity,
                is_remote: lake.is_remote(),
                log_store,
                making: Making { mapping, sizes },
                url,
                newest,
                writer: Mutex::default(),
                unsorted: std::sync::Mutex::default(),
            }),
        })
    }

    /// C: the last offset that the newest version holds, by partition.
    pub async fn committed(&self) -> Result<BTreeMap<Partition, u64>, ColdError> {
        Ok(self.refresh().await?.committed.clone())
    }

    /// How far the newest version is and how large.
    pub async fn extent(&self) -> Result<ColdExtent, ColdError> {
        let version = self.refresh().await?;
        Ok(ColdExtent {
            committed: version.committed.clone(),
            files: version.files.len() as u64,
            bytes: version.files.iter().map(|file| file.bytes).sum(),
            rows: version.files.iter().filter_map(|file| file.stats.rows).sum(),
        })
    }

    /// When the newest file was written, in microseconds since 1970; `None`: there is none.
    pub async fn newest_file_us(&self) -> Result<Option<i64>, ColdError> {
        let version = self.refresh().await?;
        let newest = version.files.iter().map(|file| file.modified_ms).max();
        Ok(newest.map(|ms| ms.saturating_mul(1000)))
    }

    /// The number of the newest version.
    pub async fn version(&self) -> Result<u64, ColdError> {
        Ok(self.refresh().await?.number)
    }

    /// Reads what was committed since the last look.
    pub(crate) async fn refresh(&self) -> Result<Arc<ColdVersion>, ColdError> {
        let mut newest = self.shared.newest.lock().await;
        let mut state = newest.state.clone();
        state.update(self.shared.log_store.as_ref(), None).await?;
        if state.version() != newest.number {
            let schema = self.mapping().physical();
            *newest = Arc::new(newest.advance(state, self.shared.log_store.as_ref(), schema).await?);
        }
        Ok(Arc::clone(&newest))
    }

    pub(crate) fn mapping(&self) -> &Mapping {
        &self.shared.making.mapping
    }

    fn making(&self) -> &Making {
        &self.shared.making
    }

    pub(crate) fn url(&self) -> &ObjectStoreUrl {
        &self.shared.url
    }

    pub(crate) fn place(&self) -> &str {
        &self.shared.place
    }

    /// The table's own name for itself: two machines that reach the same table by different ways agree on it.
    pub(crate) fn identity(&self) -> &str {
        &self.shared.identity
    }

    pub(crate) fn is_remote(&self) -> bool {
        self.shared.is_remote
    }

    /// The store of the data files, rooted at the table.
    pub(crate) fn store(&self) -> Arc<dyn ObjectStore> {
        self.shared.log_store.object_store(None)
    }
}

async fn create(log_store: &LogStoreRef, schema: &StructType) -> Result<(), ColdError> {
    let day = deltalake::kernel::StructField::new(DAY, deltalake::kernel::DataType::DATE, true);
    let columns = schema.fields().cloned().chain([day]);
    let made = CreateBuilder::new()
        .with_log_store(Arc::clone(log_store))
        .with_table_name("events")
        .with_columns(columns)
        .with_partition_columns([DAY])
        .with_configuration_property(TableProperty::DataSkippingStatsColumns, Some(stats::COLUMNS.join(",")))
        .await;
    match made {
        Ok(_) => Ok(()),
        // Another process made it in the same moment.
        Err(_) if log_store.is_delta_table_location().await? => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn missing_columns(
    state: &DeltaTableState,
    wanted: &StructType,
) -> Result<Vec<deltalake::kernel::StructField>, ColdError> {
    let held = state.schema();
    let held: HashMap<&str, _> = held.fields().map(|field| (field.name().as_str(), field)).collect();
    let mut missing = Vec::new();
    for field in wanted.fields() {
        match held.get(field.name().as_str()) {
            None => missing.push(field.clone()),
            Some(held) if held.data_type() == field.data_type() => {}
            Some(_) => {
                return Err(ColdError::Foreign {
                    column: field.name().clone(),
                });
            }
        }
    }
    Ok(missing)
}
