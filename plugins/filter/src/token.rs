//! From text to tokens.

use std::ops::Range;

use crate::mistake::Mistake;

/// Bytes of an expression.
pub const MAX_TEXT_BYTES: usize = 16 * 1024;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Token {
    /// A column, a severity, or a word of the language.
    Name(String),
    Text(String),
    Int(i64),
    Float(f64),
    /// Nanoseconds.
    Duration(i64),
    Sign(&'static str),
    End,
}

/// Longer ones first.
const SIGNS: [&str; 20] = [
    "!~*", "==", "!=", "<=", ">=", "&&", "||", "!~", "~*", "=~", "<", ">", "~", "=", "!", "(", ")", "[", "]", ",",
];

const UNITS: [(&str, f64); 8] = [
    ("ns", 1.0),
    ("us", 1e3),
    ("µs", 1e3),
    ("ms", 1e6),
    ("s", 1e9),
    ("m", 60e9),
    ("h", 3600e9),
    ("d", 86400e9),
];

/// All tokens with their places; the last one is the end.
pub(crate) fn tokens(text: &str) -> Result<Vec<(Token, Range<usize>)>, Mistake> {
    if text.len() > MAX_TEXT_BYTES {
        let what = format!("the expression has {} bytes; at most {MAX_TEXT_BYTES}", text.len());
        return Err(Mistake::new(0..0, what));
    }
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        if first.is_whitespace() {
            at += first.len_utf8();
            continue;
        }
        let rest = &text[at..];
        let (token, bytes) = if first == '"' || first == '\'' {
            quoted(rest, first).map_err(|(bytes, what)| Mistake::new(at..at + bytes, what))?
        } else if first.is_ascii_digit() || (first == '-' && rest[1..].starts_with(|c: char| c.is_ascii_digit())) {
            let bytes = 1 + rest[1..].find(|c: char| !is_number(c)).unwrap_or(rest.len() - 1);
            let bytes = exponent(rest, bytes);
            (
                number(&rest[..bytes]).map_err(|what| Mistake::new(at..at + bytes, what))?,
                bytes,
            )
        } else if is_name_start(first) {
            let bytes = rest.find(|c: char| !is_name(c)).unwrap_or(rest.len());
            (Token::Name(rest[..bytes].to_owned()), bytes)
        } else if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            (Token::Sign(sign), sign.len())
        } else {
            let what = format!("`{first}` means nothing here; texts stand in quotes");
            return Err(Mistake::new(at..at + first.len_utf8(), what));
        };
        tokens.push((token, at..at + bytes));
        at += bytes;
    }
    tokens.push((Token::End, at..at));
    Ok(tokens)
}

fn is_name_start(c: char) -> bool {
    c.is_alphabetic() || c == '_'
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '.'
}

/// Digits, point and unit.
fn is_number(c: char) -> bool {
    c.is_alphanumeric() || c == '.' || c == '_'
}

/// `1e-3` goes on after the sign.
fn exponent(text: &str, bytes: usize) -> usize {
    let is_exponent = text[..bytes].ends_with(['e', 'E']) && text[bytes..].starts_with(['+', '-']);
    if !is_exponent {
        return bytes;
    }
    let digits = text[bytes + 1..].find(|c: char| !c.is_ascii_digit());
    digits.map_or(text.len(), |digits| bytes + 1 + digits)
}

/// A text and the bytes that it takes with its quotes. In single quotes everything is itself. In double quotes `\"`, `\\`, `\n`,
/// `\r` and `\t` are what they are elsewhere and any other backslash is itself, so that `"\d+"` needs no doubling.
fn quoted(text: &str, quote: char) -> Result<(Token, usize), (usize, String)> {
    let mut content = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        if c == quote {
            return Ok((Token::Text(content), at + 1));
        }
        if c != '\\' || quote == '\'' {
            content.push(c);
            continue;
        }
        match chars.next() {
            Some((_, 'n')) => content.push('\n'),
            Some((_, 'r')) => content.push('\r'),
            Some((_, 't')) => content.push('\t'),
            Some((_, same @ ('"' | '\\'))) => content.push(same),
            Some((_, other)) => content.extend(['\\', other]),
            None => break,
        }
    }
    Err((
        text.len().min(1),
        format!("the text that begins here has no closing {quote}"),
    ))
}

fn number(text: &str) -> Result<Token, String> {
    let digits = text.replace('_', "");
    if let Ok(number) = digits.parse() {
        return Ok(Token::Int(number));
    }
    let is_integer = digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    if is_integer {
        return Err(format!("{text} is beyond the whole numbers of 64 bits"));
    }
    // Words such as `inf`, which Rust would read, do not begin with a digit.
    if let Some(number) = digits.parse::<f64>().ok().filter(|number| number.is_finite()) {
        return Ok(Token::Float(number));
    }
    let unit_at = digits.find(|c: char| c.is_alphabetic()).unwrap_or(digits.len());
    let (value, unit) = digits.split_at(unit_at);
    let Some((_, scale)) = UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err(format!(
            "`{text}` is no number; units of durations are ns, us, ms, s, m, h and d"
        ));
    };
    let exact = value
        .parse::<i64>()
        .ok()
        .and_then(|value| value.checked_mul(*scale as i64));
    let duration = match (exact, value.parse::<f64>()) {
        (Some(exact), _) => exact,
        (None, Ok(value)) if (value * scale).abs() < i64::MAX as f64 => (value * scale).round() as i64,
        _ => return Err(format!("`{text}` is no duration that fits into 64 bits of nanoseconds")),
    };
    Ok(Token::Duration(duration))
}
