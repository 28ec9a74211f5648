//! Reads JSON only as far as needed: where strings and numbers stand, and whether it is JSON at all. It reads on where JSON is
//! cut off or not quite right (`NaN`, a comma too much), since what stands in it must be masked all the same. No recursion and no
//! list of what was read, so size and depth cost no memory.

/// A part of a JSON text; places are bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// Where its bracket stands.
    OpenObject(usize),
    OpenArray(usize),
    Close,
    /// The content of a key, without its quotes.
    Key(Span),
    /// The content of a string, without its quotes.
    String(Span),
    Number(Span),
    /// `true`, `false`, `null`
    Word,
    /// A word that JSON does not have: `NaN`, `None`, `1.2.3`.
    Bare(Span),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub start: usize,
    pub end: usize,
    /// Whether there is a backslash in it.
    pub escaped: bool,
}

/// The deepest nesting that is followed; what arrives as a value is no deeper than 112 (crates/wire), the rest is text.
const MAX_NESTING: usize = 512;
/// The longest first key by which an object is known.
const MAX_KEY: usize = 1024;

/// Reads the object or array that begins at a place, token by token.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    /// True for an object.
    open: Vec<bool>,
    expect: Expect,
    lenient: bool,
    /// Where it could not go on.
    broken: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    /// A value, or the end of the array that just began.
    First,
    Value,
    /// A key, or the end of the object that just began.
    FirstKey,
    Key,
    /// A comma or an end.
    Behind,
    Nothing,
}

impl<'a> Reader<'a> {
    /// Only what is JSON.
    fn strict(bytes: &'a [u8], from: usize) -> Self {
        Reader {
            bytes,
            at: from,
            open: Vec::new(),
            expect: Expect::Value,
            lenient: false,
            broken: None,
        }
    }

    /// Also what is cut off or not quite right.
    pub(crate) fn lenient(bytes: &'a [u8], from: usize) -> Self {
        Reader {
            lenient: true,
            ..Reader::strict(bytes, from)
        }
    }

    /// Once there is no next token: where the text goes on, and whether that is in the middle of it.
    pub(crate) fn end(&self) -> (usize, bool) {
        (self.broken.unwrap_or(self.at), self.broken.is_some())
    }

    /// Goes on behind a value that was just begun.
    pub(crate) fn skip_to(&mut self, at: usize) {
        self.open.pop();
        self.at = at;
        self.after_value();
    }

    pub(crate) fn next(&mut self) -> Option<Token> {
        if self.broken.is_some() || self.expect == Expect::Nothing {
            return None;
        }
        loop {
            self.at = skip_space(self.bytes, self.at);
            let Some(&byte) = self.bytes.get(self.at) else {
                return self.stop(self.bytes.len());
            };
            let object = self.open.last() == Some(&true);
            match self.expect {
                Expect::Nothing => return None,
                Expect::Behind => match byte {
                    b',' => {
                        self.at += 1;
                        self.expect = if object { Expect::Key } else { Expect::Value };
                    }
                    b'}' | b']' if object == (byte == b'}') => return self.close(),
                    _ => return self.stop(self.at),
                },
                Expect::FirstKey | Expect::Key => match byte {
                    b'}' if self.lenient || self.expect == Expect::FirstKey => return self.close(),
                    b'"' => return self.key(),
                    _ => return self.stop(self.at),
                },
                Expect::First | Expect::Value => match byte {
                    b']' if !object && !self.open.is_empty() && (self.lenient || self.expect == Expect::First) => {
                        return self.close();
                    }
                    b'{' | b'[' if self.open.len() == MAX_NESTING => return self.stop(self.at),
                    b'{' | b'[' => {
                        let at = self.at;
                        self.at += 1;
                        self.open.push(byte == b'{');
                        let (expect, token) = match byte {
                            b'{' => (Expect::FirstKey, Token::OpenObject(at)),
                            _ => (Expect::First, Token::OpenArray(at)),
                        };
                        self.expect = expect;
                        return Some(token);
                    }
                    _ => return self.scalar(byte),
                },
            }
        }
    }

    fn stop(&mut self, at: usize) -> Option<Token> {
        self.broken = Some(at);
        None
    }

    fn close(&mut self) -> Option<Token> {
        self.at += 1;
        self.open.pop();
        self.after_value();
        Some(Token::Close)
    }

    fn after_value(&mut self) {
        self.expect = match self.open.is_empty() {
            true => Expect::Nothing,
            false => Expect::Behind,
        };
    }

    fn key(&mut self) -> Option<Token> {
        let start = self.at;
        let Some(span) = string(self.bytes, start, self.lenient) else {
            return self.stop(start);
        };
        let sign = skip_space(self.bytes, span.end + 1);
        if self.bytes.get(sign) != Some(&b':') {
            return self.stop(start);
        }
        self.at = sign + 1;
        self.expect = Expect::Value;
        Some(Token::Key(span))
    }

    fn scalar(&mut self, byte: u8) -> Option<Token> {
        let start = self.at;
        let token = match byte {
            b'"' => match string(self.bytes, start, self.lenient) {
                Some(span) => {
                    self.at = span.end + 1;
                    Token::String(span)
                }
                None if self.lenient => {
                    self.at = self.bytes.len();
                    Token::String(cut_off(self.bytes, start + 1))
                }
                None => return self.stop(start),
            },
            _ => match plain_value(self.bytes, start).filter(|(end, _)| !self.lenient || self.delimited(*end)) {
                Some((end, token)) => {
                    self.at = end;
                    token
                }
                None => {
                    let inside = |byte: &&u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(byte);
                    let end = start + self.bytes[start..].iter().take_while(inside).count();
                    if !self.lenient || end == start || !self.delimited(end) {
                        return self.stop(start);
                    }
                    self.at = end;
                    Token::Bare(Span {
                        start,
                        end,
                        escaped: false,
                    })
                }
            },
        };
        self.after_value();
        Some(token)
    }

