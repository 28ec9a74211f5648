//! What a search for words means, and which words a text must have to be found, as the index of words on a server tells them.

use std::borrow::Cow;

/// What is looked for is compared with each place of a text, so this many times its words is the most work for one text.
pub const MAX_ASKED_BYTES: usize = 4 << 10;
/// Words that are asked of the index for one search.
const MAX_KNOWN: usize = 16;
/// A word of more bytes is not asked of the index.
const MAX_KNOWN_BYTES: usize = 64;
/// Letters beyond ASCII whose small form has a letter of ASCII: they are themselves alone, so that a word of ASCII is never found in a text
/// that has it in other bytes.
const BECOME_ASCII: [char; 2] = ['\u{130}', '\u{212a}'];

/// Words as people type them into a search field: all that must be there, or must not.
#[derive(Debug)]
pub struct Search {
    terms: Vec<Term>,
}

#[derive(Debug, PartialEq)]
struct Term {
    /// Consecutive words in lower case.
    words: Vec<String>,
    /// The last word may go on.
    open: bool,
    wanted: bool,
}

impl Search {
    pub fn new(asked: &str) -> Search {
        let mut terms = Vec::new();
        let mut rest = asked.trim_start();
        while !rest.is_empty() {
            let wanted = !rest.starts_with('-');
            let begin = rest.trim_start_matches('-');
            let (text, after) = match begin.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
                None => begin.split_at(begin.find(char::is_whitespace).unwrap_or(begin.len())),
            };
            let words: Vec<String> = words(text).map(|word| in_lower_case(word).into_owned()).collect();
            if !words.is_empty() {
                let open = text.ends_with('*');
                terms.push(Term { words, open, wanted });
            }
            rest = after.trim_start();
        }
        Search { terms }
    }

    pub fn finds(&self, body: &str) -> bool {
        let body: Vec<Cow<'_, str>> = words(body).map(in_lower_case).collect();
        self.terms.iter().all(|term| term.is_in(&body) == term.wanted)
    }

    /// Words of ASCII, in lower case, that every text has which is found.
    pub(crate) fn known(&self) -> Vec<String> {
        let whole = |term: &Term| {
            let words = term.words.len() - usize::from(term.open);
            term.words[..words].to_vec()
        };
        let wanted = self.terms.iter().filter(|term| term.wanted);
        asked_of_index(wanted.flat_map(whole).filter(|word| is_indexed(word)).collect())
    }
}

impl Term {
    fn is_in(&self, body: &[Cow<'_, str>]) -> bool {
        body.windows(self.words.len()).any(|run| {
            let last = self.words.len() - 1;
            run.iter()
                .zip(&self.words)
                .enumerate()
                .all(|(at, (there, word))| match self.open && at == last {
                    true => there.starts_with(word.as_str()),
                    false => there.as_ref() == word.as_str(),
                })
        })
    }
}

/// Words of ASCII, in lower case, that every text has which is like a pattern without `_` and escapes.
pub(crate) fn known_of_pattern(pattern: &str, ignores_case: bool) -> Vec<String> {
    // Letters beyond ASCII are other forms of some of it, and so may be what stands beside a word.
    if ignores_case && !pattern.is_ascii() {
        return Vec::new();
    }
    let has_other_forms = |word: &str| ignores_case && word.contains(['k', 'K', 's', 'S']);
    let is_part = |c: char| c.is_ascii_alphanumeric();
    let pieces: Vec<&str> = pattern.split('%').collect();
    let mut known = Vec::new();
    for (at, piece) in pieces.iter().enumerate() {
        // What touches `%` may go on in the text.
        let mut whole = *piece;
        if at > 0 {
            whole = whole.trim_start_matches(is_part);
        }
        if at + 1 < pieces.len() {
            whole = whole.trim_end_matches(is_part);
        }
        let words = whole.split(|c| !is_part(c)).filter(|word| !word.is_empty());
        known.extend(words.filter(|word| !has_other_forms(word)).map(str::to_ascii_lowercase));
    }
    asked_of_index(known)
}

fn is_indexed(word: &str) -> bool {
    word.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Long words are in few texts: they come first.
fn asked_of_index(mut words: Vec<String>) -> Vec<String> {
    words.retain(|word| word.len() <= MAX_KNOWN_BYTES);
    words.sort_by(|one, other| (other.len(), one).cmp(&(one.len(), other)));
    words.dedup();
    words.truncate(MAX_KNOWN);
    words
}

/// Most words are already, and need no room of their own.
fn in_lower_case(word: &str) -> Cow<'_, str> {
    if word.chars().all(|c| c.is_lowercase() || c.is_ascii_digit()) {
        return Cow::Borrowed(word);
    }
    if !word.contains(BECOME_ASCII) {
        return Cow::Owned(word.to_lowercase());
    }
    let mut lower = String::with_capacity(word.len());
    for letter in word.chars() {
        match BECOME_ASCII.contains(&letter) {
            true => lower.push(letter),
            false => lower.extend(letter.to_lowercase()),
        }
    }
    Cow::Owned(lower)
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As the server has them: see `WORDS_OF_BODY`.
    fn indexed(text: &str) -> Vec<String> {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric());
        words
            .filter(|word| !word.is_empty())
            .map(str::to_ascii_lowercase)
            .collect()
    }

