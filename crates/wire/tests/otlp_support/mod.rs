//! Generated export requests: every field of every message set or not, driven by one seed; and the normal form in which two requests
//! are compared.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, EntityRef, InstrumentationScope, KeyValue, KeyValueList, any_value::Value,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::summary_data_point::ValueAtQuantile;
use opentelemetry_proto::tonic::metrics::v1::{
    Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint, Metric,
    NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, Summary, SummaryDataPoint, exemplar, metric::Data,
    number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;

/// Values from one seed.
pub(crate) struct Gen {
    state: u64,
    /// No infinities and nothing that is not a number.
    finite: bool,
}

const TEXTS: &[&str] = &[
    "",
    "a",
    "service.name",
    "host.name",
    "http.route",
    "k1",
    "k2",
    "k3",
    "$bytes",
    "$double",
    "$$",
    "*",
    "ключ",
    "\u{1F600} \"q\" \\",
    "line\nfeed\ttab\u{1}\u{7f}",
    "null",
    "1",
    "1.0",
    "true",
    "{}",
    "[]",
    "gen_ai.system",
    "a:b:c",
    "a longer text, so that a value does not fit where small ones do, and once more for good measure",
];

impl Gen {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            state: seed,
            finite: false,
        }
    }

    pub(crate) fn finite(seed: u64) -> Self {
        Self {
            state: seed,
            finite: true,
        }
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub(crate) fn chance(&mut self) -> bool {
        self.below(2) == 0
    }

    fn text(&mut self) -> String {
        if self.below(300) == 0 {
            return "longer than the key of any column ".repeat(40);
        }
        if self.below(6) == 0 {
            return format!("v{}", self.below(1000));
        }
        TEXTS[self.below(TEXTS.len() as u64) as usize].to_owned()
    }

    fn u64(&mut self) -> u64 {
        match self.below(6) {
            0 | 1 => 0,
            2 => 1,
            3 => u64::MAX,
            4 => 1_700_000_000_000_000_000 + self.below(1_000_000_000),
            _ => self.next(),
        }
    }

    fn i64(&mut self) -> i64 {
        if self.chance() {
            self.below(200) as i64 - 100
        } else {
            self.u64() as i64
        }
    }

    fn u32(&mut self) -> u32 {
        if self.chance() { 0 } else { self.u64() as u32 }
    }

    fn enumeration(&mut self) -> i32 {
        match self.below(8) {
            0 => -3,
            1 => 77,
            n => n as i32 - 2,
        }
    }

    fn f64(&mut self) -> f64 {
        let double = self.any_f64();
        if self.finite && !double.is_finite() {
            0.5
        } else {
            double
        }
    }

    fn any_f64(&mut self) -> f64 {
        match self.below(10) {
            0 => f64::NAN,
            1 => f64::INFINITY,
            2 => f64::NEG_INFINITY,
            3 => -0.0,
            4 => 0.0,
            5 => 1.0,
            6 => self.below(100_000) as f64 / 100.0,
            _ => f64::from_bits(self.next()),
        }
    }

    fn bytes(&mut self) -> Vec<u8> {
        let n = self.below(5);
        (0..n).map(|_| self.next() as u8).collect()
    }

    fn id(&mut self, n: usize) -> Vec<u8> {
        if self.below(3) == 0 {
            Vec::new()
        } else {
            (0..n).map(|_| self.next() as u8).collect()
        }
    }

    fn many<T>(&mut self, most: u64, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        if self.below(3) == 0 {
            return Vec::new();
        }
        let n = self.below(most + 1);
        (0..n).map(|_| make(self)).collect()
    }

    fn maybe<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.chance().then(|| make(self))
    }

    fn any(&mut self, depth: usize) -> AnyValue {
        let value = match self.below(if depth == 0 { 7 } else { 9 }) {
            0 => None,
            1 | 2 => Some(Value::StringValue(self.text())),
            3 => Some(Value::BoolValue(self.chance())),
            4 => Some(Value::IntValue(self.i64())),
            5 => Some(Value::DoubleValue(self.f64())),
            6 => Some(Value::BytesValue(self.bytes())),
            7 => Some(Value::ArrayValue(ArrayValue {
                values: self.many(3, |g| g.any(depth - 1)),
            })),
            _ => Some(Value::KvlistValue(KeyValueList {
                values: self.pairs(3, depth - 1),
            })),
        };
        AnyValue { value }
    }

    fn pairs(&mut self, most: u64, depth: usize) -> Vec<KeyValue> {
        self.many(most, |g| KeyValue {
            key: g.text(),
            value: (g.below(8) > 0).then(|| g.any(depth)),
            key_strindex: 0,
        })
    }

    fn attributes(&mut self) -> Vec<KeyValue> {
        self.pairs(7, 3)
    }

    fn resource(&mut self) -> Resource {
        Resource {
            attributes: self.attributes(),
            dropped_attributes_count: self.u32(),
            entity_refs: self.many(2, |g| EntityRef {
                schema_url: g.text(),
                r#type: g.text(),
                id_keys: g.many(2, Self::text),
                description_keys: g.many(2, Self::text),
            }),
        }
    }

    fn scope(&mut self) -> InstrumentationScope {
        InstrumentationScope {
            name: self.text(),
            version: self.text(),
            attributes: self.attributes(),
            dropped_attributes_count: self.u32(),
        }
    }

    pub(crate) fn logs(&mut self) -> ExportLogsServiceRequest {
        ExportLogsServiceRequest {
            resource_logs: self.many(3, |g| ResourceLogs {
                resource: g.maybe(Self::resource),
                scope_logs: g.many(3, |g| ScopeLogs {
                    scope: g.maybe(Self::scope),
                    log_records: g.many(12, Self::log),
                    schema_url: g.text(),
                }),
                schema_url: g.text(),
            }),
        }
    }

    fn log(&mut self) -> LogRecord {
        LogRecord {
            time_unix_nano: self.u64(),
            observed_time_unix_nano: self.u64(),
            severity_number: self.enumeration(),
            severity_text: self.text(),
            body: self.maybe(|g| g.any(3)),
            attributes: self.attributes(),
            dropped_attributes_count: self.u32(),
            flags: self.u32(),
            trace_id: self.id(16),
            span_id: self.id(8),
            event_name: self.text(),
        }
    }

    pub(crate) fn traces(&mut self) -> ExportTraceServiceRequest {
        ExportTraceServiceRequest {
            resource_spans: self.many(3, |g| ResourceSpans {
                resource: g.maybe(Self::resource),
                scope_spans: g.many(3, |g| ScopeSpans {
                    scope: g.maybe(Self::scope),
                    spans: g.many(8, Self::span),
                    schema_url: g.text(),
                }),
                schema_url: g.text(),
            }),
        }
    }

    fn span(&mut self) -> Span {
        Span {
            trace_id: self.id(16),
            span_id: self.id(8),
            trace_state: self.text(),
            parent_span_id: self.id(8),
            flags: self.u32(),
            name: self.text(),
            kind: self.enumeration(),
            start_time_unix_nano: self.u64(),
            end_time_unix_nano: self.u64(),
            attributes: self.attributes(),
            dropped_attributes_count: self.u32(),
            events: self.many(3, |g| Event {
                time_unix_nano: g.u64(),
                name: g.text(),
                attributes: g.attributes(),
                dropped_attributes_count: g.u32(),
            }),
            dropped_events_count: self.u32(),
            links: self.many(3, |g| Link {
                trace_id: g.bytes(),
                span_id: g.id(8),
                trace_state: g.text(),
                attributes: g.attributes(),
                dropped_attributes_count: g.u32(),
                flags: g.u32(),
            }),
            dropped_links_count: self.u32(),
            status: self.maybe(|g| Status {
                message: g.text(),
                code: g.enumeration(),
            }),
        }
    }

    pub(crate) fn metrics(&mut self) -> ExportMetricsServiceRequest {
        ExportMetricsServiceRequest {
            resource_metrics: self.many(3, |g| ResourceMetrics {
                resource: g.maybe(Self::resource),
                scope_metrics: g.many(3, |g| ScopeMetrics {
                    scope: g.maybe(Self::scope),
                    metrics: g.many(6, Self::metric),
                    schema_url: g.text(),
                }),
                schema_url: g.text(),
            }),
        }
    }

    fn metric(&mut self) -> Metric {
        let data = match self.below(6) {
            0 => None,
            1 => Some(Data::Gauge(Gauge {
                data_points: self.many(4, Self::number_point),
            })),
            2 => Some(Data::Sum(Sum {
                data_points: self.many(4, Self::number_point),
                aggregation_temporality: self.enumeration(),
                is_monotonic: self.chance(),
            })),
            3 => Some(Data::Histogram(Histogram {
                data_points: self.many(4, Self::histogram_point),
                aggregation_temporality: self.enumeration(),
            })),
            4 => Some(Data::ExponentialHistogram(ExponentialHistogram {
                data_points: self.many(4, Self::exponential_point),
                aggregation_temporality: self.enumeration(),
            })),
            _ => Some(Data::Summary(Summary {
                data_points: self.many(4, Self::summary_point),
            })),
        };
        Metric {
            name: self.text(),
            description: self.text(),
            unit: self.text(),
            metadata: self.attributes(),
            data,
        }
    }

    fn exemplars(&mut self) -> Vec<Exemplar> {
        self.many(2, |g| Exemplar {
            filtered_attributes: g.attributes(),
            time_unix_nano: g.u64(),
            span_id: g.id(8),
            trace_id: g.id(16),
            value: match g.below(3) {
                0 => None,
                1 => Some(exemplar::Value::AsDouble(g.f64())),
                _ => Some(exemplar::Value::AsInt(g.i64())),
            },
        })
    }

    fn number_point(&mut self) -> NumberDataPoint {
        NumberDataPoint {
            attributes: self.attributes(),
            start_time_unix_nano: self.u64(),
            time_unix_nano: self.u64(),
            exemplars: self.exemplars(),
            flags: self.u32(),
            value: match self.below(3) {
                0 => None,
                1 => Some(number_data_point::Value::AsDouble(self.f64())),
                _ => Some(number_data_point::Value::AsInt(self.i64())),
            },
        }
    }

    fn histogram_point(&mut self) -> HistogramDataPoint {
        HistogramDataPoint {
            attributes: self.attributes(),
            start_time_unix_nano: self.u64(),
            time_unix_nano: self.u64(),
            count: self.u64(),
            sum: self.maybe(Self::f64),
            bucket_counts: self.many(4, Self::u64),
            explicit_bounds: self.many(4, Self::f64),
            exemplars: self.exemplars(),
            flags: self.u32(),
            min: self.maybe(Self::f64),
            max: self.maybe(Self::f64),
        }
    }

    fn exponential_point(&mut self) -> ExponentialHistogramDataPoint {
        ExponentialHistogramDataPoint {
            attributes: self.attributes(),
            start_time_unix_nano: self.u64(),
            time_unix_nano: self.u64(),
            count: self.u64(),
            sum: self.maybe(Self::f64),
            scale: self.i64() as i32,
            zero_count: self.u64(),
            positive: self.maybe(Self::buckets),
            negative: self.maybe(Self::buckets),
            flags: self.u32(),
            exemplars: self.exemplars(),
            min: self.maybe(Self::f64),
            max: self.maybe(Self::f64),
            zero_threshold: self.f64(),
        }
    }

    fn buckets(&mut self) -> Buckets {
        Buckets {
            offset: self.i64() as i32,
            bucket_counts: self.many(4, Self::u64),
        }
    }

    fn summary_point(&mut self) -> SummaryDataPoint {
        SummaryDataPoint {
            attributes: self.attributes(),
            start_time_unix_nano: self.u64(),
            time_unix_nano: self.u64(),
            count: self.u64(),
            sum: self.f64(),
            quantile_values: self.many(3, |g| ValueAtQuantile {
                quantile: g.f64(),
                value: g.f64(),
            }),
            flags: self.u32(),
        }
    }
}

