//! A dashboard whose windows move is answered as if nothing were kept, whatever happens to the rows meanwhile, and most of its ranges are given
//! again.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use sluice_store::cold::CompactOptions;
use sluice_store::{Retention, Rule};

use super::site::{HOUR, MINUTE, SECOND, Site, now_ns, server_hot};
use super::tenant;
use crate::config::CacheConfig;

/// `{w}` is the window. Answers have an order, so that they can be compared.
pub(super) const QUESTIONS: [&str; 11] = [
    "SELECT date_bin(INTERVAL '1 minute', time) b, service, count(*) n, sum(severity) s, min(body) m, max(time) t FROM logs WHERE {w} GROUP BY 1, 2 ORDER BY 1, 2",
    "SELECT date_trunc('hour', time) h, count(*), avg(severity) FROM events WHERE {w} AND severity > 8 GROUP BY h ORDER BY h",
    "SELECT floor(extract(epoch from time)/60)*60 AS t, count(DISTINCT body), approx_distinct(body) FROM logs WHERE {w} GROUP BY 1 ORDER BY 1",
    "SELECT date_bin(INTERVAL '5 minutes', time, TIMESTAMP '2001-01-01T00:02:00Z') b, count(*) n FROM logs WHERE {w} GROUP BY b HAVING count(*) > 1 ORDER BY n DESC, b LIMIT 5",
    "SELECT b, max(n) FROM (SELECT date_bin(INTERVAL '1 minute', time) b, service, count(*) n FROM logs WHERE {w} GROUP BY 1, 2) GROUP BY b ORDER BY b",
    "SELECT a.b, a.n, e.n FROM (SELECT date_bin(INTERVAL '2 minutes', time) b, count(*) n FROM logs WHERE {w} GROUP BY 1) a LEFT JOIN \
     (SELECT date_bin(INTERVAL '2 minutes', time) b, count(*) n FROM logs WHERE {w} AND severity >= 13 GROUP BY 1) e ON a.b = e.b ORDER BY 1",
    "SELECT DISTINCT date_bin(INTERVAL '1 minute', time) b, service FROM logs WHERE {w} ORDER BY 1 DESC, 2 LIMIT 7",
    "SELECT service, date_bin(INTERVAL '10 seconds', time) b, count(*) FILTER (WHERE severity > 9) FROM logs WHERE {w} GROUP BY ROLLUP (service, date_bin(INTERVAL '10 seconds', time)) ORDER BY 1, 2",
    "SELECT CAST(time AS DATE) d, date_bin(INTERVAL '7 minutes', time) b, wcount() FROM logs WHERE {w} AND body LIKE 'body%' GROUP BY 1, 2 ORDER BY 1, 2",
    "SELECT sum(n) OVER (ORDER BY b) FROM (SELECT date_bin(INTERVAL '1 minute', time) b, count(*) n FROM logs WHERE {w} GROUP BY 1) ORDER BY b",
    "SELECT service, count(*) FROM logs WHERE {w} GROUP BY 1 ORDER BY 1",
];

/// What happens.
#[derive(Clone, Debug)]
enum Step {
    /// Some minutes later rows come, one of them so many minutes late; below 0 it is early.
    Insert(i64, i64),
    Commit(u64),
    HandOff,
    Compact,
    /// From a minute on, so many of them.
    Erase(i64, i64),
    /// Rows that were taken in before a minute are too old.
    TooOld(i64),
    /// All panels ask for a window.
    Refresh(usize),
}

/// Some questions, of one tenant or of everyone.
type Panels = Vec<(usize, bool)>;

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0i64..3, prop_oneof![4 => Just(0i64), 1 => -30i64..60]).prop_map(|(minutes, late)| Step::Insert(minutes, late)),
        2 => (1u64..6).prop_map(Step::Commit),
        1 => Just(Step::HandOff),
        1 => Just(Step::Compact),
        1 => (0i64..60, 1i64..9).prop_map(|(from, minutes)| Step::Erase(from, minutes)),
        1 => (0i64..20).prop_map(Step::TooOld),
        8 => (0usize..5).prop_map(Step::Refresh),
    ]
}

fn dashboard() -> impl Strategy<Value = (Panels, Vec<Step>)> {
    let panel = (0..QUESTIONS.len(), prop::bool::weighted(0.2));
    (prop::collection::vec(panel, 3), prop::collection::vec(step(), 30..45))
}

