//! Files for other files, in one version: whoever changed the same files first wins, and whoever only added some does not matter.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use deltalake::kernel::transaction::{CommitBuilder, CommitProperties};
use deltalake::kernel::{Action, Add, Remove};
use deltalake::protocol::{DeltaOperation, SaveMode};
use object_store::path::Path;

use super::begun::Begun;
use super::commit::now_ms;
use super::version::ColdFile;
use super::{ColdError, ColdTable, CommitError};
use crate::physical::DAY;

/// Attempts that fail without anybody else having committed.
const MAX_FAILURES: u32 = 5;
const FIRST_BACKOFF: Duration = Duration::from_millis(100);

/// What files are exchanged for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Why<'a> {
    /// Their rows are others, in words.
    Rows(&'a str),
    /// The same rows in fewer files of about this size.
    Merged(u64),
}

impl Why<'_> {
    fn changes_rows(self) -> bool {
        matches!(self, Self::Rows(_))
    }

    fn operation(self) -> DeltaOperation {
        match self {
            Self::Rows(what) => DeltaOperation::Write {
                mode: SaveMode::Overwrite,
                partition_by: Some(vec![DAY.to_owned()]),
                predicate: Some(what.to_owned()),
            },
            Self::Merged(bytes) => DeltaOperation::Optimize {
                predicate: None,
                target_size: i64::try_from(bytes).unwrap_or(i64::MAX),
            },
        }
    }
}

impl ColdTable {
    /// Makes a version without `gone` and with `adds`. False: somebody else took one of `gone` away first; nothing was done.
    /// `Stale`: the files were begun so long ago that they may be gone.
    pub(super) async fn swap(
        &self,
        gone: &[Arc<ColdFile>],
        adds: &[Add],
        why: Why<'_>,
        begun: Begun,
    ) -> Result<bool, CommitError> {
        let _turn = self.shared.writer.lock().await;
        let mut failures = 0;
        loop {
            let version = self.refresh().await?;
            let held: HashSet<&Path> = version.files.iter().map(|file| &file.path).collect();
            let is_there = |file: &Arc<ColdFile>| held.contains(&file.path);
            // The answer to an attempt may have been lost.
            let are_there = adds.iter().all(|add| held.contains(&Path::from(add.path.as_str())));
            if failures > 0 && are_there && !gone.iter().any(is_there) {
                return Ok(true);
            }
            if !gone.iter().all(is_there) {
                return Ok(false);
            }
            if begun.is_old() {
                return Err(CommitError::Stale);
            }
            let removes = gone.iter().map(|file| {
                Action::Remove(Remove {
                    path: file.path.to_string(),
                    data_change: why.changes_rows(),
                    deletion_timestamp: Some(now_ms()),
                    extended_file_metadata: Some(true),
                    size: i64::try_from(file.bytes).ok(),
                    partition_values: Some([(DAY.to_owned(), file.day.clone())].into()),
                    ..Remove::default()
                })
            });
            let actions = removes.chain(adds.iter().cloned().map(Action::Add)).collect();
            // No retries inside: a retry would skip the look at the version that it lands on.
            let done = CommitBuilder::from(CommitProperties::default().with_max_retries(0))
                .with_actions(actions)
                .build(
                    Some(&version.state),
                    Arc::clone(&self.shared.log_store),
                    why.operation(),
                )
                .await;
            let Err(error) = done else { return Ok(true) };
            if self.refresh().await?.number == version.number {
                failures += 1;
                if failures >= MAX_FAILURES {
                    return Err(ColdError::from(error).into());
                }
                tracing::warn!(version = version.number, failures, %error, "files of cold were not replaced, trying again");
                tokio::time::sleep(FIRST_BACKOFF * 2u32.pow(failures - 1)).await;
            } else {
                failures = failures.max(1);
            }
        }
    }
}
