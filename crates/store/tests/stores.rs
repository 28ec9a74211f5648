//! The write side: each range of offsets is stored once, whoever writes and whatever is interrupted (P2, P8).
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use common::*;
use datafusion::prelude::SessionContext;
use sluice_store::cold::CompactOptions;
use sluice_store::{
    ColdTable, CommitError, EmbeddedHot, HotError, PinError, RowsError, Scope, Stores, Tables, TablesOptions,
};
use sluice_wire::ids::Partition;

/// Distinct places and rows of all partitions; they differ when a row is seen twice.
async fn counts(tables: &Tables) -> (i64, i64, i64) {
    let pinned = tables.pin().await.unwrap();
    let ctx = SessionContext::new();
    ctx.register_table("e", pinned.everything(Scope::All)).unwrap();
    let record = "\"partition\" * 1000000 + \"offset\" * 1000";
    let text = format!("SELECT count(*), count(DISTINCT {record} + \"row\"), count(DISTINCT {record}) FROM e");
    let rows = ctx.sql(&text).await.unwrap().collect().await.unwrap();
    let int = |column: usize| rows[0].column(column).as_primitive::<Int64Type>().value(0);
    (int(0), int(1), int(2))
}

#[tokio::test]
async fn a_range_that_overlaps_or_leaves_a_gap_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let cold = lake(&folder, 0).await.cold;
    let p = partition(1);
    let commit = async |first, last| cold.commit(&[range(p, first, last)], records(p, first..=last)).await;
    commit(3, 5).await.unwrap();
    assert!(matches!(
        commit(5, 7).await,
        Err(CommitError::Overlap {
            first: 5,
            committed: 5,
            ..
        })
    ));
    assert!(matches!(
        commit(7, 8).await,
        Err(CommitError::Gap {
            first: 7,
            committed: 5,
            ..
        })
    ));
    assert!(matches!(commit(6, 5).await, Err(CommitError::BadRange { .. })));
    let stray = cold.commit(&[range(p, 6, 6)], records(p, 6..=7)).await;
    assert!(matches!(stray, Err(CommitError::Encode(_))), "{stray:?}");
    // One partition refused, all refused.
    let both = cold
        .commit(
            &[range(partition(2), 0, 0), range(p, 5, 6)],
            records(partition(2), 0..=0),
        )
        .await;
    assert!(matches!(both, Err(CommitError::Overlap { .. })));
    commit(6, 6).await.unwrap();
    assert_eq!(cold.committed().await.unwrap(), BTreeMap::from([(p, 6)]));
}

/// Two writers of the same partition that know nothing of each other: the table is linear, each row is in it once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_a_second_writer_never_stores_a_row_twice() {
    let folder = tempfile::tempdir().unwrap();
    let stores = lake(&folder, 0).await;
    let location = folder.path().join("lake/events").to_str().unwrap().to_owned();
    let p = partition(0);
    let write = |step: u64| {
        let location = location.clone();
        async move {
            let cold = ColdTable::open(&location).await.unwrap();
            let mut refused = 0;
            loop {
                let first = cold.committed().await.unwrap().get(&p).map_or(0, |last| last + 1);
                if first >= 12 {
                    return refused;
                }
                let last = (first + step - 1).min(11);
                // Give the other one time to get in between.
                tokio::task::yield_now().await;
                match cold.commit(&[range(p, first, last)], records(p, first..=last)).await {
                    Ok(_) => {}
                    Err(CommitError::Overlap { .. } | CommitError::Gap { .. }) => refused += 1,
                    Err(error) => panic!("{error:?}"),
                }
            }
        }
    };
    let (one, two) = tokio::join!(tokio::spawn(write(1)), tokio::spawn(write(2)));
    one.unwrap();
    two.unwrap();
    let rows = rows_of(&[range(p, 0, 11)]);
    assert_eq!(counts(&tables(&stores)).await, (rows, rows, 12));
}

/// A new process reads the same ends from the log of the table, over a checkpoint too.
#[tokio::test]
async fn p2_the_ends_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let other = Partition {
        generation: 2,
        index: 5,
    };
    {
        let cold = lake(&folder, 0).await.cold;
        for offset in 0..=104 {
            let ranges = [
                range(partition(3), offset, offset),
                range(other, offset + 10, offset + 10),
            ];
            cold.commit(&ranges, record(partition(3), offset)).await.unwrap();
        }
    }
    assert!(
        std::fs::read_dir(folder.path().join("lake/events/_delta_log"))
            .unwrap()
            .any(|e| { e.unwrap().file_name().to_string_lossy().contains("checkpoint") })
    );
    let stores = lake(&folder, 0).await;
    assert_eq!(
        stores.cold.committed().await.unwrap(),
        BTreeMap::from([(partition(3), 104), (other, 114)])
    );
    let rows = rows_of(&[range(partition(3), 0, 104)]);
    assert_eq!(counts(&tables(&stores)).await, (rows, rows, 105));
}

