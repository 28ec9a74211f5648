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
use parquet::file::page_index::offset_index::OffsetIndexMetaData;

use super::door::Door;
use super::files::EncodeError;
use super::ranges::{GroupBytes, WINDOW_BYTES};
use super::version::ColdFile;
use super::weight::{of_longest, unsigned};
use crate::physical::Mapping;
use crate::rows::RowsError;

/// Rows of one piece.
pub(super) const PIECE_ROWS: usize = 8 << 10;
/// Bytes of the columns of one piece, about: pieces of long rows have fewer.
pub(super) const PIECE_BYTES: u64 = 2 << 20;
/// Rows of a piece, however long they are: one long row must not make a piece of each row beside it.
const LEAST_ROWS: usize = 8;
/// What a reader keeps of one column: the values of a page, and the dictionary.
const PAGE_BYTES: u64 = 2 << 20;
/// What a reader keeps of one column for decompressing, whatever there is in it.
const CODEC_BYTES: u64 = 192 << 10;
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
    /// Bytes of a row of each row group, where its rows are longest.
    longest: Vec<u64>,
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
        let mut bare = metadata.into_builder();
        let index = bare.take_offset_index();
        let metadata = ArrowReaderMetadata::try_new(Arc::new(bare.build()), ArrowReaderOptions::new())?;
        let wanted = stored.fields().iter().map(|field| field.name().as_str());
        let mask = ProjectionMask::columns(metadata.parquet_schema(), wanted);
        let mut pieces = Self {
            door: door.clone(),
            file: Arc::clone(file),
            metadata,
            tail: (tail.0 == 0).then_some(tail),
            mask,
            reader: None,
            next_group: 0,
            longest: Vec::new(),
            mapping: mapping.clone(),
            columns,
            logical,
            stored,
        };
        let groups = pieces.groups().iter().enumerate();
        let index_of = |number: usize| index.as_ref().and_then(|index| index.get(number));
        pieces.longest = groups
            .map(|(number, group)| pieces.longest(group, index_of(number).map(Vec::as_slice)))
            .collect();
        Ok(pieces)
    }

    /// Rows with a trace id, as far as the file's own statistics say it; unknown counts as all.
    pub(super) fn traced(&self) -> usize {
        self.groups().iter().map(traced).sum()
    }

    /// Bytes of memory that reading the file takes, about.
    pub(super) fn cost(&self) -> u64 {
        let of_group = |(number, group): (usize, &RowGroupMetaData)| {
            let (mut compressed, mut pages) = (0, 0);
            for column in self.columns_of(group) {
                compressed += column.byte_range().1;
                pages += unsigned(column.uncompressed_size()).min(PAGE_BYTES) + CODEC_BYTES;
            }
            let piece = self.longest[number].saturating_mul(2 * self.rows_of(number) as u64);
            // A piece is read into what grows by doubling.
            (compressed.min(WINDOW_BYTES) + pages).saturating_add(piece)
        };
        let largest = self.groups().iter().enumerate().map(of_group).max().unwrap_or_default();
        largest.saturating_add(self.metadata.metadata().memory_size() as u64)
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

    /// Bytes of a row in memory, where rows are longest.
    fn longest(&self, group: &RowGroupMetaData, index: Option<&[OffsetIndexMetaData]>) -> u64 {
        let of_column = |leaf: usize| {
            let index = index.and_then(|index| index.get(leaf));
            of_longest(group.column(leaf), index, unsigned(group.num_rows()))
        };
        self.leaves_of(group)
            .into_iter()
            .map(of_column)
            .fold(0, u64::saturating_add)
    }

    /// Rows of a piece of a row group.
    fn rows_of(&self, group: usize) -> usize {
        let rows = usize::try_from(PIECE_BYTES / self.longest[group].max(1));
        rows.map_or(PIECE_ROWS, |rows| rows.clamp(LEAST_ROWS, PIECE_ROWS))
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
        let rows = self.rows_of(self.next_group);
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
    let mut decoder = ParquetMetaDataPushDecoder::try_new(file.bytes)?
        .with_column_index_policy(PageIndexPolicy::Skip)
        .with_offset_index_policy(PageIndexPolicy::Optional);
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
