//! Keeping the cold table tidy: fewer, larger files; and removing files that no version and no query needs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{RecordBatch, new_null_array};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use bytes::Bytes;
use deltalake::DeltaTable;
use deltalake::DeltaTableError;
use deltalake::kernel::transaction::{CommitBuilder, TransactionError};
use deltalake::kernel::{Action, Remove};
use deltalake::operations::vacuum::VacuumMode;
use deltalake::protocol::DeltaOperation;
use object_store::ObjectStoreExt;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use sluice_wire::ids::Partition;

use super::commit::now_ms;
use super::files::{EncodeError, NewFile, encode};
use super::version::{ColdFile, ColdVersion};
use super::{ColdError, ColdTable, CommitError};
use crate::physical::Mapping;

/// A file that no commit names may belong to a writer that is about to commit it, so it stays at least this long; writers give
/// up long before.
const MIN_ORPHAN_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Rows of one merged file: what fits in memory while it is made.
const MAX_MERGED_ROWS: u64 = 512 << 10;

/// What to make of many small files.
#[derive(Clone, Debug)]
pub struct CompactOptions {
    /// Files are merged up to about this size.
    pub target_bytes: u64,
    /// Files read by one call, group after group; the next call goes on.
    pub max_input_bytes: u64,
    /// L by partition: only files wholly at and below it are merged, so that what hot may still serve stays in files that a query
    /// passes over whole. `None`: merge all.
    pub settled: Option<BTreeMap<Partition, u64>>,
}

