//! What filters say of `time`: from when on, and before when.

use std::sync::Arc;

use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Between, BinaryExpr, Expr, Operator};

use super::ranges::TimeRange;

/// Other writers of Delta tables cut the bounds of a file to milliseconds.
const LAST_OF_MILLI: i64 = 999_999;

/// The bounds that a filter sets to `time`, in nanoseconds since 1970; it says nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeBounds {
    /// As the filter spells it.
    pub column: Column,
    pub zone: Option<Arc<str>>,
    pub from: Option<i64>,
    /// The first moment that does not pass.
    pub to: Option<i64>,
}

impl TimeBounds {
    /// `None`: it does not bound the time, or does more.
    pub fn of(filter: &Expr) -> Option<TimeBounds> {
        let time = |expr: &Expr| match expr {
            Expr::Column(column) if column.name == "time" => Some(column.clone()),
            _ => None,
        };
        let moment = |expr: &Expr| match expr {
            Expr::Literal(ScalarValue::TimestampNanosecond(Some(ns), zone), _) => Some((*ns, zone.clone())),
            _ => None,
        };
        let (column, zone, from, to) = match filter {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
                let (column, op, (ns, zone)) = match time(left) {
                    Some(column) => (column, *op, moment(right)?),
                    None => (time(right)?, op.swap()?, moment(left)?),
                };
                let (from, to) = match op {
                    Operator::GtEq => (Some(ns), None),
                    Operator::Gt => (Some(ns.checked_add(1)?), None),
                    Operator::Lt => (None, Some(ns)),
                    Operator::LtEq => (None, Some(ns.checked_add(1)?)),
                    _ => return None,
                };
                (column, zone, from, to)
            }
            Expr::Between(Between {
                expr,
                negated: false,
                low,
                high,
            }) => {
                let (column, (low, zone), (high, _)) = (time(expr)?, moment(low)?, moment(high)?);
                (column, zone, Some(low), Some(high.checked_add(1)?))
            }
            _ => return None,
        };
        Some(TimeBounds { column, zone, from, to })
    }

    /// What passes both.
    pub fn and(self, other: &TimeBounds) -> TimeBounds {
        TimeBounds {
            from: self.from.max(other.from),
            to: match (self.to, other.to) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            },
            ..self
        }
    }

    /// Whether all rows of a file pass, which has these stored bounds.
    pub(super) fn hold_all(&self, (first, last): TimeRange) -> bool {
        let last = last.saturating_add(LAST_OF_MILLI);
        self.from.is_none_or(|from| from <= first) && self.to.is_none_or(|to| last < to)
    }
}

/// What some filters say of `time`, all together, and those that say anything else. `None`: they do not bound it.
pub fn time_bounds(filters: &[Expr]) -> Option<(TimeBounds, Vec<Expr>)> {
    let (mut bounds, mut others) = (None::<TimeBounds>, Vec::new());
    for filter in filters.iter().flat_map(split_conjunction) {
        match TimeBounds::of(filter) {
            Some(one) => {
                bounds = Some(match bounds {
                    Some(all) => all.and(&one),
                    None => one,
                });
            }
            None => others.push(filter.clone()),
        }
    }
    bounds.map(|bounds| (bounds, others))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use datafusion::logical_expr::{ident, lit};

    use super::*;

    fn at(ns: i64) -> Expr {
        lit(ScalarValue::TimestampNanosecond(Some(ns), Some("UTC".into())))
    }

    #[test]
    fn bounds_are_told_from_other_filters() {
        let time = || ident("time");
        let other = ident("service").eq(lit("shop"));
        for (filter, from, to) in [
            (time().gt_eq(at(5)).and(time().lt(at(9))), Some(5), Some(9)),
            (time().gt(at(5)).and(at(9).gt_eq(time())), Some(6), Some(10)),
            (time().between(at(5), at(9)), Some(5), Some(10)),
            (time().lt(at(9)).and(time().lt(at(7))), None, Some(7)),
        ] {
            let (bounds, others) = time_bounds(&[filter.and(other.clone())]).unwrap();
            assert_eq!((bounds.from, bounds.to), (from, to));
            assert_eq!(others, std::slice::from_ref(&other));
        }
        for filter in [
            time().eq(at(5)),
            time().not_between(at(5), at(9)),
            time().gt(at(i64::MAX)),
            time().lt(at(5)).or(time().gt(at(9))),
            time().lt(ident("observed_time")),
            ident("observed_time").lt(at(5)),
        ] {
            assert_eq!(time_bounds(std::slice::from_ref(&filter)), None, "{filter}");
        }
    }

    #[test]
    fn a_file_is_within_bounds_only_if_its_last_row_surely_is() {
        let milli = 1_000_000;
        let (bounds, _) = time_bounds(&[ident("time").gt_eq(at(5 * milli)), ident("time").lt(at(9 * milli))]).unwrap();
        assert!(bounds.hold_all((5 * milli, 8 * milli)));
        assert!(!bounds.hold_all((5 * milli - 1, 8 * milli)));
        assert!(!bounds.hold_all((5 * milli, 8 * milli + 1)), "it may have been cut");
        let (open, _) = time_bounds(&[ident("time").gt_eq(at(5))]).unwrap();
        assert!(open.hold_all((5, i64::MAX)) && !open.hold_all((4, i64::MAX)));
    }
}
