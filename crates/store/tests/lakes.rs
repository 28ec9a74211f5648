//! What the stores rest on, tried alike on a folder and on a bucket (`SLUICE_TEST_S3_ENDPOINT`, as `cargo xtask services s3` gives it).
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch, StringArray};
use arrow::datatypes::Int64Type;
use common::*;
use datafusion::prelude::SessionContext;
use sluice_store::cold::{Cleaned, CompactOptions, Known, Replacement};
use sluice_store::{ColdTable, CommitError, EmbeddedHot, Lake, LakeError, Rule, S3Options, Scope, Stores, Tables};
use sluice_wire::ids::Partition;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A lake of its own for each test, with what keeps it there.
struct Place {
    lake: Lake,
    _folder: Option<tempfile::TempDir>,
}

impl Place {
    async fn folder() -> Place {
        let folder = tempfile::tempdir().unwrap();
        let location = folder.path().join("lake");
        Place {
            lake: Lake::open(location.to_str().unwrap(), &S3Options::default())
                .await
                .unwrap(),
            _folder: Some(folder),
        }
    }

    /// `None` where no engine is and none must be.
    async fn bucket() -> Option<Place> {
        Self::bucket_at(|endpoint| endpoint).await
    }

    /// The same under another address of it.
    async fn bucket_at(address: impl FnOnce(String) -> String) -> Option<Place> {
        let variable = |name: &str| std::env::var(format!("SLUICE_TEST_S3_{name}")).ok();
        let Some(endpoint) = variable("ENDPOINT") else {
            assert!(
                std::env::var_os("CI").is_none(),
                "this test needs a bucket; see `cargo xtask services --help`"
            );
            eprintln!("NOT RUN: this test needs a bucket; see `cargo xtask services --help`");
            return None;
        };
        let options = S3Options {
            endpoint: Some(address(endpoint)),
            region: variable("REGION"),
            virtual_hosts: false,
            allow_http: true,
            access_key: variable("ACCESS_KEY"),
            secret_key: variable("SECRET_KEY"),
        };
        let location = format!("s3://{}/{}/lake", variable("BUCKET").unwrap(), uuid::Uuid::new_v4());
        Some(Place {
            lake: Lake::open(&location, &options).await.unwrap(),
            _folder: None,
        })
    }

    async fn stores(&self) -> Stores {
        Stores::open_in(&self.lake, EmbeddedHot::new(1 << 30).into())
            .await
            .unwrap()
    }
}

