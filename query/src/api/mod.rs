//! The HTTP door: `POST /v1/sql` and what watches the process.

mod auth;
mod probes;
mod problem;
mod sql;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use axum::routing::{get, post};

use crate::engine::Engine;
use crate::error::{Kind, QueryError};
use crate::status::StatusSource;
use crate::tokens::Tokens;

/// What every handler needs.
pub(crate) struct Api {
    pub(crate) engine: Arc<Engine>,
    pub(crate) tokens: Tokens,
    pub(crate) status: Arc<dyn StatusSource>,
    /// `/metrics` answers without a token: only where nobody but this machine can ask.
    pub(crate) open_metrics: bool,
}

pub(crate) fn router(api: Arc<Api>) -> Router {
    Router::new()
        .route("/v1/sql", post(sql::ask))
        .route("/v1/status", get(probes::status))
        .route("/healthz", get(probes::healthz))
        .route("/readyz", get(probes::readyz))
        .route("/metrics", get(probes::metrics))
        .route("/openapi.json", get(probes::openapi))
        .fallback(|| async {
            problem::response(
                &QueryError::new(Kind::NotFound, "there is nothing at this address")
                    .hint("GET /openapi.json lists what there is"),
            )
        })
        .method_not_allowed_fallback(|| async {
            problem::response(&QueryError::new(
                Kind::MethodNotAllowed,
                "this address does not take this method",
            ))
        })
        // the handler reads the body itself, after the token, and up to the configured limit
        .layer(DefaultBodyLimit::disable())
        .layer(axum::middleware::map_response(guard_headers))
        .with_state(api)
}

/// Answers are for the one who asked: no cache keeps them, no browser guesses what they are.
async fn guard_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
