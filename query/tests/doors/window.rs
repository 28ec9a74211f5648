//! A dashboard whose window moves on: the ranges of time that it had are given again, and only those that are new are read.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use sluice_query::QueryConfig;
use sluice_store::{OffsetRange, Stores, Tables, TablesOptions};

use super::node::{BASE_NS, End, Node, PARTITION, ROWS_PER_BATCH, logs_at, record_of};

const MINUTE_NS: u64 = 60_000_000_000;
const MINUTES: u64 = 60;
const COLD_MINUTES: u64 = 55;

/// An hour of rows, four in each minute: a cold file for each of the first ones, the last ones hot.
async fn an_hour(config: QueryConfig) -> (Node, Stores) {
    let folder = tempfile::tempdir().unwrap();
    let lake = folder.path().join("lake");
    let stores = Stores::open(lake.to_str().unwrap(), 64 << 20).await.unwrap();
    let of = |minute: u64| {
        record_of(
            "acme",
            minute,
            &logs_at("acme", BASE_NS + minute * MINUTE_NS + MINUTE_NS / 2),
        )
    };
    for minute in 0..COLD_MINUTES {
        let range = OffsetRange {
            partition: PARTITION,
            first: minute,
            last: minute,
        };
        stores.cold.commit(&[range], of(minute)).await.unwrap();
    }
    stores.seam.claim(PARTITION, COLD_MINUTES, "embedded").await.unwrap();
    let hot = stores.hot.embedded().unwrap();
    hot.claim(PARTITION, COLD_MINUTES);
    for minute in COLD_MINUTES..MINUTES {
        hot.insert(PARTITION, minute, minute, of(minute)).unwrap();
    }
    let options = TablesOptions {
        pin_max_age: Duration::ZERO,
        ..TablesOptions::default()
    };
    let tables = Tables::new(stores.clone(), Arc::new(End(MINUTES)), options);
    (Node::over(config, tables, folder).await, stores)
}

async fn metric(node: &Node, name: &str) -> u64 {
    let text = node.send(node.get("/metrics"), "").await.text();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
    line.unwrap_or_else(|| panic!("no {name} in\n{text}")).parse().unwrap()
}

async fn metrics(node: &Node) -> [u64; 3] {
    [
        metric(node, "sluice_query_ranges_again_total").await,
        metric(node, "sluice_query_ranges_made_total").await,
        metric(node, "sluice_query_lake_bytes_total").await,
    ]
}

/// Forty minutes from one on, as a panel asks for them.
fn panel(from_minute: u64) -> String {
    let moment = |minute: u64| format!("to_timestamp_nanos({})", BASE_NS + minute * MINUTE_NS);
    format!(
        "SELECT date_bin(INTERVAL '1 minute', time) AS minute, service, count(*) AS n, sum(severity) AS s, max(body) AS last FROM logs \
         WHERE time >= {} AND time < {} GROUP BY 1, 2 HAVING count(*) > 1 ORDER BY 1 DESC, 2",
        moment(from_minute),
        moment(from_minute + 40)
    )
}

fn difference(after: [u64; 3], before: [u64; 3]) -> [u64; 3] {
    std::array::from_fn(|at| after[at] - before[at])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_that_moves_on_reads_what_is_new_alone() {
    let (node, stores) = an_hour(QueryConfig::default()).await;
    let mut without = QueryConfig::default();
    without.cache.ranges = false;
    let (plain, _) = an_hour(without).await;
    let same = async |from: u64| {
        let rows: Vec<Vec<Value>> = node.ask(&node.acme, &panel(from)).await.rows();
        assert_eq!(rows, plain.ask(&plain.acme, &panel(from)).await.rows());
        assert_eq!((rows.len(), &rows[0][2]), (40, &Value::from(ROWS_PER_BATCH)));
    };

    // What is asked once is not kept by ranges; from the second time on it is.
    let before = metrics(&node).await;
    same(2).await;
    let first = difference(metrics(&node).await, before);
    assert_eq!(first[..2], [0, 0]);
    let before = metrics(&node).await;
    same(0).await;
    assert_eq!(difference(metrics(&node).await, before)[..2], [0, 40]);
    for minute in [1, 3, 4, 5] {
        let before = metrics(&node).await;
        same(minute).await;
        let next = difference(metrics(&node).await, before);
        let new = if minute == 3 { 2 } else { 1 };
        assert_eq!(next[..2], [40 - new, new], "minute {minute}");
        assert!(next[2] > 0 && next[2] * 10 <= first[2], "{next:?} of {first:?}");
    }
    // Rows of hot are kept as those of cold are.
    let before = metrics(&node).await;
    same(20).await;
    same(19).await;
    assert_eq!(difference(metrics(&node).await, before)[..2], [25 + 40, 15]);

    let explained = node.ask(&node.acme, &format!("EXPLAIN {}", panel(6))).await.text();
    assert!(
        explained.contains("Ranges: 40 of 40 ranges of time given again, 40 groups"),
        "{explained}"
    );
    assert!(!explained.contains("ColdScan: cold"), "{explained}");

    // A late row changes the minute that it belongs to.
    let late = record_of("acme", MINUTES, &logs_at("acme", BASE_NS + 10 * MINUTE_NS + 5));
    stores
        .hot
        .embedded()
        .unwrap()
        .insert(PARTITION, MINUTES, MINUTES, late)
        .unwrap();
    let before = metrics(&node).await;
    let rows = node.ask(&node.acme, &panel(6)).await.rows();
    assert_eq!(difference(metrics(&node).await, before)[..2], [39, 1]);
    let of_ten: Vec<_> = rows.iter().filter(|row| row[2] == 2 * ROWS_PER_BATCH).collect();
    assert_eq!(of_ten.len(), 1, "{rows:?}");
    let of_minute = &of_ten[0][0];
    assert_eq!(of_minute, "2026-11-21T00:10:00.000000000Z");
}