/// Hot moves rows out while queries run, compaction rewrites files beside them: every answer is whole (P8).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p8_queries_are_whole_while_rows_move_from_hot_to_cold() {
    for (_folder, stores) in lakes(1 << 30).await {
        let p = partition(0);
        const LAST: u64 = 29;
        claim(&stores, p, 0).await;
        for first in (0..=LAST).step_by(5) {
            insert(&stores, p, first..=first + 4).await.unwrap();
        }
        let rows = rows_of(&[range(p, 0, LAST)]);
        let done = Arc::new(AtomicBool::new(false));
        let mover = {
            let (stores, done) = (stores.clone(), Arc::clone(&done));
            tokio::spawn(async move {
                for first in (0..=LAST).step_by(3) {
                    let last = first + 2;
                    stores
                        .cold
                        .commit(&[range(p, first, last)], records(p, first..=last))
                        .await
                        .unwrap();
                    stores.seam.advance(p, last).await.unwrap();
                    drop_to(&stores, p, last);
                    if first % 2 == 0 {
                        let settled = Some(BTreeMap::from([(p, last)]));
                        stores
                            .cold
                            .compact(&CompactOptions {
                                settled,
                                ..CompactOptions::default()
                            })
                            .await
                            .unwrap();
                    }
                }
                done.store(true, Ordering::SeqCst);
            })
        };
        let tables = tables(&stores);
        let mut answers = 0;
        loop {
            let was_done = done.load(Ordering::SeqCst);
            assert_eq!(counts(&tables).await, (rows, rows, LAST as i64 + 1));
            answers += 1;
            if was_done {
                break;
            }
        }
        mover.await.unwrap();
        assert!(answers > 2, "{answers} answers");
        if stores.hot.embedded().is_some() {
            assert_eq!(stores.hot.bytes(), 0);
        }
    }
}

#[tokio::test]
async fn compaction_and_vacuum_change_no_answer() {
    let folder = tempfile::tempdir().unwrap();
    let stores = lake(&folder, 0).await;
    let ps = [partition(0), partition(1)];
    for offset in 0..8 {
        let ranges = ps.map(|p| range(p, offset, offset));
        let rows = ps.iter().flat_map(|p| record(*p, offset)).collect();
        stores.cold.commit(&ranges, rows).await.unwrap();
    }
    let tables = tables(&stores);
    let before = counts(&tables).await;
    let unsettled = CompactOptions {
        settled: Some(BTreeMap::from([(ps[0], 7)])),
        ..CompactOptions::default()
    };
    assert_eq!(stores.cold.compact(&unsettled).await.unwrap().files_before, 0);
    let old = tables.pin().await.unwrap();
    let report = stores.cold.compact(&CompactOptions::default()).await.unwrap();
    assert!(
        report.files_before > report.files_after && !report.lost_race,
        "{report:?}"
    );
    assert_eq!(counts(&tables).await, before);
    drop(old);
    let vacuum = stores.cold.vacuum(Duration::ZERO).await.unwrap();
    assert_eq!(vacuum.files_removed, report.files_before);
    assert_eq!(counts(&tables).await, before);
    assert_eq!(
        lake(&folder, 0).await.cold.committed().await.unwrap(),
        BTreeMap::from(ps.map(|p| (p, 7)))
    );
    // The next commit goes on as if nothing had happened.
    stores
        .cold
        .commit(&[range(ps[0], 8, 8)], record(ps[0], 8))
        .await
        .unwrap();
}

