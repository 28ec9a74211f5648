//! One table over hot and cold answers as one table in memory does, wherever the seam lies (P8), and only to its tenant.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use arrow::util::pretty::pretty_format_batches;
use common::*;
use datafusion::datasource::MemTable;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use sluice_store::cold::CompactOptions;
use sluice_store::{OffsetRange, Pinned, Scope, Stores, Tables, TablesOptions, physical_rules, register_views};
use sluice_wire::ids::{Partition, TenantId};

const PARTITIONS: u16 = 3;
const LAST: u64 = 17;

/// Where the seam lies in one partition.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// Cold holds up to here, in commits of this many offsets.
    cold: Option<u64>,
    commit: u64,
    /// Hot holds these.
    hot: Option<(u64, u64)>,
    /// Hot has dropped up to here.
    low: Option<u64>,
}

const QUERIES: &[&str] = &[
    "SELECT count(*) FROM events",
    "SELECT count(*), sum(severity), min(\"time\"), max(\"time\") FROM events",
    "SELECT signal, count(*) AS n FROM events GROUP BY signal ORDER BY signal",
    "SELECT service, signal, count(*), avg(duration_ns) FROM events GROUP BY service, signal ORDER BY service, signal",
    "SELECT \"partition\", \"offset\", \"row\" FROM events ORDER BY 1, 2, 3",
    "SELECT * FROM events ORDER BY \"partition\", \"offset\", \"row\"",
    "SELECT \"time\", body FROM events ORDER BY \"time\" DESC, \"partition\", \"offset\", \"row\" LIMIT 7",
    "SELECT \"time\" FROM events WHERE signal = 'log' ORDER BY \"time\" LIMIT 5",
    "SELECT count(*) FROM (SELECT 1 FROM events LIMIT 9)",
    "SELECT count(*) FROM (SELECT body FROM events WHERE severity > 10 LIMIT 3)",
    "SELECT attrs['route'] AS route, count(*) FROM events GROUP BY route ORDER BY route",
    "SELECT count(*) FROM events WHERE attrs['n'] = '7'",
    "SELECT count(*) FROM events WHERE attrs['absent'] IS NULL",
    "SELECT count(*) FROM events WHERE body IS NULL",
    "SELECT count(*) FROM events WHERE service IS NOT NULL AND severity IS NULL",
    "SELECT count(*) FROM events WHERE \"time\" >= TIMESTAMP '2025-11-21T04:40:05Z'",
    "SELECT count(*) FROM events WHERE \"time\" < TIMESTAMP '2025-11-21T04:40:10.000000070Z'",
    "SELECT count(*) FROM events WHERE \"time\" BETWEEN TIMESTAMP '2025-11-20T00:00:00Z' AND TIMESTAMP '2025-11-21T04:40:12Z'",
    "SELECT count(*) FROM events WHERE \"time\" > TIMESTAMP '2025-11-21T04:40:05Z' OR service = 'service-1'",
    "SELECT count(*) FROM events WHERE NOT (\"time\" > TIMESTAMP '2025-11-21T04:40:05Z')",
    "SELECT date_trunc('day', \"time\") AS day, count(*) FROM events GROUP BY day ORDER BY day",
    "SELECT count(*) FROM events WHERE trace_id = '00000000000000000000000000000007'",
    "SELECT \"partition\", \"offset\", \"row\" FROM events WHERE trace_id IN ('00000000000000000000000000000003', '00000000000000000000000000000005') ORDER BY 1, 2, 3",
    "SELECT count(*) FROM events WHERE name LIKE 'name-%' AND duration_ns > 100000",
    "SELECT count(*), max(\"count\"), min(flags) FROM events",
    "SELECT sum(value) FROM events WHERE \"count\" > 18446744073709551600",
    "SELECT count(*) FROM events WHERE flags = 4294967294",
    "SELECT buckets[1], buckets[2] FROM events WHERE signal = 'metric' ORDER BY \"partition\", \"offset\", \"row\"",
    "SELECT count(DISTINCT trace_id), count(DISTINCT service) FROM events",
    "SELECT a.name, count(*) FROM events a JOIN events b ON a.trace_id = b.trace_id AND b.signal = 'log' WHERE a.signal = 'span' GROUP BY a.name ORDER BY a.name",
    "SELECT \"offset\", sum(weight) FROM events WHERE \"partition\" = 1 AND \"offset\" BETWEEN 5 AND 15 GROUP BY \"offset\" ORDER BY 1",
    "SELECT service, row_number() OVER (PARTITION BY service ORDER BY \"partition\", \"offset\", \"row\") AS k FROM events ORDER BY service, k",
    "SELECT max(ingested_at) FROM events WHERE ingested_at < TIMESTAMP '2025-11-21T04:40:15Z'",
    "SELECT count(*) FROM events WHERE service = 'service-1' AND 1 = 0",
    "SELECT body FROM events WHERE \"time\" >= TIMESTAMP '2025-11-21T04:40:05.000000001Z' AND signal = 'log' ORDER BY body LIMIT 4",
    "SELECT count(*) FROM (SELECT 1 FROM events WHERE \"time\" < TIMESTAMP '2025-11-21T04:40:10.000000070Z' LIMIT 6)",
    "SELECT count(*) FROM (SELECT \"row\" FROM events WHERE signal = 'span' AND service IN ('service-1', 'service-2') LIMIT 5)",
    "SELECT count(*) FROM (SELECT 1 FROM events WHERE signal = 'log' AND attrs['n'] = '7' LIMIT 2)",
    "SELECT count(*) FROM events WHERE \"time\" = TIMESTAMP '2025-11-21T04:40:00.000000001Z' OR \"count\" = 18446744073709551610",
    "SELECT count(*) FROM events WHERE flags <> 4294967294 OR flags IS NULL",
];

