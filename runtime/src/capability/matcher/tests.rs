#![allow(clippy::unwrap_used)]
use std::cell::Cell;
use std::sync::Arc;

use arrow_array::{ArrayRef, DictionaryArray, Int64Array, StringArray};
use proptest::prelude::*;

use super::*;

const NEVER: &dyn Fn() -> bool = &|| false;

/// The contract, written down as slowly as possible.
fn naive(patterns: &[(Syntax, String)], texts: &[String]) -> Vec<Hit> {
    let mut hits = Vec::new();
    for (pattern, (kind, source)) in patterns.iter().enumerate() {
        let source = match kind {
            Syntax::Regex => source.clone(),
            Syntax::Literal => regex::escape(source),
            Syntax::LiteralAnyCase => format!("(?i){}", regex::escape(source)),
        };
        let regex = regex::Regex::new(&source).unwrap();
        for (text, haystack) in texts.iter().enumerate() {
            hits.extend(regex.find_iter(haystack).map(|find| Hit {
                text: text as u32,
                start: find.start() as u32,
                pattern: pattern as u32,
                end: find.end() as u32,
            }));
        }
    }
    hits.sort();
    hits
}

fn flat(texts: &[String]) -> (Vec<i32>, Vec<u8>) {
    let mut offsets = vec![0];
    let mut bytes = Vec::new();
    for text in texts {
        bytes.extend_from_slice(text.as_bytes());
        offsets.push(bytes.len() as i32);
    }
    (offsets, bytes)
}

fn find(patterns: &[(Syntax, String)], texts: &[String]) -> Vec<Hit> {
    let mut sets = PatternSets::new(MatchLimits::default());
    let set = sets.compile(patterns, NEVER).unwrap();
    let (offsets, bytes) = flat(texts);
    let hits = sets.find(set, &offsets, &bytes, NEVER).unwrap();
    assert_eq!(
        sets.find(set, &offsets, &bytes, NEVER).unwrap(),
        hits,
        "a second search finds the same"
    );
    hits
}

fn any_regex() -> impl Strategy<Value = String> {
    let leaves = prop::sample::select(vec![
        "a", "b", "@", "é", r"\d", r"\w", "[ab]", ".", "^", "$", r"\b", r"\B", "", "-", "eyJ", "(?i:k)", r"\s",
        "(?m:^)", r"\z", "1.1", "#x",
    ]);
    leaves.prop_map(str::to_owned).prop_recursive(4, 16, 4, |inner| {
        prop_oneof![
            3 => prop::collection::vec(inner.clone(), 2..5).prop_map(|parts| parts.concat()),
            1 => prop::collection::vec(inner.clone(), 2..4).prop_map(|parts| format!("({})", parts.join("|"))),
            1 => (inner, prop::sample::select(vec!["*", "+", "?", "{2}", "*?", "+?", "{1,3}"])).prop_map(|(part, times)| format!("(?:{part}){times}")),
        ]
    })
}

fn any_pattern() -> impl Strategy<Value = (Syntax, String)> {
    prop_oneof![
        3 => any_regex().prop_map(|text| (Syntax::Regex, text)),
        1 => "[aAkKé@.1 ]{0,3}".prop_map(|text| (Syntax::Literal, text)),
        1 => "[aAkKé@.1 ]{0,3}".prop_map(|text| (Syntax::LiteralAnyCase, text)),
    ]
}

fn any_text() -> impl Strategy<Value = String> {
    // U+212A is a K that folds to the letter.
    let piece = prop_oneof![
        4 => "[ab1é@ .\n-]{0,4}",
        1 => Just("eyJ".to_owned()),
        1 => Just("#x".to_owned()),
        1 => Just("kK\u{212a}".to_owned()),
    ];
    prop::collection::vec(piece, 0..4).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn what_is_found_is_what_each_pattern_finds_in_each_text(
        patterns in prop_oneof![4 => prop::collection::vec(any_pattern(), 0..8), 1 => prop::collection::vec(any_pattern(), 30..60)],
        texts in prop::collection::vec(any_text(), 0..12),
    ) {
        prop_assert_eq!(find(&patterns, &texts), naive(&patterns, &texts));
    }
}

