//! The corpus: events that look like those of a busy shop and never repeat.
//!
//! Request `k` of a seed is a pure function of (seed, k, rows), so any number of workers, and an oracle that comes later,
//! make the same bytes. Every event carries the text attribute `evt.id` = `<seed>-<k>-<i>`; a run that uses each `k` for one
//! signal only has no id twice. Much of an event is random on purpose (ids, numbers, addresses), because a corpus that
//! repeats itself flatters compression and caches.

mod logs;
mod metrics;
mod names;
mod proto;
mod random;
mod spans;

use std::fmt;
use std::str::FromStr;

use proto::Message;
use random::{Random, mix};

/// The attribute that names an event for ever.
pub const ID_ATTRIBUTE: &str = "evt.id";

/// 2026-01-01T00:00:00Z: the time of the first event of every seed.
const BASE_TIME_NS: u64 = 1_767_225_600_000_000_000;

/// Severity numbers of OTLP from here on are errors.
pub const ERROR_SEVERITY: i32 = 17;

/// The three kinds of OTLP requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Signal {
    Log,
    Span,
    Metric,
}

impl Signal {
    pub const ALL: [Signal; 3] = [Signal::Log, Signal::Span, Signal::Metric];

    /// As the `signal` column has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Signal::Log => "log",
            Signal::Span => "span",
            Signal::Metric => "metric",
        }
    }

    /// The method of OTLP/gRPC.
    pub fn grpc_path(self) -> &'static str {
        match self {
            Signal::Log => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
            Signal::Span => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            Signal::Metric => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        }
    }

    /// The path of OTLP/HTTP.
    pub fn http_path(self) -> &'static str {
        match self {
            Signal::Log => "/v1/logs",
            Signal::Span => "/v1/traces",
            Signal::Metric => "/v1/metrics",
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Not the name of a signal.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no signal; there are log, span and metric")]
pub struct UnknownSignal(String);

impl FromStr for Signal {
    type Err = UnknownSignal;

    fn from_str(text: &str) -> Result<Signal, UnknownSignal> {
        match text {
            "log" | "logs" => Ok(Signal::Log),
            "span" | "spans" | "trace" | "traces" => Ok(Signal::Span),
            "metric" | "metrics" => Ok(Signal::Metric),
            _ => Err(UnknownSignal(text.to_owned())),
        }
    }
}

/// What an oracle must know of one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The text of `evt.id`.
    pub id: String,
    pub signal: Signal,
    pub trace_id: Option<[u8; 16]>,
    /// 0 for what has no severity.
    pub severity: i32,
    /// The span status as the table has it: `ok`, `error`, or empty where unset.
    pub status: &'static str,
    pub service: String,
}

impl Expected {
    /// Whether a sampler with this rate and `keep_errors` keeps the event: errors and what belongs to no trace always, the
    /// rest by the trace id's last 56 bits, as OpenTelemetry's consistent probability sampling has it.
    pub fn kept_at(&self, rate: f64) -> bool {
        const RANGE: f64 = (1u64 << 56) as f64;
        if self.severity >= ERROR_SEVERITY || self.status == "error" {
            return true;
        }
        let Some(trace_id) = self.trace_id else {
            return true;
        };
        let threshold = ((1.0 - rate) * RANGE).round() as u64;
        let low = trace_id[9..]
            .iter()
            .fold(0u64, |value, byte| value << 8 | u64::from(*byte));
        low >= threshold
    }
}

/// All requests of one seed.
#[derive(Clone, Copy, Debug)]
pub struct Corpus {
    seed: u64,
}

impl Corpus {
    pub fn new(seed: u64) -> Corpus {
        Corpus { seed }
    }

    /// The request as OTLP protobuf. `observed_ns` is the observed time of logs (0: none); nothing else depends on it.
    pub fn request(&self, signal: Signal, k: u64, rows: usize, observed_ns: u64) -> Vec<u8> {
        self.build(signal, k, rows, observed_ns).0
    }

