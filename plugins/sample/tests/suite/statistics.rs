//! Counts and sums estimated from what was kept, against the truth.
//!
//! The estimate is that of Horvitz and Thompson: every kept row counts as often as its weight says, which is one over the chance
//! pi that it had. Rows of one trace share their draw, so two of them are both kept with the smaller of their chances; this gives
//! the estimate of the variance, of kept rows i and j of the same trace
//! (pi_ij - pi_i pi_j) / (pi_i pi_j pi_ij) y_i y_j with pi_ij = min(pi_i, pi_j), summed over all pairs, i = j included.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::common::*;

/// Half the width of an interval in standard deviations of the normal distribution.
const Z99: f64 = 2.576;
const Z50: f64 = 0.6745;
const BATCH: usize = 8192;

const SERVICES: [&str; 12] = [
    "checkout", "cart", "search", "login", "stock", "mail", "payment", "images", "health", "orders", "queue", "billing",
];

/// Traces of one to eight rows in services of different sizes; errors, slow spans and new patterns among them.
fn events(seed: u64, count: usize) -> Vec<Event> {
    let mut random = Random(seed);
    let mut events = Vec::with_capacity(count);
    while events.len() < count {
        let trace = random.trace();
        for _ in 0..=random.below(8) {
            // The first services have fewer rows than the last ones.
            let service = SERVICES[(random.share().powf(0.8) * SERVICES.len() as f64) as usize];
            let value = -random.share().max(1e-12).ln() * 20.0;
            events.push(Event {
                trace: Some(trace),
                service,
                severity: Some(if random.below(50) == 0 { 17 } else { 9 }),
                duration_ns: Some((value * 1e6) as i64),
                body: Some(format!(
                    "step {} of {} done",
                    random.below(1000),
                    ["a", "b", "c", "d"][random.below(4) as usize]
                )),
                value,
                ..Event::default()
            });
        }
    }
    events.truncate(count);
    events
}

/// An estimate of a count or a sum, with its variance.
#[derive(Clone, Copy, Debug, Default)]
struct Estimate {
    truth: f64,
    estimate: f64,
    variance: f64,
}

impl Estimate {
    fn within(&self, z: f64) -> bool {
        (self.estimate - self.truth).abs() <= z * self.variance.sqrt()
    }
}

/// By service the count and the sum.
fn estimates(events: &[Event], kept: &[Kept]) -> Vec<(String, Estimate)> {
    type Measure = (&'static str, fn(&Event) -> f64);
    let measures: [Measure; 2] = [("count", |_| 1.0), ("sum", |event| event.value)];
    let mut all = Vec::new();
    for service in SERVICES {
        for (measure, of) in measures {
            let own = events.iter().filter(|event| event.service == service);
            let mut estimate = Estimate {
                truth: own.map(of).sum(),
                ..Estimate::default()
            };
            let mut traces: BTreeMap<u128, Vec<(f64, f64)>> = BTreeMap::new();
            for kept in kept.iter().filter(|kept| events[kept.row].service == service) {
                let event = &events[kept.row];
                estimate.estimate += kept.weight * of(event);
                traces
                    .entry(event.trace.unwrap())
                    .or_default()
                    .push((1.0 / kept.weight, of(event)));
            }
            for rows in traces.values() {
                for (p, y) in rows {
                    for (q, z) in rows {
                        let both = p.min(*q);
                        // A row is kept with itself by its own chance, and the rows of one chance by the same draw.
                        estimate.variance += (both - p * q) / (p * q * both) * y * z;
                    }
                }
            }
            all.push((format!("{service} {measure}"), estimate));
        }
    }
    all
}

/// Samples all events, a tenth of a second a batch, on instances that are replaced again and again.
fn sample(config: &Value, events: &[Event]) -> Vec<Kept> {
    let node = Node::default();
    let mut instances: Vec<_> = (0..4).map(|_| node.instance(config)).collect();
    let mut all = Vec::new();
    for (number, chunk) in events.chunks(BATCH).enumerate() {
        let now_s = 1000.0 + number as f64 / 10.0;
        node.at(now_s);
        let place = number % instances.len();
        if number % 7 == 0 {
            instances[place] = node.instance(config);
        }
        let batch = batch(chunk);
        let outcome = instances[place].sample(&batch, &context(now_s)).unwrap();
        let kept = kept(&batch, &outcome);
        all.extend(kept.into_iter().map(|kept| Kept {
            row: kept.row + number * BATCH,
            ..kept
        }));
    }
    all
}

fn configurations() -> [(&'static str, Value); 3] {
    let rules = json!({"above": "150ms", "quantile": 0.99});
    [
        ("a rate", json!({"rate": 0.1})),
        (
            "all rules, rates by service",
            json!({"rate": 0.1, "keep_slow": rules, "keep_first": true,
                "rates": [{"service": "pay*", "rate": 0.5}, {"service": "health", "rate": 0.02}]}),
        ),
        (
            "a budget",
            json!({"budget": {"rows_per_second": 10_000.0, "min_rate": 0.01}, "keep_slow": rules, "keep_first": true,
                "rates": [{"service": "health", "rate": 0.2}]}),
        ),
    ]
}

#[test]
fn of_a_million_events_counts_and_sums_by_service_lie_in_their_99_percent_intervals() {
    let events = events(1, 1_000_000);
    for (name, config) in configurations() {
        let kept = sample(&config, &events);
        let share = kept.len() as f64 / events.len() as f64;
        assert!((0.05..0.3).contains(&share), "{name}: kept {share}");
        for (what, estimate) in estimates(&events, &kept) {
            assert!(estimate.within(Z99), "{name}: {what}: {estimate:?}");
            // An interval that is as wide as the truth would prove nothing.
            assert!(
                Z99 * estimate.variance.sqrt() < 0.1 * estimate.truth,
                "{name}: {what}: {estimate:?}"
            );
        }
    }
}

/// Intervals are as wide as they should be: of many, about 99 % and 50 % hold the truth.
#[test]
fn intervals_hold_the_truth_as_often_as_they_say() {
    for (name, config) in configurations() {
        let (mut all, mut within99, mut within50) = (0.0, 0.0, 0.0);
        for seed in 0..40 {
            let events = events(1000 + seed, 40_000);
            for (_, estimate) in estimates(&events, &sample(&config, &events)) {
                all += 1.0;
                within99 += f64::from(u8::from(estimate.within(Z99)));
                within50 += f64::from(u8::from(estimate.within(Z50)));
            }
        }
        let (share99, share50) = (within99 / all, within50 / all);
        println!("{name}: {all} intervals, {share99:.4} within 99 %, {share50:.4} within 50 %");
        assert!((0.975..=0.9985).contains(&share99), "{name}: {share99}");
        assert!((0.44..=0.56).contains(&share50), "{name}: {share50}");
    }
}
