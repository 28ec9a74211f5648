//! Hot on a real ClickHouse engine: what is stored comes back as it was, what does not count is not seen, and what was lost is noticed.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrow::array::*;
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Float64Type, Int64Type, UInt64Type};
use common::*;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::prelude::SessionContext;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use sluice_store::hot::clickhouse::{Audit, ClickHouseConfig, ClickHouseError, MigrateError};
use sluice_store::{
    ClickHouseHot, HotError, HotRows, OffsetRange, Pinned, Scope, Stores, Tables, TablesOptions, physical_rules,
};
use sluice_wire::events::schema;
use sluice_wire::ids::Partition;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

fn tables(stores: &Stores) -> Tables {
    let options = TablesOptions {
        pin_max_age: Duration::ZERO,
        seam_max_age: Duration::ZERO,
    };
    Tables::new(stores.clone(), Arc::new(Ends::default()), options)
}

/// A lake whose hot store is the server; `None` without an engine.
async fn world() -> Option<(tempfile::TempDir, Stores)> {
    Some(over(server_hot(&server()?).await).await)
}

async fn over(hot: ClickHouseHot) -> (tempfile::TempDir, Stores) {
    let folder = tempfile::tempdir().unwrap();
    let lake = folder.path().join("lake");
    let stores = Stores::open_with(lake.to_str().unwrap(), hot.into()).await.unwrap();
    (folder, stores)
}

fn server_of(stores: &Stores) -> &ClickHouseHot {
    stores.hot.clickhouse().unwrap()
}

async fn ask(pinned: &Pinned, text: &str) -> RecordBatch {
    let state = SessionStateBuilder::new_with_default_features().with_physical_optimizer_rules(physical_rules());
    let ctx = SessionContext::new_with_state(state.build());
    ctx.register_table("e", pinned.everything(Scope::All)).unwrap();
    let frame = ctx.sql(text).await.unwrap();
    let schema = Arc::clone(frame.schema().inner());
    concat_batches(&schema, &frame.collect().await.unwrap()).unwrap()
}

/// Offsets that a query sees, with the number of rows.
async fn seen(stores: &Stores) -> (Vec<i64>, usize) {
    let pinned = tables(stores).pin().await.unwrap();
    let rows = ask(&pinned, "SELECT \"offset\" FROM e ORDER BY 1").await;
    let mut offsets = rows.column(0).as_primitive::<Int64Type>().values().to_vec();
    let count = offsets.len();
    offsets.dedup();
    (offsets, count)
}

fn rows_of(p: Partition, offsets: std::ops::RangeInclusive<u64>) -> usize {
    records(p, offsets).iter().map(RecordBatch::num_rows).sum()
}

/// Statements of a test's own, as an operator would type them.
async fn operator(hot: &ClickHouseHot, text: &str) -> String {
    let (address, database) = hot
        .endpoint()
        .rsplit_once('/')
        .map(|(a, d)| (a.to_owned(), d.to_owned()))
        .unwrap();
    let host = address.trim_start_matches("http://").trim_end_matches('/').to_owned();
    let mut socket = TcpStream::connect(&host).await.unwrap();
    let head = format!(
        "POST /?database={database}&mutations_sync=2 HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{text}",
        text.len()
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{text}: {answer}");
    // Chunked: the texts that are asked for are short and come in one chunk.
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    body.lines().nth(1).unwrap_or_default().trim().to_owned()
}

fn any_text() -> impl Strategy<Value = Option<String>> {
    let texts = prop_oneof![
        Just(String::new()),
        Just("\0\t\n\r\\'\"`".to_owned()),
        Just("\\N".to_owned()),
        Just("🦀é\u{10ffff}".to_owned()),
        "[ -~]{0,40}",
    ];
    proptest::option::weighted(0.8, texts)
}

fn maybe<T: std::fmt::Debug + Clone + 'static>(
    always: bool,
    value: impl Strategy<Value = T> + 'static,
) -> BoxedStrategy<Option<T>> {
    match always {
        true => value.prop_map(Some).boxed(),
        false => proptest::option::weighted(0.7, value).boxed(),
    }
}

