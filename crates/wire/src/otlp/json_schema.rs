//! The messages of OTLP as tables: what a member of a JSON object is called, its field number and how its value is written.

/// One message.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) fields: &'static [Field],
}

/// One field: lowerCamelCase name, number, type; `repeated` fields are JSON arrays.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) number: u32,
    pub(super) kind: Kind,
    pub(super) repeated: bool,
}

/// How a value is written in protobuf.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Text,
    /// Base64 in JSON.
    Bytes,
    /// Hex in JSON: OTLP's own exception for ids.
    Hex,
    Bool,
    Double,
    Fixed64,
    Sfixed64,
    Int64,
    Uint64,
    Uint32,
    Sint32,
    Fixed32,
    /// Names without their common prefix, by number.
    Enum(&'static str, &'static [&'static str]),
    Message(&'static Message),
}

const fn one(name: &'static str, number: u32, kind: Kind) -> Field {
    Field {
        name,
        number,
        kind,
        repeated: false,
    }
}

const fn many(name: &'static str, number: u32, kind: Kind) -> Field {
    Field {
        name,
        number,
        kind,
        repeated: true,
    }
}

impl Message {
    /// The field of a member name, in lowerCamelCase or snake_case.
    pub(super) fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|f| f.name == name || is_snake_of(name, f.name))
    }
}

fn is_snake_of(snake: &str, camel: &str) -> bool {
    let mut snake = snake.bytes();
    let same = camel.bytes().all(|c| {
        if c.is_ascii_uppercase() {
            snake.next() == Some(b'_') && snake.next() == Some(c.to_ascii_lowercase())
        } else {
            snake.next() == Some(c)
        }
    });
    same && snake.next().is_none()
}

use Kind::*;

const SEVERITY: Kind = Enum(
    "SEVERITY_NUMBER_",
    &[
        "UNSPECIFIED",
        "TRACE",
        "TRACE2",
        "TRACE3",
        "TRACE4",
        "DEBUG",
        "DEBUG2",
        "DEBUG3",
        "DEBUG4",
        "INFO",
        "INFO2",
        "INFO3",
        "INFO4",
        "WARN",
        "WARN2",
        "WARN3",
        "WARN4",
        "ERROR",
        "ERROR2",
        "ERROR3",
        "ERROR4",
        "FATAL",
        "FATAL2",
        "FATAL3",
        "FATAL4",
    ],
);
const SPAN_KIND: Kind = Enum(
    "SPAN_KIND_",
    &["UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"],
);
const STATUS_CODE: Kind = Enum("STATUS_CODE_", &["UNSET", "OK", "ERROR"]);
const TEMPORALITY: Kind = Enum("AGGREGATION_TEMPORALITY_", &["UNSPECIFIED", "DELTA", "CUMULATIVE"]);

static ANY: Message = Message {
    fields: &[
        one("stringValue", 1, Text),
        one("boolValue", 2, Bool),
        one("intValue", 3, Int64),
        one("doubleValue", 4, Double),
        one("arrayValue", 5, Kind::Message(&ARRAY)),
        one("kvlistValue", 6, Kind::Message(&KVLIST)),
        one("bytesValue", 7, Bytes),
    ],
};
static ARRAY: Message = Message {
    fields: &[many("values", 1, Kind::Message(&ANY))],
};
static KVLIST: Message = Message {
    fields: &[many("values", 1, Kind::Message(&PAIR))],
};
static PAIR: Message = Message {
    fields: &[one("key", 1, Text), one("value", 2, Kind::Message(&ANY))],
};

static ENTITY_REF: Message = Message {
    fields: &[
        one("schemaUrl", 1, Text),
        one("type", 2, Text),
        many("idKeys", 3, Text),
        many("descriptionKeys", 4, Text),
    ],
};
static RESOURCE: Message = Message {
    fields: &[
        many("attributes", 1, Kind::Message(&PAIR)),
        one("droppedAttributesCount", 2, Uint32),
        many("entityRefs", 3, Kind::Message(&ENTITY_REF)),
    ],
};
static SCOPE: Message = Message {
    fields: &[
        one("name", 1, Text),
        one("version", 2, Text),
        many("attributes", 3, Kind::Message(&PAIR)),
        one("droppedAttributesCount", 4, Uint32),
    ],
};

