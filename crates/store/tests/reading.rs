//! What queries read of cold files: nothing that the time excludes, of a trace only what it is in, footers once.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray};
use arrow::datatypes::Int64Type;
use arrow::util::pretty::pretty_format_batches;
use common::*;
use datafusion::physical_plan::metrics::{MetricValue, MetricsSet};
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{ExecutionPlan, collect, displayable};
use datafusion::prelude::{SessionConfig, SessionContext};
use sluice_store::{
    CacheOptions, Caches, EmbeddedHot, Lake, Reads, S3Options, Scope, Stores, Tables, TablesOptions, cold_files,
    inputs, of_files, register_views,
};

const FILES: u64 = 4;
const FEW: u64 = 2_000;
/// More than one row group, which have 65,536.
const MANY: u64 = 70_000;
const GROUPS_OF_FILE: u64 = 2;
const HOUR_NS: i64 = 3_600_000_000_000;

struct Site {
    folder: tempfile::TempDir,
    stores: Stores,
    tables: Tables,
}

impl Site {
    async fn new() -> Site {
        let folder = tempfile::tempdir().unwrap();
        let stores = lake(&folder, 1 << 30).await;
        let tables = tables(&stores);
        Site { folder, stores, tables }
    }

    async fn context(&self) -> SessionContext {
        let ctx = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
        let pinned = self.tables.pin().await.unwrap();
        register_views(&ctx, &pinned, Scope::All).await.unwrap();
        ctx
    }

    async fn ask(&self, sql: &str) -> (Vec<RecordBatch>, Arc<dyn ExecutionPlan>) {
        let ctx = self.context().await;
        let plan = ctx.sql(sql).await.unwrap().create_physical_plan().await.unwrap();
        (collect(Arc::clone(&plan), ctx.task_ctx()).await.unwrap(), plan)
    }

    async fn number(&self, sql: &str) -> i64 {
        self.ask(sql).await.0[0].column(0).as_primitive::<Int64Type>().value(0)
    }

    /// What the lake was asked for meanwhile.
    async fn reads_of(&self, sql: &str) -> Reads {
        let before = self.tables.reads();
        self.ask(sql).await;
        let after = self.tables.reads();
        Reads {
            lake_reads: after.lake_reads - before.lake_reads,
            lake_bytes: after.lake_bytes - before.lake_bytes,
            ..after
        }
    }

    fn data_files(&self) -> Vec<PathBuf> {
        data_files(&self.folder)
    }
}

