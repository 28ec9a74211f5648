//! The tables of a scope that are views over its rows.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::view::ViewTable;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::internal_err;
use datafusion::common::tree_node::Transformed;
use datafusion::datasource::empty::EmptyTable;
use datafusion::datasource::{TableType, provider_as_source};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{Expr, LogicalPlan, TableProviderFilterPushDown, TableScan};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionContext;
use tokio::sync::OnceCell;

use super::{Pinned, Scope};
use crate::physical::Mapping;

const LOGS: &str = r#"SELECT "time", tenant, node, service, host, severity, severity_text, name, body, body_type, attrs, attr_types,
 trace_id, span_id, flags, resource, resource_types, scope_name, scope_version, scope, scope_types, observed_time, time_unset,
 weight, stream, epoch, seq, "partition", "offset", "row", ingested_at
 FROM events WHERE signal = 'log'"#;

const SPANS: &str = r#"SELECT "time", arrow_cast(CAST("time" AS BIGINT) + duration_ns, 'Timestamp(Nanosecond, Some("UTC"))') AS end_time,
 duration_ns, tenant, node, service, host, name, kind, status, status_message, trace_id, span_id, parent_span_id, trace_state, flags,
 attrs, attr_types, span_events, links, resource, resource_types, scope_name, scope_version, scope, scope_types,
 ai_system, ai_model, ai_operation, ai_input_tokens, ai_output_tokens, ai_cost,
 weight, stream, epoch, seq, "partition", "offset", "row", ingested_at
 FROM events WHERE signal = 'span'"#;

const METRICS: &str = r#"SELECT "time", start_time, tenant, node, service, host, name, metric_type, unit, description, temporality,
 monotonic, value, value_int, "count", sum, "min", "max", bounds, buckets, scale, zero_count, zero_threshold, positive_offset,
 positive_buckets, negative_offset, negative_buckets, quantiles, exemplars, flags, attrs, attr_types, resource, resource_types,
 scope_name, scope_version, scope, scope_types, gpu_utilization, gpu_memory_bytes,
 weight, stream, epoch, seq, "partition", "offset", "row", ingested_at
 FROM events WHERE signal = 'metric'"#;

/// One row per batch and bucket. The key of a count is its bucket, or `dropped/<plugin>/<reason>`; a reason may hold slashes.
const LEDGER: &str = r#"SELECT tenant, node, stream, epoch, seq, "partition", "offset", ingested_at, outcome,
 split_part(entry['key'], '/', 1) AS bucket,
 nullif(split_part(entry['key'], '/', 2), '') AS plugin,
 nullif(substr(entry['key'], character_length(split_part(entry['key'], '/', 1)) + character_length(split_part(entry['key'], '/', 2)) + 3), '') AS reason,
 CAST(entry['value'] AS BIGINT) AS "rows", detail
 FROM (SELECT tenant, node, stream, epoch, seq, "partition", "offset", ingested_at, name AS outcome, body AS detail,
   unnest(map_entries(attrs)) AS entry FROM everything WHERE signal = '_batch')"#;

const QUARANTINED: &str = "SELECT * FROM everything WHERE quarantined_by IS NOT NULL AND signal <> '_batch'";

/// Rate, errors and duration: what a dashboard of services shows first.
const SERVICE_RED: &str = r#"SELECT date_bin(INTERVAL '1 minute', "time") AS minute, service, sum(weight) AS requests,
 sum(CASE WHEN status = 'error' THEN weight ELSE 0.0 END) AS errors,
 sum(CASE WHEN status = 'error' THEN weight ELSE 0.0 END) / sum(weight) AS error_ratio,
 approx_percentile_cont(0.5) WITHIN GROUP (ORDER BY duration_ns) AS p50_ns,
 approx_percentile_cont(0.95) WITHIN GROUP (ORDER BY duration_ns) AS p95_ns,
 approx_percentile_cont(0.99) WITHIN GROUP (ORDER BY duration_ns) AS p99_ns
 FROM events WHERE signal = 'span' AND kind IN ('server', 'consumer') GROUP BY date_bin(INTERVAL '1 minute', "time"), service"#;

