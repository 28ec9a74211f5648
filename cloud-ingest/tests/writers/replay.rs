//! Replaying one day twice changes nothing, and what was lost is the same again.

use std::collections::BTreeMap;

use arrow::array::AsArray;
use arrow::compute::concat_batches;
use arrow::datatypes::TimestampMicrosecondType;
use arrow::record_batch::RecordBatch;
use sluice_ingest::config::Role;
use sluice_ingest::replay::{Progress, ReplayError, Report, When, replay_cold, replay_hot};
use sluice_store::hot::clickhouse::Audit;
use sluice_store::{Lake, OffsetRange, S3Options, Stores};
use sluice_wire::ids::Partition;

use crate::{ROWS, World, batch, clickhouse};

pub(crate) const ALL: When = When {
    from_us: 0,
    to_us: i64::MAX,
};

pub(crate) struct Silent;

impl Progress for Silent {
    fn step(&self, done: u64, of: u64) {
        assert!(done <= of);
    }
}

fn partition(index: u16) -> Partition {
    Partition { generation: 0, index }
}

/// What cold holds of each partition.
pub(crate) async fn rows_of_cold(stores: &Stores) -> Vec<RecordBatch> {
    let mut all = Vec::new();
    for (partition, last) in stores.cold.committed().await.unwrap() {
        let range = OffsetRange {
            partition,
            first: 0,
            last,
        };
        let rows = stores.rows_of_cold(range).await.unwrap();
        all.push(concat_batches(&rows[0].schema(), &rows).unwrap());
    }
    all
}

async fn replay_into_cold(world: &World, when: When) -> Result<Report, ReplayError> {
    let offline = world.offline().await;
    let done = replay_cold(&offline, &world.stores().await, when, &Silent).await;
    offline.close().await;
    done
}

async fn replay_into_hot(world: &World, when: When, from_log: bool) -> Result<Report, ReplayError> {
    let stores = world.stores().await;
    if !from_log {
        return replay_hot(None, &stores, when, &Silent).await;
    }
    let offline = world.offline().await;
    let done = replay_hot(Some(&offline), &stores, when, &Silent).await;
    offline.close().await;
    done
}

/// Batches of both partitions, copies and another content under a known id among them.
async fn fill(world: &mut World) {
    for seqs in [0..4u64, 3..7] {
        let mut batches = Vec::new();
        for seq in seqs {
            batches.extend([(0, batch(0, seq, 10)), (1, batch(1, seq, 20)), (0, batch(0, seq, 10))]);
        }
        batches.push((1, batch(1, 0, 21)));
        world.append(&batches).await;
        match world.config.roles.contains(&Role::Hot) {
            true => world.run_hot_first().await,
            false => drop(world.run().await),
        }
    }
}

