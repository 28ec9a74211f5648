//! The writer of a hot store on a real ClickHouse engine: where it begins, what it does when the server lost rows, and that replaying
//! the log gives the same rows.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sluice_ingest::config::Role;
use sluice_ingest::{IngestConfig, IngestStatus};
use sluice_store::hot::HotStore;
use sluice_store::hot::clickhouse::Audit;
use sluice_store::{ClickHouseHot, SeamRecord, Stores};
use sluice_wire::ids::Partition;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::{ROWS, World, batch};

const PARTITIONS: u16 = 3;

/// A world whose hot store has a database of its own; `None` without an engine, which is a failure where all must be tested.
pub(crate) fn world(roles: &[Role]) -> Option<World> {
    let Some(url) = std::env::var("SLUICE_TEST_CLICKHOUSE_URL")
        .ok()
        .filter(|url| !url.is_empty())
    else {
        assert!(
            std::env::var_os("CI").is_none(),
            "no SLUICE_TEST_CLICKHOUSE_URL: `cargo xtask services clickhouse` gives one"
        );
        eprintln!("NOT TESTED on ClickHouse: there is no SLUICE_TEST_CLICKHOUSE_URL");
        return None;
    };
    let mut world = World::new(roles, PARTITIONS);
    let number = std::collections::hash_map::RandomState::new().build_hasher().finish();
    world.config.hot.store = HotStore::ClickHouse;
    world.config.hot.clickhouse.url = url;
    world.config.hot.clickhouse.database = format!("writer_{number:016x}");
    Some(world)
}

fn server(config: &IngestConfig) -> ClickHouseHot {
    ClickHouseHot::new(&config.hot.clickhouse.server()).unwrap()
}

async fn records(world: &World) -> BTreeMap<Partition, SeamRecord> {
    let lake = world.dir.path().join("lake");
    let stores = Stores::open(lake.to_str().unwrap(), 0).await.unwrap();
    let mut records = BTreeMap::new();
    for partition in stores.seam.partitions().await.unwrap() {
        records.insert(partition, stores.seam.load(partition).await.unwrap());
    }
    records
}

/// Hot holds everything below these offsets that must be there.
async fn check_whole(world: &World, status: &IngestStatus) {
    let hot = server(&world.config);
    for (partition, record) in records(world).await {
        let shown = status
            .partitions
            .iter()
            .find(|p| p.partition == partition.as_i64())
            .unwrap();
        let audit = hot.audit(partition, &record, shown.log_end).await.unwrap();
        assert_eq!(audit, Audit::Whole, "{record:?}");
    }
}

fn batches(seq: u64) -> Vec<(u16, bytes::Bytes)> {
    (0..PARTITIONS).map(|index| (index, batch(index, seq, 10))).collect()
}

/// A restart goes on behind the saved position: nothing is inserted again, and what comes then is under a new generation.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_a_restart_resumes_where_hot_is_known_to_be_whole() {
    let Some(world) = world(&[Role::Hot]) else { return };
    world.append(&batches(0)).await;
    let first = world.run().await;
    assert_eq!(first.hot_rows, u64::from(PARTITIONS) * (ROWS + 1), "{first:?}");
    world.append(&batches(1)).await;
    // A copy of a batch is a ledger row and nothing else.
    world.append(&batches(1)).await;
    let second = world.run().await;
    assert_eq!(second.hot_rows, u64::from(PARTITIONS) * (ROWS + 2), "{second:?}");
    assert_eq!((second.hot_losses, second.hot_doubts), (0, 0));
    check_whole(&world, &second).await;
    for record in records(&world).await.values() {
        assert_eq!((record.generation(), record.low), (2, None), "{record:?}");
        assert_eq!(record.claims.iter().map(|c| c.from).collect::<Vec<_>>(), [0, 1]);
    }
}

/// A server that lost what it had acknowledged is filled again from the log, with the same rows (P8, F11).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p8_a_server_that_lost_its_rows_is_filled_again() {
    let Some(world) = world(&[Role::Hot]) else { return };
    world.append(&batches(0)).await;
    world.append(&batches(1)).await;
    world.run().await;
    let hot = server(&world.config);
    for day in hot.days(&BTreeMap::new()).await.unwrap() {
        hot.drop_day(&day).await.unwrap();
    }
    let again = world.run().await;
    assert_eq!(again.hot_losses, u64::from(PARTITIONS), "{again:?}");
    assert_eq!(again.hot_rows, u64::from(PARTITIONS) * 2 * (ROWS + 1));
    check_whole(&world, &again).await;
}