/// Runs a test on both.
macro_rules! everywhere {
    ($($(#[$doc:meta])* $name:ident;)*) => { $(
        mod $name {
            use super::Place;

            $(#[$doc])*
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn in_a_folder() {
                super::checks::$name(&Place::folder().await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn in_a_bucket() {
                if let Some(place) = Place::bucket().await {
                    super::checks::$name(&place).await;
                }
            }
        }
    )* };
}

everywhere! {
    p2_writers_that_race_store_each_row_once;
    p2_the_ends_survive_a_restart_over_a_checkpoint;
    p8_queries_are_whole_while_rows_move_from_hot_to_cold;
    compaction_and_vacuum_change_no_answer;
    files_that_are_written_in_parts_hold_every_row;
    racing_claims_never_share_a_generation;
    the_newest_state_is_the_one_with_the_highest_number;
}

/// Rows, and distinct places of rows: they differ when one is seen twice.
async fn counts(tables: &Tables) -> (i64, i64) {
    let pinned = tables.pin().await.unwrap();
    let ctx = SessionContext::new();
    ctx.register_table("e", pinned.everything(Scope::All)).unwrap();
    let place = "\"partition\" * 1000000 + \"offset\" * 1000 + \"row\"";
    let text = format!("SELECT count(*), count(DISTINCT {place}) FROM e");
    let rows = ctx.sql(&text).await.unwrap().collect().await.unwrap();
    let int = |column: usize| rows[0].column(column).as_primitive::<Int64Type>().value(0);
    (int(0), int(1))
}

mod checks {
    use super::*;

    /// Three processes that know nothing of each other, two of them with the same partition.
    pub(super) async fn p2_writers_that_race_store_each_row_once(place: &Place) {
        place.stores().await;
        let write = |p: Partition, step: u64| {
            let lake = place.lake.clone();
            tokio::spawn(async move {
                let cold = ColdTable::open_in(&lake, "events").await.unwrap();
                loop {
                    let first = cold.committed().await.unwrap().get(&p).map_or(0, |last| last + 1);
                    if first >= 12 {
                        return;
                    }
                    let last = (first + step - 1).min(11);
                    match cold.commit(&[range(p, first, last)], records(p, first..=last)).await {
                        Ok(_) | Err(CommitError::Overlap { .. } | CommitError::Gap { .. }) => {}
                        // Others were faster each time.
                        Err(CommitError::Cold(error)) => eprintln!("again, after {error:?}"),
                        Err(error) => panic!("{error:?}"),
                    }
                }
            })
        };
        for writer in [write(partition(0), 1), write(partition(0), 2), write(partition(1), 3)] {
            writer.await.unwrap();
        }
        let rows = rows_of(&[range(partition(0), 0, 11), range(partition(1), 0, 11)]);
        let stores = place.stores().await;
        assert_eq!(counts(&tables(&stores)).await, (rows, rows));
        assert_eq!(stores.cold.extent().await.unwrap().rows as i64, rows);
    }

    pub(super) async fn p2_the_ends_survive_a_restart_over_a_checkpoint(place: &Place) {
        let p = partition(3);
        let cold = place.stores().await.cold;
        // A checkpoint is made after a hundred versions.
        for offset in 0..=104 {
            cold.commit(&[range(p, offset, offset)], record(p, offset))
                .await
                .unwrap();
        }
        let stores = place.stores().await;
        assert_eq!(stores.cold.committed().await.unwrap(), BTreeMap::from([(p, 104)]));
        let rows = rows_of(&[range(p, 0, 104)]);
        assert_eq!(counts(&tables(&stores)).await, (rows, rows));
    }

    pub(super) async fn p8_queries_are_whole_while_rows_move_from_hot_to_cold(place: &Place) {
        const LAST: u64 = 14;
        let (stores, p) = (place.stores().await, partition(0));
        stores.seam.claim(p, 0, "embedded").await.unwrap();
        let hot = stores.hot.embedded().unwrap();
        hot.claim(p, 0);
        for offset in 0..=LAST {
            hot.insert(p, offset, offset, record(p, offset)).unwrap();
        }
        let rows = rows_of(&[range(p, 0, LAST)]);
        let done = Arc::new(AtomicBool::new(false));
        let mover = {
            let (stores, done) = (stores.clone(), Arc::clone(&done));
            tokio::spawn(async move {
                for first in (0..=LAST).step_by(3) {
                    let last = first + 2;
                    let moved = records(p, first..=last);
                    stores.cold.commit(&[range(p, first, last)], moved).await.unwrap();
                    stores.seam.advance(p, last).await.unwrap();
                    drop_to(&stores, p, last);
                    let settled = Some(BTreeMap::from([(p, last)]));
                    let options = CompactOptions {
                        settled,
                        ..CompactOptions::default()
                    };
                    stores.cold.compact(&options).await.unwrap();
                }
                done.store(true, Ordering::SeqCst);
            })
        };
        let tables = tables(&stores);
        let mut answers = 0;
        loop {
            let was_done = done.load(Ordering::SeqCst);
            assert_eq!(counts(&tables).await, (rows, rows));
            answers += 1;
            if was_done {
                break;
            }
        }
        mover.await.unwrap();
        assert!(answers > 2, "{answers} answers");
        assert_eq!(stores.hot.bytes(), 0);
    }

    pub(super) async fn compaction_and_vacuum_change_no_answer(place: &Place) {
        let (stores, p) = (place.stores().await, partition(0));
        for offset in 0..8 {
            stores
                .cold
                .commit(&[range(p, offset, offset)], record(p, offset))
                .await
                .unwrap();
        }
        let tables = tables(&stores);
        let before = counts(&tables).await;
        let report = stores.cold.compact(&CompactOptions::default()).await.unwrap();
        assert!(
            report.files_before > report.files_after && !report.lost_race,
            "{report:?}"
        );
        assert_eq!(counts(&tables).await, before);
        let vacuum = stores.cold.vacuum(Duration::ZERO).await.unwrap();
        assert_eq!(vacuum.files_removed, report.files_before);
        assert_eq!(counts(&tables).await, before);
        let again = place.stores().await;
        assert_eq!(again.cold.committed().await.unwrap(), BTreeMap::from([(p, 7)]));
        again.cold.commit(&[range(p, 8, 8)], record(p, 8)).await.unwrap();
    }

    /// Files of more than one part, read by ranges and merged into one of several parts.
    pub(super) async fn files_that_are_written_in_parts_hold_every_row(place: &Place) {
        let (stores, p) = (place.stores().await, partition(0));
        let rng = &mut Seeded::new(5);
        for offset in 0..3 {
            let rows = record(p, offset).into_iter().map(|rows| {
                let mut columns = rows.columns().to_vec();
                let noise = |_| {
                    (0..200_000)
                        .map(|_| format!("{:016x}", rng.below(u64::MAX)))
                        .collect::<String>()
                };
                let body: StringArray = (0..rows.num_rows()).map(noise).map(Some).collect();
                columns[rows.schema().index_of("body").unwrap()] = Arc::new(body);
                RecordBatch::try_new(rows.schema(), columns).unwrap()
            });
            let rows = rows.collect();
            stores.cold.commit(&[range(p, offset, offset)], rows).await.unwrap();
        }
        let rows = rows_of(&[range(p, 0, 2)]);
        let bodies = async || {
            let ctx = SessionContext::new();
            let pinned = tables(&stores).pin().await.unwrap();
            ctx.register_table("e", pinned.everything(Scope::All)).unwrap();
            let sql = "SELECT arrow_cast(body, 'Utf8') FROM e";
            let found = ctx.sql(sql).await.unwrap().collect().await.unwrap();
            let bodies = found.iter().flat_map(|rows| rows.column(0).as_string::<i32>().iter());
            let mut bodies: Vec<Option<String>> = bodies.map(|body| body.map(str::to_owned)).collect();
            bodies.sort_unstable();
            bodies
        };
        let before = bodies().await;
        let options = CompactOptions {
            target_bytes: 1 << 30,
            max_input_bytes: 1 << 30,
            settled: None,
        };
        let report = stores.cold.compact(&options).await.unwrap();
        assert!(report.files_before > report.files_after, "{report:?}");
        let extent = stores.cold.extent().await.unwrap();
        assert!(extent.bytes > 12 << 20, "{extent:?}");
        assert!(bodies().await == before && extent.rows as i64 == rows);
    }

    pub(super) async fn racing_claims_never_share_a_generation(place: &Place) {
        let p = partition(7);
        let seam = place.stores().await.seam;
        let claims = (0..3).map(|task| {
            let seam = seam.clone();
            tokio::spawn(async move {
                let mut generations = Vec::new();
                for i in 0..6 {
                    if let Ok(record) = seam.claim(p, i, &format!("task {task}")).await {
                        generations.push(record.generation());
                    }
                }
                generations
            })
        });
        let mut all = Vec::new();
        for claim in claims.collect::<Vec<_>>() {
            all.extend(claim.await.unwrap());
        }
        let made = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), made);
        assert!(made >= 12, "{made}");
        let newest = place.stores().await.seam.load(p).await.unwrap();
        assert_eq!(Some(&newest.generation()), all.last());
    }

    /// A process that slept hides nothing that another one saved meanwhile.
    pub(super) async fn the_newest_state_is_the_one_with_the_highest_number(place: &Place) {
        let state = place.stores().await.state;
        assert_eq!(state.newest("duplicates-0").await.unwrap(), None);
        for number in [3, 9, 12, 100, 7, 2] {
            state
                .save("duplicates-0", number, number.to_string().into_bytes())
                .await
                .unwrap();
        }
        state.save("duplicates-1", 5, b"other".to_vec()).await.unwrap();
        let again = place.stores().await.state;
        assert_eq!(again.newest("duplicates-0").await.unwrap().unwrap(), "100");
        assert_eq!(again.newest("duplicates-1").await.unwrap().unwrap(), "other");
        // What is made once stays as it was made.
        let skips = place.stores().await.skips;
        assert_eq!(skips.make("3", 7, b"first".to_vec()).await.unwrap(), "first");
        assert_eq!(skips.make("3", 7, b"second".to_vec()).await.unwrap(), "first");
        skips.make("3", 12, b"other".to_vec()).await.unwrap();
        let all = place.stores().await.skips.all("3").await.unwrap();
        let all: Vec<_> = all.iter().map(|(number, text)| (*number, &text[..])).collect();
        assert_eq!(all, [(7, &b"first"[..]), (12, b"other")]);
    }
}

/// A relay to a bucket that, when told, lets the next request through that makes a version of the table, and gives no answer.
struct Relay {
    url: String,
    swallow: Arc<AtomicBool>,
}

fn relay(target: &str) -> Relay {
    let target = target.trim_start_matches("http://").trim_end_matches('/').to_owned();
    let door = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    door.set_nonblocking(true).unwrap();
    let door = tokio::net::TcpListener::from_std(door).unwrap();
    let url = format!("http://{}", door.local_addr().unwrap());
    let swallow = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&swallow);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = door.accept().await {
            let (target, told) = (target.clone(), Arc::clone(&told));
            tokio::spawn(async move {
                let mut server = tokio::net::TcpStream::connect(&target).await.unwrap();
                let (mut from_client, mut to_client) = client.split();
                let (mut from_server, mut to_server) = server.split();
                let cut = AtomicBool::new(false);
                let up = async {
                    let mut piece = [0; 64 << 10];
                    loop {
                        let n = from_client.read(&mut piece).await.unwrap_or(0);
                        let text = String::from_utf8_lossy(&piece[..n]);
                        let line = text.lines().next().unwrap_or_default();
                        let is_version = line.starts_with("PUT ") && line.contains("_delta_log/");
                        if is_version && told.swap(false, Ordering::SeqCst) {
                            cut.store(true, Ordering::SeqCst);
                        }
                        if n == 0 || to_server.write_all(&piece[..n]).await.is_err() {
                            return;
                        }
                    }
                };
                let down = async {
                    let mut piece = [0; 64 << 10];
                    loop {
                        let n = from_server.read(&mut piece).await.unwrap_or(0);
                        // The answer is there, so the bucket has the object.
                        if n == 0 || cut.load(Ordering::SeqCst) || to_client.write_all(&piece[..n]).await.is_err() {
                            return;
                        }
                    }
                };
                tokio::select! { () = up => {}, () = down => {} }
            });
        }
    });
    Relay { url, swallow }
}

