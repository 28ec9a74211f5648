//! Rows to store, and stores to put them in.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int32Array, Int64Array, ListArray, MapBuilder, MapFieldNames, RecordBatch,
    StringArray, StringBuilder, TimestampMicrosecondArray, TimestampNanosecondArray, UInt32Array, UInt64Array,
    new_null_array,
};
use arrow::datatypes::{DataType, Float64Type, UInt64Type};
use sluice_store::hot::clickhouse::ClickHouseConfig;
use sluice_store::{ClickHouseHot, HotError, HotRows, LogEnds, OffsetRange, Stores, Tables, TablesOptions};
use sluice_wire::counts::Counts;
use sluice_wire::events::{Origin, Outcome, ledger_row, schema};
use sluice_wire::ids::{BatchId, Epoch, NodeId, Partition, StreamId, TenantId};

pub const DAY_NS: i64 = 86_400_000_000_000;
pub const START_NS: i64 = 1_763_700_000_000_000_000;

pub fn partition(index: u16) -> Partition {
    Partition { generation: 0, index }
}

pub fn tenant(index: u64) -> TenantId {
    TenantId::new(["acme", "bolt", "core"][index as usize % 3]).unwrap()
}

/// A small generator of numbers, the same for the same seed.
#[derive(Clone)]
pub struct Seeded(u64);

impl Seeded {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound.max(1)
    }
}

/// The rows of one log record, a pure function of its place: data rows (some quarantined, but none of ten offsets in twenty) and its
/// ledger row.
pub fn record(p: Partition, offset: u64) -> Vec<RecordBatch> {
    let mut rng = Seeded::new(u64::from(p.index) * 1_000_003 + offset + 17);
    let owner = tenant(rng.below(3));
    let id = BatchId {
        stream: StreamId {
            tenant: owner,
            node: NodeId::new("site-1").unwrap(),
            spool: [p.index as u8; 16],
        },
        epoch: Epoch { number: 1, random: 7 },
        seq: offset,
    };
    let rows = 1 + rng.below(12) as usize;
    let data = data_rows(&id, p, offset, rows, &mut rng);
    let quarantined = data
        .column_by_name("quarantined_by")
        .map_or(0, |c| rows - c.null_count()) as u64;
    let stored = rows as u64 - quarantined;
    let mut counts = Counts {
        accepted: rows as u64 + 2,
        stored,
        quarantined,
        ..Counts::default()
    };
    counts.dropped.push(sluice_wire::counts::Dropped {
        plugin: "filter".into(),
        reason: "debug/noise".into(),
        rows: 2,
    });
    let origin = Origin {
        id: &id,
        partition: p,
        offset,
        ingested_at_us: ingested_at(offset),
    };
    let (outcome, detail) = match offset % 3 {
        2 => (Outcome::Report, report(offset)),
        _ => (Outcome::Accepted, String::new()),
    };
    vec![data, ledger_row(&origin, outcome, &counts, &detail)]
}

/// What an edge says of itself now and then, with a batch.
fn report(offset: u64) -> String {
    format!(
        r#"{{"plugins":[{{"name":"filter","version":"1.0.{offset}","kind":"filter","enabled":true,"state":"current","rows_in":{offset},
        "rows_out":1,"dropped":[["debug/noise",2],["other",{offset}]],"faults":1,"last_fault":"trap","cpu_ns":{offset}000,"memory_bytes":9}}]}}"#
    )
}

pub fn ingested_at(offset: u64) -> i64 {
    START_NS / 1000 + offset as i64 * 1_000_000
}

