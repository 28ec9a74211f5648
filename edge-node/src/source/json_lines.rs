//! JSON lines over HTTP: logs from whatever can post an object a line, or an array of them. A request is taken whole or refused
//! whole; the refusal names the line.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use http::{HeaderMap, Request, Response, StatusCode, header};
use sluice_wire::Signal;

use super::otlp_http::{failure, respond, take};
use crate::intake::{Format, Intake};
use crate::otlp::Accepted;
use crate::refusal::Refusal;

pub(super) const PATH: &str = "/v1/logs/json";
/// What the shippers of others call it; a plain `curl --data-binary` says the last one.
const TYPES: [&str; 9] = [
    "",
    "application/x-ndjson",
    "application/ndjson",
    "application/jsonl",
    "application/x-jsonlines",
    "application/json-lines",
    "application/json",
    "text/plain",
    "application/x-www-form-urlencoded",
];

pub(super) async fn export(State(intake): State<Arc<Intake>>, request: Request<Body>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let format = format(&parts.headers);
    let taken = take(
        &intake,
        &intake.sources.json_lines,
        Signal::Log,
        format,
        &parts.headers,
        body,
    );
    match taken.await {
        Ok(taken) => {
            let mut answer = serde_json::json!({ "accepted": taken.accepted });
            if let Some(reason) = &taken.reason {
                answer["rejected"] = taken.rejected.into();
                answer["message"] = reason.as_str().into();
            }
            let mut response = respond(StatusCode::OK, Format::JsonLines, answer.to_string().into_bytes());
            response.extensions_mut().insert(Accepted(taken.accepted));
            response
        }
        Err(refusal) => failure(&intake, Format::JsonLines, &refusal),
    }
}

fn format(headers: &HeaderMap) -> Result<Format, Refusal> {
    let kind = headers
        .get(header::CONTENT_TYPE)
        .map_or("", |v| v.to_str().unwrap_or("?"));
    let name = kind.split(';').next().unwrap_or_default().trim();
    if TYPES.iter().any(|known| known.eq_ignore_ascii_case(name)) {
        return Ok(Format::JsonLines);
    }
    Err(Refusal::Unsupported(format!(
        "content type {kind:?} is not application/x-ndjson or application/json"
    )))
}
