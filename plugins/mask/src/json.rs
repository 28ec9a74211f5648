//! Reads JSON only as far as needed: where strings and numbers stand, and whether it is JSON at all. No recursion, so depth
//! costs memory and no stack.

/// A part of a JSON text; places are bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    OpenObject,
    OpenArray,
    Close,
    /// The content of a key, without its quotes.
    Key(Span),
    /// The content of a string, without its quotes.
    String(Span),
    Number(Span),
    /// `true`, `false`, `null`
    Word,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub start: usize,
    pub end: usize,
    /// Whether there is a backslash in it.
    pub escaped: bool,
}

/// The tokens of the object or array that begins at `from`, and where it ends; `None` if it is none.
pub(crate) fn read(bytes: &[u8], from: usize, tokens: &mut Vec<Token>) -> Option<usize> {
    tokens.clear();
    // True for an object.
    let mut open: Vec<bool> = Vec::new();
    let mut at = from;
    loop {
        at = skip_space(bytes, at);
        // A value is expected here, or the end of an empty container.
        let closes = matches!(tokens.last(), Some(Token::OpenArray | Token::OpenObject))
            && matches!((bytes.get(at)?, open.last()), (b']', Some(false)) | (b'}', Some(true)));
        if !closes {
            if open.last() == Some(&true) {
                let key = string(bytes, at)?;
                tokens.push(Token::Key(key));
                at = skip_space(bytes, key.end + 1);
                if bytes.get(at) != Some(&b':') {
                    return None;
                }
                at = skip_space(bytes, at + 1);
            }
            match *bytes.get(at)? {
                opens @ (b'{' | b'[') => {
                    tokens.push(if opens == b'{' {
                        Token::OpenObject
                    } else {
                        Token::OpenArray
                    });
                    open.push(opens == b'{');
                    at += 1;
                    continue;
                }
                b'"' => {
                    let content = string(bytes, at)?;
                    tokens.push(Token::String(content));
                    at = content.end + 1;
                }
                b'-' | b'0'..=b'9' => {
                    let end = number(bytes, at)?;
                    tokens.push(Token::Number(Span {
                        start: at,
                        end,
                        escaped: false,
                    }));
                    at = end;
                }
                _ => {
                    let word = [&b"true"[..], b"false", b"null"]
                        .into_iter()
                        .find(|word| bytes[at..].starts_with(word))?;
                    tokens.push(Token::Word);
                    at += word.len();
                }
            }
        }
        // Behind a value: the ends of containers, then a comma.
        loop {
            at = skip_space(bytes, at);
            match (bytes.get(at)?, open.last()?) {
                (b',', _) => {
                    at += 1;
                    break;
                }
                (b'}', true) | (b']', false) => {
                    tokens.push(Token::Close);
                    open.pop();
                    at += 1;
                    if open.is_empty() {
                        return Some(at);
                    }
                }
                _ => return None,
            }
        }
    }
}

/// About how many bytes from `from` on were read for these tokens.
pub(crate) fn reach(tokens: &[Token], from: usize) -> usize {
    let last = tokens.iter().rev().find_map(|token| match token {
        Token::Key(span) | Token::String(span) | Token::Number(span) => Some(span.end),
        _ => None,
    });
    last.unwrap_or(from).saturating_sub(from) + tokens.len()
}

fn skip_space(bytes: &[u8], at: usize) -> usize {
    let space = |byte: &&u8| matches!(**byte, b' ' | b'\t' | b'\n' | b'\r');
    at + bytes.get(at..).map_or(0, |rest| rest.iter().take_while(space).count())
}

fn string(bytes: &[u8], at: usize) -> Option<Span> {
    if bytes.get(at) != Some(&b'"') {
        return None;
    }
    let start = at + 1;
    let mut end = start;
    let mut escaped = false;
    loop {
        match bytes.get(end)? {
            b'"' => return Some(Span { start, end, escaped }),
            b'\\' => {
                escaped = true;
                end += match bytes.get(end + 1)? {
                    b'u' if bytes.get(end + 2..end + 6)?.iter().all(u8::is_ascii_hexdigit) => 6,
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => 2,
                    _ => return None,
                };
            }
            0..=31 => return None,
            _ => end += 1,
        }
    }
}

