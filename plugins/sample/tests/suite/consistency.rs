//! The same traces on every node, and the larger set at the larger rate.

use std::collections::BTreeSet;

use arrow_array::Array;
use sample::{Chance, randomness};
use serde_json::{Value, json};
use sluice_plugin::{Outcome, Text};

use crate::common::*;

const ROWS: usize = 20_000;

fn events(traces: &mut Random) -> Vec<Event> {
    let event = |_| Event {
        trace: Some(traces.trace()),
        service: "s",
        severity: Some(9),
        body: Some("b".to_owned()),
        ..Event::default()
    };
    (0..ROWS).map(event).collect()
}

fn run(config: &Value, events: &[Event]) -> Vec<Kept> {
    let batch = batch(events);
    let outcome = Node::default()
        .instance(config)
        .sample(&batch, &context(1000.0))
        .unwrap();
    kept(&batch, &outcome)
}

fn traces(events: &[Event], kept: &[Kept]) -> BTreeSet<u128> {
    kept.iter().map(|kept| events[kept.row].trace.unwrap()).collect()
}

#[test]
fn the_rule_is_that_of_opentelemetry() {
    let events = events(&mut Random(1));
    for rate in [0.0, 0.01, 0.1, 0.25, 0.5, 0.9] {
        let threshold = ((1.0 - rate) * 2f64.powi(56)).round() as u128;
        let expected = events
            .iter()
            .filter_map(|event| event.trace)
            .filter(|id| id % (1 << 56) >= threshold)
            .collect();
        let kept = run(&json!({ "rate": rate }), &events);
        assert_eq!(traces(&events, &kept), expected, "rate {rate}");
        assert!(kept.iter().all(|kept| kept.weight == 1.0 / rate));
    }
}

#[test]
fn two_edges_keep_the_same_and_a_smaller_set_lies_within_a_larger_one() {
    let own = events(&mut Random(2));
    let mut other = own.clone();
    other.reverse();
    // The other edge sees the same traces in other rows, of other services and in another order.
    other.iter_mut().for_each(|event| event.service = "t");
    // Rates by budget are whatever the load makes of them; what they keep is nested like all others.
    let budget = |rows: f64| json!({"budget": {"rows_per_second": rows}});
    let configs = [
        json!({"rate": 0.003}),
        budget(500.0),
        json!({"rate": 0.1}),
        budget(5_000.0),
        json!({"rate": 0.5}),
        json!({"rate": 0.5, "rates": [{"service": "*", "rate": 0.1}]}),
        budget(12_000.0),
    ];
    let mut sets: Vec<BTreeSet<u128>> = Vec::new();
    for config in &configs {
        let set = traces(&own, &run(config, &own));
        assert!(!set.is_empty());
        assert_eq!(set, traces(&other, &run(config, &other)), "{config}");
        sets.push(set);
    }
    for small in &sets {
        for large in sets.iter().filter(|large| large.len() >= small.len()) {
            assert!(small.is_subset(large));
        }
    }
    assert!(
        sets.iter().map(BTreeSet::len).collect::<BTreeSet<_>>().len() >= 6,
        "the rates differ"
    );
}

#[test]
fn samplers_in_a_row_weigh_as_the_stricter_one() {
    let events = events(&mut Random(3));
    for (first, second) in [(0.5, 0.1), (0.1, 0.5), (0.3, 0.3)] {
        let kept = run(&json!({ "rate": first }), &events);
        let between: Vec<Event> = kept
            .iter()
            .map(|kept| Event {
                weight: Some(kept.weight),
                ..events[kept.row].clone()
            })
            .collect();
        let both = run(&json!({ "rate": second }), &between);
        let stricter = f64::min(first, second);
        assert_eq!(
            traces(&between, &both),
            traces(&events, &run(&json!({ "rate": stricter }), &events))
        );
        assert!(both.iter().all(|kept| kept.weight == 1.0 / stricter));
    }
}

#[test]
fn events_without_a_trace_are_kept_or_chosen_as_configured() {
    let mut random = Random(4);
    let event = |n: usize| Event {
        service: "s",
        severity: Some(9),
        body: Some(format!("line {n} {}", random.next())),
        ..Event::default()
    };
    let events: Vec<Event> = (0..ROWS).map(event).collect();
    assert_eq!(run(&json!({"rate": 0.1}), &events).len(), ROWS);

    let hash = |rate: f64| json!({"rate": rate, "without_trace": "hash", "hash_by": ["service", "body"]});
    let random = json!({"rate": 0.1, "without_trace": "random"});
    let rows = |kept: &[Kept]| kept.iter().map(|kept| kept.row).collect::<BTreeSet<_>>();
    let (tenth, half) = (rows(&run(&hash(0.1), &events)), rows(&run(&hash(0.5), &events)));
    assert!(tenth.is_subset(&half));
    assert_eq!(tenth, rows(&run(&hash(0.1), &events)));
    for kept in [&tenth, &rows(&run(&random, &events))] {
        let expected = ROWS as f64 / 10.0;
        assert!(
            (kept.len() as f64 - expected).abs() < 4.0 * (expected * 0.9).sqrt(),
            "{}",
            kept.len()
        );
    }
    // Two draws of their own are independent, so the weights multiply; two hashes are the same draw.
    let weighed: Vec<Event> = events
        .iter()
        .map(|event| Event {
            weight: Some(4.0),
            ..event.clone()
        })
        .collect();
    assert!(run(&random, &weighed).iter().all(|kept| kept.weight == 40.0));
    assert!(run(&hash(0.1), &weighed).iter().all(|kept| kept.weight == 10.0));
}