fn trace_id(file: u64, row: u64) -> String {
    format!(
        "{:032x}",
        (u128::from(file * MANY + row) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
    )
}

/// A file's rows, each of a trace of its own, an hour after those of the file before.
fn file_of(file: u64, rows: u64) -> Vec<RecordBatch> {
    let one = records(partition(0), file..=file);
    let (data, ledger) = (&one[0], one[1].clone());
    let row = data.slice(0, 1);
    let picks = arrow::array::UInt32Array::from(vec![0; rows as usize]);
    let mut columns: Vec<ArrayRef> = row
        .columns()
        .iter()
        .map(|column| arrow::compute::take(column, &picks, None).unwrap())
        .collect();
    let mut put = |name: &str, column: ArrayRef| {
        let at = row.schema().index_of(name).unwrap();
        columns[at] = arrow::compute::cast(&column, row.schema().field(at).data_type()).unwrap();
    };
    let texts =
        |text: &dyn Fn(u64) -> Option<String>| -> ArrayRef { Arc::new((0..rows).map(text).collect::<StringArray>()) };
    let start = START_NS + file as i64 * HOUR_NS;
    let times = TimestampNanosecondArray::from_iter_values((0..rows as i64).map(|row| start + row * 1_000));
    put("time", Arc::new(times.with_timezone("UTC")));
    put("trace_id", texts(&|row| Some(trace_id(file, row))));
    put(
        "body",
        texts(&|row| Some(format!("a line of some length, number {row} of file {file}"))),
    );
    put("signal", texts(&|_| Some("log".to_owned())));
    put("quarantined_by", texts(&|_| None));
    put("row", Arc::new(Int64Array::from_iter_values(0..rows as i64)));
    vec![RecordBatch::try_new(row.schema(), columns).unwrap(), ledger]
}

async fn filled(rows: u64) -> Site {
    let site = Site::new().await;
    for file in 0..FILES {
        let range = range(partition(0), file, file);
        site.stores.cold.commit(&[range], file_of(file, rows)).await.unwrap();
    }
    site
}

/// What pruning says of itself, over all scans: passed over, and looked at.
fn pruned(plan: &Arc<dyn ExecutionPlan>, wanted: &str) -> (usize, usize) {
    let mut sum = (0, 0);
    for metric in plan.metrics().iter().flat_map(MetricsSet::iter) {
        if let MetricValue::PruningMetrics { name, pruning_metrics } = metric.value()
            && name == wanted
        {
            sum.0 += pruning_metrics.pruned();
            sum.1 += pruning_metrics.pruned() + pruning_metrics.matched();
        }
    }
    for child in plan.children() {
        let more = pruned(child, wanted);
        sum = (sum.0 + more.0, sum.1 + more.1);
    }
    sum
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_is_found_by_bloom_filters_and_not_by_a_scan() {
    let site = filled(MANY).await;
    let all = "SELECT count(body), count(trace_id) FROM events";
    assert_eq!(site.number(all).await, (FILES * MANY) as i64);
    let scan = site.reads_of(all).await;
    for (file, row) in [(0, 0), (2, 33_333), (FILES - 1, MANY - 1)] {
        let sql = format!("SELECT body FROM events WHERE trace_id = '{}'", trace_id(file, row));
        let (rows, plan) = site.ask(&sql).await;
        let told = pretty_format_batches(&rows).unwrap().to_string();
        assert!(told.contains(&format!("number {row} of file {file} ")), "{told}");
        assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 1);
        let (gone, seen) = pruned(&plan, "row_groups_pruned_bloom_filter");
        let groups = (FILES * GROUPS_OF_FILE) as usize;
        assert_eq!(seen, groups, "every row group was asked");
        assert!(gone >= groups - 2, "{gone} of {groups} were passed over");
        let reads = site.reads_of(&sql).await;
        assert!(
            reads.lake_bytes * 2 < scan.lake_bytes,
            "{reads:?} for one row, {scan:?} for all"
        );
    }
    let absent = site.reads_of("SELECT body FROM events WHERE trace_id = 'ffff'").await;
    // The filters of each row group, and at most one row group that is read for nothing.
    assert!(absent.lake_reads <= FILES * GROUPS_OF_FILE + 4, "{absent:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_footer_is_read_once_and_a_new_file_costs_its_own_alone() {
    let site = filled(FEW).await;
    let sql = "SELECT count(body) FROM events";
    let first = site.reads_of(sql).await;
    let second = site.reads_of(sql).await;
    assert_eq!(second.footers, FILES);
    // The end of a file and then its column; later the column alone.
    assert_eq!(
        first.lake_reads,
        second.lake_reads + FILES,
        "{first:?}, then {second:?}"
    );
    let (p, next) = (partition(0), FILES);
    site.stores
        .cold
        .commit(&[range(p, next, next)], file_of(next, FEW))
        .await
        .unwrap();
    let third = site.reads_of(sql).await;
    let of_file = second.lake_reads / FILES;
    assert_eq!(
        third.lake_reads,
        second.lake_reads + of_file + 1,
        "{second:?}, then {third:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_five_minutes_read_nothing_of_cold() {
    let site = filled(FEW).await;
    let (p, next) = (partition(0), FILES);
    claim(&site.stores, p, next).await;
    let rows = file_of(next, FEW);
    let hot = sluice_store::HotRows {
        range: range(p, next, next),
        rows: rows.clone(),
    };
    site.stores.hot.insert(&[hot]).await.unwrap();
    // Cold has these too, and hot still serves them.
    site.stores.cold.commit(&[range(p, next, next)], rows).await.unwrap();
    // The log begins at 04:40, a file has the first moments of an hour.
    let last = "FROM events WHERE time >= TIMESTAMP '2025-11-21T08:38:00Z' AND time < TIMESTAMP '2025-11-21T08:43:00Z'";
    let count = format!("SELECT count(body) {last}");
    // Whatever lies in cold: nothing of it is opened.
    for file in site.data_files() {
        std::fs::write(file, b"").unwrap();
    }
    for sql in [
        count.clone(),
        format!("SELECT service, count(*), max(severity) {last} GROUP BY service"),
        format!("SELECT * {last} ORDER BY time DESC LIMIT 10"),
        format!("SELECT * {last} AND trace_id = '{}'", trace_id(next, 5)),
    ] {
        let reads = site.reads_of(&sql).await;
        assert_eq!((reads.lake_reads, reads.lake_bytes), (0, 0), "{sql}");
    }
    assert_eq!(site.number(&count).await, FEW as i64);
    let ctx = site.context().await;
    let all = ctx.sql("SELECT count(body) FROM events").await.unwrap().collect().await;
    assert!(all.is_err(), "a query that needs them does open them");
}

/// Where the bounds of a file say that all of its rows are of the time that is asked for, no row's time is looked at.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_files_within_the_time_no_times_are_read() {
    let site = filled(FEW).await;
    let since = |from: &str| {
        format!(
            "SELECT count(*) FROM events WHERE time >= TIMESTAMP '{from}' AND time < TIMESTAMP '2025-11-21T09:00:00Z'"
        )
    };
    // The log begins at 04:40, and each row is a microsecond after the one before.
    let all = since("2025-11-21T04:40:00Z");
    assert_eq!(site.number(&all).await, (FILES * FEW) as i64);
    let reads = site.reads_of(&all).await;
    assert_eq!((reads.lake_reads, reads.lake_bytes), (0, 0), "the footers are known");
    let most = since("2025-11-21T04:40:00.001Z");
    let (_, plan) = site.ask(&most).await;
    let told = displayable(plan.as_ref()).indent(false).to_string();
    assert!(
        told.contains(&format!("{} of them within the time", FILES - 1)),
        "{told}"
    );
    assert_eq!(site.number(&most).await, (FILES * FEW) as i64 - 1_000);
    let one = site.reads_of(&most).await;
    let both = site.reads_of("SELECT count(DISTINCT time) FROM events").await;
    assert!(
        one.lake_bytes > 0 && one.lake_bytes * 3 < both.lake_bytes,
        "{one:?} of one file, {both:?} of all"
    );
    // What else is asked of the rows is still looked at, in each of them.
    let one = format!("{all} AND trace_id = '{}'", trace_id(2, 7));
    assert_eq!(site.number(&one).await, 1);
    let newest = all.replace("count(*)", "body") + " ORDER BY time DESC LIMIT 1";
    let told = pretty_format_batches(&site.ask(&newest).await.0).unwrap().to_string();
    assert!(
        told.contains(&format!("number {} of file {} ", FEW - 1, FILES - 1)),
        "{told}"
    );
}

/// What machines read that divide the files of a scan among themselves is what one machine reads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_reads_the_same_however_its_files_are_divided() {
    let site = filled(FEW).await;
    let (_, plan) = site.ask("SELECT count(body) FROM events").await;
    let whole = inputs(&plan);
    assert!(whole.is_some());
    let files = cold_files(&plan);
    assert_eq!(files.len() as u64, FILES);
    for first in 1..files.len() {
        let is_first = |path: &str| files[..first].iter().any(|file| file.path == path);
        let parts = vec![
            of_files(&plan, &is_first).unwrap(),
            of_files(&plan, &|path| !is_first(path)).unwrap(),
        ];
        assert_eq!(inputs(&UnionExec::try_new(parts).unwrap()), whole);
    }
    let (_, other) = site.ask("SELECT count(body) FROM events WHERE body <> ''").await;
    assert_ne!(inputs(&other), whole);
}

/// Between two queries the table's log is looked at, and not read again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_read_of_the_tables_log_is_not_read_again() {
    let site = filled(FEW).await;
    let count = "SELECT count(*) FROM events";
    assert_eq!(site.number(count).await, (FILES * FEW) as i64);
    let log = site.folder.path().join("lake/events/_delta_log");
    for entry in std::fs::read_dir(&log).unwrap() {
        let path = entry.unwrap().path();
        // Their names stay: the look at what is new begins with them.
        std::fs::write(&path, b"").unwrap();
    }
    tokio::time::timeout(Duration::from_secs(60), async {
        assert_eq!(site.number(count).await, (FILES * FEW) as i64);
    })
    .await
    .unwrap();
}