/// One row in its normal form: resource with schema URL, scope with schema URL, and the record or the metric with one point. What
/// this evens out is what FORMAT.md's last paragraph allows, and nothing else.
pub(crate) type NormalRow = [Vec<u8>; 3];

fn set(attributes: &mut [KeyValue]) {
    attributes.iter_mut().for_each(pair);
    // Stable: values of one key keep their order.
    attributes.sort_by(|a, b| a.key.cmp(&b.key));
}

fn pair(pair: &mut KeyValue) {
    // Absent, or without a kind: both are the value `null`.
    any(pair.value.get_or_insert_default());
}

fn any(value: &mut AnyValue) {
    match &mut value.value {
        Some(Value::DoubleValue(double)) => nan(double),
        Some(Value::ArrayValue(array)) => array.values.iter_mut().for_each(any),
        Some(Value::KvlistValue(list)) => list.values.iter_mut().for_each(pair),
        _ => {}
    }
}

fn nan(double: &mut f64) {
    if double.is_nan() {
        *double = f64::NAN;
    }
}

fn head(
    resource: Option<Resource>,
    resource_url: &str,
    scope: Option<InstrumentationScope>,
    scope_url: &str,
) -> [Vec<u8>; 2] {
    let mut resource = resource.unwrap_or_default();
    set(&mut resource.attributes);
    let mut scope = scope.unwrap_or_default();
    set(&mut scope.attributes);
    let with_url = |mut bytes: Vec<u8>, url: &str| {
        bytes.extend_from_slice(b"|");
        bytes.extend_from_slice(url.as_bytes());
        bytes
    };
    [
        with_url(resource.encode_to_vec(), resource_url),
        with_url(scope.encode_to_vec(), scope_url),
    ]
}

