//! What hostile and broken guests can do to the host: nothing (P10), and to a mask's promise: nothing (P11).

use arrow_array::cast::AsArray;
use serde_json::json;
use sluice_runtime::{Call, Fault, Limits, LoadError, OnFault};

use crate::common::*;

/// Faults of every kind leave the rows as the operator chose, are told apart, and leave the host able to work.
#[test]
fn p10_every_hostile_guest_is_contained() {
    let good = golden("sample", json!({"rate": 1.0}));
    let cases = [
        ("loop", "used more than"),
        ("memory", "bytes of memory"),
        ("recurse", "bytes of stack"),
        ("trap", "trap: "),
        ("error", "failed: no  [31mreason"),
        ("huge_output", "gave the host more than"),
        ("huge_list", "gave the host more than"),
        ("more_rows", "columns of 4 rows for a batch of 3"),
        ("no_rows", "columns of 0 rows"),
        ("other_type", "column `body` of type Int64"),
        ("other_new_type", "column `attrs:d:added` of type Int64"),
        ("undeclared", "column `name`, which it may not write"),
        ("protected", "column `signal`, which it may not write"),
        ("no_such_column", "column `attrs:q:added`"),
        ("weight_nan", "weight NaN"),
        ("weight_negative", "weight -1"),
        ("twice", "column `body` twice"),
        ("garbage", "not an Arrow IPC stream"),
        ("empty", "0 schemas"),
        ("huge_length", "cut off"),
        ("truncated", "columns: "),
        ("bad_offsets", "columns: "),
        ("bad_utf8", "columns: "),
        ("selection_short", "selection of 0 bytes"),
        ("selection_long", "selection of 3 bytes"),
        ("drops_uncounted", "counts 0 dropped rows; the selection drops 1"),
        ("drops_invented", "counts 1 dropped rows; the selection drops 0"),
        ("bad_reason", "a reason must be"),
        ("weigh_little", "weight factor 0.5"),
    ];
    let batch = logs(&["a", "b", "c"]);
    for (mode, expected) in cases {
        let bypassed = chain([faulty(mode, OnFault::Bypass), good.clone()]);
        let outcome = bypassed.run(batch.clone(), CALL).unwrap();
        assert_eq!(outcome.batch, batch, "{mode}: bypass leaves the batch as it was");
        assert_eq!((outcome.dropped.len(), outcome.quarantined), (0, 0), "{mode}");
        let stats = &bypassed.stats()[0];
        let fault = stats.last_fault.clone().unwrap_or_default();
        assert!(fault.contains(expected), "{mode}: {fault}");
        assert!(fault.len() < 1000, "{mode}: a guest's words are cut");
        assert_eq!(stats.faults, 1, "{mode}");
        let limit = Limits::default().memory_bytes as u64;
        assert!(stats.memory_bytes <= limit, "{mode}: {} bytes", stats.memory_bytes);

        let quarantined = chain([faulty(mode, OnFault::Quarantine), good.clone()]);
        let outcome = quarantined.run(batch.clone(), CALL).unwrap();
        assert_eq!(outcome.quarantined, 3, "{mode}");
        assert_eq!(
            texts(&outcome.batch, "quarantined_by"),
            vec![Some("faulty".to_owned()); 3]
        );
        assert!(
            texts(&outcome.batch, "quarantine_reason")[0]
                .as_ref()
                .unwrap()
                .contains(expected)
        );
        assert_eq!(times(&outcome.batch), [0, 1, 2], "{mode}");
    }
}

#[test]
fn p10_a_flood_of_log_is_cut_and_no_fault() {
    let plugin = faulty("flood", OnFault::Quarantine);
    let outcome = chain([plugin.clone()]).run(logs(&["a"]), CALL).unwrap();
    let stats = plugin.stats();
    // A slow machine may stop the flood by the deadline; either way most of it is not written.
    assert!(outcome.quarantined == 0 || stats.faults == 1);
    assert!(stats.log_lines_cut > 0, "{stats:?}");
}

#[test]
fn p10_what_cannot_start_is_refused_at_load() {
    let start = |mode: &str| host().load(config("faulty", json!({ "mode": mode })));
    assert!(matches!(
        start("init_loop"),
        Err(LoadError::Start {
            source: Fault::Deadline(_),
            ..
        })
    ));
    assert!(matches!(
        start("init_trap"),
        Err(LoadError::Start {
            source: Fault::Trap(_),
            ..
        })
    ));
    let unknown = host().load(config("faulty", json!({"mode": "ok", "colour": "red"})));
    let error = unknown.unwrap_err().to_string();
    assert!(
        error.contains("refuses its configuration: unknown field `colour`"),
        "{error}"
    );
    let mut limits = config("faulty", json!({"mode": "ok"}));
    limits.limits.memory_bytes = 1 << 40;
    assert!(matches!(host().load(limits), Err(LoadError::Limits { .. })));
}