    /// What [`Corpus::request`] with the same arguments holds, event by event.
    pub fn expected(&self, signal: Signal, k: u64, rows: usize) -> Vec<Expected> {
        self.build(signal, k, rows, 0).1
    }

    fn build(&self, signal: Signal, k: u64, rows: usize, observed_ns: u64) -> (Vec<u8>, Vec<Expected>) {
        let mut request = RequestBuilder::new(self.seed, k, rows);
        for row in 0..rows {
            match signal {
                Signal::Log => logs::event(&mut request, row, observed_ns),
                Signal::Span => spans::event(&mut request, row),
                Signal::Metric => metrics::event(&mut request, row),
            }
        }
        request.finish(match signal {
            Signal::Log => "shop.log",
            Signal::Span => "shop.trace",
            Signal::Metric => "shop.meter",
        })
    }
}

/// The trace that row `row` of log request `k` belongs to. Spans of request `k + 1` join it.
fn trace_id(seed: u64, k: u64, row: u64) -> [u8; 16] {
    let mut random = Random::new(mix(seed ^ 0x7472_6163_6500), mix(k) ^ row);
    let mut id = [0; 16];
    id[..8].copy_from_slice(&random.next().to_be_bytes());
    id[8..].copy_from_slice(&random.next().to_be_bytes());
    id
}

/// One request while its events are made: all from one host, grouped by service.
struct RequestBuilder {
    seed: u64,
    k: u64,
    rows: usize,
    random: Random,
    host: u64,
    /// Events of each service, in order of first use.
    groups: Vec<(u64, Message)>,
    expected: Vec<Expected>,
}

impl RequestBuilder {
    fn new(seed: u64, k: u64, rows: usize) -> RequestBuilder {
        let mut random = Random::new(seed, k);
        let host = random.skewed(names::HOSTS);
        RequestBuilder {
            seed,
            k,
            rows,
            random,
            host,
            groups: Vec::new(),
            expected: Vec::with_capacity(rows),
        }
    }

    fn id(&self, row: usize) -> String {
        format!("{}-{}-{row}", self.seed, self.k)
    }

    /// Event time: 20 µs apart, with a jitter, whatever the size of requests.
    fn time(&mut self, row: usize) -> u64 {
        let number = self.k.wrapping_mul(self.rows as u64).wrapping_add(row as u64);
        BASE_TIME_NS
            .wrapping_add(number.wrapping_mul(20_000) % (1 << 58))
            .wrapping_add(self.random.below(20_000))
    }

    fn push(&mut self, service: u64, expected: Expected, fill: impl FnOnce(&mut Message)) {
        let place = self.groups.iter().position(|(s, _)| *s == service).unwrap_or_else(|| {
            self.groups.push((service, Message::with_capacity(4096)));
            self.groups.len() - 1
        });
        self.groups[place].1.message(2, fill);
        self.expected.push(expected);
    }

    fn finish(self, scope: &str) -> (Vec<u8>, Vec<Expected>) {
        let size: usize = self.groups.iter().map(|(_, events)| events.len() + 256).sum();
        let mut request = Message::with_capacity(size);
        for (service, events) in &self.groups {
            request.message(1, |resource_group| {
                resource_group.message(1, |resource| self.resource(resource, *service));
                resource_group.message(2, |scope_group| {
                    scope_group.message(1, |s| {
                        s.text(1, scope);
                        s.text(2, "3.1.0");
                    });
                    scope_group.append(events);
                });
            });
        }
        (request.into_bytes(), self.expected)
    }

    fn resource(&self, resource: &mut Message, service: u64) {
        resource.attr_text(1, "service.name", &names::service(service));
        resource.attr_text(1, "service.version", &format!("{}.{}.0", 1 + service % 4, service % 23));
        resource.attr_text(1, "host.name", &names::host(self.host));
        resource.attr_text(1, "cloud.region", names::REGIONS[(self.host % 4) as usize]);
        resource.attr_text(1, "deployment.environment.name", "production");
    }
}

#[cfg(test)]
mod tests;
