//! The spool on disks that refuse: unreadable sectors, no room.
#![allow(clippy::unwrap_used)]

pub(crate) mod faulty;

use std::sync::Arc;

use sluice_wire::envelope::Envelope;

use super::*;
use crate::link::{AckSink, BatchSource};
use faulty::{Faults, open};

/// A batch whose events were all dropped, with so many bytes of text.
fn draft(position: u64) -> Draft {
    let mut counts = Counts {
        accepted: 10,
        ..Counts::default()
    };
    counts.dropped.push(sluice_wire::counts::Dropped {
        plugin: "p".to_owned(),
        reason: "r".to_owned(),
        rows: 10,
    });
    Draft {
        kind: Kind::Data,
        rows: None,
        counts,
        journal_upto: position,
        time_min_ns: 0,
        time_max_ns: 0,
        sealed_at_ns: 1,
        detail: "x".repeat(20_000),
    }
}

#[test]
fn p6_a_batch_in_an_unreadable_sector_becomes_a_tombstone_after_some_attempts_and_the_rest_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    let faults = Arc::<Mutex<Faults>>::default();
    let (spool, _) = open(dir.path(), &faults);
    (1..=5).for_each(|n| assert_eq!(spool.append(&draft(n)).unwrap(), n - 1));
    *lock(&faults) = Faults {
        unreadable: 49_152..53_248,
        failures: u64::MAX,
        ..Faults::default()
    };
    let (mut at, mut failed, mut counts) = (0, 0, Counts::default());
    let mut kinds = Vec::new();
    while kinds.len() < 5 {
        match spool.next_from(at) {
            Ok(found) => {
                let (index, bytes) = found.unwrap();
                let header = Envelope::parse(bytes.clone()).unwrap().header;
                assert_eq!((index, header.id.seq), (at, at));
                assert_eq!(spool.read(index).unwrap(), bytes, "the same bytes again");
                counts.merge(&header.counts);
                kinds.push(header.kind);
                at += 1;
            }
            Err(_) => failed += 1,
        }
        assert!(failed < 100, "the uplink never gets on: {kinds:?}");
    }
    assert_eq!(kinds.iter().filter(|k| **k == Kind::Tombstone).count(), 1);
    assert!(failed >= 3, "given up after {failed} attempts");
    assert_eq!((counts.accepted, counts.dropped_rows() + counts.damaged), (50, 50));
}

/// Nothing of its epoch follows it, so no totals tell what it held: the log's marks do.
#[test]
fn p6_the_last_batch_of_a_killed_start_is_counted_when_it_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let faults = Arc::<Mutex<Faults>>::default();
    let (spool, _) = open(dir.path(), &faults);
    (1..=3).for_each(|n| assert_eq!(spool.append(&draft(n)).unwrap(), n - 1));
    drop(spool);
    let (spool, _) = open(dir.path(), &faults);
    assert_eq!(spool.append(&draft(4)).unwrap(), 3);
    lock(&faults).unreadable = 49_152..53_248;
    lock(&faults).failures = u64::MAX;
    let bytes = (0..100).find_map(|_| spool.read(2).ok()).unwrap();
    let header = Envelope::parse(bytes).unwrap().header;
    assert_eq!((header.kind, header.id.seq), (Kind::Tombstone, 2));
    assert_eq!((header.counts.accepted, header.counts.damaged), (10, 10));
}

#[test]
fn p6_a_disk_that_fails_for_a_moment_costs_no_batch() {
    let dir = tempfile::tempdir().unwrap();
    let faults = Arc::<Mutex<Faults>>::default();
    let (spool, _) = open(dir.path(), &faults);
    (1..=3).for_each(|n| assert_eq!(spool.append(&draft(n)).unwrap(), n - 1));
    *lock(&faults) = Faults {
        unreadable: 0..u64::MAX,
        failures: 3,
        ..Faults::default()
    };
    let mut failed = 0;
    let bytes = loop {
        match spool.next_from(0) {
            Ok(found) => break found.unwrap().1,
            Err(_) => failed += 1,
        }
    };
    assert!(failed > 0);
    assert_eq!(Envelope::parse(bytes).unwrap().header.kind, Kind::Data);
}

