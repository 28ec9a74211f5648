//! What a line says: members that everybody knows become time, body, severity, ids, service and host; the rest stay attributes
//! with their types.

pub(crate) mod json_lines;
pub(crate) mod logfmt;
pub(crate) mod severity;
pub(crate) mod time;

use serde_json::{Map, Value as Json};

use super::export::{Attributes, LogRecord, Request, Value};

/// The names under which loggers write each thing, best first. The dotted ones are those of the Elastic Common Schema.
const TIME: [&str; 4] = ["time", "timestamp", "@timestamp", "ts"];
const BODY: [&str; 3] = ["message", "msg", "body"];
const SEVERITY: [&str; 5] = ["level", "severity", "severity_text", "log.level", "lvl"];
const SEVERITY_NUMBER: [&str; 2] = ["severity_number", "severityNumber"];
const SERVICE: [&str; 3] = ["service", "service.name", "service_name"];
const HOST: [&str; 3] = ["host", "host.name", "hostname"];
const TRACE: [&str; 3] = ["trace_id", "traceId", "trace.id"];
const SPAN: [&str; 3] = ["span_id", "spanId", "span.id"];

/// What one event may hold, as the decoder behind it has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EventLimits {
    pub(crate) max_attributes: usize,
    /// Nesting of values.
    pub(crate) max_depth: usize,
}

/// One event of an object.
#[derive(Clone, Debug, Default)]
pub(crate) struct Event {
    time_ns: u64,
    severity: u8,
    severity_text: String,
    body: Option<Json>,
    trace_id: Option<[u8; 16]>,
    span_id: Option<[u8; 8]>,
    service: Option<String>,
    host: Option<String>,
    attributes: Attributes,
}

/// What is known of every event of a source.
#[derive(Clone, Debug, Default)]
pub(crate) struct Origin {
    pub(crate) service: Option<String>,
    pub(crate) host: Option<String>,
    pub(crate) observed_ns: u64,
}

impl Event {
    /// The text tells what is wrong with the object.
    pub(crate) fn from_object(mut object: Map<String, Json>, limits: EventLimits) -> Result<Self, String> {
        if object.len() > limits.max_attributes {
            return Err(format!(
                "{} members, at most {} are taken",
                object.len(),
                limits.max_attributes
            ));
        }
        if object.values().any(|value| depth(value) > limits.max_depth) {
            return Err(format!("nested deeper than {} levels", limits.max_depth));
        }
        let mut event = Self::default();
        if let Some(ns) = take(&mut object, &TIME, time_of) {
            event.time_ns = ns;
        }
        if let Some((number, text)) = take(&mut object, &SEVERITY, severity_of) {
            (event.severity, event.severity_text) = (number, text);
        }
        if let Some(number) = take(&mut object, &SEVERITY_NUMBER, |v| {
            v.as_u64().filter(|n| (1..=24).contains(n))
        }) {
            event.severity = number as u8;
        }
        event.body = take(&mut object, &BODY, |v| (!v.is_null()).then(|| v.clone()));
        event.service = take(&mut object, &SERVICE, |v| v.as_str().map(str::to_owned));
        event.host = take(&mut object, &HOST, |v| v.as_str().map(str::to_owned));
        event.trace_id = take(&mut object, &TRACE, id_of);
        event.span_id = take(&mut object, &SPAN, id_of);
        for (key, value) in &object {
            event.attributes.push(key, Value::Json(value));
        }
        Ok(event)
    }

    /// Appends it; `more` are attributes that the source gives it.
    pub(crate) fn push(&self, request: &mut Request, origin: &Origin, more: &Attributes) {
        let resource = resource(
            self.service.as_deref().or(origin.service.as_deref()),
            self.host.as_deref().or(origin.host.as_deref()),
        );
        let record = LogRecord {
            time_ns: self.time_ns,
            observed_ns: origin.observed_ns,
            severity: self.severity,
            severity_text: &self.severity_text,
            body: self.body.as_ref().map(Value::Json),
            trace_id: self.trace_id,
            span_id: self.span_id,
        };
        request.push_log(&resource, &record, &[&self.attributes, more]);
    }
}

