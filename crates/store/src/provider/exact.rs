//! Filters that a scan applies to every row itself, so that the engine need not look again, and limits and aggregates reach the scan.

use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::Expr;

/// Whether a filter is decided by one row of the table alone, each time alike.
pub(super) fn is_exact(filter: &Expr, schema: &SchemaRef) -> bool {
    if filter.is_volatile() {
        return false;
    }
    let mut exact = true;
    let visited = filter.apply(|node| {
        exact &= match node {
            Expr::Column(column) => schema.index_of(&column.name).is_ok(),
            Expr::Exists(_)
            | Expr::InSubquery(_)
            | Expr::ScalarSubquery(_)
            | Expr::SetComparison(_)
            | Expr::OuterReferenceColumn(..)
            | Expr::Placeholder(_) => false,
            _ => true,
        };
        Ok(match exact {
            true => TreeNodeRecursion::Continue,
            false => TreeNodeRecursion::Stop,
        })
    });
    visited.is_ok() && exact
}
