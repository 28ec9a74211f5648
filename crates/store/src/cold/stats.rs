//! What a file of the cold table says of its rows, so that queries can pass it over: Delta's per-file statistics.

use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::compute::{cast, max, max_string, min, min_string};
use arrow::datatypes::{DataType, Int32Type, Int64Type, SchemaRef, TimeUnit, TimestampMicrosecondType};
use arrow::error::ArrowError;
use datafusion::scalar::ScalarValue;
use serde_json::{Map, Value, json};

/// The columns that have statistics: what queries select by, and what the seam needs.
pub(crate) const COLUMNS: [&str; 11] = [
    "tenant",
    "node",
    "signal",
    "time",
    "service",
    "name",
    "severity",
    "quarantined_by",
    "partition",
    "offset",
    "ingested_at",
];

const NANOS_PER_MICRO: i64 = 1000;

/// Longer texts have no bounds: readers may cut them, and a cut bound is easy to get wrong.
const MAX_TEXT_BYTES: usize = 64;

/// Bounds and nulls of the columns of one file.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct FileStats {
    pub(crate) rows: Option<u64>,
    pub(crate) bounds: BTreeMap<&'static str, (ScalarValue, ScalarValue)>,
    pub(crate) nulls: BTreeMap<&'static str, u64>,
}

impl FileStats {
    /// Looks at rows in their stored form.
    pub(crate) fn of(stored: &RecordBatch) -> Result<Self, ArrowError> {
        let mut stats = Self {
            rows: Some(stored.num_rows() as u64),
            ..Self::default()
        };
        for name in COLUMNS {
            let Some(column) = stored.column_by_name(name) else {
                continue;
            };
            stats.nulls.insert(name, column.null_count() as u64);
            if let Some(bounds) = bounds(column) {
                stats.bounds.insert(name, bounds);
            }
        }
        Ok(stats)
    }

    /// As Delta writes them.
    pub(crate) fn to_json(&self) -> Result<String, ArrowError> {
        let mut low = Map::new();
        let mut high = Map::new();
        for (name, (min, max)) in &self.bounds {
            low.insert((*name).to_owned(), to_value(min)?);
            high.insert((*name).to_owned(), to_value(max)?);
        }
        let nulls: BTreeMap<_, _> = self.nulls.iter().collect();
        Ok(json!({"numRecords": self.rows, "minValues": low, "maxValues": high, "nullCount": nulls}).to_string())
    }

    /// Reads what this or another writer wrote; what is missing or strange counts as unknown.
    pub(crate) fn from_json(text: &str, schema: &SchemaRef) -> Self {
        let Ok(value) = serde_json::from_str::<Value>(text) else {
            return Self::default();
        };
        let mut stats = Self {
            rows: value["numRecords"].as_u64(),
            ..Self::default()
        };
        for name in COLUMNS {
            if let Some(nulls) = value["nullCount"][name].as_u64() {
                stats.nulls.insert(name, nulls);
            }
            let Ok(field) = schema.field_with_name(name) else {
                continue;
            };
            let side = |side: &str| from_value(&value[side][name], field.data_type());
            if let Some(bounds) = side("minValues").zip(side("maxValues")) {
                stats.bounds.insert(name, bounds);
            }
        }
        stats
    }

    pub(crate) fn ints(&self, name: &str) -> Option<(i64, i64)> {
        match self.bounds.get(name)? {
            (ScalarValue::Int64(Some(low)), ScalarValue::Int64(Some(high))) => Some((*low, *high)),
            _ => None,
        }
    }

    pub(crate) fn texts(&self, name: &str) -> Option<(&str, &str)> {
        match self.bounds.get(name)? {
            (ScalarValue::Utf8(Some(low)), ScalarValue::Utf8(Some(high))) => Some((low, high)),
            _ => None,
        }
    }

    /// The largest `time` in microseconds; unknown counts as the newest.
    pub(crate) fn newest_us(&self) -> i64 {
        match self.bounds.get("time") {
            Some((_, ScalarValue::TimestampMicrosecond(Some(high), _))) => *high,
            _ => i64::MAX,
        }
    }

    /// The smallest and largest `time` in microseconds.
    pub(crate) fn times_us(&self) -> Option<(i64, i64)> {
        match self.bounds.get("time")? {
            (ScalarValue::TimestampMicrosecond(Some(low), _), ScalarValue::TimestampMicrosecond(Some(high), _)) => {
                Some((*low, *high))
            }
            _ => None,
        }
    }

    /// The same in nanoseconds: what is stored was rounded down.
    pub(crate) fn times_ns(&self) -> Option<(i64, i64)> {
        let (low, high) = self.times_us()?;
        let after = high.saturating_mul(NANOS_PER_MICRO).saturating_add(NANOS_PER_MICRO - 1);
        Some((low.saturating_mul(NANOS_PER_MICRO), after))
    }

    /// When the first row was taken in, in microseconds since 1970, where the file says it.
    pub(crate) fn oldest_us(&self) -> Option<i64> {
        match (self.bounds.get("ingested_at")?, self.nulls.get("ingested_at")?) {
            ((ScalarValue::TimestampMicrosecond(Some(low), _), _), 0) => Some(*low),
            _ => None,
        }
    }

