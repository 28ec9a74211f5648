//! `events` as the query engine sees it: the union of what hot and cold serve at one point of the log.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::filter::FilterExecBuilder;
use datafusion::physical_plan::union::UnionExec;

use super::cold_scan::{ColdParts, Within};
use super::exact::is_exact;
use super::window::time_bounds;
use super::{Point, Scope, cold_scan, hot_scan};

/// The rows of one scope.
pub(super) struct EventsProvider {
    point: Arc<Point>,
    scope: Scope,
    /// Show ledger rows and quarantined ones too.
    hidden: bool,
    schema: SchemaRef,
}

/// What one scan is asked for, but for the filters.
pub(super) struct Wanted<'a> {
    /// All columns of the table.
    pub(super) schema: SchemaRef,
    /// What is asked for, and behind it what filters need besides.
    pub(super) projection: Option<&'a Vec<usize>>,
    /// What is asked for alone.
    pub(super) asked: Option<&'a Vec<usize>>,
    pub(super) limit: Option<usize>,
    /// For a scan that applies all filters itself.
    pub(super) limit_if_filtered: Option<usize>,
    pub(super) tenant: Option<&'a str>,
    pub(super) hidden: bool,
    /// Filters and columns that the query asks for, as text: what tells its scans apart.
    pub(super) text: String,
}

/// What rows must pass, and what it takes to know.
struct Look {
    filters: Vec<Expr>,
    /// Those that one row alone decides: they are applied here.
    exact: Option<Expr>,
    /// What is asked for, and behind it what these need besides.
    columns: Option<Vec<usize>>,
    limit: Option<usize>,
}

impl Look {
    /// The last step of each part: the rows that pass, and of them what is asked for.
    fn finish(
        &self,
        wanted: &Wanted<'_>,
        parts: Vec<Arc<dyn ExecutionPlan>>,
        state: &dyn Session,
    ) -> Result<Vec<Arc<dyn ExecutionPlan>>> {
        let Some(exact) = self.exact.as_ref().filter(|_| !parts.is_empty()) else {
            return Ok(parts);
        };
        let exact = state.create_physical_expr(exact.clone(), &DFSchema::try_from(wanted.projected()?)?)?;
        let asked = wanted.asked.map(|columns| (0..columns.len()).collect::<Vec<_>>());
        let finish = |part| -> Result<Arc<dyn ExecutionPlan>> {
            let filter = FilterExecBuilder::new(Arc::clone(&exact), part)
                .apply_projection(asked.clone())?
                .with_batch_size(state.config().batch_size())
                .with_fetch(self.limit);
            Ok(Arc::new(filter.build()?))
        };
        parts.into_iter().map(finish).collect()
    }
}

impl Wanted<'_> {
    /// The columns that a scan returns which applies all filters itself.
    pub(super) fn asked(&self) -> Result<SchemaRef> {
        hot_scan::project(&self.schema, self.asked)
    }

    /// The columns that any other scan returns.
    pub(super) fn projected(&self) -> Result<SchemaRef> {
        hot_scan::project(&self.schema, self.projection)
    }
}

impl EventsProvider {
    pub(super) fn new(point: Arc<Point>, scope: Scope, hidden: bool) -> Self {
        let schema = Arc::clone(point.table.mapping().logical());
        Self {
            point,
            scope,
            hidden,
            schema,
        }
    }

    /// Which rows it has.
    pub(super) fn rows(&self) -> (&Arc<Point>, &Scope, bool) {
        (&self.point, &self.scope, self.hidden)
    }

    fn look(&self, filters: Vec<Expr>, projection: Option<&Vec<usize>>, limit: Option<usize>) -> Result<Look> {
        let plain: Vec<&Expr> = filters.iter().filter(|filter| is_exact(filter, &self.schema)).collect();
        // Other filters are checked above this scan, so cutting off rows here would be wrong.
        let limit = limit.filter(|_| plain.len() == filters.len());
        let exact = conjunction(plain.into_iter().cloned());
        let columns = projection
            .map(|columns| self.with_columns_of(columns, exact.as_ref()))
            .transpose()?;
        Ok(Look {
            filters,
            exact,
            columns,
            limit,
        })
    }

    fn wanted<'a>(&'a self, look: &'a Look, asked: Option<&'a Vec<usize>>, text: &str) -> Wanted<'a> {
        Wanted {
            schema: Arc::clone(&self.schema),
            projection: look.columns.as_ref(),
            asked,
            limit: look.limit.filter(|_| look.exact.is_none()),
            limit_if_filtered: look.limit,
            tenant: self.scope.tenant(),
            hidden: self.hidden,
            text: text.to_owned(),
        }
    }

    /// Some columns, and behind them those that a filter needs besides.
    fn with_columns_of(&self, columns: &[usize], filter: Option<&Expr>) -> Result<Vec<usize>> {
        let mut all = columns.to_vec();
        for column in filter.into_iter().flat_map(Expr::column_refs) {
            let index = self.schema.index_of(&column.name)?;
            if !all.contains(&index) {
                all.push(index);
            }
        }
        Ok(all)
    }
}

impl std::fmt::Debug for EventsProvider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventsProvider")
            .field("scope", &self.scope)
            .field("hidden", &self.hidden)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl TableProvider for EventsProvider {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    /// Every filter passes over what cannot match, and is applied to each row here, so that limits and aggregates reach the tiers. Only
    /// what has another value each time, or needs another table, is left to the engine.
    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let kind = |filter: &&Expr| match is_exact(filter, &self.schema) {
            true => TableProviderFilterPushDown::Exact,
            false => TableProviderFilterPushDown::Inexact,
        };
        Ok(filters.iter().map(kind).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let table_schema = DFSchema::try_from(Arc::clone(&self.schema))?;
        let text = format!("{:?} {} {projection:?} {limit:?} {filters:?}", self.scope, self.hidden);
        // What is erased decides each row here, as exact filters do, and before any other.
        let hidden = self.point.hidden.conditions(self.scope.tenant());
        let look = self.look([hidden, filters.to_vec()].concat(), projection, limit)?;
        let wanted = self.wanted(&look, projection, &text);

        let each = look
            .filters
            .iter()
            .map(|filter| state.create_physical_expr(filter.clone(), &table_schema));
        let each = each.collect::<Result<Vec<_>>>()?;
        let all = datafusion::physical_expr::conjunction_opt(each.iter().cloned());
        let partitions = state.config().target_partitions();
        let (hot, is_done) = hot_scan::plan(&self.point, &wanted, &look.filters, &each, all.as_ref(), partitions)?;

        // Of files whose rows are all of the time that is asked for, nothing needs to look at the time.
        let timed = match time_bounds(&look.filters) {
            Some((bounds, others)) => Some((bounds, self.look(others, projection, limit)?)),
            None => None,
        };
        let within = timed.as_ref().map(|(bounds, look)| Within {
            bounds,
            wanted: self.wanted(look, projection, &text),
            filters: &look.filters,
        });
        let ColdParts { parts, within: inner } =
            cold_scan::plan(&self.point, &wanted, &look.filters, within.as_ref(), state)?;

        let (done, rest) = match is_done {
            true => (vec![hot], parts),
            false => (Vec::new(), [vec![hot], parts].concat()),
        };
        let mut parts = [done, look.finish(&wanted, rest, state)?].concat();
        if let (Some((_, look)), Some(within)) = (&timed, &within) {
            parts.extend(look.finish(&within.wanted, inner, state)?);
        }
        UnionExec::try_new(parts)
    }
}