/// A guest that is fine for 100,000 batches and then faults, on fresh instances, too: no row is lost, the others go on, and the
/// statistics say what happened.
#[test]
fn p10_a_guest_that_goes_bad_after_100_000_batches_costs_no_row() {
    const FINE: u64 = 100_000;
    let mut late = config("faulty", json!({"mode": "trap", "after_all": FINE}));
    late.name = "late".to_owned();
    late.on_fault = Some(OnFault::Bypass);
    let third = faulty("drop_third", OnFault::Bypass);
    let late = host().load(late).unwrap();
    let alone = chain([late.clone()]);
    let batch = logs(&["a"]);
    for _ in 0..FINE {
        assert_eq!(alone.run(batch.clone(), CALL).unwrap().batch.num_rows(), 1);
    }
    assert_eq!((alone.stats()[0].faults, alone.stats()[0].rows_out), (0, FINE));
    let both = chain([late, third]);
    for _ in 0..5 {
        let outcome = both.run(logs(&["a", "b", "c"]), CALL).unwrap();
        assert_eq!(
            (outcome.batch.num_rows(), outcome.dropped[0].rows),
            (2, 1),
            "the other plugin works"
        );
    }
    let stats = &both.stats()[0];
    assert_eq!((stats.faults, stats.breaker), (5, "open"));
    assert_eq!((stats.rows_in, stats.rows_out), (FINE + 15, FINE + 15));
    assert!(stats.last_fault.as_ref().unwrap().contains("trap: "));
    assert_eq!((both.stats()[1].faults, both.stats()[1].rows_out), (0, 10));
}

/// The host multiplies what every row that stays stands for.
#[test]
fn a_weight_factor_is_carried_out_by_the_host() {
    let weighed = with(
        &logs(&["a", "b", "c"]),
        "weight",
        std::sync::Arc::new(arrow_array::Float64Array::from(vec![Some(4.0), None, Some(1.0)])),
    );
    let plugin = faulty("weigh", OnFault::Quarantine);
    let run = |batch| {
        let outcome = chain([plugin.clone(), plugin.clone()]).run(batch, CALL).unwrap();
        let weights = outcome.batch.column_by_name("weight").unwrap().clone();
        weights
            .as_primitive::<arrow_array::types::Float64Type>()
            .values()
            .to_vec()
    };
    assert_eq!(run(weighed), [25.0, 6.25, 6.25]);
    assert_eq!(run(logs(&["a", "b"])), [6.25, 6.25]);
}

/// The breaker opens after five faults in a row, then the guest is not called any more.
#[test]
fn the_breaker_opens_after_five_faults() {
    let plugin = faulty("trap", OnFault::Bypass);
    let chain = chain([plugin.clone()]);
    for faults in 1..=5 {
        assert_eq!(plugin.stats().breaker, "closed");
        chain.run(logs(&["a"]), CALL).unwrap();
        assert_eq!(plugin.stats().faults, faults);
    }
    assert_eq!(plugin.stats().breaker, "open");
    let outcome = chain.run(logs(&["a"]), CALL).unwrap();
    assert_eq!(outcome.quarantined, 0);
    assert_eq!(plugin.stats().faults, 5, "not called while open");
}

/// P11: whatever a mask does wrong, its events are refused, whatever the operator set; also while the breaker is open.
#[test]
fn p11_a_mask_fails_closed() {
    for mode in [
        "trap",
        "loop",
        "memory",
        "error",
        "more_rows",
        "garbage",
        "bad_offsets",
        "huge_output",
    ] {
        let mut config = config("faulty_mask", json!({ "mode": mode }));
        config.on_fault = Some(OnFault::Bypass);
        let chain = chain([host().load(config).unwrap()]);
        for _ in 0..5 {
            let refused = chain.run(logs(&["secret"]), CALL).unwrap_err();
            assert_eq!(refused.plugin, "faulty_mask");
            assert!(!refused.retryable, "{mode}");
        }
        let refused = chain.run(logs(&["secret"]), CALL).unwrap_err();
        assert!(refused.retryable, "{mode}: these events were not looked at");
        assert!(
            refused.fault.contains("switched off after 5 faults"),
            "{}",
            refused.fault
        );
        assert_eq!(chain.stats()[0].refused, 6);
    }
}

/// P11: rows that an earlier plugin set aside pass the masks behind it, or the whole request is refused.
#[test]
fn p11_quarantined_rows_are_masked_too() {
    let bodies = ["a@example.com", "b@example.com", "c@example.com", "d@example.com"];
    let mask = golden("mask", json!({}));
    for first in [
        faulty("quarantine_odd", OnFault::Bypass),
        faulty("trap", OnFault::Quarantine),
    ] {
        let both = chain([first.clone(), mask.clone()]);
        let outcome = both.run(logs(&bodies), CALL).unwrap();
        assert_eq!(texts(&outcome.batch, "body"), vec![Some("[email]".to_owned()); 4]);
        assert_eq!(times(&outcome.batch), [0, 1, 2, 3], "rows keep their order");

        let broken = load("faulty_mask", json!({"mode": "trap", "only": "b@example.com"}));
        assert!(chain([first, broken]).run(logs(&bodies), CALL).is_err());
    }
}

