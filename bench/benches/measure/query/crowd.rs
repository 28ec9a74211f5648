//! Two hundred dashboards, each asking its panels one after the other, alone and beside a query that reads everything.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sluice_query::config::CacheConfig;
use sluice_store::Stores;

use super::data::Rows;
use super::questions::{ALL, Dialect, Span};
use super::{Door, no_answers};
use crate::{Line, line};

const DASHBOARDS: u64 = 200;
/// Panels that each asks for, in turn; a dashboard looks again after a while.
const PANELS: usize = 5;
const LOOKS: u64 = 2;
const PAUSE: Duration = Duration::from_secs(2);
const GOAL: f64 = 2.0;
/// Sorts all bodies: it spills, and holds a place for long.
const MONSTER: &str = "SELECT body, count(*) AS n FROM events GROUP BY body ORDER BY n DESC, body LIMIT 10";

pub(super) async fn measure(stores: &Stores, cold: Rows, hot: Rows) -> Vec<Line> {
    let mut lines = Vec::new();
    for (what, cache) in [
        ("every answer made", no_answers()),
        ("answers given again", CacheConfig::default()),
    ] {
        let door = Arc::new(Door::open(stores.clone(), cache).await);
        let alone = p95(dashboards(&door, cold, hot).await);
        let monster = monster(&door);
        let beside = p95(dashboards(&door, cold, hot).await);
        let (runs, end) = monster;
        end.store(true, Ordering::Relaxed);
        runs.abort();
        let times = beside / alone;
        let verdict = if times <= GOAL { "met" } else { "missed" };
        lines.push(line(
            &format!("query: p95 of {DASHBOARDS} dashboards beside a monster, {what}"),
            format!("{times:.2} times alone"),
            format!("{beside:.0} ms, alone {alone:.0} ms (goal {GOAL} times: {verdict})"),
        ));
    }
    lines
}

/// Asks for everything, again and again. What it is refused is its own matter.
fn monster(door: &Arc<Door>) -> (tokio::task::JoinHandle<()>, Arc<AtomicBool>) {
    let (door, end) = (Arc::clone(door), Arc::<AtomicBool>::default());
    let is_over = Arc::clone(&end);
    let runs = tokio::spawn(async move {
        while !is_over.load(Ordering::Relaxed) {
            door.try_ask(MONSTER).await;
        }
    });
    (runs, end)
}

/// Milliseconds of each panel.
async fn dashboards(door: &Arc<Door>, cold: Rows, hot: Rows) -> Vec<f64> {
    let mut all = tokio::task::JoinSet::new();
    for number in 0..DASHBOARDS {
        let door = Arc::clone(door);
        all.spawn(async move {
            // They are not opened in the same moment.
            tokio::time::sleep(PAUSE * u32::try_from(number % 20).unwrap_or(0) / 20).await;
            let mut took = Vec::new();
            for _ in 0..LOOKS {
                for panel in 0..PANELS {
                    took.push(door.ask(&text(number, panel, cold, hot)).await.1);
                }
                tokio::time::sleep(PAUSE).await;
            }
            took
        });
    }
    all.join_all().await.into_iter().flatten().collect()
}

/// Mostly of the newest seconds, one in ten of older ones.
fn text(number: u64, panel: usize, cold: Rows, hot: Rows) -> String {
    let timed: Vec<_> = ALL.iter().filter(|question| question.is_timed).collect();
    let question = timed[(number as usize + panel * 3) % timed.len()];
    let (rows, length_us) = match number % 10 {
        9 => (cold, 2_000_000),
        _ => (hot, 10_000_000),
    };
    let span = rows.span();
    let to_us = span.to_us - (number as i64 % 4) * 1_000_000;
    let span = Span {
        from_us: (to_us - length_us).max(span.from_us),
        to_us,
    };
    question.text(Dialect::Sluice, span, rows)
}

fn p95(mut took: Vec<f64>) -> f64 {
    took.sort_by(f64::total_cmp);
    took[took.len() * 95 / 100]
}