fn data_rows(id: &BatchId, p: Partition, offset: u64, rows: usize, rng: &mut Seeded) -> RecordBatch {
    let mut pick = |bound: u64| -> Vec<u64> { (0..rows).map(|_| rng.below(bound)).collect() };
    let (signals, services, late, jitter, levels, numbers) =
        (pick(3), pick(5), pick(40), pick(DAY_NS as u64), pick(24), pick(1 << 40));
    let quarantined = pick(10);
    let extra = pick(1 << 40);
    // Some rows are days late, so that offsets and event times disagree.
    let times: Vec<i64> = (0..rows)
        .map(|i| {
            START_NS + offset as i64 * 1_000_000_007 + jitter[i] as i64 / 1000
                - if late[i] < 3 { late[i] as i64 + 1 } else { 0 } * DAY_NS
        })
        .collect();
    let text =
        |f: &dyn Fn(usize) -> Option<String>| -> ArrayRef { Arc::new((0..rows).map(f).collect::<StringArray>()) };
    let is = |i: usize, signal: u64| signals[i] == signal;
    let mut columns: HashMap<&str, ArrayRef> = HashMap::new();
    columns.insert("tenant", text(&|_| Some(id.stream.tenant.to_string())));
    columns.insert("node", text(&|_| Some(id.stream.node.to_string())));
    columns.insert(
        "signal",
        text(&|i| Some(["log", "span", "metric"][signals[i] as usize].to_owned())),
    );
    columns.insert(
        "time",
        Arc::new(TimestampNanosecondArray::from(times).with_timezone("UTC")),
    );
    columns.insert(
        "service",
        text(&|i| (services[i] < 4).then(|| format!("service-{}", services[i]))),
    );
    columns.insert(
        "name",
        text(&|i| (!is(i, 0)).then(|| format!("name-{}", numbers[i] % 7))),
    );
    columns.insert(
        "body",
        text(&|i| is(i, 0).then(|| format!("line {} of {offset}", numbers[i]))),
    );
    columns.insert(
        "trace_id",
        text(&|i| (!is(i, 2)).then(|| format!("{:032x}", numbers[i] % 50))),
    );
    columns.insert(
        "quarantined_by",
        text(&|i| (quarantined[i] == 0 && offset % 20 >= 10).then(|| "mask".to_owned())),
    );
    columns.insert(
        "severity",
        Arc::new(
            (0..rows)
                .map(|i| is(i, 0).then_some(levels[i] as i32))
                .collect::<Int32Array>(),
        ),
    );
    columns.insert(
        "duration_ns",
        Arc::new(
            (0..rows)
                .map(|i| is(i, 1).then_some(numbers[i] as i64))
                .collect::<Int64Array>(),
        ),
    );
    columns.insert(
        "value",
        Arc::new(
            (0..rows)
                .map(|i| is(i, 2).then_some(levels[i] as f64))
                .collect::<Float64Array>(),
        ),
    );
    columns.insert(
        "count",
        Arc::new(
            (0..rows)
                .map(|i| is(i, 2).then_some(u64::MAX - levels[i]))
                .collect::<UInt64Array>(),
        ),
    );
    columns.insert(
        "flags",
        Arc::new(
            (0..rows)
                .map(|i| is(i, 1).then_some(u32::MAX - 1))
                .collect::<UInt32Array>(),
        ),
    );
    let buckets = (0..rows).map(|i| is(i, 2).then(|| vec![Some(numbers[i]), Some(u64::MAX)]));
    columns.insert(
        "buckets",
        Arc::new(ListArray::from_iter_primitive::<UInt64Type, _, _>(buckets)),
    );
    columns.insert(
        "monotonic",
        Arc::new(
            (0..rows)
                .map(|i| is(i, 2).then_some(extra[i] % 3 > 0))
                .collect::<BooleanArray>(),
        ),
    );
    let quarter = |i: usize| (extra[i] % 97) as f64 / 4.0;
    columns.insert(
        "sum",
        Arc::new(
            (0..rows)
                .map(|i| is(i, 2).then(|| quarter(i)))
                .collect::<Float64Array>(),
        ),
    );
    columns.insert(
        "max",
        Arc::new(
            (0..rows)
                .map(|i| is(i, 2).then(|| if extra[i] % 5 == 0 { f64::NAN } else { quarter(i) }))
                .collect::<Float64Array>(),
        ),
    );
    let bounds = (0..rows).map(|i| {
        let given = (0..=extra[i] % 2).map(|n| Some(n as f64 + quarter(i)));
        (is(i, 2) && extra[i] % 7 > 0).then(|| given.collect::<Vec<_>>())
    });
    columns.insert(
        "bounds",
        Arc::new(ListArray::from_iter_primitive::<Float64Type, _, _>(bounds)),
    );
    let observed: Vec<Option<i64>> = (0..rows)
        .map(|i| (extra[i] % 4 > 0).then(|| START_NS + extra[i] as i64 % 120_000_000_000))
        .collect();
    columns.insert(
        "observed_time",
        Arc::new(TimestampNanosecondArray::from(observed).with_timezone("UTC")),
    );
    columns.insert(
        "resource",
        map(rows, |i| match extra[i] % 4 {
            0 => Vec::new(),
            n => vec![("zone".to_owned(), format!("z{n}"))],
        }),
    );
    columns.insert("weight", Arc::new(Float64Array::from(vec![1.0; rows])));
    columns.insert(
        "attrs",
        map(rows, |i| {
            vec![
                ("route".to_owned(), format!("/r{}", numbers[i] % 4)),
                ("n".to_owned(), levels[i].to_string()),
            ]
            .into_iter()
            // A key may stand twice, and be empty: the first counts.
            .chain((extra[i] % 5 == 0).then(|| ("twice".to_owned(), "first".to_owned())))
            .chain((extra[i] % 5 == 0).then(|| ("twice".to_owned(), "second".to_owned())))
            .chain((extra[i] % 5 == 1).then(|| ("twice".to_owned(), String::new())))
            .collect()
        }),
    );
    columns.insert("stream", text(&|_| Some(id.stream.to_string())));
    columns.insert("epoch", text(&|_| Some(id.epoch.to_string())));
    columns.insert("seq", Arc::new(Int64Array::from(vec![id.seq as i64; rows])));
    columns.insert("partition", Arc::new(Int64Array::from(vec![p.as_i64(); rows])));
    columns.insert("offset", Arc::new(Int64Array::from(vec![offset as i64; rows])));
    columns.insert("row", Arc::new(Int32Array::from_iter_values(0..rows as i32)));
    let at = TimestampMicrosecondArray::from(vec![ingested_at(offset); rows]).with_timezone("UTC");
    columns.insert("ingested_at", Arc::new(at));
    finish(columns, rows)
}

