//! Escapes in strings of JSON: what they stand for, where that came from, and back.

/// The text that a string with escapes stands for, and where its parts come from.
#[derive(Debug)]
pub(crate) struct Decoded {
    pub text: String,
    /// Behind each escape: the place in the text, and the one in what was decoded. Between them the two go in step.
    places: Vec<(u32, u32)>,
}

impl Decoded {
    pub(crate) fn of(raw: &str) -> Self {
        let bytes = raw.as_bytes();
        let mut text = String::with_capacity(raw.len());
        let mut places = Vec::new();
        let mut at = 0;
        while let Some(escape) = memchr::memchr(b'\\', &bytes[at..]).map(|next| at + next) {
            text.push_str(&raw[at..escape]);
            let (c, length) = unescape(bytes, escape);
            text.push(c);
            at = escape + length;
            places.push((text.len() as u32, at as u32));
        }
        text.push_str(&raw[at..]);
        Decoded { text, places }
    }

    /// Where the character at this place of the text begins in what was decoded.
    pub(crate) fn origin(&self, at: usize) -> usize {
        let before = self.places.partition_point(|(place, _)| *place as usize <= at);
        match before.checked_sub(1).map(|before| self.places[before]) {
            Some((place, origin)) => at - place as usize + origin as usize,
            None => at,
        }
    }

    /// How many escapes there are.
    pub(crate) fn escapes(&self) -> usize {
        self.places.len()
    }
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

    #[test]
    fn decoded_text_knows_where_it_came_from() {
        let raw = r#"a\u0040\ud83d\ude00b\\\"é"#;
        let decoded = Decoded::of(raw);
        let text = &decoded.text;
        assert_eq!(text, "a@😀b\\\"é");
        let whole: String = text
            .char_indices()
            .map(|(at, c)| &raw[decoded.origin(at)..decoded.origin(at + c.len_utf8())])
            .collect();
        assert_eq!(whole, raw, "every part comes from somewhere, in order");
        assert_eq!(&raw[decoded.origin(1)..decoded.origin(2)], r"\u0040");
        let mut encoded = String::new();
        encode(text, &mut encoded);
        assert_eq!(
            serde_json::from_str::<String>(&format!("\"{encoded}\"")).ok(),
            Some(text.clone())
        );
    }
}
