//! What is kept whatever the rate.

use std::collections::BTreeSet;

use sample::Sample;
use serde_json::{Value, json};

use crate::common::*;

/// A rate so low that what stays was kept by a rule.
const HARDLY: f64 = 1e-12;

fn config(rules: Value) -> Value {
    let mut config = json!({"rate": HARDLY, "keep_errors": false});
    config
        .as_object_mut()
        .unwrap()
        .extend(rules.as_object().unwrap().clone());
    config
}

fn plain(random: &mut Random) -> Event {
    Event {
        trace: Some(random.trace()),
        service: ["cart", "mail"][random.below(2) as usize],
        severity: Some(9),
        body: Some(format!("took {} ms", random.below(100))),
        ..Event::default()
    }
}

/// Rows that stay of one batch, all with weight 1.
fn rows(sample: &mut Sample, events: &[Event], now_s: f64) -> Vec<usize> {
    let batch = batch(events);
    let outcome = sample.sample(&batch, &context(now_s)).unwrap();
    let kept = kept(&batch, &outcome);
    assert!(kept.iter().all(|kept| kept.weight == 1.0));
    kept.into_iter().map(|kept| kept.row).collect()
}

#[test]
fn every_error_is_kept() {
    let mut random = Random(1);
    let mut events: Vec<Event> = (0..5000).map(|_| plain(&mut random)).collect();
    let mut expected = BTreeSet::new();
    for (n, row) in (0..5000).step_by(7).enumerate() {
        let event = &mut events[row];
        match n % 6 {
            0 => event.severity = Some(17 + (n % 8) as i32),
            1 => event.status = Some("error"),
            2 => event.http_status = Some(500 + (n % 100) as i64),
            3 => event.attrs = vec![("http.status_code", "503")],
            4 => event.http_status = Some(499),
            _ => event.severity = Some(16),
        }
        if n % 6 < 4 {
            expected.insert(row);
        }
    }
    let node = Node::default();
    let kept = rows(&mut node.instance(&config(json!({"keep_errors": true}))), &events, 0.0);
    assert_eq!(kept.into_iter().collect::<BTreeSet<_>>(), expected);
    assert!(rows(&mut node.instance(&config(json!({}))), &events, 0.0).is_empty());
}

#[test]
fn every_slow_span_is_kept_by_its_time_and_by_what_is_usual_for_its_name() {
    let mut random = Random(2);
    let node = Node::default();
    let absolute = config(json!({"keep_slow": {"above": "1s"}}));
    let adaptive = config(json!({"keep_slow": {"quantile": 0.99}}));
    // The usual time of each name differs by a thousand.
    let span = |random: &mut Random, factor: f64| {
        let kind = random.below(2) as usize;
        let usual = [1e6, 1e9][kind];
        Event {
            name: Some(["get", "report"][kind].to_owned()),
            duration_ns: Some((usual * (0.5 + random.share()) * factor) as i64),
            ..plain(random)
        }
    };
    let mut instances: Vec<Sample> = (0..4).map(|_| node.instance(&adaptive)).collect();
    let (mut kept, mut usual) = (0, 0);
    for number in 0..200 {
        let mut events: Vec<Event> = (0..500).map(|_| span(&mut random, 1.0)).collect();
        let planted = [17, 250, 499];
        planted.iter().for_each(|row| events[*row] = span(&mut random, 10.0));
        let over = events
            .iter()
            .enumerate()
            .filter(|(_, e)| e.duration_ns >= Some(1_000_000_000));
        let over: Vec<usize> = over.map(|(row, _)| row).collect();
        assert_eq!(rows(&mut node.instance(&absolute), &events, 0.0), over);

        let place = number % 4;
        if number % 5 == 0 {
            instances[place] = node.instance(&adaptive);
        }
        let found = rows(&mut instances[place], &events, number as f64);
        if number >= 50 {
            assert!(planted.iter().all(|row| found.contains(row)), "{number}: {found:?}");
            kept += found.len() - planted.len();
            usual += events.len() - planted.len();
        }
    }
    // The planted ones are more than half of the slowest hundredth, so of the usual ones less than that stay.
    let share = kept as f64 / usual as f64;
    assert!(share < 0.012, "{share}");
    assert!(node.keys() <= 32);
}