fn finish(mut columns: HashMap<&str, ArrayRef>, rows: usize) -> RecordBatch {
    let schema = schema();
    let arrays = schema.fields().iter().map(
        |field| match (columns.remove(field.name().as_str()), field.data_type()) {
            (Some(array), kind) if array.data_type() == kind => array,
            (Some(array), kind) => arrow::compute::cast(&array, kind).unwrap(),
            (None, DataType::Map(..)) => map(rows, |_| Vec::new()),
            (None, kind) => new_null_array(kind, rows),
        },
    );
    let arrays = arrays.collect();
    RecordBatch::try_new(schema, arrays).unwrap()
}

fn map(rows: usize, entries: impl Fn(usize) -> Vec<(String, String)>) -> ArrayRef {
    let names = MapFieldNames {
        entry: "key_value".into(),
        key: "key".into(),
        value: "value".into(),
    };
    let mut builder = MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new());
    for row in 0..rows {
        for (key, value) in entries(row) {
            builder.keys().append_value(key);
            builder.values().append_value(value);
        }
        builder.append(true).unwrap();
    }
    Arc::new(builder.finish())
}

/// The rows of all offsets of a range.
pub fn records(p: Partition, offsets: std::ops::RangeInclusive<u64>) -> Vec<RecordBatch> {
    offsets.flat_map(|offset| record(p, offset)).collect()
}

/// The end of a log that the test sets.
#[derive(Default)]
pub struct Ends(pub Mutex<BTreeMap<Partition, u64>>);

impl LogEnds for Ends {
    fn end(&self, partition: Partition) -> Option<u64> {
        self.0.lock().unwrap().get(&partition).copied()
    }

    fn oldest_unread_us(&self, _: Partition, offset: u64) -> Option<i64> {
        Some(ingested_at(offset))
    }
}

