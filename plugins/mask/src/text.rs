//! Masks one text: finds, follows JSON into its strings, and writes the result.

use std::borrow::Cow;
use std::ops::Range;

use crate::action::{self, Action, Marks, Renderer};
use crate::assigned;
use crate::config::Config;
use crate::custom::CustomHit;
use crate::escape::{self, Decoded};
use crate::find::{Facts, Finder, LONG, MAX_FOUND, Open, Texts};
use crate::json::{self, Reader, Span, Token};
use crate::keys::Keys;
use crate::kind::{Found, Kind};
use crate::number;
use crate::walk::{Shape, Walk};

/// Levels of JSON within strings of JSON that are followed.
const MAX_DEPTH: usize = 4;
/// How many times the length of a text may be read in search of JSON arrays that turn out to be none.
const MAX_VAIN: usize = 4;
/// Escapes in one string of JSON. Beyond, or with more findings than `MAX_FOUND`, all of a text is masked as one: what is found
/// takes memory.
const MAX_ESCAPES: usize = 250_000;
/// Edits whose memory is kept for the next text.
const MAX_SPARE: usize = 1024;
/// How many times its length a masked text may have, and bytes beside that: what the host lets every value have. A text that would
/// be longer (a list of short values, hashed) has its findings redacted instead.
const MAX_GROWTH: usize = 4;
const MIN_GROWTH: usize = 56;

/// A part of a text that is replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Edit {
    pub start: usize,
    pub end: usize,
    pub kind: Kind,
    pub text: Cow<'static, str>,
}

#[derive(Debug)]
pub(crate) struct Masker {
    finder: Finder,
    config: Config,
    renderer: Renderer,
    keys: Keys,
    found: Vec<Found>,
    /// Empty: the memory of the edits before.
    spare: Vec<Edit>,
    /// Whether the text at hand must be masked as a whole.
    too_many: bool,
}

impl Masker {
    pub(crate) fn new(config: Config) -> Result<Self, String> {
        config.check()?;
        let renderer = Renderer::new(config.secret_key.as_deref())?;
        let marks = renderer.marks(config.names_of_kinds(), config.uses(Action::Partial));
        Ok(Masker {
            finder: Finder::new(config.kinds(), config.schemes(), marks),
            renderer,
            keys: Keys::new(&config.always, &config.never),
            found: Vec::new(),
            spare: Vec::new(),
            too_many: false,
            config,
        })
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// What the mask wrote itself.
    pub(crate) fn marks(&self) -> &Marks {
        self.finder.marks()
    }

    /// Has the text at hand masked as a whole.
    pub(crate) fn give_up(&mut self) {
        self.too_many = true;
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
        out.clear();
        self.mask_into(text, shape, facts, hits, |piece, whole| {
            // Texts of megabytes have the room they need, and not twice as much.
            if out.is_empty() {
                out.reserve_exact(whole);
            }
            out.push_str(piece);
        })
    }

    /// Hands over the masked text in pieces, each with the length of the whole; none and false if there was nothing to mask.
    pub(crate) fn mask_into(
        &mut self,
        text: &str,
        shape: Shape,
        facts: Facts,
        hits: &[CustomHit],
        mut piece: impl FnMut(&str, usize),
    ) -> bool {
        let mut edits = self.edits(text, shape, facts, hits);
        if edits.is_empty() {
            self.spare = edits;
            return false;
        }
        let length = |edits: &[Edit]| {
            edits
                .iter()
                .fold(text.len(), |sum, edit| sum + edit.text.len() - (edit.end - edit.start))
        };
        let most = MAX_GROWTH * text.len() + MIN_GROWTH;
        let mut whole = length(&edits);
        if whole > most {
            for edit in &mut edits {
                edit.text = self.shortest(edit.kind, edit.text.starts_with('"'));
            }
            whole = length(&edits);
        }
        if whole > most {
            edits = vec![self.whole(text, shape, edits[0].kind)];
            whole = length(&edits);
        }
        let mut copied = 0;
        for edit in &edits {
            piece(&text[copied..edit.start], whole);
            piece(&edit.text, whole);
            copied = edit.end;
        }
        piece(&text[copied..], whole);
        if edits.capacity() <= MAX_SPARE {
            edits.clear();
            self.spare = edits;
        }
        true
    }

    /// The shortest form of a finding, as text or as a string of JSON.
    pub(crate) fn shortest(&self, kind: Kind, quoted: bool) -> Cow<'static, str> {
        let text = action::redacted(kind, self.name(kind));
        match quoted {
            true => format!("\"{text}\"").into(),
            false => text,
        }
    }