fn any_column(kind: &DataType, name: &str, rows: usize) -> BoxedStrategy<ArrayRef> {
    let always = ["tenant", "signal", "time", "partition", "offset", "row"].contains(&name);
    macro_rules! numbers {
        ($array:ty, $native:ty) => {{
            let value = prop_oneof![any::<$native>(), Just(<$native>::MIN), Just(<$native>::MAX)];
            proptest::collection::vec(maybe(always, value), rows)
                .prop_map(|values| Arc::new(<$array>::from(values)) as ArrayRef)
                .boxed()
        }};
    }
    match kind {
        DataType::Boolean => proptest::collection::vec(proptest::option::of(any::<bool>()), rows)
            .prop_map(|values| Arc::new(BooleanArray::from(values)) as ArrayRef)
            .boxed(),
        DataType::Int32 => numbers!(Int32Array, i32),
        DataType::Int64 => numbers!(Int64Array, i64),
        DataType::UInt32 => numbers!(UInt32Array, u32),
        DataType::UInt64 => numbers!(UInt64Array, u64),
        DataType::Float64 => {
            proptest::collection::vec(proptest::option::of(any::<u64>().prop_map(f64::from_bits)), rows)
                .prop_map(|values| Arc::new(Float64Array::from(values)) as ArrayRef)
                .boxed()
        }
        DataType::Timestamp(..) => {
            let (value, kind) = (
                prop_oneof![any::<i64>(), Just(i64::MIN), Just(i64::MAX), -9i64..9],
                kind.clone(),
            );
            proptest::collection::vec(maybe(always, value), rows)
                .prop_map(move |values| {
                    let raw = Int64Array::from(values)
                        .into_data()
                        .into_builder()
                        .data_type(kind.clone());
                    make_array(raw.build().unwrap())
                })
                .boxed()
        }
        // Null where empty.
        DataType::List(item) if item.data_type() == &DataType::UInt64 => {
            let list = proptest::collection::vec(any::<u64>().prop_map(Some), 1..4);
            let kind = kind.clone();
            proptest::collection::vec(proptest::option::of(list), rows)
                .prop_map(move |lists| {
                    arrow::compute::cast(&ListArray::from_iter_primitive::<UInt64Type, _, _>(lists), &kind).unwrap()
                })
                .boxed()
        }
        DataType::List(_) => Just(new_null_array(kind, rows)).boxed(),
        DataType::Map(..) => {
            let entries = proptest::collection::vec((any_text(), any_text()), 0..4);
            proptest::collection::vec(entries, rows)
                .prop_map(|rows| {
                    let names = MapFieldNames {
                        entry: "key_value".into(),
                        key: "key".into(),
                        value: "value".into(),
                    };
                    let mut builder = MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new());
                    for row in rows {
                        for (key, value) in row {
                            builder.keys().append_value(key.unwrap_or_default());
                            builder.values().append_value(value.unwrap_or_default());
                        }
                        builder.append(true).unwrap();
                    }
                    Arc::new(builder.finish()) as ArrayRef
                })
                .boxed()
        }
        _ => proptest::collection::vec(any_text(), rows)
            .prop_map(move |texts| {
                let texts = texts
                    .into_iter()
                    .map(|text| if always { text.or(Some("t".to_owned())) } else { text });
                Arc::new(texts.collect::<StringArray>()) as ArrayRef
            })
            .boxed(),
    }
}

/// Rows of one offset whose columns hold anything that their types do.
fn any_rows(p: Partition, offset: u64) -> impl Strategy<Value = RecordBatch> {
    (1usize..6).prop_flat_map(move |rows| {
        let columns: Vec<_> = schema()
            .fields()
            .iter()
            .map(|f| any_column(f.data_type(), f.name(), rows))
            .collect();
        columns.prop_map(move |arrays| {
            let mut arrays: HashMap<String, ArrayRef> =
                schema().fields().iter().map(|f| f.name().clone()).zip(arrays).collect();
            arrays.insert("partition".into(), Arc::new(Int64Array::from(vec![p.as_i64(); rows])));
            arrays.insert("offset".into(), Arc::new(Int64Array::from(vec![offset as i64; rows])));
            arrays.insert("row".into(), Arc::new(Int32Array::from_iter_values(0..rows as i32)));
            let arrays = schema().fields().iter().map(|f| arrays[f.name()].clone()).collect();
            RecordBatch::try_new(schema(), arrays).unwrap()
        })
    })
}

