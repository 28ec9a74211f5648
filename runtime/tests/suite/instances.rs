//! The life of instances: replaced when they are worn, shared by threads, given a large batch in slices.

use serde_json::json;
use sluice_runtime::{Limits, OnFault};

use crate::common::*;

/// An instance that went bad after a while is replaced and the batch tried once more, on a fresh one.
#[test]
fn a_worn_instance_gets_a_second_chance() {
    let plugin = host()
        .load(config("faulty", json!({"mode": "trap", "after": 3})))
        .unwrap();
    let chain = chain([plugin.clone()]);
    for _ in 0..20 {
        assert_eq!(chain.run(logs(&["a"]), CALL).unwrap().quarantined, 0);
    }
    let stats = plugin.stats();
    assert_eq!(
        (stats.faults, stats.restarts),
        (0, 6),
        "every fourth batch of an instance"
    );
}

/// A guest that leaks is recycled before it reaches its limit.
#[test]
fn a_leaking_guest_is_recycled() {
    let plugin = faulty("leak", OnFault::Quarantine);
    let chain = chain([plugin.clone()]);
    for _ in 0..60 {
        assert_eq!(chain.run(logs(&["a"]), CALL).unwrap().quarantined, 0);
    }
    let stats = plugin.stats();
    assert_eq!(stats.faults, 0);
    assert!(stats.memory_bytes <= Limits::default().memory_bytes as u64);
}

/// An instance serves a bounded number of batches; its state goes with it.
#[test]
fn instances_are_recycled_by_count() {
    let mut recycled = config("faulty", json!({"mode": "count_calls"}));
    recycled.limits.recycle_after = 3;
    let chain = chain([host().load(recycled).unwrap()]);
    let calls: Vec<i64> = (0..7)
        .map(|_| {
            let outcome = chain.run(logs(&["a"]), CALL).unwrap();
            numbers(&outcome.batch, "attrs:i:added")[0]
        })
        .collect();
    assert_eq!(calls, [1, 2, 3, 1, 2, 3, 1]);
}

/// Many threads share a plugin whose instances are fewer than they.
#[test]
fn threads_share_few_instances() {
    let mut few = config("faulty", json!({"mode": "drop_third"}));
    few.limits.max_instances = 2;
    few.limits.idle_instances = 1;
    let chain = chain([host().load(few).unwrap()]);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..20 {
                    let outcome = chain.run(logs(&["x"; 30]), CALL).unwrap();
                    assert_eq!(outcome.batch.num_rows(), 20);
                }
            });
        }
    });
    assert_eq!(chain.stats()[0].rows_in, 8 * 20 * 30);
    assert_eq!(chain.stats()[0].rows_out, 8 * 20 * 20);
}

/// A batch that is too large for one hand-over is handed over in slices, with the same result.
#[test]
fn large_batches_are_sliced() {
    let mut bodies: Vec<String> = (0..4000).map(|n| format!("{n} {}", "x".repeat(n % 400))).collect();
    bodies[3500].push_str(" from jane@example.com");
    let bodies: Vec<&str> = bodies.iter().map(String::as_str).collect();
    let batch = logs(&bodies);
    let run = |max_input_bytes: usize| {
        let mut third = config("faulty", json!({"mode": "drop_third"}));
        let mut mask = golden_config("mask", json!({}));
        third.limits.max_input_bytes = max_input_bytes;
        mask.limits.max_input_bytes = max_input_bytes;
        let chain = chain([host().load(mask).unwrap(), host().load(third).unwrap()]);
        chain.run(batch.clone(), CALL).unwrap()
    };
    let (whole, sliced) = (run(4 << 20), run(64 << 10));
    assert_eq!(texts(&whole.batch, "body").len(), 2666);
    let masked = |texts: &[Option<String>]| texts.iter().flatten().filter(|t| t.contains("[email]")).count();
    assert_eq!(masked(&texts(&whole.batch, "body")), 1);
    assert_eq!(masked(&texts(&sliced.batch, "body")), 1);
    // Every third row of each slice: the number of rows may differ by one per slice, not more.
    assert!(
        sliced.batch.num_rows().abs_diff(2666) < 40,
        "{}",
        sliced.batch.num_rows()
    );
    assert_eq!(sliced.batch.num_rows() as u64 + sliced.dropped[0].rows, 4000);
}