    /// In place of a whole text in which there is too much. JSON stays JSON.
    fn whole(&self, text: &str, shape: Shape, kind: Kind) -> Edit {
        let masked = self.shortest(kind, false);
        let masked = match shape {
            Shape::Records => format!("[{{\"name\":\"{masked}\"}}]").into(),
            Shape::Pairs => Cow::Borrowed("{}"),
            Shape::Free | Shape::Value if json::is_container(text) => format!("[\"{masked}\"]").into(),
            Shape::Free | Shape::Value => masked,
        };
        Edit {
            start: 0,
            end: text.len(),
            kind,
            text: masked,
        }
    }

    /// What is replaced in a text, in order and not overlapping.
    pub(crate) fn edits(&mut self, text: &str, shape: Shape, facts: Facts, hits: &[CustomHit]) -> Vec<Edit> {
        let mut edits = std::mem::take(&mut self.spare);
        if facts.never {
            return edits;
        }
        self.too_many = false;
        self.value(text, shape, facts, 0, &mut edits);
        if !hits.is_empty() && !self.too_many {
            self.custom(text, hits, &mut edits);
        }
        if self.too_many {
            let kind = edits.first().map_or(Kind::Secret, |edit| edit.kind);
            edits = vec![self.whole(text, shape, kind)];
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

    pub(crate) fn render(&self, kind: Kind, value: &str) -> Cow<'static, str> {
        self.renderer
            .render(self.config.action(kind), kind, self.name(kind), value)
    }

    /// In place of a whole value whose key says that it is secret.
    pub(crate) fn render_always(&self, value: &str) -> Cow<'static, str> {
        match self.config.secret {
            Action::Off => Cow::Borrowed("[secret]"),
            _ => self.render(Kind::Secret, value),
        }
    }

    fn value(&mut self, text: &str, shape: Shape, facts: Facts, depth: usize, edits: &mut Vec<Edit>) {
        if facts.always && !(depth < MAX_DEPTH && json::is_container(text)) {
            self.always(text, facts, edits);
            return;
        }
        let follow = depth < MAX_DEPTH;
        if text.len() <= LONG {
            self.finder.look(text);
            if !follow || !self.finder.seen().opens() {
                self.plain(text, 0..text.len(), true, facts, edits);
                return;
            }
        }
        let bytes = text.as_bytes();
        let mut plain = 0;
        let mut vain = 0;
        let mut at = 0;
        let next = |at: usize| memchr::memchr2(b'{', b'[', bytes.get(at..).filter(|_| follow)?);
        while let Some(opens) = next(at) {
            at += opens;
            let mut readable = json::begins_object(bytes, at);
            if !readable && vain <= MAX_VAIN * bytes.len() {
                let (whole, end) = json::check(bytes, at);
                readable = whole;
                vain += end - at;
            }
            if !readable {
                at += 1;
                continue;
            }
            self.plain(text, plain..at, false, facts, edits);
            let announced = assigned::announces(text, at, &self.keys);
            let facts = Facts {
                always: facts.always || announced,
                ..facts
            };
            at = self.json(text, at, shape, facts, depth, edits);
            plain = at;
        }
        self.plain(text, plain..bytes.len(), false, facts, edits);
    }

