//! A body of JSON objects, one a line or in one array, as an export request. It is taken whole or refused whole.

use std::fmt;

use bytes::Bytes;
use serde::de::{Deserializer as _, SeqAccess, Visitor};
use serde_json::Value as Json;
use serde_json::value::RawValue;
use sluice_wire::otlp::DecodeLimits;

use super::{Event, EventLimits, Origin};
use crate::source::export::{Attributes, Request};

/// Of one object. While it is parsed it takes up to 16 times its size.
const MAX_LINE_BYTES: usize = 1 << 20;
const SCOPE: &str = "sluice.json_lines";

/// Why a body is refused; the text names the line.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct LineError(String);

/// The request that holds the events of a body.
pub(crate) fn to_protobuf(body: &[u8], limits: &DecodeLimits, observed_ns: u64) -> Result<Bytes, LineError> {
    let mut events = Events {
        request: Request::new(SCOPE),
        limits: EventLimits {
            max_attributes: limits.max_attributes,
            max_depth: limits.max_depth,
        },
        origin: Origin {
            observed_ns,
            ..Origin::default()
        },
        max_rows: limits.max_rows,
        max_bytes: limits.max_bytes,
    };
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    if body.trim_ascii_start().starts_with(b"[") {
        let mut parser = serde_json::Deserializer::from_slice(body);
        (&mut parser)
            .deserialize_seq(Array(&mut events))
            .and_then(|()| parser.end())
            .map_err(|error| LineError(error.to_string()))?;
    } else {
        for (number, line) in body.split(|b| *b == b'\n').enumerate() {
            let line = line.trim_ascii();
            if !line.is_empty() {
                let refuse = |why: String| LineError(format!("line {}: {why}", number + 1));
                events.line(line).map_err(refuse)?;
            }
        }
    }
    Ok(events.request.finish())
}

struct Events {
    request: Request,
    limits: EventLimits,
    origin: Origin,
    max_rows: usize,
    max_bytes: usize,
}

impl Events {
    fn line(&mut self, line: &[u8]) -> Result<(), String> {
        if line.len() > MAX_LINE_BYTES {
            return Err(format!("{} bytes, at most {MAX_LINE_BYTES} are taken", line.len()));
        }
        let object = match serde_json::from_slice(line) {
            Ok(Json::Object(object)) => object,
            Ok(_) => return Err("is not an object".to_owned()),
            Err(error) => {
                // The line that the parser counts is that of this text.
                let text = error.to_string();
                let what = text.split(" at line ").next().unwrap_or_default();
                return Err(format!("{what} at column {}", error.column()));
            }
        };
        if self.request.rows() == self.max_rows {
            return Err(format!("more than {} events in one request", self.max_rows));
        }
        Event::from_object(object, self.limits)?.push(&mut self.request, &self.origin, &Attributes::default());
        if self.request.bytes() > self.max_bytes {
            return Err(format!("the events up to here are more than {} bytes", self.max_bytes));
        }
        Ok(())
    }
}

/// Reads the elements one by one, so that never more than one of them is in memory.
struct Array<'a>(&'a mut Events);

impl<'de> Visitor<'de> for Array<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let mut number = 0;
        while let Some(element) = items.next_element::<&RawValue>()? {
            number += 1;
            let refuse = |why| serde::de::Error::custom(format!("element {number}: {why}"));
            self.0.line(element.get().as_bytes()).map_err(refuse)?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use arrow_array::cast::AsArray;
    use arrow_array::types::Int64Type;
    use sluice_wire::Signal;
    use sluice_wire::otlp::Decoder;

    fn decode(body: &str) -> arrow_array::RecordBatch {
        let limits = DecodeLimits::default();
        let request = to_protobuf(body.as_bytes(), &limits, 5).unwrap();
        let decoded = Decoder::new(limits).decode(Signal::Log, &request, 7).unwrap();
        assert_eq!(decoded.rejected, 0);
        decoded.batch
    }

    #[test]
    fn lines_and_an_array_of_the_same_objects_are_the_same_events() {
        let one = r#"{"time":"2023-11-14T22:13:20Z","msg":"a","level":"info","service":"shop","n":9007199254740993,"d":1.5,"b":true,"deep":{"x":[1,null]}}"#;
        let two = r#"{"msg":{"not":"text"},"n":"text"}"#;
        let lines = decode(&format!("\u{feff}{one}\r\n\n  {two}  \n"));
        assert_eq!(decode(&format!(" [{one}, {two}]\n")), lines);
        assert_eq!(lines.num_rows(), 2);
        let column = |name: &str| lines.column_by_name(name).unwrap();
        assert_eq!(
            column("time").as_primitive::<Int64Type>().value(0),
            1_700_000_000_000_000_000
        );
        assert_eq!(
            column("attrs:i:n").as_primitive::<Int64Type>().value(0),
            9_007_199_254_740_993
        );
        for name in [
            "attrs:d:d",
            "attrs:b:b",
            "attrs:j:deep",
            "attrs:s:n",
            "resource:s:service.name",
        ] {
            column(name);
        }
    }

    /// What is let in here is let in by the decoder behind it: else one line would have its whole request refused later.
    #[test]
    fn what_is_a_line_is_an_event() {
        let limits = DecodeLimits::default();
        let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        let objects = |depth: usize| format!("{{\"a\":{}1{}}}", "{\"b\":".repeat(depth), "}".repeat(depth));
        let keys = |many: usize| {
            let members: Vec<String> = (0..many).map(|n| format!("\"k{n}\":{n}")).collect();
            format!("{{{}}}", members.join(","))
        };
        let lines = [
            nested(limits.max_depth),
            objects(limits.max_depth),
            keys(limits.max_attributes),
            "{\"\":1,\"msg\":{\"\":[{}]},\"a:b\":\"\\u0000\"}".to_owned(),
            format!("{{\"{}\":true}}", "k".repeat(100_000)),
            "{\"msg\":18446744073709551615,\"a\":-0.0,\"b\":1e308,\"time\":1e308,\"level\":-1}".to_owned(),
            "{}".to_owned(),
        ];
        assert_eq!(decode(&lines.join("\n")).num_rows(), lines.len());
        for line in [
            nested(limits.max_depth + 1),
            objects(limits.max_depth + 1),
            keys(limits.max_attributes + 1),
        ] {
            to_protobuf(line.as_bytes(), &limits, 0).unwrap_err();
        }
    }

    #[test]
    fn a_bad_line_is_named() {
        let limits = DecodeLimits {
            max_rows: 3,
            ..DecodeLimits::default()
        };
        let says = |body: &str, says: &str| {
            let error = to_protobuf(body.as_bytes(), &limits, 0).unwrap_err().to_string();
            assert!(error.contains(says), "{body}: {error}");
        };
        says("{}\n\n{\"a\":}", "line 3: expected value at column 6");
        says("{}\n7", "line 2: is not an object");
        says("{}\n{} {}", "line 2: trailing characters");
        says("{}\n{}\n{}\n{}", "line 4: more than 3 events");
        says(&format!("{{\"a\":\"{}\"}}", "x".repeat(MAX_LINE_BYTES)), "line 1: ");
        says(&"[".repeat(100_000), "");
        says(&format!("[[{}1]]", "1,".repeat(MAX_LINE_BYTES)), "element 1: ");
        says(&format!("{{\"a\":{}", "[".repeat(100_000)), "line 1: recursion limit");
        says("[{},{},{},{}]", "element 4: more than 3 events");
        says("[{},7]", "element 2: is not an object");
        says("[{}", "EOF");
        says("[{}] x", "trailing characters");
    }
}
