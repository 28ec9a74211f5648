//! Erased rows leave the stores by themselves and do not come back by a replay.

use std::time::Duration;

use arrow::array::{Array, AsArray};
use sluice_ingest::config::{Keep, Role};
use sluice_ingest::replay::replay_cold;
use sluice_store::erase::Place;
use sluice_store::{OffsetRange, Rule, Stores};
use sluice_wire::ids::{Partition, TenantId};

use crate::replay::{ALL, Silent, rows_of_cold};
use crate::{ROWS, World, batch, batch_of, clickhouse, now_us};

const HOUR_US: i64 = 3_600_000_000;

/// Data rows of a tenant that can be seen in cold, and what its ledger rows say: accepted, stored, erased.
async fn seen(stores: &Stores, tenant: &str) -> (u64, [u64; 3]) {
    let (mut rows, mut sums) = (0, [0; 3]);
    for (partition, last) in stores.cold.committed().await.unwrap() {
        let range = OffsetRange {
            partition,
            first: 0,
            last,
        };
        for batch in stores.rows_of_cold(range).await.unwrap() {
            let text = |name: &str| batch.column_by_name(name).unwrap().as_string::<i32>().clone();
            let (tenants, signals) = (text("tenant"), text("signal"));
            let attrs = batch.column_by_name("attrs").unwrap().as_map().clone();
            for row in (0..batch.num_rows()).filter(|row| tenants.value(*row) == tenant) {
                if signals.value(row) != "_batch" {
                    rows += 1;
                    continue;
                }
                let entries = attrs.value(row);
                let (keys, values) = (
                    entries.column(0).as_string::<i32>(),
                    entries.column(1).as_string::<i32>(),
                );
                for at in 0..keys.len() {
                    let place = ["accepted", "stored", "erased"]
                        .iter()
                        .position(|name| *name == keys.value(at));
                    if let Some(place) = place {
                        sums[place] += values.value(at).parse::<u64>().unwrap();
                    }
                }
            }
        }
    }
    (rows, sums)
}

fn acme() -> TenantId {
    TenantId::new("acme").unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p3_erased_rows_leave_by_themselves_and_a_replay_does_not_bring_them_back() {
    let mut world = World::new(&[Role::Hot, Role::Cold], 1);
    world.config.cold.compact_every = Duration::from_millis(50);
    let then = now_us() - HOUR_US;
    let batches: Vec<_> = (0..4)
        .flat_map(|seq| [(0, batch(0, seq, 10)), (0, batch_of("bolt", 0, seq, 10))])
        .collect();
    world.append_at(&batches, then).await;
    world.run().await;
    let stores = world.stores().await;
    assert_eq!(seen(&stores, "acme").await, (4 * ROWS, [4 * ROWS, 4 * ROWS, 0]));
    // One row of each batch, by the sender's time.
    let rule = Rule::new(&acme(), then + HOUR_US / 2, Some(1), Some(2));
    stores.erase(&rule).await.unwrap();
    assert_eq!(seen(&stores, "acme").await.0, 4 * (ROWS - 1), "at once");
    let running = world.start().await;
    running.until(|status| status.erased_rows == 4).await;
    let done = async {
        while stores.rules_done(Place::Hot).await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    crate::patiently(done).await;
    running.end().await.unwrap();
    let expected = (4 * (ROWS - 1), [4 * ROWS, 4 * (ROWS - 1), 4]);
    assert_eq!(seen(&stores, "acme").await, expected);
    assert_eq!(seen(&stores, "bolt").await, (4 * ROWS, [4 * ROWS, 4 * ROWS, 0]));

    let before = rows_of_cold(&stores).await;
    let offline = world.offline().await;
    for _ in 0..2 {
        replay_cold(&offline, &stores, ALL, &Silent).await.unwrap();
        assert_eq!(rows_of_cold(&stores).await, before);
    }
    offline.close().await;
    // What comes later is another matter.
    world.append(&[(0, batch(0, 4, 10))]).await;
    world.run().await;
    assert_eq!(seen(&world.stores().await, "acme").await.0, 4 * (ROWS - 1) + ROWS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_older_than_their_tenants_retention_leave() {
    let mut world = World::new(&[Role::Cold], 1);
    world.config.cold.compact_every = Duration::from_millis(50);
    let keep = Keep(Duration::from_secs(5 * 3600));
    world.config.retention.tenants.insert("acme".to_owned(), keep);
    world
        .append_at(
            &[(0, batch(0, 0, 10)), (0, batch_of("bolt", 0, 0, 10))],
            now_us() - 48 * HOUR_US,
        )
        .await;
    world.append(&[(0, batch(0, 1, 10))]).await;
    world.run().await;
    let running = world.start().await;
    running.until(|status| status.erased_rows == ROWS).await;
    running.end().await.unwrap();
    let stores = world.stores().await;
    assert_eq!(seen(&stores, "acme").await, (ROWS, [2 * ROWS, ROWS, ROWS]));
    assert_eq!(seen(&stores, "bolt").await, (ROWS, [ROWS, ROWS, 0]));
}

/// A hot store on a server gets rid of them too, and stays whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p3_erased_rows_leave_a_hot_store_on_a_server() {
    let Some(mut world) = clickhouse::world(&[Role::Hot, Role::Cold]) else {
        return;
    };
    world.config.log.partitions = 1;
    world.config.cold.compact_every = Duration::from_millis(50);
    let then = now_us() - HOUR_US;
    world
        .append_at(&[(0, batch(0, 0, 10)), (0, batch_of("bolt", 0, 0, 10))], then)
        .await;
    world.run_hot_first().await;
    let stores = world.stores().await;
    stores
        .erase(&Rule::new(&acme(), then + HOUR_US / 2, None, None))
        .await
        .unwrap();
    let running = world.start().await;
    let done = async {
        while stores.rules_done(Place::Hot).await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    crate::patiently(done).await;
    let status = running.status.clone();
    running.end().await.unwrap();
    assert_eq!(status.snapshot().await.hot_losses, 0);
    let hot = stores.hot.clickhouse().unwrap();
    let record = stores.seam.load(Partition::default()).await.unwrap();
    let (rows, _) = hot.digest(Partition::default(), &record, (0, 1)).await.unwrap();
    // Two ledger rows, and what the other tenant has.
    assert_eq!(rows, 2 + ROWS, "{record:?}");
    let audit = hot.audit(Partition::default(), &record, 2).await.unwrap();
    assert_eq!(audit, sluice_store::hot::clickhouse::Audit::Whole);
}