/// P2: the answer to a commit is lost, whatever the commit does: it is found in the table and not made again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_a_version_whose_answer_is_lost_is_found_and_made_once() {
    let mut between = None;
    let place = Place::bucket_at(|endpoint| between.insert(relay(&endpoint)).url.clone()).await;
    let (Some(place), Some(relay)) = (place, between) else {
        return;
    };
    let (stores, p) = (place.stores().await, partition(0));
    let lose = || relay.swallow.store(true, Ordering::SeqCst);
    let was_lost = || assert!(!relay.swallow.load(Ordering::SeqCst), "every answer came");
    let everything = async || {
        let range = range(p, 0, 9);
        let rows = stores.whole_rows_of_cold(range).await.unwrap();
        rows.iter().map(|rows| rows.num_rows() as i64).sum::<i64>()
    };
    for (first, last) in [(0, 4), (5, 9)] {
        lose();
        stores
            .cold
            .commit(&[range(p, first, last)], records(p, first..=last))
            .await
            .unwrap();
        was_lost();
    }
    assert_eq!(everything().await, rows_of(&[range(p, 0, 9)]));
    // Files for other files.
    let mut replacement = Replacement::new(vec![range(p, 3, 6)]);
    stores.cold.add_to(&mut replacement, records(p, 3..=6)).await.unwrap();
    lose();
    stores.cold.replace_with(replacement).await.unwrap();
    was_lost();
    assert_eq!(everything().await, rows_of(&[range(p, 0, 9)]));
    lose();
    stores.cold.compact(&CompactOptions::default()).await.unwrap();
    was_lost();
    assert_eq!(everything().await, rows_of(&[range(p, 0, 9)]));
    stores
        .erase(&Rule::new(&tenant(0), i64::MAX, None, None))
        .await
        .unwrap();
    let erased = stores.erased_for_good(0).await.unwrap();
    lose();
    let report = stores.cold.erase(&erased, &mut Cleaned::default()).await.unwrap();
    was_lost();
    assert!(report.rows > 0);
    assert_eq!(everything().await, rows_of(&[range(p, 0, 9)]) - report.rows as i64);
    let found = stores.cold.balance(&mut Known::default()).await.unwrap().unwrap();
    assert_eq!((found.records, found.holes), (10, vec![]));
}

/// P2: an endpoint that lets two writers make the same object is refused before anything is written.
#[tokio::test]
async fn p2_an_endpoint_without_conditional_writes_is_refused() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    // Says yes to everything.
    let server = tokio::spawn(async move {
        loop {
            let (mut peer, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut bytes = vec![0; 64 << 10];
                while let Ok(1..) = peer.read(&mut bytes).await {
                    let answer = "HTTP/1.1 200 OK\r\nETag: \"1\"\r\nContent-Length: 0\r\n\r\n";
                    if peer.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    let options = S3Options {
        endpoint: Some(endpoint),
        region: Some("us-east-1".to_owned()),
        virtual_hosts: false,
        allow_http: true,
        access_key: Some("a".to_owned()),
        secret_key: Some("b".to_owned()),
    };
    let refused = Lake::open("s3://bucket/lake", &options).await;
    assert!(matches!(refused, Err(LakeError::Unconditional { .. })), "{refused:?}");
    server.abort();
}
