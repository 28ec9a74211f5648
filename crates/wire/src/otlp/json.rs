//! OTLP/JSON to OTLP/protobuf, so that there is one decoder.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::json_schema::{Field, Kind, LOGS, METRICS, Message, TRACES};
use super::writer::{bytes_always, double_always, fixed32, fixed64_always, uint_always};
use super::{DecodeError, DecodeLimits};
use crate::Signal;
use crate::json::{self, Json, JsonError};
use crate::limits::MAX_VALUE_DEPTH;
use crate::value::parse_double;

/// JSON levels that one level of a nested value takes: the value, its list, the list's array, a pair.
const LEVELS_PER_VALUE: usize = 4;
/// JSON levels around the deepest value.
const LEVELS_AROUND: usize = 24;

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// The protobuf bytes of an export request given as OTLP/JSON. Unknown members are ignored, names may be lowerCamelCase or snake_case,
/// 64-bit integers numbers or strings, enums numbers or names.
pub fn json_to_protobuf(signal: Signal, json: &[u8], limits: &DecodeLimits) -> Result<Vec<u8>, DecodeError> {
    if json.len() > limits.max_bytes {
        return Err(DecodeError::Limit {
            limit: "bytes of the request",
            max: limits.max_bytes,
        });
    }
    let text = std::str::from_utf8(json).map_err(|e| DecodeError::Json {
        path: "$".into(),
        offset: e.valid_up_to(),
        what: "text is not UTF-8".into(),
    })?;
    let message = match signal {
        Signal::Log => &LOGS,
        Signal::Span => &TRACES,
        Signal::Metric => &METRICS,
    };
    let mut out = Vec::with_capacity(json.len() / 2);
    let depth = limits.max_depth.min(MAX_VALUE_DEPTH) * LEVELS_PER_VALUE + LEVELS_AROUND;
    let mut json = Json::new(text, depth);
    write_message(&mut out, message, &mut json)
        .and_then(|()| Ok(json.end()?))
        .map_err(Failure::into_error)?;
    Ok(out)
}

/// What is wrong and where; the path grows from the inside out.
struct Failure {
    offset: usize,
    what: String,
    path: Vec<String>,
}

impl From<JsonError> for Failure {
    fn from(error: JsonError) -> Self {
        Self {
            offset: error.offset,
            what: error.what.into(),
            path: Vec::new(),
        }
    }
}

impl Failure {
    fn at(mut self, step: impl FnOnce() -> String) -> Self {
        self.path.push(step());
        self
    }

    fn into_error(mut self) -> DecodeError {
        self.path.push("$".into());
        self.path.reverse();
        DecodeError::Json {
            path: self.path.concat(),
            offset: self.offset,
            what: self.what,
        }
    }
}

fn write_message(out: &mut Vec<u8>, message: &Message, json: &mut Json<'_>) -> Result<(), Failure> {
    json.object(|json, name| {
        let Some(field) = message.field(&name) else {
            return Ok(json.skip()?);
        };
        write_field(out, field, json).map_err(|f| f.at(|| format!(".{}", field.name)))
    })
}

fn write_field(out: &mut Vec<u8>, field: &Field, json: &mut Json<'_>) -> Result<(), Failure> {
    // null means absent, everywhere.
    if json.kind()? == json::Kind::Null {
        json.literal()?;
        return Ok(());
    }
    if !field.repeated {
        return write_value(out, field, json);
    }
    json.array(|json, n| write_value(out, field, json).map_err(|f| f.at(|| format!("[{n}]"))))
}

fn write_value(out: &mut Vec<u8>, field: &Field, json: &mut Json<'_>) -> Result<(), Failure> {
    let number = field.number;
    match field.kind {
        Kind::Text => bytes_always(out, number, json.string()?.as_bytes()),
        Kind::Bytes => {
            let bytes = from_base64(&json.string()?).ok_or_else(|| json.error("is not base64"))?;
            bytes_always(out, number, &bytes);
        }
        Kind::Hex => {
            let bytes = hex::decode(json.string()?.as_bytes()).map_err(|_| json.error("is not hex"))?;
            bytes_always(out, number, &bytes);
        }
        Kind::Bool => match json.literal()? {
            json::Kind::True => uint_always(out, number, 1),
            json::Kind::False => uint_always(out, number, 0),
            _ => return Err(json.error("expected true or false").into()),
        },
        Kind::Double => double_always(out, number, read_double(json)?),
        Kind::Fixed64 => fixed64_always(out, number, read_int(json)?),
        Kind::Sfixed64 => fixed64_always(out, number, read_int::<i64>(json)? as u64),
        Kind::Int64 => uint_always(out, number, read_int::<i64>(json)? as u64),
        Kind::Uint64 => uint_always(out, number, read_int(json)?),
        Kind::Uint32 => uint_always(out, number, u64::from(read_int::<u32>(json)?)),
        Kind::Fixed32 => fixed32(out, number, read_int(json)?),
        Kind::Sint32 => {
            let int = read_int::<i32>(json)?;
            uint_always(out, number, u64::from(((int << 1) ^ (int >> 31)) as u32));
        }
        Kind::Enum(prefix, names) => {
            let int = read_enum(json, prefix, names)?;
            uint_always(out, number, i64::from(int) as u64);
        }
        Kind::Message(message) => {
            let mut inner = Vec::new();
            write_message(&mut inner, message, json)?;
            bytes_always(out, number, &inner);
        }
    }
    Ok(())
}

fn from_base64(text: &str) -> Option<Vec<u8>> {
    let engine = if text.contains(['-', '_']) {
        &URL_SAFE
    } else {
        &STANDARD
    };
    engine.decode(text).ok()
}

/// An integer as a number or a string; `1.0` and `1e3` are integers too.
fn read_int<T: std::str::FromStr + TryFrom<i128>>(json: &mut Json<'_>) -> Result<T, Failure> {
    let range = "is not an integer in range";
    if json.kind()? == json::Kind::String {
        return json.string()?.parse().map_err(|_| json.error(range).into());
    }
    let text = json.number()?;
    if let Ok(int) = text.parse() {
        return Ok(int);
    }
    let whole = text.parse::<f64>().ok().filter(|f| f.fract() == 0.0 && f.abs() < 1e19);
    whole
        .and_then(|f| T::try_from(f as i128).ok())
        .ok_or_else(|| json.error(range).into())
}

fn read_double(json: &mut Json<'_>) -> Result<f64, Failure> {
    let parsed = match json.kind()? {
        json::Kind::String => parse_double(&json.string()?),
        _ => parse_double(json.number()?),
    };
    parsed.ok_or_else(|| json.error("is not a double").into())
}

fn read_enum(json: &mut Json<'_>, prefix: &str, names: &[&str]) -> Result<i32, Failure> {
    if json.kind()? != json::Kind::String {
        return read_int(json);
    }
    let text = json.string()?;
    let name = text.strip_prefix(prefix).unwrap_or(&text);
    match names.iter().position(|known| *known == name) {
        Some(index) => Ok(index as i32),
        None => text
            .parse()
            .map_err(|_| json.error("is not a name of this enum").into()),
    }
}
