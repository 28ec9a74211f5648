//! The link is cut for ten minutes at 2,000 events a second, and comes back as 4 Mbit/s with 150 ms: how old what happens now is when it
//! is in SQL while the backlog goes by, and how much of the link the backlog uses. Once as it is, once with the edge killed in the middle.
//! Both go into one chart.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sluice_bench::audit::Audit;
use sluice_bench::process::Sql;
use sluice_bench::relay::Weather;

use crate::chart::{self, Chart};
use crate::edge::Site;
use crate::outage::{Watch, steady};
use crate::{Line, line};

const SEED: u64 = 12;
const BEFORE: Duration = Duration::from_secs(10);
const DOWN: Duration = Duration::from_secs(600);
/// Between two looks at how the backlog goes, and between two questions for an event.
const LOOK: Duration = Duration::from_millis(500);
const LOOK_AGAIN: Duration = Duration::from_millis(100);
const UNANSWERED: Duration = Duration::from_secs(3);
const LIMIT: Duration = Duration::from_secs(1_200);
/// With the kill: so long after the return.
const KILL_AFTER: Duration = Duration::from_secs(60);

/// What was seen after the return.
#[derive(Default)]
struct Seen {
    /// When, and MiB that wait in the spool.
    waiting: Vec<(f64, f64)>,
    /// When an event was sent, and seconds until it was in SQL.
    fresh: Vec<(f64, f64)>,
    /// Seconds until the gateway had taken it, waiting to be sealed included.
    on_the_way: Vec<f64>,
    /// When, and the share of the link that was used since the look before.
    used: Vec<(f64, f64)>,
    empty_after_s: f64,
    used_in_all: f64,
    peak_mib: f64,
}

pub(crate) fn measure(binary: &Path, edge: &Path, chart: Option<&Path>) -> Vec<Line> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let runs = [false, true].map(|kill| runtime.block_on(run(binary, edge, kill)));
    if let Some(path) = chart {
        draw(&runs, path);
    }
    let what = ["as it is", "the edge killed after a minute"];
    what.iter().zip(&runs).map(|(what, run)| shown(what, run)).collect()
}

fn shown(what: &str, run: &Seen) -> Line {
    let sorted = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values
    };
    let ages = sorted(run.fresh.iter().map(|(_, age)| *age).collect());
    let way = sorted(run.on_the_way.clone());
    let at = |values: &[f64], share: usize| values[(values.len() * share / 100).min(values.len() - 1)];
    line(
        &format!("link cut for 10 min at 2 k logs/s, back with 4 Mbit/s and 150 ms, {what}"),
        format!("fresh after {:.2} s, p99 {:.2} s", at(&ages, 50), at(&ages, 99)),
        format!(
            "of {} events sent after the return, until each is in SQL; median and p99 until the gateway has it {:.2} and {:.2} s; the backlog is gone after {:.0} s, {:.0} % of the link used until then; peak memory of the edge {:.0} MiB; nothing lost, nothing doubled",
            ages.len(),
            at(&way, 50),
            at(&way, 99),
            run.empty_after_s,
            run.used_in_all * 100.0,
            run.peak_mib
        ),
    )
}

fn draw(runs: &[Seen; 2], path: &Path) {
    let series = |name: &str, of: fn(&Seen) -> &Vec<(f64, f64)>| {
        let [plain, killed] = runs;
        vec![
            (name.to_owned(), of(plain).clone()),
            (format!("{name}, edge killed after a minute"), of(killed).clone()),
        ]
    };
    let charts = [
        Chart::lines("backlog on the edge, MiB", series("waiting", |run| &run.waiting)),
        Chart::lines("share of the 4 Mbit/s in use", series("used", |run| &run.used)),
        Chart::points(
            "seconds until an event that was just sent is in SQL",
            series("fresh", |run| &run.fresh),
        ),
    ];
    chart::write(path, "seconds since the link came back", &charts).unwrap();
}