/// P15: hot never holds more than its cap, and takes rows again once cold has them.
#[tokio::test]
async fn p15_hot_refuses_rows_beyond_its_cap() {
    let folder = tempfile::tempdir().unwrap();
    let p = partition(0);
    let stores = lake(&folder, 600_000).await;
    let hot = stores.hot.embedded().unwrap();
    assert!(matches!(
        hot.insert(p, 0, 0, record(p, 0)),
        Err(HotError::NotClaimed { .. })
    ));
    hot.claim(p, 0);
    let mut next = 0;
    let full = loop {
        match hot.insert(p, next, next, record(p, next)) {
            Ok(()) => next += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(full, HotError::Full { .. }) && next > 2, "{full}");
    assert!(hot.bytes() <= 600_000);
    assert!(matches!(
        hot.insert(p, next + 1, next + 1, vec![]),
        Err(HotError::NotContiguous { .. })
    ));
    let stray = hot.insert(p, next, next, record(p, next + 1));
    assert!(
        matches!(stray, Err(HotError::Rows(RowsError::Outside { .. }))),
        "{stray:?}"
    );
    assert_eq!(hot.high(p), Some(next - 1));
    hot.drop_to(p, next - 1);
    assert_eq!((hot.bytes(), hot.high(p)), (0, Some(next - 1)));
    hot.insert(p, next, next, record(p, next)).unwrap();
    hot.claim(p, 5);
    assert_eq!((hot.bytes(), hot.high(p), hot.claimed(p)), (0, None, Some((5, 5))));
}

/// What cold has can be taken out of memory to the offset, although chunks hold more; a writer that is behind is told of.
#[tokio::test]
async fn memory_is_cut_to_the_offset() {
    let hot = EmbeddedHot::new(1 << 30);
    let p = partition(0);
    hot.claim(p, 0);
    for offset in 0..12 {
        hot.insert(p, offset, offset, record(p, offset)).unwrap();
    }
    let before = hot.bytes();
    assert!(hot.cut_to(p, 4).unwrap());
    assert!(hot.bytes() < before, "{} of {before}", hot.bytes());
    let folder = tempfile::tempdir().unwrap();
    let stores = Stores::open_with(folder.path().to_str().unwrap(), hot.clone().into())
        .await
        .unwrap();
    stores.cold.commit(&[range(p, 0, 4)], records(p, 0..=4)).await.unwrap();
    let rows = rows_of(&[range(p, 0, 11)]);
    assert_eq!(counts(&tables(&stores)).await, (rows, rows, 12));
    assert!(!hot.cut_to(p, 12).unwrap(), "offset 12 is still to come");
    assert_eq!((hot.bytes(), hot.claimed(p)), (0, Some((0, 12))));
    hot.insert(p, 12, 12, record(p, 12)).unwrap();
    assert!(hot.cut_to(p, 12).unwrap() && hot.bytes() == 0);
}

/// Rows missing between the stores are an error, never a short answer.
#[tokio::test]
async fn p8_a_hole_between_hot_and_cold_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let stores = lake(&folder, 1 << 30).await;
    let p = partition(0);
    stores.cold.commit(&[range(p, 0, 3)], records(p, 0..=3)).await.unwrap();
    let hot = stores.hot.embedded().unwrap();
    hot.claim(p, 6);
    hot.insert(p, 6, 6, record(p, 6)).unwrap();
    assert!(matches!(tables(&stores).pin().await, Err(PinError::Hole { .. })));
    stores.cold.commit(&[range(p, 4, 5)], records(p, 4..=5)).await.unwrap();
    let rows = rows_of(&[range(p, 0, 6)]);
    assert_eq!(counts(&tables(&stores)).await, (rows, rows, 7));
}

#[tokio::test]
async fn completeness_counts_what_the_log_held_and_says_unknown_when_it_does_not_know() {
    for (_folder, stores) in lakes(1 << 30).await {
        let (a, b) = (partition(0), partition(1));
        stores.cold.commit(&[range(a, 0, 3)], records(a, 0..=3)).await.unwrap();
        let ends = Arc::new(Ends::default());
        let options = TablesOptions {
            pin_max_age: Duration::ZERO,
            seam_max_age: Duration::ZERO,
        };
        let tables = Tables::new(stores.clone(), ends.clone(), options);
        let state = async || tables.pin().await.unwrap().completeness();
        assert_eq!(state().await.complete, None);
        ends.0.lock().unwrap().insert(a, 4);
        assert_eq!(state().await.complete, Some(true));
        ends.0.lock().unwrap().insert(b, 2);
        tables.watch(&[b]);
        let incomplete = state().await;
        assert_eq!((incomplete.complete, incomplete.missing), (Some(false), 2));
        assert_eq!(incomplete.oldest_missing_us, Some(ingested_at(0)));
        claim(&stores, b, 0).await;
        insert(&stores, b, 0..=1).await.unwrap();
        assert_eq!((state().await.complete, state().await.missing), (Some(true), 0));
    }
}
