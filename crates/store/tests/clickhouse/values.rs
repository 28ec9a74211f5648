//! What is stored comes back as it was.

use super::*;

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