async fn run(binary: &Path, edge: &Path, kill: bool) -> Seen {
    let mut site = Site::start(binary, edge, "lte", Some(Weather::THIN)).await;
    let watch = Watch::new(SEED);
    let stop = Arc::new(AtomicBool::new(false));
    let load = steady(&site, &watch, SEED, &stop);
    tokio::time::sleep(BEFORE).await;
    site.relay().cut(true);
    tokio::time::sleep(DOWN).await;
    site.relay().cut(false);
    let returned = Instant::now();
    let probes = tokio::spawn(probe(site.cloud.sql().unwrap(), watch.clone(), stop.clone(), returned));
    let mut seen = Seen::default();
    let (mut killed, mut drains) = (!kill, false);
    let (began, mut last) = (
        site.relay().traffic().bytes_out,
        (0.0, site.relay().traffic().bytes_out),
    );
    loop {
        tokio::time::sleep(LOOK).await;
        let status = site.status().await;
        let now = returned.elapsed().as_secs_f64();
        let bytes = site.relay().traffic().bytes_out;
        let share = |bytes: u64, seconds: f64| bytes as f64 / (Weather::THIN.rate as f64 * seconds);
        seen.used.push((now, share(bytes - last.1, now - last.0)));
        last = (now, bytes);
        let lane = |name: &str, what: &str| status["link"]["lanes"][name][what].as_u64().unwrap();
        let waits = lane("backlog", "bytes") + lane("live", "bytes");
        seen.waiting.push((now, waits as f64 / f64::from(1 << 20)));
        seen.peak_mib = seen.peak_mib.max(site.peak_mib());
        let connected = status["link"]["connected"] == true;
        drains |= connected && lane("backlog", "batches") > 0;
        if drains && connected && lane("backlog", "batches") == 0 {
            seen.empty_after_s = now;
            seen.used_in_all = share(bytes - began, now);
            break;
        }
        assert!(now < LIMIT.as_secs_f64(), "the backlog never went: {status}");
        if !killed && returned.elapsed() > KILL_AFTER {
            killed = true;
            site.restart_edge().await;
            // Nothing waits in a lane before the link is back.
            drains = false;
        }
    }
    stop.store(true, Ordering::Relaxed);
    load.await.unwrap().unwrap();
    (seen.fresh, seen.on_the_way) = probes.await.unwrap();
    site.drained().await;
    let audit = Audit::run(&site.cloud, &watch.oracle, |_| true, LIMIT).await.unwrap();
    assert!(audit.holds(), "{audit}");
    seen
}

/// Takes an event that was just sent, waits until it is in SQL, and takes the next.
async fn probe(sql: Sql, watch: Arc<Watch>, stop: Arc<AtomicBool>, returned: Instant) -> (Vec<(f64, f64)>, Vec<f64>) {
    let (mut seen, mut on_the_way) = (Vec::new(), Vec::new());
    while !stop.load(Ordering::Relaxed) {
        let k = watch.next();
        while watch.next() <= k && !stop.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let (sent, at) = (Instant::now(), returned.elapsed().as_secs_f64());
        let sent_us = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as f64;
        let question = format!(
            "SELECT max(CAST(ingested_at AS BIGINT)) FROM logs WHERE ingested_at >= to_timestamp_micros({}) AND attrs['evt.id'] = '{SEED}-{k}-0'",
            sent_us as i64
        );
        loop {
            if let Ok(answer) = sql.ask(&question).await
                && let Ok(ingested_us) = answer.count()
                && ingested_us > 0
            {
                seen.push((at, sent.elapsed().as_secs_f64()));
                on_the_way.push((ingested_us as f64 - sent_us) / 1e6);
                break;
            }
            // Sent while the edge was killed: nobody said that it was taken.
            let answered = |watch: &Watch| {
                let requests = watch.oracle.requests();
                requests
                    .iter()
                    .any(|request| request.k == k && request.answered.is_some())
            };
            if sent.elapsed() > UNANSWERED && !answered(&watch) {
                break;
            }
            assert!(sent.elapsed() < LIMIT, "request {k} never arrived");
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
    (seen, on_the_way)
}
