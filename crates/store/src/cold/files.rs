//! Rows as Parquet files: which rows go into which file, in which order, and how they are encoded.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, UInt32Array};
use arrow::compute::{SortColumn, SortOptions, concat_batches, lexsort_to_indices, take_record_batch};
use arrow::datatypes::{Date32Type, TimestampNanosecondType};
use arrow::error::ArrowError;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use super::stats::FileStats;
use crate::physical::Mapping;
use crate::rows::{self, RowsError};

/// Rows of one file; larger commits are cut.
const MAX_FILE_ROWS: usize = 1 << 20;
/// Small enough that bounds of a row group say something, large enough for columns to compress.
const ROW_GROUP_ROWS: usize = 64 << 10;
const PAGE_ROWS: usize = 8 << 10;
/// Of the row groups that a trace is not in, the share that is read all the same. A table has thousands of them; ten times as many errors
/// would save a seventh of the filter's bits, and mostly no byte, as sizes are powers of two.
const BLOOM_ERRORS: f64 = 0.001;
/// Days of one commit that get files of their own. Senders choose event times, and must not be able to make a file per row: the
/// rows of further days share files without a day.
const MAX_DAYS: usize = 32;
const NANOS_PER_DAY: i64 = 86_400_000_000_000;
const ZSTD_LEVEL: i32 = 3;

/// Rows are ordered by these, so that equal values meet and bounds are narrow.
const ORDER: [&str; 6] = ["tenant", "service", "time", "partition", "offset", "row"];

