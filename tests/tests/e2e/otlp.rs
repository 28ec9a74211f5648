//! Requests by hand, for tests that must know every byte of them.

use http::{Request, header};
use http_body_util::Full;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;

use sluice_bench::process::{HttpAnswer, http_send};
use sluice_tests::SOON;

pub(crate) fn text(value: &str) -> Value {
    Value::StringValue(value.to_owned())
}

#[allow(clippy::needless_update)]
pub(crate) fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

/// One log record with this body and these attributes.
pub(crate) fn one_log(body: &str, attributes: Vec<KeyValue>) -> Vec<u8> {
    let record = LogRecord {
        time_unix_nano: 1_767_225_600_000_000_001,
        severity_number: 13,
        severity_text: "WARN".to_owned(),
        body: Some(AnyValue {
            value: Some(text(body)),
        }),
        attributes,
        trace_id: (1..=16).collect(),
        span_id: (1..=8).collect(),
        ..LogRecord::default()
    };
    let request = ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: Some(Resource {
                attributes: vec![attribute("service.name", text("door-test"))],
                ..Resource::default()
            }),
            scope_logs: vec![ScopeLogs {
                log_records: vec![record],
                ..ScopeLogs::default()
            }],
            ..ResourceLogs::default()
        }],
    };
    request.encode_to_vec()
}

/// POST to the OTLP/HTTP door; every status is an answer.
pub(crate) async fn post(url: &str, content_type: &str, encoding: Option<&str>, body: Vec<u8>) -> HttpAnswer {
    let mut request = Request::post(url).header(header::CONTENT_TYPE, content_type);
    if let Some(encoding) = encoding {
        request = request.header(header::CONTENT_ENCODING, encoding);
    }
    http_send(request.body(Full::from(body)).unwrap(), SOON).await.unwrap()
}
