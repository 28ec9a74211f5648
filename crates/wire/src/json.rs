//! A pull parser for JSON that keeps what maps lose: the order of members, repeated keys, and whether a number has a point.

use std::borrow::Cow;

/// Why text is not JSON.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} (byte {offset})")]
pub(crate) struct JsonError {
    pub(crate) offset: usize,
    pub(crate) what: &'static str,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    String,
    Number,
    True,
    False,
    Null,
    Array,
    Object,
}

/// A position in JSON text.
#[derive(Clone, Debug)]
pub(crate) struct Json<'a> {
    text: &'a str,
    pos: usize,
    depth_left: usize,
}

impl<'a> Json<'a> {
    pub(crate) fn new(text: &'a str, max_depth: usize) -> Self {
        Self {
            text,
            pos: 0,
            depth_left: max_depth,
        }
    }

    pub(crate) fn error(&self, what: &'static str) -> JsonError {
        JsonError { offset: self.pos, what }
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.pos).copied()
    }

    fn space(&mut self) {
        while matches!(self.byte(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.pos += 1;
        }
    }

    /// The kind of the next value, which is not consumed.
    pub(crate) fn kind(&mut self) -> Result<Kind, JsonError> {
        self.space();
        match self.byte() {
            Some(b'"') => Ok(Kind::String),
            Some(b'-' | b'0'..=b'9') => Ok(Kind::Number),
            Some(b't') => Ok(Kind::True),
            Some(b'f') => Ok(Kind::False),
            Some(b'n') => Ok(Kind::Null),
            Some(b'[') => Ok(Kind::Array),
            Some(b'{') => Ok(Kind::Object),
            Some(_) => Err(self.error("unexpected character")),
            None => Err(self.error("unexpected end")),
        }
    }

    /// Consumes `true`, `false` or `null`.
    pub(crate) fn literal(&mut self) -> Result<Kind, JsonError> {
        let kind = self.kind()?;
        let word = match kind {
            Kind::True => "true",
            Kind::False => "false",
            Kind::Null => "null",
            _ => return Err(self.error("expected true, false or null")),
        };
        if !self.text.as_bytes()[self.pos..].starts_with(word.as_bytes()) {
            return Err(self.error("unexpected character"));
        }
        self.pos += word.len();
        Ok(kind)
    }

    /// Consumes a number and gives its text.
    pub(crate) fn number(&mut self) -> Result<&'a str, JsonError> {
        self.space();
        let start = self.pos;
        if self.byte() == Some(b'-') {
            self.pos += 1;
        }
        match self.byte() {
            Some(b'0') => self.pos += 1,
            _ => self.digits()?,
        }
        if self.byte() == Some(b'.') {
            self.pos += 1;
            self.digits()?;
        }
        if matches!(self.byte(), Some(b'e' | b'E')) {
            self.pos += 1;
            if matches!(self.byte(), Some(b'+' | b'-')) {
                self.pos += 1;
            }
            self.digits()?;
        }
        Ok(&self.text[start..self.pos])
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        let start = self.pos;
        while matches!(self.byte(), Some(b'0'..=b'9')) {
            self.pos += 1;
        }
        if self.pos > start {
            Ok(())
        } else {
            Err(self.error("expected a digit"))
        }
    }

    /// Consumes a string.
    pub(crate) fn string(&mut self) -> Result<Cow<'a, str>, JsonError> {
        self.space();
        self.expect(b'"', "expected a string")?;
        let start = self.pos;
        let mut owned: Option<String> = None;
        let mut clean = start;
        loop {
            let rest = &self.text.as_bytes()[self.pos..];
            let Some(step) = rest.iter().position(|b| matches!(b, b'"' | b'\\' | 0..=0x1f)) else {
                return Err(JsonError {
                    offset: self.text.len(),
                    what: "string never ends",
                });
            };
            self.pos += step;
            match rest[step] {
                b'"' => {
                    let tail = &self.text[clean..self.pos];
                    self.pos += 1;
                    return Ok(match owned {
                        None => Cow::Borrowed(tail),
                        Some(mut text) => {
                            text.push_str(tail);
                            Cow::Owned(text)
                        }
                    });
                }
                b'\\' => {
                    let text = owned.get_or_insert_default();
                    text.push_str(&self.text[clean..self.pos]);
                    self.pos += 1;
                    let escaped = self.escape()?;
                    text.push(escaped);
                    clean = self.pos;
                }
                _ => return Err(self.error("control character in a string")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, JsonError> {
        let byte = self.byte().ok_or_else(|| self.error("string never ends"))?;
        self.pos += 1;
        Ok(match byte {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.unicode(),
            _ => return Err(self.error("unknown escape")),
        })
    }

    fn unicode(&mut self) -> Result<char, JsonError> {
        let first = self.hex4()?;
        if !(0xd800..0xe000).contains(&first) {
            return char::from_u32(first).ok_or_else(|| self.error("not a character"));
        }
        if first < 0xdc00 && self.text.as_bytes()[self.pos..].starts_with(b"\\u") {
            self.pos += 2;
            let second = self.hex4()?;
            if (0xdc00..0xe000).contains(&second) {
                let code = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
                return char::from_u32(code).ok_or_else(|| self.error("not a character"));
            }
        }
        Err(self.error("half of a surrogate pair"))
    }

    fn hex4(&mut self) -> Result<u32, JsonError> {
        let digits = self
            .text
            .as_bytes()
            .get(self.pos..self.pos + 4)
            .ok_or_else(|| self.error("string never ends"))?;
        let mut code = 0;
        for digit in digits {
            let value = char::from(*digit)
                .to_digit(16)
                .ok_or_else(|| self.error("expected a hex digit"))?;
            code = code * 16 + value;
        }
        self.pos += 4;
        Ok(code)
    }

    fn expect(&mut self, byte: u8, what: &'static str) -> Result<(), JsonError> {
        self.space();
        if self.byte() == Some(byte) {
            self.pos += 1;
            return Ok(());
        }
        Err(self.error(what))
    }

    fn enter(&mut self) -> Result<(), JsonError> {
        self.depth_left = self
            .depth_left
            .checked_sub(1)
            .ok_or_else(|| self.error("nested too deeply"))?;
        Ok(())
    }

    /// Consumes `,` or the closing byte; true if one more element follows.
    fn more(&mut self, first: bool, close: u8) -> Result<bool, JsonError> {
        self.space();
        match self.byte() {
            Some(byte) if byte == close => {
                self.pos += 1;
                Ok(false)
            }
            Some(b',') if !first => {
                self.pos += 1;
                self.space();
                if self.byte() == Some(close) {
                    Err(self.error("comma before the end"))
                } else {
                    Ok(true)
                }
            }
            Some(_) if first => Ok(true),
            Some(_) => Err(self.error("expected a comma")),
            None => Err(self.error("unexpected end")),
        }
    }

    /// Consumes an array; `item` consumes each of its items.
    pub(crate) fn array<E: From<JsonError>>(
        &mut self,
        mut item: impl FnMut(&mut Self, usize) -> Result<(), E>,
    ) -> Result<(), E> {
        self.expect(b'[', "expected an array")?;
        self.enter()?;
        let mut n = 0;
        while self.more(n == 0, b']')? {
            item(self, n)?;
            n += 1;
        }
        self.depth_left += 1;
        Ok(())
    }

    /// Consumes an object; `member` consumes the value of each member.
    pub(crate) fn object<E: From<JsonError>>(
        &mut self,
        mut member: impl FnMut(&mut Self, Cow<'a, str>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.expect(b'{', "expected an object")?;
        self.enter()?;
        let mut first = true;
        while self.more(std::mem::take(&mut first), b'}')? {
            let key = self.string()?;
            self.expect(b':', "expected a colon")?;
            member(self, key)?;
        }
        self.depth_left += 1;
        Ok(())
    }

    /// Consumes any value.
    pub(crate) fn skip(&mut self) -> Result<(), JsonError> {
        match self.kind()? {
            Kind::String => self.string().map(drop),
            Kind::Number => self.number().map(drop),
            Kind::True | Kind::False | Kind::Null => self.literal().map(drop),
            Kind::Array => self.array(|json, _| json.skip()),
            Kind::Object => self.object(|json, _| json.skip()),
        }
    }

    /// Nothing but space may follow the value that was consumed.
    pub(crate) fn end(&mut self) -> Result<(), JsonError> {
        self.space();
        if self.pos == self.text.len() {
            Ok(())
        } else {
            Err(self.error("text after the value"))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn accepts(text: &str) -> bool {
        let mut json = Json::new(text, 64);
        json.skip().and_then(|()| json.end()).is_ok()
    }

    proptest! {
        #[test]
        fn takes_exactly_what_another_parser_takes(text in r#"[\[\]{},:"\\ue0-9.\-+tfnalsru ]{0,24}"#) {
            prop_assert_eq!(accepts(&text), serde_json::from_str::<Box<serde_json::value::RawValue>>(&text).is_ok()
                && serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok(), "{}", text);
        }

        #[test]
        fn strings_read_as_another_parser_reads_them(text: String) {
            let json = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(Json::new(&json, 1).string().unwrap(), text);
        }
    }

    #[test]
    fn depth_is_bounded() {
        assert!(accepts(&format!("{}{}", "[".repeat(64), "]".repeat(64))));
        assert!(!accepts(&format!("{}{}", "[".repeat(65), "]".repeat(65))));
        assert!(!accepts(&"{\"a\":".repeat(100_000)));
    }
}
