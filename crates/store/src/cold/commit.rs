//! Putting ranges of offsets into the cold table, once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arrow::array::RecordBatch;
use deltalake::kernel::transaction::{CommitBuilder, CommitProperties};
use deltalake::kernel::{Action, Add, Transaction};
use deltalake::protocol::{DeltaOperation, SaveMode};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use sluice_wire::ids::Partition;

use super::begun::Begun;
use super::files::{EncodeError, encode, into_adds};
use super::version::{ColdVersion, GENERATIONS_APP, generation_app};
use super::{ColdError, ColdTable};
use crate::physical::DAY;
use crate::rows::{self, OffsetRange};

/// Attempts that fail without anybody else having committed.
const MAX_FAILURES: u32 = 5;
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
/// The janitor removes files that no commit names only after days; a writer that slept longer than this between writing files
/// and committing them starts again rather than name files that may be gone.
pub(super) const MAX_STAGED_AGE: Duration = Duration::from_secs(3600);

/// Why a commit was refused or did not succeed. After `Overlap` and `Gap` cut again from [`ColdTable::committed`].
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    #[error("partition {partition}: the range begins at {first}, but the table already holds up to {committed}")]
    Overlap {
        partition: Partition,
        first: u64,
        committed: u64,
    },
    #[error("partition {partition}: the range begins at {first}, but the table ends at {committed}")]
    Gap {
        partition: Partition,
        first: u64,
        committed: u64,
    },
    #[error("partition {partition}: no range, an empty one, or more than one")]
    BadRange { partition: Partition },
    #[error("the rows cannot be stored")]
    Encode(#[from] EncodeError),
    #[error("the table cannot be read or written")]
    Cold(#[from] ColdError),
    #[error("the writer slept for too long before it committed; commit again")]
    Stale,
}

impl From<object_store::Error> for CommitError {
    fn from(error: object_store::Error) -> Self {
        Self::Cold(error.into())
    }
}

/// Files that are written and durable, but that no version names yet: nobody sees their rows.
#[derive(Debug)]
pub(super) struct Staged {
    pub(super) adds: Vec<Add>,
    rows: usize,
    begun: Begun,
}

/// What a failed commit left, for the next attempt at the same ranges.
#[derive(Debug)]
pub(super) struct Unnamed {
    ranges: Vec<OffsetRange>,
    staged: Staged,
}

impl ColdTable {
    /// Adds the rows of some ranges, all or none, durably. Each range must begin where the table ends; a partition that the table
    /// does not know yet may begin anywhere. Returns the version that holds them.
    ///
    /// What ranges hold is a function of the log, so an attempt that failed leaves its files to the next one at the same ranges.
    pub async fn commit(&self, ranges: &[OffsetRange], rows: Vec<RecordBatch>) -> Result<i64, CommitError> {
        check_ranges(ranges)?;
        let mut left = self.shared.writer.lock().await;
        let version = self.refresh().await?;
        check_continues(&version.committed, ranges)?;
        let count: usize = rows.iter().map(RecordBatch::num_rows).sum();
        let staged = match left.take() {
            Some(Unnamed { ranges: of, staged }) if of == ranges && staged.rows == count && !staged.begun.is_old() => {
                staged
            }
            _ => self.stage(ranges, rows).await?,
        };
        let done = self.name(version, &staged, ranges).await;
        match &done {
            // Another writer has the next version, so no answer that is still on its way can name these files any more.
            Err(CommitError::Overlap { .. } | CommitError::Gap { .. }) => self.discard(&staged.adds).await,
            Ok(_) | Err(CommitError::Stale) => {}
            Err(_) => {
                *left = Some(Unnamed {
                    ranges: ranges.to_vec(),
                    staged,
                });
            }
        }
        done
    }

    /// Makes a version that names the files.
    async fn name(
        &self,
        mut version: Arc<ColdVersion>,
        staged: &Staged,
        ranges: &[OffsetRange],
    ) -> Result<i64, CommitError> {
        let mut failures = 0;
        loop {
            if staged.begun.is_old() {
                return Err(CommitError::Stale);
            }
            let failure = match self.try_commit(&version, staged, ranges).await {
                Ok(number) => return Ok(i64::try_from(number).unwrap_or(i64::MAX)),
                Err(error) => error,
            };
            // Lost the race, or the answer was lost: only the table knows.
            let before = version.number;
            version = self.refresh().await?;
            if is_held(&version.committed, ranges) {
                return Ok(i64::try_from(version.number).unwrap_or(i64::MAX));
            }
            check_continues(&version.committed, ranges)?;
            if version.number == before {
                failures += 1;
                if failures >= MAX_FAILURES {
                    return Err(failure.into());
                }
                tracing::warn!(version = before, failures, error = %failure, "cold commit failed, trying again");
                tokio::time::sleep(FIRST_BACKOFF * 2u32.pow(failures - 1)).await;
            }
        }
    }

    /// Writes the files; nothing is visible yet.
    pub(super) async fn stage(&self, ranges: &[OffsetRange], rows: Vec<RecordBatch>) -> Result<Staged, CommitError> {
        let begun = Begun::now(MAX_STAGED_AGE);
        let count = rows.iter().map(RecordBatch::num_rows).sum();
        Ok(Staged {
            adds: self.written(ranges, rows).await?,
            rows: count,
            begun,
        })
    }

    /// Files with these rows, which are of the ranges.
    pub(super) async fn written(
        &self,
        ranges: &[OffsetRange],
        rows: Vec<RecordBatch>,
    ) -> Result<Vec<Add>, CommitError> {
        let (making, ranges) = (self.making().clone(), ranges.to_vec());
        self.compute(move |door| {
            rows.iter().try_for_each(|batch| rows::check(batch, &ranges))?;
            into_adds(encode(door, &making, &rows)?, true)
        })
        .await
    }

    /// Removes files that no version names and none ever will; what stays, the janitor removes after days.
    pub(super) async fn discard(&self, adds: &[Add]) {
        let store = self.store();
        for add in adds {
            if let Err(error) = store.delete(&Path::from(add.path.as_str())).await {
                tracing::debug!(path = add.path, %error, "a file that no version names stays");
            }
        }
    }

    async fn try_commit(
        &self,
        base: &Arc<ColdVersion>,
        staged: &Staged,
        ranges: &[OffsetRange],
    ) -> Result<u64, ColdError> {
        let actions = staged.adds.iter().cloned().map(Action::Add).collect();
        // No retries inside: a retry would skip the precondition on the version that it lands on.
        let properties = CommitProperties::default()
            .with_max_retries(0)
            .with_application_transactions(transactions(&base.committed, ranges));
        let operation = DeltaOperation::Write {
            mode: SaveMode::Append,
            partition_by: Some(vec![DAY.to_owned()]),
            predicate: None,
        };
        let done = CommitBuilder::from(properties)
            .with_actions(actions)
            .build(Some(&base.state), Arc::clone(&self.shared.log_store), operation)
            .await?;
        Ok(done.version())
    }
}

fn transactions(committed: &BTreeMap<Partition, u64>, ranges: &[OffsetRange]) -> Vec<Transaction> {
    let txn = |app: String, version: i64| Transaction::new_with_last_update(app, version, Some(now_ms()));
    let mut list: Vec<Transaction> = ranges
        .iter()
        .map(|range| txn(range.partition.to_string(), rows::signed(range.last)))
        .collect();
    if ranges.iter().any(|range| !committed.contains_key(&range.partition)) {
        let mut highest: BTreeMap<u32, u16> = BTreeMap::new();
        for partition in committed
            .keys()
            .copied()
            .chain(ranges.iter().map(|range| range.partition))
        {
            let index = highest.entry(partition.generation).or_default();
            *index = partition.index.max(*index);
        }
        if let Some(generation) = highest.keys().next_back() {
            list.push(txn(GENERATIONS_APP.to_owned(), i64::from(*generation)));
        }
        list.extend(
            highest
                .into_iter()
                .map(|(generation, index)| txn(generation_app(generation), i64::from(index))),
        );
    }
    list
}

fn check_ranges(ranges: &[OffsetRange]) -> Result<(), CommitError> {
    let mut seen = BTreeSet::new();
    for range in ranges {
        if range.last < range.first || !seen.insert(range.partition) {
            return Err(CommitError::BadRange {
                partition: range.partition,
            });
        }
    }
    if ranges.is_empty() {
        Err(CommitError::BadRange {
            partition: Partition::default(),
        })
    } else {
        Ok(())
    }
}

fn check_continues(committed: &BTreeMap<Partition, u64>, ranges: &[OffsetRange]) -> Result<(), CommitError> {
    for &OffsetRange { partition, first, .. } in ranges {
        match committed.get(&partition).copied() {
            Some(committed) if first <= committed => {
                return Err(CommitError::Overlap {
                    partition,
                    first,
                    committed,
                });
            }
            Some(committed) if first > committed + 1 => {
                return Err(CommitError::Gap {
                    partition,
                    first,
                    committed,
                });
            }
            _ => {}
        }
    }
    Ok(())
}

fn is_held(committed: &BTreeMap<Partition, u64>, ranges: &[OffsetRange]) -> bool {
    ranges
        .iter()
        .all(|range| committed.get(&range.partition).is_some_and(|held| *held >= range.last))
}

pub(super) fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |age| age.as_millis() as i64)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;

    use sluice_wire::counts::Counts;
    use sluice_wire::events::{Origin, Outcome, ledger_row};
    use sluice_wire::ids::{BatchId, Epoch, NodeId, StreamId, TenantId};

    use super::*;

    const P: Partition = Partition {
        generation: 0,
        index: 1,
    };

    fn rows(offset: u64) -> Vec<RecordBatch> {
        let stream = StreamId {
            tenant: TenantId::new("t").unwrap(),
            node: NodeId::new("n").unwrap(),
            spool: [0; 16],
        };
        let id = BatchId {
            stream,
            epoch: Epoch { number: 1, random: 1 },
            seq: offset,
        };
        let origin = Origin {
            id: &id,
            partition: P,
            offset,
            ingested_at_us: 1_700_000_000_000_000,
        };
        vec![ledger_row(&origin, Outcome::Accepted, &Counts::default(), "")]
    }

    fn one(offset: u64) -> [OffsetRange; 1] {
        [OffsetRange {
            partition: P,
            first: offset,
            last: offset,
        }]
    }

    /// A crash between writing files and naming them leaves no row; the same range is stored by whoever comes next (P2).
    #[tokio::test]
    async fn p2_files_without_a_commit_are_no_rows() {
        let folder = tempfile::tempdir().unwrap();
        let location = folder.path().to_str().unwrap();
        let staged = ColdTable::open(location)
            .await
            .unwrap()
            .stage(&one(0), rows(0))
            .await
            .unwrap();
        assert!(folder.path().join(&staged.adds[0].path).exists());
        let table = ColdTable::open(location).await.unwrap();
        let version = table.refresh().await.unwrap();
        assert!(version.committed.is_empty() && version.files.is_empty());
        table.commit(&one(0), rows(0)).await.unwrap();
        let version = table.refresh().await.unwrap();
        assert_eq!(
            (version.files.len(), &version.committed),
            (1, &BTreeMap::from([(P, 0)]))
        );
    }

    fn parquet_files(folder: &std::path::Path) -> usize {
        let inner = |path: &std::path::Path| std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
        let days = inner(folder).filter(|path| path.is_dir() && !path.ends_with("_delta_log"));
        let files = days.flat_map(|day| inner(&day).collect::<Vec<_>>());
        files
            .filter(|path| path.extension().is_some_and(|e| e == "parquet"))
            .count()
    }

    /// A commit that could not be made leaves its files to the next attempt.
    #[tokio::test]
    async fn the_files_of_a_failed_commit_are_used_by_the_next_attempt() {
        let folder = tempfile::tempdir().unwrap();
        let table = ColdTable::open(folder.path().to_str().unwrap()).await.unwrap();
        table.commit(&one(0), rows(0)).await.unwrap();
        // Something stands where the next version should.
        let number = table.version().await.unwrap() + 1;
        let obstacle = folder.path().join(format!("_delta_log/{number:020}.json"));
        std::fs::create_dir(&obstacle).unwrap();
        for _ in 0..2 {
            let failed = table.commit(&one(1), rows(1)).await;
            assert!(matches!(failed, Err(CommitError::Cold(_))), "{failed:?}");
            assert_eq!(parquet_files(folder.path()), 2);
        }
        std::fs::remove_dir(&obstacle).unwrap();
        table.commit(&one(1), rows(1)).await.unwrap();
        let version = table.refresh().await.unwrap();
        assert_eq!((version.files.len(), parquet_files(folder.path())), (2, 2));
    }

    /// The commit is refused when the version it is based on is no longer the newest, even by a change that has nothing to do
    /// with it: the precondition was checked on the older one.
    #[tokio::test]
    async fn p2_a_commit_lands_only_on_the_version_it_was_checked_on() {
        let folder = tempfile::tempdir().unwrap();
        let table = ColdTable::open(folder.path().to_str().unwrap()).await.unwrap();
        let base = table.refresh().await.unwrap();
        let staged = table.stage(&one(0), rows(0)).await.unwrap();
        table.commit(&one(0), rows(0)).await.unwrap();
        assert!(table.try_commit(&base, &staged, &one(0)).await.is_err());
        // What a writer does that got no answer for a commit that succeeded: look, and find it there.
        let version = table.refresh().await.unwrap();
        assert!(is_held(&version.committed, &one(0)) && version.files.len() == 1);
    }
}
