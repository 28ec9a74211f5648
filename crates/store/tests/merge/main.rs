//! Files of cold are merged as they are read: the same rows in the same order, true statistics, in little memory, or not at all.
#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;
mod memory;
mod rows;
mod table;

use std::path::Path;
use std::time::{Duration, SystemTime};

use arrow::array::UInt32Array;
use arrow::compute::take_record_batch;
use common::*;
use parquet::arrow::ArrowWriter;
use proptest::prelude::*;
use serde_json::{Value, json};
use sluice_store::cold::{CompactOptions, CompactReport, Sizes};
use sluice_store::{ColdTable, Lake, S3Options};

/// Files of several row groups and pages, with few rows.
const SMALL: Sizes = Sizes {
    file_rows: 150,
    group_rows: 40,
    group_bytes: 32 << 20,
    page_rows: 8,
};

async fn open(folder: &Path, sizes: Sizes) -> ColdTable {
    let lake = Lake::open(folder.to_str().unwrap(), &S3Options::default())
        .await
        .unwrap();
    ColdTable::open_sized(&lake, "", sizes).await.unwrap()
}

/// A table of some commits of rows of two partitions.
async fn filled(folder: &Path, seed: u64, commits: u64) -> ColdTable {
    let table = open(folder, SMALL).await;
    let rng = &mut Seeded::new(seed);
    for offset in 0..commits {
        let ranges = [range(partition(0), offset, offset), range(partition(1), offset, offset)];
        let rows = ranges.map(|range| {
            let count = rng.below(60) as usize;
            rows::of(rng, range.partition, offset, count)
        });
        table.commit(&ranges, rows.to_vec()).await.unwrap();
    }
    table
}

/// Merges until there is nothing left to merge.
async fn compact(table: &ColdTable) -> CompactReport {
    let mut all = CompactReport::default();
    loop {
        let report = table.compact(&CompactOptions::default()).await.unwrap();
        all.files_before += report.files_before;
        all.files_after += report.files_after;
        all.lost_race |= report.lost_race;
        if report.files_before == 0 {
            return all;
        }
    }
}

/// Puts a file into the table as another program would.
fn add_by_hand(folder: &Path, name: &str, batch: &arrow::array::RecordBatch, remove: Option<(&str, &Value)>) {
    let path = folder.join(name);
    let mut writer = ArrowWriter::try_new(std::fs::File::create(&path).unwrap(), batch.schema(), None).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
    let day = name
        .split_once('=')
        .and_then(|(_, rest)| rest.split_once('/'))
        .unwrap()
        .0;
    let mut lines = vec![json!({"add": {
        "path": name, "partitionValues": {"day": day}, "size": std::fs::metadata(&path).unwrap().len(),
        "modificationTime": 1, "dataChange": true, "stats": json!({"numRecords": batch.num_rows()}).to_string(),
    }})];
    if let Some((path, add)) = remove {
        let (day, size) = (&add["partitionValues"], &add["size"]);
        lines.push(json!({"remove": {
            "path": path, "partitionValues": day, "size": size, "extendedFileMetadata": true, "dataChange": true,
            "deletionTimestamp": 1,
        }}));
    }
    let log = folder.join("_delta_log");
    let next = std::fs::read_dir(&log).unwrap().filter(|entry| {
        let path = entry.as_ref().unwrap().path();
        path.extension().is_some_and(|extension| extension == "json")
    });
    let lines: Vec<String> = lines.iter().map(Value::to_string).collect();
    std::fs::write(log.join(format!("{:020}.json", next.count())), lines.join("\n")).unwrap();
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    /// Whatever the rows are, merging changes none of them, and what is said of the files is true before and after it.
    #[test]
    fn a_merged_table_holds_the_same_rows(seed: u64, commits in 2u64..9) {
        runtime().block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let table = filled(folder.path(), seed, commits).await;
            table::check(folder.path(), &SMALL);
            let (before, files) = (table::rows(folder.path()), table::files(folder.path()));
            // Files without a row come from other programs.
            let (name, _) = files.iter().next().unwrap();
            let empty = table::read(&folder.path().join(name)).slice(0, 0);
            add_by_hand(folder.path(), &format!("{name}.empty.parquet"), &empty, None);
            let report = compact(&table).await;
            prop_assert!(report.files_before > report.files_after && !report.lost_race, "{report:?}");
            prop_assert_eq!(table::rows(folder.path()), before);
            table::check(folder.path(), &SMALL);
            prop_assert_eq!(table.extent().await.unwrap().committed.len(), 2);
            Ok(())
        })?;
    }
}

