//! Where the value behind a sign ends, in text that may be full of signs.

use std::ops::Range;

use super::secret::Class;

/// The longest placeholder in angle brackets.
const MAX_TAG: usize = 64;

/// Ends of values in one text, by what ends them, so that a text full of signs is read once and not once for each sign. Asked for
/// by ever larger places.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    ends: [Stretch; 5],
    /// Where a password ends whose first part ends at a place.
    password: Option<(usize, usize)>,
    /// Cookies are looked at up to here.
    pub(super) cookies: usize,
}

/// Nothing of a kind stands in `from..to`, and something of it, or the end of the text, at `to`.
#[derive(Clone, Copy, Debug, Default)]
struct Stretch {
    from: usize,
    to: usize,
}

/// What a search for an end looks for.
#[derive(Clone, Copy)]
pub(super) enum Ends {
    Tag,
    Word,
    Line,
    Parameter,
    Scheme,
}

impl Ends {
    fn at(self, c: char) -> bool {
        match self {
            Ends::Tag => c == '<',
            Ends::Word => {
                matches!(
                    c,
                    '"' | '\'' | '<' | '>' | '|' | '`' | ';' | '\\' | ',' | '&' | ')' | ']' | '}'
                ) || c.is_whitespace()
            }
            Ends::Line => {
                matches!(
                    c,
                    '\n' | '\r' | '"' | '\'' | '<' | '>' | '|' | '`' | '\\' | ',' | '&' | ')' | ']' | '}'
                )
            }
            Ends::Parameter => c == '=' || Ends::Word.at(c),
            Ends::Scheme => matches!(c, ' ' | '"' | '\''),
        }
    }
}

impl Ahead {
    /// The first place from `at` on where such an end stands, or the end of the text.
    pub(super) fn next(&mut self, text: &str, at: usize, ends: Ends) -> usize {
        let known = &mut self.ends[ends as usize];
        if !(known.from <= at && at <= known.to && known.to > 0) {
            let to = text[at..].find(|c| ends.at(c)).map_or(text.len(), |end| at + end);
            *known = Stretch { from: at, to };
        }
        known.to
    }
}

/// The value that begins here: up to its quote, or to what ends a word.
pub(crate) fn value_at(text: &str, at: usize, class: Class, ahead: &mut Ahead) -> Range<usize> {
    let bytes = text.as_bytes();
    // Within JSON in strings of JSON, quotes have backslashes before them.
    let slashes = backslashes(bytes, at);
    let quote = bytes
        .get(at + slashes)
        .filter(|byte| matches!(byte, b'"' | b'\'' | b'`'));
    if let Some(quote) = quote {
        let start = at + slashes + 1;
        let mut end = start;
        while let Some(byte) = bytes.get(end) {
            match byte {
                b'\\' if slashes == 0 => end += 1,
                b'\\' => {
                    let run = backslashes(bytes, end);
                    if run <= slashes && bytes.get(end + run) == Some(quote) {
                        break;
                    }
                    end += run.saturating_sub(1);
                }
                byte if byte == quote => break,
                _ => {}
            }
            end += 1;
        }
        return start..end.min(bytes.len());
    }
    let ends = match class {
        Class::Authorization | Class::Cookie => Ends::Line,
        Class::Password | Class::Credential => Ends::Word,
    };
    let at = at.min(text.len());
    // `<password>`, `<redacted>`
    if bytes.get(at) == Some(&b'<')
        && let Some(closes) = bytes[at..].iter().take(MAX_TAG).position(|byte| *byte == b'>')
    {
        return at..at + closes + 1;
    }
    let first = ahead.next(text, at, ends);
    let end = match class {
        Class::Password => password_end(text, first, ahead),
        _ => first,
    };
    let length = end - at;
    let rest = &text[at..];
    let value = rest[..length].trim_end_matches(['.', '!', '?', ':']);
    let value = if class == Class::Password && value.len() < length && !rest[value.len()..length].starts_with('.') {
        &rest[..length]
    } else {
        value
    };
    at..at + value.len()
}

fn backslashes(bytes: &[u8], at: usize) -> usize {
    let rest = bytes.get(at..).unwrap_or_default();
    rest.iter().take_while(|byte| **byte == b'\\').count()
}

/// `P@ss&word`: what joins parameters may also stand in a password, but then another parameter does not follow.
fn password_end(text: &str, first: usize, ahead: &mut Ahead) -> usize {
    if let Some((known, end)) = ahead.password
        && known == first
    {
        return end;
    }
    let mut end = first;
    while text[end..].starts_with('&') {
        let stop = ahead.next(text, end + 1, Ends::Parameter);
        if text[stop..].starts_with('=') || stop == end + 1 {
            break;
        }
        end = stop;
    }
    ahead.password = Some((first, end));
    end
}