/// Bits of doubles, so that one NaN is not another.
fn bits(rows: &RecordBatch) -> RecordBatch {
    let schema = schema();
    let columns = schema.fields().iter().zip(rows.columns()).map(|(field, column)| {
        let array: ArrayRef = match column.as_any().downcast_ref::<Float64Array>() {
            Some(doubles) => Arc::new(doubles.iter().map(|v| v.map(f64::to_bits)).collect::<UInt64Array>()),
            None => Arc::clone(column),
        };
        (field.name().clone(), array, true)
    });
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

/// Every column, with extreme values, nulls and odd texts, comes back as it was sent; what is not sent is null or empty.
#[tokio::test(flavor = "multi_thread")]
async fn every_value_of_every_column_comes_back() {
    let Some((_folder, stores)) = world().await else { return };
    let p = partition(0);
    claim(&stores, p, 0).await;
    let config = Config {
        cases: 12,
        failure_persistence: None,
        ..Config::default()
    };
    let mut runner = TestRunner::new(config);
    for offset in 0..12 {
        let rows = any_rows(p, offset).new_tree(&mut runner).unwrap().current();
        let range = OffsetRange {
            partition: p,
            first: offset,
            last: offset,
        };
        stores
            .hot
            .insert(&[HotRows {
                range,
                rows: vec![rows.clone()],
            }])
            .await
            .unwrap();
        let pinned = tables(&stores).pin().await.unwrap();
        let back = ask(
            &pinned,
            &format!("SELECT * FROM e WHERE \"offset\" = {offset} ORDER BY \"row\""),
        )
        .await;
        assert_eq!(bits(&back), bits(&rows));
    }
}

/// An insert of many rows for several partitions, whose rows arrived on different days, is one part.
#[tokio::test]
async fn an_insert_is_one_part_whatever_its_size() {
    let Some((_folder, stores)) = world().await else { return };
    let mut slices = Vec::new();
    for index in 0..3 {
        let p = partition(index);
        claim(&stores, p, 0).await;
        // A million seconds from one offset to the next. Small batches, and one that is large enough to stay by itself.
        let mut rows = records(p, 0..=399);
        let large = records(p, 400..=999);
        rows.push(concat_batches(&schema(), &large).unwrap());
        slices.push(HotRows {
            range: OffsetRange {
                partition: p,
                first: 0,
                last: 999,
            },
            rows,
        });
    }
    stores.hot.insert(&slices).await.unwrap();
    let hot = server_of(&stores);
    let database = hot.endpoint().rsplit_once('/').unwrap().1.to_owned();
    let parts =
        format!("SELECT count(), sum(rows) FROM system.parts WHERE database = '{database}' AND table = 'events'");
    let rows: usize = (0..3).map(|index| rows_of(partition(index), 0..=999)).sum();
    assert_eq!(operator(hot, &parts).await, format!("1\t{rows}"));
}

/// A writer that lost its partition while it slept writes on: nobody sees its rows, in any view, and they can be swept out (F10).
#[tokio::test]
async fn a_zombie_writes_for_nobody() {
    let Some((folder, stores)) = world().await else { return };
    let p = partition(0);
    let hot = server_of(&stores).clone();
    claim(&stores, p, 0).await;
    insert(&stores, p, 0..=4).await.unwrap();
    // Another process takes over from a position that was saved before.
    let (_other, successor) = {
        let config = config_of(&hot);
        let lake = folder.path().join("lake");
        let other = ClickHouseHot::new(&config).unwrap();
        other.prepare().await.unwrap();
        (
            (),
            Stores::open_with(lake.to_str().unwrap(), other.into()).await.unwrap(),
        )
    };
    claim(&successor, p, 3).await;
    assert_eq!(
        seen(&stores).await,
        ((0..=2).collect(), rows_of(p, 0..=2)),
        "what the claim cut off does not count"
    );
    // The zombie wakes up and writes on, further than its successor.
    insert(&stores, p, 5..=9).await.unwrap();
    insert(&successor, p, 3..=6).await.unwrap();
    let expected = ((0..=6).collect::<Vec<i64>>(), rows_of(p, 0..=6));
    assert_eq!(seen(&stores).await, expected);

    let record = stores.seam.load(p).await.unwrap();
    assert_eq!(hot.audit(p, &record, 7).await.unwrap(), Audit::Whole);
    let seam = BTreeMap::from([(p, record.clone())]);
    hot.show(&seam).await.unwrap();
    assert_eq!(
        operator(&hot, "SELECT count() FROM events_visible").await,
        rows_of(p, 0..=6).to_string()
    );
    assert_eq!(hot.with_dead_rows(&seam).await.unwrap(), vec![p]);
    hot.delete_dead_rows(p, &record).await.unwrap();
    assert_eq!(
        operator(&hot, "SELECT count() FROM events").await,
        rows_of(p, 0..=6).to_string()
    );
    assert_eq!(hot.with_dead_rows(&seam).await.unwrap(), vec![]);
    assert_eq!(seen(&successor).await, expected);
}

fn any_pattern() -> impl Strategy<Value = String> {
    let letters = prop_oneof![
        Just("a"),
        Just("b"),
        Just("B"),
        Just("é"),
        Just("🦀"),
        Just("-"),
        Just("\\."),
        Just("\\\\"),
        Just("/"),
        Just(" "),
        Just("\\n"),
        Just("."),
        Just("\\d"),
        Just("\\s"),
        Just("[a-c]"),
        Just("[^b]"),
        Just("[^\\d]"),
        Just("(?i:é)"),
        Just("(?s:.)"),
        Just("\\x7f"),
        Just("^"),
        Just("$"),
        Just("(?-u:[a-z])"),
        Just("[\\]^-]"),
        Just("\\p{Greek}"),
    ];
    let one = letters.prop_map(str::to_owned);
    let pattern = one.prop_recursive(4, 24, 4, |inner| {
        let times = prop_oneof![
            Just("*"),
            Just("+"),
            Just("?"),
            Just("*?"),
            Just("{2}"),
            Just("{1,3}"),
            Just("{2,}")
        ];
        prop_oneof![
            3 => proptest::collection::vec(inner.clone(), 1..4).prop_map(|all| all.concat()),
            1 => proptest::collection::vec(inner.clone(), 1..4).prop_map(|all| format!("({})", all.join("|"))),
            2 => (inner, times).prop_map(|(one, times)| format!("(?:{one}){times}")),
        ]
    });
    (any::<bool>(), pattern).prop_map(|(cased, pattern)| if cased { pattern } else { format!("(?i){pattern}") })
}

/// A regular expression finds the same rows on the server as here, whatever stands in it and in the texts.
#[tokio::test(flavor = "multi_thread")]
async fn p8_an_expression_means_the_same_on_the_server() {
    let Some((_folder, stores)) = world().await else { return };
    let p = partition(0);
    claim(&stores, p, 0).await;
    let mut runner = TestRunner::new(Config {
        failure_persistence: None,
        ..Config::default()
    });
    let rows = concat_batches(&schema(), &records(p, 0..=59)).unwrap();
    let texts = proptest::option::weighted(0.95, "[abB\u{e9}\u{c9}\u{1f980}λ٣3.\\\\/ \n\r\t\u{7f}x-]{0,8}");
    let bodies: StringArray = (0..rows.num_rows())
        .map(|_| texts.new_tree(&mut runner).unwrap().current())
        .collect();
    let mut columns = rows.columns().to_vec();
    columns[schema().index_of("body").unwrap()] = Arc::new(bodies);
    let rows = RecordBatch::try_new(schema(), columns).unwrap();
    let slice = HotRows {
        range: OffsetRange {
            partition: p,
            first: 0,
            last: 59,
        },
        rows: vec![rows.clone()],
    };
    stores.hot.insert(&[slice]).await.unwrap();
    let pinned = tables(&stores).pin().await.unwrap();
    let plain = SessionContext::new();
    plain.register_batch("e", rows).unwrap();
    let (mut there, mut found) = (0, 0);
    const PATTERNS: usize = 150;
    for _ in 0..PATTERNS {
        let pattern = any_pattern().new_tree(&mut runner).unwrap().current();
        let text = format!(
            "SELECT count(*), sum(\"offset\"), min(body), max(body) FROM e WHERE body ~ '{pattern}' AND NOT coalesce(body !~ '{pattern}', true)"
        );
        let expected = plain.sql(&text).await.unwrap().collect().await.unwrap();
        let answer = ask(&pinned, &text).await;
        assert_eq!(vec![answer.clone()], expected, "{pattern:?}");
        found += answer.column(0).as_primitive::<Int64Type>().value(0);
        let plan = format!("{:?}", ask(&pinned, &format!("EXPLAIN {text}")).await);
        there += usize::from(plan.contains("aggregated there"));
    }
    assert!(
        there > PATTERNS / 2 && found > 500,
        "{there} were asked there, {found} rows found"
    );
}

/// What is counted and ranked by sketches comes out alike: different values exactly so, as their sketch is made here; quantiles as near to the truth.
#[tokio::test(flavor = "multi_thread")]
async fn p8_sketches_come_out_alike_from_the_server() {
    let Some((_folder, stores)) = world().await else { return };
    let mut plain = Vec::new();
    for index in 0..2 {
        let p = partition(index);
        claim(&stores, p, 0).await;
        for first in [0, 200, 400] {
            insert(&stores, p, first..=first + 199).await.unwrap();
        }
        plain.extend(records(p, 0..=599));
    }
    let ctx = SessionContext::new();
    ctx.register_batch("e", concat_batches(&schema(), &plain).unwrap())
        .unwrap();
    let pinned = tables(&stores).pin().await.unwrap();
    let both = async |text: &str, mark: &str| {
        let plan = format!("{:?}", ask(&pinned, &format!("EXPLAIN {text}")).await);
        assert!(plan.contains(mark), "{text}: {plan}");
        let frame = ctx.sql(text).await.unwrap();
        let schema = Arc::clone(frame.schema().inner());
        let here = concat_batches(&schema, &frame.collect().await.unwrap()).unwrap();
        let there = ask(&pinned, text).await;
        assert_eq!(there.num_rows(), here.num_rows(), "{text}");
        (there, here)
    };
    for text in [
        "SELECT approx_distinct(body) FROM e",
        "SELECT service, approx_distinct(trace_id) FROM e WHERE signal = 'span' GROUP BY 1 ORDER BY 1",
        "SELECT signal, status, approx_distinct(duration_ns) FROM e GROUP BY 1, 2 ORDER BY 1, 2",
        "SELECT approx_distinct(body) FROM e WHERE service = 'nobody'",
        "SELECT approx_distinct(attrs['route']) FROM e",
    ] {
        let (there, here) = both(text, "each value once").await;
        assert_eq!(there, here, "{text}");
    }
    for text in [
        "SELECT name, min(value), max(value) FROM e GROUP BY 1 ORDER BY 1",
        "SELECT min(value) FILTER (WHERE service = 'service-1'), max(value) FILTER (WHERE service = 'nobody') FROM e",
        "SELECT min(value), max(value) FROM e WHERE signal = 'log'",
        "SELECT body ~ 'line \\d+7$' AS k, max(value), max(\"offset\") FROM e GROUP BY 1 ORDER BY 1",
    ] {
        let (there, here) = both(text, "aggregated there").await;
        assert_eq!(there, here, "{text}");
    }
    // Beside the estimate, the share of values that are below it.
    for (share, text) in [
        (
            0.5,
            "SELECT approx_percentile_cont(0.5) WITHIN GROUP (ORDER BY duration_ns) FROM e",
        ),
        (
            0.99,
            "SELECT service, approx_percentile_cont(0.99) WITHIN GROUP (ORDER BY duration_ns) FROM e GROUP BY 1 ORDER BY 1",
        ),
        (
            0.9,
            "SELECT service, approx_percentile_cont(0.1, 200) WITHIN GROUP (ORDER BY duration_ns DESC) FROM e GROUP BY 1 ORDER BY 1",
        ),
        (
            0.1,
            "SELECT approx_percentile_cont(0.1) WITHIN GROUP (ORDER BY severity) FILTER (WHERE signal = 'log') FROM e",
        ),
        (
            0.5,
            "SELECT approx_percentile_cont(0.5) WITHIN GROUP (ORDER BY duration_ns) FROM e WHERE service = 'nobody'",
        ),
    ] {
        let (there, here) = both(text, "aggregated there").await;
        let (there, here) = (there.columns().last().unwrap(), here.columns().last().unwrap());
        let numbers = |column: &ArrayRef| arrow::compute::cast(column, &DataType::Float64).unwrap();
        let (there, here) = (numbers(there), numbers(here));
        let (there, here) = (there.as_primitive::<Float64Type>(), here.as_primitive::<Float64Type>());
        for (there, here) in there.iter().zip(here.iter()) {
            let (Some(there), Some(here)) = (there, here) else {
                assert_eq!((there, here), (None, None), "{text}");
                continue;
            };
            let column = if text.contains("severity") {
                "severity"
            } else {
                "duration_ns"
            };
            let below = |value: f64| {
                let text = format!(
                    "SELECT avg(CASE WHEN {column} < {value} THEN 1.0 ELSE 0.0 END) AS less, avg(CASE WHEN {column} <= {value} THEN 1.0 ELSE 0.0 END) \
                     FROM e WHERE {column} IS NOT NULL"
                );
                let ctx = ctx.clone();
                async move {
                    let found = ctx.sql(&text).await.unwrap().collect().await.unwrap();
                    let at = |column: usize| found[0].column(column).as_primitive::<Float64Type>().value(0);
                    (at(0), at(1))
                }
            };
            let ((least, most), (low, high)) = (below(there).await, below(here).await);
            let apart = (least - high).max(low - most).max(0.0);
            assert!(
                apart < 0.03,
                "{text}, share {share}: {there} on the server and {here} here are {apart} apart"
            );
        }
    }
}

/// P8: what a query pinned stays what it was, whatever becomes of the parts that it knew: while it is asked, rows come that it must not see, rows of
/// a lost claim lie beside its own, and the server merges parts of which all rows counted with others.
#[tokio::test(flavor = "multi_thread")]
async fn p8_a_pinned_moment_outlives_its_parts() {
    let Some((folder, stores)) = world().await else { return };
    let (p, q) = (partition(0), partition(1));
    claim(&stores, p, 0).await;
    claim(&stores, q, 0).await;
    for first in [0, 10, 20] {
        insert(&stores, p, first..=first + 9).await.unwrap();
        insert(&stores, q, first..=first + 9).await.unwrap();
    }
    // Its last ten offsets stop counting, and one of its parts is cut in two.
    let successor = {
        let other = ClickHouseHot::new(&config_of(server_of(&stores))).unwrap();
        other.prepare().await.unwrap();
        let lake = folder.path().join("lake");
        Stores::open_with(lake.to_str().unwrap(), other.into()).await.unwrap()
    };
    claim(&successor, p, 15).await;
    insert(&successor, p, 15..=29).await.unwrap();

    // Whoever asks has a server that takes its time between two looks at the table.
    let slow = relay(&server().unwrap(), "merge_tree_storage_snapshot_sleep_ms=20&").await;
    let asker = ClickHouseConfig {
        url: slow.url.clone(),
        ..config_of(server_of(&stores))
    };
    let lake = folder.path().join("lake");
    let asker = Stores::open_with(lake.to_str().unwrap(), ClickHouseHot::new(&asker).unwrap().into());
    let asker = tables(&asker.await.unwrap());
    let pinned = asker.pin().await.unwrap();
    let rows = [rows_of(p, 0..=29), rows_of(q, 0..=29)];
    let by_partition =
        "SELECT \"partition\", count(*), min(\"offset\"), max(\"offset\"), sum(\"row\") FROM e GROUP BY 1 ORDER BY 1";
    let newest = "SELECT \"offset\", \"row\", \"partition\" FROM e ORDER BY 1 DESC, 2, 3 LIMIT 7";
    let one_service =
        "SELECT service, body FROM e WHERE service = 'service-1' ORDER BY body, \"offset\", \"row\", \"partition\"";
    let explained = ask(&pinned, &format!("EXPLAIN {by_partition}")).await;
    let explained = format!("{explained:?}");
    assert!(
        explained.contains("parts whole") && explained.contains("aggregated there"),
        "{explained}"
    );
    let mut first = Vec::new();
    for text in [by_partition, newest, one_service, "SELECT count(*) FROM e"] {
        first.push((text, ask(&pinned, text).await));
    }
    let counted = first[0].1.column(1).as_primitive::<Int64Type>().values().to_vec();
    assert_eq!(counted, rows.map(|rows| i64::try_from(rows).unwrap()));

    let done = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn({
        let (done, successor, stores) = (Arc::clone(&done), successor.clone(), stores.clone());
        async move {
            let mut merges = 0;
            for first in (30..).step_by(2) {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                insert(&successor, p, first..=first + 1).await.unwrap();
                // The zombie, too.
                insert(&stores, p, first..=first + 1).await.unwrap();
                insert(&stores, q, first..=first + 1).await.unwrap();
                if first % 6 == 0 {
                    operator(server_of(&stores), "OPTIMIZE TABLE events FINAL").await;
                    merges += 1;
                }
            }
            merges
        }
    });
    // Old moments lose their parts, new ones know the newest: both are asked while parts come and go.
    for _ in 0..15 {
        for (text, expected) in &first {
            assert_eq!(&ask(&pinned, text).await, expected, "{text}");
        }
        let now = asker.pin().await.unwrap();
        let counted = ask(&now, by_partition).await;
        let column = |at: usize| counted.column(at).as_primitive::<Int64Type>().values().to_vec();
        for (at, partition) in [p, q].into_iter().enumerate() {
            let last = u64::try_from(column(3)[at]).unwrap();
            assert_eq!(
                column(1)[at],
                i64::try_from(rows_of(partition, 0..=last)).unwrap(),
                "partition {at} up to {last}"
            );
        }
    }
    done.store(true, Ordering::Relaxed);
    assert!(writer.await.unwrap() > 0, "nothing was merged meanwhile");
}

fn config_of(hot: &ClickHouseHot) -> ClickHouseConfig {
    let endpoint = hot.endpoint();
    let (url, database) = endpoint.rsplit_once('/').unwrap();
    ClickHouseConfig {
        url: url.to_owned(),
        database: database.to_owned(),
        ..ClickHouseConfig::default()
    }
}

/// A relay to the engine that adds settings to each request and, when told, takes a whole one and gives no answer back.
struct Relay {
    url: String,
    swallow: Arc<AtomicBool>,
}

async fn relay(url: &str, settings: &'static str) -> Relay {
    let target = url.trim_start_matches("http://").trim_end_matches('/').to_owned();
    let door = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", door.local_addr().unwrap());
    let swallow = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&swallow);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = door.accept().await {
            let (target, told) = (target.clone(), Arc::clone(&told));
            tokio::spawn(async move {
                let mut server = TcpStream::connect(&target).await.unwrap();
                let (mut from_client, mut to_client) = client.split();
                let (mut from_server, mut to_server) = server.split();
                let up = async {
                    let (mut piece, begin) = (vec![0; 16 << 10], b"POST /?");
                    loop {
                        let n = from_client.read(&mut piece).await.unwrap_or(0);
                        let mut rest = &piece[..n];
                        // A request begins a piece: nobody asks before the last answer is there.
                        if let Some(after) = rest.strip_prefix(begin) {
                            let told = [&begin[..], settings.as_bytes()].concat();
                            to_server.write_all(&told).await.unwrap();
                            rest = after;
                        }
                        if n == 0 || to_server.write_all(rest).await.is_err() {
                            return;
                        }
                    }
                };
                let down = async {
                    let mut piece = [0; 16 << 10];
                    loop {
                        let n = from_server.read(&mut piece).await.unwrap_or(0);
                        // The answer is there, so the server has done what it was told.
                        if n == 0 || told.swap(false, Ordering::SeqCst) {
                            return;
                        }
                        to_client.write_all(&piece[..n]).await.unwrap();
                    }
                };
                tokio::select! { () = up => {}, () = down => {} }
            });
        }
    });
    Relay { url, swallow }
}

