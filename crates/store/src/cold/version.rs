//! One version of the cold table: its files, and up to where it holds each partition.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use deltalake::DeltaTableError;
use deltalake::logstore::LogStore;
use deltalake::table::state::DeltaTableState;
use object_store::path::Path;
use sluice_wire::ids::Partition;

use super::files::OffsetSpan;
use super::stats::FileStats;

/// The tag of a file that holds the offsets of its rows as JSON.
pub(crate) const OFFSETS_TAG: &str = "sluice.offsets";

/// Delta finds a transaction by its application only, so the partitions themselves are counted in two more applications:
/// the highest generation, and for each generation its highest index.
pub(crate) const GENERATIONS_APP: &str = "generations";

pub(crate) fn generation_app(generation: u32) -> String {
    format!("generation/{generation}")
}

/// One version of the table. Cheap to share, never changes.
#[derive(Debug)]
pub(crate) struct ColdVersion {
    pub(crate) number: u64,
    pub(crate) state: DeltaTableState,
    pub(crate) files: Vec<Arc<ColdFile>>,
    /// C: the last offset held of each partition.
    pub(crate) committed: BTreeMap<Partition, u64>,
}

/// A data file of the table.
#[derive(Debug)]
pub(crate) struct ColdFile {
    pub(crate) path: Path,
    pub(crate) bytes: u64,
    pub(crate) modified_ms: i64,
    pub(crate) day: Option<String>,
    pub(crate) stats: FileStats,
    /// Unknown for files of other writers.
    pub(crate) offsets: Option<Vec<OffsetSpan>>,
}

impl ColdFile {
    /// A file of which only that is known which it takes to read it.
    pub(crate) fn bare(path: Path, bytes: u64, modified_ms: i64) -> Self {
        Self {
            path,
            bytes,
            modified_ms,
            day: None,
            stats: FileStats::default(),
            offsets: None,
        }
    }

    /// Whether the file may hold rows that `events` hides.
    pub(crate) fn may_hold_hidden(&self) -> bool {
        let ledger = self
            .stats
            .texts("signal")
            .is_none_or(|(low, high)| low <= "_batch" && "_batch" <= high);
        ledger || !self.stats.all_null("quarantined_by")
    }

    /// Whether the file holds nothing but rows that `events` hides.
    pub(crate) fn only_ledger(&self) -> bool {
        self.stats.texts("signal") == Some(("_batch", "_batch"))
    }
}

impl ColdVersion {
    /// Reads a version from nothing.
    pub(crate) async fn load(
        state: DeltaTableState,
        log_store: &dyn LogStore,
        schema: &SchemaRef,
    ) -> Result<Self, DeltaTableError> {
        let committed = all_committed(&state, log_store).await?;
        Ok(Self {
            number: state.version(),
            files: files(&state, &[], schema),
            state,
            committed,
        })
    }

    /// Reads what came after this version; `state` is the newer one.
    pub(crate) async fn advance(
        &self,
        state: DeltaTableState,
        log_store: &dyn LogStore,
        schema: &SchemaRef,
    ) -> Result<Self, DeltaTableError> {
        let number = state.version();
        let mut committed = self.committed.clone();
        for version in self.number + 1..=number {
            match log_store.read_commit_entry(version).await? {
                Some(bytes) => apply_transactions(&bytes, &mut committed),
                // Cleaned up already: this process slept for weeks.
                None => {
                    committed = all_committed(&state, log_store).await?;
                    break;
                }
            }
        }
        Ok(Self {
            number,
            files: files(&state, &self.files, schema),
            state,
            committed,
        })
    }
}

fn files(state: &DeltaTableState, known: &[Arc<ColdFile>], schema: &SchemaRef) -> Vec<Arc<ColdFile>> {
    let known: HashMap<&Path, &Arc<ColdFile>> = known.iter().map(|file| (&file.path, file)).collect();
    let view = |view: deltalake::kernel::LogicalFileView| {
        let path = view.object_store_path();
        if let Some(file) = known.get(&path) {
            return Arc::clone(file);
        }
        let stats = view
            .stats()
            .map(|text| FileStats::from_json(&text, schema))
            .unwrap_or_default();
        #[expect(deprecated, reason = "the only door to a file's tags")]
        let add = view.add_action();
        let tag = add.tags.as_ref().and_then(|tags| tags.get(OFFSETS_TAG)?.as_deref());
        Arc::new(ColdFile {
            path,
            bytes: u64::try_from(view.size()).unwrap_or_default(),
            modified_ms: view.modification_time(),
            day: add.partition_values.get(crate::physical::DAY).cloned().flatten(),
            stats,
            offsets: tag.and_then(|text| serde_json::from_str(text).ok()),
        })
    };
    state.log_data().iter().map(view).collect()
}

async fn all_committed(
    state: &DeltaTableState,
    log_store: &dyn LogStore,
) -> Result<BTreeMap<Partition, u64>, DeltaTableError> {
    let mut committed = BTreeMap::new();
    let Some(generations) = state.transaction_version(log_store, GENERATIONS_APP).await? else {
        return Ok(committed);
    };
    for generation in 0..=u32::try_from(generations).unwrap_or_default() {
        let Some(highest) = state.transaction_version(log_store, generation_app(generation)).await? else {
            continue;
        };
        for index in 0..=u16::try_from(highest).unwrap_or_default() {
            let partition = Partition { generation, index };
            if let Some(last) = state.transaction_version(log_store, partition.to_string()).await? {
                committed.insert(partition, u64::try_from(last).unwrap_or_default());
            }
        }
    }
    Ok(committed)
}

/// Takes the transactions out of one commit: lines of JSON, one action each.
fn apply_transactions(commit: &[u8], committed: &mut BTreeMap<Partition, u64>) {
    #[derive(serde::Deserialize)]
    struct Line {
        txn: Option<Txn>,
    }
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Txn {
        app_id: String,
        version: i64,
    }
    for line in commit.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let Ok(Line { txn: Some(txn) }) = serde_json::from_slice(line) else {
            continue;
        };
        let partition = txn.app_id.parse().ok().and_then(Partition::from_i64);
        if let Some((partition, last)) = partition.zip(u64::try_from(txn.version).ok()) {
            committed.insert(partition, last);
        }
    }
}