pub async fn lake(folder: &tempfile::TempDir, hot_cap: u64) -> Stores {
    Stores::open(folder.path().join("lake").to_str().unwrap(), hot_cap)
        .await
        .unwrap()
}

/// All files with rows of such a lake, also those that no version names any more.
pub fn data_files(folder: &tempfile::TempDir) -> Vec<PathBuf> {
    fn find(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => find(&path, found),
                false if path.extension().is_some_and(|extension| extension == "parquet") => found.push(path),
                false => {}
            }
        }
    }
    let mut found = Vec::new();
    find(&folder.path().join("lake/events"), &mut found);
    found
}

/// The address of the ClickHouse engine. Without one nothing is tested on it, which is a failure where all must be.
pub fn server() -> Option<String> {
    let url = std::env::var("SLUICE_TEST_CLICKHOUSE_URL")
        .ok()
        .filter(|url| !url.is_empty());
    if url.is_none() {
        assert!(
            std::env::var_os("CI").is_none(),
            "no SLUICE_TEST_CLICKHOUSE_URL: `cargo xtask services clickhouse` gives one"
        );
        eprintln!("NOT TESTED on ClickHouse: there is no SLUICE_TEST_CLICKHOUSE_URL");
    }
    url
}

/// A database of its own on the engine, with all tables.
pub async fn server_hot(url: &str) -> ClickHouseHot {
    let config = ClickHouseConfig {
        url: url.to_owned(),
        database: format!("test_{:016x}", rand_u64()),
        ..ClickHouseConfig::default()
    };
    let hot = ClickHouseHot::new(&config).unwrap();
    hot.migrate(false).await.unwrap();
    hot.prepare().await.unwrap();
    hot
}

fn rand_u64() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

/// The same lake over every hot store there is.
pub async fn lakes(hot_cap: u64) -> Vec<(tempfile::TempDir, Stores)> {
    let folder = tempfile::tempdir().unwrap();
    let stores = lake(&folder, hot_cap).await;
    let mut lakes = vec![(folder, stores)];
    if let Some(url) = server() {
        let folder = tempfile::tempdir().unwrap();
        let location = folder.path().join("lake");
        let hot = server_hot(&url).await.into();
        let stores = Stores::open_with(location.to_str().unwrap(), hot).await.unwrap();
        lakes.push((folder, stores));
    }
    lakes
}

/// A writer takes a partition over.
pub async fn claim(stores: &Stores, p: Partition, from: u64) {
    let record = stores.seam.claim(p, from, &stores.hot.endpoint()).await.unwrap();
    stores.hot.claim(p, record.last_claim().unwrap());
}

pub async fn insert(stores: &Stores, p: Partition, offsets: std::ops::RangeInclusive<u64>) -> Result<(), HotError> {
    let (first, last) = (*offsets.start(), *offsets.end());
    let rows = records(p, offsets);
    let range = OffsetRange {
        partition: p,
        first,
        last,
    };
    stores.hot.insert(&[HotRows { range, rows }]).await
}

/// Hot may forget what cold holds. A server does so by days, later.
pub fn drop_to(stores: &Stores, p: Partition, low: u64) {
    if let Some(hot) = stores.hot.embedded() {
        hot.drop_to(p, low);
    }
}

pub fn range(partition: Partition, first: u64, last: u64) -> OffsetRange {
    OffsetRange { partition, first, last }
}

/// Nothing is remembered from one pin to the next.
pub fn tables(stores: &Stores) -> Tables {
    let options = TablesOptions {
        pin_max_age: Duration::ZERO,
        seam_max_age: Duration::ZERO,
    };
    Tables::new(stores.clone(), Arc::new(Ends::default()), options)
}

/// The rows of all records in these ranges.
pub fn rows_of(ranges: &[OffsetRange]) -> i64 {
    let rows = ranges.iter().flat_map(|r| records(r.partition, r.first..=r.last));
    rows.map(|batch| batch.num_rows() as i64).sum()
}
