//! Filters that a scan applies to every row itself, so that the engine need not look again and a limit reaches the scan.

use arrow::datatypes::SchemaRef;
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::{Between, BinaryExpr, Expr, Operator};

/// Whether a filter compares plain columns with constants and nothing else.
pub(super) fn is_plain(filter: &Expr, schema: &SchemaRef) -> bool {
    let column = |expr: &Expr| match expr {
        Expr::Column(column) => schema
            .field_with_name(&column.name)
            .is_ok_and(|field| !field.data_type().is_nested()),
        _ => false,
    };
    let constant = |expr: &Expr| matches!(expr, Expr::Literal(..));
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match op {
            Operator::And | Operator::Or => is_plain(left, schema) && is_plain(right, schema),
            Operator::Eq | Operator::NotEq | Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq => {
                column(left) && constant(right) || constant(left) && column(right)
            }
            _ => false,
        },
        Expr::Between(Between { expr, low, high, .. }) => column(expr) && constant(low) && constant(high),
        Expr::InList(InList { expr, list, .. }) => column(expr) && list.iter().all(constant),
        Expr::IsNull(expr) | Expr::IsNotNull(expr) => column(expr),
        _ => false,
    }
}
