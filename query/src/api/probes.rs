//! What watches the process: health, readiness, metrics, status, and the description of the API itself.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::{Api, auth, problem};
use crate::metrics;
use crate::tokens::Reach;

const OPENAPI: &str = include_str!("openapi.json");

/// The process runs.
pub(crate) async fn healthz() -> &'static str {
    "ok\n"
}

/// It can do its job: the stores can be read, and data moves.
pub(crate) async fn readyz(State(api): State<Arc<Api>>) -> Response {
    if !api.status.ready() {
        return (StatusCode::SERVICE_UNAVAILABLE, "data does not move\n").into_response();
    }
    if !api.engine.can_read().await {
        return (StatusCode::SERVICE_UNAVAILABLE, "the stores cannot be read\n").into_response();
    }
    "ready\n".into_response()
}

pub(crate) async fn metrics(State(api): State<Arc<Api>>, headers: HeaderMap) -> Response {
    if !api.open_metrics
        && let Err(error) = auth::operator(&headers, &api.tokens)
    {
        return problem::response(&error);
    }
    let mut text = api.status.metrics();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    let counters = &api.engine.counters;
    let ((hits, misses, bytes), reads) = (api.engine.answers(), api.engine.reads());
    let (ranges_again, ranges_made) = api.engine.ranges();
    let totals = [
        (
            "sluice_query_asked_total",
            "counter",
            "Queries asked.",
            counters.asked.load(Ordering::Relaxed),
        ),
        (
            "sluice_query_refused_total",
            "counter",
            "Queries refused before they gave a row.",
            counters.refused.load(Ordering::Relaxed),
        ),
        (
            "sluice_query_failed_total",
            "counter",
            "Queries that failed after they began.",
            counters.failed.load(Ordering::Relaxed),
        ),
        (
            "sluice_query_rows_total",
            "counter",
            "Rows given.",
            counters.rows.load(Ordering::Relaxed),
        ),
        (
            "sluice_query_running",
            "gauge",
            "Queries running.",
            api.engine.running() as u64,
        ),
        (
            "sluice_query_waiting",
            "gauge",
            "Queries waiting for a place.",
            api.engine.waiting() as u64,
        ),
        (
            "sluice_query_answers_again_total",
            "counter",
            "Answers that were given again, as nothing that they read had changed.",
            hits,
        ),
        (
            "sluice_query_answers_made_total",
            "counter",
            "Answers that could have been given again and had to be made.",
            misses,
        ),
        (
            "sluice_query_ranges_again_total",
            "counter",
            "Ranges of time whose groups were given again, as none of their rows had changed.",
            ranges_again,
        ),
        (
            "sluice_query_ranges_made_total",
            "counter",
            "Ranges of time whose groups had to be computed.",
            ranges_made,
        ),
        (
            "sluice_query_answers_bytes",
            "gauge",
            "Bytes of answers and of groups that are kept.",
            bytes,
        ),
        (
            "sluice_query_disk_hits_total",
            "counter",
            "Parts of cold files that were on this machine's disk.",
            reads.disk_hits,
        ),
        (
            "sluice_query_disk_misses_total",
            "counter",
            "Parts of cold files that were not on this machine's disk.",
            reads.disk_misses,
        ),
        (
            "sluice_query_disk_damaged_total",
            "counter",
            "Parts of cold files on this machine's disk that were damaged and read again.",
            reads.disk_damaged,
        ),
        (
            "sluice_query_disk_bytes",
            "gauge",
            "Bytes of cold files on this machine's disk.",
            reads.disk_bytes,
        ),
    ];
    metrics::write(&mut text, totals);
    metrics::write(&mut text, metrics::of_reads(&reads));
    api.engine.worker_metrics(&mut text);
    metrics::page(text)
}

/// For an operator what the whole node says of itself; for a tenant how complete its own data is.
pub(crate) async fn status(State(api): State<Arc<Api>>, headers: HeaderMap) -> Response {
    let who = match auth::identify(&headers, &api.tokens) {
        Ok(who) => who,
        Err(error) => return problem::response(&error),
    };
    let completeness = match api.engine.completeness(&who).await {
        Ok(statement) => serde_json::to_value(statement).unwrap_or(Value::Null),
        Err(error) => json!({ "error": error.message }),
    };
    let mut answer = match who.reach() {
        Reach::Operator => api.status.status(),
        Reach::Tenant => json!({}),
    };
    if let Value::Object(fields) = &mut answer {
        fields.insert("tenant".into(), who.tenant().as_str().into());
        fields.insert("ready".into(), api.status.ready().into());
        fields.insert("completeness".into(), completeness);
        fields.insert(
            "queries".into(),
            json!({ "running": api.engine.running(), "waiting": api.engine.waiting() }),
        );
    }
    Json(answer).into_response()
}

pub(crate) async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}
