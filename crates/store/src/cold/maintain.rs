//! Keeping the cold table tidy: fewer, larger files; and removing files that no version and no query needs.
//!
//! Files are sorted, so they are merged as they are read: what that takes in memory does not depend on their sizes or their number.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use deltalake::DeltaTable;
use deltalake::kernel::Add;
use deltalake::operations::vacuum::VacuumMode;
use object_store::path::Path;
use sluice_wire::ids::Partition;

use super::begun::Begun;
use super::commit::MAX_STAGED_AGE;
use super::door::Door;
use super::files::{EncodeError, FileWriter, Making, into_adds};
use super::merge::Merge;
use super::stream::Pieces;
use super::swap::Why;
use super::version::ColdFile;
use super::{ColdError, ColdTable, CommitError};
use crate::durable;

/// A file that no commit names may belong to a writer that is about to commit it, so it stays at least this long; writers give
/// up long before.
const MIN_ORPHAN_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Bytes of memory of the files that are read at once, about; of more files the rest is merged by the next call. Two are read at least.
const MERGE_BYTES: u64 = 96 << 20;

/// Files of a group that may turn out to be unreadable.
const MAX_UNREADABLE: usize = 2;

/// What to make of many small files.
#[derive(Clone, Debug)]
pub struct CompactOptions {
    /// Files are merged up to about this size.
    pub target_bytes: u64,
    /// Files read by one call, group after group, but the first one in any case; the next call goes on.
    pub max_input_bytes: u64,
    /// L by partition: only files wholly at and below it are merged, so that what hot may still serve stays in files that a query
    /// passes over whole. `None`: merge all.
    pub settled: Option<BTreeMap<Partition, u64>>,
}

impl Default for CompactOptions {
    fn default() -> Self {
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
    /// Merges small files of the same day into larger ones. No query sees a difference but for the time it takes. What failed is said when
    /// there is nothing else to merge: a file that cannot be read keeps no other one small.
    pub async fn compact(&self, options: &CompactOptions) -> Result<CompactReport, CommitError> {
        let version = self.refresh().await?;
        let mut report = CompactReport::default();
        let mut merged_bytes = 0;
        self.unsorted()
            .retain(|path| version.files.iter().any(|file| file.path == *path));
        let max_rows = self.making().sizes.file_rows as u64;
        let groups = choose(&version.files, &self.unsorted(), max_rows, options);
        let mut failed = None;
        for mut group in groups {
            let bytes: u64 = group.iter().map(|file| file.bytes).sum();
            if merged_bytes > 0 && merged_bytes + bytes > options.max_input_bytes {
                continue;
            }
            let begun = Begun::now(MAX_STAGED_AGE);
            let adds = match self.merge(&mut group, &mut failed).await {
                Ok(Some(adds)) => adds,
                Ok(None) => continue,
                Err(error) => {
                    failed.get_or_insert(error);
                    continue;
                }
            };
            merged_bytes += bytes;
            if adds.len() >= group.len() {
                self.discard(&adds).await;
                continue;
            }
            if self
                .swap(&group, &adds, Why::Merged(options.target_bytes), begun)
                .await?
            {
                report.files_before += group.len();
                report.files_after += adds.len();
            } else {
                self.discard(&adds).await;
                report.lost_race = true;
                break;
            }
        }
        match failed {
            Some(error) if report.files_before == 0 => Err(error),
            _ => Ok(report),
        }
    }

    /// Removes files that were replaced longer than `retention` ago, which must exceed the query limit, and files that no version
    /// names, or that were not finished, after a week at least.
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
        if !self.shared.is_remote {
            report.files_removed += durable::sweep(self.shared.log_store.root_url(), orphans).await?;
        }
        Ok(report)
    }

    /// Merges the first files of a group, as many as may be read at once, and leaves the others out of it. `None`: there are no two.
    async fn merge(
        &self,
        group: &mut Vec<Arc<ColdFile>>,
        failed: &mut Option<CommitError>,
    ) -> Result<Option<Vec<Add>>, CommitError> {
        let mut unreadable = 0;
        while group.len() > 1 {
            let (files, making) = (group.clone(), self.making().clone());
            let merged = self.compute(move |door| merge(door, &making, &files));
            match merged.await {
                Ok((adds, merged)) => {
                    group.truncate(merged);
                    return Ok(Some(adds));
                }
                Err(CommitError::Encode(EncodeError::Unsorted { input })) if input < group.len() => {
                    let file = group.remove(input);
                    tracing::info!(path = %file.path, "a file of another program is in another order and is not merged");
                    self.unsorted().insert(file.path.clone());
                }
                // More of them are no broken files, but a store that is away.
                Err(CommitError::Encode(EncodeError::Unreadable { input, source }))
                    if input < group.len() && unreadable < MAX_UNREADABLE =>
                {
                    let file = group.remove(input);
                    tracing::warn!(path = %file.path, error = %source, "a file cannot be read and is not merged");
                    failed.get_or_insert(EncodeError::Unreadable { input, source }.into());
                    unreadable += 1;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    fn unsorted(&self) -> MutexGuard<'_, HashSet<Path>> {
        self.shared.unsorted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Merges sorted files into new ones of the same day; says how many of them.
fn merge(door: &Door, making: &Making, files: &[Arc<ColdFile>]) -> Result<(Vec<Add>, usize), EncodeError> {
    let (mut inputs, mut bytes, mut traced) = (Vec::new(), 0, 0);
    let unreadable = |input: usize| {
        move |error| EncodeError::Unreadable {
            input,
            source: Box::new(error),
        }
    };
    for (input, file) in files.iter().enumerate() {
        let pieces = Pieces::open(door, &making.mapping, file, None).map_err(unreadable(input))?;
        bytes = pieces.cost().saturating_add(bytes);
        if inputs.len() > 1 && bytes > MERGE_BYTES {
            break;
        }
        traced += pieces.traced();
        inputs.push(pieces);
    }
    let merged = inputs.len();
    let day = files.first().and_then(|file| file.day.clone());
    let inputs = inputs.into_iter().enumerate();
    let inputs = inputs.map(|(input, mut pieces)| move || Some(pieces.next_stored()?.map_err(unreadable(input))));
    let mut merge = Merge::new(inputs.collect())?;
    let max_rows = making.sizes.file_rows;
    let mut made = Vec::new();
    while let Some(mut rows) = merge.next(max_rows)? {
        let mut writer = FileWriter::new(door, making, day.clone(), traced)?;
        let mut count = 0;
        loop {
            count += rows.num_rows();
            writer.add_stored(&rows)?;
            match merge.next(max_rows - count)? {
                Some(next) => rows = next,
                None => break,
            }
        }
        made.extend(writer.finish()?);
    }
    Ok((into_adds(made, false)?, merged))
}

/// Groups of files worth merging: of one day, all shown or all hidden by `events`, settled, and small.
fn choose(
    files: &[Arc<ColdFile>],
    unsorted: &HashSet<Path>,
    max_rows: u64,
    options: &CompactOptions,
) -> Vec<Vec<Arc<ColdFile>>> {
    let mut classes: BTreeMap<(&Option<String>, bool), Vec<&Arc<ColdFile>>> = BTreeMap::new();
    let is_small = |file: &&Arc<ColdFile>| file.bytes < options.target_bytes / 2 && !unsorted.contains(&file.path);
    for file in files.iter().filter(|file| is_small(file) && is_settled(file, options)) {
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
            if (bytes + file.bytes > options.target_bytes || rows + file_rows > max_rows) && !group.is_empty() {
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