    #[test]
    fn words_that_must_be_there_are_known() {
        let of = |asked: &str| Search::new(asked).known();
        assert_eq!(of("Timeout db -retry"), ["timeout", "db"]);
        assert_eq!(
            of("\"connection refused\" time* \"a b*\" größe"),
            ["connection", "refused", "a"]
        );
        assert!(of("-\"not this\"").is_empty() && of("").is_empty());
        let of = |pattern: &str| known_of_pattern(pattern, false);
        assert_eq!(of("%rows of shard 77 %"), ["shard", "77", "of"]);
        assert_eq!(of("Timeout while%"), ["timeout"]);
        assert_eq!(of("%a-é, b%c d"), ["d"]);
        assert_eq!(of("one two"), ["one", "two"]);
        assert!(of("%refused%").is_empty() && of("").is_empty() && of("%").is_empty());
        assert_eq!(known_of_pattern("% Lock not there %", true), ["there", "not"]);
        assert!(known_of_pattern("% there ſ", true).is_empty());
    }

    /// One letter at least of each kind that matters: forms of one letter, marks and what separates words in one place alone.
    fn text() -> impl Strategy<Value = String> {
        "[aAkKsS1 -\u{212a}\u{130}ſéÉ“…日\u{307}]{0,8}"
    }

    proptest! {
        /// No text is found that lacks a word which the index is asked for.
        #[test]
        fn what_is_found_has_all_known_words(body in text(), asked in "[aAkKs1 *\"\u{212a}é-]{0,6}", around in text()) {
            let bodies = [body.clone(), format!("{around}{asked}{body}"), asked.replace(['*', '"'], "")];
            for body in bodies {
                let search = Search::new(&asked);
                if search.finds(&body) {
                    let there = indexed(&body);
                    prop_assert!(search.known().iter().all(|word| there.contains(word)), "{asked:?} in {body:?}");
                }
            }
        }

        /// The same of patterns: each text that is like one, whatever stands for `%`, and in any case.
        #[test]
        fn what_is_like_a_pattern_has_all_known_words(pieces in prop::collection::vec(text(), 1..4), between in text(), upper: bool) {
            let (pattern, body) = (pieces.join("%"), pieces.join(&between));
            let there = indexed(&body);
            prop_assert!(known_of_pattern(&pattern, false).iter().all(|word| there.contains(word)), "{pattern:?}, {body:?}");
            let other: String = body
                .chars()
                .map(|c| match c {
                    'k' | 'K' if upper => '\u{212a}',
                    's' | 'S' if upper => 'ſ',
                    c => if upper { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() },
                })
                .collect();
            let there = indexed(&other);
            prop_assert!(known_of_pattern(&pattern, true).iter().all(|word| there.contains(word)), "{pattern:?}, {other:?}");
        }
    }
}