impl Default for CompactOptions {
    fn default() -> Self {
        // Merging decodes a group in memory, where rows are about ten times as large.
        Self {
            target_bytes: 32 << 20,
            max_input_bytes: 128 << 20,
            settled: None,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompactReport {
    pub files_before: usize,
    pub files_after: usize,
    /// Another process changed the same files first; nothing was done.
    pub lost_race: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VacuumReport {
    pub files_removed: usize,
}

impl ColdTable {
    /// Merges small files of the same day into larger ones. No query sees a difference but for the time it takes.
    pub async fn compact(&self, options: &CompactOptions) -> Result<CompactReport, CommitError> {
        let version = self.refresh().await?;
        let mut report = CompactReport::default();
        let mut budget = options.max_input_bytes;
        for group in choose(&version.files, options) {
            let bytes: u64 = group.iter().map(|file| file.bytes).sum();
            if bytes > budget {
                continue;
            }
            budget -= bytes;
            let files = self.merge(&group).await?;
            let made = files.len();
            if made >= group.len() {
                continue;
            }
            if self.replace(&version, &group, files, options).await? {
                report.files_before += group.len();
                report.files_after += made;
            } else {
                report.lost_race = true;
                break;
            }
        }
        Ok(report)
    }

    /// Removes files that were replaced longer than `retention` ago, which must exceed the query limit, and files that no version
    /// names after a week at least.
    pub async fn vacuum(&self, retention: Duration) -> Result<VacuumReport, ColdError> {
        let mut report = VacuumReport::default();
        let orphans = retention.max(MIN_ORPHAN_AGE);
        for (mode, retention) in [(VacuumMode::Lite, retention), (VacuumMode::Full, orphans)] {
            let mut table = DeltaTable::new(Arc::clone(&self.shared.log_store));
            table.load().await?;
            let retention = chrono::Duration::from_std(retention).unwrap_or(chrono::Duration::MAX);
            let (_, metrics) = table
                .vacuum()
                .with_mode(mode)
                .with_retention_period(retention)
                .with_enforce_retention_duration(false)
                .await?;
            report.files_removed += metrics.files_deleted.len();
        }
        Ok(report)
    }

    async fn merge(&self, group: &[Arc<ColdFile>]) -> Result<Vec<NewFile>, CommitError> {
        let store = self.store();
        let mut inputs = Vec::with_capacity(group.len());
        for file in group {
            inputs.push(store.get(&file.path).await?.bytes().await?);
        }
        let mapping = self.mapping().clone();
        let task = tokio::task::spawn_blocking(move || {
            let mut rows = Vec::new();
            for input in inputs {
                read(&mapping, input, &mut rows)?;
            }
            encode(&mapping, &rows)
        });
        let failed = |error| {
            ColdError::from(DeltaTableError::GenericError {
                source: Box::new(error),
            })
        };
        Ok(task.await.map_err(failed)??)
    }

    async fn replace(
        &self,
        version: &ColdVersion,
        group: &[Arc<ColdFile>],
        files: Vec<NewFile>,
        options: &CompactOptions,
    ) -> Result<bool, CommitError> {
        let adds = self.write(files, false).await?;
        let removes = group.iter().map(|file| Remove {
            path: file.path.to_string(),
            data_change: false,
            deletion_timestamp: Some(now_ms()),
            extended_file_metadata: Some(true),
            size: i64::try_from(file.bytes).ok(),
            partition_values: Some([(crate::physical::DAY.to_owned(), file.day.clone())].into()),
            ..Remove::default()
        });
        let actions = removes
            .map(Action::Remove)
            .chain(adds.into_iter().map(Action::Add))
            .collect();
        let target_size = i64::try_from(options.target_bytes).unwrap_or(i64::MAX);
        let operation = DeltaOperation::Optimize {
            predicate: None,
            target_size,
        };
        let done = CommitBuilder::default()
            .with_actions(actions)
            .build(Some(&version.state), Arc::clone(&self.shared.log_store), operation)
            .await;
        match done {
            Ok(_) => Ok(true),
            Err(DeltaTableError::Transaction {
                source: TransactionError::CommitConflict(error),
            }) => {
                tracing::info!(%error, "compaction gave way to another change");
                Ok(false)
            }
            Err(error) => Err(ColdError::from(error).into()),
        }
    }
}

/// Groups of files worth merging: of one day, all shown or all hidden by `events`, settled, and small.
fn choose(files: &[Arc<ColdFile>], options: &CompactOptions) -> Vec<Vec<Arc<ColdFile>>> {
    let mut classes: BTreeMap<(&Option<String>, bool), Vec<&Arc<ColdFile>>> = BTreeMap::new();
    for file in files
        .iter()
        .filter(|file| file.bytes < options.target_bytes / 2 && is_settled(file, options))
    {
        classes
            .entry((&file.day, file.may_hold_hidden()))
            .or_default()
            .push(file);
    }
    let mut groups = Vec::new();
    for mut class in classes.into_values() {
        class.sort_by_key(|file| (file.modified_ms, file.path.clone()));
        let mut group: Vec<Arc<ColdFile>> = Vec::new();
        let (mut bytes, mut rows) = (0, 0);
        for file in class {
            let file_rows = file.stats.rows.unwrap_or_default();
            if (bytes + file.bytes > options.target_bytes || rows + file_rows > MAX_MERGED_ROWS) && !group.is_empty() {
                groups.push(std::mem::take(&mut group));
                (bytes, rows) = (0, 0);
            }
            (bytes, rows) = (bytes + file.bytes, rows + file_rows);
            group.push(Arc::clone(file));
        }
        groups.push(group);
    }
    groups.retain(|group| group.len() > 1);
    groups
}

fn is_settled(file: &ColdFile, options: &CompactOptions) -> bool {
    let Some(settled) = &options.settled else {
        return true;
    };
    file.offsets.as_ref().is_some_and(|spans| {
        spans.iter().all(|span| {
            let low = Partition::from_i64(span.partition).and_then(|partition| settled.get(&partition));
            low.is_some_and(|low| span.last <= crate::rows::signed(*low))
        })
    })
}

pub(super) fn read(mapping: &Mapping, file: Bytes, rows: &mut Vec<RecordBatch>) -> Result<(), EncodeError> {
    let all: Vec<usize> = (0..mapping.logical().fields().len()).collect();
    for stored in ParquetRecordBatchReaderBuilder::try_new(file)?.build()? {
        let stored = adapt(&stored?, mapping.physical())?;
        rows.push(mapping.to_logical(&all, mapping.logical(), &stored)?);
    }
    Ok(())
}

/// A file of an older version lacks newer columns.
pub(super) fn adapt(stored: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let columns = schema
        .fields()
        .iter()
        .map(|field| match stored.column_by_name(field.name()) {
            Some(column) if column.data_type() == field.data_type() => Ok(Arc::clone(column)),
            Some(column) => arrow::compute::cast(column, field.data_type()),
            None => Ok(new_null_array(field.data_type(), stored.num_rows())),
        });
    RecordBatch::try_new(Arc::clone(schema), columns.collect::<Result<_, _>>()?)
}
