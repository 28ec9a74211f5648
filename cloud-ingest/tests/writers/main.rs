//! The writers through the service: what they do with the log, the stores and their own files over restarts.
#![allow(clippy::unwrap_used)]

mod balance;
mod clickhouse;
mod erase;
mod replay;
#[path = "../common/batch.rs"]
mod sealed;
mod set_aside;

use std::future::Future;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use sluice_ingest::config::Role;
use sluice_ingest::log::{EmbeddedOptions, Head, OpenError};
use sluice_ingest::offline::{Offline, OfflineError};
use sluice_ingest::writer::WriterError;
use sluice_ingest::{EmbeddedLog, IngestConfig, IngestService, IngestStatus, Log, RunError, StatusHandle};
use sluice_store::{Lake, Skip, Stores};
use sluice_wal::WalError;
use sluice_wire::envelope::Envelope;
use sluice_wire::ids::Partition;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::sealed::ROWS;

/// Only a failure waits so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// The folders of one ingest and its configuration.
struct World {
    dir: tempfile::TempDir,
    config: IngestConfig,
    /// Elsewhere than in the folder.
    lake: Option<Lake>,
}

struct Running {
    status: StatusHandle,
    stop: CancellationToken,
    task: JoinHandle<Result<(), RunError>>,
}

impl World {
    fn new(roles: &[Role], partitions: u16) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = IngestConfig {
            roles: roles.to_vec(),
            data_dir: dir.path().join("data"),
            ..IngestConfig::default()
        };
        config.log.partitions = partitions;
        // Nothing happens by itself unless a test says so.
        config.cold.commit_every = Duration::from_secs(3600);
        let lake = None;
        Self { dir, config, lake }
    }

    /// Puts batches into the log while nothing runs.
    async fn append(&self, batches: &[(u16, Bytes)]) {
        self.append_at(batches, now_us()).await;
    }

    /// As if they had been taken in at another time.
    async fn append_at(&self, batches: &[(u16, Bytes)], at_us: i64) {
        let options = EmbeddedOptions {
            generation: 0,
            partitions: self.config.log.partitions,
            segment_bytes: self.config.log.segment,
            max_envelope_bytes: self.config.gateway.max_batch as u32,
            ballast_bytes: 1 << 20,
        };
        let log = loop {
            match EmbeddedLog::open(&self.config.data_dir.join("log"), &options) {
                // A reader of the service that has just ended may hold it for a moment.
                Err(OpenError::Partition {
                    source: WalError::Locked,
                    ..
                }) => tokio::task::yield_now().await,
                other => break other.unwrap(),
            }
        };
        for (index, envelope) in batches {
            let partition = Partition {
                generation: 0,
                index: *index,
            };
            let head = Head::from(&Envelope::parse(envelope.clone()).unwrap().header);
            log.append(partition, &head, envelope.clone(), at_us).await.unwrap();
        }
        log.close().await;
    }

    async fn stores(&self) -> Stores {
        let hot = self.config.hot.open().unwrap();
        match &self.lake {
            Some(lake) => Stores::open_in(lake, hot).await.unwrap(),
            None => {
                let lake = self.dir.path().join("lake");
                Stores::open_with(lake.to_str().unwrap(), hot).await.unwrap()
            }
        }
    }

    async fn start(&self) -> Running {
        let service = IngestService::build(self.config.clone(), self.stores().await).unwrap();
        let (status, stop) = (service.status(), CancellationToken::new());
        let task = tokio::spawn(service.run(stop.clone()));
        Running { status, stop, task }
    }

    /// Runs until the writers have taken in what the log holds.
    async fn run(&self) -> IngestStatus {
        let running = self.start().await;
        running.stop.cancel();
        let status = running.status.clone();
        running.end().await.unwrap();
        status.snapshot().await
    }

    /// What the service leaves when it rests. A reader of one that has just ended may hold the log for a moment.
    async fn offline(&self) -> Offline {
        loop {
            match Offline::open(&self.config).await {
                Err(OfflineError::InUse { .. }) => tokio::task::yield_now().await,
                other => break other.unwrap(),
            }
        }
    }

    /// Runs hot before cold: a hot writer that begins when cold has everything leaves it there.
    async fn run_hot_first(&mut self) {
        let all = self.config.roles.clone();
        for role in [Role::Hot, Role::Cold] {
            self.config.roles = vec![role];
            self.run().await;
        }
        self.config.roles = all;
    }
}