/// Rows that were set aside are not shown to plugins that are no masks, and come back in their place.
#[test]
fn quarantined_rows_are_only_seen_by_masks() {
    let odd = faulty("quarantine_odd", OnFault::Bypass);
    let third = faulty("drop_third", OnFault::Bypass);
    let outcome = chain([odd.clone(), third]).run(logs(&["x"; 12]), CALL).unwrap();
    // The third plugin sees 0, 2, 4, 6, 8, 10 and drops the first and the fourth of them.
    assert_eq!(times(&outcome.batch), [1, 2, 3, 4, 5, 7, 8, 9, 10, 11]);
    assert_eq!(outcome.quarantined, 6);
    let by = texts(&outcome.batch, "quarantined_by");
    let marked: Vec<i64> = times(&outcome.batch)
        .into_iter()
        .zip(&by)
        .filter(|(_, by)| by.is_some())
        .map(|(time, _)| time)
        .collect();
    assert_eq!(marked, [1, 3, 5, 7, 9, 11]);
    assert_eq!(outcome.dropped.len(), 1);
    assert_eq!(
        (outcome.dropped[0].reason.as_str(), outcome.dropped[0].rows),
        ("third", 2)
    );
    assert_eq!(odd.stats().quarantined, 6);
}

/// P3 at this level: what goes in comes out, is set aside or is counted as dropped.
#[test]
fn p3_rows_are_accounted_for() {
    for rows in [1, 2, 7, 8, 9, 64, 1000] {
        let plugins = [
            faulty("drop_third", OnFault::Bypass),
            faulty("quarantine_odd", OnFault::Bypass),
            faulty("drop_third", OnFault::Bypass),
        ];
        let outcome = chain(plugins).run(logs(&vec!["x"; rows]), CALL).unwrap();
        let dropped: u64 = outcome.dropped.iter().map(|d| d.rows).sum();
        assert_eq!(outcome.batch.num_rows() as u64 + dropped, rows as u64);
        assert!(times(&outcome.batch).is_sorted());
    }
}

#[test]
fn the_kill_switch_and_the_signals_hold_at_once() {
    let mut spans_only = config("faulty", json!({"mode": "drop_third"}));
    spans_only.signals = vec![sluice_wire::Signal::Span];
    let plugin = host().load(spans_only).unwrap();
    let chain = chain([plugin.clone()]);
    let rows = |signal| {
        chain
            .run(logs(&["x"; 3]), &Call { signal, ..*CALL })
            .unwrap()
            .batch
            .num_rows()
    };
    assert_eq!(rows(sluice_wire::Signal::Log), 3);
    assert_eq!(rows(sluice_wire::Signal::Span), 2);
    plugin.set_enabled(false);
    assert_eq!(rows(sluice_wire::Signal::Span), 3);
    plugin.set_enabled(true);
    assert_eq!(rows(sluice_wire::Signal::Span), 2);
}

#[test]
fn an_empty_batch_calls_nobody() {
    let outcome = chain([faulty("trap", OnFault::Quarantine)])
        .run(logs(&[]), CALL)
        .unwrap();
    assert_eq!((outcome.batch.num_rows(), outcome.quarantined), (0, 0));
}

/// Each reason stays in counts for the life of the node, so a guest cannot invent them without end (P15).
#[test]
fn p15_reasons_beyond_the_limit_are_counted_together() {
    let chain = chain([faulty("drop_third", OnFault::Bypass)]);
    for n in 0..sluice_runtime::MAX_REASONS {
        chain.reasons().name("other plugin", &format!("reason {n}"));
    }
    let outcome = chain.run(logs(&["x"; 9]), CALL).unwrap();
    let dropped: Vec<_> = outcome.dropped.iter().map(|d| (d.reason.as_str(), d.rows)).collect();
    assert_eq!(dropped, [(sluice_runtime::OTHER, 3)]);
    assert_eq!(chain.stats()[0].dropped, [(sluice_runtime::OTHER.to_owned(), 3)]);
}

/// An answer that is right by itself and too much for its batch is a fault like any other, before anything is acknowledged.
#[test]
fn p2_p11_a_batch_that_the_cloud_would_refuse_is_a_fault_of_the_plugin_that_made_it() {
    // As many columns as a batch may have; the guest adds one.
    let full = (logs(&["a"]).num_columns()..1024).fold(logs(&["a"; 3]), |batch, n| {
        let numbers = std::sync::Arc::new(arrow_array::Int64Array::from(vec![1; 3]));
        with(&batch, &format!("attrs:i:k{n}"), numbers)
    });
    let bypassed = chain([faulty("count_calls", OnFault::Bypass)]);
    assert_eq!(bypassed.run(full.clone(), CALL).unwrap().batch, full);
    let fault = bypassed.stats()[0].last_fault.clone().unwrap();
    assert!(fault.contains("columns is 1025"), "{fault}");
    let quarantined = chain([faulty("count_calls", OnFault::Quarantine)]);
    assert_eq!(quarantined.run(full.clone(), CALL).unwrap().quarantined, 3);
    let mask = chain([load("faulty_mask", json!({"mode": "count_calls"}))]);
    let refused = mask.run(full, CALL).unwrap_err();
    assert!(
        !refused.retryable && refused.fault.contains("invalid"),
        "{}",
        refused.fault
    );
}
