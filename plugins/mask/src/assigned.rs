//! Values behind a key of `always` in text that is no JSON: `cvv=123`, and what is left of JSON that was cut off.

use std::ops::Range;

use crate::find::value::{Ahead, value_at};
use crate::find::{judge, secret};
use crate::keys::Keys;

/// Hands over the values that follow a key of `always` and `=` or `:`. Behind a key in quotes, anything is a value; behind a bare
/// one, words about it are not (`cookie: accepted`, `cvv=***`), and what a word already decides is left to that.
pub(crate) fn find(text: &str, keys: &Keys, mut found: impl FnMut(Range<usize>)) {
    let bytes = text.as_bytes();
    let mut ahead = Ahead::default();
    let mut from = 0;
    while let Some(sign) = memchr::memchr2(b'=', b':', &bytes[from..]).map(|at| from + at) {
        from = sign + 1;
        if !may_be_key(bytes, sign, keys) {
            continue;
        }
        let Some(key) = secret::key_before(text, sign).filter(|key| keys.is_always(key)) else {
            continue;
        };
        let quoted = matches!(bytes[..sign].trim_ascii_end().last(), Some(b'"' | b'\''));
        let mut at = sign + 1;
        if matches!(bytes.get(at), Some(b'=')) || matches!(sign.checked_sub(1).map(|at| bytes[at]), Some(b'=' | b'!')) {
            // A comparison.
            continue;
        }
        at += usize::from(bytes.get(at) == Some(&b'>'));
        let space = |byte: &&u8| matches!(**byte, b' ') || quoted && byte.is_ascii_whitespace();
        at += bytes[at..].iter().take(64).take_while(space).count();
        if quoted && matches!(bytes.get(at), Some(b'{' | b'[')) {
            let end = close_of(bytes, at);
            found(at..end);
            from = end;
            continue;
        }
        let class = secret::class_of(key);
        let in_quotes = matches!(bytes.get(at), Some(b'"' | b'\'' | b'`' | b'\\'));
        let value = value_at(text, at, secret::Class::Password, &mut ahead);
        let content = &text[value.clone()];
        let is_value = match (quoted, bytes[sign]) {
            (true, _) => !matches!(content, "" | "true" | "false" | "null"),
            (false, b':') if class.is_some() => false,
            // A scheme, and then what is secret.
            (false, _) if class == Some(secret::Class::Authorization) && secret::is_scheme(content) => false,
            (false, sign) => {
                let prose = sign == b':' && !in_quotes && text[value.end..].starts_with(' ');
                judge::is_password(content, prose)
            }
        };
        if is_value {
            from = from.max(value.end);
            found(value);
        }
    }
}

/// Whether the JSON that begins here is the value of a key of `always` in the text before it.
pub(crate) fn announces(text: &str, at: usize, keys: &Keys) -> bool {
    let bytes = text.as_bytes();
    let space = bytes[..at]
        .iter()
        .rev()
        .take(64)
        .take_while(|byte| byte.is_ascii_whitespace())
        .count();
    let Some(sign) = (at - space)
        .checked_sub(1)
        .filter(|sign| matches!(bytes[*sign], b'=' | b':'))
    else {
        return false;
    };
    may_be_key(bytes, sign, keys) && secret::key_before(text, sign).is_some_and(|key| keys.is_always(key))
}

/// Whether what stands before a sign may be a key of `always`: quickly said for most.
pub(crate) fn may_be_key(bytes: &[u8], sign: usize, keys: &Keys) -> bool {
    let mut before = bytes[..sign].iter().rev().take(secret::MAX_QUOTES + 1);
    let last = before.find(|byte| !matches!(byte, b'"' | b' ' | b'\'' | b'\\' | b'`'));
    last.is_some_and(|last| keys.may_end(*last))
}

/// Where the brackets that open here are closed; the end of the text if they are not.
fn close_of(bytes: &[u8], from: usize) -> usize {
    let mut depth = 0usize;
    let mut in_string = false;
    let mut at = from;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' if in_string => at += 1,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => depth += 1,
            b'}' | b']' if !in_string => {
                depth -= 1;
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}
