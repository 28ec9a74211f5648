//! An aggregate over the rows of a window of time, cut into ranges whose groups are each other's strangers: those of one range follow from
//! its rows alone, so they may be kept while these are the same, and all together are the groups of the window.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, TimestampNanosecondArray};
use arrow::datatypes::{Field, Schema};
use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::datasource::source_as_provider;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::utils::disjunction;
use datafusion::logical_expr::{Aggregate, EmptyRelation, Expr, LogicalPlan, TableScan, lit};
use datafusion::physical_expr::PhysicalExpr;
use sluice_store::{Scope, TimeBounds, TimeRange, time_bounds};

use super::{cuts, is_steady};

/// A window that ends later than this after now, in nanoseconds, is cut up to now.
const FUTURE: i64 = 24 * 3_600 * 1_000_000_000;
/// A literal and what holds it take more memory than its text: of one of 18 letters in a list about 200 bytes.
const BYTES_PER_LETTER: u64 = 16;

/// What groups are made of but for the window: they are kept for it, and only given where it is the same.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Grouping {
    /// Of all of it.
    pub(super) hash: u64,
    pub(super) scope: Scope,
    /// Without the table, which holds what its query pinned.
    aggregate: LogicalPlan,
    table: String,
    /// Those of the scan that do not bound its time.
    filters: Vec<Expr>,
    pub(super) bytes: u64,
}

impl Hash for Grouping {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// An aggregate that can be put together of ranges.
pub(super) struct Sliced {
    pub(super) aggregate: Aggregate,
    pub(super) table: Arc<dyn TableProvider>,
    /// Which of the group's columns rises with the time.
    pub(super) key: usize,
    /// Those of the scan that do not bound its time.
    pub(super) filters: Vec<Expr>,
    bounds: Bounds,
    pub(super) ranges: Vec<TimeRange>,
    value: Value,
}

/// A piece of a window; without an end it has none.
pub(super) type Piece = (i64, Option<i64>);

/// The window of a query, and how its filters speak of time.
#[derive(Clone)]
struct Bounds {
    time: Column,
    zone: Option<Arc<str>>,
    from: i64,
    to: Option<i64>,
}

/// The key of a group as an expression over the time of a row.
struct Value {
    expr: Arc<dyn PhysicalExpr>,
    schema: Arc<Schema>,
    zone: Option<Arc<str>>,
}

impl std::fmt::Debug for Sliced {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sliced")
            .field("ranges", &self.ranges)
            .finish_non_exhaustive()
    }
}

impl Sliced {
    /// `None`: it groups by no piece of time, bounds none, or does more than to group the rows of the table.
    pub(super) fn of(aggregate: &Aggregate, state: &SessionState, now_ns: i64) -> Result<Option<Sliced>> {
        let whole = LogicalPlan::Aggregate(aggregate.clone());
        let Some(scan) = scan_below(&aggregate.input).filter(|scan| scan.fetch.is_none()) else {
            return Ok(None);
        };
        let Ok(table) = source_as_provider(&scan.source) else {
            return Ok(None);
        };
        if !sluice_store::is_rows(&table) || !is_plain(&whole)? || !is_steady(&whole)? {
            return Ok(None);
        }
        let Some((bounds, filters)) = Bounds::of(&scan.filters) else {
            return Ok(None);
        };
        let end = match bounds.to {
            Some(to) if to <= now_ns.saturating_add(FUTURE) || bounds.from >= now_ns => to,
            _ => now_ns,
        };
        let cut = |(key, over_time): (usize, Expr)| {
            let value = Value::new(over_time, scan, &bounds.time, state)?;
            // What cannot be computed of some time is for the query itself to tell.
            let ranges = cuts::cut((bounds.from, end), |times| value.at(times)).unwrap_or_default();
            Some((key, value, ranges))
        };
        // A day may stand beside an hour: the shorter pieces are the better ones.
        let finest = keys(aggregate).filter_map(cut).max_by_key(|(.., ranges)| ranges.len());
        let Some((key, value, ranges)) = finest.filter(|(.., ranges)| !ranges.is_empty()) else {
            return Ok(None);
        };
        Ok(Some(Sliced {
            aggregate: aggregate.clone(),
            table,
            key,
            filters,
            bounds,
            ranges,
            value,
        }))
    }

