//! The part of a scan that hot serves, from memory or from a server.

mod chunks;
mod memory;
mod partial;
mod pattern;
mod ranges;
mod server;
mod sql;
mod words;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::Result;
use datafusion::logical_expr::Expr;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use sluice_wire::ids::Partition;

pub(super) use self::chunks::ChunksExec;
pub(super) use self::ranges::{Held, Window, in_memory, on_server};
pub(super) use self::server::ServerExec;
use super::Point;
use super::events::Wanted;
use crate::hot::PinnedRows;

/// Plans the scan of what is pinned; and whether it applies all of the filters exactly. `each` are the filters one by one, and `all`
/// is all of them.
pub(super) fn plan(
    point: &Point,
    wanted: &Wanted<'_>,
    filters: &[Expr],
    each: &[Arc<dyn PhysicalExpr>],
    all: Option<&Arc<dyn PhysicalExpr>>,
    partitions: usize,
) -> Result<(Arc<dyn ExecutionPlan>, bool)> {
    match &point.hot.rows {
        PinnedRows::Memory(chunks) => {
            let rows = memory::plan(chunks, &served(point), wanted, &point.hidden, all, partitions)?;
            Ok((rows, false))
        }
        PinnedRows::Server { hot, seam, parts } => {
            let from = server::From {
                hot,
                seam,
                parts,
                served: &served(point),
            };
            server::plan(from, wanted, &point.hidden, filters, each)
        }
    }
}

/// First and last offset that hot serves of each partition.
pub(super) fn served(point: &Point) -> BTreeMap<Partition, (u64, u64)> {
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