/// Shapes of personal data as a mask has them.
const MASK: [&str; 10] = [
    r"[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}",
    r"\beyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*",
    r"\b(?:\d[ -]?){13,19}\b",
    r"\b\d{3}-\d{2}-\d{4}\b",
    r"\b(?:\d{1,3}\.){3}\d{1,3}\b",
    r"\bAKIA[0-9A-Z]{16}\b",
    r"-----BEGIN [A-Z ]+-----",
    r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}\b",
    r"(?i)password\s*[=:]\s*\S+",
    r"\+\d{1,3}[ -]?\d{2,4}[ -]?\d{3,4}[ -]?\d{3,4}",
];

fn mask() -> Vec<(Syntax, String)> {
    MASK.map(|pattern| (Syntax::Regex, pattern.to_owned())).into()
}

#[test]
fn many_texts_in_many_pieces() {
    let secrets = [
        "mail to jo.doe@example.com, now",
        "from 10.0.0.1 to 192.168.17.254",
        "card 4111 1111 1111 1111 and ssn 078-05-1120",
        "PassWord = hunter2 token eyJhbGci.eyJzdWIi.c2ln",
        "DE89 3704 0044 0532 0130 00 call +49 170 1234 567",
    ];
    let texts: Vec<String> = (0..5000)
        .map(|n| match n % 7 {
            0 => secrets[n / 7 % secrets.len()].to_owned(),
            1 => String::new(),
            2 => format!("{}@", "x".repeat(n % 300)),
            3 => "a.b".to_owned(),
            _ => format!("GET /api/v1/items/{n} took {} ms on worker-{}", n * 7 % 900, n % 16),
        })
        .collect();
    let hits = find(&mask(), &texts);
    assert_eq!(hits, naive(&mask(), &texts));
    assert!(
        (0..MASK.len() as u32)
            .filter(|n| hits.iter().any(|hit| hit.pattern == *n))
            .count()
            >= 8
    );
}

#[test]
fn words_in_any_case_are_found_in_any_case() {
    // U+212A and U+017F are the Kelvin sign and the long s, which are k and s in another case.
    let texts: Vec<String> = (0..3000)
        .map(|n| match n % 9 {
            0 => "Access DENIED for user".to_owned(),
            1 => "a ri\u{17f}\u{212a} of MALWARE and malware".to_owned(),
            2 => "ÜBERTRAGUNG und übertragung".to_owned(),
            3 => "access ".to_owned(),
            4 => "denied".to_owned(),
            5 => String::new(),
            6 => "SQL injection, sql INJECTION, Sql".to_owned(),
            _ => format!("GET /api/v1/items/{n} took {} ms on worker-{}", n * 7 % 900, n % 16),
        })
        .collect();
    let words = [
        "access denied",
        "malware",
        "risk",
        "Übertragung",
        "sql injection",
        "SQL",
        "brute force",
        "intrusion",
    ];
    let any_case = |word: &&str| (Syntax::LiteralAnyCase, (*word).to_owned());
    let as_written = |word: &&str| (Syntax::Literal, (*word).to_owned());
    let numbered = |n: usize| (Syntax::LiteralAnyCase, format!("WORKER-{n}"));
    for patterns in [
        words.iter().map(any_case).collect::<Vec<_>>(),
        words.iter().map(as_written).collect(),
        words.iter().map(any_case).chain(words.iter().map(as_written)).collect(),
        words.iter().map(any_case).chain((0..300).map(numbered)).collect(),
    ] {
        let hits = find(&patterns, &texts);
        assert_eq!(hits, naive(&patterns, &texts));
        assert!(hits.len() > 300);
    }
}

