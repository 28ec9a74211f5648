//! What a query learns while it runs, for files: `ORDER BY time DESC LIMIT n` knows after a few rows which times cannot be among the
//! first n any more, and files and row groups outside of them need not be read.
//!
//! The engine says so in a filter that changes as it runs, in terms of the table's nanoseconds. Files hold microseconds rounded down, so
//! the filter is widened each time it is looked at: more rows may pass, never fewer, and the engine decides in the end.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use datafusion::common::Result;
use datafusion::logical_expr::{ColumnarValue, Operator};
use datafusion::physical_expr::expressions::{BinaryExpr, Column, IsNullExpr, Literal, lit};
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_expr::{PhysicalExpr, split_conjunction};
use datafusion::physical_expr_common::physical_expr::{snapshot_generation, snapshot_physical_expr};
use datafusion::scalar::ScalarValue;

const TIME: &str = "time";
const NANOS_PER_MICRO: i64 = 1000;

/// A filter on the table's `time` as a filter on the stored one, always as the original stands at the moment.
#[derive(Debug)]
pub(super) struct Newest {
    original: Arc<dyn PhysicalExpr>,
    /// The stored column.
    time: Arc<dyn PhysicalExpr>,
}

/// The part of a filter from above that says something of stored times; `stored` is what the files' scan returns.
pub(super) fn widen(filter: &Arc<dyn PhysicalExpr>, stored: &Schema) -> Option<Arc<dyn PhysicalExpr>> {
    let is_time = collect_columns(filter).iter().any(|column| column.name() == TIME);
    let index = stored.index_of(TIME).ok().filter(|_| is_time)?;
    Some(Arc::new(Newest {
        original: Arc::clone(filter),
        time: Arc::new(Column::new(TIME, index)),
    }))
}

impl Newest {
    fn now(&self) -> Result<Arc<dyn PhysicalExpr>> {
        let original = snapshot_physical_expr(Arc::clone(&self.original))?;
        let parts = split_conjunction(&original)
            .into_iter()
            .filter_map(|part| self.stored(part));
        Ok(parts
            .reduce(|left, right| binary(left, Operator::And, right))
            .unwrap_or_else(|| lit(true)))
    }

    /// `None`: nothing can be said.
    fn stored(&self, filter: &Arc<dyn PhysicalExpr>) -> Option<Arc<dyn PhysicalExpr>> {
        if let Some(is_null) = filter.downcast_ref::<IsNullExpr>() {
            return is_time(is_null.arg()).then(|| Arc::new(IsNullExpr::new(Arc::clone(&self.time))) as _);
        }
        let compared = filter.downcast_ref::<BinaryExpr>()?;
        match compared.op() {
            Operator::And => match (self.stored(compared.left()), self.stored(compared.right())) {
                (Some(left), Some(right)) => Some(binary(left, Operator::And, right)),
                (one, other) => one.or(other),
            },
            Operator::Or => {
                let left = self.stored(compared.left())?;
                Some(binary(left, Operator::Or, self.stored(compared.right())?))
            }
            op => {
                let value = compared.right().downcast_ref::<Literal>()?;
                let ScalarValue::TimestampNanosecond(Some(ns), zone) = value.value() else {
                    return None;
                };
                let op = match op {
                    Operator::Eq => Operator::Eq,
                    Operator::Gt | Operator::GtEq => Operator::GtEq,
                    Operator::Lt | Operator::LtEq => Operator::LtEq,
                    _ => return None,
                };
                let micros = ScalarValue::TimestampMicrosecond(Some(ns.div_euclid(NANOS_PER_MICRO)), zone.clone());
                is_time(compared.left()).then(|| binary(Arc::clone(&self.time), op, lit(micros)))
            }
        }
    }
}

fn is_time(expr: &Arc<dyn PhysicalExpr>) -> bool {
    expr.downcast_ref::<Column>()
        .is_some_and(|column| column.name() == TIME)
}

fn binary(left: Arc<dyn PhysicalExpr>, op: Operator, right: Arc<dyn PhysicalExpr>) -> Arc<dyn PhysicalExpr> {
    Arc::new(BinaryExpr::new(left, op, right))
}

impl fmt::Display for Newest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stored({})", self.original)
    }
}

impl PartialEq for Newest {
    fn eq(&self, other: &Self) -> bool {
        self.original.eq(&other.original) && self.time.eq(&other.time)
    }
}

impl Eq for Newest {}

impl Hash for Newest {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.original.hash(state);
        self.time.hash(state);
    }
}

impl PhysicalExpr for Newest {
    fn return_field(&self, _: &Schema) -> Result<FieldRef> {
        Ok(Arc::new(Field::new(TIME, DataType::Boolean, true)))
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        self.now()?.evaluate(batch)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.time]
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        Ok(Arc::new(Self {
            original: Arc::clone(&self.original),
            time: children.pop().unwrap_or_else(|| Arc::clone(&self.time)),
        }))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }

    fn snapshot(&self) -> Result<Option<Arc<dyn PhysicalExpr>>> {
        self.now().map(Some)
    }

    fn snapshot_generation(&self) -> u64 {
        snapshot_generation(&self.original)
    }
}