fn number(bytes: &[u8], at: usize) -> Option<usize> {
    let digits = |at: usize| {
        at + bytes[at.min(bytes.len())..]
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count()
    };
    let start = at + usize::from(bytes[at] == b'-');
    let mut end = digits(start);
    if end == start || end > start + 1 && bytes[start] == b'0' {
        return None;
    }
    if bytes.get(end) == Some(&b'.') {
        let fraction = digits(end + 1);
        if fraction == end + 1 {
            return None;
        }
        end = fraction;
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = end + 1 + usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        let exponent = digits(sign);
        if exponent == sign {
            return None;
        }
        end = exponent;
    }
    Some(end)
}

/// The text that a string with escapes stands for, and for each of its bytes (and its end) where it begins in `raw`.
pub(crate) fn decode(raw: &str, places: &mut Vec<u32>) -> String {
    places.clear();
    let bytes = raw.as_bytes();
    let mut out = String::with_capacity(raw.len());
    let mut at = 0;
    while let Some(c) = raw[at..].chars().next() {
        let start = at;
        let decoded = if c == '\\' {
            let (decoded, length) = unescape(bytes, at);
            at += length;
            decoded
        } else {
            at += c.len_utf8();
            c
        };
        out.push(decoded);
        places.extend(std::iter::repeat_n(start as u32, decoded.len_utf8()));
    }
    places.push(raw.len() as u32);
    out
}

fn unescape(bytes: &[u8], at: usize) -> (char, usize) {
    let hex = |at: usize| -> Option<u32> {
        let digits = std::str::from_utf8(bytes.get(at..at + 4)?).ok()?;
        u32::from_str_radix(digits, 16).ok()
    };
    match bytes.get(at + 1) {
        Some(b'n') => ('\n', 2),
        Some(b't') => ('\t', 2),
        Some(b'r') => ('\r', 2),
        Some(b'b') => ('\u{8}', 2),
        Some(b'f') => ('\u{c}', 2),
        Some(b'u') => {
            let Some(high) = hex(at + 2) else { return ('\\', 1) };
            if let Some(c) = char::from_u32(high) {
                return (c, 6);
            }
            let low = bytes
                .get(at + 6..at + 8)
                .filter(|next| next == b"\\u")
                .and_then(|_| hex(at + 8));
            match low.filter(|low| (0xdc00..0xe000).contains(low) && (0xd800..0xdc00).contains(&high)) {
                Some(low) => {
                    let code = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
                    (char::from_u32(code).unwrap_or('\u{fffd}'), 12)
                }
                None => ('\u{fffd}', 6),
            }
        }
        Some(byte) if byte.is_ascii() => (char::from(*byte), 2),
        _ => ('\\', 1),
    }
}

/// Writes text as the content of a JSON string.
pub(crate) fn encode(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is JSON here is JSON to serde_json, and the other way round but for depth.
    #[test]
    fn json_is_what_others_call_json() {
        let texts = [
            "{}",
            "[]",
            "[{}]",
            r#"{"a":1}"#,
            r#"{"a":[1,-2.5e+3,"x",true,false,null]}"#,
            " [1]",
            "[1,]",
            "[,1]",
            "{,}",
            r#"{"a"}"#,
            r#"{"a":}"#,
            r#"{"a":1,}"#,
            "[01]",
            "[1.]",
            "[-]",
            "[1e]",
            r#"["\x"]"#,
            r#"["\u12g4"]"#,
            r#"["\u0041\n"]"#,
            "[tru]",
            "[1}",
            "{]",
            "[1",
            r#"["a"#,
            "[\"\n\"]",
            "[1 2]",
            r#"{"a":{"b":[[],[{}]]}}"#,
            "[0]",
            "[-0.0]",
            "[nul]",
            "{1:2}",
        ];
        for text in texts {
            let ours = read(text.as_bytes(), 0, &mut Vec::new()) == Some(text.len());
            let theirs = serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
            assert_eq!(ours, theirs, "{text}");
        }
    }

    #[test]
    fn decoded_text_knows_where_it_came_from() {
        let raw = r#"a\u0040\ud83d\ude00b\\\"é"#;
        let mut places = Vec::new();
        let text = decode(raw, &mut places);
        assert_eq!(text, "a@😀b\\\"é");
        assert_eq!(places.len(), text.len() + 1);
        assert_eq!(&raw[places[1] as usize..places[2] as usize], r"\u0040");
        let mut encoded = String::new();
        encode(&text, &mut encoded);
        assert_eq!(
            serde_json::from_str::<String>(&format!("\"{encoded}\"")).ok(),
            Some(text)
        );
    }
}
