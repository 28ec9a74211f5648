//! Filters on the columns of the table as filters on the columns of the files.
//!
//! The result may let more rows through, never fewer: the engine applies the original filter again. Its use is that file
//! statistics, row groups, pages and Bloom filters can be asked.

use datafusion::common::Column;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Between, BinaryExpr, Expr, Operator, lit};
use datafusion::scalar::ScalarValue;

use crate::physical::{Mapping, Stored};

const NANOS_PER_MICRO: i64 = 1000;

/// A filter on stored columns that every row passes which passes `filter`; `None`: nothing can be said.
pub(super) fn to_stored(filter: &Expr, mapping: &Mapping) -> Option<Expr> {
    match filter {
        Expr::BinaryExpr(BinaryExpr {
            left,
            op: Operator::And,
            right,
        }) => match (to_stored(left, mapping), to_stored(right, mapping)) {
            (Some(left), Some(right)) => Some(left.and(right)),
            (one, other) => one.or(other),
        },
        Expr::BinaryExpr(BinaryExpr {
            left,
            op: Operator::Or,
            right,
        }) => Some(to_stored(left, mapping)?.or(to_stored(right, mapping)?)),
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match (nanos_column(left, mapping), nanos(right)) {
            (Some(column), Some(ns)) => compare(column, *op, ns),
            _ => match (nanos(left), nanos_column(right, mapping)) {
                (Some(ns), Some(column)) => compare(column, op.swap()?, ns),
                _ => unchanged(filter, mapping),
            },
        },
        Expr::Between(Between {
            expr,
            negated: false,
            low,
            high,
        }) => match nanos_column(expr, mapping) {
            Some(column) => {
                let above = compare(column, Operator::GtEq, nanos(low)?)?;
                Some(above.and(compare(column, Operator::LtEq, nanos(high)?)?))
            }
            None => unchanged(filter, mapping),
        },
        _ => unchanged(filter, mapping),
    }
}

/// Stored time is floored, so `time < x` allows the whole microsecond that `x` lies in.
fn compare(column: &Column, op: Operator, ns: i64) -> Option<Expr> {
    let micros = ScalarValue::TimestampMicrosecond(Some(ns.div_euclid(NANOS_PER_MICRO)), Some("UTC".into()));
    let column = Expr::Column(Column::new_unqualified(&column.name));
    match op {
        Operator::Eq => Some(column.eq(lit(micros))),
        Operator::Gt | Operator::GtEq => Some(column.gt_eq(lit(micros))),
        Operator::Lt | Operator::LtEq => Some(column.lt_eq(lit(micros))),
        _ => None,
    }
}

fn nanos_column<'a>(expr: &'a Expr, mapping: &Mapping) -> Option<&'a Column> {
    let Expr::Column(column) = expr else {
        return None;
    };
    let index = mapping.logical().index_of(&column.name).ok()?;
    (mapping.stored(index) == Stored::Nanoseconds).then_some(column)
}

fn nanos(expr: &Expr) -> Option<i64> {
    match expr {
        Expr::Literal(ScalarValue::TimestampNanosecond(ns, _), _) => *ns,
        _ => None,
    }
}

/// Filters on columns that are stored as they are.
fn unchanged(filter: &Expr, mapping: &Mapping) -> Option<Expr> {
    if filter.is_volatile() {
        return None;
    }
    let mut same = true;
    let visited = filter.apply(|node| {
        same &= match node {
            Expr::Column(column) => mapping
                .logical()
                .index_of(&column.name)
                .is_ok_and(|index| mapping.stored(index) == Stored::Same),
            Expr::Exists(_) | Expr::InSubquery(_) | Expr::ScalarSubquery(_) | Expr::OuterReferenceColumn(..) => false,
            _ => true,
        };
        Ok(if same {
            TreeNodeRecursion::Continue
        } else {
            TreeNodeRecursion::Stop
        })
    });
    (visited.is_ok() && same).then(|| filter.clone())
}