#[test]
fn every_first_occurrence_is_kept_once_on_whatever_instance() {
    let mut random = Random(3);
    let node = Node::default();
    let config = config(json!({"keep_first": {"ttl": "1h", "per_hour": 100_000}}));
    let mut instances: Vec<Sample> = (0..4).map(|_| node.instance(&config)).collect();
    let mut seen = BTreeSet::new();
    let letters = |n: u64| {
        (0..4)
            .map(|k| (b'a' + (n >> (k * 4) & 15) as u8) as char)
            .collect::<String>()
    };
    for number in 0..300usize {
        let now_s = 60.0 * 60.0 * 1000.0 + number as f64;
        node.at(now_s);
        let mut event = |_| {
            let pattern = random.below(4000).min(random.below(4000));
            Event {
                body: Some(format!(
                    "{} of user {} failed",
                    letters(pattern),
                    random.below(1_000_000)
                )),
                ..plain(&mut random)
            }
        };
        let events: Vec<Event> = (0..200).map(&mut event).collect();
        let pattern = |e: &Event| (e.service, e.body.as_deref().unwrap()[..4].to_owned());
        let expected: Vec<usize> = (0..events.len())
            .filter(|row| seen.insert(pattern(&events[*row])))
            .collect();
        let place = number % 4;
        if number % 3 == 0 {
            instances[place] = node.instance(&config);
        }
        assert_eq!(rows(&mut instances[place], &events, now_s), expected, "batch {number}");
    }
    assert!(seen.len() > 4000);
}

#[test]
fn patterns_are_new_again_after_their_time_and_only_so_many_an_hour() {
    let node = Node::default();
    let config = config(json!({"keep_first": {"ttl": "10m", "per_hour": 5}}));
    let mut sample = node.instance(&config);
    let mut random = Random(4);
    let mut run = |sample: &mut Sample, words: &[&str], now_s: f64| {
        node.at(now_s);
        let event = |word: &&str| Event {
            body: Some((*word).to_owned()),
            service: "cart",
            ..plain(&mut random)
        };
        let events: Vec<Event> = words.iter().map(event).collect();
        rows(sample, &events, now_s)
    };
    assert_eq!(run(&mut sample, &["a", "b", "a"], 7000.0), [0, 1]);
    assert!(run(&mut sample, &["a", "b"], 7001.0).is_empty());
    assert_eq!(
        run(&mut sample, &["c", "d", "e", "f", "g"], 7002.0),
        [0, 1, 2],
        "five in this hour"
    );
    assert_eq!(
        run(&mut sample, &["g", "a", "f"], 7200.0),
        [0, 2],
        "what was over the limit is still new"
    );
    assert_eq!(run(&mut node.instance(&config), &["a", "b"], 7500.0), [0; 0]);
    assert_eq!(run(&mut sample, &["a", "f"], 7601.0), [0], "after ten minutes");
}

#[test]
fn security_events_and_named_fields_are_kept() {
    let mut random = Random(5);
    let mut with = |change: &dyn Fn(&mut Event)| {
        let mut event = plain(&mut random);
        change(&mut event);
        event
    };
    let body = |text: &'static str| move |e: &mut Event| e.body = Some(text.to_owned());
    let name = |text: &'static str| move |e: &mut Event| e.name = Some(text.to_owned());
    let attr = |key: &'static str, value: &'static str| move |e: &mut Event| e.attrs = vec![(key, value)];
    let events = [
        with(&body("pam: Authentication FAILURE for root")),
        with(&body("authentication went fine")),
        with(&name("user.login.failed")),
        with(&name("user.logout")),
        with(&attr("event.category", "iam")),
        with(&attr("event.category", "web")),
        with(&attr("security_rule.name", "any")),
        with(&attr("tier", "gold")),
        with(&attr("size", "1500")),
        with(&|e| e.http_status = Some(403)),
        with(&|e| e.severity = None),
    ];
    let check = |rules: Value, expected: &[usize]| {
        let mut sample = Node::default().instance(&config(rules.clone()));
        assert_eq!(rows(&mut sample, &events, 0.0), expected, "{rules}");
    };
    check(json!({"keep_security": true}), &[0, 2, 4, 6]);
    check(json!({"keep_security": {"search": "match"}}), &[0, 2, 4, 6]);
    check(
        json!({"keep_security": {"keywords": ["went FINE"], "names": ["*logout"], "when": []}}),
        &[1, 3],
    );
    check(json!({"keep_security": false}), &[]);
    check(json!({"keep_when": [{"field": "attrs.tier", "equals": "gold"}]}), &[7]);
    check(json!({"keep_when": [{"field": "attrs.event.category"}]}), &[4, 5]);
    check(json!({"keep_when": [{"field": "attrs.size", "at_least": 1000}]}), &[8]);
    check(
        json!({"keep_when": [{"field": "attrs.http.response.status_code", "any_of": [401, 403]}]}),
        &[9],
    );
    check(
        json!({"keep_when": [{"field": "body", "contains": "fine"}, {"field": "name", "starts_with": "user.logo"}]}),
        &[1, 3],
    );
}

