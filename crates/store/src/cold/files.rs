//! Rows as Parquet files: which rows go into which file, and files that are written piece by piece.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::Date32Type;
use arrow::error::ArrowError;
use bytes::Bytes;
use deltalake::kernel::Add;
use object_store::path::Path;
use parquet::arrow::ArrowWriter;
use parquet::errors::ParquetError;

use super::commit::now_ms;
use super::door::{Door, PART_BYTES};
use super::format::Sizes;
use super::order::{arrange, gather, traced};
use super::stats::FileStats;
use super::stream::PIECE_ROWS;
use super::version::OFFSETS_TAG;
use super::weight::of_rows;
use crate::physical::{DAY, Mapping};
use crate::rows::{self, RowsError};

/// What Delta calls a partition directory without a value.
const NO_DAY: &str = "__HIVE_DEFAULT_PARTITION__";

/// Why rows could not be encoded.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    #[error(transparent)]
    Rows(#[from] RowsError),
    #[error("arranging rows")]
    Arrow(#[from] ArrowError),
    #[error("encoding Parquet")]
    Parquet(#[from] ParquetError),
    #[error("file {input} of those to merge is not in the order of the table")]
    Unsorted { input: usize },
    #[error("file {input} of those to merge cannot be read")]
    Unreadable {
        input: usize,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Bytes of rows that are encoded at once: only between two times is it seen that a dictionary or a page has become too large.
const STEP_BYTES: u64 = 2 << 20;

/// How the files of a table are made.
#[derive(Clone, Debug)]
pub(super) struct Making {
    pub(super) mapping: Mapping,
    pub(super) sizes: Sizes,
}

/// A file that is written, and that no version names yet.
#[derive(Debug)]
pub(super) struct NewFile {
    path: Path,
    /// `2026-11-21`; `None` for rows of scattered days.
    day: Option<String>,
    bytes: u64,
    stats: FileStats,
    offsets: Vec<OffsetSpan>,
}

/// First and last offset of the rows of one partition in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct OffsetSpan {
    pub(crate) partition: i64,
    pub(crate) first: i64,
    pub(crate) last: i64,
}

/// Writes rows as files: by day, and by whether `events` shows them, so that scans of `events` never open a file of ledger rows.
pub(super) fn encode(door: &Door, making: &Making, batches: &[RecordBatch]) -> Result<Vec<NewFile>, EncodeError> {
    let mut files = Vec::new();
    for ((day, _hidden), places) in arrange(batches)? {
        let day = day.map(day_text).transpose()?;
        for places in places.chunks(making.sizes.file_rows) {
            let mut writer = FileWriter::new(door, making, day.clone(), traced(batches, places))?;
            for places in places.chunks(PIECE_ROWS) {
                writer.add(&gather(batches, places)?)?;
            }
            files.extend(writer.finish()?);
        }
    }
    Ok(files)
}

/// A file that is written piece by piece: rows in the order of a file.
pub(super) struct FileWriter {
    writer: ArrowWriter<Output>,
    mapping: Mapping,
    path: Path,
    day: Option<String>,
    stats: Option<FileStats>,
    spans: BTreeMap<i64, OffsetSpan>,
}

impl FileWriter {
    /// `traced`: at most so many rows with a trace id.
    pub(super) fn new(door: &Door, making: &Making, day: Option<String>, traced: usize) -> Result<Self, EncodeError> {
        let folder = day.as_deref().unwrap_or(NO_DAY);
        let path = Path::from(format!("{DAY}={folder}/{}.parquet", uuid::Uuid::new_v4()));
        let output = Output {
            door: door.clone(),
            path: path.clone(),
            part: Vec::new(),
            sent: 0,
        };
        let schema = Arc::clone(making.mapping.physical());
        Ok(Self {
            writer: ArrowWriter::try_new(output, schema, Some(making.sizes.properties(traced)?))?,
            mapping: making.mapping.clone(),
            path,
            day,
            stats: None,
            spans: BTreeMap::new(),
        })
    }

    pub(super) fn add(&mut self, rows: &RecordBatch) -> Result<(), EncodeError> {
        self.add_stored(&self.mapping.to_physical(rows)?)
    }

    pub(super) fn add_stored(&mut self, stored: &RecordBatch) -> Result<(), EncodeError> {
        if stored.num_rows() == 0 {
            return Ok(());
        }
        let stats = FileStats::of(stored)?;
        match &mut self.stats {
            Some(all) => all.merge(&stats),
            none => *none = Some(stats),
        }
        add_spans(&mut self.spans, stored)?;
        self.encode(stored)
    }

    fn encode(&mut self, rows: &RecordBatch) -> Result<(), EncodeError> {
        let half = rows.num_rows() / 2;
        if half == 0 || of_rows(rows) <= STEP_BYTES {
            return Ok(self.writer.write(rows)?);
        }
        self.encode(&rows.slice(0, half))?;
        self.encode(&rows.slice(half, rows.num_rows() - half))
    }

    /// `None`: there was no row, and there is no file.
    pub(super) fn finish(self) -> Result<Option<NewFile>, EncodeError> {
        let Some(stats) = self.stats else {
            return Ok(None);
        };
        Ok(Some(NewFile {
            path: self.path,
            day: self.day,
            bytes: self.writer.into_inner()?.finish()?,
            stats,
            offsets: self.spans.into_values().collect(),
        }))
    }
}

impl NewFile {
    /// What a version says of the file.
    pub(super) fn into_add(self, data_change: bool) -> Result<Add, EncodeError> {
        let offsets = serde_json::to_string(&self.offsets).ok();
        Ok(Add {
            path: self.path.to_string(),
            partition_values: HashMap::from([(DAY.to_owned(), self.day)]),
            size: i64::try_from(self.bytes).unwrap_or(i64::MAX),
            modification_time: now_ms(),
            data_change,
            stats: Some(self.stats.to_json()?),
            tags: Some(HashMap::from([(OFFSETS_TAG.to_owned(), offsets)])),
            ..Add::default()
        })
    }
}

pub(super) fn into_adds(files: Vec<NewFile>, data_change: bool) -> Result<Vec<Add>, EncodeError> {
    files.into_iter().map(|file| file.into_add(data_change)).collect()
}

fn add_spans(spans: &mut BTreeMap<i64, OffsetSpan>, rows: &RecordBatch) -> Result<(), RowsError> {
    let (partitions, offsets) = (rows::ints(rows, "partition")?, rows::ints(rows, "offset")?);
    let mut places = partitions.values().iter().zip(offsets.values()).peekable();
    while let Some((&partition, &offset)) = places.next() {
        let (mut first, mut last) = (offset, offset);
        while let Some((_, &offset)) = places.next_if(|(next, _)| **next == partition) {
            (first, last) = (first.min(offset), last.max(offset));
        }
        let span = OffsetSpan { partition, first, last };
        let all = spans.entry(partition).or_insert(span);
        (all.first, all.last) = (all.first.min(first), all.last.max(last));
    }
    Ok(())
}

/// Hands out a file part by part as it is encoded.
struct Output {
    door: Door,
    path: Path,
    part: Vec<u8>,
    sent: u64,
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // The last part may be small, but there must be one.
        if self.part.len() == PART_BYTES && !bytes.is_empty() {
            let part = std::mem::replace(&mut self.part, Vec::with_capacity(PART_BYTES));
            self.sent += part.len() as u64;
            self.door
                .write(&self.path, part.into(), false)
                .map_err(io::Error::other)?;
        }
        let count = bytes.len().min(PART_BYTES - self.part.len());
        self.part.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Output {
    /// Returns the bytes of the file, when it is durable.
    fn finish(self) -> Result<u64, EncodeError> {
        let bytes = self.sent + self.part.len() as u64;
        self.door.write(&self.path, Bytes::from(self.part), true)?;
        Ok(bytes)
    }
}

fn day_text(day: i32) -> Result<String, ArrowError> {
    Date32Type::to_naive_date_opt(day)
        .map(|date| date.to_string())
        .ok_or_else(|| ArrowError::ComputeError(format!("day {day} is outside the calendar")))
}
