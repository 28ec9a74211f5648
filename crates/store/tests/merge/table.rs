//! The table as a stranger sees it: the log of Delta and Parquet files, and whether both say what is true.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::compute::{cast, concat_batches, lexsort_to_indices, max, max_string, min, min_string};
use arrow::datatypes::{DataType, Int32Type, Int64Type, TimestampMicrosecondType};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::file::metadata::PageIndexPolicy;
use serde_json::Value;
use sluice_store::cold::Sizes;

fn commits(folder: &Path) -> Vec<String> {
    let log = std::fs::read_dir(folder.join("_delta_log")).unwrap();
    let mut commits: Vec<PathBuf> = log.map(|entry| entry.unwrap().path()).collect();
    commits.retain(|path| path.extension().is_some_and(|extension| extension == "json") && path.is_file());
    commits.sort();
    let read = |path| std::fs::read_to_string(path).unwrap();
    commits.into_iter().map(read).collect()
}

/// The files that the newest version names, with what it says of them.
pub(crate) fn files(folder: &Path) -> BTreeMap<String, Value> {
    let mut files = BTreeMap::new();
    for commit in commits(folder) {
        for line in commit.lines() {
            let action: Value = serde_json::from_str(line).unwrap();
            let path = |action: &Value| action["path"].as_str().unwrap().to_owned();
            if let Some(add) = action.get("add") {
                files.insert(path(add), add.clone());
            } else if let Some(remove) = action.get("remove") {
                files.remove(&path(remove));
            }
        }
    }
    files
}

/// Whether any version ever named a file.
pub(crate) fn was_named(folder: &Path, path: &Path) -> bool {
    let name = path.strip_prefix(folder).unwrap().to_str().unwrap();
    commits(folder).iter().any(|commit| commit.contains(name))
}

/// Parquet files in the folder, whether a version names them or not; what is written aside has other names.
pub(crate) fn on_disk(folder: &Path) -> BTreeSet<PathBuf> {
    let inner = |path: &Path| std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    let days = inner(folder).filter(|path| path.is_dir() && !path.ends_with("_delta_log"));
    days.flat_map(|day| inner(&day).collect::<Vec<_>>()).collect()
}

/// A file's rows as they are stored.
pub(crate) fn read(path: &Path) -> RecordBatch {
    let reader = ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(path).unwrap()).unwrap();
    let schema = reader.schema().clone();
    let batches: Vec<RecordBatch> = reader.build().unwrap().map(Result::unwrap).collect();
    concat_batches(&schema, &batches).unwrap()
}

/// All rows of the table as text, in an order of their own.
pub(crate) fn rows(folder: &Path) -> Vec<String> {
    let mut rows = Vec::new();
    for path in files(folder).keys() {
        let batch = read(&folder.join(path));
        let options = FormatOptions::default().with_null("null");
        let columns: Vec<ArrayFormatter<'_>> = batch
            .columns()
            .iter()
            .map(|column| ArrayFormatter::try_new(column, &options).unwrap())
            .collect();
        let row = |row| columns.iter().map(|column| format!("{}|", column.value(row))).collect();
        rows.extend((0..batch.num_rows()).map(row).collect::<Vec<String>>());
    }
    rows.sort_unstable();
    rows
}

/// Whether every file is as TABLES.md says, and what is said of it is true.
pub(crate) fn check(folder: &Path, sizes: &Sizes) {
    for (path, add) in files(folder) {
        let (path, rows) = (folder.join(&path), read(&folder.join(path)));
        assert_eq!(add["size"].as_u64(), Some(std::fs::metadata(&path).unwrap().len()));
        assert!(rows.num_rows() <= sizes.file_rows);
        check_order(&rows);
        check_day(&rows, &add["partitionValues"]["day"]);
        check_hidden(&rows);
        check_statistics(&rows, &serde_json::from_str(add["stats"].as_str().unwrap()).unwrap());
        check_offsets(
            &rows,
            &serde_json::from_str(add["tags"]["sluice.offsets"].as_str().unwrap()).unwrap(),
        );
        check_parts(&path, &rows, sizes);
    }
}

fn check_order(rows: &RecordBatch) {
    let names = ["tenant", "service", "time", "time_ns", "partition", "offset", "row"];
    let columns = names.map(|name| arrow::compute::SortColumn {
        values: rows[name].clone(),
        options: None,
    });
    let order = lexsort_to_indices(&columns, None).unwrap();
    // Rows that stand equal may have changed places.
    let key = |at: usize| -> Vec<String> {
        let texts = names.iter().map(|name| {
            let column = &rows[*name];
            format!(
                "{:?}",
                column
                    .is_valid(at)
                    .then(|| arrow::util::display::array_value_to_string(column, at).unwrap())
            )
        });
        texts.collect()
    };
    for (at, sorted) in order.values().iter().enumerate() {
        assert_eq!(key(at), key(*sorted as usize), "row {at}");
    }
}