/// The answer of an insert is lost: its outcome is unknown, the next claim begins behind what is known, and each row is seen once (F12).
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_leaves_every_row_seen_once() {
    let Some(url) = server() else { return };
    let relay = relay(&url, "").await;
    let (_folder, stores) = over(server_hot(&relay.url).await).await;
    let p = partition(0);
    claim(&stores, p, 0).await;
    insert(&stores, p, 0..=3).await.unwrap();
    relay.swallow.store(true, Ordering::SeqCst);
    let lost = insert(&stores, p, 4..=7).await;
    assert!(matches!(lost, Err(HotError::Unknown { .. })), "{lost:?}");
    claim(&stores, p, 4).await;
    assert_eq!(seen(&stores).await.0, (0..=3).collect::<Vec<i64>>());
    insert(&stores, p, 4..=5).await.unwrap();
    assert_eq!(seen(&stores).await, ((0..=5).collect(), rows_of(p, 0..=5)));
    insert(&stores, p, 6..=7).await.unwrap();
    assert_eq!(seen(&stores).await, ((0..=7).collect(), rows_of(p, 0..=7)));
}

/// Rows that the server had acknowledged are gone: counting says so, and no query shows a hole.
#[tokio::test]
async fn what_the_server_lost_is_noticed() {
    let Some((_folder, stores)) = world().await else { return };
    let (hot, p) = (server_of(&stores).clone(), partition(0));
    claim(&stores, p, 0).await;
    insert(&stores, p, 0..=4).await.unwrap();
    claim(&stores, p, 5).await;
    insert(&stores, p, 5..=9).await.unwrap();
    let record = stores.seam.load(p).await.unwrap();
    let audit = async || hot.audit(p, &record, 10).await.unwrap();
    assert_eq!(audit().await, Audit::Whole);
    operator(&hot, "ALTER TABLE events DELETE WHERE `offset` = 3 AND `row` = 0").await;
    assert!(matches!(audit().await, Audit::Lost { .. }), "one row of many");
    operator(&hot, "ALTER TABLE events DELETE WHERE gen = 1").await;
    assert!(matches!(audit().await, Audit::Lost { .. }), "a whole claim");
    assert_eq!(
        seen(&stores).await.0,
        Vec::<i64>::new(),
        "what lies behind the hole is not shown"
    );
    operator(&hot, "TRUNCATE TABLE events").await;
    assert!(matches!(audit().await, Audit::Lost { .. }), "all of it");
    // Cold has it: hot begins anew above.
    stores
        .cold
        .commit(
            &[OffsetRange {
                partition: p,
                first: 0,
                last: 9,
            }],
            records(p, 0..=9),
        )
        .await
        .unwrap();
    let record = stores.seam.claim_above(p, 9, &hot.endpoint()).await.unwrap();
    stores.hot.claim(p, record.last_claim().unwrap());
    insert(&stores, p, 10..=11).await.unwrap();
    assert_eq!(hot.audit(p, &record, 12).await.unwrap(), Audit::Whole);
    assert_eq!(seen(&stores).await, ((0..=11).collect(), rows_of(p, 0..=11)));
}

