//! OTLP in and out: requests to batches in one pass without message objects, stored rows back to requests.

mod any;
mod attributes;
mod core;
mod encode;
mod json;
mod json_schema;
mod logs;
mod metrics;
mod proto;
mod spans;
mod table;
mod to_json;
pub mod writer;

use arrow_array::RecordBatch;

use self::any::member_name;
pub use self::encode::{EncodeError, encode_rows};
pub use self::json::json_to_protobuf;
use self::proto::Reader;
use self::table::Table;
pub use self::to_json::protobuf_to_json;
use crate::Signal;
use crate::layout::expanded_bytes;
pub use crate::limits::DecodeLimits;
use crate::value::write_hex;

const SHARED_BYTES: &str = "bytes of text with what events share counted for each of them";

/// Turns export requests into batches.
#[derive(Debug)]
pub struct Decoder {
    limits: DecodeLimits,
}

/// What became of a request.
#[derive(Debug)]
pub struct Decoded {
    pub batch: RecordBatch,
    /// Rows that were not taken, for the partial success of the answer.
    pub rejected: u64,
    /// Why the first of them was not taken.
    pub reject_reason: Option<String>,
}

/// Why a request is refused as a whole. The text is what the sender is told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("malformed request at byte {offset}: {what}")]
    Malformed { offset: usize, what: &'static str },
    #[error("request exceeds a limit: {limit}, at most {max}")]
    Limit { limit: &'static str, max: usize },
    #[error("malformed JSON at {path} (byte {offset}): {what}")]
    Json { path: String, offset: usize, what: String },
    /// Never the sender's fault.
    #[error("batch cannot be built: {0}")]
    Build(String),
}

impl Decoder {
    pub fn new(limits: DecodeLimits) -> Self {
        Self { limits }
    }

    pub fn limits(&self) -> &DecodeLimits {
        &self.limits
    }

    /// Reads the protobuf bytes of one export request.
    pub fn decode(&mut self, signal: Signal, body: &[u8], received_ns: u64) -> Result<Decoded, DecodeError> {
        if body.len() > self.limits.max_bytes {
            return Err(DecodeError::Limit {
                limit: "bytes of the request",
                max: self.limits.max_bytes,
            });
        }
        let rows = count_rows(signal, Reader::new(body))?;
        if rows > self.limits.max_rows {
            return Err(DecodeError::Limit {
                limit: "events of the request",
                max: self.limits.max_rows,
            });
        }
        let mut table = Table::new(&self.limits, rows, received_ns);
        let mut pairs = Vec::new();
        each(Reader::new(body), 1, |resource| {
            read_resource(&mut table, signal, resource, &mut pairs)
        })?;
        let decoded = table.finish(signal)?;
        if expanded_bytes(&decoded.batch) > self.limits.max_expanded_bytes {
            return Err(DecodeError::Limit {
                limit: SHARED_BYTES,
                max: self.limits.max_expanded_bytes,
            });
        }
        Ok(decoded)
    }
}

fn read_resource<'a>(
    table: &mut Table<'a>,
    signal: Signal,
    message: Reader<'a>,
    pairs: &mut Vec<Reader<'a>>,
) -> Result<(), DecodeError> {
    let (head, schema_url) = read_head(message)?;
    let shared = table.begin_resource(head)?;
    each(message, 2, |scope| {
        let (head, schema_url) = read_head(scope)?;
        let shared = table.begin_scope(head)?;
        each(scope, 2, |record| match signal {
            Signal::Log => logs::read(table, record, pairs),
            Signal::Span => spans::read(table, record, pairs),
            Signal::Metric => metrics::read(table, record, pairs),
        })?;
        table.end_scope(&shared, schema_url)
    })?;
    table.end_resource(&shared, schema_url)
}

/// What stands beside the rows of a resource or a scope, wherever in the message it stands: the message that describes it,
/// and its schema URL.
fn read_head<'a>(mut message: Reader<'a>) -> Result<(Option<Reader<'a>>, &'a str), DecodeError> {
    let mut head = (None, "");
    while let Some((number, wire)) = message.field()? {
        match number {
            1 => head.0 = Some(message.message(wire)?),
            3 => head.1 = message.text(wire)?,
            _ => message.skip(number, wire)?,
        }
    }
    Ok(head)
}

