//! The rows of one file piece by piece, so that what is done with a file needs memory for some thousand rows and not for all of them.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{RecordBatch, new_null_array};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use bytes::Bytes;
use parquet::DecodeResult;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::{
    ColumnChunkMetaData, PageIndexPolicy, ParquetMetaData, ParquetMetaDataPushDecoder, RowGroupMetaData,
};

use super::door::Door;
use super::files::EncodeError;
use super::ranges::{GroupBytes, WINDOW_BYTES};
use super::version::ColdFile;
use crate::physical::Mapping;
use crate::rows::RowsError;

/// Rows of one piece.
pub(super) const PIECE_ROWS: usize = 8 << 10;
/// Bytes of the columns of one piece, about: pieces of long rows have fewer.
pub(super) const PIECE_BYTES: u64 = 2 << 20;
/// What a reader keeps of one column: the values of a page, and the dictionary.
const PAGE_BYTES: u64 = 2 << 20;
/// What a reader keeps of one column for decompressing, whatever there is in it.
const CODEC_BYTES: u64 = 192 << 10;
/// Bytes that a value takes in memory beside its text, with room for its place in a list.
const VALUE_BYTES: u64 = 16;
/// The end of a file that is read at once: the footer of a usual file, and all of a small one.
const TAIL_BYTES: u64 = 64 << 10;

/// Rows of a file as columns of the table, in the order of the file.
pub(super) struct Pieces {
    door: Door,
    file: Arc<ColdFile>,
    metadata: ArrowReaderMetadata,
    /// All of a small file.
    tail: Option<(u64, Bytes)>,
    /// The columns that are asked for.
    mask: ProjectionMask,
    reader: Option<ParquetRecordBatchReader>,
    next_group: usize,
    mapping: Mapping,
    columns: Vec<usize>,
    logical: SchemaRef,
    stored: SchemaRef,
}

impl Pieces {
    /// `names`: these columns alone; `None`: all.
    pub(super) fn open(
        door: &Door,
        mapping: &Mapping,
        file: &Arc<ColdFile>,
        names: Option<&[&str]>,
    ) -> Result<Self, EncodeError> {
        let columns: Vec<usize> = match names {
            None => (0..mapping.logical().fields().len()).collect(),
            Some(names) => {
                let index = |name: &&str| mapping.logical().index_of(name).map_err(|_| RowsError::Schema);
                names.iter().map(index).collect::<Result<_, _>>()?
            }
        };
        let indices = mapping.physical_indices(&columns);
        let stored = Arc::new(mapping.physical().project(&indices)?);
        let logical = Arc::new(mapping.logical().project(&columns)?);
        let (metadata, tail) = footer(door, file)?;
        let metadata = ArrowReaderMetadata::try_new(Arc::new(metadata), ArrowReaderOptions::new())?;
        let wanted = stored.fields().iter().map(|field| field.name().as_str());
        let mask = ProjectionMask::columns(metadata.parquet_schema(), wanted);
        Ok(Self {
            door: door.clone(),
            file: Arc::clone(file),
            metadata,
            tail: (tail.0 == 0).then_some(tail),
            mask,
            reader: None,
            next_group: 0,
            mapping: mapping.clone(),
            columns,
            logical,
            stored,
        })
    }

    /// Rows with a trace id, as far as the file's own statistics say it; unknown counts as all.
    pub(super) fn traced(&self) -> usize {
        self.groups().iter().map(traced).sum()
    }

    /// Bytes of memory that reading the file takes, about.
    pub(super) fn cost(&self) -> u64 {
        let of_group = |group: &RowGroupMetaData| {
            let (mut compressed, mut pages) = (0, 0);
            for column in self.columns_of(group) {
                compressed += column.byte_range().1;
                pages += unsigned(column.uncompressed_size()).min(PAGE_BYTES) + CODEC_BYTES;
            }
            let decoded = self.decoded(group) / unsigned(group.num_rows()).max(1);
            compressed.min(WINDOW_BYTES) + pages + (decoded * self.rows_of(group) as u64)
        };
        let largest = self.groups().iter().map(of_group).max().unwrap_or_default();
        largest + self.metadata.metadata().memory_size() as u64
    }

    fn groups(&self) -> &[RowGroupMetaData] {
        self.metadata.metadata().row_groups()
    }

    /// The columns of a row group that are read: a column without a value need not be, and most of a log's are.
    fn leaves_of(&self, group: &RowGroupMetaData) -> Vec<usize> {
        let all = 0..group.num_columns();
        // A list or map that is never null is empty where an optional one would be null.
        let may_be_left_out = |leaf: usize| {
            self.metadata.parquet_schema().get_column_root(leaf).is_optional() && is_null(group.column(leaf))
        };
        all.filter(|leaf| self.mask.leaf_included(*leaf) && !may_be_left_out(*leaf))
            .collect()
    }