async fn fill(stores: &Stores, p: Partition, place: Place) {
    let mut next = 0;
    while let Some(cold) = place.cold.filter(|cold| next <= *cold) {
        let last = (next + place.commit - 1).min(cold);
        stores
            .cold
            .commit(
                &[OffsetRange {
                    partition: p,
                    first: next,
                    last,
                }],
                records(p, next..=last),
            )
            .await
            .unwrap();
        next = last + 1;
    }
    if let Some((first, last)) = place.hot {
        claim(stores, p, first).await;
        for first in (first..=last).step_by(3) {
            insert(stores, p, first..=last.min(first + 2)).await.unwrap();
        }
    }
    if let Some(low) = place.low {
        stores.seam.advance(p, low).await.unwrap();
        drop_to(stores, p, low);
    }
}

/// The same place in every partition.
async fn fill_all(stores: &Stores, place: Place) {
    for index in 0..PARTITIONS {
        fill(stores, partition(index), place).await;
    }
}

fn tables(stores: &Stores) -> Tables {
    let ends = Ends::default();
    ends.0
        .lock()
        .unwrap()
        .extend((0..PARTITIONS).map(|index| (partition(index), LAST + 1)));
    let options = TablesOptions {
        pin_max_age: Duration::ZERO,
        seam_max_age: Duration::ZERO,
    };
    Tables::new(stores.clone(), Arc::new(ends), options)
}

fn context() -> SessionContext {
    SessionContext::new_with_config(SessionConfig::new().with_target_partitions(3))
}

/// All rows in one table in memory, filtered in the plainest way.
async fn expected(tenant: Option<&TenantId>) -> SessionContext {
    let rows: Vec<RecordBatch> = (0..PARTITIONS)
        .flat_map(|index| records(partition(index), 0..=LAST))
        .collect();
    let all = context();
    all.register_table(
        "raw",
        Arc::new(MemTable::try_new(rows[0].schema(), vec![rows]).unwrap()),
    )
    .unwrap();
    let mine = tenant.map_or("true".to_owned(), |t| format!("tenant = '{t}'"));
    let text = format!("SELECT * FROM raw WHERE {mine} AND signal <> '_batch' AND quarantined_by IS NULL");
    let rows = all.sql(&text).await.unwrap().collect().await.unwrap();
    let ctx = context();
    ctx.register_table(
        "events",
        Arc::new(MemTable::try_new(sluice_wire::events::schema(), vec![rows]).unwrap()),
    )
    .unwrap();
    ctx
}

