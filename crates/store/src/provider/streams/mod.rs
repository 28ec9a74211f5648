//! The tables `streams` and `plugins`: how far every edge is and what it runs, as its batches and reports in the ledger say.
//!
//! The ledger only grows, so what was folded of it stays folded: a query adds the offsets that came since the last one. A step reads
//! a bounded number of offsets and is kept when it is done, so a query that is cut off loses one step only.

mod fold;
mod plugins;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Expr, TableType, ident, lit};
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::TryStreamExt;
use sluice_wire::ids::Partition;
use tokio::sync::{Mutex, MutexGuard};

use self::fold::Fold;
use super::events::EventsProvider;
use super::{Point, Scope};
use crate::rows::{self, LEDGER, OffsetRange, RowsError};

/// Offsets of one partition that one step reads.
const STEP_OFFSETS: u64 = 16_384;

/// What was folded so far. All pins of one [`super::Tables`] share it.
#[derive(Debug, Default)]
pub(super) struct Streams {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// The first offset that is not folded.
    next: BTreeMap<Partition, u64>,
    fold: Fold,
}

impl Streams {
    /// The fold, with everything that is visible at a point of the log; it may be ahead of it.
    async fn upto(&self, point: &Arc<Point>, session: &dyn Session) -> Result<MutexGuard<'_, Kept>> {
        let mut kept = self.kept.lock().await;
        loop {
            let step = step(&kept.next, point);
            if step.is_empty() {
                return Ok(kept);
            }
            let more = read(point, session, &step).await?;
            kept.fold.merge(more);
            kept.next
                .extend(step.iter().map(|range| (range.partition, range.last + 1)));
        }
    }
}

/// What to read next of each partition.
fn step(next: &BTreeMap<Partition, u64>, point: &Point) -> Vec<OffsetRange> {
    let of = |(partition, visible): (Partition, u64)| {
        let first = match next.get(&partition) {
            Some(next) => *next,
            None => first_held(point, partition),
        };
        let last = visible.min(first.saturating_add(STEP_OFFSETS - 1));
        (first <= last).then_some(OffsetRange { partition, first, last })
    };
    point
        .partitions
        .iter()
        .filter_map(|(partition, pinned)| of((*partition, pinned.share.visible?)))
        .collect()
}

/// The first offset that any store holds; the log may have begun anywhere.
fn first_held(point: &Point, partition: Partition) -> u64 {
    let number = partition.as_i64();
    let mut first = point.hot.first(partition).unwrap_or(u64::MAX);
    for file in &point.cold.files {
        let spans = file.offsets.as_deref().unwrap_or_default();
        for span in spans.iter().filter(|span| span.partition == number) {
            first = first.min(u64::try_from(span.first).unwrap_or_default());
        }
        if file.offsets.is_none() {
            return 0;
        }
    }
    first
}

async fn read(point: &Arc<Point>, session: &dyn Session, step: &[OffsetRange]) -> Result<Fold> {
    let ranges: BTreeMap<i64, (i64, i64)> = step
        .iter()
        .map(|range| {
            (
                range.partition.as_i64(),
                (rows::signed(range.first), rows::signed(range.last)),
            )
        })
        .collect();
    let places = ranges
        .iter()
        .map(|(partition, (first, last))| {
            let place = ident("partition").eq(lit(*partition));
            place.and(ident("offset").between(lit(*first), lit(*last)))
        })
        .reduce(Expr::or);
    let filters: Vec<Expr> = [ident("signal").eq(lit(LEDGER))].into_iter().chain(places).collect();
    let table = EventsProvider::new(Arc::clone(point), Scope::All, true);
    let schema = table.schema();
    let columns: Vec<usize> = fold::COLUMNS
        .iter()
        .chain(&["signal"])
        .map(|name| schema.index_of(name))
        .collect::<std::result::Result<_, _>>()?;
    let plan = table.scan(session, Some(&columns), &filters, None).await?;
    let mut batches = execute_stream(plan, session.task_ctx())?;
    let mut fold = Fold::default();
    while let Some(batch) = batches.try_next().await? {
        let signals = rows::texts(&batch, "signal").map_err(failed)?;
        // The scan may let other rows through.
        let ledger = arrow::compute::kernels::cmp::eq(signals, &arrow::array::StringArray::new_scalar(LEDGER))?;
        let batch = arrow::compute::filter_record_batch(&batch, &ledger)?;
        let wanted = |partition: i64, offset: i64| {
            ranges
                .get(&partition)
                .is_some_and(|(first, last)| (first..=last).contains(&&offset))
        };
        fold.take(&batch, wanted).map_err(failed)?;
    }
    Ok(fold)
}

fn failed(error: RowsError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// Which of the two tables.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shown {
    Streams,
    Plugins,
}

/// One of the tables for one scope.
pub(super) struct FoldTable {
    shown: Shown,
    point: Arc<Point>,
    scope: Scope,
    streams: Arc<Streams>,
    schema: SchemaRef,
}

impl FoldTable {
    pub(super) fn new(shown: Shown, point: Arc<Point>, scope: Scope, streams: Arc<Streams>) -> Self {
        let schema = match shown {
            Shown::Streams => fold::schema(),
            Shown::Plugins => plugins::schema(),
        };
        Self {
            shown,
            point,
            scope,
            streams,
            schema,
        }
    }
}

impl std::fmt::Debug for FoldTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FoldTable")
            .field("shown", &self.shown)
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl TableProvider for FoldTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let now_us = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |age| age.as_micros() as i64);
        let kept = self.streams.upto(&self.point, state).await?;
        let rows = match self.shown {
            Shown::Streams => kept.fold.rows(self.scope.tenant(), now_us),
            Shown::Plugins => plugins::rows(&kept.fold, self.scope.tenant()),
        };
        drop(kept);
        let plan =
            MemorySourceConfig::try_new_exec(&[vec![rows.map_err(failed)?]], self.schema(), projection.cloned())?;
        Ok(plan)
    }
}