    fn columns_of<'a>(&self, group: &'a RowGroupMetaData) -> impl Iterator<Item = &'a ColumnChunkMetaData> {
        self.leaves_of(group).into_iter().map(|leaf| group.column(leaf))
    }

    /// Bytes of the columns of a row group in memory.
    fn decoded(&self, group: &RowGroupMetaData) -> u64 {
        let in_column = |column: &ColumnChunkMetaData| {
            let texts = column.unencoded_byte_array_data_bytes();
            let bytes = unsigned(texts.unwrap_or_else(|| column.uncompressed_size()));
            bytes.saturating_add(unsigned(column.num_values()).saturating_mul(VALUE_BYTES))
        };
        self.columns_of(group).map(in_column).sum()
    }

    /// Rows of a piece of a row group.
    fn rows_of(&self, group: &RowGroupMetaData) -> usize {
        let by_row = self.decoded(group) / unsigned(group.num_rows()).max(1);
        usize::try_from(PIECE_BYTES / by_row.max(1)).map_or(PIECE_ROWS, |rows| rows.clamp(1, PIECE_ROWS))
    }

    /// A reader of the next row group.
    fn open_group(&mut self) -> Result<Option<ParquetRecordBatchReader>, EncodeError> {
        let Some(group) = self.groups().get(self.next_group) else {
            return Ok(None);
        };
        let range = |column: &ColumnChunkMetaData| {
            let (start, length) = column.byte_range();
            start..start.saturating_add(length)
        };
        let ranges = self.columns_of(group).map(range).collect();
        let mask = ProjectionMask::leaves(self.metadata.parquet_schema(), self.leaves_of(group));
        let rows = self.rows_of(group);
        let bytes = GroupBytes::new(&self.door, &self.file.path, self.file.bytes, ranges, self.tail.clone());
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(bytes, self.metadata.clone())
            .with_row_groups(vec![self.next_group])
            .with_projection(mask)
            .with_batch_size(rows)
            .build()?;
        self.next_group += 1;
        Ok(Some(reader))
    }

    /// The next rows as they are stored, with all columns of today.
    pub(super) fn next_stored(&mut self) -> Option<Result<RecordBatch, EncodeError>> {
        loop {
            if let Some(piece) = self.reader.as_mut().and_then(Iterator::next) {
                return Some(
                    piece
                        .and_then(|piece| adapt(&piece, &self.stored))
                        .map_err(EncodeError::from),
                );
            }
            // What is held of a row group goes before the next one is read.
            self.reader = None;
            match self.open_group() {
                Ok(Some(reader)) => self.reader = Some(reader),
                Ok(None) => return None,
                Err(error) => {
                    self.next_group = usize::MAX;
                    return Some(Err(error));
                }
            }
        }
    }
}

impl Iterator for Pieces {
    type Item = Result<RecordBatch, EncodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        let stored = self.next_stored()?;
        let logical = |stored| {
            let made = self.mapping.to_logical(&self.columns, &self.logical, &stored);
            made.map_err(EncodeError::from)
        };
        Some(stored.and_then(logical))
    }
}

/// What a file says of itself, and the end of it that was read.
fn footer(door: &Door, file: &ColdFile) -> Result<(ParquetMetaData, (u64, Bytes)), EncodeError> {
    let mut decoder = ParquetMetaDataPushDecoder::try_new(file.bytes)?.with_page_index_policy(PageIndexPolicy::Skip);
    let end = file.bytes.saturating_sub(TAIL_BYTES)..file.bytes;
    let read = |ranges: Vec<Range<u64>>| Ok::<_, EncodeError>(door.read(&file.path, ranges)?);
    let tail = read(vec![end.clone()])?.pop().unwrap_or_default();
    decoder.push_range(end.clone(), tail.clone())?;
    loop {
        match decoder.try_decode()? {
            DecodeResult::Data(metadata) => return Ok((metadata, (end.start, tail))),
            DecodeResult::NeedsData(ranges) => {
                let bytes = read(ranges.clone())?;
                decoder.push_ranges(ranges, bytes)?;
            }
            DecodeResult::Finished => return Err(ParquetError::EOF("the footer ended early".to_owned()).into()),
        }
    }
}

fn traced(group: &RowGroupMetaData) -> usize {
    let columns = &mut group.columns().iter();
    let column = columns.find(|column| column.column_path().string() == "trace_id");
    let nulls = match column {
        Some(column) => column.statistics().and_then(|of| of.null_count_opt()).unwrap_or(0),
        None => unsigned(group.num_rows()),
    };
    usize::try_from(unsigned(group.num_rows()).saturating_sub(nulls)).unwrap_or(usize::MAX)
}

/// Whether all rows are null, and none is an empty list or map.
fn is_null(column: &ColumnChunkMetaData) -> bool {
    let values = unsigned(column.num_values());
    if column.column_descr().max_rep_level() == 0 && column.column_descr().max_def_level() == 1 {
        return column.statistics().and_then(|of| of.null_count_opt()) == Some(values);
    }
    let levels = column.definition_level_histogram();
    levels.and_then(|levels| levels.get(0)).map(unsigned) == Some(values) && values > 0
}

fn unsigned(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}

/// A file of an older version lacks newer columns.
fn adapt(stored: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let columns = schema
        .fields()
        .iter()
        .map(|field| match stored.column_by_name(field.name()) {
            Some(column) if column.data_type() == field.data_type() => Ok(Arc::clone(column)),
            Some(column) => arrow::compute::cast(column, field.data_type()),
            None => Ok(new_null_array(field.data_type(), stored.num_rows())),
        });
    RecordBatch::try_new(Arc::clone(schema), columns.collect::<Result<_, _>>()?)
}
