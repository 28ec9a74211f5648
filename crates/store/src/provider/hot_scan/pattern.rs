//! Regular expressions in the words of the server's engine: spelled anew from what they mean here, so that nothing depends on how the
//! two read classes, flags or escapes. What has no such spelling is left to the engine.

use regex_syntax::ParserBuilder;
use regex_syntax::hir::{Class, Hir, HirKind, Look, Repetition};

/// Of an expression as it is spelled; it travels in the address.
const MAX_BYTES: usize = 4 << 10;
/// The server's engine takes memory for each repetition.
const MAX_REPEATED_BYTES: usize = 4 << 10;
/// Of repetitions within repetitions, multiplied: its engine refuses more.
const MAX_REPETITIONS: usize = 1000;
const MAX_DEPTH: u32 = 50;

/// An expression that matches the same texts there.
pub(super) fn spelled(pattern: &str, ignores_case: bool) -> Option<String> {
    let mut parser = ParserBuilder::new();
    parser.case_insensitive(ignores_case).nest_limit(MAX_DEPTH);
    let meaning = parser.build().parse(pattern).ok()?;
    let mut spelled = String::new();
    spell(&meaning, &mut spelled)?;
    (repeated(&meaning)? <= MAX_REPETITIONS && weight(&meaning, 1)? <= MAX_REPEATED_BYTES && spelled.len() <= MAX_BYTES)
        .then_some(spelled)
}

fn spell(hir: &Hir, into: &mut String) -> Option<()> {
    match hir.kind() {
        HirKind::Empty => {}
        HirKind::Literal(literal) => {
            for letter in std::str::from_utf8(&literal.0).ok()?.chars() {
                letter_alone(letter, into)?;
            }
        }
        HirKind::Class(class) => {
            let mut ranges: Vec<(char, char)> = Vec::new();
            match class {
                Class::Unicode(class) => ranges.extend(class.iter().map(|range| (range.start(), range.end()))),
                Class::Bytes(class) if class.is_ascii() => {
                    ranges.extend(
                        class
                            .iter()
                            .map(|range| (char::from(range.start()), char::from(range.end()))),
                    );
                }
                Class::Bytes(_) => return None,
            }
            if ranges.is_empty() {
                return None;
            }
            into.push('[');
            for (first, last) in ranges {
                letter_of_class(first, into);
                into.push('-');
                letter_of_class(last, into);
            }
            into.push(']');
        }
        HirKind::Look(Look::Start) => into.push('^'),
        HirKind::Look(Look::End) => into.push('$'),
        // Lines and words are told apart in other ways.
        HirKind::Look(_) => return None,
        HirKind::Repetition(repetition) => {
            group(&repetition.sub, into)?;
            match (repetition.min, repetition.max) {
                (0, None) => into.push('*'),
                (1, None) => into.push('+'),
                (0, Some(1)) => into.push('?'),
                (min, None) => into.push_str(&format!("{{{min},}}")),
                (min, Some(max)) => into.push_str(&format!("{{{min},{max}}}")),
            }
        }
        HirKind::Capture(capture) => group(&capture.sub, into)?,
        HirKind::Concat(all) => all.iter().try_for_each(|one| match one.kind() {
            HirKind::Alternation(_) => group(one, into),
            _ => spell(one, into),
        })?,
        HirKind::Alternation(all) => {
            for (at, one) in all.iter().enumerate() {
                if at > 0 {
                    into.push('|');
                }
                spell(one, into)?;
            }
        }
    }
    Some(())
}

fn group(hir: &Hir, into: &mut String) -> Option<()> {
    into.push_str("(?:");
    spell(hir, into)?;
    into.push(')');
    Some(())
}

fn letter_alone(letter: char, into: &mut String) -> Option<()> {
    match letter {
        'a'..='z' | 'A'..='Z' | '0'..='9' | ' ' | '_' => into.push(letter),
        '\u{21}'..='\u{7e}' => into.extend(['\\', letter]),
        '\0' => return None,
        _ if letter.is_ascii() => into.push_str(&format!("\\x{{{:x}}}", u32::from(letter))),
        _ => into.push(letter),
    }
    Some(())
}

fn letter_of_class(letter: char, into: &mut String) {
    match letter {
        'a'..='z' | 'A'..='Z' | '0'..='9' => into.push(letter),
        _ if letter.is_ascii() => into.push_str(&format!("\\x{{{:x}}}", u32::from(letter))),
        _ => into.push(letter),
    }
}

/// How long it would be with its repetitions written out.
fn weight(hir: &Hir, times: usize) -> Option<usize> {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => Some(times),
        HirKind::Literal(literal) => literal.0.len().checked_mul(times),
        HirKind::Class(Class::Unicode(class)) => class.ranges().len().checked_mul(times),
        HirKind::Class(Class::Bytes(class)) => class.ranges().len().checked_mul(times),
        HirKind::Repetition(repetition) => weight(&repetition.sub, times.checked_mul(most(repetition))?),
        HirKind::Capture(capture) => weight(&capture.sub, times),
        HirKind::Concat(all) | HirKind::Alternation(all) => {
            let mut sum = 0usize;
            for one in all {
                sum = sum.checked_add(weight(one, times)?)?;
            }
            Some(sum)
        }
    }
}

/// The largest product of repetitions within each other.
fn repeated(hir: &Hir) -> Option<usize> {
    match hir.kind() {
        HirKind::Repetition(repetition) => repeated(&repetition.sub)?.checked_mul(most(repetition)),
        HirKind::Capture(capture) => repeated(&capture.sub),
        HirKind::Concat(all) | HirKind::Alternation(all) => {
            let each: Option<Vec<usize>> = all.iter().map(repeated).collect();
            Some(each?.into_iter().max().unwrap_or(1))
        }
        _ => Some(1),
    }
}

fn most(repetition: &Repetition) -> usize {
    repetition.max.unwrap_or(repetition.min).max(1) as usize
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_is_spelled_by_what_it_means() {
        let of = |pattern: &str| spelled(pattern, false).unwrap();
        assert_eq!(of("transaction [0-9a-f]*00$"), "transaction (?:[0-9a-f])*00$");
        assert_eq!(of("^a.c"), "^a[\\x{0}-\\x{9}\\x{b}-\u{10ffff}]c");
        assert_eq!(of("x(b|cd)+?(?-u:[0-1])"), "x(?:(?:b|cd))+[0-1]");
        assert_eq!(of("é/\\.{2,}"), "é\\/(?:\\.){2,}");
        assert_eq!(spelled("k", true).unwrap(), "[K-Kk-k\u{212a}-\u{212a}]");
    }

    #[test]
    fn what_is_read_otherwise_there_stays_here() {
        for pattern in [
            r"\bword",
            "(?m)^line$",
            "(",
            "a{2",
            "(?:a{150}){150}",
            "x\0y",
            r"[^\s\S]",
            r"\w{2}",
            "(?-u:\\b)",
        ] {
            assert_eq!(spelled(pattern, false), None, "{pattern}");
        }
    }
}
