//! The rows of one file piece by piece, so that what is done with a file needs memory for some thousand rows and not for all of them.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use object_store::ObjectStoreExt;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderBuilder, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::file::metadata::RowGroupMetaData;

use super::files::EncodeError;
use super::maintain::adapt;
use super::version::ColdFile;
use super::{ColdTable, CommitError};
use crate::physical::Mapping;
use crate::rows::RowsError;

/// Rows of one piece.
const PIECE_ROWS: usize = 8 << 10;

/// Rows of a file as columns of the table, in the order of the file.
pub(super) struct Pieces {
    reader: ParquetRecordBatchReader,
    mapping: Mapping,
    columns: Vec<usize>,
    logical: SchemaRef,
    stored: SchemaRef,
    /// Rows with a trace id.
    traced: usize,
}

impl Pieces {
    /// `names`: these columns alone; `None`: all.
    pub(super) fn of(mapping: &Mapping, file: Bytes, names: Option<&[&str]>) -> Result<Self, EncodeError> {
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
        let builder = ParquetRecordBatchReaderBuilder::try_new(file)?;
        let traced = traced(&builder);
        let wanted = stored.fields().iter().map(|field| field.name().as_str());
        let mask = ProjectionMask::columns(builder.parquet_schema(), wanted);
        let reader = builder.with_projection(mask).with_batch_size(PIECE_ROWS).build()?;
        Ok(Self {
            reader,
            mapping: mapping.clone(),
            columns,
            logical,
            stored,
            traced,
        })
    }

    pub(super) fn traced(&self) -> usize {
        self.traced
    }

    fn adapt(&self, stored: &RecordBatch) -> Result<RecordBatch, EncodeError> {
        let stored = adapt(stored, &self.stored)?;
        Ok(self.mapping.to_logical(&self.columns, &self.logical, &stored)?)
    }
}

impl Iterator for Pieces {
    type Item = Result<RecordBatch, EncodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        let stored = self.reader.next()?;
        Some(stored.map_err(EncodeError::from).and_then(|stored| self.adapt(&stored)))
    }
}

/// As far as the file's own statistics say it; unknown counts as all.
fn traced<T>(builder: &ArrowReaderBuilder<T>) -> usize {
    let groups = builder.metadata().row_groups().iter();
    let in_group = |group: &RowGroupMetaData| {
        let rows = usize::try_from(group.num_rows()).unwrap_or_default();
        let column = group
            .columns()
            .iter()
            .find(|column| column.column_path().string() == "trace_id");
        let nulls = column.and_then(|column| column.statistics()?.null_count_opt());
        let nulls = if column.is_none() {
            Some(group.num_rows().unsigned_abs())
        } else {
            nulls
        };
        rows.saturating_sub(usize::try_from(nulls.unwrap_or(0)).unwrap_or_default())
    };
    groups.map(in_group).sum()
}

impl ColdTable {
    /// The bytes of a file, compressed as they lie there.
    pub(super) async fn bytes_of(&self, file: &ColdFile) -> Result<Bytes, CommitError> {
        Ok(self.store().get(&file.path).await?.bytes().await?)
    }
}
