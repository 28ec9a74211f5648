//! A candidate beside the version that serves: what it would do is reported, and nothing else of it is seen.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_array::RecordBatch;
use serde_json::json;
use sluice_runtime::{Candidate, Chain, ChainOutcome, Edition, Place, Plugin, ShadowReport};

use crate::common::*;

fn named(name: &str, component: &str, json: serde_json::Value) -> Arc<Plugin> {
    let mut config = config("faulty", json);
    config.component = released_or_built(component);
    config.name = name.to_owned();
    config.limits.deadline = Duration::from_secs(5);
    host().load(config).unwrap()
}

fn edition(plugin: Arc<Plugin>, version: &str) -> Edition {
    Edition {
        plugin,
        version: version.to_owned(),
    }
}

fn chain_with(current: Edition, candidate: Option<(Edition, f64)>) -> Chain {
    let chain = Chain::default();
    let shadow = candidate.map(|(edition, share)| Candidate { edition, share });
    let place = Place {
        edition: current,
        settings: String::new(),
        enabled: true,
        blocked: None,
        shadow,
        before: None,
    };
    chain.set(vec![place]).unwrap();
    chain
}

fn report(chain: &Chain) -> ShadowReport {
    let begun = Instant::now();
    loop {
        let report = chain.stats()[0].shadow.clone().unwrap();
        if report.waiting == 0 {
            return report;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{report:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Runs batches one after the other, each compared before the next comes, so that none is skipped.
fn run(chain: &Chain, batches: &[RecordBatch]) -> Vec<ChainOutcome> {
    let one = |batch: &RecordBatch| {
        let outcome = chain.run(batch.clone(), CALL).unwrap();
        report(chain);
        outcome
    };
    batches.iter().map(one).collect()
}

/// Rows without a severity: the sampler keeps errors whatever its rate.
fn spans(batches: usize) -> Vec<RecordBatch> {
    let bodies = ["a kim@example.com", "b"].repeat(50);
    let rows = logs(&bodies).project(&[0, 1, 2]).unwrap();
    vec![with(&rows, "trace_id", trace_ids(100)); batches]
}

#[test]
fn what_a_candidate_would_do_is_told_and_the_data_is_the_same_as_without_it() {
    let sample = |rate: f64| named("s", "sample", json!({ "rate": rate }));
    let batches = spans(10);
    let alone = chain_with(edition(sample(0.5), "1"), None);
    let expected: Vec<ChainOutcome> = batches.iter().map(|b| alone.run(b.clone(), CALL).unwrap()).collect();
    let chain = chain_with(edition(sample(0.5), "1"), Some((edition(sample(0.25), "2"), 1.0)));
    let outcomes = run(&chain, &batches);
    for (outcome, expected) in outcomes.iter().zip(&expected) {
        assert_eq!(outcome.batch, expected.batch);
        assert_eq!(outcome.dropped, expected.dropped);
    }
    let report = report(&chain);
    let kept = expected[0].batch.num_rows() as u64;
    let fewer = chain_with(edition(sample(0.25), "2"), None);
    let kept_by_candidate = fewer.run(batches[0].clone(), CALL).unwrap().batch.num_rows() as u64;
    assert!(0 < kept_by_candidate && kept_by_candidate < kept && kept < 100);
    assert_eq!((report.version.as_str(), report.share), ("2", 1.0));
    assert_eq!((report.batches, report.rows, report.skipped), (10, 1000, 0));
    // The smaller share lies within the larger one.
    assert_eq!(
        (
            report.kept_by_both,
            report.kept_by_current_only,
            report.kept_by_candidate_only,
            report.kept_by_neither
        ),
        (
            10 * kept_by_candidate,
            10 * (kept - kept_by_candidate),
            0,
            10 * (100 - kept)
        )
    );
    // Rows that both keep stand for different numbers of events.
    assert_eq!(report.columns_different.get("weight"), Some(&report.kept_by_both));
    assert_eq!(report.dropped_by_current.values().sum::<u64>(), 10 * (100 - kept));
    assert_eq!(
        report.dropped_by_candidate.values().sum::<u64>(),
        10 * (100 - kept_by_candidate)
    );
    assert!(report.cpu_ns_per_row_current > 0.0 && report.cpu_ns_per_row_candidate > 0.0);
    assert_eq!(
        chain.stats()[0].rows_in,
        1000,
        "the candidate's rows are not counted as served"
    );
}

#[test]
fn columns_that_a_candidate_changes_are_told_by_name() {
    let chain = chain_with(
        edition(named("m", "faulty_mask", json!({"mode": "ok"})), "1"),
        Some((edition(named("m", "mask", json!({})), "2"), 1.0)),
    );
    let outcomes = run(&chain, &spans(2));
    assert_eq!(
        texts(&outcomes[0].batch, "body")[0].as_deref(),
        Some("a kim@example.com")
    );
    let report = report(&chain);
    assert_eq!((report.kept_by_both, report.rows_different), (200, 100));
    assert_eq!(report.columns_different.get("body"), Some(&100));
    assert_eq!(report.columns_different.len(), 1, "{report:?}");
}

#[test]
fn p10_a_candidate_that_fails_in_every_batch_is_seen_in_its_report_only() {
    for mode in ["trap", "error", "huge_output", "garbage", "memory"] {
        let current = edition(named("f", "faulty", json!({"mode": "ok"})), "1");
        let candidate = edition(named("f", "faulty", json!({ "mode": mode })), "2");
        let chain = chain_with(current, Some((candidate, 1.0)));
        for outcome in run(&chain, &[logs(&["x"]), logs(&["x"]), logs(&["x"])]) {
            assert_eq!((outcome.batch, outcome.quarantined), (logs(&["x"]), 0), "{mode}");
        }
        let (report, stats) = (report(&chain), &chain.stats()[0]);
        assert_eq!((report.faults_candidate, report.batches), (3, 0), "{mode}");
        assert!(report.last_fault.is_some(), "{mode}");
        assert_eq!(
            (stats.faults, stats.breaker, stats.quarantined),
            (0, "closed", 0),
            "{mode}"
        );
    }
}

#[test]
fn a_share_of_the_batches_is_a_share_and_a_busy_candidate_is_passed_by() {
    let current = || edition(named("f", "faulty", json!({"mode": "ok"})), "1");
    let candidate = edition(named("f", "faulty", json!({"mode": "ok"})), "2");
    let chain = chain_with(current(), Some((candidate.clone(), 0.3)));
    run(&chain, &vec![logs(&["x"]); 50]);
    assert_eq!(report(&chain).batches, 15);
    // The same candidate goes on, another share begins anew.
    let place = |share| Place {
        edition: current(),
        settings: String::new(),
        enabled: true,
        blocked: None,
        shadow: Some(Candidate {
            edition: candidate.clone(),
            share,
        }),
        before: None,
    };
    chain.set(vec![place(0.3)]).unwrap();
    assert_eq!(report(&chain).batches, 15);
    chain.set(vec![place(1.0)]).unwrap();
    assert_eq!(report(&chain).batches, 0);

    // It needs seconds for each batch, and nobody waits for it.
    let mut slow = config("faulty", json!({"mode": "loop"}));
    slow.limits.deadline = Duration::from_secs(2);
    slow.name = "f".to_owned();
    let slow = edition(host().load(slow).unwrap(), "3");
    let chain = chain_with(current(), Some((slow, 1.0)));
    for _ in 0..50 {
        chain.run(logs(&["x"]), CALL).unwrap();
    }
    let report = chain.stats()[0].shadow.clone().unwrap();
    assert!(report.skipped > 0 && report.waiting < 20, "{report:?}");
    assert_eq!(chain.stats()[0].rows_out, 50);
}
