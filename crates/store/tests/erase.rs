//! What is erased is invisible in every store, whatever is asked; and gone from cold with its counts kept.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use common::*;
use datafusion::prelude::SessionContext;
use sluice_store::cold::{Cleaned, Known, Replacement, Wrong};
use sluice_store::{OffsetRange, Retention, Rule, Scope, Stores, Tables, TablesOptions, register_views};
use sluice_wire::ids::Partition;

const LAST: u64 = 19;
const LAST_COLD: u64 = 11;

async fn ask(stores: &Stores, scope: Scope, sql: &str) -> Vec<RecordBatch> {
    let options = TablesOptions {
        pin_max_age: Duration::ZERO,
        seam_max_age: Duration::ZERO,
    };
    let tables = Tables::new(stores.clone(), Arc::new(Ends::default()), options);
    let pinned = tables.pin().await.unwrap();
    let ctx = SessionContext::new();
    register_views(&ctx, &pinned, scope.clone()).await.unwrap();
    ctx.register_table("everything", pinned.everything(scope)).unwrap();
    ctx.sql(sql).await.unwrap().collect().await.unwrap()
}

async fn number(stores: &Stores, scope: Scope, sql: &str) -> i64 {
    let rows = ask(stores, scope, sql).await;
    let column = rows[0].column(0);
    if column.is_null(0) {
        return 0;
    }
    column.as_primitive::<Int64Type>().value(0)
}

/// Data rows of each tenant, quarantined ones included.
async fn by_tenant(stores: &Stores) -> BTreeMap<String, i64> {
    let sql = "SELECT arrow_cast(tenant, 'Utf8'), count(*) FROM everything WHERE signal <> '_batch' GROUP BY tenant";
    let mut counts = BTreeMap::new();
    for batch in ask(stores, Scope::All, sql).await {
        for row in 0..batch.num_rows() {
            let tenant = batch.column(0).as_string::<i32>().value(row).to_owned();
            counts.insert(tenant, batch.column(1).as_primitive::<Int64Type>().value(row));
        }
    }
    counts
}

/// P3: accepted = stored + dropped + quarantined + damaged + erased, per tenant.
async fn balance(stores: &Stores, tenant: &str) -> BTreeMap<String, i64> {
    let sql = format!("SELECT bucket, sum(\"rows\") FROM ledger WHERE tenant = '{tenant}' GROUP BY bucket");
    let mut buckets = BTreeMap::new();
    for batch in ask(stores, Scope::All, &sql).await {
        for row in 0..batch.num_rows() {
            let bucket = arrow::compute::cast(batch.column(0), &arrow::datatypes::DataType::Utf8).unwrap();
            let bucket = bucket.as_string::<i32>().value(row).to_owned();
            buckets.insert(bucket, batch.column(1).as_primitive::<Int64Type>().value(row));
        }
    }
    let of = |name: &str| buckets.get(name).copied().unwrap_or(0);
    let named = of("stored") + of("quarantined") + of("damaged") + of("dropped") + of("erased");
    assert_eq!(of("accepted"), named, "{buckets:?}");
    buckets
}

