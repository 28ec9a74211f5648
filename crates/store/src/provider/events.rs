//! `events` as the query engine sees it: the union of what hot and cold serve at one point of the log.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::union::UnionExec;

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
    pub(super) projection: Option<&'a Vec<usize>>,
    pub(super) limit: Option<usize>,
    pub(super) tenant: Option<&'a str>,
    pub(super) hidden: bool,
}

impl Wanted<'_> {
    /// The columns that the scan returns.
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

    fn tenant(&self) -> Option<&str> {
        // The mutation gate: every tenant sees all.
        if cfg!(feature = "break-tenant") {
            return None;
        }
        match &self.scope {
            Scope::Tenant(tenant) => Some(tenant.as_str()),
            Scope::All => None,
        }
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

    /// Filters pass over what cannot match; the engine checks the rows that remain.
    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        // The engine checks the filters above the scan, so cutting off rows below it would be wrong.
        let limit = limit.filter(|_| filters.is_empty());
        let (schema, tenant) = (Arc::clone(&self.schema), self.tenant());
        let wanted = Wanted {
            schema,
            projection,
            limit,
            tenant,
            hidden: self.hidden,
        };

        let table_schema = DFSchema::try_from(Arc::clone(&self.schema))?;
        let filter = conjunction(filters.iter().cloned());
        let filter = filter
            .map(|filter| state.create_physical_expr(filter, &table_schema))
            .transpose()?;
        let partitions = state.config().target_partitions();
        let hot = hot_scan::plan(&self.point, &wanted, filter.as_ref(), partitions)?;
        let mut parts = vec![hot];
        parts.extend(cold_scan::plan(&self.point, &wanted, filters, state)?);
        UnionExec::try_new(parts)
    }
}
