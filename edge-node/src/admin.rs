//! What an operator and a monitor ask: health, readiness, metrics, status.

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::routing::get;
use http::{HeaderValue, Response, StatusCode, header};

use crate::metrics;
use crate::sealer::blocking;
use crate::status::{EdgeStatus, StatusHandle};
use crate::tap::{self, TapDoor};

pub(crate) fn router(status: StatusHandle, tap: TapDoor) -> Router {
    Router::new()
        .route(
            "/healthz",
            get(|| async { page(StatusCode::OK, "text/plain", "ok\n".to_owned()) }),
        )
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics_page))
        .route("/v1/status", get(status_page))
        .route("/v1/tap", get(tap::page).with_state(tap))
        .fallback(|| async { page(StatusCode::NOT_FOUND, "text/plain", "not found\n".to_owned()) })
        .with_state(status)
}

async fn ready(State(status): State<StatusHandle>) -> Response<Body> {
    if status.is_ready() {
        let degraded = status
            .degraded()
            .map_or(String::new(), |why| format!(", degraded: {why}"));
        page(StatusCode::OK, "text/plain", format!("ready{degraded}\n"))
    } else {
        page(
            StatusCode::SERVICE_UNAVAILABLE,
            "text/plain",
            "takes no events now\n".to_owned(),
        )
    }
}

async fn metrics_page(State(status): State<StatusHandle>) -> Response<Body> {
    // A snapshot may read a batch from disk.
    let text = blocking(move || metrics::render(&status.snapshot())).await;
    page(StatusCode::OK, "text/plain; version=0.0.4", text)
}

async fn status_page(State(status): State<StatusHandle>) -> Response<Body> {
    match blocking(move || whole(&status)).await {
        Ok(text) => page(StatusCode::OK, "application/json", text),
        Err(e) => page(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", e.to_string()),
    }
}

/// What the node says of itself, and whether it does its job.
#[derive(serde::Serialize)]
struct Whole {
    ready: bool,
    degraded: Option<String>,
    #[serde(flatten)]
    status: EdgeStatus,
}

fn whole(status: &StatusHandle) -> serde_json::Result<String> {
    serde_json::to_string(&Whole {
        ready: status.is_ready(),
        degraded: status.degraded(),
        status: status.snapshot(),
    })
}

fn page(status: StatusCode, kind: &'static str, text: String) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