    /// What the groups of a range are kept for.
    pub(super) fn grouping(&self, scope: &Scope, hasher: &impl BuildHasher) -> Result<Grouping> {
        let mut table = String::new();
        let bare = self.plan().transform_down(|node| {
            Ok(match node {
                LogicalPlan::TableScan(scan) => {
                    table = scan.table_name.to_string();
                    Transformed::yes(LogicalPlan::EmptyRelation(EmptyRelation {
                        produce_one_row: false,
                        schema: scan.projected_schema,
                    }))
                }
                other => Transformed::no(other),
            })
        })?;
        let filters: usize = self.filters.iter().map(|filter| filter.to_string().len()).sum();
        let text = bare.data.display_indent_schema().to_string().len() + filters;
        Ok(Grouping {
            hash: hasher.hash_one((scope, &bare.data, &table, &self.filters)),
            scope: scope.clone(),
            aggregate: bare.data,
            table,
            filters: self.filters.clone(),
            bytes: text as u64 * BYTES_PER_LETTER,
        })
    }

    /// The aggregate over all of its window.
    pub(super) fn plan(&self) -> LogicalPlan {
        LogicalPlan::Aggregate(self.aggregate.clone())
    }

    /// The same over some pieces of its window.
    pub(super) fn plan_of(&self, pieces: &[Piece]) -> Result<LogicalPlan> {
        let mut filters = self.filters.clone();
        match pieces {
            [one] => filters.extend(self.bounds.within(*one)),
            many => {
                let each = many
                    .iter()
                    .filter_map(|piece| self.bounds.within(*piece).into_iter().reduce(Expr::and));
                filters.extend(disjunction(each));
            }
        }
        let narrowed = self.plan().transform_down(|node| {
            Ok(match node {
                LogicalPlan::TableScan(scan) => Transformed::yes(LogicalPlan::TableScan(TableScan {
                    filters: filters.clone(),
                    ..scan
                })),
                other => Transformed::no(other),
            })
        })?;
        Ok(narrowed.data)
    }

    /// What of the window lies in no range that is given again; pieces that touch are one.
    pub(super) fn missing(&self, again: &[bool]) -> Vec<Piece> {
        let mut missing: Vec<Piece> = Vec::new();
        let mut add = |from: i64, to: Option<i64>| match missing.last_mut() {
            Some((_, end)) if *end == Some(from) => *end = to,
            _ => missing.push((from, to)),
        };
        let Bounds { from, to, .. } = self.bounds;
        let (Some(first), Some(last)) = (self.ranges.first(), self.ranges.last()) else {
            return vec![(from, to)];
        };
        if from < first.0 {
            add(from, Some(first.0));
        }
        for (range, _) in self.ranges.iter().zip(again).filter(|(_, again)| !**again) {
            add(range.0, Some(range.1));
        }
        if to.is_none_or(|to| last.1 < to) {
            add(last.1, to);
        }
        missing
    }

    /// The key of the group at the beginning and at the end of each of some ranges.
    pub(super) fn keys(&self, ranges: &[TimeRange]) -> Result<(ArrayRef, ArrayRef)> {
        let first = self.value.at(ranges.iter().map(|range| range.0).collect())?;
        let last = self.value.at(ranges.iter().map(|range| range.1 - 1).collect())?;
        Ok((first, last))
    }
}

/// The scan that an aggregate reads, if nothing but filters and projections lies between.
fn scan_below(mut plan: &LogicalPlan) -> Option<&TableScan> {
    loop {
        plan = match plan {
            LogicalPlan::Projection(projection) => &projection.input,
            LogicalPlan::Filter(filter) => &filter.input,
            LogicalPlan::SubqueryAlias(alias) => &alias.input,
            LogicalPlan::TableScan(scan) => return Some(scan),
            _ => return None,
        };
    }
}

