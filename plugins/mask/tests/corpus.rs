//! The labelled corpus: what must be found and what must stay. The table in README.md is what was measured here.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::ops::Range;

use mask::{Kind, Mask};
use sluice_plugin::Plugin;

/// A line of the corpus: a key, a text, and what stands in it.
struct Line {
    group: String,
    key: String,
    text: String,
    labels: Vec<(Range<usize>, String)>,
}

fn corpus() -> Vec<Line> {
    let text = std::env::var("MASK_CORPUS").map_or_else(
        |_| include_str!("../corpus/corpus.tsv").to_owned(),
        |path| std::fs::read_to_string(path).unwrap(),
    );
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let mut columns = line.splitn(3, '\t');
            let mut next = || {
                columns
                    .next()
                    .unwrap_or_else(|| panic!("three columns: {line}"))
                    .to_owned()
            };
            let (group, key, marked) = (next(), next(), next());
            let (mut text, mut labels) = (String::new(), Vec::new());
            let mut rest = marked.as_str();
            while let Some((before, label)) = rest.split_once('⟦') {
                let (kind, value) = label.split_once(':').unwrap();
                let (value, behind) = value.split_once('⟧').unwrap();
                text.push_str(before);
                labels.push((text.len()..text.len() + value.len(), kind.to_owned()));
                text.push_str(value);
                rest = behind;
            }
            text.push_str(rest);
            Line {
                group,
                key,
                text,
                labels,
            }
        })
        .collect()
}

fn mask(config: serde_json::Value) -> Mask {
    Mask::init(serde_json::from_value(config).unwrap()).unwrap()
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Score {
    labelled: usize,
    found: usize,
    /// Found where nothing of this kind is.
    wrong: usize,
}

impl Score {
    fn precision(&self) -> f64 {
        self.found as f64 / (self.found + self.wrong).max(1) as f64
    }

    fn recall(&self) -> f64 {
        self.found as f64 / self.labelled.max(1) as f64
    }
}

/// A label is found if a finding of its kind covers all of it.
fn measure(report: &mut Vec<String>) -> BTreeMap<String, Score> {
    let mut mask = mask(serde_json::json!({}));
    let mut scores: BTreeMap<String, Score> = Kind::BUILT_IN
        .iter()
        .map(|kind| (kind.name().to_owned(), Score::default()))
        .collect();
    for line in corpus() {
        let mut found = mask.find(&line.key, &line.text).unwrap();
        for (range, kind) in &line.labels {
            let score = scores.get_mut(kind).unwrap_or_else(|| panic!("no kind {kind}"));
            score.labelled += 1;
            let hit = found
                .iter()
                .position(|(at, found)| found.name() == kind && at.start <= range.start && range.end <= at.end);
            match hit {
                Some(hit) => {
                    found.remove(hit);
                    score.found += 1;
                }
                None => report.push(format!(
                    "missed {kind} {:?} in [{}] {}: {}",
                    &line.text[range.clone()],
                    line.group,
                    line.key,
                    line.text
                )),
            }
        }
        for (at, kind) in found {
            scores.get_mut(kind.name()).unwrap().wrong += 1;
            report.push(format!(
                "wrong {} {:?} in [{}] {}: {}",
                kind.name(),
                &line.text[at],
                line.group,
                line.key,
                line.text
            ));
        }
    }
    scores
}

/// Below these, a change has made the mask worse.
const FLOOR_PRECISION: f64 = 0.98;
const FLOOR_RECALL: f64 = 0.98;

#[test]
fn precision_and_recall_are_above_their_floors_and_the_readme_says_what_they_are() {
    let mut report = Vec::new();
    let scores = measure(&mut report);
    let table: String = scores
        .iter()
        .map(|(kind, score)| {
            format!(
                "| `{kind}` | {} | {} | {} | {:.3} | {:.3} |\n",
                score.labelled,
                score.found,
                score.wrong,
                score.precision(),
                score.recall()
            )
        })
        .collect();
    println!("{}\n{table}", report.join("\n"));
    for (kind, score) in &scores {
        assert!(score.labelled >= 13, "{kind}: {score:?}");
        assert!(
            score.precision() >= FLOOR_PRECISION && score.recall() >= FLOOR_RECALL,
            "{kind}: {score:?}"
        );
    }
    let readme = include_str!("../README.md");
    assert!(readme.contains(&table), "README.md should have this table:\n{table}");
}

#[test]
fn the_corpus_is_large_and_half_of_it_looks_alike() {
    let corpus = corpus();
    let clean = corpus.iter().filter(|line| line.labels.is_empty()).count();
    assert!(corpus.len() >= 500, "{}", corpus.len());
    assert!(
        clean >= 200 && corpus.len() - clean >= 300,
        "{clean} of {}",
        corpus.len()
    );
}

/// Every action on every line: no labelled value is left, nothing else changes, JSON stays JSON, and once is enough.
#[test]
fn every_action_on_every_line() {
    for action in ["redact", "hash", "tokenise", "partial"] {
        let mut config = serde_json::json!({"secret_key": "a key of the tests, 32 bytes long"});
        for kind in Kind::BUILT_IN {
            config[kind.name()] = action.into();
        }
        let mut mask = mask(config);
        for line in corpus() {
            let masked = mask.mask(&line.key, &line.text).unwrap();
            let found = mask.find(&line.key, &line.text).unwrap();
            for (range, kind) in &line.labels {
                let covered = found
                    .iter()
                    .any(|(at, _)| at.start <= range.start && range.end <= at.end);
                let value = &line.text[range.clone()];
                // A short password may be a word of the text around it.
                let elsewhere = line.text.matches(value).count() > 1;
                assert!(
                    !covered || elsewhere || !masked.contains(value),
                    "{action} {kind}: {} -> {masked}",
                    line.text
                );
            }
            let json =
                |text: &str| text.starts_with(['{', '[']) && serde_json::from_str::<serde_json::Value>(text).is_ok();
            assert!(
                !json(&line.text) || json(&masked),
                "{action}: {} -> {masked}",
                line.text
            );
            let kept: Vec<&str> = found
                .iter()
                .map(|(at, _)| at.start)
                .chain([line.text.len()])
                .zip([0].into_iter().chain(found.iter().map(|(at, _)| at.end)))
                .map(|(end, start)| &line.text[start..end])
                .collect();
            let mut rest = masked.as_str();
            for part in kept {
                let at = rest
                    .find(part)
                    .unwrap_or_else(|| panic!("{action}: {} -> {masked}", line.text));
                rest = &rest[at + part.len()..];
            }
            assert_eq!(
                mask.mask(&line.key, &masked).unwrap(),
                masked,
                "{action}: {}",
                line.text
            );
            if line.labels.is_empty() && found.is_empty() {
                assert_eq!(masked, line.text);
            }
        }
    }
}
