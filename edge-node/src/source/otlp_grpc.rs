//! OTLP over gRPC. The framing of unary calls is read here instead of by a generic server, because the length that stands
//! before a message is what memory is reserved by before the message is read.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::routing::post;
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body::Frame;
use http_body_util::StreamBody;
use prost::Message;
use sluice_wire::Signal;
use tonic::{Code, Status};

use super::body;
use super::reply::{ExportResponse, RpcStatus};
use crate::intake::{Encoding, Format, Intake, Submission, Taken};
use crate::otlp::Accepted;
use crate::refusal::Refusal;

const SERVICES: [(&str, Signal); 3] = [
    ("/opentelemetry.proto.collector.logs.v1.LogsService/Export", Signal::Log),
    (
        "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        Signal::Span,
    ),
    (
        "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        Signal::Metric,
    ),
];
const CONTENT_TYPE: &str = "application/grpc";

/// The door as a service over HTTP/2.
pub(crate) fn router(intake: Arc<Intake>) -> Router {
    let mut router = Router::new();
    for (path, signal) in SERVICES {
        let call = move |State(intake): State<Arc<Intake>>, request| export(intake, signal, request);
        router = router.route(path, post(call));
    }
    let unknown = || async { Status::unimplemented("there is no such method here").into_http::<Body>() };
    router
        .fallback(unknown)
        .method_not_allowed_fallback(unknown)
        .with_state(intake)
}

async fn export(intake: Arc<Intake>, signal: Signal, request: Request<Body>) -> Response<Body> {
    match take(&intake, signal, request).await {
        Ok(taken) => success(&taken),
        Err(refusal) => status(&intake, &refusal).into_http(),
    }
}

async fn take(intake: &Arc<Intake>, signal: Signal, request: Request<Body>) -> Result<Taken, Refusal> {
    let submission = async {
        let (parts, body) = request.into_parts();
        check_content_type(&parts.headers)?;
        let declared = declared_encoding(&parts.headers)?;
        intake.gate()?;
        let (compressed, body, room) = body::message(intake, body).await?;
        let encoding = match (compressed, declared) {
            (false, _) => Encoding::Identity,
            (true, Encoding::Identity) => {
                return Err(Refusal::Malformed(
                    "message is compressed and grpc-encoding does not say how".to_owned(),
                ));
            }
            (true, declared) => declared,
        };
        Ok(Submission {
            signal,
            format: Format::Protobuf,
            encoding,
            body,
            room,
            source: intake.sources.otlp_grpc.clone(),
            positions: Vec::new(),
        })
    };
    match submission.await {
        Ok(submission) => intake.submit(submission).await,
        Err(refusal) => {
            intake.refuse(signal, &intake.sources.otlp_grpc, &refusal);
            Err(refusal)
        }
    }
}

fn check_content_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    match kind.split(';').next().map(str::trim) {
        Some("application/grpc" | "application/grpc+proto") => Ok(()),
        _ => Err(Refusal::Unsupported(format!(
            "content type {kind:?} is not application/grpc"
        ))),
    }
}

fn declared_encoding(headers: &HeaderMap) -> Result<Encoding, Refusal> {
    match headers.get("grpc-encoding").map(|v| v.to_str().unwrap_or("?")) {
        None | Some("identity") => Ok(Encoding::Identity),
        Some("gzip") => Ok(Encoding::Gzip),
        Some("zstd") => Ok(Encoding::Zstd),
        Some(other) => Err(Refusal::Unsupported(format!(
            "grpc-encoding {other:?} is not one of identity, gzip, zstd"
        ))),
    }
}

/// The one mapping of refusals to codes. Of those that senders repeat, only RESOURCE_EXHAUSTED with RetryInfo and
/// UNAVAILABLE are used, and only where repeating helps.
fn status(intake: &Intake, refusal: &Refusal) -> Status {
    let code = match refusal {
        Refusal::Malformed(_) | Refusal::TooLarge { .. } => Code::InvalidArgument,
        Refusal::Unsupported(_) => Code::Unimplemented,
        // The sender was too slow for this one; it may be faster the next time.
        Refusal::Slow(_) => Code::DeadlineExceeded,
        Refusal::Masked(_) => Code::FailedPrecondition,
        Refusal::Internal(_) => Code::Internal,
        Refusal::Busy | Refusal::Full => Code::ResourceExhausted,
        Refusal::PluginDown(_) | Refusal::Stopping => Code::Unavailable,
    };
    let message = refusal.to_string();
    let retry_after = refusal.is_retryable().then_some(intake.limits.retry_after);
    let details = RpcStatus::new(code as i32, message.clone(), retry_after).encode_to_vec();
    Status::with_details(code, message, details.into())
}

fn success(taken: &Taken) -> Response<Body> {
    let message = ExportResponse::new(taken).encode_to_vec();
    let mut framed = BytesMut::with_capacity(5 + message.len());
    framed.put_u8(0);
    framed.put_u32(message.len() as u32);
    framed.put_slice(&message);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let frames: [Result<Frame<Bytes>, std::convert::Infallible>; 2] =
        [Ok(Frame::data(framed.freeze())), Ok(Frame::trailers(trailers))];
    let mut response = Response::new(Body::new(StreamBody::new(futures::stream::iter(frames))));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    headers.insert("grpc-accept-encoding", HeaderValue::from_static("identity,gzip,zstd"));
    response.extensions_mut().insert(Accepted(taken.accepted));
    response
}