impl Running {
    /// The first status for which a condition holds.
    async fn until(&self, holds: impl Fn(&IngestStatus) -> bool) -> IngestStatus {
        let seen = async {
            loop {
                let status = self.status.snapshot().await;
                if holds(&status) {
                    return status;
                }
                assert!(!self.task.is_finished(), "ingest ended by itself");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        patiently(seen).await
    }

    async fn end(self) -> Result<(), RunError> {
        self.stop.cancel();
        patiently(self.task).await.unwrap()
    }
}

async fn patiently<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("in time")
}

fn now_us() -> i64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_micros() as i64
}

/// Three log records of `bytes` of text each.
fn batch(node: u16, seq: u64, bytes: usize) -> Bytes {
    batch_of("acme", node, seq, bytes)
}

fn batch_of(tenant: &str, node: u16, seq: u64, bytes: usize) -> Bytes {
    sealed::batch_of(tenant, node, seq, Some(&"x".repeat(bytes)))
}

/// Three log records of text that does not become smaller.
fn noise(seq: u64, bytes: usize) -> Bytes {
    let mut state = seq.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let letters = (0..bytes).map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b'!' + (state >> 32) as u8 % 90)
    });
    sealed::batch_of("acme", 0, seq, Some(&letters.collect::<String>()))
}

/// Small files become few by themselves; what no commit names goes after a week, and not before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_files_are_merged_and_old_orphans_removed_by_schedule() {
    let mut world = World::new(&[Role::Cold], 6);
    // One commit for each partition.
    world.config.cold.commit_rows = 1;
    world.config.cold.compact_every = Duration::from_millis(50);
    world.config.cold.vacuum_every = Duration::from_millis(50);
    let batches: Vec<_> = (0..6).map(|index| (index, batch(index, 0, 10))).collect();
    world.append(&batches).await;
    let day = world.dir.path().join("lake/events/day=2026-01-01");
    std::fs::create_dir_all(&day).unwrap();
    let orphan = |name: &str, age: Duration| {
        let path = day.join(name);
        std::fs::write(&path, b"left by a writer that died").unwrap();
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(SystemTime::now() - age).unwrap();
        path
    };
    let hour = Duration::from_secs(3600);
    let (old, young) = (
        orphan("old.parquet", 8 * 24 * hour),
        orphan("young.parquet", 6 * 24 * hour),
    );

    let running = world.start().await;
    // Data rows and ledger rows stay apart.
    // What a status says of the table is a moment older than its counters.
    let status = running
        .until(|status| {
            let merged = status.merged_files >= 12 && status.cold_files == Some(2);
            status.commits == 6 && merged && status.removed_files > 0
        })
        .await;
    assert_eq!(status.tidy_failures, 0, "{status:?}");
    assert_eq!(status.committed_rows, 6 * (ROWS + 1));
    assert!(!old.exists() && young.exists());
    running.end().await.unwrap();
    // The log can still be followed on, and nothing comes twice.
    world.append(&batches).await;
    assert_eq!(world.run().await.committed_rows, 6);
}

/// P15: hot that is full makes cold commit at once, then drops all that cold holds, and goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p15_a_full_hot_store_is_relieved_although_nothing_is_due() {
    const PARTITIONS: u16 = 8;
    let mut world = World::new(&[Role::Hot, Role::Cold], PARTITIONS);
    world.config.hot.max_memory = 10 << 20;
    // More than one partition's rows: only force drops them.
    world.config.hot.keep = 9 << 20;
    let batches: Vec<_> = (0..PARTITIONS).map(|index| (index, batch(index, 0, 1 << 20))).collect();
    world.append(&batches).await;
    let running = world.start().await;
    let status = running
        .until(|status| status.partitions.iter().all(|p| p.hot_end == Some(1)))
        .await;
    assert!(
        status.commits > 0 && status.hot_bytes <= status.hot_cap_bytes,
        "{status:?}"
    );
    running.end().await.unwrap();
}

/// A log that was lost or replaced by an old copy is refused before anything is appended to it (P2).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_a_log_that_ends_before_cold_is_refused() {
    for roles in [&[Role::Cold][..], &[Role::Hot, Role::Cold]] {
        let world = World::new(roles, 1);
        world.append(&[(0, batch(0, 0, 10)), (0, batch(0, 1, 10))]).await;
        world.run().await;
        std::fs::remove_dir_all(world.config.data_dir.join("log")).unwrap();
        world.append(&[(0, batch(0, 2, 10))]).await;
        let ended = patiently(world.start().await.task).await.unwrap();
        let refused = matches!(
            ended,
            Err(RunError::Begin(WriterError::LogBehind { end: 1, held: 2, .. }))
        );
        assert!(refused, "{ended:?}");
    }
}