fn check_day(rows: &RecordBatch, day: &Value) {
    let days = cast(&rows["time"], &DataType::Date32).unwrap();
    let days = cast(&days, &DataType::Utf8).unwrap();
    if let Some(day) = day.as_str() {
        assert!(days.as_string::<i32>().iter().all(|of| of == Some(day)));
    }
}

fn check_hidden(rows: &RecordBatch) {
    let signals = rows["signal"].as_string::<i32>();
    let hidden = |at: usize| signals.value(at) == "_batch" || rows["quarantined_by"].is_valid(at);
    assert!((1..rows.num_rows()).all(|at| hidden(at) == hidden(0)));
}

fn check_statistics(rows: &RecordBatch, stats: &Value) {
    assert_eq!(stats["numRecords"].as_u64(), Some(rows.num_rows() as u64));
    let names = "tenant node signal time service name severity quarantined_by partition offset ingested_at";
    for name in names.split(' ') {
        let column = &rows[name];
        assert_eq!(
            stats["nullCount"][name].as_u64(),
            Some(column.null_count() as u64),
            "{name}"
        );
        let said = |side: &str| match &stats[side][name] {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        };
        let text = |int: Option<i64>| int.map(|int| int.to_string());
        let times = |said: Option<String>| {
            let said: ArrayRef = std::sync::Arc::new(StringArray::from(vec![said?]));
            let us = cast(&said, column.data_type()).unwrap();
            Some(us.as_primitive::<TimestampMicrosecondType>().value(0).to_string())
        };
        let (low, high, said_low, said_high) = match column.data_type() {
            DataType::Utf8 => {
                let texts = column.as_string::<i32>();
                let (low, high) = (min_string(texts), max_string(texts));
                let is_long = low.map_or(0, str::len).max(high.map_or(0, str::len)) > 64;
                let known = |text: Option<&str>| text.filter(|_| !is_long).map(str::to_owned);
                (known(low), known(high), said("minValues"), said("maxValues"))
            }
            DataType::Int32 => {
                let ints = column.as_primitive::<Int32Type>();
                let wide = |int: Option<i32>| text(int.map(i64::from));
                (wide(min(ints)), wide(max(ints)), said("minValues"), said("maxValues"))
            }
            DataType::Int64 => {
                let ints = column.as_primitive::<Int64Type>();
                (text(min(ints)), text(max(ints)), said("minValues"), said("maxValues"))
            }
            _ => {
                let us = column.as_primitive::<TimestampMicrosecondType>();
                let said = |side| times(said(side));
                (text(min(us)), text(max(us)), said("minValues"), said("maxValues"))
            }
        };
        assert_eq!((said_low, said_high), (low, high), "{name}");
    }
}

fn check_offsets(rows: &RecordBatch, said: &Value) {
    let mut spans: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
    let ints = |name: &str| rows[name].as_primitive::<Int64Type>().values().to_vec();
    for (partition, offset) in ints("partition").into_iter().zip(ints("offset")) {
        let span = spans.entry(partition).or_insert((offset, offset));
        *span = (span.0.min(offset), span.1.max(offset));
    }
    let spans = spans
        .into_iter()
        .map(|(partition, (first, last))| serde_json::json!({"partition": partition, "first": first, "last": last}));
    assert_eq!(said, &Value::Array(spans.collect()));
}

/// Row groups, pages with an index, compression, and Bloom filters that know every trace.
fn check_parts(path: &Path, rows: &RecordBatch, sizes: &Sizes) {
    let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Required);
    let file = std::fs::File::open(path).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new_with_options(file, options).unwrap();
    let metadata = reader.metadata().clone();
    let groups = metadata.row_groups();
    assert_eq!(groups.len(), rows.num_rows().div_ceil(sizes.group_rows));
    let traced = rows["trace_id"].null_count() < rows.num_rows();
    let (mut first, mut strangers) = (0, 0);
    for (number, group) in groups.iter().enumerate() {
        let count = group.num_rows() as usize;
        assert_eq!(count, sizes.group_rows.min(rows.num_rows() - first));
        for (leaf, column) in group.columns().iter().enumerate() {
            assert!(matches!(column.compression(), parquet::basic::Compression::ZSTD(_)));
            let pages = metadata.offset_index().unwrap()[number][leaf].page_locations();
            if column.num_values() == count as i64 {
                assert!(
                    pages.len() >= count.div_ceil(sizes.page_rows),
                    "{}",
                    column.column_path()
                );
            }
        }
        let leaf = group
            .columns()
            .iter()
            .position(|column| column.column_path().string() == "trace_id");
        let filter = reader.get_row_group_column_bloom_filter(number, leaf.unwrap()).unwrap();
        assert_eq!(filter.is_some(), traced);
        if let Some(filter) = filter {
            let ids = rows["trace_id"].slice(first, count);
            assert!(ids.as_string::<i32>().iter().flatten().all(|id| filter.check(id)));
            strangers += (0..1000)
                .filter(|k| filter.check(format!("stranger {k}").as_str()))
                .count();
        }
        first += count;
    }
    assert_eq!(first, rows.num_rows());
    assert!(strangers <= 10 * groups.len(), "{strangers} of {}", groups.len());
}
