//! Whether the tables hold what was sent, and in the order in which it was sent: what an event says is compared by digest, and a
//! request that began after another one was answered stands behind it in (epoch, seq, row).

use std::collections::{BTreeMap, HashMap};

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use prost::Message;
use serde::{Deserialize, Serialize};

use crate::corpus::{Corpus, ID_ATTRIBUTE, Signal};
use crate::oracle::{Mistakes, Request};
use crate::process::{HttpError, Sql};

/// Attributes that are compared; what is random in an event is among them.
const ATTRIBUTES: [&str; 8] = [
    "http.route",
    "http.response.status_code",
    "user.email",
    "k8s.pod.name",
    "client.address",
    "request.id",
    "db.query.hash",
    "network.peer.address",
];
/// Hex digits of a digest that are compared.
const DIGITS: usize = 16;

/// One event as the table has it.
#[derive(Debug, Deserialize)]
struct Stored {
    id: Option<String>,
    digest: String,
    epoch: Option<String>,
    seq: Option<u64>,
    row: Option<u64>,
}

/// Where an event stands in what its edge accepted.
type Place = (u64, u64, u64);

/// What the comparison found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Content {
    pub compared: u64,
    /// In the tables with another content.
    pub altered: Mistakes,
    /// Before what was accepted earlier.
    pub disordered: Mistakes,
}

impl Content {
    pub fn holds(&self) -> bool {
        self.altered.count == 0 && self.disordered.count == 0
    }

    /// Reads all events and compares those that belong to `requests`. No plugin that alters events may be in the chain.
    pub async fn read(sql: &Sql, corpus: &Corpus, requests: &[Request]) -> Result<Content, HttpError> {
        let each = Content::read_each(sql, corpus, &[requests]).await?;
        Ok(each.into_iter().next().unwrap_or_default())
    }

    /// The same for several edges, whose requests are compared each for themselves.
    pub async fn read_each(sql: &Sql, corpus: &Corpus, requests: &[&[Request]]) -> Result<Vec<Content>, HttpError> {
        let mut stored = HashMap::new();
        // One answer has a limited number of rows.
        for signal in Signal::ALL {
            stored.extend(read(sql, signal).await?);
        }
        Ok(requests
            .iter()
            .map(|requests| compare(corpus, requests, &stored))
            .collect())
    }
}

/// Digest and place of every event of a signal, by its id.
async fn read(sql: &Sql, signal: Signal) -> Result<HashMap<String, (String, Place)>, HttpError> {
    let question = format!("{} WHERE signal = '{signal}'", question());
    let answer = sql.send(&question, "application/x-ndjson").await?;
    let mut stored = HashMap::new();
    for line in answer.text().lines().filter(|line| !line.is_empty()) {
        let shape = |error: String| HttpError::Shape {
            what: format!("{error} in {line}"),
        };
        let event: Stored = serde_json::from_str(line).map_err(|error| shape(error.to_string()))?;
        let Some(id) = event.id else { continue };
        let epoch = event.epoch.as_deref().and_then(|e| e.split('-').next()?.parse().ok());
        let (Some(epoch), Some(seq), Some(row)) = (epoch, event.seq, event.row) else {
            return Err(shape("an event without a place".to_owned()));
        };
        stored.insert(id, (event.digest, (epoch, seq, row)));
    }
    Ok(stored)
}

fn compare(corpus: &Corpus, requests: &[Request], stored: &HashMap<String, (String, Place)>) -> Content {
    let mut content = Content::default();
    let mut places = BTreeMap::new();
    for request in requests {
        let bytes = corpus.request(request.signal, request.k, request.rows, 0);
        for (id, text) in texts(request.signal, &bytes) {
            let Some((digest, place)) = stored.get(&id) else {
                continue;
            };
            content.compared += 1;
            if *digest != digest_of(&text) {
                content.altered.add(&id);
            }
            let span: &mut (Place, Place) = places.entry(request.k).or_insert((*place, *place));
            *span = (span.0.min(*place), span.1.max(*place));
        }
    }
    order(requests, &places, &mut content.disordered);
    content
}