fn states(outcome: &Outcome) -> Vec<Option<String>> {
    let (_, states) = outcome
        .columns()
        .iter()
        .find(|(name, _)| name == "trace_state")
        .unwrap();
    let text = Text::of(states.as_ref()).unwrap();
    (0..states.len()).map(|row| text.get(row).map(str::to_owned)).collect()
}

#[test]
fn trace_states_are_read_and_written_as_opentelemetry_has_them() {
    // The low 56 bits of this id are the largest, those of the other the smallest possible.
    let (high, low) = (u128::MAX, 1u128 << 100);
    assert_eq!(
        (randomness(high.to_be_bytes()), randomness(low.to_be_bytes())),
        ((1 << 56) - 1, 0)
    );
    let span = |trace: u128, state: Option<&str>, severe: bool| Event {
        trace: Some(trace),
        trace_state: state.map(str::to_owned),
        service: "s",
        status: severe.then_some("error"),
        ..Event::default()
    };
    let events = [
        span(high, None, false),
        span(low, Some("ot=rv:ffffffffffffff,v=1"), false),
        span(high, Some("ot=rv:00000000000000"), false),
        span(high, Some("ot=th:f"), false),
        span(high, Some("ot=th:4"), false),
        span(high, Some("a=b"), true),
        span(high, Some("ot=th:8"), true),
        span(low, Some("ot=th:8"), true),
    ];
    let batch = batch(&events);
    let config = json!({"rate": 0.25});
    let outcome = Node::default().instance(&config).sample(&batch, &spans(0.0)).unwrap();
    let weights: Vec<(usize, f64)> = kept(&batch, &outcome)
        .iter()
        .map(|kept| (kept.row, kept.weight))
        .collect();
    // Row 2 has a randomness of its own that is too small. Errors stand for what they stood for; the last one cannot have been
    // kept by that threshold.
    assert_eq!(
        weights,
        [(0, 4.0), (1, 4.0), (3, 16.0), (4, 4.0), (5, 1.0), (6, 2.0), (7, 1.0)]
    );
    let states = states(&outcome);
    let states: Vec<Option<&str>> = states.iter().map(Option::as_deref).collect();
    let expected = [
        Some("ot=th:c"),
        Some("ot=th:c;rv:ffffffffffffff,v=1"),
        Some("ot=rv:00000000000000"),
        Some("ot=th:f"),
        Some("ot=th:c"),
        Some("a=b"),
        Some("ot=th:8"),
        Some("ot=th:8"),
    ];
    assert_eq!(states, expected);

    let config = json!({"rate": 0.25, "trace_state": "keep"});
    let outcome = Node::default().instance(&config).sample(&batch, &spans(0.0)).unwrap();
    assert!(outcome.columns().iter().all(|(name, _)| name != "trace_state"));
}

#[test]
fn one_weight_for_all_rows_takes_no_column() {
    let events = events(&mut Random(5));
    let mixed = Event {
        severity: Some(21),
        ..events[0].clone()
    };
    let outcome = |events: &[Event]| {
        let batch = batch(events);
        Node::default()
            .instance(&json!({"rate": 0.25}))
            .sample(&batch, &context(0.0))
            .unwrap()
    };
    assert_eq!(outcome(&events).weight_factor(), Some(4.0));
    assert!(outcome(&events).columns().is_empty());
    let with_error = [events.as_slice(), &[mixed]].concat();
    assert_eq!(outcome(&with_error).weight_factor(), None);
    assert_eq!(outcome(&with_error).columns().len(), 1);
}

#[test]
fn the_wish_of_the_link_tightens_the_rate_and_is_counted_by_itself() {
    let events = events(&mut Random(6));
    let batch = batch(&events);
    let run = |share: f64| {
        let context = with_hints(context(0.0), share, 0.0);
        Node::default()
            .instance(&json!({"rate": 0.5}))
            .sample(&batch, &context)
            .unwrap()
    };
    assert_eq!(dropped(&run(0.7), sample::LINK), 0);
    let outcome = run(0.1);
    let expected = events
        .iter()
        .filter(|e| Chance::rounded(0.1).keeps(randomness(e.trace.unwrap().to_be_bytes())))
        .count();
    assert_eq!(kept(&batch, &outcome).len(), expected);
    assert_eq!(dropped(&outcome, sample::SAMPLED), dropped(&run(1.0), sample::SAMPLED));
    assert!(dropped(&outcome, sample::LINK) > 7_000);
    assert_eq!(dropped(&run(f64::NAN), sample::LINK), 0);
}
