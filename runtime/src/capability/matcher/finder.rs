//! Finds the texts that hold a literal: many literals at once, sixteen or more bytes at a time where there are not too many.
//!
//! Literals in any case are looked for in a copy of the texts in small letters: one pass to make it and one to search it, where
//! the sixty-four ways to write six letters would be more literals than any fast search takes.

use aho_corasick::{AhoCorasick, AhoCorasickBuilder, MatchKind};

use super::Texts;
use super::needles::Literals;
use super::set::text_of;

/// From so many patterns on it pays to find out first which of them a text may hold: one more look at the text for all literals
/// takes as long as a few searches.
const WORTH_NARROWING: usize = 8;
/// Literals that one finder looks for; with more it is no longer the kind that looks at sixteen bytes at once.
const LITERALS_PER_FINDER: usize = 48;
/// With more finders than this, one that goes byte by byte for all literals is faster than all of them.
const MAX_FINDERS: usize = 4;

/// The literals of all patterns that have some.
#[derive(Debug)]
pub(super) struct Needles {
    finders: Vec<Finder>,
    /// Numbers of the patterns.
    patterns: Vec<usize>,
    /// Finds all literals of a text, where that pays.
    all: Option<All>,
    /// The texts in small letters.
    small: Vec<u8>,
}

#[derive(Debug)]
struct Finder {
    literals: AhoCorasick,
    any_case: bool,
}

#[derive(Debug)]
struct All {
    literals: AhoCorasick,
    /// Of each literal the number of its pattern.
    owners: Vec<usize>,
}

impl Needles {
    /// By the numbers of the patterns. None if there are no literals, or too many.
    pub(super) fn build(literals: &[(usize, Literals)]) -> Option<Needles> {
        if literals.is_empty() {
            return None;
        }
        let (mut written, mut any_case) = (Vec::new(), Vec::new());
        for (_, literals) in literals {
            match literals {
                Literals::AsWritten(literals) => written.extend(literals),
                Literals::AnyCase(literals) => any_case.extend(literals),
            }
        }
        let mut finders = Vec::new();
        for (literals, any_case) in [(written, false), (any_case, true)] {
            let each = parts(&literals).into_iter().map(|part| {
                let literals = finder().build(part).ok()?;
                Some(Finder { literals, any_case })
            });
            finders.extend(each.collect::<Option<Vec<_>>>()?);
        }
        Some(Needles {
            finders,
            patterns: literals.iter().map(|(number, _)| *number).collect(),
            all: (literals.len() >= WORTH_NARROWING)
                .then(|| All::build(literals))
                .flatten(),
            small: Vec::new(),
        })
    }

    pub(super) fn bytes(&self) -> usize {
        let finders = self.finders.iter().map(|finder| finder.literals.memory_usage());
        finders.sum::<usize>() + self.all.as_ref().map_or(0, |all| all.literals.memory_usage())
    }

    pub(super) fn cache_bytes(&self) -> usize {
        self.small.capacity()
    }

    pub(super) fn empty_cache(&mut self) {
        self.small = Vec::new();
    }

    /// Texts in which a literal begins, in order.
    pub(super) fn candidates(&mut self, texts: Texts<'_>, from: usize, until: usize, candidates: &mut Vec<usize>) {
        let (start, end) = (texts.start(from), texts.start(until));
        let Some(bytes) = texts.bytes.get(start..end) else {
            return;
        };
        if self.finders.iter().any(|finder| finder.any_case) {
            self.small.clear();
            self.small.extend_from_slice(bytes);
            self.small.make_ascii_lowercase();
        }
        for finder in &self.finders {
            let bytes = if finder.any_case { &self.small } else { bytes };
            let (mut at, mut text) = (0, from);
            while at < bytes.len() {
                let Some(find) = finder.literals.find(aho_corasick::Input::new(bytes).range(at..)) else {
                    break;
                };
                text = text_of(texts, text, until, start + find.start());
                candidates.push(text);
                at = texts.end(text) - start;
                text += 1;
            }
        }
        if self.finders.len() > 1 {
            candidates.sort_unstable();
            candidates.dedup();
        }
    }