#[test]
fn p6_a_disk_that_takes_nothing_either_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let faults = Arc::<Mutex<Faults>>::default();
    let (spool, _) = open(dir.path(), &faults);
    spool.append(&draft(1)).unwrap();
    lock(&faults).unreadable = 0..u64::MAX;
    lock(&faults).failures = u64::MAX;
    // The cursor cannot be written: a folder stands in its place.
    std::fs::create_dir(dir.path().join("cursor")).unwrap();
    for _ in 0..20 {
        assert!(spool.next_from(0).is_err());
    }
    lock(&faults).failures = 0;
    let (_, bytes) = spool.next_from(0).unwrap().unwrap();
    assert_eq!(Envelope::parse(bytes).unwrap().header.kind, Kind::Data);
}

#[test]
fn p5_on_a_full_disk_everything_acknowledged_is_let_go_and_identities_positions_and_counts_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let faults = Arc::<Mutex<Faults>>::default();
    let (spool, opened) = open(dir.path(), &faults);
    assert!(!opened.full);
    (1..=5).for_each(|n| assert_eq!(spool.append(&draft(n)).unwrap(), n - 1));
    let (used, epoch) = (spool.bytes_on_disk(), spool.epoch().0);
    (0..4).for_each(|n| spool.acked(n));
    spool.relieve().unwrap();
    assert_eq!(spool.bytes_on_disk(), used, "a batch in the newest file is needed");
    spool.acked(4);
    assert!(spool.relieve().unwrap());
    assert!(spool.bytes_on_disk() < 2000, "{} bytes are kept", spool.bytes_on_disk());
    assert_eq!(spool.append(&draft(6)).unwrap(), 5);
    spool.append(&draft(7)).unwrap();
    // An epoch is a thing that gateways remember for ever: a disk that is full again and again must not make more of them.
    assert_eq!(spool.epoch().0, epoch);
    drop(spool);
    std::fs::remove_file(dir.path().join("cursor")).unwrap();
    // The totals of what is deleted are not needed to know what a damaged batch held: the file says what was before it.
    flip(dir.path(), b"xxxx");
    let (spool, opened) = open(dir.path(), &faults);
    assert_eq!((opened.covered, opened.damaged), (7, 1));
    let (index, bytes) = spool.next_from(0).unwrap().unwrap();
    let header = Envelope::parse(bytes).unwrap().header;
    assert_eq!((index, header.id.seq, header.kind), (5, 5, Kind::Tombstone));
    assert_eq!((header.counts.accepted, header.counts.dropped_rows()), (10, 10));
}

/// Changes the first place in the spool's newest file where these bytes stand.
fn flip(dir: &std::path::Path, what: &[u8]) {
    let files = std::fs::read_dir(dir.join("spool")).unwrap().map(|e| e.unwrap().path());
    let newest = files
        .filter(|p| p.extension().is_some_and(|e| e == "wal"))
        .max()
        .unwrap();
    let mut bytes = std::fs::read(&newest).unwrap();
    let at = bytes.windows(what.len()).position(|w| w == what).unwrap();
    bytes[at] ^= 0x40;
    std::fs::write(newest, bytes).unwrap();
}

/// A batch of rows that were sealed at this time.
fn rows(position: u64, rows: u64, sealed_at_ns: u64) -> Draft {
    let signal: arrow_array::StringArray = (0..rows).map(|_| Some("log")).collect();
    let time: arrow_array::Int64Array = (0..rows as i64).collect();
    let body: arrow_array::StringArray = (0..rows).map(|n| Some(format!("{n}{}", "x".repeat(9000)))).collect();
    let columns: [(&str, arrow_array::ArrayRef, bool); 3] = [
        ("signal", Arc::new(signal), false),
        ("time", Arc::new(time), false),
        ("body", Arc::new(body), true),
    ];
    Draft {
        rows: Some(RecordBatch::try_from_iter_with_nullable(columns).unwrap()),
        counts: Counts {
            accepted: rows + 1,
            stored: rows,
            damaged: 1,
            ..Counts::default()
        },
        sealed_at_ns,
        detail: String::new(),
        ..draft(position)
    }
}