#[test]
fn columns_are_searched_as_they_are() {
    let mut sets = PatternSets::default();
    let set = sets
        .compile(&[(Syntax::Literal, "b"), (Syntax::Regex, "^")], NEVER)
        .unwrap();
    let plain: ArrayRef = Arc::new(StringArray::from(vec![Some("ab"), None, Some("b")]));
    let hit = |text, start, pattern, end| Hit {
        text,
        start,
        pattern,
        end,
    };
    let expected = vec![hit(0, 0, 1, 0), hit(0, 1, 0, 2), hit(2, 0, 0, 1), hit(2, 0, 1, 0)];
    assert_eq!(sets.find_in_column(set, &plain, NEVER).unwrap(), expected);
    assert_eq!(
        sets.find_in_column(set, &plain.slice(2, 1), NEVER).unwrap(),
        [hit(0, 0, 0, 1), hit(0, 0, 1, 0)]
    );
    let keys = arrow_array::UInt16Array::from(vec![Some(1), Some(1), None]);
    let values = Arc::new(StringArray::from(vec!["a", "b"]));
    let dictionary = DictionaryArray::new(keys, values);
    assert_eq!(
        sets.find_in_column(set, &dictionary, NEVER).unwrap(),
        [hit(0, 0, 1, 0), hit(1, 0, 0, 1), hit(1, 0, 1, 0)]
    );
    let error = sets.find_in_column(set, &Int64Array::from(vec![1]), NEVER).unwrap_err();
    assert_eq!(error, "a column of Int64 holds no text");
    assert_eq!(
        sets.find(7, &[0], b"", NEVER).unwrap_err(),
        "there is no set 7 of patterns"
    );
}

#[test]
fn texts_that_are_none_are_refused() {
    let mut sets = PatternSets::default();
    let set = sets.compile(&[(Syntax::Regex, "")], NEVER).unwrap();
    for (offsets, bytes, expected) in [
        (
            &[0, -1][..],
            &b"a"[..],
            "offset 1 is -1; offsets begin at 0 or above and never fall",
        ),
        (
            &[-1, 0],
            b"a",
            "offset 0 is -1; offsets begin at 0 or above and never fall",
        ),
        (
            &[0, 2, 1],
            b"ab",
            "offset 2 is 1; offsets begin at 0 or above and never fall",
        ),
        (&[0, i32::MAX], b"ab", "the texts end at byte 2147483647 of 2"),
        (
            &[0, 1, 2],
            "é".as_bytes(),
            "offset 1 is 1, in the middle of a character",
        ),
    ] {
        assert_eq!(sets.find(set, offsets, bytes, NEVER).unwrap_err(), expected);
    }
    assert!(
        sets.find(set, &[0, 1], b"\xff", NEVER)
            .unwrap_err()
            .contains("not UTF-8")
    );
    assert_eq!(sets.find(set, &[], b"", NEVER).unwrap(), []);
    assert_eq!(sets.find(set, &[1], b"ab", NEVER).unwrap(), []);
}