pub(crate) fn normal_logs(request: ExportLogsServiceRequest) -> Vec<NormalRow> {
    let mut rows = Vec::new();
    for resource in request.resource_logs {
        for scope in resource.scope_logs {
            let [r, s] = head(
                resource.resource.clone(),
                &resource.schema_url,
                scope.scope,
                &scope.schema_url,
            );
            for mut record in scope.log_records {
                set(&mut record.attributes);
                record.body.iter_mut().for_each(any);
                rows.push([r.clone(), s.clone(), record.encode_to_vec()]);
            }
        }
    }
    rows
}

pub(crate) fn normal_traces(request: ExportTraceServiceRequest) -> Vec<NormalRow> {
    let mut rows = Vec::new();
    for resource in request.resource_spans {
        for scope in resource.scope_spans {
            let [r, s] = head(
                resource.resource.clone(),
                &resource.schema_url,
                scope.scope,
                &scope.schema_url,
            );
            for mut span in scope.spans {
                set(&mut span.attributes);
                span.events
                    .iter_mut()
                    .for_each(|e| e.attributes.iter_mut().for_each(pair));
                span.links
                    .iter_mut()
                    .for_each(|l| l.attributes.iter_mut().for_each(pair));
                if span.status == Some(Status::default()) {
                    span.status = None;
                }
                rows.push([r.clone(), s.clone(), span.encode_to_vec()]);
            }
        }
    }
    rows
}