async fn cold_is_the_same_again(mut world: World) {
    world.config.cold.commit_rows = 8;
    fill(&mut world).await;
    let stores = world.stores().await;
    let before = rows_of_cold(&stores).await;
    let committed = stores.cold.committed().await.unwrap();
    let times = before[0].column_by_name("ingested_at").unwrap();
    let times = times.as_primitive::<TimestampMicrosecondType>();
    let part = When {
        from_us: times.value(times.len() / 4),
        to_us: times.value(times.len() / 2),
    };
    let nothing = When {
        from_us: i64::MAX - 1,
        to_us: i64::MAX,
    };
    for when in [part, part, nothing, ALL, ALL] {
        let version = stores.cold.version().await.unwrap();
        let report = replay_into_cold(&world, when).await.unwrap();
        assert_eq!(rows_of_cold(&stores).await, before, "{when:?} {report:?}");
        assert_eq!(stores.cold.committed().await.unwrap(), committed);
        let versions = stores.cold.version().await.unwrap() - version;
        assert_eq!(versions, u64::from(!report.ranges.is_empty()), "one commit");
    }
    let whole: usize = before.iter().map(RecordBatch::num_rows).sum();
    assert_eq!(replay_into_cold(&world, ALL).await.unwrap().rows, whole as u64);
    // The writers go on as if nothing had been.
    world.append(&[(0, batch(0, 6, 10)), (0, batch(0, 7, 10))]).await;
    assert_eq!(world.run().await.committed_rows, 1 + ROWS + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_replaying_cold_twice_changes_nothing() {
    cold_is_the_same_again(World::new(&[Role::Hot, Role::Cold], 2)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_replaying_cold_in_a_bucket_twice_changes_nothing() {
    let variable = |name: &str| std::env::var(format!("SLUICE_TEST_S3_{name}")).ok();
    let Some(endpoint) = variable("ENDPOINT") else {
        assert!(
            std::env::var_os("CI").is_none(),
            "this test needs a bucket; see `cargo xtask services --help`"
        );
        eprintln!("NOT RUN: this test needs a bucket; see `cargo xtask services --help`");
        return;
    };
    let options = S3Options {
        endpoint: Some(endpoint),
        region: variable("REGION"),
        virtual_hosts: false,
        allow_http: true,
        access_key: variable("ACCESS_KEY"),
        secret_key: variable("SECRET_KEY"),
    };
    let mut world = World::new(&[Role::Hot, Role::Cold], 2);
    let name = world.dir.path().file_name().unwrap().to_str().unwrap().replace('.', "");
    let bucket = variable("BUCKET").unwrap();
    let at = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_nanos();
    let location = format!("s3://{bucket}/replay-{name}-{at}/lake");
    world.lake = Some(Lake::open(&location, &options).await.unwrap());
    cold_is_the_same_again(world).await;
}

/// Data files that are gone come back from the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_files_of_cold_are_made_again() {
    let mut world = World::new(&[Role::Cold], 2);
    fill(&mut world).await;
    let stores = world.stores().await;
    let before = rows_of_cold(&stores).await;
    let mut lost = 0;
    for day in std::fs::read_dir(world.dir.path().join("lake/events")).unwrap() {
        let day = day.unwrap().path();
        if !day.file_name().unwrap().to_str().unwrap().starts_with("day=") {
            continue;
        }
        for file in std::fs::read_dir(day).unwrap() {
            std::fs::remove_file(file.unwrap().path()).unwrap();
            lost += 1;
        }
    }
    assert!(lost > 1);
    replay_into_cold(&world, ALL).await.unwrap();
    assert_eq!(rows_of_cold(&world.stores().await).await, before);
}

/// A log that was damaged since takes no rows from cold.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_a_damaged_record_of_the_log_takes_no_rows_from_cold() {
    let world = World::new(&[Role::Cold], 1);
    world.append(&[(0, batch(0, 0, 10)), (0, batch(0, 1, 10))]).await;
    world.run().await;
    let before = rows_of_cold(&world.stores().await).await;
    let files = std::fs::read_dir(world.config.data_dir.join("log/g0-p0")).unwrap();
    let used_of = |path: &std::path::PathBuf| {
        let bytes = std::fs::read(path).unwrap();
        bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0)
    };
    let path = files.map(|file| file.unwrap().path()).max_by_key(used_of).unwrap();
    let used = used_of(&path);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[used * 3 / 4] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let refused = replay_into_cold(&world, ALL).await;
    assert!(
        matches!(refused, Err(ReplayError::Damaged { offset: 1, .. })),
        "{refused:?}"
    );
    assert_eq!(rows_of_cold(&world.stores().await).await, before);
}

/// Row for row what hot holds of the partitions, wherever it came from.
async fn digests(world: &World) -> Vec<(u64, u64)> {
    let stores = world.stores().await;
    let hot = stores.hot.clickhouse().unwrap();
    let mut digests = Vec::new();
    for index in 0..2 {
        let record = stores.seam.load(partition(index)).await.unwrap();
        let last = stores.cold.committed().await.unwrap()[&partition(index)];
        let audit = hot.audit(partition(index), &record, last + 1).await.unwrap();
        assert_eq!(audit, Audit::Whole, "{record:?}");
        digests.push(hot.digest(partition(index), &record, (0, last)).await.unwrap());
    }
    digests
}

async fn lose_hot(world: &World) {
    let stores = world.stores().await;
    let hot = stores.hot.clickhouse().unwrap();
    for day in hot.days(&BTreeMap::new()).await.unwrap() {
        hot.drop_day(&day).await.unwrap();
    }
}

/// Dropping the hot table and replaying gives the same rows, from the log and from cold; twice changes nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p8_a_hot_store_that_was_lost_is_the_same_again() {
    let Some(mut world) = clickhouse::world(&[Role::Hot, Role::Cold]) else {
        return;
    };
    world.config.log.partitions = 2;
    fill(&mut world).await;
    let before = digests(&world).await;
    assert!(before.iter().all(|(rows, _)| *rows > 5 * ROWS), "{before:?}");
    for from_log in [true, false] {
        lose_hot(&world).await;
        for _ in 0..2 {
            let report = replay_into_hot(&world, ALL, from_log).await.unwrap();
            assert_eq!(report.rows, before.iter().map(|(rows, _)| rows).sum::<u64>());
            assert_eq!(digests(&world).await, before, "from the log: {from_log}");
        }
    }
    // The writer goes on where it was; cold, which could be first, waits.
    world.config.roles = vec![Role::Hot];
    world.append(&[(0, batch(0, 7, 10)), (1, batch(1, 7, 10))]).await;
    let after = world.run().await;
    assert_eq!((after.hot_rows, after.hot_losses), (2 * (ROWS + 1), 0), "{after:?}");
}