#[test]
fn patterns_that_ask_for_too_much_are_refused() {
    let regexes = |text: &str, count: usize| vec![(Syntax::Regex, text.to_owned()); count];
    for (patterns, expected) in [
        (
            regexes("a(", 1),
            "pattern 0: regex parse error:\n    a(\n     ^\nerror: unclosed group",
        ),
        (regexes("(?<=a)b", 1), "look-around"),
        (regexes(r"(a)\1", 1), "backreferences are not supported"),
        (
            regexes("(((a{1000}){1000}){1000}){1000}", 1),
            "pattern 0: compiled it is larger than",
        ),
        (regexes(r"\w{40}", 512), "pattern 3: compiled it is larger than the"),
        (regexes("a", 513), "513 patterns; an instance may have 512"),
        (
            regexes(&"a".repeat(200), 400),
            "the patterns have 80000 bytes of text; an instance may have 65536",
        ),
        (
            regexes(&format!("{}{}", "(".repeat(300), ")".repeat(300)), 1),
            "nested parentheses",
        ),
    ] {
        let error = PatternSets::default().compile(&patterns, NEVER).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
    let mut sets = PatternSets::default();
    for number in 0..16 {
        assert_eq!(sets.compile(&regexes("a", 1), NEVER), Ok(number));
    }
    assert_eq!(
        sets.compile(&regexes("a", 1), NEVER).unwrap_err(),
        "an instance may have 16 sets of patterns"
    );
    let late = PatternSets::default().compile(&regexes("a", 2), &|| true).unwrap_err();
    assert_eq!(late, "pattern 0: there was no time left to compile it");
}

#[test]
fn a_search_ends_when_its_time_or_its_room_does() {
    let limits = MatchLimits {
        hits: 10,
        ..MatchLimits::default()
    };
    let mut sets = PatternSets::new(limits);
    let set = sets.compile(&[(Syntax::Regex, "a")], NEVER).unwrap();
    assert_eq!(sets.find(set, &[0, 10], &[b'a'; 10], NEVER).unwrap().len(), 10);
    let error = sets.find(set, &[0, 11], &[b'a'; 11], NEVER).unwrap_err();
    assert_eq!(error, "more than 10 finds; search fewer texts at once");

    // Of each kind of search one that would take minutes: finds that read to the end of the text each, many texts that
    // match nothing, and one text in which every state of a large pattern stays alive.
    let megabytes = 4 << 20;
    let mut sets = PatternSets::new(MatchLimits {
        hits: usize::MAX,
        ..MatchLimits::default()
    });
    let quadratic = sets.compile(&[(Syntax::Regex, "a*b|a")], NEVER).unwrap();
    let alive = sets.compile(&[(Syntax::Regex, "[ab]*a[ab]{3000}c")], NEVER).unwrap();
    let looks = Cell::new(0);
    let third_look = || {
        looks.set(looks.get() + 1);
        looks.get() >= 3
    };
    let error = sets
        .find(quadratic, &[0, megabytes], &vec![b'a'; megabytes as usize], &third_look)
        .unwrap_err();
    assert_eq!(error, "there was no time left for the search");
    let noise: Vec<u8> = (0..megabytes as u32)
        .map(|n| {
            if n.wrapping_mul(2_654_435_761) >> 31 == 0 {
                b'a'
            } else {
                b'b'
            }
        })
        .collect();
    let mut with_end = noise;
    with_end.push(b'c');
    let error = sets
        .find(alive, &[0, with_end.len() as i32], &with_end, NEVER)
        .unwrap_err();
    assert!(
        error.contains("is too long for this pattern; make the pattern simpler"),
        "{error}"
    );
}

#[test]
fn long_texts_are_searched_like_short_ones() {
    for filler in ["some words without anything 12 ", "Grüße an alle 12 "] {
        let mut text = String::new();
        while text.len() < 600_000 {
            text.push_str(&filler.repeat(1000));
            text.push_str("jo@example.com 078-05-1120 ");
        }
        let patterns: Vec<_> = [0, 3, 4].map(|n| (Syntax::Regex, MASK[n].to_owned())).into();
        let texts = [text, "078-05-1120".to_owned()];
        let hits = find(&patterns, &texts);
        assert_eq!(hits, naive(&patterns, &texts));
        assert!(hits.len() > 20);
    }
}

#[test]
fn caches_are_emptied_before_they_take_too_much() {
    let caches = |sets: &PatternSets| sets.sets.iter().map(Set::cache_bytes).sum::<usize>();
    let mut sets = PatternSets::default();
    let set = sets.compile(&mask(), NEVER).unwrap();
    let empty = caches(&sets);
    let texts: Vec<String> = (0..2000).map(|n| format!("{n}@{n}.{n} ü{n} {n}-{n}-{n}")).collect();
    let (offsets, bytes) = flat(&texts);
    let hits = sets.find(set, &offsets, &bytes, NEVER).unwrap();
    assert!(caches(&sets) > empty);
    sets.limits.cache_bytes = empty;
    assert_eq!(sets.find(set, &offsets, &bytes, NEVER).unwrap(), hits);
    assert_eq!(caches(&sets), empty);
    assert_eq!(sets.find(set, &offsets, &bytes, NEVER).unwrap(), hits);
}