/// All that a cloud receives: kinds by sequence number, and the sum of the counts.
fn sent(spool: &Spool) -> (Vec<(u64, Kind)>, Counts) {
    let (mut kinds, mut counts, mut at) = (Vec::new(), Counts::default(), 0);
    while let Some((index, bytes)) = spool.next_from(at).unwrap() {
        let header = Envelope::parse(bytes).unwrap().header;
        kinds.push((header.id.seq, header.kind));
        assert!(header.counts.balances());
        counts.merge(&header.counts);
        at = index + 1;
    }
    (kinds, counts)
}

fn dropped(counts: &Counts) -> Vec<(&str, &str, u64)> {
    counts
        .dropped
        .iter()
        .map(|d| (&*d.plugin, &*d.reason, d.rows))
        .collect()
}

#[test]
fn p3_p5_what_is_dropped_for_room_is_told_batch_by_batch_and_never_more_than_needed() {
    let dir = tempfile::tempdir().unwrap();
    let faults = Arc::<Mutex<Faults>>::default();
    let (spool, _) = open(dir.path(), &faults);
    // Files of 4 MiB, batches of 900 KB.
    (1..=16).for_each(|n| assert_eq!(spool.append(&rows(n, 100, n)).unwrap(), n - 1));
    let files = spool.reader.segments();
    assert!(files.len() >= 3);
    spool.acked(1);
    let used = spool.bytes_on_disk();
    let gone = spool.drop_oldest(1).unwrap();
    let in_first = files[0].end;
    assert_eq!((gone.batches, gone.rows), (in_first - 1, 100 * (in_first - 1)));
    assert_eq!(
        (gone.bytes, spool.bytes_on_disk()),
        (files[0].bytes, used - files[0].bytes)
    );
    let check = |spool: &Spool, given_up: u64| {
        let (kinds, counts) = sent(spool);
        let expected = (0..16).filter(|seq| *seq != 1);
        let expected = expected.map(|seq| (seq, if seq < in_first { Kind::Tombstone } else { Kind::Data }));
        assert_eq!(kinds, expected.collect::<Vec<_>>());
        assert_eq!(counts.accepted, 15 * 101);
        assert_eq!(dropped(&counts), [("_spool", "drop_oldest", 100 * given_up)]);
        assert!(!spool.is_drained());
    };
    check(&spool, in_first - 1);
    // The same after a restart, and nothing of it once the cloud has it.
    drop(spool);
    let (spool, _) = open(dir.path(), &faults);
    check(&spool, in_first - 1);
    assert_eq!(spool.status().given_up, in_first - 1);
    (0..16).for_each(|index| spool.acked(index));
    spool.save_cursor().unwrap();
    assert!(spool.is_drained() && spool.status().given_up == 0);
    drop(spool);
    assert!(sent(&open(dir.path(), &faults).0).0.is_empty());
}

#[test]
fn p5_all_that_is_sealed_may_be_dropped_and_the_count_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let faults = Arc::<Mutex<Faults>>::default();
    let (spool, _) = open(dir.path(), &faults);
    (1..=3).for_each(|n| assert_eq!(spool.append(&rows(n, 10, n)).unwrap(), n - 1));
    assert_eq!(spool.drop_oldest(u64::MAX).unwrap().batches, 3);
    assert!(spool.bytes_on_disk() < 2000);
    assert_eq!(spool.append(&rows(4, 10, 4)).unwrap(), 3);
    let (kinds, counts) = sent(&spool);
    assert_eq!(kinds.iter().filter(|(_, kind)| *kind == Kind::Tombstone).count(), 3);
    assert_eq!((counts.accepted, counts.stored, counts.dropped_rows()), (44, 10, 30));
    assert_eq!(spool.covered(), 4);
}

