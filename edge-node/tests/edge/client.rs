//! Requests as SDKs make them, and the two ways to send them.

use std::net::SocketAddr;

use bytes::{Buf, BufMut, Bytes};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use sluice_wire::Signal;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Request, Status};

pub(crate) const PATHS: [(Signal, &str, &str); 3] = [
    (
        Signal::Log,
        "/v1/logs",
        "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
    ),
    (
        Signal::Span,
        "/v1/traces",
        "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    ),
    (
        Signal::Metric,
        "/v1/metrics",
        "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    ),
];

/// A request whose events carry the ids `<prefix>-0`, `<prefix>-1`, …
pub(crate) fn request(signal: Signal, prefix: &str, rows: usize, body: &str) -> Bytes {
    let resource = Some(Resource {
        attributes: vec![text("service.name", "checkout")],
        ..Resource::default()
    });
    let attributes = |row: usize| vec![text("evt.id", &format!("{prefix}-{row}")), text("http.route", "/pay")];
    let bytes = match signal {
        Signal::Log => {
            let record = |row| LogRecord {
                time_unix_nano: 1_700_000_000_000_000_000 + row as u64,
                body: Some(any(&format!("{body} {row}"))),
                severity_number: 9,
                attributes: attributes(row),
                ..LogRecord::default()
            };
            let scope = ScopeLogs {
                log_records: (0..rows).map(record).collect(),
                ..ScopeLogs::default()
            };
            let resource = ResourceLogs {
                resource,
                scope_logs: vec![scope],
                ..ResourceLogs::default()
            };
            ExportLogsServiceRequest {
                resource_logs: vec![resource],
            }
            .encode_to_vec()
        }
        Signal::Span => {
            let span = |row: usize| Span {
                trace_id: vec![7; 16],
                span_id: (1 + row as u64).to_be_bytes().to_vec(),
                name: format!("span {row}"),
                attributes: attributes(row),
                ..Span::default()
            };
            let scope = ScopeSpans {
                spans: (0..rows).map(span).collect(),
                ..ScopeSpans::default()
            };
            let resource = ResourceSpans {
                resource,
                scope_spans: vec![scope],
                ..ResourceSpans::default()
            };
            ExportTraceServiceRequest {
                resource_spans: vec![resource],
            }
            .encode_to_vec()
        }
        Signal::Metric => {
            let point = |row: usize| NumberDataPoint {
                attributes: attributes(row),
                value: Some(number_data_point::Value::AsDouble(row as f64)),
                ..NumberDataPoint::default()
            };
            let gauge = Gauge {
                data_points: (0..rows).map(point).collect(),
            };
            let metric = Metric {
                name: "load".to_owned(),
                data: Some(metric::Data::Gauge(gauge)),
                ..Metric::default()
            };
            let scope = ScopeMetrics {
                metrics: vec![metric],
                ..ScopeMetrics::default()
            };
            let resource = ResourceMetrics {
                resource,
                scope_metrics: vec![scope],
                ..ResourceMetrics::default()
            };
            ExportMetricsServiceRequest {
                resource_metrics: vec![resource],
            }
            .encode_to_vec()
        }
    };
    Bytes::from(bytes)
}

pub(crate) fn any(value: &str) -> AnyValue {
    AnyValue {
        value: Some(Value::StringValue(value.to_owned())),
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(any(value)),
        ..KeyValue::default()
    }
}

/// What a request over HTTP says.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) kind: String,
    pub(crate) retry_after: Option<String>,
    pub(crate) body: Bytes,
}

pub(crate) type Http = Client<HttpConnector, Full<Bytes>>;

pub(crate) fn http() -> Http {
    Client::builder(TokioExecutor::new()).build_http()
}

pub(crate) async fn post(
    http: &Http,
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
    body: Bytes,
) -> Result<Answer, hyper_util::client::legacy::Error> {
    let mut request = http::Request::post(format!("http://{address}{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = http.request(request.body(Full::new(body)).unwrap()).await?;
    let header = |name: &str| response.headers().get(name).map(|v| v.to_str().unwrap().to_owned());
    let (kind, retry_after) = (header("content-type").unwrap_or_default(), header("retry-after"));
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    Ok(Answer {
        status,
        kind,
        retry_after,
        body,
    })
}

pub(crate) const PROTOBUF: &[(&str, &str)] = &[("content-type", "application/x-protobuf")];

/// Sends protobuf and tells whether it was accepted.
pub(crate) async fn send(http: &Http, address: SocketAddr, path: &str, body: Bytes) -> bool {
    matches!(post(http, address, path, PROTOBUF, body).await, Ok(answer) if answer.status == 200)
}

/// A gRPC client that sends any bytes as the message.
#[derive(Clone, Debug)]
pub(crate) struct Grpc(Channel);

impl Grpc {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self(
            Channel::from_shared(format!("http://{address}"))
                .unwrap()
                .connect_lazy(),
        )
    }

    pub(crate) async fn call(
        &self,
        path: &'static str,
        message: Bytes,
        compression: Option<CompressionEncoding>,
    ) -> Result<ExportLogsServiceResponse, Status> {
        let mut client = tonic::client::Grpc::new(self.0.clone());
        if let Some(encoding) = compression {
            client = client.send_compressed(encoding);
        }
        client.ready().await.map_err(|e| Status::unknown(e.to_string()))?;
        let path = http::uri::PathAndQuery::from_static(path);
        let response = client.unary(Request::new(message), path, RawCodec).await?;
        Ok(ExportLogsServiceResponse::decode(response.into_inner()).unwrap())
    }
}

#[derive(Debug)]
struct RawCodec;

impl Codec for RawCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(item);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, src: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(src.copy_to_bytes(src.remaining())))
    }
}
