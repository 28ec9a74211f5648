//! Erased rows leave the stores by themselves and do not come back by a replay.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrow::array::{Array, AsArray};
use sluice_ingest::config::{Keep, Role};
use sluice_ingest::replay::{Progress, replay_cold, replay_hot};
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
    let rule = &stores.rules().await.unwrap()[&1];
    assert_eq!(
        hot.count_erased(&rule.erasure()).await.unwrap(),
        0,
        "nothing is left, whether it counts or not"
    );
}

/// Until a rule is done in a place.
async fn done(stores: &Stores, place: Place, number: u64) {
    let done = async {
        while !stores.rules_done(place).await.unwrap().contains_key(&number) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    crate::patiently(done).await;
}

/// A hot writer that is behind cold would bring erased rows again: the rule is done when it cannot any more, and the old rows are gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p3_a_rule_is_not_done_in_hot_before_its_writer_has_passed_it() {
    let Some(mut world) = clickhouse::world(&[Role::Hot, Role::Cold]) else {
        return;
    };
    world.config.log.partitions = 1;
    let then = now_us() - HOUR_US;
    world.append_at(&[(0, batch(0, 0, 10))], then).await;
    world.run_hot_first().await;
    world.config.roles = vec![Role::Cold];
    world.append_at(&[(0, batch(0, 1, 10))], then + 1).await;
    world.run().await;
    let stores = world.stores().await;
    let hot = stores.hot.clickhouse().unwrap();
    let rule = Rule::new(&acme(), then + HOUR_US / 2, None, None);
    assert_eq!(stores.erase(&rule).await.unwrap(), 1);
    world.config.cold.compact_every = Duration::from_millis(50);
    let running = world.start().await;
    done(&stores, Place::Cold, 1).await;
    // Two more rules are done one after the other: so at least one whole turn came after the first.
    for number in [2, 3] {
        let other = Rule::new(&TenantId::new("core").unwrap(), then, None, None);
        assert_eq!(stores.erase(&other).await.unwrap(), number);
        done(&stores, Place::Cold, number).await;
    }
    assert!(hot.count_erased(&rule.erasure()).await.unwrap() > 0);
    assert!(!stores.rules_done(Place::Hot).await.unwrap().contains_key(&1));
    running.end().await.unwrap();
    world.config.roles = vec![Role::Hot, Role::Cold];
    let running = world.start().await;
    done(&stores, Place::Hot, 1).await;
    assert_eq!(hot.count_erased(&rule.erasure()).await.unwrap(), 0);
    running.end().await.unwrap();
}

/// Erases something at the first step, and takes it out of cold as the writers do.
struct Erasing {
    stores: Stores,
    rule: Rule,
    is_done: AtomicBool,
}

impl Progress for Erasing {
    fn step(&self, _: u64, _: u64) {
        if self.is_done.swap(true, Ordering::Relaxed) {
            return;
        }
        let erase = async {
            self.stores.erase(&self.rule).await.unwrap();
            let erased = self.stores.erased_for_good(now_us()).await.unwrap();
            let cold = &self.stores.cold;
            cold.erase(&erased, &mut sluice_store::cold::Cleaned::default())
                .await
                .unwrap();
        };
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(erase));
    }
}

/// What is erased while a replay runs does not come back by it: the stores are rid of it, and nobody would look again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p3_what_is_erased_while_cold_is_made_again_does_not_come_back() {
    let world = World::new(&[Role::Cold], 1);
    let then = now_us() - HOUR_US;
    let batches = [
        (0, batch(0, 0, 10)),
        (0, batch_of("bolt", 0, 0, 10)),
        (0, batch(0, 1, 10)),
    ];
    world.append_at(&batches, then).await;
    world.run().await;
    let stores = world.stores().await;
    let erasing = Erasing {
        stores: stores.clone(),
        rule: Rule::new(&acme(), then + HOUR_US / 2, None, None),
        is_done: AtomicBool::new(false),
    };
    let offline = world.offline().await;
    replay_cold(&offline, &stores, ALL, &erasing).await.unwrap();
    offline.close().await;
    assert!(erasing.is_done.load(Ordering::Relaxed));
    let (partition, last) = (Partition::default(), 2);
    let range = OffsetRange {
        partition,
        first: 0,
        last,
    };
    let rows = stores.whole_rows_of_cold(range).await.unwrap();
    let rows: usize = rows.iter().map(arrow::array::RecordBatch::num_rows).sum();
    assert_eq!(
        rows as u64,
        3 + ROWS,
        "three ledger rows, and what the other tenant has"
    );
    assert_eq!(seen(&stores, "acme").await, (0, [2 * ROWS, 0, 2 * ROWS]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p3_what_is_erased_while_hot_is_made_again_does_not_come_back() {
    let Some(mut world) = clickhouse::world(&[Role::Hot, Role::Cold]) else {
        return;
    };
    world.config.log.partitions = 1;
    let then = now_us() - HOUR_US;
    let batches = [
        (0, batch(0, 0, 10)),
        (0, batch_of("bolt", 0, 0, 10)),
        (0, batch(0, 1, 10)),
    ];
    world.append_at(&batches, then).await;
    world.run_hot_first().await;
    let stores = world.stores().await;
    let erasing = |number: i64| Erasing {
        stores: stores.clone(),
        rule: Rule::new(&acme(), then + HOUR_US / 2, None, Some(number)),
        is_done: AtomicBool::new(false),
    };
    let hot = stores.hot.clickhouse().unwrap();
    // From the log all but the last row of each batch is erased, from cold the last one, too.
    for (from_log, to_ns, left) in [(true, 2, 2), (false, 3, 0)] {
        let offline = match from_log {
            true => Some(world.offline().await),
            false => None,
        };
        replay_hot(offline.as_ref(), &stores, ALL, &erasing(to_ns))
            .await
            .unwrap();
        if let Some(offline) = offline {
            offline.close().await;
        }
        let record = stores.seam.load(Partition::default()).await.unwrap();
        let (rows, _) = hot.digest(Partition::default(), &record, (0, 2)).await.unwrap();
        assert_eq!(rows, 3 + ROWS + left, "from the log: {from_log}, {record:?}");
    }
}
