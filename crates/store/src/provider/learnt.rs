//! What a query learns while it runs, for files: `ORDER BY time DESC LIMIT n` knows after a few rows which times cannot be among the
//! first n any more, and files and row groups outside of them need not be read.
//!
//! The engine says so in a filter that changes as it runs, in terms of the table's columns. Times are stored as microseconds, rounded
//! down, so what is said of them is widened each time it is looked at; of columns that are stored otherwise than they are, nothing is
//! said. More rows may pass, never fewer, and the engine decides in the end.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use datafusion::common::Result;
use datafusion::logical_expr::{ColumnarValue, Operator};
use datafusion::physical_expr::expressions::{BinaryExpr, Column, IsNullExpr, Literal, lit};
use datafusion::physical_expr::{PhysicalExpr, split_conjunction};
use datafusion::physical_expr_common::physical_expr::{snapshot_generation, snapshot_physical_expr};
use datafusion::scalar::ScalarValue;

use crate::physical::Stored;

const NANOS_PER_MICRO: i64 = 1000;

/// A filter on columns of the table as one on those of its files, always as the original stands at the moment.
#[derive(Debug)]
pub(super) struct Learnt {
    original: Arc<dyn PhysicalExpr>,
    /// The stored columns of which it says something.
    columns: Vec<Arc<dyn PhysicalExpr>>,
}

/// The part of a filter from above that says something of stored columns; `table` is what it is about, `files` what their scan returns.
pub(super) fn of_files(
    filter: &Arc<dyn PhysicalExpr>,
    table: &Schema,
    files: &Schema,
) -> Option<Arc<dyn PhysicalExpr>> {
    // Files read these columns to ask them. A filter that is made while it runs has what it is about for its children, and nothing is
    // said of what is computed of columns.
    let columns: Vec<_> = filter
        .children()
        .into_iter()
        .filter_map(|about| about.downcast_ref::<Column>())
        .filter(|column| table.field_with_name(column.name()).is_ok_and(is_told))
        .filter_map(|column| Some(Column::new(column.name(), files.index_of(column.name()).ok()?)))
        .map(|column| Arc::new(column) as _)
        .collect();
    if columns.is_empty() {
        return None;
    }
    Some(Arc::new(Learnt {
        original: Arc::clone(filter),
        columns,
    }))
}

/// Whether files can be told what is learnt of a column.
fn is_told(field: &Field) -> bool {
    match Stored::of(field.data_type()) {
        Stored::Nanoseconds => true,
        // Least and greatest values of a file leave out NaN, which is greater than all here; maps and lists have none.
        Stored::Same => !field.data_type().is_floating() && !field.data_type().is_nested(),
        Stored::Unsigned64 | Stored::Unsigned32 | Stored::Unsigned64List => false,
    }
}

impl Learnt {
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
            return Some(Arc::new(IsNullExpr::new(self.column(is_null.arg())?)));
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
                let column = self.column(compared.left())?;
                let (op, value) = of_stored(*op, compared.right().downcast_ref::<Literal>()?.value())?;
                Some(binary(column, op, lit(value)))
            }
        }
    }

    /// The stored column of one of the table.
    fn column(&self, of_table: &Arc<dyn PhysicalExpr>) -> Option<Arc<dyn PhysicalExpr>> {
        let name = of_table.downcast_ref::<Column>()?.name();
        let is_it = |column: &&Arc<dyn PhysicalExpr>| {
            let column = column.downcast_ref::<Column>();
            column.is_some_and(|column| column.name() == name)
        };
        self.columns.iter().find(is_it).map(Arc::clone)
    }
}

/// What is compared to a value, as it is compared to a stored one.
fn of_stored(op: Operator, value: &ScalarValue) -> Option<(Operator, ScalarValue)> {
    if value.is_null() {
        return None;
    }
    let ScalarValue::TimestampNanosecond(Some(ns), zone) = value else {
        use Operator::{Eq, Gt, GtEq, Lt, LtEq, NotEq};
        return matches!(op, Eq | NotEq | Gt | GtEq | Lt | LtEq).then(|| (op, value.clone()));
    };
    let op = match op {
        Operator::Eq => Operator::Eq,
        Operator::Gt | Operator::GtEq => Operator::GtEq,
        Operator::Lt | Operator::LtEq => Operator::LtEq,
        _ => return None,
    };
    let micros = ns.div_euclid(NANOS_PER_MICRO);
    Some((op, ScalarValue::TimestampMicrosecond(Some(micros), zone.clone())))
}

fn binary(left: Arc<dyn PhysicalExpr>, op: Operator, right: Arc<dyn PhysicalExpr>) -> Arc<dyn PhysicalExpr> {
    Arc::new(BinaryExpr::new(left, op, right))
}

impl fmt::Display for Learnt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stored({})", self.original)
    }
}

impl PartialEq for Learnt {
    fn eq(&self, other: &Self) -> bool {
        self.original.eq(&other.original) && self.columns.eq(&other.columns)
    }
}

impl Eq for Learnt {}

impl Hash for Learnt {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.original.hash(state);
        self.columns.hash(state);
    }
}

impl PhysicalExpr for Learnt {
    fn return_field(&self, _: &Schema) -> Result<FieldRef> {
        Ok(Arc::new(Field::new("learnt", DataType::Boolean, true)))
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        self.now()?.evaluate(batch)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        self.columns.iter().collect()
    }

    fn with_new_children(self: Arc<Self>, columns: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        Ok(Arc::new(Self {
            original: Arc::clone(&self.original),
            columns,
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
