//! A golden component of contract 0.1, the sampler: it must go on working as it did. Consistent by trace, nested between rates, with weights that keep counts right.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Float64Type;
use arrow_array::{FixedSizeBinaryArray, Float64Array, Int32Array, RecordBatch};
use serde_json::json;
use sluice_runtime::ChainOutcome;

use crate::common::*;

fn traces(rows: usize, severity: i32) -> RecordBatch {
    let bodies = vec!["x"; rows];
    let mut batch = logs(&bodies);
    let severity = Arc::new(Int32Array::from(vec![severity; rows]));
    let mut columns = batch.columns().to_vec();
    columns[3] = severity;
    batch = RecordBatch::try_new(batch.schema(), columns).unwrap();
    with(&batch, "trace_id", trace_ids(rows))
}

fn sample(rate: f64, batch: &RecordBatch) -> ChainOutcome {
    chain([golden("sample", json!({ "rate": rate }))])
        .run(batch.clone(), CALL)
        .unwrap()
}

fn kept(outcome: &ChainOutcome) -> BTreeSet<i64> {
    times(&outcome.batch).into_iter().collect()
}

fn weights(batch: &RecordBatch) -> Vec<f64> {
    match batch.column_by_name("weight") {
        None => vec![1.0; batch.num_rows()],
        Some(weights) => {
            let weights = weights.as_primitive::<Float64Type>();
            weights.iter().map(|w| w.unwrap_or(1.0)).collect()
        }
    }
}

/// The rule of OpenTelemetry, written once more: low 56 bits of the trace id against `(1 - rate) * 2^56`.
fn expected(batch: &RecordBatch, rate: f64) -> BTreeSet<i64> {
    let ids: &FixedSizeBinaryArray = batch.column_by_name("trace_id").unwrap().as_fixed_size_binary();
    let threshold = ((1.0 - rate) * 2f64.powi(56)).round() as u64;
    (0..batch.num_rows())
        .filter(|row| {
            let low: [u8; 8] = ids.value(*row)[8..].try_into().unwrap();
            u64::from_be_bytes(low) & ((1 << 56) - 1) >= threshold
        })
        .map(|row| row as i64)
        .collect()
}

#[test]
fn rates_follow_opentelemetry_and_are_nested() {
    let batch = traces(5000, 9);
    let mut previous = BTreeSet::new();
    for rate in [0.0, 0.01, 0.1, 0.25, 0.5, 0.9] {
        let outcome = sample(rate, &batch);
        let kept = kept(&outcome);
        assert_eq!(kept, expected(&batch, rate), "rate {rate}");
        assert!(previous.is_subset(&kept), "rate {rate}");
        let share = kept.len() as f64 / 5000.0;
        assert!((share - rate).abs() < 0.03, "rate {rate}: {share}");
        assert_eq!(outcome.dropped.len(), 1);
        assert_eq!(outcome.dropped[0].reason, "sampled");
        assert_eq!(outcome.dropped[0].plugin, "sample");
        assert_eq!(outcome.dropped[0].rows, 5000 - kept.len() as u64);
        assert!(weights(&outcome.batch).iter().all(|w| *w == 1.0 / rate));
        previous = kept;
    }
}

/// Counts weighed by `weight` stay right, errors included.
#[test]
fn weights_keep_counts_right() {
    let batch = with(&logs(&vec!["x"; 20_000]), "trace_id", trace_ids(20_000));
    let outcome = sample(0.2, &batch);
    let sum: f64 = weights(&outcome.batch).iter().sum();
    assert!((sum - 20_000.0).abs() < 600.0, "{sum}");
    // One in ten is an error and kept as itself.
    let ones = weights(&outcome.batch).iter().filter(|w| **w == 1.0).count();
    assert_eq!(ones, 2000);
}

#[test]
fn errors_and_rows_without_a_trace_stay_with_weight_one() {
    let errors = traces(100, 17);
    let outcome = sample(0.0, &errors);
    assert_eq!(outcome.batch, errors);
    assert!(outcome.dropped.is_empty());

    let no_errors = json!({"rate": 0.0, "keep_errors": false});
    let outcome = chain([golden("sample", no_errors)]).run(errors, CALL).unwrap();
    assert_eq!(outcome.batch.num_rows(), 0);

    let untraced = logs(&["x"; 9]);
    assert_eq!(sample(0.0, &untraced).batch, untraced);

    let status = dictionary(&[Some("error"), Some("ok"), None]);
    let spans = with(&traces(3, 0), "status", status);
    assert_eq!(times(&sample(0.0, &spans).batch), [0]);
}

/// Two samplers in a row keep what the lower rate keeps, and the weight is that of the lower rate, not the product.
#[test]
fn samplers_in_a_row_do_not_weigh_twice() {
    let batch = traces(2000, 9);
    for (first, second) in [(0.5, 0.1), (0.1, 0.5), (0.5, 0.5)] {
        let lower = f64::min(first, second);
        let plugins = [first, second].map(|rate| golden("sample", json!({ "rate": rate })));
        let outcome = chain(plugins).run(batch.clone(), CALL).unwrap();
        assert_eq!(kept(&outcome), expected(&batch, lower));
        assert!(weights(&outcome.batch).iter().all(|w| *w == 1.0 / lower));
    }
}

#[test]
fn earlier_weights_stay_on_rows_that_are_not_sampled() {
    let weighed = with(
        &traces(10, 17),
        "weight",
        Arc::new(Float64Array::from(vec![
            Some(4.0),
            None,
            Some(2.0),
            None,
            None,
            None,
            None,
            None,
            None,
            None,
        ])),
    );
    assert_eq!(sample(0.5, &weighed).batch, weighed);
}

#[test]
fn golden_at_rate_one_nothing_changes() {
    let batch = traces(100, 9);
    let outcome = sample(1.0, &batch);
    assert_eq!(outcome.batch, batch);
    assert!(
        outcome
            .batch
            .columns()
            .iter()
            .zip(batch.columns())
            .all(|(a, b)| Arc::ptr_eq(a, b))
    );
}

#[test]
fn wrong_configuration_is_refused() {
    for wrong in [
        json!({}),
        json!({"rate": 1.5}),
        json!({"rate": -0.1}),
        json!({"rate": 0.5, "without_trace": "drop"}),
    ] {
        assert!(host().load(golden_config("sample", wrong.clone())).is_err(), "{wrong}");
    }
}
