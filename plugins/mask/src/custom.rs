//! Replaces what custom patterns found. They are searched for by the host in the text as it stands, so in JSON their findings are
//! cut down to the strings and numbers that they touch.

use std::collections::VecDeque;

use crate::action::Action;
use crate::find::MAX_FOUND;
use crate::json::{self, Reader, Span, Token};
use crate::kind::Kind;
use crate::text::{Edit, Masker};

/// A finding of a custom pattern in one text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CustomHit {
    pub start: usize,
    pub end: usize,
    pub pattern: u16,
}

impl Masker {
    /// Findings of custom patterns, which were searched for in the text as it stands. Those in JSON are cut down to the
    /// strings and numbers that they touch.
    pub(crate) fn custom(&mut self, text: &str, hits: &[CustomHit], edits: &mut Vec<Edit>) {
        let mut pieces = Vec::new();
        let json = json::is_container(text.trim());
        let mut strings = Strings::of(text);
        let mut escapes = Escapes::default();
        for hit in hits
            .iter()
            .filter(|hit| hit.start < hit.end && !self.marks().around(text, hit.start, hit.end))
        {
            let kind = Kind::Custom(hit.pattern);
            if self.config().action(kind) == Action::Off {
                continue;
            }
            if edits.len() + pieces.len() > MAX_FOUND {
                self.give_up();
                return;
            }
            let mut piece = |start: usize, end: usize, number: bool| {
                let mut masked = self.render(kind, &text[start..end]);
                if number {
                    masked = format!("\"{masked}\"").into();
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
            strings.touching(hit.start, hit.end, |span, number| match number {
                true => piece(span.start, span.end, true),
                false => {
                    let (start, end) = (hit.start.max(span.start), hit.end.min(span.end));
                    let (start, end) = escapes.widen(text, span, start, end);
                    piece(start, end, false);
                }
            });
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
                        last.text = self.shortest(last.kind, quoted);
                    }
                }
                _ => joined.push(edit),
            }
        }
        *edits = joined;
    }
}

/// Makes ranges within strings larger so that they cut through no escape; asked for by ever larger places.
#[derive(Default)]
struct Escapes {
    /// No escape goes over this place.
    at: usize,
}

impl Escapes {
    fn widen(&mut self, text: &str, span: Span, start: usize, end: usize) -> (usize, usize) {
        if !span.escaped {
            return (start, end);
        }
        let bytes = text.as_bytes();
        let next = |at: usize| match (bytes[at], bytes.get(at + 1)) {
            (b'\\', Some(b'u')) => at + 6,
            (b'\\', _) => at + 2,
            _ => at + 1,
        };
        self.at = self.at.max(span.start);
        while self.at < start && next(self.at) <= start {
            self.at = next(self.at);
        }
        let from = self.at.min(start);
        let mut to = from;
        while to < end {
            to = next(to);
        }
        (from, to.min(span.end))
    }
}

/// Strings, keys and numbers of a JSON text, asked for by ever larger places.
struct Strings<'a> {
    reader: Reader<'a>,
    /// Those that a later place may still touch, and whether they are numbers.
    near: VecDeque<(Span, bool)>,
}

impl<'a> Strings<'a> {
    fn of(text: &'a str) -> Self {
        let start = text.len() - text.trim_start().len();
        Strings {
            reader: Reader::lenient(text.as_bytes(), start),
            near: VecDeque::new(),
        }
    }

    fn touching(&mut self, start: usize, end: usize, mut each: impl FnMut(Span, bool)) {
        while self.near.back().is_none_or(|(span, _)| span.start < end) {
            match self.reader.next() {
                Some(Token::Key(span) | Token::String(span)) => self.near.push_back((span, false)),
                Some(Token::Number(span)) => self.near.push_back((span, true)),
                Some(_) => {}
                None => break,
            }
        }
        while self.near.front().is_some_and(|(span, _)| span.end <= start) {
            self.near.pop_front();
        }
        let touched = self.near.iter().take_while(|(span, _)| span.start < end);
        touched
            .filter(|(span, _)| start < span.end)
            .for_each(|(span, number)| each(*span, *number));
    }
}
