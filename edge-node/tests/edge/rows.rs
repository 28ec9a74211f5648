//! What a spool holds, as the messages that it came from.

use std::collections::BTreeMap;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::metrics::v1::{Metric, metric};
use prost::Message;
use sluice_edge::link::{AckSink, BatchSource};
use sluice_edge::spool::Spool;
use sluice_wire::Signal;
use sluice_wire::envelope::Envelope;
use sluice_wire::events::{Origin, fold};
use sluice_wire::ids::Partition;
use sluice_wire::layout::IpcLimits;
use sluice_wire::otlp::encode_rows;

pub(crate) type Pairs = BTreeMap<String, Value>;

#[derive(Clone, Debug)]
pub(crate) struct Log {
    pub(crate) resource: Pairs,
    pub(crate) attributes: Pairs,
    pub(crate) time_ns: u64,
    pub(crate) severity: i32,
    pub(crate) body: Option<Value>,
    pub(crate) trace_id: Vec<u8>,
}

impl Log {
    pub(crate) fn text(&self) -> &str {
        match &self.body {
            Some(Value::StringValue(text)) => text,
            other => panic!("not a text: {other:?}"),
        }
    }

    pub(crate) fn attribute(&self, key: &str) -> &str {
        text(&self.attributes, key)
    }

    pub(crate) fn of(&self, key: &str) -> &str {
        text(&self.resource, key)
    }
}

fn text<'a>(pairs: &'a Pairs, key: &str) -> &'a str {
    match pairs.get(key) {
        Some(Value::StringValue(text)) => text,
        _ => "",
    }
}

fn pairs(list: &[KeyValue]) -> Pairs {
    let value = |any: &Option<AnyValue>| any.as_ref()?.value.clone();
    list.iter()
        .filter_map(|pair| Some((pair.key.clone(), value(&pair.value)?)))
        .collect()
}

/// Requests with the rows of each batch that is not acknowledged.
fn requests(spool: &Spool, signal: Signal) -> Vec<Vec<u8>> {
    let (mut found, mut at) = (Vec::new(), 0);
    while let Some((index, bytes)) = spool.next_from(at).unwrap() {
        found.extend(request(bytes, signal));
        at = index + 1;
    }
    found
}

fn request(batch: Bytes, signal: Signal) -> Option<Vec<u8>> {
    let envelope = Envelope::parse(batch).unwrap();
    let rows = envelope.rows(&IpcLimits::default()).unwrap()?;
    let origin = Origin {
        id: &envelope.header.id,
        partition: Partition::default(),
        offset: 0,
        ingested_at_us: 0,
    };
    Some(encode_rows(signal, &fold(&rows, &origin).unwrap()).unwrap())
}

/// Every log record from a batch on; what was read is acknowledged.
pub(crate) fn take_logs(spool: &Spool, at: &mut u64) -> Vec<Log> {
    let mut found = Vec::new();
    while let Some((index, bytes)) = spool.next_from(*at).unwrap() {
        found.extend(request(bytes, Signal::Log).iter().flat_map(|request| logs_of(request)));
        spool.acked(index);
        *at = index + 1;
    }
    found
}

/// Every log record of a spool.
pub(crate) fn logs(spool: &Spool) -> Vec<Log> {
    let requests = requests(spool, Signal::Log);
    requests.iter().flat_map(|request| logs_of(request)).collect()
}

fn logs_of(request: &[u8]) -> Vec<Log> {
    let mut found = Vec::new();
    for group in ExportLogsServiceRequest::decode(request).unwrap().resource_logs {
        let resource = group.resource.map(|r| pairs(&r.attributes)).unwrap_or_default();
        for record in group.scope_logs.into_iter().flat_map(|scope| scope.log_records) {
            found.push(Log {
                resource: resource.clone(),
                attributes: pairs(&record.attributes),
                time_ns: record.time_unix_nano,
                severity: record.severity_number,
                body: record.body.and_then(|body| body.value),
                trace_id: record.trace_id,
            });
        }
    }
    found
}

/// Every metric of a spool with its resource; the points of one metric may be in several.
pub(crate) fn metrics(spool: &Spool) -> Vec<(Pairs, Metric)> {
    let mut found = Vec::new();
    for request in requests(spool, Signal::Metric) {
        let request = ExportMetricsServiceRequest::decode(&request[..]).unwrap();
        for group in request.resource_metrics {
            let resource = group.resource.map(|r| pairs(&r.attributes)).unwrap_or_default();
            for metric in group.scope_metrics.into_iter().flat_map(|scope| scope.metrics) {
                found.push((resource.clone(), metric));
            }
        }
    }
    found
}

/// The points of a gauge or a sum: attributes and value.
pub(crate) fn numbers(metric: &Metric) -> Vec<(Pairs, f64)> {
    use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
    let points = match &metric.data {
        Some(metric::Data::Gauge(gauge)) => &gauge.data_points,
        Some(metric::Data::Sum(sum)) => &sum.data_points,
        _ => return Vec::new(),
    };
    let value = |number: &Option<Number>| match number {
        Some(Number::AsDouble(value)) => *value,
        Some(Number::AsInt(value)) => *value as f64,
        None => f64::NAN,
    };
    points.iter().map(|p| (pairs(&p.attributes), value(&p.value))).collect()
}
