//! A budget is held over a simulated day, whatever the load does, on instances that come and go.

use std::f64::consts::TAU;

use sample::{Budget, Limit, Offer};
use serde_json::json;

use crate::common::*;

const DAY_S: usize = 86_400;
/// A Tuesday at midnight.
const MIDNIGHT_S: f64 = 20_000.0 * 86_400.0;
const HOUR_S: usize = 3600;

/// Rows that come in within one second, and how many of a hundred are always kept.
type Load = fn(usize) -> (f64, f64);

fn steady(_: usize) -> (f64, f64) {
    (1000.0, 2.0)
}

fn step(second: usize) -> (f64, f64) {
    (if second < DAY_S / 2 { 400.0 } else { 4000.0 }, 1.0)
}

/// From 300 at night to 3,000 at noon.
fn night_and_day(second: usize) -> (f64, f64) {
    let noon = (1.0 - (TAU * second as f64 / DAY_S as f64).cos()) / 2.0;
    (300.0 + 2700.0 * noon, 1.0)
}

/// The same with few errors: what is always kept must leave the budget something to hold.
fn routine(second: usize) -> (f64, f64) {
    (night_and_day(second).0, 0.2)
}

/// Ten times as much for five minutes of every hour, in which more than usual are errors.
fn bursts(second: usize) -> (f64, f64) {
    if second % HOUR_S < 300 {
        (6000.0, 1.5)
    } else {
        (600.0, 0.5)
    }
}

/// One large batch now and then.
fn lumps(second: usize) -> (f64, f64) {
    if second.is_multiple_of(47) {
        (30_000.0, 1.0)
    } else {
        (0.0, 0.0)
    }
}

/// Nothing for hours, and much at once.
fn offices(second: usize) -> (f64, f64) {
    let hour = second / HOUR_S;
    if (8..18).contains(&hour) {
        (4000.0, 1.0)
    } else {
        (0.0, 0.0)
    }
}

/// What was kept by the second.
struct Day {
    rows: Vec<f64>,
    bytes: Vec<f64>,
}

/// A day of one node with so many instances, each of which is replaced after about so many batches. `budgets` makes the rows
/// of one second a few batches, each on one of them.
fn simulate(limit: Limit, load: Load, instances: usize, replaced_after: u64, rate: f64) -> Day {
    let node = Node::default();
    let mut random = Random(7);
    let mut budgets: Vec<Budget> = (0..instances).map(|_| Budget::new(limit)).collect();
    let mut day = Day {
        rows: Vec::new(),
        bytes: Vec::new(),
    };
    for second in 0..DAY_S {
        let (rows, percent) = load(second);
        let rows = rows * (0.8 + 0.4 * random.share());
        // What a row takes changes with what is kept; the hint is what it took a while ago.
        let row_bytes = 100.0 + 30.0 * (TAU * second as f64 / 20_000.0).sin();
        let hint = 100.0 + 30.0 * (TAU * (second as f64 - 60.0) / 20_000.0).sin();
        let mut kept = 0.0;
        for (part, budget) in budgets.iter_mut().enumerate() {
            if random.below(replaced_after) == 0 {
                *budget = Budget::new(limit);
            }
            let now_s = MIDNIGHT_S + second as f64 + part as f64 / instances as f64;
            node.at(now_s);
            let now_ns = (now_s * 1e9) as u64;
            let rows = (rows / instances as f64).round();
            if rows == 0.0 {
                continue;
            }
            let always = random.binomial(rows, percent / 100.0);
            let offer = Offer {
                always,
                rates: (rows - always) * rate,
            };
            let share = budget.share(&node, now_ns, hint, offer);
            assert!((0.0..=1.0).contains(&share));
            let own = always + random.binomial(rows - always, rate * share);
            budget.spend(&node, now_ns, hint, own);
            kept += own;
        }
        day.rows.push(kept);
        day.bytes.push(kept * row_bytes);
    }
    assert!(node.keys() < 400, "slots are forgotten: {} keys", node.keys());
    day
}