    /// Adds the patterns that a text may hold.
    pub(super) fn narrow(&self, text: &[u8], wanted: &mut Vec<usize>) {
        let Some(all) = &self.all else {
            wanted.extend_from_slice(&self.patterns);
            return;
        };
        let before = wanted.len();
        let finds = all.literals.find_overlapping_iter(text);
        wanted.extend(finds.map(|find| all.owners[find.pattern().as_usize()]));
        wanted[before..].sort_unstable();
        // Patterns that match anywhere stand before and are no patterns with needles.
        wanted.dedup();
    }
}

impl All {
    /// Looks for all of them in any case: one literal too many only costs a search.
    fn build(literals: &[(usize, Literals)]) -> Option<All> {
        let each = literals.iter().flat_map(|(number, literals)| {
            let (Literals::AsWritten(literals) | Literals::AnyCase(literals)) = literals;
            literals.iter().map(|literal| (*number, literal))
        });
        let (owners, literals): (Vec<usize>, Vec<&Vec<u8>>) = each.unzip();
        let literals = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .build(literals)
            .ok()?;
        Some(All { literals, owners })
    }
}

fn finder() -> AhoCorasickBuilder {
    let mut builder = AhoCorasick::builder();
    builder.match_kind(MatchKind::LeftmostFirst);
    builder
}

/// Single bytes apart from longer literals: what is fast for either is not for both.
fn parts<'a>(literals: &[&'a Vec<u8>]) -> Vec<Vec<&'a Vec<u8>>> {
    let (short, long): (Vec<_>, Vec<_>) = literals.iter().copied().partition(|literal| literal.len() == 1);
    let chunks: Vec<Vec<_>> = [&short, &long]
        .into_iter()
        .flat_map(|part| part.chunks(LITERALS_PER_FINDER).map(<[_]>::to_vec))
        .collect();
    if chunks.len() > MAX_FINDERS {
        vec![literals.to_vec()]
    } else {
        chunks
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::Syntax;
    use super::super::needles::needles;
    use super::super::pattern::parse;
    use super::*;

    /// The finders for these words, and the literals of all of them.
    fn build(words: &[String], syntax: Syntax) -> (Needles, usize) {
        let literals = words.iter().enumerate().map(|(number, word)| {
            let (hir, _) = parse(syntax, word).unwrap();
            (number, needles(&hir).unwrap())
        });
        let needles = Needles::build(&literals.collect::<Vec<_>>()).unwrap();
        let literals = needles
            .finders
            .iter()
            .map(|finder| finder.literals.patterns_len())
            .sum();
        (needles, literals)
    }

    #[test]
    fn words_in_any_case_are_as_few_literals_as_words() {
        let words = [
            "authentication",
            "login failed",
            "malware",
            "denied",
            "Übertragung",
            "risk",
        ]
        .map(str::to_owned);
        let (needles, literals) = build(&words, Syntax::LiteralAnyCase);
        assert_eq!(needles.finders.len(), 1, "one pass over the texts");
        // The letters i, n, l and so on are one literal each; s and k have a sibling in another alphabet, and umlauts two forms.
        assert!(literals <= 24, "{literals} literals");
    }

    #[test]
    fn there_are_never_more_passes_than_few() {
        for count in [1, 40, 100, 500] {
            let words: Vec<String> = (0..count).map(|n| format!("word-{n}-of-many")).collect();
            for syntax in [Syntax::Literal, Syntax::LiteralAnyCase] {
                let (needles, _) = build(&words, syntax);
                assert!((1..=MAX_FINDERS).contains(&needles.finders.len()), "{count} {syntax:?}");
            }
        }
    }
}