/// Whether all expressions of a plan look at one row alone.
fn is_plain(plan: &LogicalPlan) -> Result<bool> {
    let mut plain = true;
    plan.apply(|node| {
        for expr in node.expressions() {
            plain &= !expr.exists(|part| {
                Ok(matches!(
                    part,
                    Expr::Exists(_)
                        | Expr::InSubquery(_)
                        | Expr::ScalarSubquery(_)
                        | Expr::SetComparison(_)
                        | Expr::OuterReferenceColumn(..)
                        | Expr::Placeholder(_)
                        | Expr::GroupingSet(_)
                ))
            })?;
        }
        Ok(match plain {
            true => TreeNodeRecursion::Continue,
            false => TreeNodeRecursion::Stop,
        })
    })?;
    Ok(plain)
}

/// The columns of the group that never fall as the time rises, as expressions over the columns of the scan.
fn keys(aggregate: &Aggregate) -> impl Iterator<Item = (usize, Expr)> {
    let over_scan = |expr: &Expr| resolve(expr.clone(), &aggregate.input).ok();
    let all = aggregate.group_expr.iter().enumerate();
    all.filter_map(move |(at, expr)| Some((at, over_scan(expr)?)))
        .filter(|(_, expr)| cuts::never_falls(expr))
}

/// An expression over a plan as one over its scan.
fn resolve(expr: Expr, plan: &LogicalPlan) -> Result<Expr> {
    let replace = |expr: Expr, with: &dyn Fn(&Column) -> Result<Expr>| {
        let replaced = expr.transform_up(|part| {
            Ok(match &part {
                Expr::Column(column) => Transformed::yes(with(column)?),
                _ => Transformed::no(part),
            })
        });
        replaced.map(|changed| changed.data)
    };
    match plan {
        LogicalPlan::Projection(projection) => {
            let below = replace(expr, &|column| {
                let at = projection.schema.index_of_column(column)?;
                Ok(projection.expr[at].clone().unalias())
            })?;
            resolve(below, &projection.input)
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let below = replace(expr, &|column| {
                let at = alias.schema.index_of_column(column)?;
                Ok(Expr::Column(Column::from(alias.input.schema().qualified_field(at))))
            })?;
            resolve(below, &alias.input)
        }
        LogicalPlan::Filter(filter) => resolve(expr, &filter.input),
        LogicalPlan::TableScan(_) => Ok(expr),
        _ => Err(DataFusionError::Internal("no plan over one scan".into())),
    }
}

impl Bounds {
    /// The bounds that the filters of a scan set to `time`, and the other filters.
    fn of(filters: &[Expr]) -> Option<(Bounds, Vec<Expr>)> {
        let (TimeBounds { column, zone, from, to }, others) = time_bounds(filters)?;
        let bounds = Bounds {
            time: column,
            zone,
            from: from?,
            to,
        };
        Some((bounds, others))
    }

    fn within(&self, (from, to): Piece) -> Vec<Expr> {
        let time = || Expr::Column(self.time.clone());
        let at = |ns| lit(ScalarValue::TimestampNanosecond(Some(ns), self.zone.clone()));
        let mut within = vec![time().gt_eq(at(from))];
        within.extend(to.map(|to| time().lt(at(to))));
        within
    }
}

impl Value {
    fn new(expr: Expr, scan: &TableScan, time: &Column, state: &SessionState) -> Option<Value> {
        let field = scan.source.schema().field_with_name(&time.name).ok()?.clone();
        let arrow::datatypes::DataType::Timestamp(arrow::datatypes::TimeUnit::Nanosecond, zone) = field.data_type()
        else {
            return None;
        };
        let zone = zone.clone();
        let schema = Arc::new(Schema::new(vec![field.clone()]));
        let fields: Vec<(_, Arc<Field>)> = vec![(Some(scan.table_name.clone()), Arc::new(field))];
        let named = DFSchema::new_with_metadata(fields, HashMap::new()).ok()?;
        let expr = state.create_physical_expr(expr, &named).ok()?;
        Some(Value { expr, schema, zone })
    }

    fn at(&self, times: Vec<i64>) -> Result<ArrayRef> {
        let rows = times.len();
        let times = TimestampNanosecondArray::from(times).with_timezone_opt(self.zone.clone());
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), vec![Arc::new(times)])?;
        self.expr.evaluate(&batch)?.into_array(rows)
    }
}
