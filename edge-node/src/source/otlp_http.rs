//! OTLP over HTTP: protobuf and JSON, answered in the type of the request. JSON lines come in at the same address.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::routing::post;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use prost::Message;
use sluice_wire::Signal;
use tonic::Code;

use super::body;
use super::json_lines;
use super::reply::{ExportResponse, RpcStatus};
use crate::intake::{Encoding, Format, Intake, Submission, Taken};
use crate::otlp::Accepted;
use crate::refusal::Refusal;
use crate::source::stats::SourceStats;

const PATHS: [(&str, Signal); 3] = [
    ("/v1/logs", Signal::Log),
    ("/v1/traces", Signal::Span),
    ("/v1/metrics", Signal::Metric),
];

/// The door as a service.
pub(crate) fn router(intake: Arc<Intake>) -> Router {
    let mut router = Router::new();
    for (path, signal) in PATHS {
        let call = move |State(intake): State<Arc<Intake>>, request| export(intake, signal, request);
        router = router.route(path, post(call));
    }
    router
        .route(json_lines::PATH, post(json_lines::export))
        .fallback(|| async {
            plain(
                StatusCode::NOT_FOUND,
                "paths are /v1/logs, /v1/traces, /v1/metrics and, for JSON lines, /v1/logs/json\n",
            )
        })
        .method_not_allowed_fallback(|| async { plain(StatusCode::METHOD_NOT_ALLOWED, "send POST\n") })
        .with_state(intake)
}

async fn export(intake: Arc<Intake>, signal: Signal, request: Request<Body>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let format = format(&parts.headers);
    let result = take(
        &intake,
        &intake.sources.otlp_http,
        signal,
        format.clone(),
        &parts.headers,
        body,
    )
    .await;
    // A request whose type is not known gets the type that people can read.
    let format = format.unwrap_or(Format::Json);
    match result {
        Ok(taken) => success(signal, format, &taken),
        Err(refusal) => failure(&intake, format, &refusal),
    }
}

pub(super) async fn take(
    intake: &Arc<Intake>,
    source: &Arc<SourceStats>,
    signal: Signal,
    format: Result<Format, Refusal>,
    headers: &HeaderMap,
    body: Body,
) -> Result<Taken, Refusal> {
    let submission = async {
        let early = format
            .and_then(|f| Ok((f, encoding(headers)?)))
            .and_then(|e| intake.gate().map(|()| e));
        let (format, encoding) = match early {
            Ok(early) => early,
            Err(refusal) => {
                body::discard(body).await;
                return Err(refusal);
            }
        };
        let announced = headers
            .get(header::CONTENT_LENGTH)
            .and_then(|v| v.to_str().ok()?.parse().ok());
        let (body, room) = body::whole(intake, body, announced).await?;
        Ok(Submission {
            signal,
            format,
            encoding,
            body,
            room,
            source: source.clone(),
            positions: Vec::new(),
        })
    };
    match submission.await {
        Ok(submission) => intake.submit(submission).await,
        Err(refusal) => {
            intake.refuse(signal, source, &refusal);
            Err(refusal)
        }
    }
}

fn format(headers: &HeaderMap) -> Result<Format, Refusal> {
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    match kind
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase()
        .as_str()
    {
        "application/x-protobuf" | "application/protobuf" => Ok(Format::Protobuf),
        "application/json" => Ok(Format::Json),
        _ => Err(Refusal::Unsupported(format!(
            "content type {kind:?} is not application/x-protobuf or application/json"
        ))),
    }
}

fn encoding(headers: &HeaderMap) -> Result<Encoding, Refusal> {
    match headers.get(header::CONTENT_ENCODING).map(|v| v.to_str().unwrap_or("?")) {
        None | Some("" | "identity") => Ok(Encoding::Identity),
        Some("gzip") => Ok(Encoding::Gzip),
        Some("zstd") => Ok(Encoding::Zstd),
        Some(other) => Err(Refusal::Unsupported(format!(
            "content encoding {other:?} is not one of identity, gzip, zstd"
        ))),
    }
}

/// The one mapping of refusals to status codes. Senders repeat on 429, 502, 503 and 504 only.
fn codes(refusal: &Refusal) -> (StatusCode, Code) {
    match refusal {
        Refusal::Malformed(_) => (StatusCode::BAD_REQUEST, Code::InvalidArgument),
        Refusal::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, Code::InvalidArgument),
        Refusal::Unsupported(_) => (StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::InvalidArgument),
        Refusal::Slow(_) => (StatusCode::REQUEST_TIMEOUT, Code::DeadlineExceeded),
        Refusal::Masked(_) => (StatusCode::UNPROCESSABLE_ENTITY, Code::FailedPrecondition),
        Refusal::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, Code::Internal),
        Refusal::Busy | Refusal::Full => (StatusCode::TOO_MANY_REQUESTS, Code::ResourceExhausted),
        Refusal::PluginDown(_) | Refusal::Stopping => (StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable),
    }
}

fn success(signal: Signal, format: Format, taken: &Taken) -> Response<Body> {
    let message = ExportResponse::new(taken);
    let body = match format {
        Format::Protobuf => message.encode_to_vec(),
        Format::Json | Format::JsonLines => message.to_json(signal).to_string().into_bytes(),
    };
    let mut response = respond(StatusCode::OK, format, body);
    response.extensions_mut().insert(Accepted(taken.accepted));
    response
}

pub(super) fn failure(intake: &Intake, format: Format, refusal: &Refusal) -> Response<Body> {
    let (status, code) = codes(refusal);
    let retry_after = refusal.is_retryable().then_some(intake.limits.retry_after);
    let message = RpcStatus::new(code as i32, refusal.to_string(), retry_after);
    let body = match format {
        Format::Protobuf => message.encode_to_vec(),
        Format::Json | Format::JsonLines => serde_json::json!({ "code": message.code, "message": message.message })
            .to_string()
            .into_bytes(),
    };
    let mut response = respond(status, format, body);
    if let Some(after) = retry_after {
        // Whole seconds, and zero would mean at once.
        let seconds = after.as_secs().max(1);
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

pub(super) fn respond(status: StatusCode, format: Format, body: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let kind = match format {
        Format::Protobuf => "application/x-protobuf",
        Format::Json | Format::JsonLines => "application/json",
    };
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn plain(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}