/// Why rows could not be encoded.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    #[error(transparent)]
    Rows(#[from] RowsError),
    #[error("arranging rows")]
    Arrow(#[from] ArrowError),
    #[error("encoding Parquet")]
    Parquet(#[from] ParquetError),
}

/// A file that is not written yet.
#[derive(Debug)]
pub(crate) struct NewFile {
    /// `2026-11-21`; `None` for rows of scattered days.
    pub(crate) day: Option<String>,
    pub(crate) bytes: Bytes,
    pub(crate) stats: FileStats,
    pub(crate) offsets: Vec<OffsetSpan>,
}

/// First and last offset of the rows of one partition in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct OffsetSpan {
    pub(crate) partition: i64,
    pub(crate) first: i64,
    pub(crate) last: i64,
}

/// Encodes rows as files: by day, and by whether `events` shows them, so that scans of `events` never open a file of ledger rows.
pub(crate) fn encode(mapping: &Mapping, batches: &[RecordBatch]) -> Result<Vec<NewFile>, EncodeError> {
    let rows = concat_batches(mapping.logical(), batches)?;
    let mut files = Vec::new();
    for ((day, _hidden), indices) in group(&rows)? {
        let part = sort(&take_record_batch(&rows, &UInt32Array::from(indices))?)?;
        for start in (0..part.num_rows()).step_by(MAX_FILE_ROWS) {
            let piece = part.slice(start, MAX_FILE_ROWS.min(part.num_rows() - start));
            let stored = mapping.to_physical(&piece)?;
            files.push(NewFile {
                day: day.map(day_text).transpose()?,
                bytes: write(&stored)?,
                stats: FileStats::of(&stored)?,
                offsets: spans(&piece)?,
            });
        }
    }
    Ok(files)
}

type Group = (Option<i32>, bool);

fn group(batch: &RecordBatch) -> Result<BTreeMap<Group, Vec<u32>>, RowsError> {
    let signals = rows::texts(batch, "signal")?;
    let quarantined = batch.column_by_name("quarantined_by").ok_or(RowsError::Schema)?;
    let times = batch
        .column_by_name("time")
        .and_then(|c| c.as_primitive_opt::<TimestampNanosecondType>())
        .ok_or(RowsError::Schema)?;
    let day_of = |row: usize| times.value(row).div_euclid(NANOS_PER_DAY) as i32;

    let mut sizes: BTreeMap<i32, usize> = BTreeMap::new();
    for row in 0..batch.num_rows() {
        *sizes.entry(day_of(row)).or_default() += 1;
    }
    let mut largest: Vec<(usize, i32)> = sizes.into_iter().map(|(day, rows)| (rows, day)).collect();
    largest.sort_unstable_by(|a, b| b.cmp(a));
    let own: BTreeSet<i32> = largest.into_iter().take(MAX_DAYS).map(|(_, day)| day).collect();

    let mut groups: BTreeMap<Group, Vec<u32>> = BTreeMap::new();
    for row in 0..batch.num_rows() {
        let day = Some(day_of(row)).filter(|day| own.contains(day));
        groups
            .entry((day, rows::is_hidden(signals, quarantined, row)))
            .or_default()
            .push(row as u32);
    }
    Ok(groups)
}

fn sort(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let options = Some(SortOptions {
        descending: false,
        nulls_first: true,
    });
    let columns: Vec<SortColumn> = ORDER
        .iter()
        .filter_map(|name| batch.column_by_name(name))
        .map(|values| SortColumn {
            values: Arc::clone(values),
            options,
        })
        .collect();
    take_record_batch(batch, &lexsort_to_indices(&columns, None)?)
}

fn spans(batch: &RecordBatch) -> Result<Vec<OffsetSpan>, RowsError> {
    let (partitions, offsets) = (rows::ints(batch, "partition")?, rows::ints(batch, "offset")?);
    let mut spans: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
    for (partition, offset) in partitions.values().iter().zip(offsets.values()) {
        let span = spans.entry(*partition).or_insert((*offset, *offset));
        *span = (span.0.min(*offset), span.1.max(*offset));
    }
    Ok(spans
        .into_iter()
        .map(|(partition, (first, last))| OffsetSpan { partition, first, last })
        .collect())
}

fn write(stored: &RecordBatch) -> Result<Bytes, ParquetError> {
    let traced = stored
        .column_by_name("trace_id")
        .map_or(0, |ids| ids.len() - ids.null_count());
    let mut writer = ArrowWriter::try_new(Vec::new(), stored.schema(), Some(properties(traced)?))?;
    writer.write(stored)?;
    Ok(Bytes::from(writer.into_inner()?))
}

/// How files are written; `traced` rows have a trace id.
fn properties(traced: usize) -> Result<WriterProperties, ParquetError> {
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_write_batch_size(PAGE_ROWS / 8)
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_created_by(concat!("sluice ", env!("CARGO_PKG_VERSION")).to_owned());
    if traced > 0 {
        // Bounds of random ids exclude nothing; a Bloom filter does.
        let path = ColumnPath::from("trace_id");
        let distinct = traced.min(ROW_GROUP_ROWS) as u64;
        properties = properties
            .set_column_bloom_filter_enabled(path.clone(), true)
            .set_column_bloom_filter_fpp(path.clone(), BLOOM_ERRORS)
            .set_column_bloom_filter_max_ndv(path, distinct);
    }
    Ok(properties.build())
}

/// A file that is written piece by piece: rows of one file in their order, some of them left out.
pub(super) struct FileWriter {
    writer: ArrowWriter<Vec<u8>>,
    mapping: Mapping,
    day: Option<String>,
    stats: Option<FileStats>,
    spans: BTreeMap<i64, OffsetSpan>,
}

impl FileWriter {
    /// `traced`: at most so many rows with a trace id.
    pub(super) fn new(mapping: &Mapping, day: Option<String>, traced: usize) -> Result<Self, EncodeError> {
        let schema = Arc::clone(mapping.physical());
        Ok(Self {
            writer: ArrowWriter::try_new(Vec::new(), schema, Some(properties(traced)?))?,
            mapping: mapping.clone(),
            day,
            stats: None,
            spans: BTreeMap::new(),
        })
    }

    pub(super) fn add(&mut self, rows: &RecordBatch) -> Result<(), EncodeError> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let stored = self.mapping.to_physical(rows)?;
        let stats = FileStats::of(&stored)?;
        match &mut self.stats {
            Some(all) => all.merge(&stats),
            none => *none = Some(stats),
        }
        for span in spans(rows)? {
            let all = self.spans.entry(span.partition).or_insert(span);
            (all.first, all.last) = (all.first.min(span.first), all.last.max(span.last));
        }
        Ok(self.writer.write(&stored)?)
    }

    /// `None`: there was no row.
    pub(super) fn finish(self) -> Result<Option<NewFile>, EncodeError> {
        let Some(stats) = self.stats else {
            return Ok(None);
        };
        Ok(Some(NewFile {
            day: self.day,
            bytes: Bytes::from(self.writer.into_inner()?),
            stats,
            offsets: self.spans.into_values().collect(),
        }))
    }
}

fn day_text(day: i32) -> Result<String, ArrowError> {
    Date32Type::to_naive_date_opt(day)
        .map(|date| date.to_string())
        .ok_or_else(|| ArrowError::ComputeError(format!("day {day} is outside the calendar")))
}
