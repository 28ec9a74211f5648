//! A refused or failed query as gRPC says it: a status, a sentence with its place and hint, and the stable code as a header.

use arrow_flight::error::FlightError;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

use crate::error::{Kind, QueryError};

/// Where programs find the code and the hint.
const CODE: &str = "sluice-code";
const HINT: &str = "sluice-hint";

/// <https://grpc.io/docs/guides/status-codes/>
fn status(kind: Kind) -> Code {
    match kind {
        Kind::Unauthorized => Code::Unauthenticated,
        Kind::Forbidden | Kind::ReadOnly => Code::PermissionDenied,
        Kind::BadRequest
        | Kind::Syntax
        | Kind::NotOneStatement
        | Kind::UnknownTable
        | Kind::UnknownColumn
        | Kind::UnknownFunction
        | Kind::Invalid
        | Kind::NotAcceptable => Code::InvalidArgument,
        Kind::Unsupported | Kind::MethodNotAllowed => Code::Unimplemented,
        Kind::Execution => Code::FailedPrecondition,
        Kind::Timeout => Code::DeadlineExceeded,
        Kind::NotFound => Code::NotFound,
        Kind::Unavailable => Code::Unavailable,
        Kind::Internal => Code::Internal,
        // limits
        _ => Code::ResourceExhausted,
    }
}

pub(super) fn of_query(error: QueryError) -> Status {
    let code = error.kind.code();
    if matches!(error.kind, Kind::Internal | Kind::Unavailable) {
        tracing::error!(code, error = &error as &dyn std::error::Error, "query not answered");
    } else {
        tracing::debug!(code, %error, "query refused");
    }
    let mut message = format!("{code}: {}", error.message);
    if let Some(place) = error.position {
        message.push_str(&format!(" (line {}, column {})", place.line, place.column));
    }
    if let Some(hint) = &error.hint {
        message.push_str(&format!("; hint: {hint}"));
    }
    let mut metadata = MetadataMap::new();
    metadata.insert(CODE, MetadataValue::from_static(code));
    // a hint in other letters stands in the sentence alone
    if let Some(hint) = error
        .hint
        .as_deref()
        .and_then(|hint| MetadataValue::try_from(hint).ok())
    {
        metadata.insert(HINT, hint);
    }
    if let Some(wait) = error.retry_after {
        metadata.insert("retry-after", wait.as_secs().max(1).into());
    }
    Status::with_metadata(status(error.kind), message, metadata)
}

pub(super) fn refused(kind: Kind, message: impl Into<String>) -> Status {
    of_query(QueryError::new(kind, message))
}

/// What would change something.
pub(super) fn read_only() -> Status {
    of_query(crate::position::read_only())
}

pub(super) fn cancelled() -> Status {
    Status::cancelled("cancelled: the client cancelled this query")
}

/// What came over the wire is not what the protocol says.
pub(super) fn malformed(what: &str) -> Status {
    refused(Kind::BadRequest, what)
}

/// A value that could not be written as Arrow.
pub(super) fn of_flight(error: FlightError) -> Status {
    match error {
        FlightError::Tonic(status) => *status,
        other => of_query(QueryError::new(Kind::Internal, "the answer cannot be written as Arrow").because(other)),
    }
}