/// What another program wrote in another order stays as it is, and what is beside it is merged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_in_another_order_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let table = filled(folder.path(), 7, 6).await;
    let files = table::files(folder.path());
    let longest = |name: &&String| table::read(&folder.path().join(name)).num_rows();
    let name = files.keys().max_by_key(longest).unwrap();
    let rows = table::read(&folder.path().join(name));
    let backwards = UInt32Array::from_iter_values((0..rows.num_rows() as u32).rev());
    let strange = format!("{name}.strange.parquet");
    let backwards = take_record_batch(&rows, &backwards).unwrap();
    add_by_hand(folder.path(), &strange, &backwards, Some((name, &files[name])));
    let before = table::rows(folder.path());
    for _ in 0..2 {
        compact(&table).await;
        assert_eq!(table::rows(folder.path()), before);
        assert!(table::files(folder.path()).contains_key(&strange));
    }
    let left = table::files(folder.path()).len();
    assert!(left < files.len(), "{left} of {}", files.len());
}

/// A file that cannot be read whole, or a version that cannot be made: the table is as it was, and merged later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_merge_that_fails_leaves_the_table_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    compact(&filled(folder.path(), 11, 6).await).await;
    let merged = table::files(folder.path()).len();
    // The first half of a file: all others are merged, of its day too, and then it is told.
    for broken in 0..5 {
        let folder = tempfile::tempdir().unwrap();
        let table = filled(folder.path(), 11, 6).await;
        let (before, files) = (table::rows(folder.path()), table::files(folder.path()));
        let name = files.keys().nth(broken * files.len() / 5).unwrap();
        let path = folder.path().join(name);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        while let Ok(report) = table.compact(&CompactOptions::default()).await {
            assert!(report.files_before > 0, "{name}: nobody was told");
        }
        std::fs::write(&path, whole).unwrap();
        let named = table::files(folder.path());
        assert!(
            named.contains_key(name) && named.len() <= merged + 2,
            "{name}: {named:?}"
        );
        assert_eq!(table::rows(folder.path()), before);
        let left = table::on_disk(folder.path());
        assert!(left.iter().all(|path| table::was_named(folder.path(), path)));
        compact(&table).await;
        assert_eq!(table::rows(folder.path()), before);
    }
    let folder = tempfile::tempdir().unwrap();
    let table = filled(folder.path(), 11, 6).await;
    let (before, named) = (table::rows(folder.path()), table::files(folder.path()));
    // Something stands where the next version should.
    let number = table.version().await.unwrap() + 1;
    let obstacle = folder.path().join(format!("_delta_log/{number:020}.json"));
    std::fs::create_dir(&obstacle).unwrap();
    assert!(table.compact(&CompactOptions::default()).await.is_err());
    assert_eq!(table::files(folder.path()), named);
    std::fs::remove_dir(&obstacle).unwrap();
    compact(&table).await;
    assert_eq!(table::rows(folder.path()), before);
    table::check(folder.path(), &SMALL);
    // What stayed behind the failed version is removed when nobody can name it any more.
    for name in named.keys() {
        std::fs::write(folder.path().join(format!("{name}#17")), "a writer died here").unwrap();
    }
    let old = SystemTime::now() - Duration::from_secs(8 * 86_400);
    for path in table::on_disk(folder.path()) {
        std::fs::File::options()
            .write(true)
            .open(path)
            .unwrap()
            .set_modified(old)
            .unwrap();
    }
    table.vacuum(Duration::ZERO).await.unwrap();
    let named = table::files(folder.path());
    let left = table::on_disk(folder.path());
    let names = left
        .iter()
        .map(|path| path.strip_prefix(folder.path()).unwrap().to_str().unwrap());
    assert!(names.clone().all(|name| named.contains_key(name)) && names.count() == named.len());
    assert_eq!(table::rows(folder.path()), before);
}

/// Whoever merges can be stopped anywhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_merge_that_is_given_up_changes_nothing_or_all() {
    let folder = tempfile::tempdir().unwrap();
    let table = filled(folder.path(), 13, 6).await;
    let before = table::rows(folder.path());
    for polls in [1, 2, 4, 8, 16, 32] {
        let mut merging = Box::pin(async { table.compact(&CompactOptions::default()).await });
        for _ in 0..polls {
            if futures::poll!(&mut merging).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(merging);
        let again = open(folder.path(), SMALL).await;
        assert_eq!(again.extent().await.unwrap().rows, before.len() as u64);
        assert_eq!(table::rows(folder.path()), before);
    }
    compact(&table).await;
    assert_eq!(table::rows(folder.path()), before);
    table::check(folder.path(), &SMALL);
}

/// Of two that merge the same files one gives way, and what it wrote is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_that_merge_one_gives_way() {
    let folder = tempfile::tempdir().unwrap();
    let tables = [filled(folder.path(), 17, 6).await, open(folder.path(), SMALL).await];
    let (before, written) = (table::rows(folder.path()), table::on_disk(folder.path()));
    let (one, other) = tokio::join!(compact(&tables[0]), compact(&tables[1]));
    assert_eq!(table::rows(folder.path()), before);
    table::check(folder.path(), &SMALL);
    let merged = one.files_after + other.files_after;
    let left = table::on_disk(folder.path());
    assert_eq!(left.len(), written.len() + merged, "{one:?} {other:?}");
}