/// Whoever was answered before another one asked stands before it.
fn order(requests: &[Request], places: &BTreeMap<u64, (Place, Place)>, disordered: &mut Mistakes) {
    let mut begun: Vec<&Request> = requests.iter().filter(|r| places.contains_key(&r.k)).collect();
    let mut answered: Vec<&Request> = begun.iter().filter(|r| r.answered.is_some()).copied().collect();
    begun.sort_by_key(|r| r.begun);
    answered.sort_by_key(|r| r.answered);
    let mut before = answered.into_iter().peekable();
    let mut last: Option<(Place, u64)> = None;
    for request in begun {
        while let Some(earlier) = before.next_if(|r| r.answered < Some(request.begun)) {
            let highest = (places[&earlier.k].1, earlier.k);
            last = last.max(Some(highest));
        }
        let first = places[&request.k].0;
        if let Some((highest, k)) = last
            && first < highest
        {
            disordered.add(&format!(
                "request {} at {first:?}, though {k} at {highest:?} was answered before",
                request.k
            ));
        }
    }
}

fn question() -> String {
    let mut columns: Vec<String> = [
        "signal",
        "CAST(CAST(time AS BIGINT) AS VARCHAR)",
        "name",
        "body",
        "CAST(severity AS VARCHAR)",
        "trace_id",
        "span_id",
    ]
    .map(|column| format!("coalesce({column}, '')"))
    .to_vec();
    columns.extend(ATTRIBUTES.map(|key| format!("coalesce(attrs['{key}'], '')")));
    format!(
        "SELECT attrs['{ID_ATTRIBUTE}'] AS \"id\", epoch AS \"epoch\", seq AS \"seq\", \"row\" AS \"row\", \
         substr(encode(digest(concat_ws('|', {}), 'blake3'), 'hex'), 1, {DIGITS}) AS \"digest\" FROM events",
        columns.join(", ")
    )
}

fn digest_of(text: &str) -> String {
    let mut hex = blake3::hash(text.as_bytes()).to_hex().to_string();
    hex.truncate(DIGITS);
    hex
}

/// Id and text of every event of a request, read from its bytes as a receiver would.
fn texts(signal: Signal, request: &[u8]) -> Vec<(String, String)> {
    match signal {
        Signal::Log => logs(request),
        Signal::Span => spans(request),
        Signal::Metric => metrics(request),
    }
    .unwrap_or_default()
}

fn logs(request: &[u8]) -> Result<Vec<(String, String)>, prost::DecodeError> {
    let request = ExportLogsServiceRequest::decode(request)?;
    let scopes = request.resource_logs.iter().flat_map(|r| &r.scope_logs);
    let texts = scopes.flat_map(|s| &s.log_records).map(|log| {
        let severity = log.severity_number.to_string();
        let body = log.body.as_ref().map(text).unwrap_or_default();
        let ids = [hex(&log.trace_id), hex(&log.span_id)];
        event(
            Signal::Log,
            log.time_unix_nano,
            ["", &body, &severity, &ids[0], &ids[1]],
            &log.attributes,
        )
    });
    Ok(texts.collect())
}

fn spans(request: &[u8]) -> Result<Vec<(String, String)>, prost::DecodeError> {
    let request = ExportTraceServiceRequest::decode(request)?;
    let scopes = request.resource_spans.iter().flat_map(|r| &r.scope_spans);
    let texts = scopes.flat_map(|s| &s.spans).map(|span| {
        let ids = [hex(&span.trace_id), hex(&span.span_id)];
        event(
            Signal::Span,
            span.start_time_unix_nano,
            [&span.name, "", "", &ids[0], &ids[1]],
            &span.attributes,
        )
    });
    Ok(texts.collect())
}