/// A server that is not there: queries read cold and say that hot is missing; one that fails midway fails the query.
#[tokio::test]
async fn without_the_server_queries_read_cold_and_say_so() {
    let nobody = {
        let door = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        door.local_addr().unwrap()
    };
    let config = ClickHouseConfig {
        url: format!("http://{nobody}"),
        ..ClickHouseConfig::default()
    };
    let (_folder, stores) = over(ClickHouseHot::new(&config).unwrap()).await;
    let p = partition(0);
    claim(&stores, p, 0).await;
    stores
        .cold
        .commit(
            &[OffsetRange {
                partition: p,
                first: 0,
                last: 2,
            }],
            records(p, 0..=2),
        )
        .await
        .unwrap();
    assert!(
        matches!(insert(&stores, p, 0..=1).await, Err(HotError::Busy { .. })),
        "nothing was sent"
    );
    assert_eq!(seen(&stores).await, ((0..=2).collect(), rows_of(p, 0..=2)));
    assert!(tables(&stores).pin().await.unwrap().completeness().hot_unreachable);
}

/// Days leave whole, and only what lies in them.
#[tokio::test]
async fn days_are_listed_and_dropped_whole() {
    let Some((_folder, stores)) = world().await else { return };
    let (hot, p) = (server_of(&stores).clone(), partition(0));
    claim(&stores, p, 0).await;
    // Records arrive a second apart, so this jumps from day to day.
    for offset in [0, 1, 90_000, 180_000] {
        let claimed = stores.hot.claimed(p).unwrap().1;
        if claimed != offset {
            claim(&stores, p, offset).await;
        }
        insert(&stores, p, offset..=offset).await.unwrap();
    }
    let seam = BTreeMap::from([(p, stores.seam.load(p).await.unwrap())]);
    let days = hot.days(&seam).await.unwrap();
    let shown: Vec<_> = days.iter().map(|day| (day.name.as_str(), day.highest[&p])).collect();
    assert_eq!(
        shown,
        [("2025-11-21", 1), ("2025-11-22", 90_000), ("2025-11-23", 180_000)]
    );
    assert!(days.iter().all(|day| day.bytes > 0) && stores.hot.bytes() > 0);
    assert_eq!(days[1].number, days[0].number + 1);
    hot.drop_day(&days[0]).await.unwrap();
    assert_eq!(operator(&hot, "SELECT min(`offset`) FROM events").await, "90000");
}