/// Calls `visit` for every nested message in the field `wanted`.
fn each<'a>(
    mut message: Reader<'a>,
    wanted: u32,
    mut visit: impl FnMut(Reader<'a>) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    while let Some((number, wire)) = message.field()? {
        if number == wanted {
            visit(message.message(wire)?)?;
        } else {
            message.skip(number, wire)?;
        }
    }
    Ok(())
}

/// Counts log records, spans or data points by jumping over them, so that limits hold before anything is allocated.
fn count_rows(signal: Signal, body: Reader<'_>) -> Result<usize, DecodeError> {
    let mut rows = 0;
    each(body, 1, |resource| {
        each(resource, 2, |scope| {
            each(scope, 2, |record| {
                match signal {
                    Signal::Log | Signal::Span => rows += 1,
                    Signal::Metric => {
                        for kind in metrics::Kind::ALL {
                            each(record, kind.field(), |data| {
                                each(data, 1, |_| {
                                    rows += 1;
                                    Ok(())
                                })
                            })?;
                        }
                    }
                }
                Ok(())
            })
        })
    })?;
    Ok(rows)
}

/// An id of the right length, `Some(None)` for none at all; `None` refuses the row at hand.
fn checked_id<'i, const N: usize>(table: &mut Table<'_>, name: &str, id: &'i [u8]) -> Option<Option<&'i [u8; N]>> {
    if id.is_empty() {
        return Some(None);
    }
    if let Ok(id) = id.try_into() {
        return Some(Some(id));
    }
    table.reject(|| format!("{name} has {} bytes, {N} are needed", id.len()));
    None
}