/// P3: a record that an operator told the writers to pass over is counted damage, and all others are stored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p3_a_record_that_is_passed_over_is_counted_and_its_neighbours_are_stored() {
    let world = World::new(&[Role::Hot, Role::Cold], 1);
    let batches: Vec<_> = (0..4).map(|seq| (0, batch(0, seq, 10))).collect();
    world.append(&batches).await;
    let lake = world.dir.path().join("lake");
    let stores = Stores::open(lake.to_str().unwrap(), 0).await.unwrap();
    for (offset, reason) in [(2, b"broken".to_vec()), (7, b"not there yet".to_vec())] {
        stores.skips.make("0", offset, reason).await.unwrap();
    }
    assert_eq!(world.run().await.committed_rows, 3 * (ROWS + 1) + 1);
    // A copy of it comes too late, as after a tombstone; the offset that came meanwhile is passed over.
    world
        .append(&[(0, batch(0, 2, 10)), (0, batch(0, 4, 10)), (0, batch(0, 5, 10))])
        .await;
    assert_eq!(world.run().await.committed_rows, 1 + 2 * (ROWS + 1));
    world.append(&[(0, batch(0, 6, 10)), (0, batch(0, 7, 10))]).await;
    assert_eq!(world.run().await.committed_rows, 1 + ROWS + 1);
}

/// A log that has lost its oldest file stops the writers, and tells the way on: what is lost is passed over, and the rest is stored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_a_log_without_its_oldest_file_goes_on_when_the_lost_records_are_passed_over() {
    for before in [0u64, 2] {
        let mut world = World::new(&[Role::Hot, Role::Cold], 1);
        world.config.log.segment = 1 << 20;
        world
            .append(&(0..before).map(|seq| (0, batch(0, seq, 10))).collect::<Vec<_>>())
            .await;
        if before > 0 {
            world.run().await;
        }
        // Random, so that it stays large: two files and some.
        let large = |seq: u64| {
            let mut batches = Vec::new();
            for at in 0..40 {
                batches.push((0, noise(seq * 40 + at, 64 << 10)));
            }
            batches
        };
        world.append(&large(1)).await;
        world.append(&[(0, batch(0, 100, 10))]).await;
        let folder = world.config.data_dir.join("log/g0-p0");
        let mut files: Vec<_> = std::fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "wal"))
            .collect();
        files.sort();
        assert!(files.len() > 1, "{files:?}");
        std::fs::remove_file(&files[0]).unwrap();
        let ended = patiently(world.start().await.task).await.unwrap();
        let Err(RunError::Writer { source, .. }) = &ended else {
            panic!("{ended:?}")
        };
        let WriterError::Forgotten { known, first, .. } = source else {
            panic!("{source:?}")
        };
        assert!(
            source
                .to_string()
                .contains(&format!("sluice log skip 0@{known}-{}", first - 1)),
            "{source}"
        );
        assert_eq!(*known, before);
        let stores = world.stores().await;
        let skip = Skip {
            first: *known,
            last: first - 1,
            reason: "the disk lost it".to_owned(),
        };
        assert!(stores.skip(Partition::default(), &skip).await.unwrap());
        let status = world.run().await;
        // Each record that is left, and a ledger row for each that is lost.
        let (all, lost) = (before + 41, first - known);
        assert_eq!(status.partitions[0].cold_end, Some(all));
        assert_eq!(status.committed_rows, lost + (all - first) * (ROWS + 1));
        world.append(&[(0, batch(0, 101, 10))]).await;
        assert_eq!(world.run().await.committed_rows, ROWS + 1);
    }
}

/// P16: without a usable state of duplicates the log is folded anew, so what came before is still recognised; and a good one is used.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p16_a_damaged_state_of_duplicates_is_folded_anew() {
    let break_it: [fn(&std::path::Path); 4] = [
        |_| {},
        |path| std::fs::remove_file(path).unwrap(),
        |path| std::fs::write(path, b"").unwrap(),
        |path| {
            let mut bytes = std::fs::read(path).unwrap();
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
            std::fs::write(path, bytes).unwrap();
        },
    ];
    for damage in break_it {
        let world = World::new(&[Role::Cold], 1);
        world.append(&[(0, batch(0, 0, 10)), (0, batch(0, 1, 10))]).await;
        assert_eq!(world.run().await.committed_rows, 2 * (ROWS + 1));
        damage(&world.config.data_dir.join("writers/duplicates-0"));
        world
            .append(&[(0, batch(0, 1, 10)), (0, batch(0, 0, 10)), (0, batch(0, 2, 10))])
            .await;
        // Two ledger rows for the copies; one batch with its ledger row.
        assert_eq!(world.run().await.committed_rows, 2 + ROWS + 1);
    }
}
