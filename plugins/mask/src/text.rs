//! Masks one text: finds, follows JSON into its strings, and writes the result.

use crate::action::{self, Action, Renderer};
use crate::config::Config;
use crate::find::{Facts, Finder, Open, Texts};
use crate::json::{self, Span, Token};
use crate::keys::Keys;
use crate::kind::{Found, Kind};
use crate::walk::{Shape, Walk};

/// Levels of JSON within strings of JSON that are followed.
const MAX_DEPTH: usize = 4;
/// How many times the length of a text may be read in search of JSON that turns out to be none.
const MAX_VAIN: usize = 4;

/// A finding of a custom pattern in one text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CustomHit {
    pub start: usize,
    pub end: usize,
    pub pattern: u16,
}

/// A part of a text that is replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Edit {
    pub start: usize,
    pub end: usize,
    pub kind: Kind,
    pub text: String,
}

#[derive(Debug)]
pub(crate) struct Masker {
    finder: Finder,
    config: Config,
    renderer: Renderer,
    keys: Keys,
}

impl Masker {
    pub(crate) fn new(config: Config) -> Result<Self, String> {
        config.check()?;
        Ok(Masker {
            finder: Finder::new(config.kinds(), config.schemes()),
            renderer: Renderer::new(config.secret_key.as_deref())?,
            keys: Keys::new(&config.always, &config.never),
            config,
        })
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// What the key of an attribute says.
    pub(crate) fn facts(&self, key: &str) -> Facts {
        self.keys.facts(key)
    }

    /// Marks the texts that must be looked at.
    pub(crate) fn scan(&mut self, texts: Texts<'_>, facts: Facts, open: &mut Open) {
        self.finder.scan(texts, facts, &self.keys, open);
    }

    /// Puts the masked text into `out` (which it clears); false if there was nothing to mask.
    pub(crate) fn mask(
        &mut self,
        text: &str,
        shape: Shape,
        facts: Facts,
        hits: &[CustomHit],
        out: &mut String,
    ) -> bool {
        let edits = self.edits(text, shape, facts, hits);
        if edits.is_empty() {
            return false;
        }
        out.clear();
        let mut copied = 0;
        for edit in &edits {
            out.push_str(&text[copied..edit.start]);
            out.push_str(&edit.text);
            copied = edit.end;
        }
        out.push_str(&text[copied..]);
        true
    }

    /// What is replaced in a text, in order and not overlapping.
    pub(crate) fn edits(&mut self, text: &str, shape: Shape, facts: Facts, hits: &[CustomHit]) -> Vec<Edit> {
        let mut edits = Vec::new();
        if !facts.never {
            self.value(text, shape, facts, 0, &mut edits);
        }
        if !hits.is_empty() && !facts.never {
            self.custom(text, hits, &mut edits);
        }
        edits
    }

    /// The name of a kind as it stands in masked text.
    pub(crate) fn name(&self, kind: Kind) -> &str {
        match kind {
            Kind::Custom(place) => self
                .config
                .custom
                .get(usize::from(place))
                .map_or("custom", |custom| &custom.name),
            kind => kind.name(),
        }
    }

    pub(crate) fn render(&self, kind: Kind, value: &str) -> String {
        let mut text = String::new();
        self.renderer
            .render(self.config.action(kind), kind, self.name(kind), value, &mut text);
        text
    }

    /// In place of a whole value whose key says that it is secret.
    pub(crate) fn render_always(&self, value: &str) -> String {
        match self.config.secret {
            Action::Off => "[secret]".to_owned(),
            _ => self.render(Kind::Secret, value),
        }
    }

    fn value(&mut self, text: &str, shape: Shape, facts: Facts, depth: usize, edits: &mut Vec<Edit>) {
        let container = text.starts_with(['{', '[']) && shape != Shape::Free || facts.always && is_container(text);
        if facts.always && !container {
            self.always(text, facts, edits);
            return;
        }
        let bytes = text.as_bytes();
        let mut tokens = Vec::new();
        let mut plain = 0;
        let mut vain = 0;
        let mut at = 0;
        while depth < MAX_DEPTH && vain <= MAX_VAIN * bytes.len() {
            let Some(opens) = bytes.get(at..).and_then(|rest| memchr::memchr2(b'{', b'[', rest)) else {
                break;
            };
            at += opens;
            let end = json::read(bytes, at, &mut tokens);
            let worth = tokens
                .iter()
                .any(|token| matches!(token, Token::String(_) | Token::Number(_) | Token::Key(_)));
            match end.filter(|_| worth) {
                Some(end) => {
                    self.plain(text, plain, at, facts, edits);
                    self.tokens(text, &tokens, shape, facts, depth, edits);
                    at = end;
                    plain = end;
                }
                None => {
                    vain += json::reach(&tokens, at);
                    at += 1;
                }
            }
        }
        self.plain(text, plain, bytes.len(), facts, edits);
    }

    fn always(&mut self, text: &str, facts: Facts, edits: &mut Vec<Edit>) {
        if text.is_empty() || action::is_masked(text) {
            return;
        }
        // What is known to be a token is called one.
        let mut found = Vec::new();
        self.finder.find(text, Facts { class: None, ..facts }, &mut found);
        let whole = found.iter().find(|found| {
            found.start == 0 && found.end == text.len() && self.config.action(found.kind) != Action::Partial
        });
        let (kind, masked) = match whole {
            Some(found) => (found.kind, self.render(found.kind, text)),
            None => (Kind::Secret, self.render_always(text)),
        };
        edits.push(Edit {
            start: 0,
            end: text.len(),
            kind,
            text: masked,
        });
    }

    /// A stretch of text that is no JSON.
    fn plain(&mut self, text: &str, start: usize, end: usize, facts: Facts, edits: &mut Vec<Edit>) {
        let part = &text[start..end];
        if part.is_empty() {
            return;
        }
        let mut found = Vec::new();
        // Only a whole value is the value of its key.
        let facts = if start > 0 || end < text.len() {
            Facts { class: None, ..facts }
        } else {
            facts
        };
        self.finder.find(part, facts, &mut found);
        for (found, merged) in merge(found) {
            let value = &part[found.start..found.end];
            let masked = if merged && self.config.action(found.kind) == Action::Partial {
                let mut masked = String::new();
                action::redact(self.name(found.kind), &mut masked);
                masked
            } else {
                self.render(found.kind, value)
            };
            edits.push(Edit {
                start: start + found.start,
                end: start + found.end,
                kind: found.kind,
                text: masked,
            });
        }
    }

    /// Strings and numbers of JSON.
    fn tokens(
        &mut self,
        text: &str,
        tokens: &[Token],
        shape: Shape,
        facts: Facts,
        depth: usize,
        edits: &mut Vec<Edit>,
    ) {
        let mut walk = Walk::new(shape, facts);
        for token in tokens {
            match *token {
                Token::OpenObject => walk.open(true),
                Token::OpenArray => walk.open(false),
                Token::Close => walk.close(),
                Token::Word => walk.passed(),
                Token::Key(span) => {
                    let mut places = Vec::new();
                    let decoded;
                    let raw = &text[span.start..span.end];
                    let key = if span.escaped {
                        decoded = json::decode(raw, &mut places);
                        &decoded
                    } else {
                        raw
                    };
                    walk.key(key, &self.keys);
                    if self.config.json_keys && !walk.kept() {
                        self.string(text, span, Shape::Free, Facts::default(), MAX_DEPTH, edits);
                    }
                }
                Token::String(span) => {
                    let raw = &text[span.start..span.end];
                    if walk.is_pair_key() {
                        walk.key_of_pair(raw, &self.keys);
                    } else if !walk.kept() && !walk.is_bytes(raw) {
                        self.string(text, span, Shape::Free, walk.facts(), depth + 1, edits);
                    }
                    walk.passed();
                }
                Token::Number(span) => {
                    if !walk.kept() {
                        self.number(text, span, walk.facts(), edits);
                    }
                    walk.passed();
                }
            }
        }
    }

    fn string(&mut self, text: &str, span: Span, shape: Shape, facts: Facts, depth: usize, edits: &mut Vec<Edit>) {
        let raw = &text[span.start..span.end];
        let first = edits.len();
        if !span.escaped {
            self.value(raw, shape, facts, depth, edits);
            for edit in &mut edits[first..] {
                edit.start += span.start;
                edit.end += span.start;
                escape(edit);
            }
            return;
        }
        let mut places = Vec::new();
        let decoded = json::decode(raw, &mut places);
        self.value(&decoded, shape, facts, depth, edits);
        for edit in &mut edits[first..] {
            edit.start = span.start + places[edit.start] as usize;
            edit.end = span.start + places[edit.end] as usize;
            escape(edit);
        }
    }

    /// A number outside strings becomes a string, so that JSON stays JSON.
    fn number(&mut self, text: &str, span: Span, facts: Facts, edits: &mut Vec<Edit>) {
        let digits = text[span.start..span.end].trim_start_matches('-');
        let (kind, masked) = if facts.always {
            (Kind::Secret, self.render_always(digits))
        } else {
            let mut found = Vec::new();
            self.finder.find(digits, Facts { class: None, ..facts }, &mut found);
            let Some(whole) = found.iter().find(|found| found.start == 0 && found.end == digits.len()) else {
                return;
            };
            (whole.kind, self.render(whole.kind, digits))
        };
        let mut quoted = String::from("\"");
        json::encode(&masked, &mut quoted);
        quoted.push('"');
        edits.push(Edit {
            start: span.start,
            end: span.end,
            kind,
            text: quoted,
        });
    }

    /// Findings of custom patterns, which were searched for in the text as it stands. Those in JSON are cut down to the
    /// strings and numbers that they touch.
    fn custom(&mut self, text: &str, hits: &[CustomHit], edits: &mut Vec<Edit>) {
        let mut tokens = Vec::new();
        let mut pieces = Vec::new();
        let mut at = text.len() - text.trim_start().len();
        let json = text[at..].starts_with(['{', '['])
            && json::read(text.as_bytes(), at, &mut tokens).is_some_and(|end| {
                at = end;
                text[end..].trim().is_empty()
            });
        for hit in hits
            .iter()
            .filter(|hit| hit.start < hit.end && !action::inside_mask(text, hit.start, hit.end))
        {
            let kind = Kind::Custom(hit.pattern);
            if self.config.action(kind) == Action::Off {
                continue;
            }
            let mut piece = |start: usize, end: usize, number: bool| {
                let mut masked = self.render(kind, &text[start..end]);
                if number {
                    masked = format!("\"{masked}\"");
                }
                pieces.push(Edit {
                    start,
                    end,
                    kind,
                    text: masked,
                });
            };
            if !json {
                piece(hit.start, hit.end, false);
                continue;
            }
            for token in &tokens {
                match *token {
                    Token::Key(span) | Token::String(span) if span.start < hit.end && hit.start < span.end => {
                        let (start, end) = whole_escapes(text, span, hit.start.max(span.start), hit.end.min(span.end));
                        piece(start, end, false);
                    }
                    Token::Number(span) if span.start < hit.end && hit.start < span.end => {
                        piece(span.start, span.end, true)
                    }
                    _ => {}
                }
            }
        }
        edits.append(&mut pieces);
        edits.sort_by_key(|edit| (edit.start, std::cmp::Reverse(edit.end)));
        let mut joined: Vec<Edit> = Vec::with_capacity(edits.len());
        for edit in edits.drain(..) {
            match joined.last_mut() {
                Some(last) if edit.start < last.end => {
                    let same = edit.start == last.start && edit.end == last.end;
                    let quoted = last.text.starts_with('"') || edit.text.starts_with('"');
                    if edit.kind.rank() < last.kind.rank() {
                        last.kind = edit.kind;
                        last.text.clone_from(&edit.text);
                    }
                    if !same && edit.end > last.end {
                        last.end = edit.end;
                        last.text.clear();
                        action::redact(self.name(last.kind), &mut last.text);
                        if quoted {
                            last.text = format!("\"{}\"", last.text);
                        }
                    }
                }
                _ => joined.push(edit),
            }
        }
        *edits = joined;
    }
}

fn is_container(text: &str) -> bool {
    text.starts_with(['{', '[']) && json::read(text.as_bytes(), 0, &mut Vec::new()) == Some(text.len())
}

fn escape(edit: &mut Edit) {
    if edit.text.bytes().any(|byte| matches!(byte, b'"' | b'\\' | 0..=31)) {
        let mut escaped = String::with_capacity(edit.text.len() + 2);
        json::encode(&edit.text, &mut escaped);
        edit.text = escaped;
    }
}

/// A range within a string, made larger so that it cuts through no escape.
fn whole_escapes(text: &str, span: Span, start: usize, end: usize) -> (usize, usize) {
    if !span.escaped {
        return (start, end);
    }
    let bytes = text.as_bytes();
    let (mut from, mut to) = (start, end);
    let mut at = span.start;
    while at < span.end {
        let length = match (bytes[at], bytes.get(at + 1)) {
            (b'\\', Some(b'u')) => 6,
            (b'\\', _) => 2,
            _ => 1,
        };
        if at < start && start < at + length {
            from = at;
        }
        if at < end && end < at + length {
            to = at + length;
        }
        at += length;
    }
    (from, to.min(span.end))
}

/// Sorts findings and joins those that overlap; true with those that are joined of parts.
fn merge(mut found: Vec<Found>) -> Vec<(Found, bool)> {
    found.sort_by_key(|found| (found.start, std::cmp::Reverse(found.end), found.kind.rank()));
    let mut merged: Vec<(Found, bool)> = Vec::with_capacity(found.len());
    for next in found {
        match merged.last_mut() {
            // `https://<key>@host` is no address.
            Some((last, false)) if last.kind == Kind::Email && next.kind == Kind::Key && next.start == last.start => {
                *last = next
            }
            Some((last, joined)) if next.start < last.end => {
                let inside = next.end <= last.end;
                if next.kind.rank() < last.kind.rank() && (!inside || next.start == last.start && next.end == last.end)
                {
                    last.kind = next.kind;
                }
                *joined |= !inside;
                last.end = last.end.max(next.end);
            }
            _ => merged.push((next, false)),
        }
    }
    merged
}