async fn ask(ctx: &SessionContext, query: &str) -> String {
    let rows = ctx
        .sql(query)
        .await
        .unwrap_or_else(|e| panic!("{query}: {e}"))
        .collect()
        .await;
    pretty_format_batches(&rows.unwrap_or_else(|e| panic!("{query}: {e}")))
        .unwrap()
        .to_string()
}

async fn check(places: &[Place], lakes: Vec<(tempfile::TempDir, Stores)>) {
    for (_folder, stores) in lakes {
        for (index, place) in places.iter().enumerate() {
            fill(&stores, partition(index as u16), *place).await;
        }
        let pinned = tables(&stores).pin().await.unwrap();
        assert_eq!(pinned.completeness().complete, Some(true), "{places:?}");
        for owner in [Some(tenant(0)), None] {
            let scope = owner.clone().map_or(Scope::All, Scope::Tenant);
            let (ctx, expected) = (context(), expected(owner.as_ref()).await);
            ctx.register_table("events", pinned.events(scope)).unwrap();
            for query in QUERIES {
                assert_eq!(
                    ask(&ctx, query).await,
                    ask(&expected, query).await,
                    "{query}\n{places:?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn p8_hot_alone_answers_as_memory_does() {
    check(
        &[Place {
            cold: None,
            commit: 1,
            hot: Some((0, LAST)),
            low: None,
        }; PARTITIONS as usize],
        lakes(1 << 30).await,
    )
    .await;
}

#[tokio::test]
async fn p8_cold_alone_answers_as_memory_does() {
    check(
        &[Place {
            cold: Some(LAST),
            commit: 6,
            hot: None,
            low: None,
        }; PARTITIONS as usize],
        lakes(1 << 30).await,
    )
    .await;
}

#[tokio::test]
async fn p8_random_seams_answer_as_memory_does() {
    for seed in 0..3 {
        let mut rng = Seeded::new(seed + 99);
        let place = |rng: &mut Seeded| {
            let cold = rng.below(LAST + 1);
            // Either store may be the one that lags, but one of them holds the end.
            let (cold, high) = if rng.below(2) == 0 {
                (LAST, rng.below(LAST + 1))
            } else {
                (cold, LAST)
            };
            let first = rng.below(cold.min(high) + 1);
            let low = (rng.below(3) > 0).then(|| first + rng.below(cold - first + 1));
            // Hot claims at or below C + 1, with L just before the claim at least.
            let low = low.or(first.checked_sub(1));
            Place {
                cold: Some(cold),
                commit: 4 + rng.below(9),
                hot: Some((first, high)),
                low,
            }
        };
        let places: Vec<Place> = (0..PARTITIONS).map(|_| place(&mut rng)).collect();
        // The server takes its time: one seam of these is enough for it.
        let mut lakes = lakes(1 << 30).await;
        lakes.truncate(if seed == 0 { 2 } else { 1 });
        check(&places, lakes).await;
    }
}

async fn with_views(pinned: &Pinned, scope: Scope) -> SessionContext {
    let ctx = context();
    register_views(&ctx, pinned, scope).await.unwrap();
    ctx
}

/// P3: what the ledger says balances, by SQL, and the views agree with the rows.
#[tokio::test]
async fn p3_the_ledger_view_balances_with_the_rows() {
    for (_folder, stores) in lakes(1 << 30).await {
        let place = Place {
            cold: Some(12),
            commit: 5,
            hot: Some((9, LAST)),
            low: Some(10),
        };
        fill_all(&stores, place).await;
        let pinned = tables(&stores).pin().await.unwrap();
        for scope in [Scope::All, Scope::Tenant(tenant(1))] {
            let ctx = with_views(&pinned, scope).await;
            let sum = "SELECT coalesce(sum(\"rows\"), 0) FROM ledger WHERE bucket";
            let balance = format!(
                "SELECT ({sum} = 'accepted') = ({sum} IN ('stored', 'dropped', 'quarantined', 'damaged')) AS ok"
            );
            assert!(ask(&ctx, &balance).await.contains("true"));
            for (counted, rows) in [("stored", "events"), ("quarantined", "quarantined")] {
                let equal = format!("SELECT ({sum} = '{counted}') = (SELECT count(*) FROM {rows}) AS ok");
                assert!(ask(&ctx, &equal).await.contains("true"), "{counted}");
            }
            let parts = "SELECT (SELECT count(*) FROM logs) + (SELECT count(*) FROM spans) + (SELECT count(*) FROM metrics) = (SELECT count(*) FROM events) AS ok";
            assert!(ask(&ctx, parts).await.contains("true"));
            let dropped = ask(
                &ctx,
                "SELECT DISTINCT plugin, reason FROM ledger WHERE bucket = 'dropped'",
            )
            .await;
            assert!(
                dropped.contains("filter") && dropped.contains("debug/noise"),
                "{dropped}"
            );
            let end = "SELECT bool_and(end_time = \"time\" + arrow_cast(duration_ns, 'Duration(Nanosecond)')) AS ok FROM spans";
            assert!(ask(&ctx, end).await.contains("true"));
            // Streams of one partition share a spool id here, so each tenant sees its own share of the numbers as gaps.
            let streams =
                "SELECT sum(gaps + batches) = sum(accepted_upto + 1) AND sum(duplicates) = 0 AS ok FROM streams";
            assert!(ask(&ctx, streams).await.contains("true"));
        }
    }
}

/// What `streams` says is carried forward from query to query, over the seam and over compaction, and equals what a fresh reader
/// finds; it never counts a record twice.
#[tokio::test]
async fn streams_grow_with_the_log_and_equal_a_fresh_look() {
    for (_folder, stores) in lakes(1 << 30).await {
        let p = partition(0);
        claim(&stores, p, 0).await;
        let carried = tables(&stores);
        let text = "SELECT tenant, batches, \"rows\", accepted_rows, gaps, accepted_upto, stored_upto, duplicates FROM streams ORDER BY 1";
        let mut seen = Vec::new();
        for last in 0..=LAST {
            insert(&stores, p, last..=last).await.unwrap();
            if last % 4 == 3 {
                let first = last - 3;
                let range = OffsetRange {
                    partition: p,
                    first,
                    last,
                };
                stores.cold.commit(&[range], records(p, first..=last)).await.unwrap();
                stores.seam.advance(p, last - 1).await.unwrap();
                drop_to(&stores, p, last - 1);
            }
            if last == 11 {
                let report = stores.cold.compact(&CompactOptions::default()).await.unwrap();
                assert!(report.files_before > report.files_after, "{report:?}");
            }
            let shown = ask(&with_views(&carried.pin().await.unwrap(), Scope::All).await, text).await;
            let fresh = tables(&stores).pin().await.unwrap();
            assert_eq!(
                shown,
                ask(&with_views(&fresh, Scope::All).await, text).await,
                "up to {last}"
            );
            let all = ask(
                &with_views(&fresh, Scope::All).await,
                "SELECT (SELECT sum(batches) FROM streams) = (SELECT count(DISTINCT \"offset\") FROM ledger) AS ok, \
             (SELECT sum(\"rows\") FROM streams) = (SELECT sum(\"rows\") FROM ledger WHERE bucket = 'stored') AS ok2",
            )
            .await;
            assert!(all.matches("true").count() == 2, "{all}");
            seen.push(shown);
        }
        seen.dedup();
        assert_eq!(seen.len() as u64, LAST + 1, "every record changed what is shown");
    }
}

/// What was folded into `streams` is never read again: it is there even when its files are not.
#[tokio::test]
async fn streams_read_only_what_came_since() {
    let folder = tempfile::tempdir().unwrap();
    let stores = lake(&folder, 0).await;
    let p = partition(0);
    let commit = async |first, last| {
        let range = OffsetRange {
            partition: p,
            first,
            last,
        };
        stores.cold.commit(&[range], records(p, first..=last)).await.unwrap();
    };
    let carried = tables(&stores);
    let batches = async |tables: &Tables| {
        let ctx = with_views(&tables.pin().await.unwrap(), Scope::All).await;
        let rows = ctx
            .sql("SELECT sum(batches) FROM streams")
            .await
            .unwrap()
            .collect()
            .await;
        rows.map(|rows| pretty_format_batches(&rows).unwrap().to_string())
    };
    commit(0, 5).await;
    assert!(batches(&carried).await.unwrap().contains(" 6 "));
    for day in std::fs::read_dir(folder.path().join("lake/events")).unwrap() {
        let day = day.unwrap();
        if day.file_name().to_string_lossy().starts_with("day=") {
            std::fs::remove_dir_all(day.path()).unwrap();
        }
    }
    commit(6, 7).await;
    assert!(batches(&carried).await.unwrap().contains(" 8 "));
    let fresh = batches(&tables(&stores)).await;
    assert!(fresh.is_err(), "who begins anew needs the files: {fresh:?}");
}

/// Files and chunks that cannot match are passed over, and EXPLAIN says so.
#[tokio::test]
async fn explain_says_what_was_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let stores = lake(&folder, 1 << 30).await;
    fill(
        &stores,
        partition(0),
        Place {
            cold: Some(14),
            commit: 5,
            hot: Some((12, LAST)),
            low: Some(11),
        },
    )
    .await;
    let pinned = tables(&stores).pin().await.unwrap();
    let ctx = with_views(&pinned, Scope::All).await;
    let explain = async |filter: &str| ask(&ctx, &format!("EXPLAIN SELECT body FROM events WHERE {filter}")).await;
    let all = explain("true").await;
    assert!(
        all.contains("HotScan: hot:") && all.contains("ColdScan: cold:"),
        "{all}"
    );
    let none = explain("\"time\" > TIMESTAMP '2031-01-01T00:00:00Z'").await;
    assert!(none.contains("cold: 0 of") && none.contains("hot: 0 of"), "{none}");
    // The engine does not look again at what the scan checks by row, so a limit reaches the scan.
    let checked = ask(
        &ctx,
        "EXPLAIN SELECT body FROM events WHERE \"time\" > TIMESTAMP '2025-01-01T00:00:00Z' AND signal = 'log' LIMIT 3",
    )
    .await;
    assert!(
        checked.contains("fetch=3") && checked.contains("full_filters="),
        "{checked}"
    );
    assert!(!checked.contains("partial_filters="), "{checked}");
    let traced = explain("trace_id = '00000000000000000000000000000007'").await;
    assert!(traced.contains("predicate=trace_id@"), "{traced}");
}

/// A tenant sees its rows only, from both stores and in every view (P13).
#[tokio::test]
async fn p13_a_tenant_sees_no_row_of_another() {
    for (_folder, stores) in lakes(1 << 30).await {
        let place = Place {
            cold: Some(12),
            commit: 13,
            hot: Some((8, LAST)),
            low: Some(7),
        };
        fill_all(&stores, place).await;
        let pinned = tables(&stores).pin().await.unwrap();
        let ctx = with_views(&pinned, Scope::Tenant(tenant(2))).await;
        for table in [
            "events",
            "logs",
            "spans",
            "metrics",
            "ledger",
            "quarantined",
            "streams",
            "plugins",
        ] {
            let seen = ask(&ctx, &format!("SELECT DISTINCT tenant FROM {table}")).await;
            assert!(
                seen.contains("core") && !seen.contains("acme") && !seen.contains("bolt"),
                "{table}: {seen}"
            );
        }
        let nobody = with_views(&pinned, Scope::Tenant(TenantId::new("nobody").unwrap())).await;
        assert!(
            ask(&nobody, "SELECT count(*) = 0 AS ok FROM events")
                .await
                .contains("true")
        );
    }
}

/// `plugins` is the newest word of each edge, and no older one.
#[tokio::test]
async fn plugins_are_what_every_edge_said_last() {
    for (_folder, stores) in lakes(1 << 30).await {
        let p = partition(0);
        claim(&stores, p, 0).await;
        let carried = tables(&stores);
        let mut last_words = std::collections::BTreeMap::new();
        for offset in 0..=LAST {
            let rows = record(p, offset);
            if offset % 3 == 2 {
                last_words.insert(rows[1]["tenant"].as_string::<i32>().value(0).to_owned(), offset);
            }
            insert(&stores, p, offset..=offset).await.unwrap();
            let ctx = with_views(&carried.pin().await.unwrap(), Scope::All).await;
            let text = "SELECT tenant, plugin, version, rows_in, dropped, dropped_by['debug/noise'] AS noise, cpu_us_per_1000_rows AS cost, \
                    last_fault, state FROM plugins ORDER BY tenant";
            let seen: Vec<String> = ask(&ctx, text)
                .await
                .lines()
                .filter(|line| line.contains("filter"))
                .map(|line| {
                    line.split_whitespace()
                        .filter(|word| *word != "|")
                        .collect::<Vec<_>>()
                        .join(" ")
                })
                .collect();
            let expected: Vec<String> = last_words
                .iter()
                .map(|(tenant, n)| format!("{tenant} filter 1.0.{n} {n} {} 2 1000.0 trap current", n + 2))
                .collect();
            assert_eq!(seen, expected, "after {offset}");
        }
        assert!(last_words.len() > 1);
    }
}

/// `ORDER BY … LIMIT n` learns while it runs which files hold nothing that comes before, and does not read their rows.
#[tokio::test]
async fn the_first_rows_are_found_without_reading_all_files() {
    let folder = tempfile::tempdir().unwrap();
    let stores = lake(&folder, 1 << 30).await;
    let p = partition(0);
    // One commit per record; some rows came days late.
    for offset in 0..=LAST {
        let range = OffsetRange {
            partition: p,
            first: offset,
            last: offset,
        };
        stores.cold.commit(&[range], record(p, offset)).await.unwrap();
    }
    let pinned = tables(&stores).pin().await.unwrap();
    // The engine learns from what left the scan, so the batches must be smaller than the few rows here.
    let config = SessionConfig::new().with_target_partitions(1).with_batch_size(4);
    let ctx = SessionContext::new_with_config(config);
    register_views(&ctx, &pinned, Scope::All).await.unwrap();
    let since = "\"time\" > TIMESTAMP '2025-01-01T00:00:00Z'";
    for (filter, first) in [
        ("true", "\"time\" DESC"),
        (since, "\"time\" DESC"),
        ("true", "\"offset\" DESC"),
    ] {
        let text = format!("SELECT body FROM events WHERE {filter} ORDER BY {first} LIMIT 3");
        let analyzed = ask(&ctx, &format!("EXPLAIN ANALYZE {text}")).await;
        // "18 total → 3 matched"
        let pruned = analyzed
            .split("row_groups_pruned_statistics=")
            .nth(1)
            .unwrap_or_default();
        let numbers: Vec<u64> = pruned
            .split(|c: char| !c.is_ascii_digit())
            .filter_map(|n| n.parse().ok())
            .take(2)
            .collect();
        assert!(
            numbers.len() == 2 && numbers[0] > 8 && numbers[1] < numbers[0],
            "{numbers:?}\n{analyzed}"
        );
    }
}

/// Hot alone gives the first rows of an order and nothing more, from each piece of a server's statement and from memory.
#[tokio::test]
async fn hot_gives_the_newest_rows_alone() {
    for (_folder, stores) in lakes(1 << 30).await {
        let place = Place {
            cold: Some(8),
            commit: 3,
            hot: Some((0, LAST)),
            low: None,
        };
        for index in 0..PARTITIONS {
            fill(&stores, partition(index), place).await;
        }
        let pinned = tables(&stores).pin().await.unwrap();
        let config = SessionConfig::new().with_target_partitions(1).with_batch_size(4);
        let state = SessionStateBuilder::new_with_default_features()
            .with_config(config)
            .with_physical_optimizer_rules(physical_rules());
        let ctx = SessionContext::new_with_state(state.build());
        register_views(&ctx, &pinned, Scope::All).await.unwrap();
        let text = "SELECT \"time\", body FROM events WHERE signal = 'log' ORDER BY \"time\" DESC LIMIT 3";
        let analyzed = ask(&ctx, &format!("EXPLAIN ANALYZE {text}")).await;
        let hot = analyzed.lines().find(|line| line.contains("HotScan")).unwrap();
        let number = |name: &str| -> u64 {
            let after = hot
                .split(name)
                .nth(1)
                .unwrap_or_else(|| panic!("no {name} in {analyzed}"));
            after
                .chars()
                .take_while(char::is_ascii_digit)
                .collect::<String>()
                .parse()
                .unwrap()
        };
        match stores.hot.clickhouse() {
            Some(_) => {
                assert!(hot.contains("ordered there, the first 3"), "{analyzed}");
                // Parts in which nothing was set aside are asked apart from those where something was.
                let clean = hot
                    .contains("nothing set aside in ")
                    .then(|| number("nothing set aside in "));
                let pieces = if clean.is_some_and(|clean| clean < number("on the server, ")) {
                    2
                } else {
                    1
                };
                assert_eq!(number("output_rows="), 3 * pieces, "{analyzed}");
            }
            None => assert!(number("chunks_passed_over=") > 0, "{analyzed}"),
        }
    }
}

/// Where cold has nothing to say, an aggregate is one statement of the server; else each tier makes its part. EXPLAIN says which.
#[tokio::test]
async fn aggregates_are_made_where_the_rows_are() {
    let Some((_folder, stores)) = lakes(1 << 30).await.into_iter().nth(1) else {
        return;
    };
    let place = |cold, low| Place {
        cold: Some(cold),
        commit: 3,
        hot: Some((0, LAST)),
        low,
    };
    for index in 0..PARTITIONS {
        fill(&stores, partition(index), place(8, Some(5))).await;
    }
    let pinned = tables(&stores).pin().await.unwrap();
    let state = SessionStateBuilder::new_with_default_features()
        .with_config(SessionConfig::new().with_target_partitions(2))
        .with_physical_optimizer_rules(physical_rules());
    let ctx = SessionContext::new_with_state(state.build());
    register_views(&ctx, &pinned, Scope::All).await.unwrap();
    let text = "SELECT service, count(*), avg(severity), count(DISTINCT name) FROM events";
    let both = ask(&ctx, &format!("EXPLAIN {text} GROUP BY service")).await;
    assert!(
        both.contains("aggregated there") && both.contains("mode=Partial") && both.contains("ColdScan"),
        "{both}"
    );
    assert!(both.contains("served by hot"), "{both}");
    let recent = format!("{text} WHERE \"offset\" > 10 GROUP BY service");
    let alone = ask(&ctx, &format!("EXPLAIN {recent}")).await;
    assert!(
        alone.contains("aggregated there; cold: 0 of")
            && !alone.contains("mode=Partial")
            && !alone.contains("ColdScan"),
        "{alone}"
    );
    assert!(alone.contains("outside of the filters"), "{alone}");
}
