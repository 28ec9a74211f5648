//! Export requests of what sources read: the bytes that an SDK would send, so that one decoder with one set of limits reads
//! everything that comes in.

mod metric;

use bytes::Bytes;
use sluice_wire::otlp::writer;

pub(crate) use metric::{Exemplar, Histogram, Metric, Number, Quantile, Summary, Times};

/// One value of an attribute or a body.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'a> {
    Text(&'a str),
    Int(i64),
    Double(f64),
    Bool(bool),
    Json(&'a serde_json::Value),
}

/// A set of attributes, written already.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    pairs: Vec<u8>,
    ends: Vec<usize>,
}

impl Attributes {
    pub(crate) fn push(&mut self, key: &str, value: Value<'_>) {
        write_pair(&mut self.pairs, key, value);
        self.ends.push(self.pairs.len());
    }

    pub(crate) fn text(&mut self, key: &str, value: &str) {
        self.push(key, Value::Text(value));
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    fn write(&self, out: &mut Vec<u8>, field: u32) {
        let mut begin = 0;
        for end in &self.ends {
            writer::bytes_always(out, field, &self.pairs[begin..*end]);
            begin = *end;
        }
    }
}

fn write_pair(out: &mut Vec<u8>, key: &str, value: Value<'_>) {
    writer::text(out, 1, Some(key));
    let mut any = Vec::new();
    write_value(&mut any, value);
    writer::bytes_always(out, 2, &any);
}

/// Nesting is bounded by whoever parsed the text.
fn write_value(out: &mut Vec<u8>, value: Value<'_>) {
    match value {
        Value::Text(text) => writer::bytes_always(out, 1, text.as_bytes()),
        Value::Bool(is) => writer::uint_always(out, 2, is.into()),
        Value::Int(number) => writer::uint_always(out, 3, number as u64),
        Value::Double(number) => writer::double_always(out, 4, number),
        Value::Json(json) => write_json(out, json),
    }
}

fn write_json(out: &mut Vec<u8>, json: &serde_json::Value) {
    use serde_json::Value as Json;
    match json {
        // A value with no kind set.
        Json::Null => {}
        Json::Bool(is) => write_value(out, Value::Bool(*is)),
        Json::String(text) => write_value(out, Value::Text(text)),
        Json::Number(number) => match number.as_i64() {
            Some(number) => write_value(out, Value::Int(number)),
            None => write_value(out, Value::Double(number.as_f64().unwrap_or(f64::NAN))),
        },
        Json::Array(items) => {
            let mut list = Vec::new();
            for item in items {
                let mut any = Vec::new();
                write_json(&mut any, item);
                writer::bytes_always(&mut list, 1, &any);
            }
            writer::bytes_always(out, 5, &list);
        }
        Json::Object(members) => {
            let mut list = Vec::new();
            for (key, value) in members {
                let mut pair = Vec::new();
                write_pair(&mut pair, key, Value::Json(value));
                writer::bytes_always(&mut list, 1, &pair);
            }
            writer::bytes_always(out, 6, &list);
        }
    }
}

/// One log record.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogRecord<'a> {
    /// 0: the source does not say.
    pub(crate) time_ns: u64,
    /// When it was read.
    pub(crate) observed_ns: u64,
    /// The number of OTLP, 0 for none.
    pub(crate) severity: u8,
    pub(crate) severity_text: &'a str,
    pub(crate) body: Option<Value<'a>>,
    pub(crate) trace_id: Option<[u8; 16]>,
    pub(crate) span_id: Option<[u8; 8]>,
}

/// A request that is put together. Rows that follow each other and have the same resource share it.
#[derive(Debug)]
pub(crate) struct Request {
    scope: Vec<u8>,
    out: Vec<u8>,
    resource: Attributes,
    /// Records of the resource at hand.
    open: Vec<u8>,
    record: Vec<u8>,
    rows: usize,
}

impl Request {
    /// `scope` names what made the records.
    pub(crate) fn new(scope: &str) -> Self {
        let mut message = Vec::new();
        writer::text(&mut message, 1, Some(scope));
        writer::text(&mut message, 2, Some(env!("CARGO_PKG_VERSION")));
        Self {
            scope: message,
            out: Vec::new(),
            resource: Attributes::default(),
            open: Vec::new(),
            record: Vec::new(),
            rows: 0,
        }
    }

    /// Log records and data points.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Its size, but for a few bytes of framing.
    pub(crate) fn bytes(&self) -> usize {
        self.out.len() + self.open.len()
    }

    pub(crate) fn push_log(&mut self, resource: &Attributes, record: &LogRecord<'_>, attributes: &[&Attributes]) {
        let out = &mut self.record;
        out.clear();
        writer::fixed64(out, 1, record.time_ns);
        writer::uint(out, 2, record.severity.into());
        writer::text(out, 3, Some(record.severity_text));
        if let Some(body) = record.body {
            let mut any = Vec::new();
            write_value(&mut any, body);
            writer::bytes_always(out, 5, &any);
        }
        for set in attributes {
            set.write(out, 6);
        }
        writer::bytes(out, 9, record.trace_id.as_ref().map_or(&[], |id| &id[..]));
        writer::bytes(out, 10, record.span_id.as_ref().map_or(&[], |id| &id[..]));
        writer::fixed64(out, 11, record.observed_ns);
        self.push_record(resource, 1);
    }

    pub(crate) fn push_metric(&mut self, resource: &Attributes, metric: &Metric) {
        if metric.points() == 0 {
            return;
        }
        self.record.clear();
        metric.write(&mut self.record);
        self.push_record(resource, metric.points());
    }

    fn push_record(&mut self, resource: &Attributes, rows: usize) {
        if *resource != self.resource {
            self.close();
            self.resource = resource.clone();
        }
        writer::bytes_always(&mut self.open, 2, &self.record);
        self.rows += rows;
    }

    fn close(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let mut scope = Vec::with_capacity(self.open.len() + self.scope.len() + 8);
        writer::bytes_always(&mut scope, 1, &self.scope);
        scope.append(&mut self.open);
        let mut resource = Vec::new();
        self.resource.write(&mut resource, 1);
        let mut group = Vec::with_capacity(scope.len() + resource.len() + 16);
        writer::bytes_always(&mut group, 1, &resource);
        writer::bytes_always(&mut group, 2, &scope);
        writer::bytes_always(&mut self.out, 1, &group);
    }

    pub(crate) fn finish(mut self) -> Bytes {
        self.close();
        Bytes::from(self.out)
    }
}