#[test]
fn metrics_are_never_sampled() {
    let mut random = Random(6);
    let events: Vec<Event> = (0..1000).map(|_| plain(&mut random)).collect();
    let context = sluice_plugin::Context {
        signal: sluice_plugin::Signal::Metric,
        ..context(0.0)
    };
    let config = config(json!({"without_trace": "random"}));
    let outcome = Node::default()
        .instance(&config)
        .sample(&batch(&events), &context)
        .unwrap();
    assert_eq!(outcome.selection(), None);
}

#[test]
fn without_memory_what_needs_none_works_and_the_rest_is_told() {
    let new = |rules: Value| {
        let config = serde_json::from_value(config(rules)).unwrap();
        Sample::new(config, None, entropy())
    };
    let mut random = Random(7);
    let mut events: Vec<Event> = (0..100).map(|_| plain(&mut random)).collect();
    events[50].severity = Some(17);
    events[60].duration_ns = Some(2_000_000_000);
    let mut sample = new(json!({"keep_errors": true, "keep_slow": {"above": "1s"}, "keep_security": true})).unwrap();
    assert_eq!(rows(&mut sample, &events, 0.0), [50, 60]);

    let all = json!({"keep_first": true, "keep_slow": {"quantile": 0.99}, "budget": {"rows_per_second": 5.0}});
    let error = new(all).unwrap_err();
    assert_eq!(
        error,
        "keep_first, keep_slow.quantile, budget must remember something between batches: grant the capability `state`, or leave \
         that out"
    );
}

/// The host has no room: nothing fails, and what cannot be known is sampled as everything else.
#[test]
fn a_full_memory_stops_nothing() {
    let node = Node::default();
    node.limit(0);
    let config =
        config(json!({"keep_first": true, "keep_slow": {"quantile": 0.99}, "budget": {"rows_per_second": 5.0}}));
    let mut random = Random(8);
    let mut sample = node.instance(&config);
    for now_s in 0..50 {
        let mut events: Vec<Event> = (0..100).map(|_| plain(&mut random)).collect();
        events.iter_mut().for_each(|event| event.duration_ns = Some(1000));
        assert!(rows(&mut sample, &events, f64::from(now_s)).is_empty());
    }
    assert_eq!(node.keys(), 0);
}