    /// Whether a value may end here.
    fn delimited(&self, at: usize) -> bool {
        matches!(
            self.bytes.get(skip_space(self.bytes, at)),
            None | Some(b',' | b'}' | b']')
        )
    }
}

/// Whether an object begins here, by its first key, whatever comes later.
pub(crate) fn begins_object(bytes: &[u8], at: usize) -> bool {
    let inner = match bytes.get(at) {
        Some(b'[') => skip_space(bytes, at + 1),
        _ => at,
    };
    if bytes.get(inner) != Some(&b'{') {
        return false;
    }
    let key = skip_space(bytes, inner + 1);
    let near = &bytes[..bytes.len().min(key + MAX_KEY)];
    string(near, key, true).is_some_and(|span| bytes.get(skip_space(bytes, span.end + 1)) == Some(&b':'))
}

/// Whether the array or object that begins here is JSON with something in it, and where it ends or breaks off.
pub(crate) fn check(bytes: &[u8], from: usize) -> (bool, usize) {
    let mut reader = Reader::strict(bytes, from);
    let mut worth = false;
    while let Some(token) = reader.next() {
        worth |= matches!(token, Token::String(_) | Token::Number(_) | Token::Key(_));
    }
    let (end, broken) = reader.end();
    (worth && !broken, end)
}

/// Whether all of a text is one JSON object or array.
pub(crate) fn is_container(text: &str) -> bool {
    text.starts_with(['{', '[']) && {
        let mut reader = Reader::strict(text.as_bytes(), 0);
        while reader.next().is_some() {}
        reader.end() == (text.len(), false)
    }
}

/// A number or word of JSON, and where it ends.
fn plain_value(bytes: &[u8], at: usize) -> Option<(usize, Token)> {
    if matches!(bytes.get(at)?, b'-' | b'0'..=b'9') {
        let end = number(bytes, at)?;
        let span = Span {
            start: at,
            end,
            escaped: false,
        };
        return Some((end, Token::Number(span)));
    }
    let mut words = [&b"true"[..], b"false", b"null"].into_iter();
    let word = words.find(|word| bytes[at..].starts_with(word))?;
    Some((at + word.len(), Token::Word))
}

/// A string whose end is missing, without the half of an escape.
fn cut_off(bytes: &[u8], start: usize) -> Span {
    Span {
        start,
        end: bytes.len(),
        escaped: bytes[start..].contains(&b'\\'),
    }
}

fn skip_space(bytes: &[u8], at: usize) -> usize {
    let space = |byte: &&u8| matches!(**byte, b' ' | b'\t' | b'\n' | b'\r');
    at + bytes.get(at..).map_or(0, |rest| rest.iter().take_while(space).count())
}

fn string(bytes: &[u8], at: usize, lenient: bool) -> Option<Span> {
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
                    b'u' if bytes
                        .get(end + 2..end + 6)
                        .is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)) =>
                    {
                        6
                    }
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => 2,
                    next if lenient => 1 + usize::from(next.is_ascii()),
                    _ => return None,
                };
            }
            0..=31 if !lenient => return None,
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
            let ours = is_container(text.trim_start());
            let theirs = serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
            assert_eq!(ours, theirs, "{text}");
        }
    }

    /// What is left of JSON after something went wrong: its keys and values up to there, and what was in the way.
    #[test]
    fn broken_json_is_read_as_far_as_it_goes() {
        for (text, expected, rest) in [
            (r#"{"a":"x","b":[1,{"c":"y"#, "a=x b= 1 c=y", ""),
            (r#"{"a":NaN,"b":None,"c":1.2.3}"#, "a=~NaN b=~None c=~1.2.3", ""),
            (r#"{"a":"x",}"#, "a=x", ""),
            (r#"{"a":[1,2,],"b":"y"} tail"#, "a= 1 2 b=y", " tail"),
            (r#"{"a":"x" "b":1}"#, "a=x", r#""b":1}"#),
            (r#"{"a":'x',"b":1}"#, "a=", r#"'x',"b":1}"#),
            (r#"{"a":415-555-0132 x}"#, "a=", "415-555-0132 x}"),
            ("{\"a\":\"one\ntwo\\x\",\"b\":1}", "a=one\ntwo\\x b= 1", ""),
            (r#"{"a":1]"#, "a= 1", "]"),
            (r#"{"a"#, "", r#""a"#),
        ] {
            let mut reader = Reader::lenient(text.as_bytes(), 0);
            let mut seen = String::new();
            while let Some(token) = reader.next() {
                let part = match token {
                    Token::Key(span) => format!(" {}=", &text[span.start..span.end]),
                    Token::String(span) => text[span.start..span.end].to_owned(),
                    Token::Number(span) => format!(" {}", &text[span.start..span.end]),
                    Token::Bare(span) => format!("~{}", &text[span.start..span.end]),
                    _ => String::new(),
                };
                seen.push_str(&part);
            }
            assert_eq!(seen.trim_start(), expected, "{text}");
            assert_eq!(&text[reader.end().0..], rest, "{text}");
        }
        assert!(begins_object(b"{ \"a\" : 1", 0) && begins_object(b"[ {\"a\":", 0));
        assert!(!begins_object(b"{'a': 1}", 0) && !begins_object(b"{}", 0) && !begins_object(b"[1]", 0));
    }
}
