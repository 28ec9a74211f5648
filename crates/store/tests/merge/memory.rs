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
/// Merging takes less than this, whatever it merges. The rows of one day alone are larger, and so is each copy that is made
/// of them.
const MAX_BYTES: u64 = 192 << 20;

const PLACE: &str = "SLUICE_TEST_MERGE_IN";

/// The rows of one commit.
struct Shape {
    name: &'static str,
    rows: usize,
    /// The last rows, in the order of files too: the average says nothing of them.
    long: usize,
    body_bytes: usize,
    /// Bytes after which a long body repeats itself.
    noise_bytes: usize,
}

const ALIKE: Shape = Shape {
    name: "rows alike",
    rows: 600,
    long: 600,
    body_bytes: 64 << 10,
    noise_bytes: 64 << 10,
};
const SIDE_BY_SIDE: Shape = Shape {
    name: "long rows side by side",
    rows: 2_040,
    long: 40,
    body_bytes: 1 << 20,
    noise_bytes: 4 << 10,
};

impl Shape {
    fn rows(&self, offset: u64) -> RecordBatch {
        let rng = &mut Seeded::new(offset + 1);
        let rows = crate::rows::of(rng, partition(0), offset, self.rows);
        let mut noise = Seeded::new(offset + 77);
        let mut body = || {
            let words = (0..self.noise_bytes / 16).map(|_| format!("{:016x}", noise.below(u64::MAX)));
            words.collect::<String>().repeat(self.body_bytes / self.noise_bytes)
        };
        let is_long = |row: usize| row >= self.rows - self.long;
        let bodies = (0..self.rows).map(|row| if is_long(row) { Some(body()) } else { None });
        let bodies: ArrayRef = Arc::new(bodies.collect::<StringArray>());
        let tenants = (0..self.rows).map(|row| Some(if is_long(row) { "bolt" } else { "acme" }));
        let schema = rows.schema();
        let columns = schema.fields().iter().zip(rows.columns()).map(|(field, column)| {
            match field.name().as_str() {
                "body" => Arc::clone(&bodies),
                "tenant" => Arc::new(tenants.clone().collect::<StringArray>()),
                // One group of files.
                "signal" => Arc::new(StringArray::from(vec!["log"; self.rows])),
                "quarantined_by" => arrow::array::new_null_array(field.data_type(), self.rows),
                _ => Arc::clone(column),
            }
        });
        RecordBatch::try_new(rows.schema(), columns.collect()).unwrap()
    }
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

/// P15: what merging takes is bounded, however large the files are, and wherever in them long rows lie.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p15_merging_takes_little_memory() {
    for shape in [ALIKE, SIDE_BY_SIDE] {
        merges_in_little_memory(&shape).await;
    }
}

async fn merges_in_little_memory(shape: &Shape) {
    let folder = tempfile::tempdir().unwrap();
    let table = open(folder.path(), Sizes::default()).await;
    for offset in 0..FILES {
        let ranges = [range(partition(0), offset, offset)];
        table.commit(&ranges, vec![shape.rows(offset)]).await.unwrap();
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
    println!(
        "{}: {} MiB of them in {} MiB",
        shape.name,
        (shape.long * FILES as usize * shape.body_bytes) >> 20,
        taken >> 20
    );
    assert!(taken < MAX_BYTES, "{}: {} MiB", shape.name, taken >> 20);
    // What is held of a file until it is written is bounded, too.
    for path in table::files(folder.path()).keys() {
        let file = std::fs::File::open(folder.path().join(path)).unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
        let groups = reader.metadata().row_groups();
        let sizes = groups.iter().map(|group| group.compressed_size() as usize);
        let (all, most) = (sizes.clone().sum::<usize>(), sizes.max().unwrap());
        let whole = Sizes::default().group_bytes + (4 << 20);
        assert!(most < whole && groups.len() >= all.div_ceil(whole), "{most} of {all}");
    }
    assert_eq!(table.extent().await.unwrap().rows, FILES * shape.rows as u64);
}
