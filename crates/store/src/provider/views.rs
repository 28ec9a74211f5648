//! The tables of a scope that are views over its rows.

use datafusion::error::Result;
use datafusion::prelude::SessionContext;

use super::{Pinned, Scope};

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

/// Registers `events` and the views of it for one caller. The views hold the scoped tables themselves, so that nothing a caller
/// names or defines changes what they read.
pub async fn register_views(ctx: &SessionContext, pinned: &Pinned, scope: Scope) -> Result<()> {
    let events = pinned.events(scope.clone());
    ctx.register_table("streams", pinned.streams(scope.clone()))?;
    ctx.register_table("plugins", pinned.plugins(scope.clone()))?;
    let planner = SessionContext::new();
    planner.register_table("events", events.clone())?;
    planner.register_table("everything", pinned.everything(scope))?;
    ctx.register_table("events", events)?;
    for (name, text) in VIEWS {
        let view = planner.sql(text).await?.into_view();
        ctx.register_table(name, view)?;
    }
    Ok(())
}