/// Tables are made once, another version is refused, and a dry run changes nothing.
#[tokio::test]
async fn tables_are_brought_up_to_date_once() {
    let Some(url) = server() else { return };
    let hot = server_hot(&url).await;
    assert_eq!(hot.migrate(false).await.unwrap(), Vec::<String>::new());
    let fresh = ClickHouseHot::new(&ClickHouseConfig {
        database: format!("{}_fresh", config_of(&hot).database),
        ..config_of(&hot)
    })
    .unwrap();
    let planned = fresh.migrate(true).await.unwrap();
    assert!(
        planned
            .iter()
            .any(|text| text.starts_with("CREATE TABLE IF NOT EXISTS `events`")),
        "{planned:?}"
    );
    assert!(matches!(
        fresh.prepare().await,
        Err(MigrateError::Older { found: 0, .. })
    ));
    assert_eq!(fresh.migrate(false).await.unwrap(), planned);
    fresh.prepare().await.unwrap();
    operator(
        &hot,
        "INSERT INTO sluice_migrations (version, name) VALUES (99, 'from the future')",
    )
    .await;
    assert!(matches!(
        hot.migrate(false).await,
        Err(MigrateError::Newer { found: 99, .. })
    ));
    assert!(matches!(hot.prepare().await, Err(MigrateError::Newer { .. })));
}

/// The password is sent, and stands in no error.
#[tokio::test]
async fn a_wrong_password_is_refused_and_not_repeated() {
    let Some(url) = server() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "hunter2hunter2\n").unwrap();
    let config = ClickHouseConfig {
        url,
        password_file: file,
        ..ClickHouseConfig::default()
    };
    let hot = ClickHouseHot::new(&config).unwrap();
    let Err(MigrateError::Server(error)) = hot.migrate(false).await else {
        panic!("taken")
    };
    assert!(
        matches!(error, ClickHouseError::Refused { code: Some(516), .. }),
        "{error:?}"
    );
    assert!(!format!("{error} {error:?} {hot:?}").contains("hunter2"));
}