async fn filled(stores: &Stores) {
    let p = partition(0);
    claim(stores, p, 0).await;
    insert(stores, p, 0..=LAST).await.unwrap();
    for (first, last) in [(0, 5), (6, LAST_COLD)] {
        let range = OffsetRange {
            partition: p,
            first,
            last,
        };
        stores.cold.commit(&[range], records(p, first..=last)).await.unwrap();
    }
    // Hot serves the rest.
    stores.seam.advance(p, 5).await.unwrap();
    drop_to(stores, p, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_erased_is_invisible_in_hot_and_cold_and_nothing_else_is() {
    for (_folder, stores) in lakes(1 << 30).await {
        filled(&stores).await;
        let before = by_tenant(&stores).await;
        assert_eq!(before.len(), 3);
        let ledger = "SELECT count(*) FROM everything WHERE signal = '_batch'";
        assert_eq!(number(&stores, Scope::All, ledger).await, LAST as i64 + 1);
        let acme = Scope::Tenant(tenant(0));

        // Half of the time, then all of it, up to a record in the middle.
        let middle = START_NS + 6 * 1_000_000_007;
        let upto = ingested_at(15);
        let expected = "SELECT count(*) FROM everything WHERE signal <> '_batch' AND tenant = 'acme' AND";
        let part = format!("{expected} NOT (\"time\" < TIMESTAMP '2025-11-21T04:40:06.000000042' AND \"offset\" < 15)");
        let left = number(&stores, Scope::All, &part).await;
        stores
            .erase(&Rule::new(&tenant(0), upto, None, Some(middle)))
            .await
            .unwrap();
        assert!(left < before["acme"]);
        assert_eq!(by_tenant(&stores).await["acme"], left);
        stores.erase(&Rule::new(&tenant(0), upto, None, None)).await.unwrap();
        let after = by_tenant(&stores).await;
        let late = format!("{expected} \"offset\" >= 15");
        let late = number(&stores, Scope::All, &late).await;
        assert_eq!(after.get("acme").copied().unwrap_or(0), late);
        for name in ["bolt", "core"] {
            assert_eq!(after[name], before[name], "{name}");
        }
        // Whatever is asked: without columns, with a limit, by other columns.
        for sql in [
            "SELECT count(*) FROM everything WHERE \"offset\" < 15 AND signal <> '_batch'",
            "SELECT count(body) FROM (SELECT body FROM events WHERE \"offset\" < 15 LIMIT 3)",
            "SELECT count(*) FROM (SELECT trace_id FROM events WHERE \"offset\" < 15 ORDER BY \"time\" DESC LIMIT 5)",
            "SELECT count(*) FROM quarantined WHERE \"offset\" < 15",
        ] {
            assert_eq!(number(&stores, acme.clone(), sql).await, 0, "{sql}");
        }
        assert_eq!(number(&stores, Scope::All, ledger).await, LAST as i64 + 1);
        let none = "SELECT count(*) FROM events WHERE tenant <> 'bolt'";
        assert_eq!(number(&stores, Scope::Tenant(tenant(1)), none).await, 0);

        // Retention by the time of taking in, for all but those that have their own.
        let since = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        let age = since.as_micros() as i64 - ingested_at(10);
        let retention = Retention::new(age, [("bolt".to_owned(), 0)].into());
        stores.keep_for(&retention).await.unwrap();
        let kept = by_tenant(&stores).await;
        assert_eq!(kept["bolt"], before["bolt"]);
        let young = "SELECT count(*) FROM everything WHERE signal <> '_batch' AND tenant = 'core' AND \"offset\" > 10";
        let young = number(&stores, Scope::All, young).await;
        assert_eq!(kept.get("core").copied().unwrap_or(0), young);
        assert!(young < before["core"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p3_what_is_taken_out_of_cold_is_counted_and_no_other_row_changes() {
    let folder = tempfile::tempdir().unwrap();
    let stores = lake(&folder, 1 << 30).await;
    let p = partition(0);
    for first in [0, 7, 14] {
        let range = OffsetRange {
            partition: p,
            first,
            last: first + 6,
        };
        let rows = records(p, first..=first + 6);
        stores.cold.commit(&[range], rows).await.unwrap();
    }
    let before = by_tenant(&stores).await;
    let rows = stores.cold.extent().await.unwrap().rows;
    let balances = [balance(&stores, "acme").await, balance(&stores, "bolt").await];
    let others = "SELECT * FROM everything WHERE tenant <> 'acme' ORDER BY \"offset\", \"row\"";
    let theirs = ask(&stores, Scope::All, others).await;

    let rule = Rule::new(&tenant(0), ingested_at(1000), None, Some(START_NS + 8 * 1_000_000_007));
    stores.erase(&rule).await.unwrap();
    let erased = stores.erased_for_good(ingested_at(2000)).await.unwrap();
    let mut cleaned = Cleaned::default();
    let report = stores.cold.erase(&erased, &mut cleaned).await.unwrap();
    assert!(report.rows > 0 && (report.rows as i64) < before["acme"], "{report:?}");
    assert_eq!(stores.cold.extent().await.unwrap().rows, rows - report.rows);
    let after = balance(&stores, "acme").await;
    assert_eq!(after["erased"], report.rows as i64);
    assert_eq!(after["accepted"], balances[0]["accepted"]);
    assert_eq!(balance(&stores, "bolt").await, balances[1]);
    assert_eq!(ask(&stores, Scope::All, others).await, theirs);
    // Once is enough.
    assert_eq!(stores.cold.erase(&erased, &mut cleaned).await.unwrap().rows, 0);
    assert_eq!(balance(&stores, "acme").await, after);

    // More of the same tenant adds to the count; then nothing but its ledger is left.
    stores
        .erase(&Rule::new(&tenant(0), ingested_at(1000), None, None))
        .await
        .unwrap();
    let erased = stores.erased_for_good(ingested_at(2000)).await.unwrap();
    let more = stores.cold.erase(&erased, &mut cleaned).await.unwrap();
    assert_eq!((more.rows + report.rows) as i64, before["acme"]);
    let last = balance(&stores, "acme").await;
    assert_eq!(
        (last["stored"], last["quarantined"], last["erased"]),
        (0, 0, before["acme"])
    );
    assert_eq!(ask(&stores, Scope::All, others).await, theirs);
}

/// What nobody can have to erase is not read: day after day, only files that hold rows which have become too old.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_reads_a_file_when_its_rows_are_old_enough_and_not_every_day() {
    const DAY_US: i64 = DAY_NS / 1000;
    let folder = tempfile::tempdir().unwrap();
    let stores = lake(&folder, 1 << 30).await;
    let p = partition(0);
    // Records arrive a second apart.
    let day = 86_400;
    for first in [0, day, 2 * day] {
        let last = first + 2;
        // A partition may begin anywhere, and ranges follow each other: the gap is filled with nothing but its last record.
        let from = match first {
            0 => 0,
            first => first - day + 3,
        };
        let range = OffsetRange {
            partition: p,
            first: from,
            last,
        };
        stores.cold.commit(&[range], records(p, first..=last)).await.unwrap();
    }
    let all = stores.cold.extent().await.unwrap();
    let keep = Retention::new(10 * DAY_US, BTreeMap::from([("bolt".to_owned(), 0)]));
    stores.keep_for(&keep).await.unwrap();
    let mut cleaned = Cleaned::default();
    let mut read = Vec::new();
    let mut rows = 0;
    let begin = ingested_at(0) - ingested_at(0).rem_euclid(DAY_US);
    for day in 0..20 {
        let erased = stores.erased_for_good(begin + day * DAY_US).await.unwrap();
        let report = stores.cold.erase(&erased, &mut cleaned).await.unwrap();
        read.push(report.files_read);
        rows += report.rows;
    }
    assert!(rows > 0 && read[..10].iter().sum::<usize>() == 0, "{read:?}");
    // Each commit leaves some files, each of which is read once when it is old enough; what is written anew keeps rows of the tenant that
    // keeps all, and is read once more to find that out.
    assert!(
        read[15..].iter().sum::<usize>() == 0 && read.iter().sum::<usize>() <= 2 * all.files as usize,
        "{read:?} of {} files",
        all.files
    );
    let left = by_tenant(&stores).await;
    assert_eq!(left.keys().collect::<Vec<_>>(), ["bolt"]);
    assert_eq!(balance(&stores, "acme").await["stored"], 0);
    assert_eq!(balance(&stores, "bolt").await.get("erased"), None);
    let found = stores.cold.balance(&mut Known::default()).await.unwrap().unwrap();
    // The gaps between the records are the test's own.
    assert!(
        found.holes.iter().all(|hole| hole.wrong == Wrong::NoLedger),
        "{found:?}"
    );
}

/// P3: what is not there although the ledger says so is named; what was erased is not missing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p3_rows_that_are_missing_or_too_many_are_named_by_stream_and_offsets() {
    let folder = tempfile::tempdir().unwrap();
    let stores = lake(&folder, 1 << 30).await;
    let p = partition(0);
    let range = |first, last| OffsetRange {
        partition: p,
        first,
        last,
    };
    for first in [0, 8] {
        let rows = records(p, first..=first + 7);
        stores.cold.commit(&[range(first, first + 7)], rows).await.unwrap();
    }
    let mut known = Known::default();
    let whole = stores.cold.balance(&mut known).await.unwrap().unwrap();
    assert_eq!((whole.records, whole.holes), (16, vec![]));
    // One row less, one more, one ledger row less, two batches of one stream less.
    let without = |offset: u64| {
        let rows = record(p, offset);
        vec![rows[0].slice(1, rows[0].num_rows() - 1), rows[1].clone()]
    };
    let twice = |offset: u64| {
        let rows = record(p, offset);
        vec![rows[0].clone(), rows[0].slice(0, 1), rows[1].clone()]
    };
    for (offset, rows) in [(3, without(3)), (6, twice(6)), (9, vec![record(p, 9)[0].clone()])] {
        let mut replacement = Replacement::new(vec![range(offset, offset)]);
        stores.cold.add_to(&mut replacement, rows).await.unwrap();
        stores.cold.replace_with(replacement).await.unwrap();
    }
    let found = stores.cold.balance(&mut known).await.unwrap().unwrap();
    let named: Vec<_> = found
        .holes
        .iter()
        .map(|hole| (hole.wrong, hole.first, hole.last, hole.events))
        .collect();
    assert_eq!(
        named,
        [
            (Wrong::Missing, 3, 3, 1),
            (Wrong::Surplus, 6, 6, 1),
            (Wrong::NoLedger, 9, 9, 1)
        ]
    );
    let missing = &found.holes[0];
    assert!(
        missing.stream.starts_with(&format!("{}/site-1/", missing.tenant)),
        "{missing:?}"
    );
    // Made again, it holds; and again after some of it was erased.
    let mut replacement = Replacement::new(vec![range(0, 15)]);
    stores.cold.add_to(&mut replacement, records(p, 0..=15)).await.unwrap();
    stores.cold.replace_with(replacement).await.unwrap();
    assert_eq!(stores.cold.balance(&mut known).await.unwrap().unwrap().holes, vec![]);
    let rule = Rule::new(&tenant(0), ingested_at(12), None, None);
    stores.erase(&rule).await.unwrap();
    let erased = stores.erased_for_good(ingested_at(2000)).await.unwrap();
    let report = stores.cold.erase(&erased, &mut Cleaned::default()).await.unwrap();
    assert!(report.rows > 0);
    assert_eq!(stores.cold.balance(&mut known).await.unwrap().unwrap().holes, vec![]);
}

/// P3: rows are counted although the sums agree: one that is missing is not made up for by another that is there twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p3_a_missing_row_is_found_although_another_is_there_twice() {
    let folder = tempfile::tempdir().unwrap();
    let stores = lake(&folder, 1 << 30).await;
    let partitions = [0, 1, 2].map(partition);
    let range = |p: Partition, first, last| OffsetRange {
        partition: p,
        first,
        last,
    };
    for p in partitions {
        stores.cold.commit(&[range(p, 0, 7)], records(p, 0..=7)).await.unwrap();
    }
    let mut known = Known::default();
    let mut look = async || stores.cold.balance(&mut known).await.unwrap().unwrap().holes;
    assert_eq!(look().await, vec![]);
    let replace = async |p: Partition, offset: u64, rows: Vec<RecordBatch>| {
        let mut replacement = Replacement::new(vec![range(p, offset, offset)]);
        stores.cold.add_to(&mut replacement, rows).await.unwrap();
        stores.cold.replace_with(replacement).await.unwrap();
    };
    let [p, q, _] = partitions;
    let (less, more) = (record(p, 3), record(q, 6));
    replace(p, 3, vec![less[0].slice(1, less[0].num_rows() - 1), less[1].clone()]).await;
    replace(q, 6, vec![more[0].clone(), more[0].slice(0, 1), more[1].clone()]).await;
    let of = |holes: &[sluice_store::cold::Hole]| {
        let mut named: Vec<_> = holes
            .iter()
            .map(|hole| (hole.wrong, hole.partition, hole.first, hole.last, hole.events))
            .collect();
        named.sort_unstable();
        named
    };
    let named = [
        (Wrong::Missing, p.as_i64(), 3, 3, 1),
        (Wrong::Surplus, q.as_i64(), 6, 6, 1),
    ];
    assert_eq!(of(&look().await), named);
    // What was found stays said for as long as it is so, also beside what sums tell.
    replace(p, 5, vec![record(p, 5)[1].clone()]).await;
    let rows = record(p, 5)[0].num_rows() as u64;
    let with_sums = [named[0], (Wrong::Missing, p.as_i64(), 5, 5, rows), named[1]];
    assert_eq!(of(&look().await), with_sums);
    replace(p, 5, record(p, 5)).await;
    stores.cold.commit(&[range(p, 8, 8)], records(p, 8..=8)).await.unwrap();
    assert_eq!(of(&look().await), named);
    replace(p, 3, less.to_vec()).await;
    replace(q, 6, more.to_vec()).await;
    assert_eq!(look().await, vec![]);

    // Files that are gone are no rows that are missing, and no reason to be still: it is said until they can be read.
    let mut unread = async || {
        let found = stores.cold.balance(&mut known).await.unwrap().unwrap();
        assert_eq!(found.holes, vec![]);
        found.unread
    };
    let files = data_files(&folder);
    let gone = |file: &Path| file.with_extension("gone");
    for file in &files {
        std::fs::rename(file, gone(file)).unwrap();
    }
    for _ in 0..2 {
        assert_eq!(unread().await, 3);
    }
    for file in &files {
        std::fs::rename(gone(file), file).unwrap();
    }
    assert_eq!(unread().await, 0);
}

/// Rows for another store are those that are not erased, with their ledger charged, even before cold is rid of the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p3_rows_taken_from_cold_are_charged_for_what_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let stores = lake(&folder, 1 << 30).await;
    let p = partition(0);
    let range = OffsetRange {
        partition: p,
        first: 0,
        last: 9,
    };
    stores.cold.commit(&[range], records(p, 0..=9)).await.unwrap();
    stores
        .erase(&Rule::new(&tenant(0), ingested_at(1000), None, None))
        .await
        .unwrap();
    let erased = stores.erased_for_good(ingested_at(2000)).await.unwrap();
    let whole = stores.whole_rows_of_cold(range).await.unwrap();
    let taken = erased.apply(whole).unwrap();
    stores.cold.erase(&erased, &mut Cleaned::default()).await.unwrap();
    let sorted = |batches: &[RecordBatch]| arrow::compute::concat_batches(&batches[0].schema(), batches).unwrap();
    assert_eq!(sorted(&taken), sorted(&stores.rows_of_cold(range).await.unwrap()));
}