/// A gateway acknowledges a hash: what the uplink has on its way must not become something else behind its back.
#[test]
fn p3_what_is_on_its_way_while_it_is_dropped_stays_what_it_is_until_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let faults = Arc::<Mutex<Faults>>::default();
    let (spool, _) = open(dir.path(), &faults);
    (1..=4).for_each(|n| assert_eq!(spool.append(&rows(n, 10, n)).unwrap(), n - 1));
    let on_the_way: Vec<_> = (0..2).map(|at| spool.next_from(at).unwrap().unwrap()).collect();
    assert_eq!(spool.drop_oldest(u64::MAX).unwrap().batches, 4);
    for (index, bytes) in &on_the_way {
        assert_eq!(&spool.read(*index).unwrap(), bytes);
        assert_eq!(
            spool.next_from(*index).unwrap().as_ref(),
            Some(&(*index, bytes.clone()))
        );
    }
    // The first arrives; nobody hears of the second.
    spool.acked(0);
    spool.save_cursor().unwrap();
    let kinds = |spool: &Spool| sent(spool).0;
    let (data, tombstone) = (Kind::Data, Kind::Tombstone);
    assert_eq!(kinds(&spool), [(1, data), (2, tombstone), (3, tombstone)]);
    drop(spool);
    let (spool, _) = open(dir.path(), &faults);
    assert_eq!(kinds(&spool), [(1, tombstone), (2, tombstone), (3, tombstone)]);
    assert_eq!(sent(&spool).1.dropped_rows(), 30);
}

#[test]
fn p5_only_what_is_older_than_it_may_be_is_dropped_by_age() {
    let dir = tempfile::tempdir().unwrap();
    let faults = Arc::<Mutex<Faults>>::default();
    let (spool, _) = open(dir.path(), &faults);
    let ms = 1_000_000;
    (1..=10).for_each(|n| assert_eq!(spool.append(&rows(n, 5, 100 * n * ms)).unwrap(), n - 1));
    assert_eq!(spool.drop_older_than(100 * ms).unwrap(), given_up::Gone::default());
    spool.acked(0);
    let gone = spool.drop_older_than(450 * ms).unwrap();
    assert_eq!((gone.batches, gone.rows), (3, 15));
    let (kinds, counts) = sent(&spool);
    assert_eq!(kinds.iter().filter(|(_, kind)| *kind == Kind::Tombstone).count(), 3);
    assert_eq!(dropped(&counts), [("_spool", "max_age", 15)]);
    assert_eq!(spool.drop_older_than(450 * ms).unwrap().batches, 0);
}

#[test]
fn p3_what_cannot_be_written_down_is_not_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let faults = Arc::<Mutex<Faults>>::default();
    let (spool, _) = open(dir.path(), &faults);
    (1..=3).for_each(|n| assert_eq!(spool.append(&rows(n, 10, n)).unwrap(), n - 1));
    std::fs::create_dir(dir.path().join("given-up")).unwrap();
    let used = spool.bytes_on_disk();
    assert!(spool.drop_oldest(1).is_err());
    assert!(spool.bytes_on_disk() >= used);
    drop(spool);
    std::fs::remove_dir(dir.path().join("given-up")).unwrap();
    let (kinds, _) = sent(&open(dir.path(), &faults).0);
    assert!(kinds.len() == 3 && kinds.iter().all(|(_, kind)| *kind == Kind::Data));
}

#[test]
fn p5_what_was_let_go_is_never_sealed_again() {
    let dir = tempfile::tempdir().unwrap();
    let faults = Arc::<Mutex<Faults>>::default();
    let (spool, _) = open(dir.path(), &faults);
    spool.append(&draft(9)).unwrap();
    spool.acked(0);
    assert!(spool.relieve().unwrap());
    drop(spool);
    // Neither cursor nor record: the note of the empty segment knows it.
    std::fs::remove_file(dir.path().join("cursor")).unwrap();
    assert_eq!(open(dir.path(), &faults).1.covered, 9);
}