static LOG_RECORD: Message = Message {
    fields: &[
        one("timeUnixNano", 1, Fixed64),
        one("severityNumber", 2, SEVERITY),
        one("severityText", 3, Text),
        one("body", 5, Kind::Message(&ANY)),
        many("attributes", 6, Kind::Message(&PAIR)),
        one("droppedAttributesCount", 7, Uint32),
        one("flags", 8, Fixed32),
        one("traceId", 9, Hex),
        one("spanId", 10, Hex),
        one("observedTimeUnixNano", 11, Fixed64),
        one("eventName", 12, Text),
    ],
};
static SCOPE_LOGS: Message = Message {
    fields: &[
        one("scope", 1, Kind::Message(&SCOPE)),
        many("logRecords", 2, Kind::Message(&LOG_RECORD)),
        one("schemaUrl", 3, Text),
    ],
};
static RESOURCE_LOGS: Message = Message {
    fields: &[
        one("resource", 1, Kind::Message(&RESOURCE)),
        many("scopeLogs", 2, Kind::Message(&SCOPE_LOGS)),
        one("schemaUrl", 3, Text),
    ],
};
pub(super) static LOGS: Message = Message {
    fields: &[many("resourceLogs", 1, Kind::Message(&RESOURCE_LOGS))],
};

static SPAN_EVENT: Message = Message {
    fields: &[
        one("timeUnixNano", 1, Fixed64),
        one("name", 2, Text),
        many("attributes", 3, Kind::Message(&PAIR)),
        one("droppedAttributesCount", 4, Uint32),
    ],
};
static SPAN_LINK: Message = Message {
    fields: &[
        one("traceId", 1, Hex),
        one("spanId", 2, Hex),
        one("traceState", 3, Text),
        many("attributes", 4, Kind::Message(&PAIR)),
        one("droppedAttributesCount", 5, Uint32),
        one("flags", 6, Fixed32),
    ],
};
static STATUS: Message = Message {
    fields: &[one("message", 2, Text), one("code", 3, STATUS_CODE)],
};
static SPAN: Message = Message {
    fields: &[
        one("traceId", 1, Hex),
        one("spanId", 2, Hex),
        one("traceState", 3, Text),
        one("parentSpanId", 4, Hex),
        one("name", 5, Text),
        one("kind", 6, SPAN_KIND),
        one("startTimeUnixNano", 7, Fixed64),
        one("endTimeUnixNano", 8, Fixed64),
        many("attributes", 9, Kind::Message(&PAIR)),
        one("droppedAttributesCount", 10, Uint32),
        many("events", 11, Kind::Message(&SPAN_EVENT)),
        one("droppedEventsCount", 12, Uint32),
        many("links", 13, Kind::Message(&SPAN_LINK)),
        one("droppedLinksCount", 14, Uint32),
        one("status", 15, Kind::Message(&STATUS)),
        one("flags", 16, Fixed32),
    ],
};
static SCOPE_SPANS: Message = Message {
    fields: &[
        one("scope", 1, Kind::Message(&SCOPE)),
        many("spans", 2, Kind::Message(&SPAN)),
        one("schemaUrl", 3, Text),
    ],
};
static RESOURCE_SPANS: Message = Message {
    fields: &[
        one("resource", 1, Kind::Message(&RESOURCE)),
        many("scopeSpans", 2, Kind::Message(&SCOPE_SPANS)),
        one("schemaUrl", 3, Text),
    ],
};
pub(super) static TRACES: Message = Message {
    fields: &[many("resourceSpans", 1, Kind::Message(&RESOURCE_SPANS))],
};

