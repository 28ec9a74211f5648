//! What a match of a pattern cannot do without: a few literals of which every match contains one, and its shape without
//! conditions on the surroundings.

use regex_syntax::hir::literal::{ExtractKind, Extractor, Seq, rank};
use regex_syntax::hir::{Capture, Hir, HirKind, Repetition};

/// Literals are worth a pass of their own if one of them is expected in fewer than every twentieth text of this length.
const TEXT_BYTES: f64 = 100.0;
const WORTH_IT: f64 = 0.05;
/// Literals of one pattern; with more the search for them is no faster than that for the pattern.
const MAX_NEEDLES: usize = 64;

/// Literals of which every match contains at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Literals {
    AsWritten(Vec<Vec<u8>>),
    /// In small letters; a match may have any of their ASCII letters as a capital. A word in any case is one of these and would
    /// be 64 of the others.
    AnyCase(Vec<Vec<u8>>),
}

impl Literals {
    fn new(literals: Vec<Vec<u8>>) -> Literals {
        let mut small: Vec<Vec<u8>> = literals.iter().map(|literal| literal.to_ascii_lowercase()).collect();
        small.sort_unstable();
        small.dedup();
        if small.len() * 2 <= literals.len() {
            Literals::AnyCase(small)
        } else {
            Literals::AsWritten(literals)
        }
    }
}

/// Such literals, if there are some that are rare in texts.
pub(super) fn needles(hir: &Hir) -> Option<Literals> {
    let mut extractor = Extractor::new();
    extractor.limit_total(MAX_NEEDLES).limit_literal_len(16);
    let mut seqs = vec![extractor.extract(hir)];
    extractor.kind(ExtractKind::Suffix);
    seqs.push(extractor.extract(hir));
    extractor.kind(ExtractKind::Prefix);
    // From each part of a sequence on: all of them must be there, so any may be looked for.
    if let HirKind::Concat(parts) = unwrapped(hir).kind() {
        seqs.extend((1..parts.len()).map(|from| extractor.extract(&Hir::concat(parts[from..].to_vec()))));
    }
    let priced = seqs.iter().filter_map(|seq| Some((expected(seq)?, seq)));
    let (price, best) = priced.min_by(|a, b| a.0.total_cmp(&b.0))?;
    (price < WORTH_IT).then(|| {
        let literals = best.literals().unwrap_or_default().iter();
        Literals::new(literals.map(|literal| literal.as_bytes().to_vec()).collect())
    })
}

/// How many of the literals a text is expected to hold; none for a set that is no good.
fn expected(seq: &Seq) -> Option<f64> {
    let literals = seq.literals().filter(|literals| !literals.is_empty())?;
    if literals.len() > MAX_NEEDLES || literals.iter().any(|literal| literal.is_empty()) {
        return None;
    }
    let chance = |literal: &[u8]| literal.iter().map(|byte| frequency(*byte)).product::<f64>();
    Some(literals.iter().map(|literal| chance(literal.as_bytes())).sum::<f64>() * TEXT_BYTES)
}

/// Share of a byte in texts: the commonest has a tenth, and every sixteen ranks halve it.
fn frequency(byte: u8) -> f64 {
    0.1 * f64::exp2((f64::from(rank(byte)) - 255.0) / 16.0)
}

fn unwrapped(hir: &Hir) -> &Hir {
    match hir.kind() {
        HirKind::Capture(capture) => unwrapped(&capture.sub),
        _ => hir,
    }
}

/// The same expression without anchors and word borders. It matches whatever the original matches, and more, but does
/// not look beyond its match; so it may be searched for across texts. The depth is bounded by the parser.
pub(super) fn without_looks(hir: &Hir) -> Hir {
    match hir.kind() {
        HirKind::Empty | HirKind::Literal(_) | HirKind::Class(_) => hir.clone(),
        HirKind::Look(_) => Hir::empty(),
        HirKind::Repetition(repetition) => Hir::repetition(Repetition {
            sub: Box::new(without_looks(&repetition.sub)),
            ..repetition.clone()
        }),
        HirKind::Capture(Capture { sub, .. }) => without_looks(sub),
        HirKind::Concat(parts) => Hir::concat(parts.iter().map(without_looks).collect()),
        HirKind::Alternation(parts) => Hir::alternation(parts.iter().map(without_looks).collect()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn rare_literals_are_found_where_they_are() {
        let written = |texts: &[&str]| Some(Literals::AsWritten(bytes(texts)));
        let any_case = |texts: &[&str]| Some(Literals::AnyCase(bytes(texts)));
        for (pattern, expected) in [
            (r"[a-z0-9._%+-]+@[a-z0-9.-]+\.[a-z]{2,}", written(&["@"])),
            (r"(\beyJ[\w-]+\.[\w-]+)", written(&["eyJ"])),
            (r"AKIA[0-9A-Z]{16}|ASIA[0-9A-Z]{16}", written(&["AKIA", "ASIA"])),
            (r"(a+)?-----BEGIN [A-Z ]+-----", written(&["-----BEGIN "])),
            ("(?i)[0-9]+ Möbel", any_case(&[" mÖbel", " möbel"])),
            // The letter that folds to s, and the sign for Kelvin, are letters of other alphabets.
            (
                "(?i)[0-9]skz",
                any_case(&["skz", "s\u{212a}z", "\u{17f}kz", "\u{17f}\u{212a}z"]),
            ),
            (r"\d{3}-\d{2}-\d{4}", None),
            (r"(?:x@)?[a-z]+", None),
            (r"[a-z]* ", None),
            ("", None),
        ] {
            assert_eq!(needles(&regex_syntax::parse(pattern).unwrap()), expected, "{pattern}");
        }
    }

    fn bytes(texts: &[&str]) -> Vec<Vec<u8>> {
        texts.iter().map(|text| text.as_bytes().to_vec()).collect()
    }
}