    fn always(&mut self, text: &str, facts: Facts, edits: &mut Vec<Edit>) {
        if text.is_empty() || self.finder.marks().is_whole(text) {
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

    /// A stretch of text that is no JSON. `seen` if it was looked at just before.
    fn plain(&mut self, text: &str, stretch: Range<usize>, seen: bool, facts: Facts, edits: &mut Vec<Edit>) {
        let (start, end) = (stretch.start, stretch.end);
        let part = &text[stretch];
        if part.is_empty() || self.too_many {
            return;
        }
        let mut found = std::mem::take(&mut self.found);
        // Only a whole value is the value of its key.
        let facts = if start > 0 || end < text.len() {
            Facts { class: None, ..facts }
        } else {
            facts
        };
        if !seen {
            self.finder.look(part);
        }
        self.too_many |= self.finder.find_seen(part, facts, &mut found);
        let assigned = |range: Range<usize>| {
            let marks = self.finder.marks();
            if found.len() <= 2 * MAX_FOUND
                && !marks.is_whole(&part[range.clone()])
                && !marks.around(part, range.start, range.end)
            {
                found.push(Found {
                    start: range.start,
                    end: range.end,
                    kind: Kind::Secret,
                });
            }
        };
        if self.finder.seen().assigns() {
            assigned::find(part, &self.keys, assigned);
        }
        self.too_many |= found.len() + edits.len() > MAX_FOUND;
        edits.reserve(found.len());
        merge(&mut found, |found, merged| {
            let value = &part[found.start..found.end];
            let masked = match (merged, self.config.action(found.kind)) {
                (true, Action::Partial) => self.shortest(found.kind, false),
                (_, Action::Off) => self.render_always(value),
                _ => self.render(found.kind, value),
            };
            edits.push(Edit {
                start: start + found.start,
                end: start + found.end,
                kind: found.kind,
                text: masked,
            });
        });
        // Of a text of megabytes it is megabytes, which its masked form needs now.
        if found.capacity() <= MAX_SPARE {
            found.clear();
            self.found = found;
        }
    }

    /// Strings and numbers of the JSON that begins at `from`; where it ends.
    fn json(
        &mut self,
        text: &str,
        from: usize,
        shape: Shape,
        facts: Facts,
        depth: usize,
        edits: &mut Vec<Edit>,
    ) -> usize {
        let mut walk = Walk::new(shape, facts);
        let mut reader = Reader::lenient(text.as_bytes(), from);
        // The key whose value comes next: where it begins, and how many edits there were before it.
        let mut last_key = None;
        while let Some(token) = reader.next() {
            if self.too_many {
                return text.len();
            }
            last_key = match &token {
                Token::Key(span) => Some((span.start.saturating_sub(1), edits.len())),
                _ => None,
            };
            match token {
                Token::OpenObject(at) => match typed_scalar(text, at).filter(|_| walk.facts().always && walk.typed()) {
                    // Bytes have no room for a mask, so a text takes their place.
                    Some(end) => {
                        edits.push(self.quoted(at, end, Kind::Secret, &self.render_always(&text[at..end])));
                        reader.skip_to(end);
                        walk.passed();
                    }
                    None => walk.open(true),
                },
                Token::OpenArray(_) => walk.open(false),
                Token::Close => walk.close(),
                Token::Word => walk.passed(),
                Token::Key(span) => {
                    let raw = &text[span.start..span.end];
                    if span.escaped {
                        walk.key(&Decoded::of(raw).text, &self.keys);
                    } else {
                        walk.key(raw, &self.keys);
                    }
                    if self.config.json_keys && !walk.kept() {
                        self.string(text, span, Facts::default(), MAX_DEPTH, edits);
                    }
                }
                Token::String(span) => {
                    let raw = &text[span.start..span.end];
                    if walk.is_pair_key() {
                        walk.key_of_pair(raw, &self.keys);
                    } else if !walk.kept() && (walk.facts().always || !walk.is_bytes(raw)) {
                        self.string(text, span, walk.facts(), depth + 1, edits);
                    }
                    walk.passed();
                }
                Token::Number(span) => {
                    if !walk.kept() {
                        self.number(text, span, walk.facts(), edits);
                    }
                    walk.passed();
                }
                Token::Bare(span) => {
                    if !walk.kept() {
                        self.string(text, span, walk.facts(), MAX_DEPTH, edits);
                    }
                    walk.passed();
                }
            }
        }
        let (end, broken) = reader.end();
        let rest = text.len() - end;
        if broken && rest > 0 && walk.facts().always && walk.expects_value() {
            // Nobody can tell where the secret ends.
            let masked = self.render_always(&text[end..]);
            edits.push(Edit {
                start: end,
                end: text.len(),
                kind: Kind::Secret,
                text: masked,
            });
            return text.len();
        }
        // A value that JSON does not know, such as one in other quotes: with its key it is read as plain text is.
        if let Some((key, edits_before)) = last_key.filter(|_| broken && rest > 0) {
            edits.truncate(edits_before);
            return key;
        }
        end
    }

    fn string(&mut self, text: &str, span: Span, facts: Facts, depth: usize, edits: &mut Vec<Edit>) {
        let raw = &text[span.start..span.end];
        let first = edits.len();
        if !span.escaped {
            self.value(raw, Shape::Free, facts, depth, edits);
            for edit in &mut edits[first..] {
                edit.start += span.start;
                edit.end += span.start;
                escape_edit(edit);
            }
            return;
        }
        let decoded = Decoded::of(raw);
        self.too_many |= decoded.escapes() > MAX_ESCAPES;
        self.value(&decoded.text, Shape::Free, facts, depth, edits);
        for edit in &mut edits[first..] {
            edit.start = span.start + decoded.origin(edit.start);
            edit.end = span.start + decoded.origin(edit.end);
            escape_edit(edit);
        }
    }

    /// A number outside strings becomes a string, so that JSON stays JSON.
    fn number(&mut self, text: &str, span: Span, facts: Facts, edits: &mut Vec<Edit>) {
        let raw = &text[span.start..span.end];
        let (kind, masked) = if facts.always {
            (Kind::Secret, self.render_always(raw.trim_start_matches('-')))
        } else {
            let Some(masked) = number::whole(raw).and_then(|digits| self.whole_number(&digits, facts)) else {
                return;
            };
            masked
        };
        edits.push(self.quoted(span.start, span.end, kind, &masked));
    }

    /// Digits that are a finding from the first to the last, masked.
    pub(crate) fn whole_number(&mut self, digits: &str, facts: Facts) -> Option<(Kind, Cow<'static, str>)> {
        let mut found = Vec::new();
        self.finder.find(digits, Facts { class: None, ..facts }, &mut found);
        let whole = found
            .iter()
            .filter(|found| found.start == 0 && found.end == digits.len())
            .min_by_key(|found| found.kind.rank())?;
        Some((whole.kind, self.render(whole.kind, digits)))
    }

    fn quoted(&self, start: usize, end: usize, kind: Kind, masked: &str) -> Edit {
        let mut quoted = String::from("\"");
        escape::encode(masked, &mut quoted);
        quoted.push('"');
        Edit {
            start,
            end,
            kind,
            text: quoted.into(),
        }
    }
}

/// End of the bytes, or of the double that JSON lacks, that begin here: the form in which a typed value has them.
fn typed_scalar(text: &str, at: usize) -> Option<usize> {
    let rest = &text[at..];
    let inner = rest
        .strip_prefix("{\"$bytes\":\"")
        .or(rest.strip_prefix("{\"$double\":\""))?;
    let end = inner.find('"')?;
    inner[end..]
        .starts_with("\"}")
        .then_some(text.len() - inner.len() + end + 2)
}

fn escape_edit(edit: &mut Edit) {
    if edit.text.bytes().any(|byte| matches!(byte, b'"' | b'\\' | 0..=31)) {
        let mut escaped = String::with_capacity(edit.text.len() + 2);
        escape::encode(&edit.text, &mut escaped);
        edit.text = escaped.into();
    }
}

/// Hands over findings in order, those that overlap joined; true with those that are joined of parts.
fn merge(found: &mut [Found], mut each: impl FnMut(Found, bool)) {
    found.sort_unstable_by_key(|found| (found.start, std::cmp::Reverse(found.end), found.kind.rank()));
    let mut last: Option<(Found, bool)> = None;
    for next in found.iter().copied() {
        match &mut last {
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
            _ => {
                if let Some((found, joined)) = last.replace((next, false)) {
                    each(found, joined);
                }
            }
        }
    }
    if let Some((found, joined)) = last {
        each(found, joined);
    }
}
