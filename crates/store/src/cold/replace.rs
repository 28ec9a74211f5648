//! Making what the table holds of some offsets again: all files with rows of them leave in the commit that adds the new ones.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use deltalake::kernel::Add;

use super::begun::Begun;
use super::files::{FileWriter, into_adds};
use super::stream::Pieces;
use super::swap::Why;
use super::version::{ColdFile, ColdVersion};
use super::{ColdTable, CommitError};
use crate::rows::{self, OffsetRange, RowsError};

/// Times that others may change the same files before it is given up.
const MAX_RACES: u32 = 10;
/// Files that no commit names are removed after a week; a replacement that takes longer than this begins anew.
const MAX_AGE: Duration = Duration::from_secs(3 * 86_400);

/// Rows made anew, written and not visible yet.
#[derive(Debug)]
pub struct Replacement {
    ranges: Vec<OffsetRange>,
    adds: Vec<Add>,
    rows: u64,
    begun: Begun,
}

/// What a replacement did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplaceReport {
    pub files_before: usize,
    pub files_after: usize,
    /// Of the ranges.
    pub rows: u64,
}

impl Replacement {
    /// For these ranges, which the table holds.
    pub fn new(ranges: Vec<OffsetRange>) -> Self {
        Self {
            ranges,
            adds: Vec::new(),
            rows: 0,
            begun: Begun::now(MAX_AGE),
        }
    }
}

impl ColdTable {
    /// Writes more rows of a replacement; nothing is visible yet.
    pub async fn add_to(&self, replacement: &mut Replacement, rows: Vec<RecordBatch>) -> Result<(), CommitError> {
        let count: usize = rows.iter().map(RecordBatch::num_rows).sum();
        if count == 0 {
            return Ok(());
        }
        let adds = self.written(&replacement.ranges, rows).await?;
        replacement.adds.extend(adds);
        replacement.rows += count as u64;
        Ok(())
    }

    /// Gives a replacement up: nothing of it was visible.
    pub async fn abandon(&self, replacement: Replacement) {
        self.discard(&replacement.adds).await;
    }

    /// Lets the rows of a replacement stand for all that the table holds of its ranges, in one version.
    pub async fn replace_with(&self, replacement: Replacement) -> Result<ReplaceReport, CommitError> {
        let Replacement {
            ranges,
            adds,
            rows,
            begun,
        } = replacement;
        let what = ranges.iter().map(|range| {
            let OffsetRange { partition, first, last } = range;
            format!(
                "partition = {} AND offset BETWEEN {first} AND {last}",
                partition.as_i64()
            )
        });
        let what = what.collect::<Vec<_>>().join(" OR ");
        for _ in 0..MAX_RACES {
            if begun.is_old() {
                break;
            }
            let version = self.refresh().await?;
            check_held(&version, &ranges)?;
            let (gone, mut rest) = (touched(&version, &ranges), Vec::new());
            for file in gone.iter().filter(|file| !is_within(file, &ranges)) {
                match self.without(file, &ranges).await {
                    Ok(left) => rest.extend(left),
                    Err(error) => {
                        self.discard(&rest).await;
                        return Err(error);
                    }
                }
            }
            let all: Vec<Add> = adds.iter().chain(&rest).cloned().collect();
            if self.swap(&gone, &all, Why::Rows(&what), begun).await? {
                return Ok(ReplaceReport {
                    files_before: gone.len(),
                    files_after: all.len(),
                    rows,
                });
            }
            self.discard(&rest).await;
        }
        self.discard(&adds).await;
        Err(CommitError::Stale)
    }

    /// Writes the rows of a file that are outside of the ranges as another file.
    async fn without(&self, file: &Arc<ColdFile>, ranges: &[OffsetRange]) -> Result<Vec<Add>, CommitError> {
        let (file, ranges, making) = (Arc::clone(file), ranges.to_vec(), self.making().clone());
        self.compute(move |door| {
            let mut pieces = Pieces::open(door, &making.mapping, &file, None)?;
            let mut writer = FileWriter::new(door, &making, file.day.clone(), pieces.traced())?;
            while let Some(piece) = pieces.next_stored() {
                let piece = piece?;
                let outside = arrow::compute::not(&is_in(&piece, &ranges)?)?;
                writer.add_stored(&filter_record_batch(&piece, &outside)?)?;
            }
            into_adds(writer.finish()?.into_iter().collect(), true)
        })
        .await
    }
}

fn check_held(version: &ColdVersion, ranges: &[OffsetRange]) -> Result<(), CommitError> {
    for &OffsetRange { partition, first, last } in ranges {
        match version.committed.get(&partition).copied() {
            _ if last < first => return Err(CommitError::BadRange { partition }),
            Some(committed) if last <= committed => {}
            committed => {
                return Err(CommitError::Gap {
                    partition,
                    first: last,
                    committed: committed.unwrap_or(0),
                });
            }
        }
    }
    Ok(())
}

/// The files that may hold rows of the ranges.
fn touched(version: &ColdVersion, ranges: &[OffsetRange]) -> Vec<Arc<ColdFile>> {
    let touches = |file: &&Arc<ColdFile>| {
        let Some(spans) = &file.offsets else { return true };
        spans.iter().any(|span| {
            ranges.iter().any(|range| {
                range.partition.as_i64() == span.partition
                    && rows::signed(range.first) <= span.last
                    && span.first <= rows::signed(range.last)
            })
        })
    };
    version.files.iter().filter(touches).cloned().collect()
}

/// Whether all rows of a file are in the ranges: then nothing of it need be read, not even if it is gone.
fn is_within(file: &ColdFile, ranges: &[OffsetRange]) -> bool {
    file.offsets.as_ref().is_some_and(|spans| {
        spans.iter().all(|span| {
            ranges.iter().any(|range| {
                range.partition.as_i64() == span.partition
                    && rows::signed(range.first) <= span.first
                    && span.last <= rows::signed(range.last)
            })
        })
    })
}

fn is_in(batch: &RecordBatch, ranges: &[OffsetRange]) -> Result<BooleanArray, RowsError> {
    let (partitions, offsets) = (rows::ints(batch, "partition")?, rows::ints(batch, "offset")?);
    let places = partitions.values().iter().zip(offsets.values());
    let mask = places.map(|(partition, offset)| {
        ranges.iter().any(|range| {
            range.partition.as_i64() == *partition
                && (rows::signed(range.first)..=rows::signed(range.last)).contains(offset)
        })
    });
    Ok(mask.collect::<Vec<bool>>().into())
}