/// Name and text of every view, in terms of `events` and `everything`.
pub const VIEWS: [(&str, &str); 6] = [
    ("logs", LOGS),
    ("spans", SPANS),
    ("metrics", METRICS),
    ("ledger", LEDGER),
    ("quarantined", QUARANTINED),
    ("service_red", SERVICE_RED),
];

/// The plans of the views over tables without rows: reading and resolving their texts takes milliseconds, which no query should wait for.
static PLANS: OnceCell<Vec<LogicalPlan>> = OnceCell::const_new();

const EVENTS: &str = "events";
const EVERYTHING: &str = "everything";

/// Registers `events` and the views of it for one caller. The views hold the scoped tables themselves, so that nothing a caller
/// names or defines changes what they read.
pub async fn register_views(ctx: &SessionContext, pinned: &Pinned, scope: Scope) -> Result<()> {
    let read = Scoped {
        events: pinned.events(scope.clone()),
        everything: pinned.everything(scope.clone()),
    };
    ctx.register_table("streams", pinned.streams(scope.clone()))?;
    ctx.register_table("plugins", pinned.plugins(scope))?;
    ctx.register_table(EVENTS, Arc::clone(&read.events))?;
    let plans = PLANS.get_or_try_init(plans).await?;
    for ((name, _), plan) in VIEWS.iter().zip(plans) {
        let view = View {
            plan,
            read: read.clone(),
            over_read: OnceLock::new(),
        };
        ctx.register_table(*name, Arc::new(view))?;
    }
    Ok(())
}

async fn plans() -> Result<Vec<LogicalPlan>> {
    // Each table of rows has these columns, whoever asks.
    let schema = Arc::clone(Mapping::events().logical());
    let planner = SessionContext::new();
    for table in [EVENTS, EVERYTHING] {
        planner.register_table(table, Arc::new(EmptyTable::new(Arc::clone(&schema))))?;
    }
    let state = planner.state();
    let plans = VIEWS.iter().map(|(_, text)| state.create_logical_plan(text));
    futures::future::try_join_all(plans).await
}

/// What the views of one caller read.
#[derive(Clone, Debug)]
struct Scoped {
    events: Arc<dyn TableProvider>,
    everything: Arc<dyn TableProvider>,
}

/// A view for one caller. Its plan is made of that of all callers when a query names it.
#[derive(Debug)]
struct View {
    plan: &'static LogicalPlan,
    read: Scoped,
    over_read: OnceLock<Result<LogicalPlan>>,
}

impl View {
    fn over_read(&self) -> &Result<LogicalPlan> {
        self.over_read.get_or_init(|| {
            let replaced = self.plan.clone().transform_down_with_subqueries(|node| {
                Ok(match node {
                    LogicalPlan::TableScan(scan) => {
                        let read = match scan.table_name.table() {
                            EVENTS => &self.read.events,
                            EVERYTHING => &self.read.everything,
                            other => return internal_err!("a view reads `{other}`"),
                        };
                        Transformed::yes(LogicalPlan::TableScan(TableScan {
                            source: provider_as_source(Arc::clone(read)),
                            ..scan
                        }))
                    }
                    other => Transformed::no(other),
                })
            });
            replaced.map(|replaced| replaced.data)
        })
    }
}

#[async_trait]
impl TableProvider for View {
    fn get_logical_plan(&self) -> Option<Cow<'_, LogicalPlan>> {
        self.over_read().as_ref().ok().map(Cow::Borrowed)
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(self.plan.schema().inner())
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Exact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let plan = self.over_read().as_ref();
        let plan = plan.map_err(|error| DataFusionError::Internal(error.to_string()))?;
        ViewTable::new(plan.clone(), None)
            .scan(state, projection, filters, limit)
            .await
    }
}