/// A resource of the two names that everybody asks for.
pub(crate) fn resource(service: Option<&str>, host: Option<&str>) -> Attributes {
    let mut resource = Attributes::default();
    if let Some(service) = service {
        resource.text("service.name", service);
    }
    if let Some(host) = host {
        resource.text("host.name", host);
    }
    resource
}

/// Removes the first member of these names that can be read as what it should be; one that cannot stays an attribute.
fn take<T>(object: &mut Map<String, Json>, names: &[&str], read: impl Fn(&Json) -> Option<T>) -> Option<T> {
    let (name, value) = names.iter().find_map(|name| Some((*name, read(object.get(*name)?)?)))?;
    object.remove(name);
    Some(value)
}

fn time_of(value: &Json) -> Option<u64> {
    match value {
        Json::String(text) => time::parse_text(text),
        Json::Number(number) => match number.as_u64() {
            Some(whole) => time::epoch_integer(whole),
            None => time::epoch_decimal(number.as_f64()?),
        },
        _ => None,
    }
    // 0 stands for no time at all.
    .filter(|ns| *ns > 0)
}

fn severity_of(value: &Json) -> Option<(u8, String)> {
    match value {
        Json::String(text) => Some((severity::of_text(text), text.clone())),
        Json::Number(number) => severity::of_level(number.as_u64()?).map(|level| (level, number.to_string())),
        _ => None,
    }
}

fn id_of<const N: usize>(value: &Json) -> Option<[u8; N]> {
    let mut id = [0; N];
    hex::decode_to_slice(value.as_str()?, &mut id).ok()?;
    (id != [0; N]).then_some(id)
}

/// 0 for a value that holds no others. Parsers of JSON bound what this recurses over.
fn depth(value: &Json) -> usize {
    match value {
        Json::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Json::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    const LIMITS: EventLimits = EventLimits {
        max_attributes: 8,
        max_depth: 3,
    };

    fn event(json: Json) -> Event {
        Event::from_object(json.as_object().unwrap().clone(), LIMITS).unwrap()
    }

    #[test]
    fn names_that_loggers_use_find_their_place_and_what_cannot_be_read_stays() {
        let pino = event(json!({"level": 30, "time": 1_700_000_000_123u64, "msg": "hi", "hostname": "h", "pid": 7}));
        assert_eq!((pino.severity, pino.severity_text.as_str()), (9, "30"));
        assert_eq!(pino.time_ns, 1_700_000_000_123_000_000);
        assert_eq!((pino.body, pino.host.as_deref()), (Some(json!("hi")), Some("h")));
        assert_eq!(pino.attributes.len(), 1);

        let elastic = event(json!({
            "@timestamp": "2023-11-14T22:13:20Z", "log.level": "WARN", "message": "x", "service.name": "shop",
            "trace.id": "5b8efff798038103d269b633813fc60c", "span.id": "eee19b7ec3c1b174",
        }));
        assert_eq!((elastic.severity, elastic.severity_text.as_str()), (13, "WARN"));
        assert_eq!(elastic.time_ns, 1_700_000_000_000_000_000);
        assert!(elastic.trace_id.is_some() && elastic.span_id.is_some());
        assert_eq!(
            (elastic.service.as_deref(), elastic.attributes.len()),
            (Some("shop"), 0)
        );

        let odd =
            event(json!({"time": "soon", "trace_id": "xyz", "service": {"name": "a"}, "level": true, "msg": null}));
        assert_eq!((odd.time_ns, odd.trace_id, odd.severity), (0, None, 0));
        assert_eq!(odd.attributes.len(), 5);
    }

    #[test]
    fn p15_an_object_is_bounded() {
        let many: Map<String, Json> = (0..9).map(|n| (n.to_string(), json!(n))).collect();
        assert!(Event::from_object(many, LIMITS).unwrap_err().contains("at most 8"));
        let deep = json!({"a": [[[1]]]}).as_object().unwrap().clone();
        assert!(Event::from_object(deep, LIMITS).is_ok());
        let deeper = json!({"a": [[[[]]]]}).as_object().unwrap().clone();
        assert!(Event::from_object(deeper, LIMITS).unwrap_err().contains("deeper"));
    }
}