fn window(site: &Site, number: usize) -> String {
    let clock = site.clock();
    let moment = |ns: i64| format!("to_timestamp_nanos({ns})");
    match number {
        0 => format!("time >= {} AND time <= {}", moment(clock - 30 * MINUTE), moment(clock)),
        1 => {
            let (from, to) = (clock - 17 * MINUTE + 13 * SECOND, clock + 2 * MINUTE + 7);
            format!("time BETWEEN {} AND {}", moment(from), moment(to))
        }
        2 => format!("time > {}", moment(site.begin - HOUR)),
        3 => format!("{} <= time AND time <= {}", moment(clock - HOUR), moment(clock + HOUR)),
        _ => "time >= now() - INTERVAL '8 hours'".to_owned(),
    }
}

async fn run(site: Site, panels: &Panels, steps: &[Step]) -> (u64, u64) {
    let mut log = Vec::new();
    for _ in 0..6 {
        site.insert(&mut log, 3, 0).await;
    }
    for step in steps {
        match step {
            Step::Insert(minutes, late) => site.insert(&mut log, *minutes, *late).await,
            Step::Commit(more) => site.commit(&log, *more).await,
            Step::HandOff => site.hand_off().await,
            Step::Compact => {
                site.stores.cold.compact(&CompactOptions::default()).await.unwrap();
            }
            Step::Erase(from, minutes) => {
                let from = site.begin + from * MINUTE;
                let rule = Rule::new(
                    &tenant("acme"),
                    now_ns() / 1_000,
                    Some(from),
                    Some(from + minutes * MINUTE),
                );
                site.stores.erase(&rule).await.unwrap();
            }
            Step::TooOld(minute) => {
                // Rows are taken in at whole minutes: time that passes meanwhile makes no other row too old.
                let cutoff = site.begin + minute * MINUTE + SECOND;
                let keep = Retention::new((now_ns() - cutoff) / 1_000, BTreeMap::new());
                site.stores.keep_for(&keep).await.unwrap();
            }
            Step::Refresh(number) => {
                for (question, everyone) in panels {
                    let who = if *everyone { &site.operator } else { &site.acme };
                    let sql = QUESTIONS[*question].replace("{w}", &window(&site, *number));
                    site.ask(who, &sql).await;
                }
            }
        }
    }
    site.keeps.ranges()
}

/// A dashboard of both tiers whose window moves by a minute now and then: what it has in common with itself is no matter of chance.
fn steady() -> (Panels, Vec<Step>) {
    let mut steps = vec![Step::Commit(4), Step::HandOff];
    for _ in 0..4 {
        steps.extend([Step::Refresh(0), Step::Refresh(0), Step::Insert(1, 0), Step::Refresh(0)]);
    }
    (vec![(0, false), (3, false), (5, true)], steps)
}

/// Runs steps over sites that are made for them, and then those of a steady dashboard, which is mostly given again. Returns how many
/// ranges of the first ones were given again, and how many computed.
fn run_all(cases: u32, site: impl AsyncFn() -> Site) -> (u64, u64) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (again, made) = (AtomicU64::new(0), AtomicU64::new(0));
    let mut runner = TestRunner::new(Config {
        cases,
        // each runs all of its steps
        max_shrink_iters: 20,
        failure_persistence: None,
        ..Config::default()
    });
    let ran = runner.run(&dashboard(), |(panels, steps)| {
        let (more_again, more_made) = runtime.block_on(async { run(site().await, &panels, &steps).await });
        again.fetch_add(more_again, Ordering::Relaxed);
        made.fetch_add(more_made, Ordering::Relaxed);
        Ok(())
    });
    ran.unwrap();
    let (again, made) = (again.into_inner(), made.into_inner());
    println!("{again} ranges given again, {made} computed");
    let (panels, steps) = steady();
    let steady = runtime.block_on(async { run(site().await, &panels, &steps).await });
    assert!(
        steady.0 > steady.1,
        "of a steady dashboard {steady:?}: given again, computed"
    );
    (again, made)
}

#[test]
fn a_window_that_moves_is_answered_as_if_nothing_were_kept() {
    let (again, made) = run_all(5, async || Site::new(CacheConfig::default()).await);
    // What dashboards have in common with themselves is a matter of chance, but of five never little.
    assert!(again > made / 4, "{again} given again, {made} computed");
}

#[test]
fn so_it_is_over_a_server() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let Some(hot) = runtime.block_on(server_hot()) else {
        return;
    };
    drop(hot);
    let site = async || {
        let hot = server_hot().await.unwrap();
        Site::over(hot.into(), CacheConfig::default()).await
    };
    run_all(2, site);
}
