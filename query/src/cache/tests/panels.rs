//! Which panels of dashboards are put together of ranges, of which, and what never is.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use arrow::temporal_conversions::timestamp_ns_to_datetime;
use sluice_store::cold::CompactOptions;
use sluice_store::{Retention, Rule};

use super::ranges::QUESTIONS;
use super::site::{MINUTE, SECOND, Site, copied_hot, now_ns, server_hot};
use super::{question, tenant};
use crate::config::CacheConfig;
use crate::engine::Dialect;

fn between(from: i64, to: i64) -> String {
    format!("time >= to_timestamp_nanos({from}) AND time < to_timestamp_nanos({to})")
}

const BY_MINUTE: &str = "SELECT date_bin(INTERVAL '1 minute', time) b, service, count(*), sum(severity) FROM logs WHERE {w} GROUP BY 1, 2 ORDER BY 1, 2";

/// Half an hour of rows, of which cold has all but the last five minutes.
async fn half_an_hour(cache: CacheConfig) -> (Site, Vec<Vec<RecordBatch>>) {
    half_an_hour_in(Site::new(cache).await).await
}

async fn half_an_hour_in(site: Site) -> (Site, Vec<Vec<RecordBatch>>) {
    let mut log = Vec::new();
    for minute in 0..30 {
        site.insert(&mut log, 1, 0).await;
        if minute < 25 {
            site.commit(&log, 1).await;
        }
    }
    site.hand_off().await;
    (site, log)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_ranges_that_something_touched_are_computed() {
    let (site, mut log) = half_an_hour(CacheConfig::default()).await;
    let (begin, end) = (site.begin, site.begin + 31 * MINUTE);
    let ask = async |from: i64, to: i64| {
        let sql = BY_MINUTE.replace("{w}", &between(from, to));
        site.ranges(site.ask(&site.acme, &sql)).await
    };
    assert_eq!(
        ask(begin, end + 2).await,
        (0, 0),
        "who knows whether it will be asked for again"
    );
    assert_eq!(ask(begin, end).await, (0, 31));
    // A nanosecond less, so that it is another question.
    assert_eq!(ask(begin, end - 1).await, (30, 0));
    // The window moves: the piece at its end was never whole, and now is.
    assert_eq!(ask(begin + 2 * MINUTE + 5, end + 1).await, (28, 0));
    // A late row, in the tenth minute.
    assert_ne!(log.len() % 5, 4, "it is of acme");
    let clock = site.clock();
    let late = (clock - begin) / MINUTE - 10;
    site.insert(&mut log, 0, late).await;
    assert_eq!(ask(begin, end - 2).await, (29, 1));
    assert_eq!(ask(begin, end - 3).await, (30, 0));
    // An erasure of the third and fourth minute.
    let rule = Rule::new(
        &tenant("acme"),
        now_ns() / 1_000,
        Some(begin + 3 * MINUTE),
        Some(begin + 5 * MINUTE),
    );
    site.stores.erase(&rule).await.unwrap();
    assert_eq!(ask(begin, end - 4).await, (28, 2));
    // Five more minutes go to cold, and then leave hot.
    site.commit(&log, 5).await;
    assert_eq!(ask(begin, end - 5).await, (30, 0), "hot still serves them");
    site.hand_off().await;
    // One of their rows lies a nanosecond before its minute.
    assert_eq!(ask(begin, end - 6).await, (25, 5));
    // Files are merged, some at a time: what they hold is computed again.
    let merge = async || site.stores.cold.compact(&CompactOptions::default()).await.unwrap();
    while merge().await.files_before > 0 {}
    let (again, _) = ask(begin, end - 7).await;
    assert!(again <= 5, "{again}");
    assert_eq!(ask(begin, end - 8).await, (30, 0));
    // Retention takes the first ten minutes, as they were taken in.
    let cutoff = begin + 10 * MINUTE + SECOND;
    let keep = Retention::new((now_ns() - cutoff) / 1_000, BTreeMap::new());
    site.stores.keep_for(&keep).await.unwrap();
    ask(begin, end - 9).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_of_windows_stays_within_the_cap_and_can_be_switched_off() {
    let small = CacheConfig {
        answers: 480_000,
        tenant_answers: 320_000,
        ..CacheConfig::default()
    };
    let (site, _) = half_an_hour(small).await;
    for severity in 0..12 {
        for (who, second) in [(&site.acme, 0), (&site.operator, 1), (&site.acme, 2)] {
            let window = format!(
                "time >= to_timestamp_nanos({}) AND time < to_timestamp_nanos({}) AND severity <> {severity}",
                site.begin,
                site.begin + 20 * MINUTE + second
            );
            site.ask(who, &BY_MINUTE.replace("{w}", &window)).await;
            let (_, _, bytes) = site.keeps.answers();
            assert!(bytes > 0 && bytes <= 480_000, "{bytes}");
        }
    }
    let off = CacheConfig {
        ranges: false,
        ..CacheConfig::default()
    };
    let (site, _) = half_an_hour(off).await;
    for second in 0..3 {
        let window = format!(
            "time >= to_timestamp_nanos({}) AND time < to_timestamp_nanos({})",
            site.begin,
            site.begin + 20 * MINUTE + second
        );
        site.ask(&site.acme, &BY_MINUTE.replace("{w}", &window)).await;
    }
    assert_eq!(site.keeps.ranges(), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_panel_over_bins_of_time_is_put_together_of_ranges() {
    let (site, _) = half_an_hour(CacheConfig::default()).await;
    let (begin, end) = (site.begin, site.begin + 31 * MINUTE);
    for (number, sql) in QUESTIONS.iter().enumerate() {
        let ask = async |to: i64| {
            let sql = sql.replace("{w}", &between(begin, to));
            site.ranges(site.ask(&site.acme, &sql)).await
        };
        let asked = [ask(end).await, ask(end - 1).await, ask(end - 2).await];
        // Groups of all services together, and those of no time, belong to no range; hours are as long as the window.
        let is_whole = [1, 7, 10].contains(&number);
        let [(0, 0), (0, made), (again, 0)] = asked else {
            panic!("{sql}: {asked:?}");
        };
        assert!(made == again && is_whole == (made == 0), "{sql}: {asked:?}");
    }
    let hours = |to: i64| QUESTIONS[1].replace("{w}", &between(begin - 6 * 60 * MINUTE, to));
    site.ask(&site.acme, &hours(end)).await;
    site.ask(&site.acme, &hours(end - 1)).await;
    let (again, _) = site.ranges(site.ask(&site.acme, &hours(end - 2))).await;
    assert!(again >= 5, "{again}");
}

/// Texts as Grafana's PostgreSQL source writes them: `$__timeGroupAlias`, `$__timeGroup` and `$__timeFilter`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn panels_of_grafana_are_put_together_of_ranges() {
    let (site, _) = half_an_hour(CacheConfig::default()).await;
    let text = |ns: i64| {
        format!(
            "{}Z",
            timestamp_ns_to_datetime(ns).unwrap().format("%Y-%m-%dT%H:%M:%S%.3f")
        )
    };
    for sql in [
        "SELECT floor(extract(epoch from time)/60)*60 AS \"time\", service AS metric, count(*) AS n FROM logs WHERE {w} GROUP BY 1, 2 ORDER BY 1, 2",
        "SELECT floor(extract(epoch from \"time\")/300)*300 AS \"time\", max(severity) FROM logs WHERE {w} GROUP BY floor(extract(epoch from \"time\")/300)*300 ORDER BY 1",
        "SELECT date_trunc('minute', time) AS \"time\", avg(severity) FROM logs WHERE {w} AND service = 'service-1' GROUP BY 1 ORDER BY 1",
        "SELECT date_bin('1 minute', time, TIMESTAMP '2001-01-01') AS \"time\", count(*) FROM logs WHERE {w} GROUP BY 1 ORDER BY 1",
    ] {
        let ask = async |moved: i64| {
            let (from, to) = (text(site.begin + moved), text(site.begin + 31 * MINUTE + moved));
            let sql = sql.replace("{w}", &format!("time BETWEEN '{from}' AND '{to}'"));
            let asked = site.ask_in(Dialect::Postgres, &site.acme, &sql);
            site.ranges(async { asked.await.unwrap_or_else(|error| panic!("{sql}: {error}")) })
                .await
        };
        assert_eq!(ask(0).await, (0, 0), "{sql}");
        let (again, made) = ask(SECOND).await;
        assert!(again == 0 && made >= 5, "{sql}: {made}");
        let (again, more) = ask(2 * SECOND).await;
        assert!(again == made && more == 0, "{sql}: {again} again, {more} computed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groupings_that_never_come_again_are_not_kept() {
    let (site, _) = half_an_hour(CacheConfig::default()).await;
    let window = between(site.begin, site.begin + 31 * MINUTE);
    for sql in [
        "SELECT date_bin(INTERVAL '1 minute', time) b, count(*) FILTER (WHERE time > now() - INTERVAL '5 hours') FROM logs WHERE {w} GROUP BY 1 ORDER BY 1",
        "SELECT date_bin(INTERVAL '1 minute', time) b, count(*) FROM logs WHERE {w} AND observed_time < now() GROUP BY 1 ORDER BY 1",
        "SELECT date_bin(INTERVAL '1 minute', time) b, max(CASE WHEN time > now() THEN 1 ELSE 0 END) FROM logs WHERE {w} GROUP BY 1 ORDER BY 1",
    ] {
        let sql = sql.replace("{w}", &window);
        for _ in 0..4 {
            assert_eq!(site.ranges(site.ask(&site.acme, &sql)).await, (0, 0), "{sql}");
        }
    }
    assert_eq!(site.keeps.answers().2, 0, "bytes");
    // The clock as the bound of the window is no part of a grouping.
    let sql = BY_MINUTE.replace("{w}", "time >= now() - INTERVAL '7 hours'");
    site.ask(&site.acme, &sql).await;
    site.ask(&site.acme, &sql).await;
    let (again, _) = site.ranges(site.ask(&site.acme, &sql)).await;
    assert!(again >= 20, "{again}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_failed_or_was_left_halfway_is_not_kept() {
    let (site, _) = half_an_hour(CacheConfig::default()).await;
    let (begin, end) = (site.begin, site.begin + 31 * MINUTE);
    // Rows of one minute alone divide by nothing.
    let broken = "SELECT date_bin(INTERVAL '1 minute', time) b, sum(1000 / (CAST(time AS BIGINT) / 60000000000 - {m})) FROM logs WHERE {w} GROUP BY 1 ORDER BY 1";
    let broken = broken.replace("{m}", &((begin + 12 * MINUTE) / MINUTE).to_string());
    for cut in 0..4 {
        let sql = broken.replace("{w}", &between(begin, end - cut));
        assert!(site.ask_in(Dialect::Ours, &site.acme, &sql).await.is_err());
        assert_eq!(site.keeps.answers().2, 0, "bytes");
    }
    let rule = Rule::new(
        &tenant("acme"),
        now_ns() / 1_000,
        Some(begin + 11 * MINUTE),
        Some(begin + 13 * MINUTE),
    );
    site.stores.erase(&rule).await.unwrap();
    for cut in 4..7 {
        site.ask(&site.acme, &broken.replace("{w}", &between(begin, end - cut)))
            .await;
    }
    let left = |to: i64| {
        BY_MINUTE
            .replace("{w}", &between(begin, to))
            .replace("sum(severity)", "max(severity)")
    };
    for cut in 0..4 {
        let answer = site.keeps.ask(&site.acme, question(&left(end - cut))).await.unwrap();
        drop(answer);
    }
    for cut in 4..7 {
        site.ask(&site.acme, &left(end - cut)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_groups_that_are_too_many_those_of_the_newest_ranges_are_kept() {
    let by_seconds = BY_MINUTE.replace("1 minute", "10 seconds");
    let mut is_half = false;
    for most in [40_000u64, 60_000, 80_000] {
        let small = CacheConfig {
            answers: 8 * most,
            tenant_answers: 8 * most,
            ..CacheConfig::default()
        };
        let (site, _) = half_an_hour(small).await;
        let (begin, end) = (site.begin, site.begin + 31 * MINUTE);
        for cut in 0..5 {
            let sql = by_seconds.replace("{w}", &between(begin, end - cut));
            let (again, made) = site.ranges(site.ask(&site.acme, &sql)).await;
            assert!(cut < 2 || again + made >= 180, "{again} given again, {made} computed");
            is_half |= again > 0 && made > 1;
            if again > 0 {
                // Those at the end of the window, which moves to there.
                let last = by_seconds.replace("{w}", &between(end - 4 * MINUTE, end - 1 - cut));
                let (again, made) = site.ranges(site.ask(&site.acme, &last)).await;
                assert!(again >= 20 && made == 0, "{again} given again, {made} computed");
            }
        }
    }
    assert!(is_half, "no cap lets a part of the ranges be kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_server_hot_rows_are_kept_by_ranges_unless_it_is_one_of_some_copies() {
    let (Some(alone), Some(copied)) = (server_hot().await, copied_hot().await) else {
        return;
    };
    for (hot, is_alone) in [(alone, true), (copied, false)] {
        let (site, _) = half_an_hour_in(Site::over(hot.into(), CacheConfig::default()).await).await;
        let ask = async |to: i64| {
            let sql = BY_MINUTE.replace("{w}", &between(site.begin, to));
            site.ranges(site.ask(&site.acme, &sql)).await
        };
        let end = site.begin + 31 * MINUTE;
        assert_eq!((ask(end).await, ask(end - 1).await), ((0, 0), (0, 30)));
        let (again, made) = ask(end - 2).await;
        assert_eq!(
            (again + made, made == 0),
            (30, is_alone),
            "{again} given again, {made} computed"
        );
        assert!(again >= 20, "those of cold");
    }
}

/// Windows that end with each new row, and begin and end at a minute, or a nanosecond beside it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_at_the_edges_of_ranges_belong_to_one_of_them() {
    let site = Site::new(CacheConfig::default()).await;
    let mut log = Vec::new();
    for minute in 0..26 {
        site.insert(&mut log, 1, 0).await;
        if minute % 4 == 3 {
            site.commit(&log, 3).await;
            site.hand_off().await;
        }
        let window = between(site.clock() - 12 * MINUTE - minute % 3, site.clock() + 1 + minute % 2);
        for sql in [QUESTIONS[0], QUESTIONS[2]] {
            site.ask(&site.operator, &sql.replace("{w}", &window)).await;
        }
    }
    let (again, made) = site.keeps.ranges();
    assert!(again > made, "{again} given again, {made} computed");
}
