#![allow(clippy::unwrap_used)]
use arrow::array::{ArrayRef, ListArray, StringArray, TimestampNanosecondArray, UInt32Array, UInt64Array};
use arrow::datatypes::UInt64Type;
use proptest::prelude::*;

use super::*;

fn batch(
    times: Vec<Option<i64>>,
    big: Vec<Option<u64>>,
    small: Vec<Option<u32>>,
    lists: Vec<Option<Vec<Option<u64>>>>,
) -> RecordBatch {
    let texts: StringArray = times.iter().map(|t| t.map(|t| t.to_string())).collect();
    let columns: Vec<(&str, ArrayRef)> = vec![
        (
            "time",
            Arc::new(TimestampNanosecondArray::from(times).with_timezone("UTC")),
        ),
        ("count", Arc::new(UInt64Array::from(big))),
        ("flags", Arc::new(UInt32Array::from(small))),
        (
            "buckets",
            Arc::new(ListArray::from_iter_primitive::<UInt64Type, _, _>(lists)),
        ),
        ("text", Arc::new(texts)),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true))).unwrap()
}

fn edge_i64() -> impl Strategy<Value = i64> {
    prop_oneof![any::<i64>(), Just(i64::MIN), Just(i64::MAX), -2000i64..2000]
}

fn edge_u64() -> impl Strategy<Value = u64> {
    prop_oneof![any::<u64>(), Just(u64::MAX), Just(i64::MAX as u64 + 1), 0u64..9]
}

proptest! {
    /// Storing loses nothing: times before 1970 and at the ends of the range, numbers beyond i64, nulls anywhere.
    #[test]
    fn stored_rows_read_back_exactly(
        rows in proptest::collection::vec(
            (
                proptest::option::of(edge_i64()),
                proptest::option::of(edge_u64()),
                proptest::option::of(any::<u32>()),
                proptest::option::of(proptest::collection::vec(proptest::option::of(edge_u64()), 0..4)),
            ),
            0..20,
        ),
        keep in proptest::collection::vec(any::<bool>(), 5),
    ) {
        let mut columns = (vec![], vec![], vec![], vec![]);
        for (time, big, small, list) in rows {
            columns.0.push(time);
            columns.1.push(big);
            columns.2.push(small);
            columns.3.push(list);
        }
        let rows = batch(columns.0, columns.1, columns.2, columns.3);
        let mapping = Mapping::new(rows.schema());
        let stored = mapping.to_physical(&rows).unwrap();
        let logical: Vec<usize> = (0..5).filter(|i| keep[*i]).collect();
        let projected = stored.project(&mapping.physical_indices(&logical)).unwrap();
        let expected = rows.project(&logical).unwrap();
        let back = mapping.to_logical(&logical, &expected.schema(), &projected).unwrap();
        prop_assert_eq!(back, expected);
    }
}

#[test]
fn every_stored_column_of_events_is_a_delta_type() {
    let mapping = Mapping::events();
    for field in mapping.physical().fields() {
        let bad = match field.data_type() {
            DataType::Timestamp(unit, _) => *unit != TimeUnit::Microsecond,
            DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => true,
            DataType::List(item) => item.data_type() == &DataType::UInt64,
            _ => false,
        };
        assert!(!bad, "{field}");
    }
    assert!(mapping.physical().fields().len() > 10);
}