pub(crate) fn normal_metrics(request: ExportMetricsServiceRequest) -> Vec<NormalRow> {
    let mut rows = Vec::new();
    for resource in request.resource_metrics {
        for scope in resource.scope_metrics {
            let [r, s] = head(
                resource.resource.clone(),
                &resource.schema_url,
                scope.scope,
                &scope.schema_url,
            );
            for metric in scope.metrics {
                for single in single_points(metric) {
                    rows.push([r.clone(), s.clone(), single.encode_to_vec()]);
                }
            }
        }
    }
    rows
}

/// The metric once for each of its points.
fn single_points(mut metric: Metric) -> Vec<Metric> {
    metric.metadata.iter_mut().for_each(pair);
    let exemplars = |exemplars: &mut Vec<Exemplar>| {
        for exemplar in exemplars {
            exemplar.filtered_attributes.iter_mut().for_each(pair);
            if let Some(exemplar::Value::AsDouble(double)) = &mut exemplar.value {
                nan(double);
            }
        }
    };
    let number = |mut p: NumberDataPoint| {
        set(&mut p.attributes);
        exemplars(&mut p.exemplars);
        if let Some(number_data_point::Value::AsDouble(double)) = &mut p.value {
            nan(double);
        }
        vec![p]
    };
    let data: Vec<Data> = match metric.data.take() {
        None => Vec::new(),
        Some(Data::Gauge(g)) => g
            .data_points
            .into_iter()
            .map(|p| Data::Gauge(Gauge { data_points: number(p) }))
            .collect(),
        Some(Data::Sum(sum)) => sum
            .data_points
            .into_iter()
            .map(|p| {
                Data::Sum(Sum {
                    data_points: number(p),
                    ..sum
                })
            })
            .collect(),
        Some(Data::Histogram(histogram)) => histogram
            .data_points
            .into_iter()
            .map(|mut p| {
                set(&mut p.attributes);
                exemplars(&mut p.exemplars);
                p.explicit_bounds
                    .iter_mut()
                    .chain(&mut p.sum)
                    .chain(&mut p.min)
                    .chain(&mut p.max)
                    .for_each(nan);
                Data::Histogram(Histogram {
                    data_points: vec![p],
                    ..histogram
                })
            })
            .collect(),
        Some(Data::ExponentialHistogram(histogram)) => histogram
            .data_points
            .into_iter()
            .map(|mut p| {
                set(&mut p.attributes);
                exemplars(&mut p.exemplars);
                p.sum.iter_mut().chain(&mut p.min).chain(&mut p.max).for_each(nan);
                nan(&mut p.zero_threshold);
                Data::ExponentialHistogram(ExponentialHistogram {
                    data_points: vec![p],
                    ..histogram
                })
            })
            .collect(),
        Some(Data::Summary(summary)) => summary
            .data_points
            .into_iter()
            .map(|mut p| {
                set(&mut p.attributes);
                nan(&mut p.sum);
                p.quantile_values.iter_mut().for_each(|q| {
                    nan(&mut q.quantile);
                    nan(&mut q.value);
                });
                Data::Summary(Summary { data_points: vec![p] })
            })
            .collect(),
    };
    data.into_iter()
        .map(|data| Metric {
            data: Some(data),
            ..metric.clone()
        })
        .collect()
}
