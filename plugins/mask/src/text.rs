//! Masks one text.

use std::ops::Range;

use crate::card::{self, Cards};
use crate::email;

const EMAIL: &str = "[email]";
const CARD: &str = "[card]";
/// In place of a number outside strings in JSON, so that the text stays JSON.
const CARD_AS_JSON: &str = "\"[card]\"";

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Any text; it may be JSON.
    Value,
    /// A JSON array of objects whose own numbers and ids have a meaning (`time`, `span_id`); only their attributes and
    /// texts are masked.
    Records,
}

#[derive(Debug)]
pub(crate) struct Masker {
    email: bool,
    card: bool,
    cards: Cards,
    emails: Vec<Range<usize>>,
    numbers: Vec<Range<usize>>,
}

impl Masker {
    pub(crate) fn new(email: bool, card: bool) -> Self {
        Masker {
            email,
            card,
            cards: Cards::default(),
            emails: Vec::new(),
            numbers: Vec::new(),
        }
    }

    /// Where in these bytes something may be found next; everything before it is clean. The bytes may be many texts in a row.
    pub(crate) fn next_candidate(&self, bytes: &[u8], from: usize, cache: &mut Candidates) -> Option<usize> {
        if self.email && cache.email.is_some_and(|at| at < from) {
            cache.email = email::next_at(bytes, from);
        }
        if self.card && cache.card.is_some_and(|at| at < from) {
            cache.card = card::next_start(bytes, from);
        }
        match (cache.email, cache.card) {
            (Some(email), Some(card)) => Some(email.min(card)),
            (email, card) => email.or(card),
        }
    }

    pub(crate) fn candidates(&self, bytes: &[u8]) -> Candidates {
        Candidates {
            email: if self.email && email::possible(bytes) {
                email::next_at(bytes, 0)
            } else {
                None
            },
            card: if self.card { card::next_start(bytes, 0) } else { None },
        }
    }

    /// Puts the masked text into `out` (which it clears); false if there was nothing to mask.
    pub(crate) fn mask(&mut self, text: &str, shape: Shape, out: &mut String) -> bool {
        self.emails.clear();
        self.numbers.clear();
        if self.email {
            email::find(text, &mut self.emails);
        }
        if self.card {
            self.cards.find(text, &mut self.numbers);
        }
        if self.emails.is_empty() && self.numbers.is_empty() {
            return false;
        }
        out.clear();
        let mut json = Json::new(text, shape);
        let mut emails = self.emails.iter().peekable();
        let mut numbers = self.numbers.iter().peekable();
        let mut copied = 0;
        loop {
            let take_email = match (emails.peek(), numbers.peek()) {
                (Some(email), Some(number)) => email.start <= number.start,
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (None, None) => break,
            };
            let (span, mask) = if take_email {
                let Some(email) = emails.next() else { break };
                (email.clone(), EMAIL)
            } else {
                let Some(number) = numbers.next() else { break };
                match json.number(number) {
                    Some(masked) => masked,
                    None => continue,
                }
            };
            // What begins inside an earlier find goes with it, to its end.
            if span.start < copied {
                copied = copied.max(span.end);
                continue;
            }
            out.push_str(&text[copied..span.start]);
            out.push_str(mask);
            copied = span.end;
        }
        if copied == 0 {
            return false;
        }
        out.push_str(&text[copied..]);
        true
    }
}

/// Where the next finds may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidates {
    email: Option<usize>,
    card: Option<usize>,
}

/// Follows a text as JSON as far as it must, to know what stands in a string and what does not.
struct Json<'a> {
    text: &'a str,
    shape: Shape,
    is_json: bool,
    at: usize,
    depth: usize,
    in_string: bool,
}

impl<'a> Json<'a> {
    fn new(text: &'a str, shape: Shape) -> Self {
        let is_json = matches!(text.trim_start().as_bytes().first(), Some(b'{' | b'['));
        Json {
            text,
            shape,
            is_json,
            at: 0,
            depth: 0,
            in_string: false,
        }
    }

    /// What a card number becomes; `None` if it must stay.
    fn number(&mut self, span: &Range<usize>) -> Option<(Range<usize>, &'static str)> {
        if !self.is_json {
            return Some((span.clone(), CARD));
        }
        self.go_to(span.start);
        let before = &self.text[..span.start];
        if self.in_string {
            let id = self.shape == Shape::Records && self.depth == 2 && before.ends_with("_id\":\"");
            return (!id).then(|| (span.clone(), CARD));
        }
        let start = if before.ends_with('-') {
            span.start - 1
        } else {
            span.start
        };
        let opens = before[..start].trim_end().ends_with([':', ',', '[']);
        let closes = self.text[span.end..].trim_start().starts_with([',', ']', '}']);
        let bare = self.text[span.clone()].bytes().all(|byte| byte.is_ascii_digit());
        if !(opens && closes && bare) {
            return Some((span.clone(), CARD));
        }
        let own = self.shape == Shape::Records && self.depth <= 2;
        (!own).then_some((start..span.end, CARD_AS_JSON))
    }

    fn go_to(&mut self, end: usize) {
        let bytes = self.text.as_bytes();
        while self.at < end {
            match (bytes[self.at], self.in_string) {
                (b'\\', true) => self.at += 1,
                (b'"', _) => self.in_string = !self.in_string,
                (b'{' | b'[', false) => self.depth += 1,
                (b'}' | b']', false) => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
            self.at += 1;
        }
    }
}

/// Masks one text with everything switched on.
pub fn mask_str(text: &str) -> Option<String> {
    let mut out = String::new();
    Masker::new(true, true)
        .mask(text, Shape::Value, &mut out)
        .then_some(out)
}
