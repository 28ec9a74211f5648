#![allow(clippy::unwrap_used)]
//! The corpus against OpenTelemetry's own message types.

use std::collections::HashSet;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use prost::Message as _;

use super::*;

const ROWS: usize = 500;

fn text(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|a| a.key == key).unwrap();
    match found.value.as_ref().unwrap().value.as_ref().unwrap() {
        Value::StringValue(text) => text.clone(),
        other => panic!("{key} is {other:?}"),
    }
}

#[test]
fn same_arguments_give_the_same_bytes_and_other_ones_do_not() {
    for signal in Signal::ALL {
        let bytes = Corpus::new(7).request(signal, 3, ROWS, 5);
        assert_eq!(bytes, Corpus::new(7).request(signal, 3, ROWS, 5));
        assert_ne!(bytes, Corpus::new(7).request(signal, 4, ROWS, 5));
        assert_ne!(bytes, Corpus::new(8).request(signal, 3, ROWS, 5));
    }
}

/// A later version that changes the bytes of a seed breaks every stored result that names one.
#[test]
fn bytes_of_a_seed_are_pinned() {
    let digest = |signal| {
        let bytes = Corpus::new(42).request(signal, 9, 64, 0);
        bytes.iter().fold(0u64, |sum, byte| mix(sum ^ u64::from(*byte)))
    };
    let digests = Signal::ALL.map(digest);
    assert_eq!(digests, PINNED, "{digests:#x?}");
}

const PINNED: [u64; 3] = [0xed69_5cd2_daef_b12d, 0x8f70_ed0a_233f_47ee, 0xc5e8_ea16_f32d_f502];

#[test]
fn logs_are_what_is_expected_of_them() {
    let corpus = Corpus::new(1);
    let bytes = corpus.request(Signal::Log, 2, ROWS, 99);
    let size = bytes.len() / ROWS;
    assert!((470..600).contains(&size), "{size} bytes per event");
    let request = ExportLogsServiceRequest::decode(&bytes[..]).unwrap();
    let mut found = Vec::new();
    let mut bodies = HashSet::new();
    let mut cards = 0;
    for group in &request.resource_logs {
        let service = text(&group.resource.as_ref().unwrap().attributes, "service.name");
        for log in &group.scope_logs[0].log_records {
            assert_eq!(log.observed_time_unix_nano, 99);
            assert!((9..=12).contains(&log.attributes.len()));
            let Some(Value::StringValue(body)) = log.body.clone().unwrap().value else {
                panic!("body is no text");
            };
            cards += usize::from(body.contains("paid with 4"));
            assert!(bodies.insert(body), "a body twice");
            assert!(text(&log.attributes, "user.email").contains('@'));
            found.push(Expected {
                id: text(&log.attributes, ID_ATTRIBUTE),
                signal: Signal::Log,
                trace_id: Some(log.trace_id.clone().try_into().unwrap()),
                severity: log.severity_number,
                status: "",
                service: service.clone(),
            });
        }
    }
    assert!(cards > 3);
    assert_eq!(sorted(found), sorted(corpus.expected(Signal::Log, 2, ROWS)));
}

#[test]
fn spans_are_what_is_expected_of_them_and_share_traces_with_logs() {
    let corpus = Corpus::new(1);
    let bytes = corpus.request(Signal::Span, 3, ROWS, 0);
    let request = ExportTraceServiceRequest::decode(&bytes[..]).unwrap();
    let mut found = Vec::new();
    let (mut events, mut links) = (0, 0);
    for group in &request.resource_spans {
        let service = text(&group.resource.as_ref().unwrap().attributes, "service.name");
        for span in &group.scope_spans[0].spans {
            events += span.events.len();
            links += span.links.len();
            found.push(Expected {
                id: text(&span.attributes, ID_ATTRIBUTE),
                signal: Signal::Span,
                trace_id: Some(span.trace_id.clone().try_into().unwrap()),
                severity: 0,
                status: match span.status.as_ref().map(|s| s.code) {
                    Some(2) => "error",
                    Some(1) => "ok",
                    _ => "",
                },
                service: service.clone(),
            });
        }
    }
    assert!(events > 10 && links > 10);
    let expected = corpus.expected(Signal::Span, 3, ROWS);
    assert_eq!(sorted(found), sorted(expected.clone()));
    let of_logs: HashSet<_> = corpus
        .expected(Signal::Log, 2, ROWS)
        .iter()
        .map(|e| e.trace_id)
        .collect();
    assert!(expected.iter().filter(|e| of_logs.contains(&e.trace_id)).count() > ROWS / 3);
}

#[test]
fn metrics_are_of_every_kind_with_one_point_each() {
    let corpus = Corpus::new(1);
    let bytes = corpus.request(Signal::Metric, 4, ROWS, 0);
    let request = ExportMetricsServiceRequest::decode(&bytes[..]).unwrap();
    let mut ids = Vec::new();
    let mut kinds = HashSet::new();
    for group in &request.resource_metrics {
        for metric in &group.scope_metrics[0].metrics {
            let (kind, attributes) = match metric.data.as_ref().unwrap() {
                Data::Gauge(d) => ("gauge", &d.data_points[0].attributes),
                Data::Sum(d) => ("sum", &d.data_points[0].attributes),
                Data::Histogram(d) => ("histogram", &d.data_points[0].attributes),
                Data::ExponentialHistogram(d) => ("exponential", &d.data_points[0].attributes),
                Data::Summary(d) => ("summary", &d.data_points[0].attributes),
            };
            kinds.insert(kind);
            ids.push(text(attributes, ID_ATTRIBUTE));
        }
    }
    assert_eq!(kinds.len(), 5);
    ids.sort();
    let mut expected: Vec<_> = corpus
        .expected(Signal::Metric, 4, ROWS)
        .into_iter()
        .map(|e| e.id)
        .collect();
    expected.sort();
    assert_eq!(ids, expected);
}

#[test]
fn the_sampling_rule_is_nested_and_near_its_rate() {
    let events = Corpus::new(5).expected(Signal::Log, 1, 4000);
    let kept = |rate: f64| events.iter().filter(|e| e.kept_at(rate)).count();
    assert_eq!(kept(1.0), events.len());
    let errors = events.iter().filter(|e| e.severity >= ERROR_SEVERITY).count();
    assert_eq!(kept(0.0), errors);
    let plain = (kept(0.2) - errors) as f64 / (events.len() - errors) as f64;
    assert!((0.17..0.23).contains(&plain), "{plain}");
    assert!(events.iter().all(|e| !e.kept_at(0.1) || e.kept_at(0.2)));
}

#[test]
fn ranks_are_skewed_and_cards_pass_their_check() {
    let mut random = Random::new(1, 1);
    let ranks: Vec<u64> = (0..10_000).map(|_| random.skewed(180)).collect();
    assert!(ranks.iter().all(|r| *r < 180));
    assert!(ranks.iter().filter(|r| **r < 8).count() > 3_000);
    for _ in 0..200 {
        let digits: Vec<u32> = names::card(&mut random)
            .chars()
            .filter_map(|c| c.to_digit(10))
            .collect();
        let sum: u32 = digits
            .iter()
            .rev()
            .enumerate()
            .map(|(place, digit)| {
                if place % 2 == 1 {
                    digit * 2 / 10 + digit * 2 % 10
                } else {
                    *digit
                }
            })
            .sum();
        assert_eq!((digits.len(), sum % 10), (16, 0));
    }
}

fn sorted(mut events: Vec<Expected>) -> Vec<Expected> {
    events.sort_by(|a, b| a.id.cmp(&b.id));
    events
}