/// A writer that found its rows gone began above cold; what lies below comes back all the same, and the writer is not disturbed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p8_rows_below_the_seam_come_back_while_the_writer_goes_on() {
    let Some(mut world) = clickhouse::world(&[Role::Hot, Role::Cold]) else {
        return;
    };
    world.config.log.partitions = 2;
    fill(&mut world).await;
    let before = digests(&world).await;
    lose_hot(&world).await;
    let lost = world.run().await;
    assert_eq!(lost.hot_losses, 2, "{lost:?}");
    let low = |stores: Stores| async move { stores.seam.load(partition(0)).await.unwrap().low };
    assert!(low(world.stores().await).await.is_some());
    replay_into_hot(&world, ALL, true).await.unwrap();
    assert_eq!(low(world.stores().await).await, None);
    assert_eq!(digests(&world).await, before);
    world.config.roles = vec![Role::Hot];
    // Beside a writer that runs: from cold, which needs no log of this machine.
    world.append(&[(0, batch(0, 7, 10))]).await;
    let running = world.start().await;
    running.until(|status| status.hot_rows == ROWS + 1).await;
    replay_into_hot(&world, ALL, false).await.unwrap();
    // Whoever holds a handle of the status holds the log.
    let status = {
        let handle = running.status.clone();
        running.end().await.unwrap();
        handle.snapshot().await
    };
    assert_eq!((status.hot_losses, status.hot_doubts), (0, 0), "{status:?}");
    world.append(&[(0, batch(0, 8, 10))]).await;
    let after = world.run().await;
    assert_eq!((after.hot_rows, after.hot_losses), (ROWS + 1, 0), "{after:?}");
    digests(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_replayed_is_said() {
    let world = World::new(&[Role::Hot, Role::Cold], 1);
    world.append(&[(0, batch(0, 0, 10))]).await;
    world.run().await;
    let refused = replay_into_hot(&world, ALL, true).await;
    assert!(matches!(refused, Err(ReplayError::EmbeddedHot)), "{refused:?}");
}

/// Claims the second partition while it is made again, as a writer does that takes it over.
struct Claiming(Stores);

impl Progress for Claiming {
    fn step(&self, done: u64, of: u64) {
        if done == of {
            let claim = async {
                let position = self.0.seam.position(partition(1)).await.unwrap().unwrap();
                self.0.seam.claim(partition(1), position.next, "another").await.unwrap();
            };
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(claim));
        }
    }
}

/// Partitions of hot change hands one by one, and whoever is told that it failed is told which did.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_that_fails_half_way_says_what_it_has_done() {
    let Some(mut world) = clickhouse::world(&[Role::Hot, Role::Cold]) else {
        return;
    };
    world.config.log.partitions = 2;
    fill(&mut world).await;
    let before = digests(&world).await;
    let stores = world.stores().await;
    let refused = replay_hot(None, &stores, ALL, &Claiming(stores.clone())).await;
    let Err(ReplayError::Partly { done, of: 2, source }) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(
        done.iter().map(|range| range.partition).collect::<Vec<_>>(),
        [partition(0)]
    );
    assert!(matches!(*source, ReplayError::Seam(_)), "{source:?}");
    assert_eq!(digests(&world).await, before);
}
