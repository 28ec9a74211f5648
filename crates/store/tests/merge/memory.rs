//! What merging takes in memory, measured from outside: the most that a process of its own ever had.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use sluice_store::cold::{CompactOptions, Sizes};

use crate::common::*;
use crate::{open, table};

const FILES: u64 = 16;
const ROWS: usize = 600;
/// Of each row.
const BODY_BYTES: usize = 64 << 10;
/// Merging takes less than this, whatever it merges. The rows of one day alone are larger, and so is each copy that is made
/// of them.
const MAX_BYTES: u64 = 192 << 20;

const PLACE: &str = "SLUICE_TEST_MERGE_IN";

/// Rows whose bodies do not compress away.
fn long_rows(offset: u64) -> RecordBatch {
    let rng = &mut Seeded::new(offset + 1);
    let rows = crate::rows::of(rng, partition(0), offset, ROWS);
    let mut noise = Seeded::new(offset + 77);
    let mut body = || -> String {
        let words = (0..BODY_BYTES / 16).map(|_| format!("{:016x}", noise.below(u64::MAX)));
        words.collect()
    };
    let bodies: ArrayRef = Arc::new((0..ROWS).map(|_| Some(body())).collect::<StringArray>());
    let schema = rows.schema();
    let columns = schema.fields().iter().zip(rows.columns()).map(|(field, column)| {
        match field.name().as_str() {
            "body" => Arc::clone(&bodies),
            // One group of files.
            "signal" => Arc::new(StringArray::from(vec!["log"; ROWS])),
            "quarantined_by" => arrow::array::new_null_array(field.data_type(), ROWS),
            _ => Arc::clone(column),
        }
    });
    RecordBatch::try_new(rows.schema(), columns.collect()).unwrap()
}

/// The most memory that this process ever had.
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// Merges what is in a folder, if it is told one.
#[tokio::test]
#[ignore = "the other half of the test below, in a process of its own"]
async fn merges_in_a_process_of_its_own() {
    let Some(place) = std::env::var_os(PLACE) else { return };
    let table = open(Path::new(&place), Sizes::default()).await;
    let before = peak_bytes();
    let options = CompactOptions {
        target_bytes: 1 << 30,
        max_input_bytes: 1 << 30,
        settled: None,
    };
    // Not all files of a day are read at once.
    let mut calls = 0;
    while table.compact(&options).await.unwrap().files_before > 0 {
        calls += 1;
    }
    assert_eq!((table.extent().await.unwrap().files, calls > 1), (2, true));
    println!("merging took {} bytes", peak_bytes() - before);
}

/// P15: what merging takes is bounded, however large the files are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p15_merging_takes_little_memory() {
    let folder = tempfile::tempdir().unwrap();
    let table = open(folder.path(), Sizes::default()).await;
    for offset in 0..FILES {
        let ranges = [range(partition(0), offset, offset)];
        table.commit(&ranges, vec![long_rows(offset)]).await.unwrap();
    }
    let child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "memory::merges_in_a_process_of_its_own",
            "--ignored",
            "--nocapture",
        ])
        .env(PLACE, folder.path())
        // Or what the allocator keeps for later is measured, too.
        .env("MALLOC_MMAP_THRESHOLD_", "131072")
        .env("MALLOC_ARENA_MAX", "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(
        child.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&child.stderr)
    );
    let taken = said
        .split("merging took ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next());
    let taken: u64 = taken.unwrap().parse().unwrap();
    assert!(taken < MAX_BYTES, "{} MiB", taken >> 20);
    println!(
        "{} MiB of rows in {} MiB",
        (ROWS * FILES as usize * BODY_BYTES) >> 20,
        taken >> 20
    );
    // What is held of a file until it is written is bounded, too.
    for path in table::files(folder.path()).keys() {
        let file = std::fs::File::open(folder.path().join(path)).unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
        let groups = reader.metadata().row_groups();
        let most = groups.iter().map(|group| group.compressed_size()).max().unwrap() as usize;
        assert!(
            groups.len() > 1 && most < Sizes::default().group_bytes + (4 << 20),
            "{most}"
        );
    }
    assert_eq!(table.extent().await.unwrap().rows, FILES * ROWS as u64);
}
