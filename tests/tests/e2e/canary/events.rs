//! Requests in which every field that holds text holds a text of its own, which can be found again anywhere.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, EntityRef, InstrumentationScope, KeyValue, KeyValueList, any_value::Value,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{
    Exemplar, Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;
use sluice_bench::corpus::Signal;

use crate::otlp::{attribute, text};

const TIME: u64 = 1_767_225_600_000_000_001;

/// Makes texts that look like an address of a person, each once.
pub(super) struct Canaries {
    series: String,
    made: Vec<String>,
}

impl Canaries {
    pub(super) fn new(series: &str) -> Canaries {
        Canaries {
            series: series.to_owned(),
            made: Vec::new(),
        }
    }

    /// Everything that was made, with the field it stands in.
    pub(super) fn made(&self) -> &[String] {
        &self.made
    }

    fn next(&mut self, field: &str) -> String {
        let canary = format!("canary.{}.{field}@example.com", self.series);
        assert!(!self.made.contains(&canary), "{canary} twice");
        self.made.push(canary.clone());
        canary
    }

    fn value(&mut self, field: &str) -> AnyValue {
        AnyValue {
            value: Some(text(&self.next(field))),
        }
    }

    /// Attributes with a canary as key, as text, in a list, in a map and as a key of a map.
    fn attributes(&mut self, set: &str) -> Vec<KeyValue> {
        let key = self.next(&format!("{set}-key"));
        let inner = KeyValue {
            key: self.next(&format!("{set}-map-key")),
            value: Some(self.value(&format!("{set}-map"))),
            ..KeyValue::default()
        };
        vec![
            attribute(&key, Value::IntValue(1)),
            KeyValue {
                key: "plain".to_owned(),
                value: Some(self.value(&format!("{set}-text"))),
                ..KeyValue::default()
            },
            attribute(
                "list",
                Value::ArrayValue(ArrayValue {
                    values: vec![self.value(&format!("{set}-list"))],
                }),
            ),
            attribute("map", Value::KvlistValue(KeyValueList { values: vec![inner] })),
        ]
    }

    fn resource(&mut self) -> Option<Resource> {
        Some(Resource {
            attributes: self.attributes("resource"),
            entity_refs: vec![EntityRef {
                schema_url: self.next("entity-schema"),
                r#type: self.next("entity-type"),
                id_keys: vec![self.next("entity-id")],
                description_keys: vec![self.next("entity-description")],
            }],
            ..Resource::default()
        })
    }

    fn scope(&mut self) -> Option<InstrumentationScope> {
        Some(InstrumentationScope {
            name: self.next("scope-name"),
            version: self.next("scope-version"),
            attributes: self.attributes("scope"),
            ..InstrumentationScope::default()
        })
    }

    /// A request with one event. A log record has this body, if one is given.
    pub(super) fn request(&mut self, signal: Signal, body: Option<&str>) -> Vec<u8> {
        match signal {
            Signal::Log => self.log(body).encode_to_vec(),
            Signal::Span => self.span().encode_to_vec(),
            Signal::Metric => self.metric().encode_to_vec(),
        }
    }

    fn log(&mut self, body: Option<&str>) -> ExportLogsServiceRequest {
        let body = match body {
            Some(body) => AnyValue {
                value: Some(text(body)),
            },
            None => self.value("body"),
        };
        let record = LogRecord {
            time_unix_nano: TIME,
            severity_number: 9,
            severity_text: self.next("severity-text"),
            body: Some(body),
            attributes: self.attributes("log"),
            event_name: self.next("event-name"),
            ..LogRecord::default()
        };
        ExportLogsServiceRequest {
            resource_logs: vec![ResourceLogs {
                resource: self.resource(),
                scope_logs: vec![ScopeLogs {
                    scope: self.scope(),
                    log_records: vec![record],
                    schema_url: self.next("scope-schema"),
                }],
                schema_url: self.next("resource-schema"),
            }],
        }
    }

    fn span(&mut self) -> ExportTraceServiceRequest {
        let span = Span {
            trace_id: (1..=16).collect(),
            span_id: (1..=8).collect(),
            trace_state: self.next("trace-state"),
            name: self.next("span-name"),
            start_time_unix_nano: TIME,
            end_time_unix_nano: TIME + 1,
            attributes: self.attributes("span"),
            events: vec![Event {
                time_unix_nano: TIME,
                name: self.next("span-event-name"),
                attributes: self.attributes("event"),
                ..Event::default()
            }],
            links: vec![Link {
                trace_id: (2..=17).collect(),
                span_id: (2..=9).collect(),
                trace_state: self.next("link-state"),
                attributes: self.attributes("link"),
                ..Link::default()
            }],
            status: Some(Status {
                message: self.next("status-message"),
                code: 2,
            }),
            ..Span::default()
        };
        ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: self.resource(),
                scope_spans: vec![ScopeSpans {
                    scope: self.scope(),
                    spans: vec![span],
                    schema_url: self.next("scope-schema"),
                }],
                schema_url: self.next("resource-schema"),
            }],
        }
    }

    fn metric(&mut self) -> ExportMetricsServiceRequest {
        let point = NumberDataPoint {
            attributes: self.attributes("point"),
            time_unix_nano: TIME,
            value: Some(number_data_point::Value::AsDouble(1.5)),
            exemplars: vec![Exemplar {
                filtered_attributes: self.attributes("exemplar"),
                time_unix_nano: TIME,
                ..Exemplar::default()
            }],
            ..NumberDataPoint::default()
        };
        let metric = Metric {
            name: self.next("metric-name"),
            description: self.next("description"),
            unit: self.next("unit"),
            metadata: self.attributes("metadata"),
            data: Some(metric::Data::Gauge(Gauge {
                data_points: vec![point],
            })),
        };
        ExportMetricsServiceRequest {
            resource_metrics: vec![ResourceMetrics {
                resource: self.resource(),
                scope_metrics: vec![ScopeMetrics {
                    scope: self.scope(),
                    metrics: vec![metric],
                    schema_url: self.next("scope-schema"),
                }],
                schema_url: self.next("resource-schema"),
            }],
        }
    }
}
