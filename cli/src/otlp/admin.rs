//! What a monitor asks of the OTLP role: health, readiness, metrics, status.

use std::fmt::Write;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{StatusCode, header};
use serde_json::{Value, json};

use super::door::Front;
use super::health::Chain;

pub(super) fn router(front: Front) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/v1/status", get(status))
        .with_state(front)
}

/// Reads counters of nodes, which may wait for a lock that a disk holds.
async fn look<T: Send + 'static>(front: Front, look: fn(&Front) -> T) -> Option<T> {
    tokio::task::spawn_blocking(move || look(&front)).await.ok()
}

/// Whether data moves. What is wrong with one tenant is told, and is no reason to send the others elsewhere.
async fn ready(State(front): State<Front>) -> Response {
    let health = look(front, |front| front.edges.look().health())
        .await
        .unwrap_or_default();
    let status = match health.is_ready {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, health.line()).into_response()
}

async fn status(State(front): State<Front>) -> Response {
    axum::Json(look(front, whole).await.unwrap_or_default()).into_response()
}

fn whole(front: &Front) -> Value {
    let look = front.edges.look();
    let health = look.health();
    json!({
        "ready": health.is_ready,
        "degraded": health.degraded,
        "refused": front.refused.counts(),
        "alarms": front.refused.alarms(),
        "tenants": front.quotas.status(),
        "edges": look.nodes,
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
    let chains = front.edges.look().chains;
    let count =
        |is: fn(&Chain) -> bool| vec![(String::new(), chains.values().filter(|chain| is(chain)).count() as u64)];
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
            count(|chain| matches!(chain, Chain::Runs { .. } | Chain::Starts)),
        ),
        (
            "sluice_otlp_chains_full",
            "gauge",
            "Those of them that take no events now, because there is no room.",
            count(|chain| matches!(chain, Chain::Runs { takes: false, .. })),
        ),
        (
            "sluice_otlp_chains_unlinked",
            "gauge",
            "Those of them without a link to a gateway: what they take stays on the disk.",
            count(|chain| matches!(chain, Chain::Runs { is_linked: false, .. })),
        ),
        (
            "sluice_otlp_chains_failed",
            "gauge",
            "Tenants whose chain does not run: an alarm.",
            count(|chain| *chain == Chain::Failed),
        ),
        (
            "sluice_otlp_chains_waiting",
            "gauge",
            "Tenants that left something on the disk, which waits for its turn.",
            count(|chain| *chain == Chain::Waits),
        ),
        (
            "sluice_otlp_chains_stranded",
            "gauge",
            "Tenants that left something on the disk and are not served any more: an alarm.",
            count(|chain| *chain == Chain::Stranded),
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
