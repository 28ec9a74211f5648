//! The OTLP doors of a node for a process that has sockets of its own, and knows who sends: an edge in the cloud.
//!
//! The process authenticates, then hands a request to [`OtlpRoutes`]; what it turns away itself it answers by [`TurnedAway`], in the
//! manner of the protocol.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::{HeaderValue, Response, StatusCode, header};
use prost::Message;
use tonic::{Code, Status};

use crate::source::reply::RpcStatus;

/// The doors of a running node.
#[derive(Clone, Debug)]
pub struct OtlpRoutes {
    pub grpc: Router,
    /// JSON lines, too.
    pub http: Router,
}

/// In the extensions of an answer that says "accepted": so many events are on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted(pub u64);

/// Why somebody is turned away before a node sees the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TurnedAway {
    /// Nobody knows who it is.
    Unauthenticated,
    /// It is known, and may not.
    Forbidden,
    /// It may again after this.
    OverQuota(Duration),
    /// Nothing is taken here for now.
    Unavailable(Duration),
}

/// Which protocol an answer is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtlpDoor {
    Grpc,
    Http,
}

impl TurnedAway {
    /// The answer, with the time to come again where there is one.
    pub fn answer(&self, door: OtlpDoor, message: &str) -> Response<Body> {
        let (status, code, after) = match *self {
            Self::Unauthenticated => (StatusCode::UNAUTHORIZED, Code::Unauthenticated, None),
            Self::Forbidden => (StatusCode::FORBIDDEN, Code::PermissionDenied, None),
            Self::OverQuota(after) => (StatusCode::TOO_MANY_REQUESTS, Code::ResourceExhausted, Some(after)),
            Self::Unavailable(after) => (StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable, Some(after)),
        };
        let mut response = match door {
            OtlpDoor::Grpc => {
                let details = RpcStatus::new(code as i32, message.to_owned(), after).encode_to_vec();
                Status::with_details(code, message, details.into()).into_http()
            }
            OtlpDoor::Http => {
                let body = serde_json::json!({ "code": code as i32, "message": message }).to_string();
                let mut response = Response::new(Body::from(body));
                *response.status_mut() = status;
                let json = HeaderValue::from_static("application/json");
                response.headers_mut().insert(header::CONTENT_TYPE, json);
                response
            }
        };
        let headers = response.headers_mut();
        if *self == Self::Unauthenticated {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let (OtlpDoor::Http, Some(after)) = (door, after) {
            // Whole seconds, and zero would mean at once.
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        response
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn each_protocol_is_told_in_its_own_manner_when_to_come_again() {
        let over = TurnedAway::OverQuota(Duration::from_millis(1_500));
        let http = over.answer(OtlpDoor::Http, "too much");
        assert_eq!(
            (http.status().as_u16(), &http.headers()["retry-after"]),
            (429, &"2".parse().unwrap())
        );
        let grpc = over.answer(OtlpDoor::Grpc, "too much");
        assert_eq!(grpc.headers()["grpc-status"], "8");
        let status = Status::from_header_map(grpc.headers()).unwrap();
        let details = RpcStatus::decode(status.details()).unwrap();
        assert!(details.details[0].type_url.ends_with("google.rpc.RetryInfo"));
        for (why, code, grpc_code) in [
            (TurnedAway::Unauthenticated, 401, "16"),
            (TurnedAway::Forbidden, 403, "7"),
            (TurnedAway::Unavailable(Duration::from_secs(1)), 503, "14"),
        ] {
            assert_eq!(why.answer(OtlpDoor::Http, "no").status().as_u16(), code);
            assert_eq!(why.answer(OtlpDoor::Grpc, "no").headers()["grpc-status"], grpc_code);
        }
    }
}
