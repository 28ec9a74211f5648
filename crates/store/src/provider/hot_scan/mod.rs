//! The part of a scan that hot serves, from memory or from a server.

mod memory;
mod server;
mod sql;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::Result;
use datafusion::logical_expr::Expr;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use sluice_wire::ids::Partition;

use super::Point;
use super::events::Wanted;
use crate::hot::PinnedRows;

/// Plans the scan of what is pinned. `filter` is all of `filters`.
pub(super) fn plan(
    point: &Point,
    wanted: &Wanted<'_>,
    filters: &[Expr],
    filter: Option<&Arc<dyn PhysicalExpr>>,
    partitions: usize,
) -> Result<Arc<dyn ExecutionPlan>> {
    match &point.hot.rows {
        PinnedRows::Memory(chunks) => memory::plan(chunks, &served(point), wanted, filter, partitions),
        PinnedRows::Server { hot, seam } => server::plan(hot, seam, &served(point), wanted, filters),
    }
}

/// First and last offset that hot serves of each partition.
fn served(point: &Point) -> BTreeMap<Partition, (u64, u64)> {
    let of = |(partition, pinned): (&Partition, &super::PinnedPartition)| Some((*partition, pinned.share.hot?));
    point.partitions.iter().filter_map(of).collect()
}

/// The columns that a scan returns.
pub(super) fn project(schema: &SchemaRef, projection: Option<&Vec<usize>>) -> Result<SchemaRef> {
    Ok(match projection {
        Some(columns) => Arc::new(schema.project(columns)?),
        None => Arc::clone(schema),
    })
}
