//! Text of values: FORMAT.md, section 3. The writers append to a byte buffer that holds UTF-8 and stay inside it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Names of the types of a value, as they stand in `body_type`, the `_types` maps and `<group>:*`.
pub mod type_name {
    pub const STRING: &str = "string";
    pub const INT: &str = "int";
    pub const DOUBLE: &str = "double";
    pub const BOOL: &str = "bool";
    pub const BYTES: &str = "bytes";
    pub const ARRAY: &str = "array";
    pub const KVLIST: &str = "kvlist";
    pub const NULL: &str = "null";
}

/// The type name of JSON text: a kvlist begins with `{`, everything else is an array.
pub fn json_type(text: &str) -> &'static str {
    if text.starts_with('{') {
        type_name::KVLIST
    } else {
        type_name::ARRAY
    }
}

pub fn write_int(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

pub fn write_uint(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Shortest decimal that reads back the same, always with a point or an exponent.
pub fn write_double(out: &mut Vec<u8>, value: f64) {
    if value.is_nan() {
        out.extend_from_slice(b"NaN");
    } else if value.is_infinite() {
        out.extend_from_slice(if value > 0.0 { b"Infinity" } else { b"-Infinity" });
    } else {
        out.extend_from_slice(ryu::Buffer::new().format_finite(value).as_bytes());
    }
}

/// The reverse of `write_double`; also reads what other writers of decimals produce.
pub fn parse_double(text: &str) -> Option<f64> {
    match text {
        "NaN" => Some(f64::NAN),
        "Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        // `inf` and `nan` in any case are not ours.
        _ if text.bytes().any(|b| b.is_ascii_digit()) => text.parse().ok(),
        _ => None,
    }
}

pub fn bool_text(value: bool) -> &'static str {
    if value { "true" } else { "false" }
}

/// Base64 in the standard alphabet, padded.
pub fn write_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    let written = STANDARD.encode_slice(bytes, &mut out[start..]).unwrap_or(0);
    out.truncate(start + written);
}

pub fn parse_base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

pub fn write_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 15)]);
    }
}

/// A string with quotes; only what JSON demands is escaped.
pub fn write_json_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    write_escaped(out, text);
    out.push(b'"');
}

fn write_escaped(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    let mut clean = 0;
    for (i, &byte) in bytes.iter().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[clean..i]);
        clean = i + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                out.extend_from_slice(b"\\u00");
                write_hex(out, &[byte]);
            }
        }
    }
    out.extend_from_slice(&bytes[clean..]);
}

/// A double inside JSON: what JSON lacks becomes an object.
pub fn write_json_double(out: &mut Vec<u8>, value: f64) {
    if value.is_finite() {
        write_double(out, value);
    } else {
        out.extend_from_slice(b"{\"$double\":\"");
        write_double(out, value);
        out.extend_from_slice(b"\"}");
    }
}

/// Bytes inside JSON.
pub fn write_json_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(b"{\"$bytes\":\"");
    write_base64(out, bytes);
    out.extend_from_slice(b"\"}");
}

/// The key of a kvlist's member. Only the first key of a list tells a kvlist from `$bytes` and `$double`, so only that one is guarded.
pub fn write_json_key(out: &mut Vec<u8>, key: &str, first: bool) {
    out.push(b'"');
    if first && key.starts_with('$') {
        out.push(b'$');
    }
    write_escaped(out, key);
    out.extend_from_slice(b"\":");
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text_of(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn doubles_are_never_taken_for_integers() {
        for (value, text) in [
            (1.0, "1.0"),
            (-0.0, "-0.0"),
            (1e16, "1e16"),
            (0.1, "0.1"),
            (f64::INFINITY, "Infinity"),
        ] {
            assert_eq!(text_of(|o| write_double(o, value)), text);
        }
    }

    proptest! {
        #[test]
        fn doubles_read_back_the_same(bits: u64) {
            let value = f64::from_bits(bits);
            let text = text_of(|o| write_double(o, value));
            let back = parse_double(&text).unwrap();
            prop_assert!(back.to_bits() == bits || (back.is_nan() && value.is_nan()));
        }

        #[test]
        fn json_strings_read_back_the_same(text: String) {
            let json = text_of(|o| write_json_string(o, &text));
            prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        }

        #[test]
        fn bytes_read_back_the_same(bytes: Vec<u8>) {
            prop_assert_eq!(parse_base64(&text_of(|o| write_base64(o, &bytes))).unwrap(), bytes);
        }
    }
}