#[test]
fn wrong_configurations_are_told_by_key() {
    let check = |config: Value, expected: &str| {
        let error = match serde_json::from_value(config.clone()) {
            Ok(config) => Sample::new(config, Some(Box::new(Node::default())), entropy()).unwrap_err(),
            Err(error) => error.to_string(),
        };
        assert!(error.contains(expected), "{config}: {error}");
    };
    check(json!({}), "missing `rate`");
    check(json!({"rate": 1.5}), "rate = 1.5 is not between 0 and 1");
    check(json!({"rate": 0.1, "without_trace": "drop"}), "unknown variant `drop`");
    check(json!({"rate": 0.1, "colour": 1}), "unknown field `colour`");
    check(
        json!({"rate": 0.1, "keep_slow": {}}),
        "keep_slow: give `above`, `quantile`, or both",
    );
    check(
        json!({"rate": 0.1, "keep_slow": {"above": "5"}}),
        "keep_slow.above: `5` is not a time",
    );
    check(
        json!({"rate": 0.1, "keep_slow": {"quantile": 1.0}}),
        "keep_slow.quantile = 1 is not between",
    );
    check(json!({"rate": 0.1, "keep_first": {"tll": "1h"}}), "unknown field `tll`");
    check(json!({"rate": 0.1, "keep_first": 3}), "`true`, `false` or a table");
    check(
        json!({"rate": 0.1, "keep_first": {"ttl": "10ms"}}),
        "keep_first.ttl: less than a second",
    );
    check(
        json!({"rate": 0.1, "keep_when": [{"field": "colour"}]}),
        "keep_when[0]: there is no field `colour`",
    );
    check(
        json!({"rate": 0.1, "keep_when": [{"field": "name", "equals": "a", "contains": "b"}]}),
        "2 conditions",
    );
    check(
        json!({"rate": 0.1, "keep_security": {"keywords": [""]}}),
        "keep_security.keywords",
    );
    check(json!({"rate": 0.1, "rates": [{"rate": 2}]}), "rates[0].rate = 2");
    check(
        json!({"rate": 0.1, "without_trace": "hash", "hash_by": []}),
        "hash_by is empty",
    );
    check(json!({"budget": {}}), "either `rows_per_second` or `bytes_per_day`");
    check(
        json!({"budget": {"rows_per_second": 0}}),
        "budget.rows_per_second = 0 is not above 0",
    );
    check(
        json!({"budget": {"bytes_per_day": "much"}}),
        "budget.bytes_per_day: `much` is not an amount",
    );
    check(
        json!({"rate": 0.1, "budget": {"rows_per_second": 5, "min_rate": 0.2}}),
        "budget.min_rate = 0.2 is above rate = 0.1",
    );
}

/// With the columns that it names for a configuration the sampler decides as with all columns.
#[test]
fn what_it_needs_is_all_that_it_looks_at() {
    let mut random = Random(9);
    let mut event = |n: usize| Event {
        severity: Some(if n.is_multiple_of(31) { 17 } else { 9 }),
        status: n.is_multiple_of(37).then_some("error"),
        http_status: Some(200 + (n % 40) as i64 * 10),
        name: Some(["login", "get", "put"][n % 3].to_owned()),
        duration_ns: Some(n as i64 * 1_000_000),
        trace: (!n.is_multiple_of(5)).then(|| random.trace()),
        attrs: vec![
            ("tier", ["gold", "iron"][n % 2]),
            ("event.category", ["web", "iam"][n % 7 / 6]),
        ],
        ..plain(&mut random)
    };
    let all = batch(&(0..2000).map(&mut event).collect::<Vec<_>>());
    let configs = [
        json!({}),
        json!({"keep_errors": true}),
        json!({"keep_slow": {"above": "1990ms", "quantile": 0.9}}),
        json!({"keep_first": true}),
        json!({"keep_security": true}),
        json!({"keep_when": [{"field": "attrs.tier", "equals": "gold"}, {"field": "service", "equals": "cart"}]}),
        json!({"rates": [{"service": "cart", "name": "g*", "rate": 0.5}], "without_trace": "hash", "hash_by": ["name", "body"]}),
        json!({"budget": {"rows_per_second": 100}, "rate": 1.0}),
    ];
    for rules in configs {
        let config = config(rules);
        let run = |narrow: bool| {
            let mut sample = Node::default().instance(&config);
            let names: Vec<String> = sample
                .reads()
                .iter()
                .flat_map(|name| sluice_plugin::columns_of(name))
                .collect();
            let fields = all.records().schema_ref().fields().iter().enumerate();
            let needed = fields
                .filter(|(_, field)| !narrow || names.contains(field.name()))
                .map(|(place, _)| place);
            let needed: Vec<usize> = needed.collect();
            let batch = sluice_plugin::Batch::from(all.records().project(&needed).unwrap());
            // The second batch of a node that has seen the first one.
            let context = context(100.0);
            sample.sample(&batch, &context).unwrap();
            (kept(&batch, &sample.sample(&batch, &context).unwrap()), needed.len())
        };
        let ((wide, columns), (narrow, fewer)) = (run(false), run(true));
        assert_eq!(wide, narrow, "{config}");
        assert!(fewer < columns && narrow.len() < all.rows(), "{config}");
    }
}
