//! What a monitor asks of the OTLP role: health, readiness, metrics, status.

use std::fmt::Write;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header;
use serde_json::{Value, json};

use super::door::Front;

pub(super) fn router(front: Front) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        // The doors are open before this one is; a tenant whose chain does not run is told by its own answers.
        .route("/readyz", get(|| async { "ready\n" }))
        .route("/metrics", get(metrics))
        .route("/v1/status", get(status))
        .with_state(front)
}

/// Reads counters of nodes, which may wait for a lock that a disk holds.
async fn look<T: Send + 'static>(front: Front, look: fn(&Front) -> T) -> Option<T> {
    tokio::task::spawn_blocking(move || look(&front)).await.ok()
}

async fn status(State(front): State<Front>) -> Response {
    axum::Json(look(front, whole).await.unwrap_or_default()).into_response()
}

fn whole(front: &Front) -> Value {
    json!({
        "refused": front.refused.counts(),
        "alarms": front.refused.alarms(),
        "tenants": front.quotas.status(),
        "edges": front.edges.status(),
    })
}

async fn metrics(State(front): State<Front>) -> Response {
    let text = look(front, page).await.unwrap_or_default();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

fn page(front: &Front) -> String {
    let mut text = String::new();
    let refused = front.refused.counts();
    let refused = refused
        .iter()
        .map(|(reason, count)| (format!("{{reason=\"{reason}\"}}"), *count));
    let nodes = front.edges.status();
    let running = nodes.values().filter(|status| status["problem"].is_null()).count() as u64;
    let own = [
        (
            "sluice_otlp_refused_total",
            "counter",
            "Requests that were turned away before their tenant's chain, by reason.",
            refused.collect(),
        ),
        (
            "sluice_otlp_chains",
            "gauge",
            "Tenants whose chain runs here.",
            vec![(String::new(), running)],
        ),
        (
            "sluice_otlp_chains_failed",
            "gauge",
            "Tenants whose chain does not run: an alarm.",
            vec![(String::new(), nodes.len() as u64 - running)],
        ),
    ];
    let of_tenants = sluice_ingest::tenants::metrics(&front.quotas.status());
    for (name, kind, help, values) in own.into_iter().chain(of_tenants) {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in values {
            let _ = writeln!(text, "{name}{labels} {value}");
        }
    }
    text
}
