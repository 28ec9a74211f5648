//! Where rows are taken from: the log, planned as the writers plan it, or cold.

use std::sync::Arc;

use arrow::array::RecordBatch;
use sluice_store::{Erasures, OffsetRange, Stores};
use sluice_wire::ids::Partition;
use sluice_wire::layout::IpcLimits;

use super::ReplayError;
use crate::log::{Log, LogError, LogRecord, is_passed_over};
use crate::writer::{Piece, Planner, READ_BYTES, Snapshots, base, fold, plan_all};

/// Which of the two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    #[default]
    Log,
    /// For hot alone.
    Cold,
}

/// Rows of consecutive offsets, one piece after the other.
pub(super) enum Rows<'a> {
    Log {
        log: Arc<dyn Log>,
        /// Stands at the next offset; absent only while a piece is planned.
        planner: Option<Box<Planner>>,
        /// Read, and not planned yet.
        left: Vec<LogRecord>,
        erased: Erasures,
        range: OffsetRange,
    },
    Cold {
        stores: &'a Stores,
        /// What cold is not rid of yet.
        erased: Erasures,
        step: u64,
        next: u64,
        range: OffsetRange,
    },
}

impl<'a> Rows<'a> {
    /// Folds the log up to where the range begins.
    pub(super) async fn of_log(
        log: &Arc<dyn Log>,
        snapshots: &Snapshots,
        erased: Erasures,
        range: OffsetRange,
        to_hot: bool,
    ) -> Result<Rows<'a>, ReplayError> {
        let OffsetRange { partition, first, last } = range;
        let Some(base) = base(log, snapshots, partition).await? else {
            return Err(ReplayError::NoBase { partition });
        };
        if base.next() > first {
            return Err(ReplayError::TooOld {
                partition,
                wanted: first,
                possible: base.next(),
                to_hot,
            });
        }
        let mut planner = Planner::new(base, IpcLimits::default());
        while planner.next() < first {
            let records = read(log, partition, planner.next(), last).await?;
            fold(&mut planner, records, first).await?;
        }
        Ok(Rows::Log {
            log: Arc::clone(log),
            planner: Some(Box::new(planner)),
            left: Vec::new(),
            erased,
            range,
        })
    }

    pub(super) async fn of_cold(
        stores: &'a Stores,
        erased: Erasures,
        range: OffsetRange,
    ) -> Result<Rows<'a>, ReplayError> {
        Ok(Rows::Cold {
            stores,
            erased,
            step: stores.step_of_cold().await?,
            next: range.first,
            range,
        })
    }

    /// The next rows with the offsets that they are all rows of; `None` when the range is through.
    pub(super) async fn next(&mut self) -> Result<Option<(OffsetRange, Vec<RecordBatch>)>, ReplayError> {
        match self {
            Rows::Log {
                log,
                planner,
                left,
                erased,
                range,
            } => {
                let Some(held) = planner.take() else {
                    return Ok(None);
                };
                let (partition, first) = (range.partition, held.next());
                if first > range.last {
                    return Ok(None);
                }
                let mut records = std::mem::take(left);
                if records.is_empty() {
                    records = read(log, partition, first, range.last).await?;
                    records.retain(|record| record.offset <= range.last);
                }
                let Piece {
                    planner: moved,
                    rows,
                    last,
                    rest,
                    ..
                } = plan_all(*held, records).await?;
                *planner = Some(Box::new(moved));
                *left = rest;
                let rows = erased.apply(rows)?;
                Ok(Some((OffsetRange { partition, first, last }, rows)))
            }
            Rows::Cold {
                stores,
                erased,
                step,
                next,
                range,
            } => {
                let (partition, first) = (range.partition, *next);
                if first > range.last {
                    return Ok(None);
                }
                let last = first.saturating_add(*step - 1).min(range.last);
                let piece = OffsetRange { partition, first, last };
                let rows = erased.apply(stores.whole_rows_of_cold(piece).await?)?;
                *next = last + 1;
                Ok(Some((piece, rows)))
            }
        }
    }
}

/// Records that are all intact: one that was damaged since the writers took it in must not take the place of its rows, and what comes
/// behind it could be taken for new.
async fn read(log: &Arc<dyn Log>, partition: Partition, from: u64, last: u64) -> Result<Vec<LogRecord>, ReplayError> {
    for _ in 0..READ_ATTEMPTS {
        let records = log.read(partition, from, READ_BYTES).await?;
        let hurt = |record: &&LogRecord| record.offset <= last && record.damaged.is_some() && !is_passed_over(record);
        if let Some(record) = records.iter().find(hurt) {
            return Err(ReplayError::Damaged {
                partition,
                offset: record.offset,
                why: record.damaged.clone().unwrap_or_default(),
            });
        }
        if !records.is_empty() {
            return Ok(records);
        }
    }
    Err(ReplayError::Log(LogError::Retry {
        reason: format!("offset {from} of partition {partition} does not come"),
    }))
}

/// Of reads that each wait for seconds.
const READ_ATTEMPTS: u32 = 10;