    /// As if the rows of another piece of the same file had been looked at together with these.
    pub(crate) fn merge(&mut self, other: &Self) {
        for name in COLUMNS {
            let both = match (self.bounds.remove(name), other.bounds.get(name)) {
                (Some((low, high)), Some((other_low, other_high))) => {
                    let low = if *other_low < low { other_low.clone() } else { low };
                    let high = if *other_high > high { other_high.clone() } else { high };
                    Some((low, high))
                }
                // Without bounds because there is nothing, or because they would be too long.
                (Some(own), None) => other.all_null(name).then_some(own),
                (None, Some(theirs)) => self.all_null(name).then(|| theirs.clone()),
                (None, None) => None,
            };
            if let Some(both) = both {
                self.bounds.insert(name, both);
            }
        }
        for (name, nulls) in &other.nulls {
            *self.nulls.entry(name).or_default() += nulls;
        }
        self.rows = self.rows.zip(other.rows).map(|(own, theirs)| own + theirs);
    }

    /// Whether every row of the file is null in a column.
    pub(crate) fn all_null(&self, name: &str) -> bool {
        self.rows.is_some() && self.nulls.get(name).copied() == self.rows
    }
}

fn bounds(column: &ArrayRef) -> Option<(ScalarValue, ScalarValue)> {
    Some(match column.data_type() {
        DataType::Utf8 => {
            let texts: &StringArray = column.as_string();
            let (low, high) = min_string(texts).zip(max_string(texts))?;
            if low.len().max(high.len()) > MAX_TEXT_BYTES {
                return None;
            }
            (ScalarValue::from(low), ScalarValue::from(high))
        }
        DataType::Int32 => {
            let ints = column.as_primitive::<Int32Type>();
            (
                ScalarValue::Int32(Some(min(ints)?)),
                ScalarValue::Int32(Some(max(ints)?)),
            )
        }
        DataType::Int64 => {
            let ints = column.as_primitive::<Int64Type>();
            (
                ScalarValue::Int64(Some(min(ints)?)),
                ScalarValue::Int64(Some(max(ints)?)),
            )
        }
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            let times = column.as_primitive::<TimestampMicrosecondType>();
            let scalar = |us| ScalarValue::TimestampMicrosecond(Some(us), zone.clone());
            (scalar(min(times)?), scalar(max(times)?))
        }
        _ => return None,
    })
}

fn to_value(scalar: &ScalarValue) -> Result<Value, ArrowError> {
    Ok(match scalar {
        ScalarValue::Utf8(Some(text)) => json!(text),
        ScalarValue::Int32(Some(int)) => json!(int),
        ScalarValue::Int64(Some(int)) => json!(int),
        other => {
            let array = other
                .to_array()
                .map_err(|error| ArrowError::ComputeError(error.to_string()))?;
            let text = cast(&array, &DataType::Utf8)?;
            json!(text.as_string::<i32>().value(0))
        }
    })
}

fn from_value(value: &Value, kind: &DataType) -> Option<ScalarValue> {
    match kind {
        DataType::Utf8 => value.as_str().map(ScalarValue::from),
        DataType::Int32 => Some(ScalarValue::Int32(Some(i32::try_from(value.as_i64()?).ok()?))),
        DataType::Int64 => Some(ScalarValue::Int64(Some(value.as_i64()?))),
        DataType::Timestamp(..) => {
            let text: ArrayRef = std::sync::Arc::new(StringArray::from(vec![value.as_str()?]));
            let time = cast(&text, kind).ok()?;
            time.is_valid(0).then(|| ScalarValue::try_from_array(&time, 0).ok())?
        }
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, TimestampMicrosecondArray};

    use super::*;
    use crate::physical::Mapping;

    #[test]
    fn statistics_read_back_to_the_microsecond() {
        for us in [
            -62_135_596_800_000_001 / 1000,
            -1,
            0,
            1_763_711_076_123_456,
            i64::MAX / 1000,
        ] {
            let batch = RecordBatch::try_from_iter([
                (
                    "time",
                    Arc::new(TimestampMicrosecondArray::from(vec![us, us]).with_timezone("UTC")) as ArrayRef,
                ),
                ("tenant", Arc::new(StringArray::from(vec!["b", "a"]))),
                ("offset", Arc::new(Int64Array::from(vec![3, 9]))),
            ])
            .unwrap();
            let stats = FileStats::of(&batch).unwrap();
            assert_eq!(
                (stats.texts("tenant"), stats.ints("offset")),
                (Some(("a", "b")), Some((3, 9)))
            );
            assert_eq!(
                FileStats::from_json(&stats.to_json().unwrap(), Mapping::events().physical()),
                stats
            );
        }
    }

    /// What is said of a file that was written piece by piece is what is said of all its rows.
    #[test]
    fn pieces_merge_to_what_all_rows_together_say() {
        let long = "x".repeat(MAX_TEXT_BYTES + 1);
        let names = [Some("b"), None, Some("a"), None, None, Some(long.as_str()), Some("c")];
        let services = [None, None, None, Some("s"), Some("r"), None, Some("t")];
        let rows = RecordBatch::try_from_iter_with_nullable([
            ("name", Arc::new(StringArray::from(names.to_vec())) as ArrayRef, true),
            ("service", Arc::new(StringArray::from(services.to_vec())), true),
            ("offset", Arc::new(Int64Array::from(vec![5, 3, 9, 9, 1, 2, 7])), true),
            ("node", Arc::new(StringArray::from(vec![None::<&str>; 7])), true),
        ])
        .unwrap();
        for size in 1..=7 {
            for upto in 1..=7 {
                let mut pieces = (0..upto).step_by(size).map(|at| rows.slice(at, size.min(upto - at)));
                let mut merged = FileStats::of(&pieces.next().unwrap()).unwrap();
                pieces.for_each(|piece| merged.merge(&FileStats::of(&piece).unwrap()));
                assert_eq!(
                    merged,
                    FileStats::of(&rows.slice(0, upto)).unwrap(),
                    "{upto} rows by {size}"
                );
            }
        }
    }
}