fn check(name: &str, limit: Limit, load: Load, rate: f64) {
    let offered: f64 = (0..DAY_S).map(|second| load(second).0 * rate).sum();
    for (instances, replaced_after) in [(1, u64::MAX), (1, 10), (4, 50)] {
        let day = simulate(limit, load, instances, replaced_after, rate);
        let (budget, spent, unbounded) = match limit {
            Limit::RowsPerSecond(rows) => (rows * DAY_S as f64, day.rows.iter().sum::<f64>(), offered),
            Limit::BytesPerDay(bytes) => (bytes, day.bytes.iter().sum(), offered * 100.0),
        };
        assert!(
            unbounded > 1.5 * budget,
            "{name}: without a budget it would be exceeded"
        );
        let ratio = spent / budget;
        println!(
            "{limit:?}, {name}, {instances} instances, replaced after {replaced_after}: {:.2} %",
            ratio * 100.0
        );
        assert!((0.95..=1.05).contains(&ratio), "{name}, {instances} instances: {ratio}");
        if let Limit::RowsPerSecond(rows) = limit {
            // Not only in the end: every hour in which something came, too.
            for hour in 0..24 {
                let own: f64 = day.rows[hour * HOUR_S..(hour + 1) * HOUR_S].iter().sum();
                let ratio = own / (rows * HOUR_S as f64);
                assert!(
                    ratio < 1.07 && (ratio > 0.93 || load(hour * HOUR_S).0 == 0.0),
                    "{name}: hour {hour}: {ratio}"
                );
            }
        }
    }
}

const LOADS: [(&str, Load); 5] = [
    ("steady", steady),
    ("step", step),
    ("night and day", night_and_day),
    ("bursts", bursts),
    ("lumps", lumps),
];

#[test]
fn rows_a_second_are_held_within_5_percent_over_a_day() {
    for (name, load) in LOADS {
        check(name, Limit::RowsPerSecond(100.0), load, 1.0);
    }
    check("at most a tenth", Limit::RowsPerSecond(20.0), routine, 0.1);
}

#[test]
fn bytes_a_day_are_held_within_5_percent() {
    for (name, load) in LOADS {
        check(name, Limit::BytesPerDay(1e9), load, 1.0);
    }
    check("at most a tenth", Limit::BytesPerDay(150e6), routine, 0.1);
    // What is left when the traffic ends early stays unused, and the day before is not made good.
    let day = simulate(Limit::BytesPerDay(3e9), offices, 4, 50, 1.0);
    assert!(day.bytes.iter().sum::<f64>() < 1.05 * 3e9);
}

/// Rows of a quiet time are not saved up for a flood.
#[test]
fn a_quiet_hour_is_not_spent_at_once() {
    let day = simulate(Limit::RowsPerSecond(100.0), offices, 4, 50, 1.0);
    let first: f64 = day.rows[8 * HOUR_S..8 * HOUR_S + 600].iter().sum();
    assert!(first < 1.25 * 600.0 * 100.0, "{first}");
}

/// The whole sampler: rows with traces, rules, weights.
#[test]
fn the_sampler_holds_its_budget_and_weights_stay_true() {
    let config = json!({"rate": 0.5, "budget": {"rows_per_second": 40.0, "min_rate": 0.001}, "keep_first": true});
    let node = Node::default();
    let mut random = Random(9);
    let mut instances: Vec<_> = (0..4).map(|_| node.instance(&config)).collect();
    let (mut offered, mut stayed, mut weights, mut by_budget) = (0usize, 0usize, 0.0, 0);
    const SECONDS: usize = 1800;
    for second in 0..SECONDS {
        let now_s = MIDNIGHT_S + second as f64;
        node.at(now_s);
        let rows = if (600..900).contains(&second) { 2000 } else { 200 };
        let event = |_| Event {
            trace: Some(random.trace()),
            service: "s",
            severity: Some(if random.below(100) == 0 { 17 } else { 9 }),
            body: Some("x".to_owned()),
            ..Event::default()
        };
        let events: Vec<Event> = (0..rows).map(event).collect();
        let place = second % 4;
        if second % 11 == 0 {
            instances[place] = node.instance(&config);
        }
        let batch = batch(&events);
        let outcome = instances[place].sample(&batch, &context(now_s)).unwrap();
        by_budget += dropped(&outcome, sample::BUDGET);
        let kept = kept(&batch, &outcome);
        offered += rows;
        stayed += kept.len();
        weights += kept.iter().map(|kept| kept.weight).sum::<f64>();
    }
    let ratio = stayed as f64 / (40 * SECONDS) as f64;
    assert!((0.95..=1.05).contains(&ratio), "{ratio}");
    assert!((weights / offered as f64 - 1.0).abs() < 0.02, "{weights} of {offered}");
    assert!(by_budget as usize > offered / 5, "{by_budget}");
}