fn metrics(request: &[u8]) -> Result<Vec<(String, String)>, prost::DecodeError> {
    let request = ExportMetricsServiceRequest::decode(request)?;
    let scopes = request.resource_metrics.iter().flat_map(|r| &r.scope_metrics);
    let metrics = scopes.flat_map(|s| &s.metrics);
    let texts = metrics.flat_map(|metric| {
        let point = |time: u64, attributes: &[KeyValue]| {
            event(Signal::Metric, time, [&metric.name, "", "", "", ""], attributes)
        };
        let points: Vec<_> = match &metric.data {
            Some(Data::Gauge(gauge)) => gauge
                .data_points
                .iter()
                .map(|p| point(p.time_unix_nano, &p.attributes))
                .collect(),
            Some(Data::Sum(sum)) => sum
                .data_points
                .iter()
                .map(|p| point(p.time_unix_nano, &p.attributes))
                .collect(),
            Some(Data::Histogram(h)) => h
                .data_points
                .iter()
                .map(|p| point(p.time_unix_nano, &p.attributes))
                .collect(),
            Some(Data::ExponentialHistogram(h)) => h
                .data_points
                .iter()
                .map(|p| point(p.time_unix_nano, &p.attributes))
                .collect(),
            Some(Data::Summary(s)) => s
                .data_points
                .iter()
                .map(|p| point(p.time_unix_nano, &p.attributes))
                .collect(),
            None => Vec::new(),
        };
        points
    });
    Ok(texts.collect())
}

fn event(signal: Signal, time: u64, columns: [&str; 5], attributes: &[KeyValue]) -> (String, String) {
    let attribute = |key: &str| {
        let found = attributes.iter().find(|a| a.key == key);
        found.and_then(|a| a.value.as_ref()).map(text).unwrap_or_default()
    };
    let mut parts = vec![signal.as_str().to_owned(), time.to_string()];
    parts.extend(columns.map(str::to_owned));
    parts.extend(ATTRIBUTES.map(attribute));
    (attribute(ID_ATTRIBUTE), parts.join("|"))
}

/// As `attrs` and `body` have it, for what the corpus sends.
fn text(value: &AnyValue) -> String {
    match &value.value {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(flag)) => flag.to_string(),
        _ => String::new(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: u64 = 11;

    /// Requests one after the other, each answered before the next begins, of all signals.
    fn requests() -> Vec<Request> {
        let one = |k: u64| Request {
            k,
            signal: Signal::ALL[(k % 3) as usize],
            rows: 6,
            begun: 2 * k,
            answered: Some(2 * k + 1),
        };
        (0..9).map(one).collect()
    }

    fn right() -> HashMap<String, (String, Place)> {
        let mut stored = HashMap::new();
        for request in requests() {
            let bytes = Corpus::new(SEED).request(request.signal, request.k, request.rows, 0);
            for (row, (id, text)) in texts(request.signal, &bytes).into_iter().enumerate() {
                stored.insert(id, (digest_of(&text), (1, request.k, row as u64)));
            }
        }
        stored
    }

    #[test]
    fn what_is_stored_as_it_was_sent_holds() {
        let content = compare(&Corpus::new(SEED), &requests(), &right());
        assert!(content.holds() && content.compared == 54, "{content:?}");
    }

    #[test]
    fn another_content_and_another_order_are_seen() {
        let mut stored = right();
        for (id, change) in [(format!("{SEED}-0-3"), 0), (format!("{SEED}-7-0"), 1)] {
            let entry = stored.entry(id).or_default();
            match change {
                0 => entry.0 = digest_of("another"),
                _ => entry.1 = (1, 2, 0),
            }
        }
        let content = compare(&Corpus::new(SEED), &requests(), &stored);
        assert_eq!((content.altered.count, content.disordered.count), (1, 1), "{content:?}");
    }
}
