//! How many texts a second `match` searches: 8,192 of about 100 bytes, ten patterns of a mask, beside the crate `regex`
//! pattern by pattern. `cargo run --release --example match_rates`
#![allow(clippy::unwrap_used)]

use std::time::Instant;

use sluice_runtime::capability::matcher::{PatternSets, Syntax};

const TEXTS: usize = 8192;
const ROUNDS: usize = 20;
const PATTERNS: [&str; 10] = [
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

fn main() {
    for (name, dirty_every) in [("clean", 0), ("one in 100 dirty", 100), ("all dirty", 1)] {
        let (offsets, bytes) = texts(dirty_every);
        for (set, patterns) in [("10 patterns", &PATTERNS[..]), ("e-mail alone", &PATTERNS[..1])] {
            let mut sets = PatternSets::default();
            let patterns: Vec<_> = patterns.iter().map(|text| (Syntax::Regex, *text)).collect();
            let number = sets.compile(&patterns, &|| false).unwrap();
            let mut hits = 0;
            let ours = fastest(|| hits = sets.find(number, &offsets, &bytes, &|| false).unwrap().len());
            let regexes: Vec<_> = patterns
                .iter()
                .map(|(_, text)| regex::Regex::new(text).unwrap())
                .collect();
            let text = std::str::from_utf8(&bytes).unwrap();
            let mut naive_hits = 0;
            let naive = fastest(|| {
                naive_hits = 0;
                for place in offsets.windows(2) {
                    let text = &text[place[0] as usize..place[1] as usize];
                    naive_hits += regexes.iter().map(|regex| regex.find_iter(text).count()).sum::<usize>();
                }
            });
            assert_eq!(hits, naive_hits);
            println!("{name:>17}, {set:>12}: {ours:7.2} M texts/s, one by one {naive:7.2} M/s, {hits} finds");
        }
    }
}

fn texts(dirty_every: usize) -> (Vec<i32>, Vec<u8>) {
    let (mut offsets, mut bytes) = (vec![0], Vec::new());
    for n in 0..TEXTS {
        let line = if dirty_every > 0 && n % dirty_every == 0 {
            format!(
                "user jo.doe{n}@example.com from 10.0.{}.{} failed to sign in, card 4111 1111 1111 1111 was kept",
                n % 256,
                n % 199
            )
        } else {
            format!(
                "GET /api/v1/checkout/{n} HTTP/1.1 200 in {} ms by worker-{} of pool-eu-west-1, cache miss, retry {}",
                n * 7 % 900,
                n % 16,
                n % 3
            )
        };
        bytes.extend_from_slice(line.as_bytes());
        offsets.push(bytes.len() as i32);
    }
    (offsets, bytes)
}

/// Millions of texts a second in the fastest of some rounds.
fn fastest(mut round: impl FnMut()) -> f64 {
    let rounds = (0..ROUNDS).map(|_| {
        let start = Instant::now();
        round();
        start.elapsed().as_secs_f64()
    });
    TEXTS as f64 / rounds.fold(f64::MAX, f64::min) / 1e6
}