static EXEMPLAR: Message = Message {
    fields: &[
        one("timeUnixNano", 2, Fixed64),
        one("asDouble", 3, Double),
        one("spanId", 4, Hex),
        one("traceId", 5, Hex),
        one("asInt", 6, Sfixed64),
        many("filteredAttributes", 7, Kind::Message(&PAIR)),
    ],
};
static NUMBER_POINT: Message = Message {
    fields: &[
        one("startTimeUnixNano", 2, Fixed64),
        one("timeUnixNano", 3, Fixed64),
        one("asDouble", 4, Double),
        many("exemplars", 5, Kind::Message(&EXEMPLAR)),
        one("asInt", 6, Sfixed64),
        many("attributes", 7, Kind::Message(&PAIR)),
        one("flags", 8, Uint32),
    ],
};
static HISTOGRAM_POINT: Message = Message {
    fields: &[
        one("startTimeUnixNano", 2, Fixed64),
        one("timeUnixNano", 3, Fixed64),
        one("count", 4, Fixed64),
        one("sum", 5, Double),
        many("bucketCounts", 6, Fixed64),
        many("explicitBounds", 7, Double),
        many("exemplars", 8, Kind::Message(&EXEMPLAR)),
        many("attributes", 9, Kind::Message(&PAIR)),
        one("flags", 10, Uint32),
        one("min", 11, Double),
        one("max", 12, Double),
    ],
};
static BUCKETS: Message = Message {
    fields: &[one("offset", 1, Sint32), many("bucketCounts", 2, Uint64)],
};
static EXPONENTIAL_POINT: Message = Message {
    fields: &[
        many("attributes", 1, Kind::Message(&PAIR)),
        one("startTimeUnixNano", 2, Fixed64),
        one("timeUnixNano", 3, Fixed64),
        one("count", 4, Fixed64),
        one("sum", 5, Double),
        one("scale", 6, Sint32),
        one("zeroCount", 7, Fixed64),
        one("positive", 8, Kind::Message(&BUCKETS)),
        one("negative", 9, Kind::Message(&BUCKETS)),
        one("flags", 10, Uint32),
        many("exemplars", 11, Kind::Message(&EXEMPLAR)),
        one("min", 12, Double),
        one("max", 13, Double),
        one("zeroThreshold", 14, Double),
    ],
};
static QUANTILE: Message = Message {
    fields: &[one("quantile", 1, Double), one("value", 2, Double)],
};
static SUMMARY_POINT: Message = Message {
    fields: &[
        one("startTimeUnixNano", 2, Fixed64),
        one("timeUnixNano", 3, Fixed64),
        one("count", 4, Fixed64),
        one("sum", 5, Double),
        many("quantileValues", 6, Kind::Message(&QUANTILE)),
        many("attributes", 7, Kind::Message(&PAIR)),
        one("flags", 8, Uint32),
    ],
};
static GAUGE: Message = Message {
    fields: &[many("dataPoints", 1, Kind::Message(&NUMBER_POINT))],
};
static SUM: Message = Message {
    fields: &[
        many("dataPoints", 1, Kind::Message(&NUMBER_POINT)),
        one("aggregationTemporality", 2, TEMPORALITY),
        one("isMonotonic", 3, Bool),
    ],
};
static HISTOGRAM: Message = Message {
    fields: &[
        many("dataPoints", 1, Kind::Message(&HISTOGRAM_POINT)),
        one("aggregationTemporality", 2, TEMPORALITY),
    ],
};
static EXPONENTIAL: Message = Message {
    fields: &[
        many("dataPoints", 1, Kind::Message(&EXPONENTIAL_POINT)),
        one("aggregationTemporality", 2, TEMPORALITY),
    ],
};
static SUMMARY: Message = Message {
    fields: &[many("dataPoints", 1, Kind::Message(&SUMMARY_POINT))],
};
static METRIC: Message = Message {
    fields: &[
        one("name", 1, Text),
        one("description", 2, Text),
        one("unit", 3, Text),
        one("gauge", 5, Kind::Message(&GAUGE)),
        one("sum", 7, Kind::Message(&SUM)),
        one("histogram", 9, Kind::Message(&HISTOGRAM)),
        one("exponentialHistogram", 10, Kind::Message(&EXPONENTIAL)),
        one("summary", 11, Kind::Message(&SUMMARY)),
        many("metadata", 12, Kind::Message(&PAIR)),
    ],
};
static SCOPE_METRICS: Message = Message {
    fields: &[
        one("scope", 1, Kind::Message(&SCOPE)),
        many("metrics", 2, Kind::Message(&METRIC)),
        one("schemaUrl", 3, Text),
    ],
};
static RESOURCE_METRICS: Message = Message {
    fields: &[
        one("resource", 1, Kind::Message(&RESOURCE)),
        many("scopeMetrics", 2, Kind::Message(&SCOPE_METRICS)),
        one("schemaUrl", 3, Text),
    ],
};
pub(super) static METRICS: Message = Message {
    fields: &[many("resourceMetrics", 1, Kind::Message(&RESOURCE_METRICS))],
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_of_a_name_are_known() {
        for name in ["timeUnixNano", "time_unix_nano"] {
            assert_eq!(LOG_RECORD.field(name).map(|f| f.number), Some(1), "{name}");
        }
        for name in ["time_unix_nan", "time_unix_nanos", "timeunixnano", "TimeUnixNano", ""] {
            assert!(LOG_RECORD.field(name).is_none(), "{name}");
        }
    }
}