/// Of a bucket, what was read once is read from this machine's disk, also by the next process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_read_of_a_bucket_is_on_disk_the_next_time() {
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
    let location = format!("s3://{}/{}/lake", variable("BUCKET").unwrap(), uuid::Uuid::new_v4());
    let lake = Lake::open(&location, &options).await.unwrap();
    let stores = Stores::open_in(&lake, EmbeddedHot::new(1 << 30).into()).await.unwrap();
    for file in 0..2 {
        let range = range(partition(0), file, file);
        stores.cold.commit(&[range], file_of(file, FEW)).await.unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let process = || {
        let options = CacheOptions {
            disk: Some((folder.path().to_owned(), 64 << 20)),
            ..CacheOptions::default()
        };
        let caches = Caches::open(&options).unwrap();
        let ends = Arc::new(Ends::default());
        let tables = Tables::with_caches(stores.clone(), ends, TablesOptions::default(), caches);
        Site {
            folder: tempfile::tempdir().unwrap(),
            stores: stores.clone(),
            tables,
        }
    };
    let sql = format!(
        "SELECT count(body), count(*) FROM events WHERE trace_id <> '{}'",
        trace_id(1, 7)
    );
    let first = process();
    assert_eq!(first.number(&sql).await, 2 * FEW as i64 - 1);
    let read = first.tables.reads();
    assert!(
        read.lake_bytes > 0 && read.disk_misses > 0 && read.disk_bytes > 0,
        "{read:?}"
    );
    let again = first.reads_of(&sql).await;
    assert_eq!((again.lake_reads, again.lake_bytes), (0, 0));
    let second = process();
    assert_eq!(second.number(&sql).await, 2 * FEW as i64 - 1);
    let read = second.tables.reads();
    assert_eq!((read.lake_reads, read.disk_damaged), (0, 0), "{read:?}");
    assert!(read.disk_hits > 0 && read.disk_hit_bytes > 0);
}
