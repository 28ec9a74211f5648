//! Rows in memory: chunks that cannot match are passed over.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::kernels::cmp::{gt_eq, lt_eq};
use arrow::compute::{and, filter_record_batch};
use datafusion::common::Result;
use datafusion::error::DataFusionError;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::scalar::ScalarValue;

use sluice_wire::ids::Partition;

use super::chunks::ChunksExec;
use crate::erase::Erasures;
use crate::hot::{Chunk, Part};
use crate::provider::events::Wanted;
use crate::provider::inputs;
use crate::provider::prune::{self, Piece};
use crate::rows;

/// A piece of memory and the offsets of it that hot serves.
#[derive(Debug)]
pub(super) struct Served {
    part: Arc<Part>,
    range: (i64, i64),
}

/// A piece with rows that hot serves.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) piece: Served,
    pub(super) rows: RecordBatch,
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
    hidden: &Erasures,
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
    let mut held = Vec::new();
    for (piece, _) in pieces.into_iter().zip(keep).filter(|(_, keep)| *keep) {
        if let Some(rows) = visible(&piece)? {
            held.push(Held { piece, rows });
        }
    }
    // The newest first: a query for the newest rows then learns soon what it need not look at.
    held.sort_by_key(|held| std::cmp::Reverse(held.piece.part.times.1));
    let reads = reads(&held, wanted, hidden);
    let rows: usize = held.iter().map(|held| held.rows.num_rows()).sum();
    let label = format!("hot: {} of {all} chunks, {rows} rows", held.len());
    let groups = deal(held, partitions.max(1));
    Ok(Arc::new(ChunksExec::new(label, reads, groups, wanted)?))
}

/// What tells this scan apart from others.
fn reads(held: &[Held], wanted: &Wanted<'_>, hidden: &Erasures) -> String {
    let oldest = held.iter().map(|held| Some(held.piece.part.oldest_us));
    let mut text = format!("{} {}", wanted.text, inputs::erasures(hidden, wanted.tenant, oldest));
    for Held { piece, .. } in held {
        let (low, high) = piece.part.offsets;
        let (first, last) = (piece.range.0.max(low), piece.range.1.min(high));
        // writing to a String cannot fail
        let _ = write!(text, " {}:{first}-{last}", piece.part.id);
    }
    text
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

/// In turn to each task of the query, so that each keeps their order.
fn deal(held: Vec<Held>, groups: usize) -> Vec<Vec<Held>> {
    let mut dealt: Vec<Vec<Held>> = Vec::new();
    dealt.resize_with(groups.min(held.len()).max(1), Vec::new);
    let count = dealt.len();
    for (at, held) in held.into_iter().enumerate() {
        dealt[at % count].push(held);
    }
    dealt
}
