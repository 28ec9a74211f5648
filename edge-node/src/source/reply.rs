//! The messages that answers are made of. They are so small that they are declared here.

use sluice_wire::Signal;

use crate::intake::Taken;

/// `Export{Logs,Trace,Metrics}ServiceResponse`: the three are alike on the wire.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ExportResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) partial_success: Option<PartialSuccess>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PartialSuccess {
    #[prost(int64, tag = "1")]
    pub(super) rejected: i64,
    #[prost(string, tag = "2")]
    pub(super) error_message: String,
}

/// `google.rpc.Status`
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct RpcStatus {
    #[prost(int32, tag = "1")]
    pub(crate) code: i32,
    #[prost(string, tag = "2")]
    pub(crate) message: String,
    #[prost(message, repeated, tag = "3")]
    pub(crate) details: Vec<Any>,
}

/// `google.protobuf.Any`
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Any {
    #[prost(string, tag = "1")]
    pub(crate) type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) value: Vec<u8>,
}

/// `google.rpc.RetryInfo`
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    pub(crate) retry_delay: Option<Delay>,
}

/// `google.protobuf.Duration`
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Delay {
    #[prost(int64, tag = "1")]
    pub(crate) seconds: i64,
    #[prost(int32, tag = "2")]
    pub(crate) nanos: i32,
}

impl ExportResponse {
    pub(crate) fn new(taken: &Taken) -> Self {
        let is_partial = taken.rejected > 0 || taken.reason.is_some();
        Self {
            partial_success: is_partial.then(|| PartialSuccess {
                rejected: i64::try_from(taken.rejected).unwrap_or(i64::MAX),
                error_message: taken.reason.clone().unwrap_or_default(),
            }),
        }
    }

    /// The same in the JSON of OTLP: 64-bit numbers are text.
    pub(crate) fn to_json(&self, signal: Signal) -> serde_json::Value {
        let Some(partial) = &self.partial_success else {
            return serde_json::json!({});
        };
        let name = match signal {
            Signal::Log => "rejectedLogRecords",
            Signal::Span => "rejectedSpans",
            Signal::Metric => "rejectedDataPoints",
        };
        serde_json::json!({
            "partialSuccess": { name: partial.rejected.to_string(), "errorMessage": partial.error_message }
        })
    }
}

impl RpcStatus {
    /// With a hint when to come again.
    pub(crate) fn new(code: i32, message: String, retry_after: Option<std::time::Duration>) -> Self {
        use prost::Message;
        let details = retry_after.map(|after| Any {
            type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(),
            value: RetryInfo {
                retry_delay: Some(Delay {
                    seconds: after.as_secs() as i64,
                    nanos: after.subsec_nanos() as i32,
                }),
            }
            .encode_to_vec(),
        });
        Self {
            code,
            message,
            details: details.into_iter().collect(),
        }
    }
}
