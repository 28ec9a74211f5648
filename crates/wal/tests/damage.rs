//! P6: damage on a real disk is found, isolated and reported, and the log opens.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use sluice_wal::{Entry, Options, Recovery, Wal, WalError};

const RECORDS: u64 = 40;

fn options() -> Options {
    Options {
        segment_bytes: 400,
        max_record_bytes: 1 << 16,
        ballast_bytes: 4096,
    }
}

fn record(index: u64) -> Vec<u8> {
    format!("record number {index} {}", "x".repeat(index as usize % 17)).into_bytes()
}

/// Groups of two records in several segments.
fn filled(dir: &Path) -> Vec<PathBuf> {
    let (mut wal, _) = Wal::open(dir, options()).unwrap();
    for index in 0..RECORDS {
        wal.set_note(&(index + 1).to_le_bytes());
        assert_eq!(wal.append(&record(index)).unwrap(), index);
        if index % 2 == 1 {
            wal.sync().unwrap();
        }
    }
    segments(dir)
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    found.retain(|p| p.extension().is_some_and(|e| e == "wal"));
    found.sort();
    found
}

/// Opens and reads everything: indices without gaps, every readable record equal to what was written. Returns the damaged.
fn check(dir: &Path) -> (Recovery, Vec<u64>) {
    let (wal, recovery) = Wal::open(dir, options()).unwrap();
    let reader = wal.reader();
    let (mut expected, mut damaged) = (reader.first(), Vec::new());
    while expected < reader.synced() {
        for (index, entry) in reader.read_range(expected, 7, 300).unwrap() {
            assert_eq!(index, expected);
            match entry {
                Entry::Record(bytes) => assert_eq!(&bytes[..], record(index)),
                Entry::Damaged { .. } => damaged.push(index),
            }
            expected += 1;
        }
    }
    (recovery, damaged)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn p6_a_flipped_bit_costs_at_most_one_record_or_the_last_group(
        file: proptest::sample::Index, at: proptest::sample::Index, bit in 0u8..8
    ) {
        let dir = tempfile::tempdir().unwrap();
        let files = filled(dir.path());
        let path = &files[file.index(files.len())];
        let mut bytes = fs::read(path).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        fs::write(path, bytes).unwrap();
        let (recovery, damaged) = check(dir.path());
        let lost: Vec<u64> = recovery.damaged.iter().map(|d| d.0).collect();
        prop_assert_eq!(&lost, &damaged, "what opening reports is what reading meets");
        prop_assert!(recovery.gaps.is_empty());
        if recovery.next == RECORDS {
            prop_assert!(damaged.len() <= 1);
        } else {
            prop_assert!(damaged.is_empty() && recovery.next == RECORDS - 2 && recovery.torn_bytes > 0);
        }
    }

    #[test]
    fn p6_a_smashed_range_costs_only_what_it_touches(
        file: proptest::sample::Index, at: proptest::sample::Index, len in 1usize..300, fill: u8
    ) {
        let dir = tempfile::tempdir().unwrap();
        let files = filled(dir.path());
        let path = &files[file.index(files.len())];
        let mut bytes = fs::read(path).unwrap();
        let at = at.index(bytes.len());
        let end = bytes.len().min(at + len);
        bytes[at..end].fill(fill);
        fs::write(path, bytes).unwrap();
        let (recovery, damaged) = check(dir.path());
        // 28 bytes of frame and 16 of text at least.
        prop_assert!(damaged.len() <= len / 44 + 2, "{} records for {len} bytes", damaged.len());
        prop_assert!(recovery.next >= RECORDS - 10);
    }
}

#[test]
fn p6_truncated_missing_swapped_and_copied_segments() {
    let fresh = || {
        let dir = tempfile::tempdir().unwrap();
        let files = filled(dir.path());
        assert!(files.len() > 4);
        (dir, files)
    };

    let (dir, files) = fresh();
    fs::remove_file(&files[2]).unwrap();
    let (recovery, damaged) = check(dir.path());
    let first = |p: &PathBuf| p.file_stem().unwrap().to_str().unwrap().parse::<u64>().unwrap();
    let gap = first(&files[2])..first(&files[3]);
    assert!(recovery.gaps.len() == 1 && recovery.gaps[0] == gap);
    assert_eq!(damaged, gap.collect::<Vec<_>>());

    let (dir, files) = fresh();
    let aside = dir.path().join("aside");
    fs::rename(&files[1], &aside).unwrap();
    fs::rename(&files[2], &files[1]).unwrap();
    fs::rename(&aside, &files[2]).unwrap();
    let (recovery, damaged) = check(dir.path());
    assert!(damaged.is_empty() && recovery.gaps.is_empty() && recovery.next == RECORDS);

    let (dir, files) = fresh();
    fs::copy(&files[1], dir.path().join(format!("{:020}.wal", 777))).unwrap();
    let (recovery, damaged) = check(dir.path());
    assert!(damaged.is_empty() && recovery.damaged.len() == 1 && recovery.next == RECORDS);

    let (dir, files) = fresh();
    fs::File::options()
        .write(true)
        .open(&files[1])
        .unwrap()
        .set_len(150)
        .unwrap();
    let (recovery, damaged) = check(dir.path());
    assert!(!damaged.is_empty() && damaged.iter().all(|i| (first(&files[1])..first(&files[2])).contains(i)));
    assert_eq!(recovery.next, RECORDS);

    let (dir, files) = fresh();
    fs::remove_file(files.last().unwrap()).unwrap();
    let (recovery, damaged) = check(dir.path());
    assert_eq!((recovery.next, damaged.len()), (first(files.last().unwrap()), 0));
}

#[test]
fn a_log_that_lost_its_end_continues_where_its_readers_are() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let (mut wal, _) = Wal::open(dir.path(), options()).unwrap();
    wal.skip_to(100).unwrap();
    assert_eq!(wal.append(&record(100)).unwrap(), 100);
    wal.sync().unwrap();
    drop(wal);
    let (recovery, damaged) = check(dir.path());
    assert_eq!(recovery.next, 101);
    assert!(recovery.gaps.len() == 1 && recovery.gaps[0] == (RECORDS..100));
    assert_eq!(damaged, (RECORDS..100).collect::<Vec<_>>());
}

#[test]
fn the_note_and_the_place_in_the_count_outlive_all_records() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let (mut wal, _) = Wal::open(dir.path(), options()).unwrap();
    assert!(matches!(Wal::open(dir.path(), options()), Err(WalError::Locked)));
    wal.set_note(&RECORDS.to_le_bytes());
    wal.roll().unwrap();
    assert!(wal.trim_below(u64::MAX).unwrap() > 0);
    assert_eq!(segments(dir.path()).len(), 1);
    drop(wal);
    let (recovery, _) = check(dir.path());
    assert_eq!((recovery.first, recovery.next), (RECORDS, RECORDS));
    assert_eq!(recovery.note, RECORDS.to_le_bytes());
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let files = filled(dir.path());
    let mut bytes = fs::read(&files[0]).unwrap();
    (bytes[4], bytes[52]) = (3, 3);
    fs::write(&files[0], &bytes).unwrap();
    assert!(matches!(
        Wal::open(dir.path(), options()),
        Err(WalError::Corrupt { .. })
    ));
    assert_eq!(fs::read(&files[0]).unwrap(), bytes);
}
