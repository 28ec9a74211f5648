//! Rows in memory: chunks that cannot match are passed over.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::kernels::cmp::{gt_eq, lt_eq};
use arrow::compute::{and, filter_record_batch};
use datafusion::common::Result;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::DataFusionError;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::scalar::ScalarValue;

use sluice_wire::ids::Partition;

use crate::hot::{Chunk, Part};
use crate::provider::events::Wanted;
use crate::provider::part_exec::PartExec;
use crate::provider::prune::{self, Piece};
use crate::rows;

/// A piece of memory and the offsets of it that hot serves.
struct Served {
    part: Arc<Part>,
    range: (i64, i64),
}

impl Piece for Served {
    fn bounds(&self, column: &str) -> Option<(ScalarValue, ScalarValue)> {
        match column {
            "time" => {
                let scalar = |ns| ScalarValue::TimestampNanosecond(Some(ns), Some("UTC".into()));
                Some((scalar(self.part.times.0), scalar(self.part.times.1)))
            }
            "tenant" => {
                let tenant = ScalarValue::from(self.part.tenant.as_str());
                Some((tenant.clone(), tenant))
            }
            "offset" => Some((
                ScalarValue::from(self.part.offsets.0),
                ScalarValue::from(self.part.offsets.1),
            )),
            _ => None,
        }
    }

    fn nulls(&self, column: &str) -> Option<u64> {
        matches!(column, "time" | "tenant" | "offset").then_some(0)
    }

    fn rows(&self) -> Option<u64> {
        Some(self.part.rows.num_rows() as u64)
    }
}

/// Plans the scan of the pinned chunks.
pub(super) fn plan(
    held: &BTreeMap<Partition, Vec<Arc<Chunk>>>,
    served: &BTreeMap<Partition, (u64, u64)>,
    wanted: &Wanted<'_>,
    filter: Option<&Arc<dyn PhysicalExpr>>,
    partitions: usize,
) -> Result<Arc<dyn ExecutionPlan>> {
    let mut pieces = Vec::new();
    let mut all = 0;
    for (partition, chunks) in held {
        let Some((first, last)) = served.get(partition) else {
            continue;
        };
        let range = (rows::signed(*first), rows::signed(*last));
        for part in chunks.iter().flat_map(|chunk| &chunk.parts) {
            if !wanted.hidden && part.hidden || wanted.tenant.is_some_and(|tenant| tenant != part.tenant) {
                continue;
            }
            all += 1;
            pieces.push(Served {
                part: Arc::clone(part),
                range,
            });
        }
    }
    let keep = prune::keep(&pieces, filter, &wanted.schema)?;
    let mut batches = Vec::new();
    let mut kept = 0;
    for (piece, _) in pieces.iter().zip(keep).filter(|(_, keep)| *keep) {
        kept += 1;
        if let Some(batch) = visible(piece)? {
            batches.push(batch);
        }
    }
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let groups = group(batches, partitions.max(1), rows);
    let source = MemorySourceConfig::try_new(&groups, Arc::clone(&wanted.schema), wanted.projection.cloned())?
        .with_limit(wanted.limit);
    let label = format!("hot: {kept} of {all} chunks, {rows} rows");
    let input = DataSourceExec::from_data_source(source);
    Ok(Arc::new(PartExec::new(
        "HotScan",
        label,
        input,
        None,
        wanted.projected()?,
    )))
}

/// The rows of a piece that hot serves; a chunk may reach below L.
fn visible(piece: &Served) -> Result<Option<RecordBatch>> {
    let (first, last) = piece.range;
    let (low, high) = piece.part.offsets;
    if first <= low && high <= last {
        return Ok(Some(piece.part.rows.clone()));
    }
    if high < first || last < low {
        return Ok(None);
    }
    let rows = &piece.part.rows;
    let offsets = rows::ints(rows, "offset").map_err(|error| DataFusionError::External(Box::new(error)))?;
    let scalar = arrow::array::Int64Array::new_scalar;
    let mask = and(&gt_eq(offsets, &scalar(first))?, &lt_eq(offsets, &scalar(last))?)?;
    Ok(Some(filter_record_batch(rows, &mask)?))
}

/// Neighbouring batches in groups of about equally many rows, one for each task of the query.
fn group(batches: Vec<RecordBatch>, groups: usize, rows: usize) -> Vec<Vec<RecordBatch>> {
    let share = rows.div_ceil(groups).max(1);
    let mut list: Vec<Vec<RecordBatch>> = vec![Vec::new()];
    let mut held = 0;
    for batch in batches {
        if held >= share {
            list.push(Vec::new());
            held = 0;
        }
        held += batch.num_rows();
        if let Some(newest) = list.last_mut() {
            newest.push(batch);
        }
    }
    list
}