/// A relay to the engine that lets the first insert through and gives no answer to it.
async fn forgetful(url: &str) -> (String, Arc<AtomicBool>) {
    let target = url.trim_start_matches("http://").trim_end_matches('/').to_owned();
    let door = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", door.local_addr().unwrap());
    let armed = Arc::new(AtomicBool::new(true));
    let told = Arc::clone(&armed);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = door.accept().await {
            let (target, told) = (target.clone(), Arc::clone(&told));
            tokio::spawn(async move {
                let mut server = TcpStream::connect(&target).await.unwrap();
                let (mut from_client, mut to_client) = client.split();
                let (mut from_server, mut to_server) = server.split();
                let cut = AtomicBool::new(false);
                let up = async {
                    let mut piece = [0; 16 << 10];
                    loop {
                        let n = from_client.read(&mut piece).await.unwrap_or(0);
                        let is_insert = piece[..n].windows(6).any(|word| word == b"INSERT");
                        if is_insert && told.swap(false, Ordering::SeqCst) {
                            cut.store(true, Ordering::SeqCst);
                        }
                        if n == 0 || to_server.write_all(&piece[..n]).await.is_err() {
                            return;
                        }
                    }
                };
                let down = async {
                    let mut piece = [0; 16 << 10];
                    loop {
                        let n = from_server.read(&mut piece).await.unwrap_or(0);
                        // The answer is there, so the server has done what it was told.
                        if n == 0 || cut.load(Ordering::SeqCst) || to_client.write_all(&piece[..n]).await.is_err() {
                            return;
                        }
                    }
                };
                tokio::select! { () = up => {}, () = down => {} }
            });
        }
    });
    (url, armed)
}

/// P2: nobody knows whether an insert was stored; the writer claims again and inserts again, and each row counts once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_an_insert_whose_answer_is_lost_counts_once() {
    let Some(mut world) = world(&[Role::Hot]) else { return };
    // The tables are there before anything is lost.
    server(&world.config).migrate(false).await.unwrap();
    let (url, armed) = forgetful(&world.config.hot.clickhouse.url).await;
    world.config.hot.clickhouse.url = url;
    world.config.hot.clickhouse.migrate = false;
    world.append(&batches(0)).await;
    world.append(&batches(1)).await;
    let running = world.start().await;
    let all = u64::from(PARTITIONS) * 2 * (ROWS + 1);
    let status = running.until(|status| status.hot_rows >= all).await;
    running.end().await.unwrap();
    assert!(!armed.load(Ordering::SeqCst), "every answer came");
    assert_eq!(
        (status.hot_rows, status.hot_doubts, status.hot_losses),
        (all, 1, 0),
        "{status:?}"
    );
    check_whole(&world, &status).await;
    let hot = server(&world.config);
    for (partition, record) in records(&world).await {
        let (rows, _) = hot.digest(partition, &record, (0, 1)).await.unwrap();
        assert_eq!(rows, 2 * (ROWS + 1), "{record:?}");
        assert_eq!(record.generation(), 2, "it was claimed again: {record:?}");
    }
}

/// Where cold holds what hot lost, hot begins above it, and cold serves the rest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p8_what_cold_holds_is_not_inserted_again() {
    let Some(mut world) = world(&[Role::Hot, Role::Cold]) else {
        return;
    };
    world.append(&batches(0)).await;
    let first = world.run().await;
    assert_eq!(first.committed_rows, u64::from(PARTITIONS) * (ROWS + 1));
    let hot = server(&world.config);
    for day in hot.days(&BTreeMap::new()).await.unwrap() {
        hot.drop_day(&day).await.unwrap();
    }
    world.append(&batches(1)).await;
    // Cold stands still, else it may be ahead of hot once more.
    world.config.roles = vec![Role::Hot];
    let second = world.run().await;
    assert_eq!(second.hot_rows, u64::from(PARTITIONS) * (ROWS + 1), "{second:?}");
    check_whole(&world, &second).await;
    for record in records(&world).await.values() {
        assert_eq!(record.low, Some(0), "{record:?}");
    }
}