/// An id inside JSON text, of whatever length it was sent.
fn write_id_member(out: &mut Vec<u8>, name: &str, id: &[u8]) {
    if !id.is_empty() {
        member_name(out, name);
        out.push(b'"');
        write_hex(out, id);
        out.push(b'"');
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::writer::{bytes_always, fixed64, text};
    use super::*;
    use arrow_array::Array;

    fn nested(field: u32, inner: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        bytes_always(&mut out, field, inner);
        out
    }

    /// A request of one resource, one scope and these records.
    fn request(resource: &[u8], records: &[Vec<u8>]) -> Vec<u8> {
        let records: Vec<u8> = records.iter().flat_map(|r| nested(2, r)).collect();
        nested(1, &[nested(1, resource), nested(2, &records)].concat())
    }

    fn attribute(field: u32, key: &str, value: &str) -> Vec<u8> {
        let mut any = Vec::new();
        text(&mut any, 1, Some(value));
        let mut pair = Vec::new();
        text(&mut pair, 1, Some(key));
        bytes_always(&mut pair, 2, &any);
        nested(field, &pair)
    }

    fn decode(limits: DecodeLimits, body: &[u8]) -> Result<Decoded, DecodeError> {
        Decoder::new(limits).decode(Signal::Log, body, 42)
    }

    #[test]
    fn a_record_with_an_id_of_the_wrong_length_is_rejected_alone() {
        let mut good = Vec::new();
        fixed64(&mut good, 1, 7);
        let records = [nested(9, &[1; 16]), nested(9, &[1; 15]), nested(10, &[1; 3]), good];
        let decoded = decode(DecodeLimits::default(), &request(&[], &records)).unwrap();
        assert_eq!((decoded.batch.num_rows(), decoded.rejected), (2, 2));
        assert_eq!(
            decoded.reject_reason.as_deref(),
            Some("trace_id has 15 bytes, 16 are needed")
        );
        assert_eq!(
            decoded.batch.column_by_name("trace_id").map(|c| c.null_count()),
            Some(1)
        );
    }

    #[test]
    fn a_resource_behind_its_records_still_counts() {
        let resource = attribute(1, "service.name", "shop");
        let records = nested(2, &nested(2, &[]));
        let decoded = decode(
            DecodeLimits::default(),
            &nested(1, &[records, nested(1, &resource)].concat()),
        )
        .unwrap();
        assert!(decoded.batch.column_by_name("resource:s:service.name").is_some());
    }

    #[test]
    fn p15_limits_hold_before_memory_is_spent() {
        let limits = DecodeLimits {
            max_rows: 3,
            ..DecodeLimits::default()
        };
        let body = request(&[], &vec![Vec::new(); 4]);
        assert_eq!(
            decode(limits, &body).unwrap_err(),
            DecodeError::Limit {
                limit: "events of the request",
                max: 3
            }
        );

        // One big value that every row shares.
        let resource = attribute(1, "k", &"x".repeat(100_000));
        let body = request(&resource, &vec![Vec::new(); 5000]);
        assert!(matches!(
            decode(DecodeLimits::default(), &body),
            Err(DecodeError::Limit {
                limit: SHARED_BYTES,
                ..
            })
        ));

        let limits = DecodeLimits {
            max_attributes: 2,
            ..DecodeLimits::default()
        };
        let body = request(&[], &[["a", "b", "c"].map(|k| attribute(6, k, "")).concat()]);
        assert!(matches!(decode(limits, &body), Err(DecodeError::Limit { max: 2, .. })));
    }

    #[test]
    fn p15_nesting_is_bounded_and_what_is_let_in_comes_out() {
        let nest = |depth: usize| {
            let mut any = Vec::new();
            for _ in 0..depth {
                any = nested(5, &nested(1, &any));
            }
            request(&[], &[nested(5, &any)])
        };
        let limits = DecodeLimits {
            max_depth: usize::MAX,
            ..DecodeLimits::default()
        };
        let most = crate::limits::MAX_VALUE_DEPTH;
        assert!(matches!(
            decode(limits.clone(), &nest(most + 1)),
            Err(DecodeError::Limit { .. })
        ));
        assert!(matches!(
            decode(limits.clone(), &nest(5_000)),
            Err(DecodeError::Limit { .. })
        ));
        let batch = decode(limits, &nest(most)).unwrap().batch;
        let again = encode_rows(Signal::Log, &batch).unwrap();
        let limits = DecodeLimits {
            max_depth: most,
            ..DecodeLimits::default()
        };
        assert_eq!(decode(limits, &again).unwrap().batch, batch);
    }

    #[test]
    fn json_errors_say_where() {
        let at = |json: &str| {
            json_to_protobuf(Signal::Log, json.as_bytes(), &DecodeLimits::default())
                .unwrap_err()
                .to_string()
        };
        let error = at(r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{},{"traceId":"xyz"}]}]}]}"#);
        assert!(
            error.contains("$.resourceLogs[0].scopeLogs[0].logRecords[1].traceId"),
            "{error}"
        );
        assert!(
            at(r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"timeUnixNano":"-1"}]}]}]}"#).contains("timeUnixNano")
        );
        for bad in ["", "[]", "{", "{}x", r#"{"resourceLogs":{}}"#] {
            assert!(at(bad).starts_with("malformed JSON at $"), "{bad}");
        }
    }

    #[test]
    fn json_may_be_spelled_in_every_way_that_is_allowed() {
        let spell = |json: &str| json_to_protobuf(Signal::Log, json.as_bytes(), &DecodeLimits::default()).unwrap();
        let one = spell(
            r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"timeUnixNano":"5","severityNumber":9,"flags":1,
                "traceId":"5b8efff798038103d269b633813fc60c","body":{"bytesValue":"+/8="},"attributes":[{"key":"k","value":{"intValue":"-7"}}]}]}]}]}"#,
        );
        let other = spell(
            r#"{"resource_logs":[{"unknown":[{"x":1}],"scope_logs":[{"log_records":[{"time_unix_nano":5,"severity_number":"SEVERITY_NUMBER_INFO",
                "flags":1.0,"trace_id":"5B8EFFF798038103D269B633813FC60C","body":{"bytes_value":"-_8"},"spanId":null,
                "attributes":[{"key":"k","value":{"int_value":-7}}]}]}]}]}"#,
        );
        assert_eq!(one, other);
        let deep = |n: usize| {
            let (open, close) = (r#"{"arrayValue":{"values":["#.repeat(n), "]}}".repeat(n));
            format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{"body":{open}{{}}{close}}}]}}]}}]}}"#)
        };
        let most = crate::limits::MAX_VALUE_DEPTH;
        let limits = DecodeLimits {
            max_depth: most,
            ..DecodeLimits::default()
        };
        assert!(json_to_protobuf(Signal::Log, deep(most).as_bytes(), &limits).is_ok());
        assert!(json_to_protobuf(Signal::Log, deep(50_000).as_bytes(), &limits).is_err());
    }
}
